/**
 * Parses the lines of `generate --requests` to checked requests or errors. No files are opened, and ranges of options are
 * checked by generate().
 */
import { unknownName } from "../../../tensor/arguments.ts";
import { InputError } from "../../../tensor/errors.ts";
import { parseJson } from "../../config/json_file.ts";
import { jsonMistake } from "../../config/json_text.ts";
import { EmbeddedImage } from "../../data/row.ts";
import type { ImageSource } from "../../evaluation/task.ts";
import { type GenerationOptions, refuseUnknownOptions } from "../../generation/options.ts";
import { checkInterventions, type Intervention } from "../../interventions/intervention.ts";
import { isWorthARetry } from "../format.ts";

/** The request's id, which its answer repeats; null if it has none. */
export type RequestId = string | number | null;

/** One batch: the i-th prompt is asked about the i-th image, or about all of the i-th list. */
export interface Request {
  readonly images: readonly ImageSource[] | readonly (readonly ImageSource[])[];
  readonly prompts: readonly string[];
  readonly generation: GenerationOptions;
  /** Texts to rank instead of generating, for each prompt. */
  readonly candidates?: readonly (readonly string[])[];
  readonly interventions?: readonly Intervention[];
}

/** A parsed line, or its error. */
export type ParsedLine = { readonly id: RequestId } & (
  | { readonly request: Request; readonly error?: undefined }
  | { readonly request?: undefined; readonly error: InputError }
);

/** Longest line. */
export const MAX_LINE_BYTES = 2 ** 20;

const FIELDS = ["id", "images", "prompts", "generation", "candidates", "interventions"];
const FIELD_HINTS: Readonly<Record<string, string>> = {
  image: 'write "images": ["image.png"]',
  prompt: 'write "prompts": ["What is this?"]',
  text: 'write "prompts": ["What is this?"]',
};

/** Every line of an answer has one of these fields. */
const ANSWERED = ["sequences", "ranked", "error"];

/** Options that would make generate() return something else than sequences. */
const NOT_IN_A_LINE = ["return_dict_in_generate", "output_scores", "output_logits"];

/**
 * Parses one line. Codes: BAD_JSON, BAD_REQUEST, UNKNOWN_FIELD, BAD_PROMPT, BATCH_MISMATCH, UNKNOWN_OPTION,
 * UNSUPPORTED_OPTION, and those of checkInterventions.
 */
export function parseRequest(text: string): ParsedLine {
  let value: unknown;
  try {
    value = parseJson(text);
  } catch (error) {
    const message = `the line is not valid JSON: ${jsonMistake(text, error as Error)}`;
    return { id: null, error: new InputError("BAD_JSON", message) };
  }
  return requestOf(value);
}

/** Checks a request. Codes: those of {@link parseRequest} but BAD_JSON. */
export function requestOf(value: unknown): ParsedLine {
  if (!isObject(value)) {
    return { id: null, error: new InputError("BAD_REQUEST", `a request must be an object, got ${kindOf(value)}`) };
  }
  const id = Object.hasOwn(value, "id") ? value.id : null;
  const idFits = id === null || typeof id === "string" || (typeof id === "number" && Number.isFinite(id));
  try {
    if (!idFits) throw new InputError("BAD_REQUEST", `id must be a string or a number, got ${kindOf(id)}`);
    return { id: id as RequestId, request: check(value) };
  } catch (error) {
    return { id: idFits ? (id as RequestId) : null, error: error as InputError };
  }
}

