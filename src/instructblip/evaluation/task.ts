/** Evaluation tasks: a task file (prompt, decoding, metric) and lines of data, checked before a model is loaded. */
import { unknownName } from "../../tensor/arguments.ts";
import { InputError, nearest } from "../../tensor/errors.ts";
import { quote, shown } from "../../tensor/shown.ts";
import { parseJson } from "../config/json_file.ts";
import { flag, oneOf, option, readOptions, type ValuesOf, whole } from "../config/options.ts";
import { EmbeddedImage } from "../data/row.ts";
import { type GenerationOptions, refuseUnknownOptions } from "../generation/options.ts";
import { IMAGE_TRANSFORMS, type ImageTransform } from "../processing/image_transform.ts";
import { MAX_CHARACTERS } from "../tokenizer/tokenizer.ts";
import { TEXT_PROCESSORS } from "./lavis.ts";
import { METRICS, type Metric, type MetricName } from "./metrics.ts";
import { type Candidates, PRESETS } from "./presets.ts";

/** A task file with its preset filled in. */
export interface Task {
  readonly name: string;
  readonly preset: string | null;
  readonly prompt: string;
  readonly generation: GenerationOptions;
  readonly metric: MetricName;
  /**
   * As LAVIS to the token: Vicuna's prompts begin with its end token, which LAVIS makes the beginning-of-sequence token too; the
   * Q-Former reads an instruction's last 128 tokens; repetition_penalty counts the start token and the answer's alone, as
   * generate() there is given embeddings; beams are scored as in transformers 4.33; and id 0 of an answer is left out.
   */
  readonly lavis?: true;
  /** What resizing does to images; the model's own if absent. */
  readonly image_transform?: ImageTransform;
  /** Candidates and ranking options, instead of generation. */
  readonly ranking?: TaskRanking;
}

/** How candidates are ranked. */
const RANKING = {
  reduction: oneOf("sum", "mean").default("sum"),
  /** Whether candidates end with the end token; null: as the tokenizer has it. */
  eos: option<boolean>(flag().row.check),
  /** Candidates scored at once; null: rank_answers()' own. */
  segment_size: whole(1),
  /** LAVIS's segments, in which its Vicuna divides a candidate's NLL by the padded length. Only with `lavis`. */
  n_segments: whole(1).default(1),
};

export interface TaskRanking extends ValuesOf<typeof RANKING> {
  /** The candidates of all questions, or the name of the field with those of each. */
  readonly candidates: Candidates | string;
}

/** An image's path or URL, or an image inside the data. */
export type ImageSource = string | EmbeddedImage;

/** One question about one image. */
export interface Question {
  readonly id: string | number;
  /** An image, or those of a video's frames. */
  readonly image: ImageSource | readonly ImageSource[];
  /** The template, filled in. */
  readonly prompt: string;
  readonly answers: readonly string[];
  /** Questions of one kind are also scored together. */
  readonly kind: string | null;
  /** Of a ranking task: the candidates, and the indices of correct ones. */
  readonly candidates?: Candidates;
  readonly right?: readonly number[];
}

const TASK_FIELDS = [
  "name",
  "preset",
  "mode",
  "prompt",
  "generation",
  "metric",
  "candidates",
  "ranking",
  "lavis",
  "image_transform",
];
const MODES = ["generate", "rank_answers"];
/** Options that would make generate() return something else than one answer. */
const NOT_IN_A_TASK = [
  "num_return_sequences",
  "return_dict_in_generate",
  "output_scores",
  "output_logits",
  "logprobs",
  "return_full_text",
];

/**
 * Parses a task file.
 *
 * @param readText reads a file beside it
 * @throws InputError BAD_TASK, UNKNOWN_FIELD, UNKNOWN_OPTION, UNSUPPORTED_OPTION
 */
