/** What reading tokenizer.json needs everywhere: refusals, checks of single fields, and the bound on what a file may cost. */
import { ConfigError, InputError } from "../../tensor/errors.ts";
import { shown } from "../../tensor/shown.ts";
import type { JsonRecord } from "../config/json_file.ts";

export function unsupported(part: string, what: unknown): ConfigError {
  const name = what === undefined ? "nothing" : shown(what);
  return new ConfigError("TOKENIZER_UNSUPPORTED", `tokenizer.json: ${part} ${name} is not supported`);
}

export function bad(where: string, must: string): ConfigError {
  return new ConfigError("TOKENIZER_BAD", `tokenizer.json: ${where} must be ${must}`);
}

export function isRecord(value: unknown): value is JsonRecord {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

export function string(config: JsonRecord, key: string): string {
  const value = config[key];
  if (typeof value !== "string") throw bad(key, "a string");
  return value;
}

/** No vocabulary is near it, and it bounds what an id in a file can make us allocate. */
export const MAX_IDS = 2 ** 24;

export function isId(value: unknown): value is number {
  return Number.isInteger(value) && (value as number) >= 0 && (value as number) < MAX_IDS;
}

/** No pipeline has a fifth of it. */
const MOST_STEPS = 64;

/**
 * The steps of a part of tokenizer.json, sequences in sequences opened; none where the part is null or absent.
 *
 * @param part its name, for messages; `key` is where a sequence of its kind has its steps
 * @throws ConfigError TOKENIZER_BAD
 */
export function stepsOf(config: unknown, part: string, key: string): JsonRecord[] {
  if (config === null || config === undefined) return [];
  const steps: JsonRecord[] = [];
  const waiting: unknown[] = [config];
  for (let seen = 0; waiting.length; seen++) {
    const step = waiting.pop();
    if (!isRecord(step)) throw bad(part, "an object");
    if (step.type !== "Sequence") steps.push(step);
    else {
      const list = step[key];
      if (!Array.isArray(list) || !list.every(isRecord)) throw bad(key, "a list of objects");
      if (list.length + waiting.length > MOST_STEPS) throw bad(part, `of at most ${MOST_STEPS} steps`);
      waiting.push(...list.toReversed());
    }
    if (steps.length > MOST_STEPS || seen > 2 * MOST_STEPS) throw bad(part, `of at most ${MOST_STEPS} steps`);
  }
  return steps;
}

/**
 * What one text may cost. Steps that a file names can double a text, and thirty of them end the process; a vocabulary can
 * have thousands of tokens begin at every letter. So whatever makes text says how long it is before it is made.
 */
export class Budget {
  readonly #what: string;
  readonly #mostLength: number;
  #left: number;

  /** @param mostLength of one step's text, in UTF-16 units; `work` of all steps together */
  constructor(what: string, mostLength: number, work: number) {
    this.#what = what;
    this.#mostLength = mostLength;
    this.#left = work;
  }

  /** A step is about to make text of this length, or has. @throws InputError TOKENIZER_GROWTH */
  grow(length: number): void {
    this.limit(length);
    this.spend(length);
  }

  /** Text that is still growing is this long by now. @throws InputError TOKENIZER_GROWTH */
  limit(length: number): void {
    if (length > this.#mostLength) this.#refuse(`more than ${this.#mostLength} characters`);
  }

  /** @throws InputError TOKENIZER_GROWTH */
  spend(work: number): void {
    this.#left -= work;
    if (this.#left < 0) this.#refuse("far more work than its length");
  }

  #refuse(result: string): never {
    throw new InputError("TOKENIZER_GROWTH", `tokenizer.json makes ${result} of ${this.#what}`);
  }
}
