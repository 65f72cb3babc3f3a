/** The options of commands, and parsers of their values. */
import { type Command, InvalidArgumentError, Option } from "commander";
import { pathPattern } from "../../modules/observer.ts";
import { KV_CACHE_DTYPES, parseStorage, STORAGE_DTYPES } from "../../modules/storage_dtype.ts";
import { COMPUTE_DTYPES } from "../../tensor/dtype.ts";
import { above, type Options, whole as wholeNumber } from "../config/options.ts";
import { GENERATION, type GenerationOptions } from "../generation/options.ts";
import { EXIT } from "./format.ts";

/** Refuses an option that is given twice: the second value would silently override the first. */
export function once<T>(read: (text: string) => T): (text: string, previous: T | undefined) => T {
  return (text, previous) => {
    if (previous !== undefined) throw new InvalidArgumentError("It is given twice.");
    return read(text);
  };
}

export const text = once((value) => value);

export const fileName = once((value) => {
  if (value === "") throw new InvalidArgumentError("It must not be empty.");
  return value;
});

/** Parses a value, with the check for when it has an effect. */
const reader = ({ text, check, used = check }: Options[string]["row"], name = "It") =>
  once((given) => {
    const value = text?.read(given);
    if (value === undefined) throw new InvalidArgumentError(`It must be ${text?.must}.`);
    try {
      used(name, value, Number.POSITIVE_INFINITY);
    } catch (error) {
      throw new InvalidArgumentError((error as Error).message);
    }
    return value;
  });

export const whole = (low: number, high?: number) => reader(wholeNumber(low, high).row);
export const positive = reader(above(0).row);

export const pattern = once((value) => {
  try {
    return new RegExp(value);
  } catch (error) {
    throw new InvalidArgumentError(`It must be a regular expression: ${(error as Error).message}`);
  }
});

/** A pattern of module paths. */
export const glob = once(pathPattern);

export const notNegative = once((value) => {
  const number = /^[0-9.]+(e[+-]?[0-9]+)?$/i.test(value) ? Number(value) : Number.NaN;
  if (Number.isFinite(number)) return number;
  throw new InvalidArgumentError("It must be a number of at least 0.");
});

export const ids = once((value) => {
  if (/^[0-9]+(,[0-9]+)*$/.test(value)) {
    const list = value.split(",").map(Number);
    if (list.every(Number.isSafeInteger)) return list;
  }
  throw new InvalidArgumentError("It must be token ids, separated by commas: 2 or 2,29871.");
});

/** Names, separated by commas. */
export const names = once((value): readonly string[] => {
  const list = value.split(",").map((name) => name.trim());
  if (list.some((name) => name === "")) throw new InvalidArgumentError("It must be names, separated by commas.");
  return list;
});

export const headChoice = once((value): number | "all" => {
  if (value === "all") return value;
  if (/^[0-9]{1,6}$/.test(value)) return Number(value);
  throw new InvalidArgumentError("It must be a whole number of at least 0, or all.");
});

interface GenerationFlag {
  readonly name: string;
  readonly option: Option;
  /** The value of the flag without one. */
  readonly bare?: unknown;
}

/** The generation options that have a flag, by Hugging Face's names. */
export function generationFlags(): readonly GenerationFlag[] {
  return Object.entries<Options[string]>(GENERATION).flatMap(([name, { row }]) => {
    const { help, flag = `--${name.replaceAll("_", "-")}`, text, fallback } = row;
    if (help === undefined) return [];
    if (!text) return [{ name, option: new Option(flag, help) }];
    const isTold = typeof fallback === "number" || typeof fallback === "boolean";
    const option = new Option(`${flag} ${text.argument}`, isTold ? `${help} (default: ${fallback})` : help);
    option.negate = false; // commander takes --no-repeat-ngram-size for the negation of an option --repeat-ngram-size
    return [{ name, option: option.argParser(reader(row, name)), bare: text.bare }];
  });
}

/** Those of a command that looks at one answer. */
export const answerFlags = (): readonly GenerationFlag[] =>
  generationFlags().filter(({ name }) => ["max_new_tokens", "num_beams"].includes(name));

/** The values of flags among a command's. */
export function generationOf(
  flags: readonly GenerationFlag[],
  given: Readonly<Record<string, unknown>>,
): GenerationOptions {
  const values = flags.map(({ name, option }) => [name, given[option.attributeName()]]);
  return Object.fromEntries(values.filter(([, value]) => value !== undefined));
}

/** Parses a dtype, or several by submodule. */
const storage = (value: string) => {
  try {
    return parseStorage(value);
  } catch (error) {
    throw new InvalidArgumentError((error as Error).message);
  }
};

export const dtypeOption = () =>
  new Option(
    "--dtype <type>",
    `how weights are stored on the GPU: ${STORAGE_DTYPES.join(", ")}; by module: language_model=int4,vision_model=f16`,
  )
    .argParser(storage)
    .default("auto", "auto: as in the checkpoint");