export function parseTask(text: string, fileName: string, readText?: (name: string) => string): Task {
  const value = parseObject(text, "BAD_TASK", fileName);
  refuseUnknownFields(value, TASK_FIELDS, `${fileName}: a task`);
  const given = textOf(value.preset, "BAD_TASK", `${fileName}: preset`) ?? null;
  if (given !== null && !Object.hasOwn(PRESETS, given)) {
    const close = nearest(given, Object.keys(PRESETS));
    bad(
      `${fileName}: there is no preset ${quote(given)}`,
      close ? `did you mean "${close}"?` : `presets: ${Object.keys(PRESETS).join(", ")}`,
    );
  }
  const preset = given === null ? undefined : PRESETS[given];
  const prompt = textOf(value.prompt, "BAD_TASK", `${fileName}: prompt`) ?? preset?.prompt;
  const metric = textOf(value.metric, "BAD_TASK", `${fileName}: metric`) ?? preset?.metric;
  if (prompt === undefined)
    bad(`${fileName}: there is no prompt`, 'write "prompt": "Question: {question} Short answer:"');
  if (metric === undefined || !Object.hasOwn(METRICS, metric)) {
    const what = metric === undefined ? "there is no metric" : `there is no metric ${quote(metric)}`;
    bad(`${fileName}: ${what}`, `metrics: ${Object.keys(METRICS).join(", ")}`);
  }
  const own = value.generation ?? {};
  if (!isObject(own)) bad(`${fileName}: generation must be an object of generate()'s options`);
  refuseUnknownOptions(own);
  for (const option of NOT_IN_A_TASK) {
    if (!Object.hasOwn(own, option)) continue;
    throw new InputError(
      "UNSUPPORTED_OPTION",
      `${fileName}: ${option}: a question has one answer, and its text is scored`,
    );
  }
  parseTemplate(prompt, fileName);
  const lavis = value.lavis ?? preset?.lavis ?? false;
  if (typeof lavis !== "boolean") bad(`${fileName}: lavis must be true or false, got ${shown(lavis)}`);
  const image_transform = (value.image_transform ?? preset?.image_transform) as ImageTransform | undefined;
  if (image_transform !== undefined && !IMAGE_TRANSFORMS.includes(image_transform)) {
    bad(
      `${fileName}: image_transform must be ${IMAGE_TRANSFORMS.map((one) => `"${one}"`).join(" or ")}, got ${shown(image_transform)}`,
    );
  }
  const candidates = candidatesOf(value.candidates ?? preset?.candidates, fileName, readText);
  const ranks = candidates !== undefined || (preset?.candidates !== undefined && value.mode !== "generate");
  const mode = value.mode ?? (ranks ? "rank_answers" : "generate");
  if (!MODES.some((known) => known === mode)) {
    bad(`${fileName}: mode must be "generate" or "rank_answers", got ${shown(mode)}`);
  }
  const ranking = mode === "rank_answers" ? rankingOf(value, candidates, metric as MetricName, fileName) : undefined;
  if (ranking && ranking.n_segments > 1) {
    const joins = typeof ranking.candidates !== "string" && hasSynonyms(ranking.candidates);
    if (!lavis || joins || ranking.reduction !== "sum") {
      bad(`${fileName}: ranking: n_segments is for "lavis": true, the reduction "sum" and candidates without synonyms`);
    }
  }
  if (mode === "generate") {
    for (const field of ["candidates", "ranking"]) {
      if (Object.hasOwn(value, field))
        bad(`${fileName}: ${field} ${field === "ranking" ? "is" : "are"} for the mode "rank_answers"`);
    }
    if ((METRICS[metric as MetricName] as Metric).candidates) {
      bad(`${fileName}: ${metric} needs candidates`, 'write "candidates": ["yes", "no"], or {"field": "choices"}');
    }
  }
  return {
    name: textOf(value.name, "BAD_TASK", `${fileName}: name`) ?? given ?? fileName.replace(/^.*[\\/]|\.json$/g, ""),
    preset: given,
    prompt,
    generation: { ...preset?.generation, ...own },
    metric: metric as MetricName,
    ...(lavis && { lavis }),
    ...(image_transform && { image_transform }),
    ...(ranking ? { ranking } : {}),
  };
}

/** Candidates of a task file: strings, groups of them, the name of a field of questions, or a file with one per line. */
function candidatesOf(
  given: unknown,
  fileName: string,
  readText: ((name: string) => string) | undefined,
): Candidates | string | undefined {
  if (given === undefined || given === null) return undefined;
  const hint =
    'write ["yes", "no"], [["yes", "true"], ["no", "false"]], {"field": "choices"} or {"file": "answers.txt"}';
  if (typeof given === "string") return given; // a preset's field
  if (isObject(given)) {
    const { field, file, ...more } = given;
    const fits = Object.keys(more).length === 0 && (field === undefined) !== (file === undefined);
    if (fits && typeof field === "string" && field !== "") return field;
    if (fits && typeof file === "string" && readText) {
      const lines = readText(file).split("\n");
      const texts = lines.map((line) => line.trimEnd()).filter((line) => line !== "");
      if (texts.length > 0) return texts.map((one) => [one]);
      bad(`${fileName}: there are no candidates in ${quote(file)}`);
    }
    bad(`${fileName}: candidates must be a list, {"field": …} or {"file": …}`, hint);
  }
  return groupsOf(given) ?? bad(`${fileName}: candidates must be texts, or lists of texts that mean the same`, hint);
}

