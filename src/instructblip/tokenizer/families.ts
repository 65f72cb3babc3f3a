/**
 * The tokenizer classes of transformers 5, of which files have only vocabulary and template.
 *
 * Source: transformers 5.18, models/{bert,llama,t5,gpt2}/tokenization_*.py.
 */
import type { JsonRecord } from "../config/json_file.ts";
import { contentOf } from "./added_tokens.ts";
import type { PostProcessor } from "./pipeline.ts";
import type { Side } from "./types.ts";

/** A tokenizer class of transformers 5: vocabulary and template are from the files, the rest is fixed. */
export interface Family {
  model: "BPE" | "Unigram" | "WordPiece";
  padding_side?: Side;
  /** Named tokens that exist even if no file has them. */
  named: Record<string, string>;
  /** The parts of tokenizer.json that the class replaces. */
  parts(json: JsonRecord, init: JsonRecord): JsonRecord;
  post?(idOf: (token: string) => number): PostProcessor;
}

export const FAMILIES: Record<string, Family> = {
  BertTokenizer: {
    model: "WordPiece",
    named: { unk_token: "[UNK]", sep_token: "[SEP]", pad_token: "[PAD]", cls_token: "[CLS]", mask_token: "[MASK]" },
    parts: (json, init) => ({
      model: { vocab: (json.model as JsonRecord).vocab, unk_token: contentOf(init.unk_token) ?? "[UNK]" },
      normalizer: {
        type: "BertNormalizer",
        handle_chinese_chars: init.tokenize_chinese_chars ?? true,
        strip_accents: init.strip_accents ?? null,
        lowercase: init.do_lower_case ?? true,
      },
      pre_tokenizer: { type: "BertPreTokenizer" },
      decoder: { type: "WordPiece", prefix: "##", cleanup: true },
    }),
    post: (idOf) => ({ prefix: [idOf("cls_token")], suffix: [idOf("sep_token")] }),
  },
  LlamaTokenizer: {
    model: "BPE",
    padding_side: "left",
    named: { unk_token: "<unk>", bos_token: "<s>", eos_token: "</s>" },
    parts: (json, init) => {
      const { vocab, merges } = json.model as JsonRecord;
      const blank = init.add_prefix_space !== false;
      const scheme = blank ? (init.legacy === true ? "always" : "first") : "never";
      const decoders: JsonRecord[] = [
        { type: "Replace", pattern: { String: "▁" }, content: " " },
        { type: "ByteFallback" },
        { type: "Fuse" },
      ];
      if (blank) decoders.push({ type: "Strip", content: " ", start: 1, stop: 0 });
      return {
        model: { type: "BPE", vocab, merges, fuse_unk: true, byte_fallback: true },
        normalizer: null,
        pre_tokenizer: { type: "Metaspace", replacement: "▁", prepend_scheme: scheme, split: false },
        decoder: { type: "Sequence", decoders },
      };
    },
  },
  T5Tokenizer: {
    model: "Unigram",
    named: { eos_token: "</s>", unk_token: "<unk>", pad_token: "<pad>" },
    parts: (json) => {
      const charsmap = charsmapOf(json.normalizer);
      return {
        model: { type: "Unigram", vocab: (json.model as JsonRecord).vocab, unk_id: 2 },
        normalizer: charsmap ? { type: "Precompiled", precompiled_charsmap: charsmap } : null,
        pre_tokenizer: {
          type: "Sequence",
          pretokenizers: [
            { type: "WhitespaceSplit" },
            { type: "Metaspace", replacement: "▁", prepend_scheme: "always" },
          ],
        },
        decoder: { type: "Metaspace", replacement: "▁", prepend_scheme: "always" },
      };
    },
    post: (idOf) => ({ prefix: [], suffix: [idOf("eos_token")] }),
  },
  GPT2Tokenizer: {
    model: "BPE",
    named: { unk_token: "<|endoftext|>", bos_token: "<|endoftext|>", eos_token: "<|endoftext|>" },
    parts: (json, init) => {
      const { vocab, merges } = json.model as JsonRecord;
      return {
        model: { type: "BPE", vocab, merges },
        normalizer: null,
        pre_tokenizer: { type: "ByteLevel", add_prefix_space: init.add_prefix_space === true },
        decoder: { type: "ByteLevel" },
      };
    },
  },
};

function charsmapOf(normalizer: unknown): unknown {
  const config = normalizer as JsonRecord | null | undefined;
  const list = config?.type === "Sequence" && Array.isArray(config.normalizers) ? config.normalizers : [config];
  return list.find((step: JsonRecord | null | undefined) => step?.type === "Precompiled")?.precompiled_charsmap;
}
