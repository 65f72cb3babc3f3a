/**
 * Shared by the readers of tokenizer.json: errors, checks of single fields, and the budget that limits the cost of a file.
 */
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

/** Largest id. No vocabulary is near it; it limits the allocation that an id in a file can request. */
export const MAX_IDS = 2 ** 24;

export function isId(value: unknown): value is number {
  return Number.isInteger(value) && (value as number) >= 0 && (value as number) < MAX_IDS;
}

/** Most steps. No pipeline has a fifth of it. */
const MOST_STEPS = 64;

/**
 * The steps of a part of tokenizer.json, nested sequences flattened; none if the part is null or absent.
 *
 * @param part its name, for messages; `key` is the field of a sequence that has the steps
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
 * The budget of one text. A file's steps can double a text, and thirty of them would exhaust memory; a vocabulary can have
 * thousands of tokens that begin at every letter. So every step checks the length of its text before creating it.
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

  /** A step creates text of this length. @throws InputError TOKENIZER_GROWTH */
  grow(length: number): void {
    this.limit(length);
    this.spend(length);
  }

  /** The current length of text that is still growing. @throws InputError TOKENIZER_GROWTH */
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