const hasSynonyms = (candidates: Candidates) => candidates.some((texts) => texts.length > 1);

/** Strings, or lists of synonyms; undefined for anything else. */
function groupsOf(value: unknown): Candidates | undefined {
  const isText = (one: unknown) => typeof one === "string" && one !== "";
  if (!Array.isArray(value) || value.length === 0) return undefined;
  if (value.every(isText)) return value.map((text: string) => [text]);
  const lists = value.every((list) => Array.isArray(list) && list.length > 0 && list.every(isText));
  return lists ? (value as string[][]) : undefined;
}

function rankingOf(
  value: Record<string, unknown>,
  candidates: Candidates | string | undefined,
  metric: MetricName,
  fileName: string,
): TaskRanking {
  if (candidates === undefined) {
    bad(
      `${fileName}: there are no candidates to rank`,
      'write "candidates": {"file": "answers.txt"}, one on each line',
    );
  }
  if (Object.hasOwn(value, "generation")) {
    bad(`${fileName}: generation is for the mode "generate"; this task ranks candidates`);
  }
  const { candidates: needed } = METRICS[metric] as Metric;
  if (needed === "two" && typeof candidates !== "string" && candidates.length !== 2) {
    bad(`${fileName}: ${metric} needs two candidates, the positive one first, got ${candidates.length}`);
  }
  const own = value.ranking ?? {};
  const fields = Object.keys(RANKING);
  if (!isObject(own)) bad(`${fileName}: ranking must be an object of ${fields.join(", ")}`);
  refuseUnknownFields(own, fields, `${fileName}: ranking`);
  return { candidates, ...readOptions(RANKING, own, (message, hint) => bad(`${fileName}: ranking: ${message}`, hint)) };
}

/** Parses a line of data; messages do not include the line. @throws InputError BAD_DATA */
export function parseQuestion(text: string, task: Task): Question {
  return questionOf(parseObject(text, "BAD_DATA"), task);
}

/** Checks a row of data. @throws InputError BAD_DATA */
export function questionOf(value: Record<string, unknown>, task: Task): Question {
  const { id, answers } = value;
  if (typeof id !== "string" && (typeof id !== "number" || !Number.isFinite(id))) {
    throw new InputError("BAD_DATA", "id must be a string or a number");
  }
  const { image } = value;
  const isName = (one: unknown): one is ImageSource =>
    one instanceof EmbeddedImage || (typeof one === "string" && one !== "");
  if (!isName(image) && !(Array.isArray(image) && image.length > 0 && image.every(isName))) {
    throw new InputError("BAD_DATA", "image must be a file name, or an array of a video's frames");
  }
  if (!Array.isArray(answers) || !answers.every((answer) => typeof answer === "string")) {
    const hint = Object.hasOwn(value, "answer") ? 'write "answers": ["yes"]' : undefined;
    throw new InputError("BAD_DATA", "answers must be an array of texts", { hint });
  }
  const { leastAnswers } = METRICS[task.metric];
  if (answers.length < leastAnswers) {
    const hint = leastAnswers > 1 ? "exact_match_vqa suits questions with one answer" : undefined;
    const message = `answers: ${task.metric} needs at least ${leastAnswers}, got ${answers.length}`;
    throw new InputError("BAD_DATA", message, { hint });
  }
  const kind = textOf(value.kind, "BAD_DATA", "kind") ?? null;
  const prompt = fillTemplate(task.prompt, value);
  const item = { id, image, prompt, answers, kind };
  return task.ranking ? { ...item, ...rankedOf(value, answers, task.ranking, task.metric) } : item;
}

function rankedOf(
  value: Record<string, unknown>,
  answers: readonly string[],
  { candidates: from, n_segments }: TaskRanking,
  metric: MetricName,
): Required<Pick<Question, "candidates" | "right">> {
  const candidates = typeof from === "string" ? groupsOf(Object.hasOwn(value, from) ? value[from] : undefined) : from;
  if (!candidates) {
    throw new InputError("BAD_DATA", `${shown(from)} must be candidates: texts, or lists of texts that mean the same`);
  }
  if (n_segments > 1 && hasSynonyms(candidates)) {
    throw new InputError("BAD_DATA", `${shown(from)}: candidates have no synonyms with n_segments`);
  }
  const given = answers.map((answer) => answer.trim()); // some tokenizers need candidates with a leading space
  const right = candidates.flatMap((texts, c) => (texts.some((text) => given.includes(text.trim())) ? [c] : []));
  const { candidates: needed } = METRICS[metric] as Metric;
  if (needed && right.length === 0) {
    throw new InputError("BAD_DATA", `${metric} needs an answer that is a candidate, letter for letter`);
  }
  if (needed === "two" && (candidates.length !== 2 || right.length !== 1)) {
    const got = `${right.length} right of ${candidates.length}`;
    throw new InputError("BAD_DATA", `${metric} needs one right candidate of two, got ${got}`);
  }
  return { candidates, right };
}