function check(value: Record<string, unknown>): Request {
  const unknown = Object.keys(value).find((name) => !FIELDS.includes(name));
  if (unknown !== undefined) {
    const hint = Object.hasOwn(FIELD_HINTS, unknown) ? FIELD_HINTS[unknown] : undefined;
    throw unknownName("a request", unknown, FIELDS, { kind: "field", hint });
  }
  const images = imagesOf(value.images);
  const prompts = strings("BAD_PROMPT", "prompts", value.prompts, "of texts");
  if (images.length !== prompts.length) {
    const message = `${images.length} images for ${prompts.length} prompts; each prompt is asked about one image`;
    const hint = 'of several images for a prompt write a list: "images": [["a.png", "b.png"]]';
    throw new InputError("BATCH_MISMATCH", message, { hint });
  }
  if (images.flat().includes("")) throw new InputError("BAD_REQUEST", "images: a file name is empty");
  const generation = Object.hasOwn(value, "generation") ? value.generation : {};
  if (!isObject(generation)) {
    throw new InputError(
      "BAD_REQUEST",
      `generation must be an object of generate()'s options, got ${kindOf(generation)}`,
    );
  }
  for (const name of NOT_IN_A_LINE) {
    if (Object.hasOwn(generation, name) && generation[name]) {
      throw new InputError("UNSUPPORTED_OPTION", `${name}: a line of --json has sequences and text, nothing else`);
    }
  }
  if ((generation.assistant_model ?? null) !== null) {
    const hint = "--assistant names one for all requests; null is none for this one";
    throw new InputError("UNSUPPORTED_OPTION", "assistant_model: a request cannot name a model", { hint });
  }
  refuseUnknownOptions(generation);
  const changed = Object.hasOwn(value, "interventions");
  if (changed) checkInterventions(value.interventions, true);
  const interventions = changed ? { interventions: value.interventions as readonly Intervention[] } : {};
  if (!Object.hasOwn(value, "candidates")) return { images, prompts, generation, ...interventions };
  for (const name of ["generation", "interventions"]) {
    if (!Object.hasOwn(value, name)) continue;
    throw new InputError("BAD_REQUEST", `candidates are ranked, not generated: leave ${name} out`);
  }
  return { images, prompts, generation, candidates: candidatesOf(value.candidates, prompts.length) };
}

/** Images, or a list of them for each prompt. */
function imagesOf(value: unknown): Request["images"] {
  if (!Array.isArray(value) || !value.some(Array.isArray)) return sources("images", value);
  return value.map((row, i) => sources(`images: list ${i}`, row));
}

function sources(name: string, value: unknown): readonly ImageSource[] {
  const isImage = (item: unknown) => typeof item === "string" || item instanceof EmbeddedImage;
  if (Array.isArray(value) && value.length > 0 && value.every(isImage)) return value as ImageSource[];
  return strings("BAD_REQUEST", name, value, "of file names");
}

/** Texts for all prompts, or a list for each. */
function candidatesOf(value: unknown, prompts: number): string[][] {
  const name = "candidates";
  if (!Array.isArray(value) || !value.every(Array.isArray) || value.length === 0) {
    const texts = strings("BAD_REQUEST", name, value, "of texts");
    return candidatesOf(
      Array.from({ length: prompts }, () => texts),
      prompts,
    );
  }
  if (value.length !== prompts) {
    throw new InputError("BATCH_MISMATCH", `${value.length} lists of candidates for ${prompts} prompts`);
  }
  const lists = value.map((list, i) => strings("BAD_REQUEST", `${name}: list ${i}`, list, "of texts"));
  if (lists.some((list) => list.includes(""))) throw new InputError("BAD_REQUEST", `${name}: a text is empty`);
  return lists;
}

function strings(code: string, name: string, value: unknown, what: string): string[] {
  if (Array.isArray(value) && value.length > 0 && value.every((item) => typeof item === "string")) return value;
  throw new InputError(code, `${name} must be an array ${what} with at least one, got ${kindOf(value)}`);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function kindOf(value: unknown): string {
  if (value === undefined) return "nothing";
  if (value === null) return "null";
  if (!Array.isArray(value)) return typeof value === "object" ? "an object" : `a ${typeof value}`;
  const odd = value.find((item) => typeof item !== "string");
  return value.length === 0 ? "an empty array" : odd === undefined ? "an array" : `an array with ${kindOf(odd)} in it`;
}

/** A line of bytes with its number, counted from 1; undefined if it was too long. */
export interface Line {
  readonly number: number;
  readonly bytes: Uint8Array | undefined;
}

/** Splits a stream into lines at `\n`. A last line without one counts; a line that is too long is dropped but counted. */
export async function* splitLines(chunks: AsyncIterable<Uint8Array>, most = MAX_LINE_BYTES): AsyncGenerator<Line> {
  let number = 1;
  let parts: Uint8Array[] = [];
  let size = 0;
  const add = (bytes: Uint8Array) => {
    size += bytes.length;
    if (size <= most) parts.push(bytes.slice());
    else parts = [];
  };
  const line = (): Line => {
    const bytes = new Uint8Array(size <= most ? size : 0);
    let at = 0;
    for (const part of parts) {
      bytes.set(part, at);
      at += part.length;
    }
    const complete = { number: number++, bytes: size <= most ? bytes : undefined };
    parts = [];
    size = 0;
    return complete;
  };
  for await (const chunk of chunks) {
    let start = 0;
    for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, start)) {
      add(chunk.subarray(start, end));
      yield line();
      start = end + 1;
    }
    add(chunk.subarray(start));
  }
  if (size > 0) yield line();
}

