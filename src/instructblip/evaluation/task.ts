/** What is evaluated: a task file (prompt, decoding, metric) and lines of data, checked before a model is loaded. */
import { InputError, nearest } from "../../tensor/errors.ts";
import { type GenerationOptions, refuseUnknownOptions } from "../generation/configuration.ts";
import { METRICS, type MetricName } from "./metrics.ts";
import { PRESETS, RANKED } from "./presets.ts";

/** A task file with its preset filled in. */
export interface Task {
  readonly name: string;
  readonly preset: string | null;
  readonly prompt: string;
  readonly generation: GenerationOptions;
  readonly metric: MetricName;
}

/** One question about one picture. */
export interface Item {
  readonly id: string | number;
  readonly image: string;
  /** The template, filled in. */
  readonly prompt: string;
  readonly answers: readonly string[];
  /** Questions of one kind are also scored together. */
  readonly kind: string | null;
}

const TASK_FIELDS = ["name", "preset", "mode", "prompt", "generation", "metric"];
const RANKING = "this version generates answers; it does not rank candidates yet";
/** What would make generate() return something other than one answer. */
const NOT_IN_A_TASK = [
  "num_return_sequences",
  "return_dict_in_generate",
  "output_scores",
  "output_logits",
  "return_full_text",
];

/** Understands a task file. @throws InputError BAD_TASK, UNKNOWN_FIELD, UNKNOWN_OPTION, UNSUPPORTED_OPTION */
export function parseTask(text: string, fileName: string): Task {
  const value = parseObject(text, "BAD_TASK", fileName);
  refuseUnknownFields(value, TASK_FIELDS, `${fileName}: a task`);
  const mode = value.mode ?? "generate";
  const given = textOf(value.preset, "BAD_TASK", `${fileName}: preset`) ?? null;
  if (mode === "rank_answers" || (given !== null && RANKED.includes(given))) {
    throw new InputError("UNSUPPORTED_OPTION", `${fileName}: ${RANKING}`);
  }
  if (mode !== "generate") bad(`${fileName}: mode must be "generate", got ${JSON.stringify(mode)}`);
  if (given !== null && !Object.hasOwn(PRESETS, given)) {
    const close = nearest(given, Object.keys(PRESETS));
    bad(
      `${fileName}: there is no preset "${given}"`,
      close ? `did you mean "${close}"?` : `presets: ${Object.keys(PRESETS).join(", ")}`,
    );
  }
  const preset = given === null ? undefined : PRESETS[given];
  const prompt = textOf(value.prompt, "BAD_TASK", `${fileName}: prompt`) ?? preset?.prompt;
  const metric = textOf(value.metric, "BAD_TASK", `${fileName}: metric`) ?? preset?.metric;
  if (prompt === undefined)
    bad(`${fileName}: there is no prompt`, 'write "prompt": "Question: {question} Short answer:"');
  if (metric === undefined || !Object.hasOwn(METRICS, metric)) {
    const what = metric === undefined ? "there is no metric" : `there is no metric "${metric}"`;
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
  return {
    name: textOf(value.name, "BAD_TASK", `${fileName}: name`) ?? given ?? fileName.replace(/^.*[\\/]|\.json$/g, ""),
    preset: given,
    prompt,
    generation: { ...preset?.generation, ...own },
    metric: metric as MetricName,
  };
}

/** Understands a line of data; messages do not name the line. @throws InputError BAD_DATA */
export function parseItem(text: string, task: Task): Item {
  const value = parseObject(text, "BAD_DATA");
  const { id, answers } = value;
  if (typeof id !== "string" && (typeof id !== "number" || !Number.isFinite(id))) {
    throw new InputError("BAD_DATA", "id must be a string or a number");
  }
  const image = textOf(value.image, "BAD_DATA", "image");
  if (!image) throw new InputError("BAD_DATA", "image must be a file name");
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
  const prompt = parseTemplate(task.prompt, "prompt").map((part) =>
    typeof part === "string" ? part : fill(part, value),
  );
  return { id, image, prompt: prompt.join(""), answers, kind };
}

// --- prompts -----------------------------------------------------------------------------------------------------------

interface Slot {
  readonly field: string;
  /** `30`: that many of an array; `letters`: (a) … (b) … */
  readonly form: string | undefined;
}

/** Text and slots: `{field}`, `{field:30}`, `{field:letters}`; `{{` and `}}` are braces. @throws InputError BAD_TASK */
function parseTemplate(template: string, where: string): (string | Slot)[] {
  const parts: (string | Slot)[] = [];
  for (const [match, field, form] of template.matchAll(/\{\{|\}\}|\{(\w+)(?::([1-9][0-9]*|letters))?\}|[{}]|[^{}]+/g)) {
    if (field !== undefined) parts.push({ field, form });
    else if (match === "{" || match === "}") {
      bad(`${where}: a brace that belongs to no {field}`, "{field}, {field:30}, {field:letters}; {{ and }} are braces");
    } else parts.push(match === "{{" || match === "}}" ? match[0] : match);
  }
  return parts;
}

function fill({ field, form }: Slot, item: Record<string, unknown>): string {
  const value = Object.hasOwn(item, field) ? item[field] : undefined;
  if (form === undefined && (typeof value === "string" || typeof value === "number")) return String(value);
  if (!Array.isArray(value) || !value.every((one) => typeof one === "string")) {
    const what = form === undefined ? "a text or an array of texts" : "an array of texts";
    throw new InputError("BAD_DATA", `the prompt needs the field "${field}", ${what}`);
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
    value = JSON.parse(text);
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
  for (const name of Object.keys(value)) {
    if (known.includes(name)) continue;
    const close = nearest(name, known);
    const hint = close ? `did you mean "${close}"?` : `fields: ${known.join(", ")}`;
    throw new InputError("UNKNOWN_FIELD", `${what} has no field "${name}"`, { hint });
  }
}

function textOf(value: unknown, code: string, where: string): string | undefined {
  if (value === undefined || value === null || typeof value === "string") return value ?? undefined;
  throw new InputError(code, `${where} must be a text`);
}

function bad(message: string, hint?: string): never {
  throw new InputError("BAD_TASK", message, { hint });
}
