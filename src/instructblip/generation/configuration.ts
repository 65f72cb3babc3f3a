/**
 * What `generate()` may be told, what it takes as default, and what it refuses.
 *
 * Defaults come from `text_config`, because Hugging Face's composite generate() calls the language model's, whose own
 * generation config was derived from text_config at construction; generation_config.json is never consulted (spec 5.2).
 * Source: transformers 5.18, generation/configuration_utils.py.
 */
import { InputError, nearest } from "../../tensor/errors.ts";
import type { TextConfig } from "../config.ts";

/** Options of generate(), by Hugging Face's names. */
export interface GenerationOptions {
  /** Tokens to add, at most. Default 20. */
  max_new_tokens?: number;
  /** Tokens of a whole row, at most: image tokens, prompt and answer. Ignored when max_new_tokens is given. */
  max_length?: number;
  /** End-of-sequence ids are not chosen before a row has this many tokens, image tokens and prompt included. */
  min_length?: number;
  /** End-of-sequence ids are not chosen before a row has this many new tokens. */
  min_new_tokens?: number;
  /** Above 1 makes every token that is already in the row, image and prompt ids included, less likely. */
  repetition_penalty?: number;
  eos_token_id?: number | readonly number[] | null;
  pad_token_id?: number | null;
  bos_token_id?: number | null;
  do_sample?: boolean;
  num_beams?: number;
}

/** Options after defaults and checks; lengths count whole rows. */
export interface GenerationConfig {
  readonly max_length: number;
  readonly min_length: number;
  readonly min_new_tokens: number;
  readonly repetition_penalty: number;
  readonly eos_token_id: readonly number[];
  readonly pad_token_id: number;
}

const KNOWN: Readonly<Record<keyof GenerationOptions, true>> = {
  max_new_tokens: true,
  max_length: true,
  min_length: true,
  min_new_tokens: true,
  repetition_penalty: true,
  eos_token_id: true,
  pad_token_id: true,
  bos_token_id: true,
  do_sample: true,
  num_beams: true,
};

/** HF's default when neither max_length nor max_new_tokens is given. */
const DEFAULT_NEW_TOKENS = 20;

function refuse(name: string, must: string, value: unknown, hint?: string): never {
  const given = typeof value === "number" ? String(value) : JSON.stringify(value);
  throw new InputError("PARAM_RANGE", `${name} must be ${must}, got ${given}`, { hint });
}

function whole(name: string, value: unknown, low: number): number {
  return Number.isSafeInteger(value) && (value as number) >= low
    ? (value as number)
    : refuse(name, `a whole number of at least ${low}`, value);
}

/** Names in `given` that generate() does not know. Throws UNKNOWN_OPTION with the nearest right one. */
export function refuseUnknownOptions(given: object, alsoKnown: readonly string[] = []): void {
  for (const name of Object.keys(given)) {
    if (Object.hasOwn(KNOWN, name) || alsoKnown.includes(name)) continue;
    const close = nearest(name, [...Object.keys(KNOWN), ...alsoKnown]);
    throw new InputError("UNKNOWN_OPTION", `generate has no option "${name}"`, {
      hint: close ? `did you mean ${close}?` : `options: ${Object.keys(KNOWN).join(", ")}`,
    });
  }
}

/**
 * Checks options and fills in defaults.
 *
 * @param promptLength tokens in the prompt's rows, image tokens included
 * @param vocabulary rows of the language model's head: ids at or above it cannot occur
 * A length beyond max_position_embeddings is let through where it is asked for, as HF does; the default stops there.
 *
 * @throws InputError PARAM_RANGE, UNSUPPORTED_OPTION
 */
export function generationConfig(
  options: GenerationOptions,
  textConfig: TextConfig,
  promptLength: number,
  vocabulary: number,
): GenerationConfig {
  if (options.do_sample) throw new InputError("UNSUPPORTED_OPTION", "do_sample: this version decodes greedily only");
  if (options.num_beams !== undefined && options.num_beams !== 1) {
    whole("num_beams", options.num_beams, 1);
    throw new InputError("UNSUPPORTED_OPTION", "num_beams: this version decodes greedily only, with 1 beam");
  }
  const penalty = options.repetition_penalty ?? 1;
  if (!(typeof penalty === "number" && penalty > 0 && Number.isFinite(penalty))) {
    refuse("repetition_penalty", "a number above 0", penalty);
  }
  let max_length: number;
  if (options.max_new_tokens !== undefined)
    max_length = promptLength + whole("max_new_tokens", options.max_new_tokens, 1);
  else if (options.max_length !== undefined) max_length = whole("max_length", options.max_length, 1);
  else max_length = Math.min(promptLength + DEFAULT_NEW_TOKENS, textConfig.max_position_embeddings);
  if (max_length <= promptLength) {
    refuse(
      "max_length",
      `more than the ${promptLength} tokens of image and prompt, which it includes`,
      max_length,
      "max_new_tokens counts the answer alone",
    );
  }
  const min_length = whole("min_length", options.min_length ?? 0, 0);
  const min_new_tokens = whole("min_new_tokens", options.min_new_tokens ?? 0, 0);
  if (min_length > max_length || promptLength + min_new_tokens > max_length) {
    refuse(
      min_length > max_length ? "min_length" : "min_new_tokens",
      "within the maximum length",
      Math.max(min_length, min_new_tokens),
    );
  }
  const eos = options.eos_token_id === undefined ? textConfig.eos_token_id : options.eos_token_id;
  const eos_token_id = eos === null ? [] : typeof eos === "number" ? [eos] : [...eos];
  for (const id of eos_token_id) {
    if (options.eos_token_id !== undefined) checkId("eos_token_id", id, vocabulary);
  }
  const pad = options.pad_token_id === undefined ? textConfig.pad_token_id : options.pad_token_id;
  if (options.pad_token_id != null) checkId("pad_token_id", options.pad_token_id, vocabulary);
  return {
    max_length,
    min_length,
    min_new_tokens,
    repetition_penalty: penalty,
    eos_token_id,
    pad_token_id: pad ?? eos_token_id[0] ?? 0,
  };
}

function checkId(name: string, id: unknown, vocabulary: number): void {
  if (!Number.isInteger(id) || (id as number) < 0 || (id as number) >= vocabulary) {
    refuse(name, `a token id below ${vocabulary}`, id);
  }
}