/** A line's text without surrounding blanks; undefined for a blank one. @throws InputError LINE_TOO_LONG, BAD_UTF8 */
export function lineText({ number, bytes }: Line): string | undefined {
  if (!bytes) throw new InputError("LINE_TOO_LONG", `longer than ${MAX_LINE_BYTES} bytes`);
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: number > 1 }).decode(bytes).trim() || undefined;
  } catch {
    throw new InputError("BAD_UTF8", "the line is not valid UTF-8");
  }
}

/** Parses a line of bytes; undefined for a blank one. Codes: LINE_TOO_LONG, BAD_UTF8 and those of {@link parseRequest}. */
export function parseLine(line: Line): ParsedLine | undefined {
  const at = (error: InputError) => new InputError(error.code, `line ${line.number}: ${error.message}`);
  try {
    const text = lineText(line);
    if (text === undefined) return undefined;
    const parsed = parseRequest(text);
    return parsed.error ? { id: parsed.id, error: at(parsed.error) } : parsed;
  } catch (error) {
    return { id: null, error: at(error as InputError) };
  }
}

interface AnswerLine {
  readonly id: unknown;
  readonly position?: number;
  readonly run?: unknown;
  readonly error?: { readonly code?: string };
}

/** Whether a line of --json, parsed, is one. */
export function isAnswer(line: unknown): line is AnswerLine {
  return isObject(line) && Object.hasOwn(line, "id") && ANSWERED.some((name) => name in line);
}

/** Whether a line of --json is of a request that failed. */
export function isFailure(line: AnswerLine): boolean {
  return "error" in line;
}

/**
 * The answers of an earlier run: each one covers one request of its id. A failed one that is worth a retry covers none, and
 * its line is to be left out.
 */
export class PreviousRun {
  readonly #name: string;
  /** By the id's JSON, since 7 is not "7"; lines without an id cover requests without one, in order. */
  readonly #left = new Map<string, number>();
  /** By the position that lines without an id have if their order is not the requests': whether it is covered. */
  readonly #placed = new Map<number, boolean>();
  #line = 0;
  done = 0;
  failed = 0;
  /** Lines of requests that are asked again, counted from 1. */
  readonly again: number[] = [];
  /** The settings of each run that wrote lines. */
  readonly runs: unknown[] = [];

  constructor(name: string) {
    this.#name = name;
  }

  /** A line of the earlier run. @throws InputError BAD_PART */
  readonly add = (text: string): void => {
    let line: unknown;
    try {
      line = parseJson(text);
    } catch {}
    this.#line++;
    if (!isAnswer(line)) {
      const hint = "only a file written by generate --requests --out can be resumed";
      throw new InputError("BAD_PART", `${this.#name}: line ${this.#line} is not an answer`, { hint });
    }
    if ("run" in line) this.runs.push(line.run);
    const isAgain = isFailure(line) && isWorthARetry(line.error?.code);
    const isPlaced = line.id === null && Number.isSafeInteger(line.position);
    if (isPlaced) this.#placed.set(line.position!, !isAgain);
    if (isAgain) {
      this.again.push(this.#line);
      return;
    }
    this.done++;
    if (isFailure(line)) this.failed++;
    if (isPlaced) return;
    const key = JSON.stringify(line.id);
    this.#left.set(key, (this.#left.get(key) ?? 0) + 1);
  };

  /** Whether the line of a request without an id has its position, because it is not in the requests' order. */
  isPlaced(position: number): boolean {
    return this.#placed.has(position);
  }

  /** Whether a request is already answered; each answer is used once. @param position among all requests, from 0 */
  claim(id: RequestId, position: number): boolean {
    const placed = id === null ? this.#placed.get(position) : undefined;
    if (placed !== undefined) return placed;
    const key = JSON.stringify(id);
    const left = this.#left.get(key) ?? 0;
    if (left > 0) this.#left.set(key, left - 1);
    return left > 0;
  }
}
