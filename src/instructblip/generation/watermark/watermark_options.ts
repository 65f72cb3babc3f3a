/** Options of watermarks, one row each. Source: transformers 5.18, generation/configuration_utils.py. */
import { refuseUnknown } from "../../../tensor/arguments.ts";
import {
  type Check,
  type FieldsOf,
  flag,
  listOf,
  number,
  type Options,
  oneOf,
  option,
  refuse,
  whole,
} from "../../config/options.ts";

const integer = () => number("a whole number", Number.isSafeInteger);

/** A green list. */
export const GREEN_LIST = {
  /** The part of the vocabulary that is green, above 0 and below 1. Default 0.25. */
  greenlist_ratio: number("a number above 0, below 1", (value) => value > 0 && value < 1).default(0.25),
  /** Added to green tokens' scores. Default 2. */
  bias: number().default(2),
  /** The key: whoever knows it can detect the watermark. Default 15485863, which is public. */
  hashing_key: integer().default(15485863),
  /** The green list depends on the previous token ("lefthash", the default) or on the token itself ("selfhash"). */
  seeding_scheme: oneOf("lefthash", "selfhash").default("lefthash"),
  /** Tokens that "selfhash" depends on, the new one included; shorter rows are not watermarked. Default 1. */
  context_width: whole(1).default(1),
};

/** SynthID. */
export const SYNTH_ID = {
  /** Tokens that the watermark depends on, the new one included. */
  ngram_len: whole(1, 1024),
  /** One for each round of the tournament. */
  keys: option<readonly number[]>(listOf(integer().row.check, "1 to 1024 numbers", 1, 1024)),
  /** Contexts that are remembered, so that none is watermarked twice. Default 1024. */
  context_history_size: whole(1, 2 ** 20).default(1024),
  /** Default 0. */
  sampling_table_seed: integer().default(0),
  /** Default 65536. */
  sampling_table_size: whole(1, 2 ** 24).default(2 ** 16),
  /** Does not watermark the first ngram_len - 1 tokens. Default false. */
  skip_first_ngram_calls: flag(),
  /** Watermarks as if all tokens were equally probable. Default false. */
  debug_mode: flag(),
};

/** A green list, by Hugging Face's names. */
export interface WatermarkingConfig extends FieldsOf<typeof GREEN_LIST> {}
/** SynthID, by Hugging Face's names. */
export interface SynthIDTextWatermarkingConfig extends FieldsOf<typeof SYNTH_ID> {
  readonly ngram_len: number;
  readonly keys: readonly number[];
}

/** Throws unless `value` describes a watermark. */
export const checkWatermark: Check = (name, value, vocabulary) => {
  const given = value as object;
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    refuse(name, "an object such as { bias: 2 }", value);
  }
  const synthID = "keys" in given || "ngram_len" in given;
  const fields: Options = synthID ? SYNTH_ID : GREEN_LIST;
  refuseUnknown(name, given, Object.keys(fields));
  for (const [field, set] of Object.entries(given)) {
    if (set !== undefined) fields[field]!.row.check(`${name}.${field}`, set, vocabulary);
  }
  for (const field of synthID ? (["ngram_len", "keys"] as const) : []) {
    if ((given as Partial<SynthIDTextWatermarkingConfig>)[field] === undefined) {
      refuse(name, `given ${field}, which SynthID needs`, value);
    }
  }
};
