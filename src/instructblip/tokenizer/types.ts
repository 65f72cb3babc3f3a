/** Types of a tokenizer's options, outputs and files. */
import type { JsonRecord } from "../config/json_file.ts";

export type Side = "left" | "right";

/** Named as Hugging Face names them, with the same defaults. */
export interface EncodeOptions {
  /** Default true: `[CLS]` … `[SEP]`, or the beginning or end that the tokenizer adds. */
  add_special_tokens?: boolean;
  /** true or "longest": to the longest of the batch; "max_length": to `max_length`. Default false. */
  padding?: boolean | "longest" | "max_length" | "do_not_pad";
  /** true, "longest_first" or "only_first": to `max_length`. Default: only if `max_length` is given and `padding` is not. */
  truncation?: boolean | "longest_first" | "only_first" | "do_not_truncate";
  /** In tokens, special tokens included. Default: the tokenizer's `model_max_length`, if it has one. */
  max_length?: number;
  /** Pads to a multiple of this number of tokens. */
  pad_to_multiple_of?: number;
  /** Default: the tokenizer's. */
  padding_side?: Side;
  /** Default: the tokenizer's, which is the only place where Hugging Face takes it from. */
  truncation_side?: Side;
}

/** One row per text, the rows of different lengths unless padded. */
export interface Encoding {
  input_ids: number[][];
  /** 0 on padding. */
  attention_mask: number[][];
}

export interface DecodeOptions {
  /** Default false. */
  skip_special_tokens?: boolean;
  /** Default: that of tokenizer_config.json, else false. Never for BPE, as in transformers 5. */
  clean_up_tokenization_spaces?: boolean;
}

/** The parsed files of one tokenizer; see {@link Tokenizer.from_pretrained}. */
export interface TokenizerFiles {
  /** tokenizer.json */
  tokenizer?: JsonRecord;
  /** tokenizer_config.json */
  config?: JsonRecord;
  /** special_tokens_map.json, of transformers 4 */
  special_tokens_map?: JsonRecord;
  /** added_tokens.json, of transformers 4 and older */
  added_tokens?: JsonRecord;
  /** vocab.txt, for a BERT without tokenizer.json */
  vocab?: string;
}
