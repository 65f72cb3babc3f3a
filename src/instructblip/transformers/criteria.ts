/**
 * Hugging Face's classes for what generate() calls at every token: criteria that end a row, and processors of logits.
 *
 * Their objects are functions: a criterion is a StoppingCriterion, and a processor a CustomLogitsProcessor, which
 * generate() takes as well. Sources: transformers 5.18, generation/stopping_criteria.py, logits_process.py, and
 * _merge_criteria_processor_list in generation/utils.py.
 */
import { callable } from "../../tensor/callable.ts";
import { InputError } from "../../tensor/errors.ts";
import { shown } from "../../tensor/shown.ts";
import { stopStrings, type TokenTexts } from "../generation/stopping.ts";
import type { CustomLogitsProcessor, StoppingCriterion } from "../generation/types.ts";

const Stopping = callable("stops") as abstract new () => StoppingCriterion;

/**
 * A criterion that ends a row. Write `stops`:
 *
 * ```ts
 * class AfterFullStop extends StoppingCriteria {
 *   stops(ids: readonly number[]) { return ids.at(-1) === 29889; }
 * }
 * ```
 */
export abstract class StoppingCriteria extends Stopping {
  /** Whether a row is finished. @param ids the row, prompt and new token included */
  abstract stops(ids: readonly number[]): boolean;
}

/** Ends a row of `max_length` ids, prompt and image tokens included. Replaces generate()'s maximum length. */
export class MaxLengthCriteria extends StoppingCriteria {
  override readonly replaces = "max_length";
  override readonly max_length: number;

  /** @throws InputError PARAM_RANGE */
  constructor(max_length: number) {
    super();
    if (!Number.isSafeInteger(max_length) || max_length < 1) {
      throw new InputError("PARAM_RANGE", `max_length must be a whole number of at least 1, got ${shown(max_length)}`);
    }
    this.max_length = max_length;
  }

  stops(ids: readonly number[]): boolean {
    return ids.length >= this.max_length;
  }
}

/** Ends a row after an end id. Replaces those of the config, which then end no row. */
export class EosTokenCriteria extends StoppingCriteria {
  override readonly replaces = "eos_token_id";
  readonly #ids: ReadonlySet<number>;

  /** @throws InputError PARAM_RANGE */
  constructor(eos_token_id: number | readonly number[]) {
    super();
    const ids = [eos_token_id].flat();
    const wrong = ids.find((id) => !Number.isSafeInteger(id) || id < 0);
    if (wrong !== undefined || ids.length === 0) {
      throw new InputError(
        "PARAM_RANGE",
        `eos_token_id must be a token id or a list of them, got ${shown(eos_token_id)}`,
      );
    }
    this.#ids = new Set(ids);
  }

  stops(ids: readonly number[]): boolean {
    return this.#ids.has(ids.at(-1)!);
  }
}

/** Ends a row where the last token completes one of the strings. Replaces the option stop_strings. */
export class StopStringCriteria extends StoppingCriteria {
  override readonly replaces = "stop_strings";
  readonly #stops: StoppingCriterion;

  /** @throws InputError NO_TOKENIZER, PARAM_RANGE */
  constructor(tokenizer: TokenTexts, strings: string | readonly string[]) {
    super();
    if (typeof tokenizer?.convert_ids_to_tokens !== "function") {
      throw new InputError("NO_TOKENIZER", `StopStringCriteria needs a tokenizer, got ${shown(tokenizer)}`, {
        hint: "a processor has one: processor.tokenizer",
      });
    }
    const texts = [strings].flat();
    if (texts.length === 0 || texts.some((text) => typeof text !== "string" || text === "")) {
      throw new InputError("PARAM_RANGE", `stop strings must be texts, none of them empty, got ${shown(strings)}`);
    }
    this.#stops = stopStrings(texts, tokenizer);
  }

  stops(ids: readonly number[]): boolean {
    return this.#stops(ids);
  }
}

/** Ends all rows after `max_time` seconds, from when it was made. Replaces the option max_time. */
export class MaxTimeCriteria extends StoppingCriteria {
  override readonly replaces = "max_time";
  readonly #end: number;

  /** @throws InputError PARAM_RANGE */
  constructor(max_time: number) {
    super();
    if (typeof max_time !== "number" || !(max_time > 0)) {
      throw new InputError("PARAM_RANGE", `max_time must be a number of seconds above 0, got ${shown(max_time)}`);
    }
    this.#end = performance.now() + 1000 * max_time;
  }

  stops(): boolean {
    return performance.now() > this.#end;
  }
}

/** A list whose methods make plain lists. */
class FunctionList<F> extends Array<F> {
  static override get [Symbol.species](): ArrayConstructor {
    return Array;
  }

  constructor(functions: Iterable<F> = []) {
    super();
    this.push(...functions);
  }
}

/** Criteria of generate()'s `stopping_criteria`; a plain list does as well. */
export class StoppingCriteriaList extends FunctionList<StoppingCriterion> {
  /** Whether any of them ends the row. */
  stops(ids: readonly number[]): boolean {
    return this.some((criterion) => criterion(ids));
  }

  /** That of a MaxLengthCriteria; null without one. */
  get max_length(): number | null {
    return this.find((criterion) => criterion instanceof MaxLengthCriteria)?.max_length ?? null;
  }
}

const Processing = callable("process") as abstract new () => CustomLogitsProcessor;

/**
 * A processor of logits, of beam search of log-probabilities. Write `process`:
 *
 * ```ts
 * class Ban extends LogitsProcessor {
 *   process(rows: readonly (readonly number[])[], scores: readonly Float32Array[]) { for (const row of scores) row[7] = -Infinity; }
 * }
 * ```
 */
export abstract class LogitsProcessor extends Processing {
  /**
   * Changes the scores in place, or returns others.
   *
   * @param rows ids of every row so far
   * @param scores f32[V] of every row
   */
  abstract process(rows: readonly (readonly number[])[], scores: readonly Float32Array[]): void;
}

/** Processors of generate()'s `logits_processor`, which run in this order; a plain list does as well. */
export class LogitsProcessorList extends FunctionList<CustomLogitsProcessor> {
  /** Runs all. @param scores f32[V] of every row @returns those of the last, or `scores`, changed in place */
  process(rows: readonly (readonly number[])[], scores: readonly Float32Array[]): readonly Float32Array[] {
    let last = scores;
    for (const processor of this) {
      const result: unknown = processor(rows, last);
      if (result !== undefined) last = result as readonly Float32Array[];
    }
    return last;
  }
}
