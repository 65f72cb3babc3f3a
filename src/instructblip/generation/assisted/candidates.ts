/**
 * Draft tokens for assisted decoding: from the row itself (prompt lookup), or from a smaller model. The model verifies them in
 * one pass (assisted.ts), so that they change how many passes an answer takes and not the answer.
 *
 * Source: transformers 5.18, generation/candidate_generator.py; Saxena 2023, Prompt lookup decoding; Leviathan et al. 2023.
 */
import { argmaxOf, softmax } from "../arithmetic.ts";
import type { DecodingConfig } from "../configuration.ts";
import type { Decoder, Logits } from "../decoder.ts";
import { logitsProcessors } from "../logits_process.ts";
import { multinomial, type RandomNumbers } from "../multinomial.ts";
import { rowsOf } from "../output.ts";
import type { LogitsProcessor } from "../types.ts";

export interface CandidateGenerator {
  /**
   * Tokens that may follow a row, perhaps none.
   *
   * @param row prompt and answer so far, with one new token at least
   * @param most tokens that can be accepted
   */
  candidates(row: readonly number[], most: number): Promise<readonly number[]>;
  /** Called after the pass that verified them. @param accepted how many of them the row has now */
  update(accepted: number): void;
}

/** What followed an earlier occurrence of the row's last tokens, the first that allows any. */
export class PromptLookupCandidateGenerator implements CandidateGenerator {
  readonly #config: DecodingConfig;
  /** Without those of sampling, which say nothing about scores that are all alike. */
  readonly #processors: readonly LogitsProcessor[];

  constructor(config: DecodingConfig) {
    this.#config = config;
    this.#processors = logitsProcessors({ ...config, do_sample: false });
  }

  async candidates(row: readonly number[], most: number): Promise<readonly number[]> {
    if (most <= 0) return [];
    const { eos_token_id, max_matching_ngram_size, max_length, prompt_lookup_num_tokens } = this.#config;
    for (let n = Math.min(max_matching_ngram_size, row.length - 1); n > 0; n--) {
      const last = row.length - n;
      for (let at = 0; at < last; at++) {
        if (!sameAt(row, at, last, n)) continue;
        const end = Math.min(at + n + prompt_lookup_num_tokens!, row.length, max_length);
        const found = this.#allowed(row, row.slice(at + n, end));
        if (found.length === 0) continue;
        // Of what would follow an end of the sequence nothing is wanted.
        const stop = found.findIndex((id) => eos_token_id.includes(id));
        return found.slice(0, Math.min(stop < 0 ? found.length : stop, most));
      }
    }
    return [];
  }

  update(): void {}

  /** The first of `found`, up to one that the processors ban, or that is no token of the head. */
  #allowed(row: readonly number[], found: readonly number[]): readonly number[] {
    const { vocabulary } = this.#config;
    const banned = found.findIndex((id, i) => {
      if (id < 0 || id >= vocabulary) return true;
      if (this.#processors.length === 0) return false;
      const scores = new Float32Array(vocabulary).fill(1);
      for (const process of this.#processors) process([[...row, ...found.slice(0, i)]], [scores]);
      return scores[id]! === Number.NEGATIVE_INFINITY;
    });
    return banned < 0 ? found : found.slice(0, banned);
  }
}

/** Whether the n ids from `a` on are those from `b` on. */
function sameAt(row: readonly number[], a: number, b: number, n: number): boolean {
  for (let i = 0; i < n; i++) if (row[a + i] !== row[b + i]) return false;
  return true;
}

/** An assistant, with the model's prompt. */
export interface Assistant {
  readonly decoder: Decoder;
  /** Its own ends, for answers of which the options have none. */
  readonly eos_token_id: readonly number[];
}

/**
 * What an assistant would answer: greedy, or drawn by the random numbers of the model's own draws, so that two models of like
 * mind draw the same tokens.
 */
export class AssistedCandidateGenerator implements CandidateGenerator {
  readonly #decoder: Decoder;
  readonly #config: DecodingConfig;
  readonly #processors: readonly LogitsProcessor[];
  readonly #ends: readonly number[];
  readonly #random: RandomNumbers | undefined;
  #most: number;
  /** Tokens of the row that the assistant has read; 0 before its prefill. */
  #read = 0;
  /** Length of the row that was drafted for, and the number of drafts. */
  #row = 0;
  #drafts = 0;

  constructor({ decoder, eos_token_id }: Assistant, config: DecodingConfig, random: RandomNumbers | undefined) {
    this.#decoder = decoder;
    this.#ends = config.eos_token_id.length > 0 ? config.eos_token_id : eos_token_id;
    this.#config = config;
    this.#processors = logitsProcessors(config);
    this.#random = random;
    this.#most = config.num_assistant_tokens;
  }

  async candidates(row: readonly number[], most: number): Promise<readonly number[]> {
    const decoder = this.#decoder;
    const { prompt_length } = this.#config;
    const drafts: number[] = [];
    while (drafts.length < Math.min(this.#most, most)) {
      const ids = [...row, ...drafts];
      const { id, ends } = await decoder.scope(async () => {
        if (this.#read < prompt_length) {
          decoder.prefill();
          this.#read = prompt_length;
        }
        const unread = ids.slice(this.#read);
        const tokens = decoder.upload(unread);
        const logits = unread.length === 1 ? decoder.step(tokens) : decoder.extend!(tokens);
        this.#read = ids.length;
        return this.#choose(logits, unread.length, ids);
      });
      drafts.push(id);
      if (ends || this.#ends.includes(id)) break;
    }
    this.#row = row.length;
    this.#drafts = drafts.length;
    return drafts;
  }

  update(accepted: number): void {
    const drafts = this.#drafts;
    if (drafts === 0) return;
    // The last draft was not read; rejected ones are forgotten.
    const right = this.#row + Math.min(accepted, drafts - 1);
    if (this.#read > right) this.#decoder.crop!(this.#read - right);
    this.#read = right;
    if (this.#config.num_assistant_tokens_schedule === "constant") return;
    this.#most = accepted === drafts ? this.#most + 2 : Math.max(1, this.#most - 1);
  }

  /** The token after the last of T, and whether it is too improbable to go on from. */
  async #choose(logits: Logits, T: number, ids: readonly number[]): Promise<{ id: number; ends: boolean }> {
    const { assistant_confidence_threshold: least, prompt_length } = this.#config;
    const scores = rowsOf(await logits.read(), T)[T - 1]!;
    for (const process of this.#processors) process([ids], [scores]);
    const id = this.#random ? multinomial(scores, this.#random.at(0, ids.length - prompt_length)) : argmaxOf(scores);
    return { id, ends: softmax(scores)[id]! < least };
  }
}
