/** The options of commands, and how their values are read. */
import { type Command, InvalidArgumentError, Option } from "commander";
import { CACHE_DTYPES, parseStorage, STORAGE_DTYPES } from "../../modules/storage_dtype.ts";
import type { Shard } from "../evaluation/part.ts";
import { EXIT } from "./format.ts";

/** An option's value is read once: a second one would silently win over the first. */
function once<T>(read: (text: string) => T): (text: string, previous: T | undefined) => T {
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

export const whole = (low: number) =>
  once((value) => {
    const number = Number(value);
    if (/^[0-9]+$/.test(value) && Number.isSafeInteger(number) && number >= low) return number;
    throw new InvalidArgumentError(`It must be a whole number of at least ${low}.`);
  });

export const positive = once((value) => {
  const number = Number(value);
  if (value.trim() !== "" && Number.isFinite(number) && number > 0) return number;
  throw new InvalidArgumentError("It must be a number above 0.");
});

const real = once((value) => {
  const number = Number(value);
  if (value.trim() !== "" && Number.isFinite(number)) return number;
  throw new InvalidArgumentError("It must be a number.");
});

const earlyStopping = once((value) => {
  if (value === "never") return value;
  if (value === "true" || value === "false") return value === "true";
  throw new InvalidArgumentError("It must be true, false or never.");
});

const jsonObject = once((value) => {
  try {
    const parsed: unknown = JSON.parse(value);
    if (typeof parsed === "object" && parsed !== null && !Array.isArray(parsed)) return parsed;
  } catch {}
  throw new InvalidArgumentError('It must be an object as JSON: {} or {"bias": 2.5}.');
});

export const ids = once((value) => {
  if (/^[0-9]+(,[0-9]+)*$/.test(value)) {
    const list = value.split(",").map(Number);
    if (list.every(Number.isSafeInteger)) return list;
  }
  throw new InvalidArgumentError("It must be token ids, separated by commas: 2 or 2,29871.");
});

export const headChoice = once((value): number | "all" => {
  if (value === "all") return value;
  if (/^[0-9]{1,6}$/.test(value)) return Number(value);
  throw new InvalidArgumentError("It must be a whole number of at least 0, or all.");
});

const shard = once((value): Shard => {
  const [i, n] = /^[0-9]+\/[0-9]+$/.test(value) ? value.split("/").map(Number) : [];
  if (Number.isSafeInteger(n) && i < n) return { i, n };
  throw new InvalidArgumentError("It must be i/n with i from 0 to n-1: 0/8 is the first of eight.");
});

/** Generation options: flag, commander's name for it, Hugging Face's, value, meaning. */
export const GENERATION = [
  ["--max-new-tokens <n>", "maxNewTokens", "max_new_tokens", whole(1), "tokens in the answer, at most (default: 20)"],
  ["--min-new-tokens <n>", "minNewTokens", "min_new_tokens", whole(0), "tokens before the answer may end"],
  ["--max-length <n>", "maxLength", "max_length", whole(1), "tokens of image, prompt and answer together, at most"],
  ["--min-length <n>", "minLength", "min_length", whole(0), "tokens of all three before the answer may end"],
  [
    "--repetition-penalty <x>",
    "repetitionPenalty",
    "repetition_penalty",
    positive,
    "above 1: tokens already there become less likely",
  ],
  ["--eos-token-id <ids>", "eosTokenId", "eos_token_id", ids, "token ids that end the answer (default: the config's)"],
  ["--pad-token-id <id>", "padTokenId", "pad_token_id", whole(0), "fills rows of a batch that ended early"],
  ["--num-beams <n>", "numBeams", "num_beams", whole(1), "sequences followed side by side (default: 1)"],
  ["--length-penalty <x>", "lengthPenalty", "length_penalty", real, "beams: above 0 favours long answers (default: 1)"],
  [
    "--early-stopping <when>",
    "earlyStopping",
    "early_stopping",
    earlyStopping,
    "beams: true, false or never (default: false)",
  ],
  [
    "--num-return-sequences <n>",
    "numReturnSequences",
    "num_return_sequences",
    whole(1),
    "answers, one a line (default: 1)",
  ],
  [
    "--no-repeat-ngram-size <n>",
    "noRepeatNgramSize",
    "no_repeat_ngram_size",
    whole(0),
    "no run of n tokens comes twice",
  ],
  ["--do-sample", "doSample", "do_sample", undefined, "draw tokens by their probability"],
  ["--seed <n>", "seed", "seed", whole(0), "makes --do-sample repeatable"],
  [
    "--temperature <x>",
    "temperature",
    "temperature",
    positive,
    "sampling: below 1 safer, above 1 more varied (default: 1)",
  ],
  ["--top-k <n>", "topK", "top_k", whole(0), "sampling: only the n likeliest tokens (default: 50; 0: all)"],
  ["--top-p <x>", "topP", "top_p", positive, "sampling: only the likeliest tokens that make up x of the whole"],
  ["--min-p <x>", "minP", "min_p", positive, "sampling: only tokens at least x times as likely as the likeliest"],
  ["--typical-p <x>", "typicalP", "typical_p", positive, "sampling: only the most typical tokens that make up x"],
  [
    "--guidance-scale <x>",
    "guidanceScale",
    "guidance_scale",
    real,
    "above 1: away from answers without picture and prompt",
  ],
  [
    "--watermarking-config <json>",
    "watermarkingConfig",
    "watermarking_config",
    jsonObject,
    "mark the answer by a green list ({} for the usual one) or SynthID",
  ],
  ["--stop-string <text>", "stopString", "stop_strings", text, "ends the answer where this text appears"],
  ["--max-time <seconds>", "maxTime", "max_time", positive, "begin no further token after this"],
] as const;

/** A number type, or several by part. */
export const dtypeOption = () =>
  new Option(
    "--dtype <type>",
    `how weights are stored on the GPU: ${STORAGE_DTYPES.join(", ")}; by part: language_model=int4,vision_model=f16`,
  )
    .argParser((value) => {
      try {
        return parseStorage(value);
      } catch (error) {
        throw new InvalidArgumentError((error as Error).message);
      }
    })
    .default("auto", "auto: as in the checkpoint");

export const vicunaOption = () =>
  new Option("--fix-vicuna-token-ids", "the tokenizer's ids: eos 2, pad 32000 (published configs end no answer)");

export const cacheDtypeOption = () =>
  new Option("--cache-dtype <type>", "how keys and values are stored: f32, or f16 in half the memory, rounded")
    .choices(CACHE_DTYPES)
    .default("f32");

export const cacheOption = () =>
  new Option(
    "--quantized-cache [folder]",
    "keep int8 and int4 weights for the next start, in a folder (default: in ~/.cache/instructblip-webgpu)",
  );

export const shardOption = () =>
  new Option("--shard <i/n>", "only the i-th of n parts, counted from 0").argParser(shard);
export const outOption = () =>
  new Option("--out <file.jsonl>", "add the lines to a file as they come").argParser(fileName);
export const resumeOption = () => new Option("--resume", "go on with --out where an earlier run stopped");

export const modelOption = () =>
  new Option("--model <folder>", "folder of a checkpoint, or owner/name on the Hugging Face Hub").argParser(fileName);

/** Options that must be there. Not commander's mandatory options, which hide a mistyped `--modl` behind a missing `--model`. */
export function needs(command: Command, ...names: readonly string[]): void {
  for (const option of command.options) {
    if (names.includes(option.attributeName()) && command.getOptionValue(option.attributeName()) === undefined) {
      command.error(`error: required option '${option.flags}' not specified`, { exitCode: EXIT.usage });
    }
  }
}