// --- prompts -----------------------------------------------------------------------------------------------------------

/** The text of a template for a row. @throws InputError BAD_DATA, BAD_TASK */
export function fillTemplate(template: string, value: Record<string, unknown>): string {
  let prompt = "";
  for (const part of parseTemplate(template, "prompt")) {
    prompt += typeof part === "string" ? part : fill(part, value);
    // The prompt may contain a field many times.
    if (prompt.length > MAX_CHARACTERS) {
      throw new InputError("BAD_DATA", `the prompt has more than ${MAX_CHARACTERS} characters`);
    }
  }
  return prompt;
}

/** Whether a template takes a field. @throws InputError BAD_TASK */
export function hasSlot(template: string, field: string): boolean {
  return parseTemplate(template, "prompt").some((part) => typeof part !== "string" && part.field === field);
}

/** The fields that a template takes. @throws InputError BAD_TASK */
export function slotsOf(template: string): string[] {
  return parseTemplate(template, "prompt").flatMap((part) => (typeof part === "string" ? [] : [part.field]));
}

interface Slot {
  readonly field: string;
  /** `30`: that many of an array; `letters`: (a) … (b) …; a text processor of LAVIS. */
  readonly form: string | undefined;
}

/** Text and slots: `{field}`, `{field:30}`, `{field:letters}`, `{field:blip_question}`; `{{` and `}}` are braces. @throws InputError BAD_TASK */
function parseTemplate(template: string, where: string): (string | Slot)[] {
  const parts: (string | Slot)[] = [];
  for (const [match, field, form] of template.matchAll(
    /\{\{|\}\}|\{(\w+)(?::([1-9][0-9]*|letters|blip_question|blip_caption))?\}|[{}]|[^{}]+/g,
  )) {
    if (field !== undefined) parts.push({ field, form });
    else if (match === "{" || match === "}") {
      bad(
        `${where}: a brace that belongs to no {field}`,
        "{field}, {field:30}, {field:letters}, {field:blip_question}; {{ and }} are braces",
      );
    } else parts.push(match === "{{" || match === "}}" ? match.charAt(0) : match);
  }
  return parts;
}

function fill({ field, form }: Slot, item: Record<string, unknown>): string {
  const value = Object.hasOwn(item, field) ? item[field] : undefined;
  const isText = typeof value === "string" || typeof value === "number";
  if (form === undefined && isText) return String(value);
  if (form !== undefined && Object.hasOwn(TEXT_PROCESSORS, form)) {
    if (isText) return TEXT_PROCESSORS[form as keyof typeof TEXT_PROCESSORS](String(value));
    throw new InputError("BAD_DATA", `the prompt needs the field ${quote(field)}, a text`);
  }
  if (!Array.isArray(value) || !value.every((one) => typeof one === "string")) {
    const what = form === undefined ? "a text or an array of texts" : "an array of texts";
    throw new InputError("BAD_DATA", `the prompt needs the field ${quote(field)}, ${what}`);
  }
  if (form === "letters") return value.map((one, i) => `(${letter(i)}) ${one}`).join(" ");
  return value.slice(0, form === undefined ? undefined : Number(form)).join(", ");
}

function letter(i: number): string {
  if (i < 26) return String.fromCharCode(97 + i);
  throw new InputError("BAD_DATA", "there are letters for 26 choices only");
}

// --- JSON --------------------------------------------------------------------------------------------------------------

/** @throws InputError of that code */
export function parseObject(text: string, code: string, where?: string): Record<string, unknown> {
  const at = where === undefined ? "" : `${where}: `;
  let value: unknown;
  try {
    value = parseJson(text);
  } catch {
    throw new InputError(code, `${at}not valid JSON`);
  }
  if (!isObject(value)) throw new InputError(code, `${at}must be a JSON object`);
  return value;
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function refuseUnknownFields(value: object, known: readonly string[], what: string): void {
  const unknown = Object.keys(value).find((name) => !known.includes(name));
  if (unknown !== undefined) throw unknownName(what, unknown, known, { kind: "field" });
}

function textOf(value: unknown, code: string, where: string): string | undefined {
  if (value === undefined || value === null || typeof value === "string") return value ?? undefined;
  throw new InputError(code, `${where} must be a text`);
}

function bad(message: string, hint?: string): never {
  throw new InputError("BAD_TASK", message, { hint });
}