export const assistantOptions = () => [
  new Option(
    "--assistant <folder>",
    "a smaller model of the same kind and tokenizer that drafts tokens, for fewer passes of --model",
  ).argParser(fileName),
  new Option("--assistant-dtype <type>", "as --dtype, for the assistant (default: auto)").argParser(storage),
];

export const baseModelOption = () =>
  new Option(
    "--base-model <folder>",
    "another checkpoint, or a language model alone, for the weights that the model lacks",
  ).argParser(fileName);

/** File names, one each time that the option is given. */
const fileNames = (value: string, previous: readonly string[] = []) => [...previous, fileName(value, undefined)];

export const adapterOption = () =>
  new Option("--adapter <folder>", "a LoRA adapter of PEFT to merge into the weights; may be given again").argParser(
    fileNames,
  );

export const imagesOption = () =>
  new Option(
    "--image <file>",
    "an image, or the URL of one; again for several, which are where --prompt has <image>, or in front",
  ).argParser(fileNames);

export const vicunaOption = () =>
  new Option(
    "--fix-vicuna-token-ids",
    "use the tokenizer's ids: eos 2, pad 32000 (with published configs answers do not end)",
  );

export const computeDtypeOption = () =>
  new Option(
    "--compute-dtype <type>",
    "input dtype of the matrix products of images and prompts: f32, or f16 with f32 sums",
  )
    .choices(COMPUTE_DTYPES)
    .default("f32");

export const kvCacheDtypeOption = () =>
  new Option("--kv-cache-dtype <type>", "how the key/value cache is stored: f32, or f16 in half the memory, rounded")
    .choices(KV_CACHE_DTYPES)
    .default("f32");

export const weightCacheOption = () =>
  new Option(
    "--weight-cache [folder]",
    "cache int8 and int4 weights for the next start, in a folder (default: in ~/.cache/instructblip-webgpu)",
  );

export const outOption = () =>
  new Option("--out <file.jsonl>", "append the lines to a file as they are done").argParser(fileName);
export const resumeOption = () => new Option("--resume", "resume --out where an earlier run stopped");

export const batchSizeOption = (otherwise: string) =>
  new Option("--batch-size <n>", `batch size in rows, at most (default: ${otherwise})`).argParser(whole(1));

export const workersOption = () =>
  new Option(
    "--workers <n>",
    "threads that decode images ahead; 0: none (default: one less than cores, at most 8; for less than 64 images 0)",
  ).argParser(whole(0, 64));
export const statsOption = () => new Option("--stats", "print how fast it was, and how busy the device");

/** Which columns of a data set are what, and which part of it. */
export const dataOptions = (answers: boolean) => [
  new Option("--image-column <name>", "the column of images (default: image, or another usual name)").argParser(
    fileName,
  ),
  new Option("--question-column <name>", "the column of questions (default: question, …)").argParser(fileName),
  ...(answers
    ? [new Option("--answer-column <name>", "the column of answers (default: answers, answer, …)").argParser(fileName)]
    : []),
  idColumnOption(),
  splitOption(),
];

export const idColumnOption = () =>
  new Option("--id-column <name>", "the column of ids (default: id, question_id, …; else the row's number)").argParser(
    fileName,
  );
export const splitOption = () =>
  new Option("--split <name>", "of a folder with several: train, validation, test, …").argParser(fileName);

export const interventionsOption = () =>
  new Option(
    "--interventions <file.json>",
    "change what flows between modules; see docs/interpretability.md",
  ).argParser(fileName);

export const modelOption = () =>
  new Option("--model <folder>", "folder of a checkpoint, or owner/name on the Hugging Face Hub").argParser(fileName);

export const imageOption = () => new Option("--image <file>", "an image, or the URL of one").argParser(fileName);
export const promptOption = () => new Option("--prompt <text>", "the question or instruction").argParser(text);
export const answerOption = () =>
  new Option("--answer <text>", "the answer to look at (default: the model's own)").argParser(text);
export const jsonOption = (instead: string) =>
  new Option("--json <file>", `write all of it to a file; - for stdout, without the ${instead}`).argParser(fileName);
export const topOption = () => new Option("--top <n>", "rows of the table; 0: all (default: 20)").argParser(whole(0));

/** Required options. Not commander's mandatory options, which report a missing `--model` instead of a mistyped `--modl`. */
export function needs(command: Command, ...names: readonly string[]): void {
  for (const option of command.options) {
    if (names.includes(option.attributeName()) && command.getOptionValue(option.attributeName()) === undefined) {
      command.error(`error: required option '${option.flags}' not specified`, { exitCode: EXIT.usage });
    }
  }
}

/** Refuses options beside another, as commander's conflicts do, where that depends on the option's value. */
export function conflicts(command: Command, name: string, others: readonly string[], why = ""): void {
  const flagsOf = (of: string) => command.options.find((option) => option.attributeName() === of)!.flags;
  const [other] = others;
  if (other === undefined) return;
  const message = `error: option '${flagsOf(name)}' cannot be used with option '${flagsOf(other)}'${why}`;
  command.error(message, { exitCode: EXIT.usage });
}
