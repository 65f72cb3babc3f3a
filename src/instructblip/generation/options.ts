/**
 * The options of `generate()`, one row each. To add an option, add its row; its effect is implemented elsewhere, from {@link
 * DecodingConfig}.
 *
 * Hugging Face's names, meanings and defaults. Source: transformers 5.18, generation/configuration_utils.py.
 */
import { refuseUnknown } from "../../tensor/arguments.ts";
import { InputError } from "../../tensor/errors.ts";
import {
  above,
  anyId,
  anyIdOrIds,
  anyIds,
  type Check,
  checkId,
  checkIds,
  flag,
  functions,
  is,
  isFunction,
  listOf,
  number,
  type OptionsOf,
  oneOf,
  oneOrList,
  option,
  whole,
} from "../config/options.ts";
import type { AssistantModel, CustomLogitsProcessor, StoppingCriterion } from "./types.ts";
import {
  checkWatermark,
  type SynthIDTextWatermarkingConfig,
  type WatermarkingConfig,
} from "./watermark/watermark_options.ts";

/** HF's default when neither max_length nor max_new_tokens is given. */
export const DEFAULT_NEW_TOKENS = 20;
/** Longest row. Far beyond the language models here; a mistake (1e9) must not end in an allocation failure. */
const MOST_TOKENS = 65536;
/** Most stop strings. Each is searched for after every token. */
const MOST_STOP_STRINGS = 1000;

const TEXTS = `a text or 1 to ${MOST_STOP_STRINGS} texts, none of them empty`;
const isText = is(TEXTS, (value) => typeof value === "string" && value !== "");
/** guidance.ts checks ids and the number of rows. */
const rows = (of: string) =>
  option<readonly (readonly number[])[]>(listOf(is(`rows of ${of}`, Array.isArray), `rows of ${of}`));
const BIASES = "[[ids, bias], …] with at least one pair";
const bias = is(BIASES, (value) => typeof value === "number" && !Number.isNaN(value));
const isShare = (value: number) => value >= 0 && value < 1;
/** Most draft tokens of a pass. Far more than are ever accepted. */
const MOST_DRAFT_TOKENS = 1024;
const isModel = is(
  "a model that from_pretrained() has loaded",
  (value) => typeof value === "object" && value !== null && "language_model" in value,
);
const EMBEDDED = "the language model is given embeddings, not ids";

/**
 * The options. `needs` has the stricter check of a sampling option: without do_sample HF accepts any value, and warns. The
 * bounds are HF's: top_p 0 keeps the most probable token, and cut-offs that drop nothing or everything are off.
 */
export const GENERATION = {
  /** Tokens to add, at most. Default 20. */
  max_new_tokens: whole(1, MOST_TOKENS).default(DEFAULT_NEW_TOKENS).flag("tokens in the answer, at most"),
  /** Tokens of a whole row, at most: image tokens, prompt and answer. Ignored when max_new_tokens is given. */
  max_length: whole(1, MOST_TOKENS).flag("tokens of image, prompt and answer together, at most"),
  /** End-of-sequence ids are not chosen before a row has this many new tokens. Overrides min_length. */
  min_new_tokens: whole(0).flag("tokens before the answer may end"),
  /** End-of-sequence ids are not chosen before a row has this many tokens, image tokens and prompt included. */
  min_length: whole(0).flag("tokens of image, prompt and answer before the answer may end"),
  /** Seconds after which no further token is begun. */
  max_time: number("seconds, above 0", (value) => value > 0, { argument: "<seconds>" }).flag(
    "begin no token after this time",
  ),
  /** Strings that end an answer; they need `tokenizer`, as in HF. */
  stop_strings: option<string | readonly string[]>(oneOrList(isText, listOf(isText, TEXTS, 1, MOST_STOP_STRINGS)), {
    argument: "<text>",
    read: (text) => text,
  })
    .kept<readonly string[]>([], (given) => [given].flat())
    .flag("end the answer where this text appears", "--stop-string"),
  /** Ids that end an answer. Default: those of text_config. null: none. */
  eos_token_id: anyIdOrIds().flag("token ids that end the answer (default: the config's)"),
  /** Fills rows that ended early. Default: that of text_config, else the first eos id. */
  pad_token_id: anyId().flag("pads rows of a batch that ended early"),
  /** No effect: prompts begin with their own. */
  bos_token_id: anyId(),

  /** Draw tokens by their probability. Default false: take the most probable. */
  do_sample: flag().flag("draw tokens by their probability"),
  /** Makes do_sample repeatable; not in HF, which uses PyTorch's generator. Default: a new one each time. */
  seed: whole(0).needs("do_sample").flag("makes --do-sample repeatable"),
  /** Sampling: divides the scores; below 1 less, above 1 more random. Default 1. */
  temperature: number()
    .default(1)
    .needs("do_sample", above(0, "do_sample: false takes the most probable token"))
    .flag("sampling: divides the logits; below 1 less random"),
  /** Sampling: keeps this many of the most probable tokens. Default 50; 0 is off. */
  top_k: number().default(50, 0).needs("do_sample", whole(0)).flag("sampling: only the n most probable tokens; 0: all"),
  /** Sampling: keeps the most probable tokens that together have this probability. Default 1: all. */
  top_p: number()
    .default(1)
    .needs(
      "do_sample",
      number("a number of at least 0", (value) => value >= 0),
    )
    .idle("it is above 1", (value) => value > 1)
    .flag("sampling: only the most probable tokens that together have probability x"),
  /** Sampling: keeps the most probable tokens within this share of the entropy of the best 100, above 0, at most 1. */
  top_h: number().needs(
    "do_sample",
    number("a number above 0, at most 1", (value) => value > 0 && value <= 1),
  ),
  /** Sampling: drops tokens less probable than this times the most probable, from 0 to 1. */
  min_p: number()
    .needs(
      "do_sample",
      number("a number from 0 to 1", (value) => value >= 0 && value <= 1),
    )
    .flag("sampling: only tokens at least x times as probable as the most probable"),
  /** Sampling: keeps the most typical tokens that together have this probability. Default 1: all. */
  typical_p: number()
    .default(1)
    .needs("do_sample", above(0))
    .idle("it is above 1", (value) => value > 1)
    .flag("sampling: only the most typical tokens that together have probability x"),
  /** Sampling: drops tokens of a probability below this. Default 0: none. */
  epsilon_cutoff: number()
    .default(0)
    .needs("do_sample")
    .idle("it is not between 0 and 1", (value) => !isShare(value)),
  /** Sampling: drops tokens below this or √this · e^-entropy, whichever is less. Default 0: none. */
  eta_cutoff: number()
    .default(0)
    .needs("do_sample")
    .idle("it is not between 0 and 1", (value) => !isShare(value)),

  /** Number of beams. Default 1. */
  num_beams: whole(1).default(1).flag("number of beams"),
  /** Beams: scores are divided by (new tokens)^length_penalty; above 0 favours long answers. Default 1. */
  length_penalty: number().default(1).needs("num_beams").flag("beams: above 0 favours long answers"),
  /** Beams: true stops at num_beams finished sequences, false when none is likely to beat them, "never" when none can. */
  early_stopping: oneOf(true, false, "never")
    .default(false)
    .needs("num_beams")
    .flag("beams: whether to stop at num_beams finished sequences"),
  /**
   * Beams: whose rules score and end them. "4.33" is transformers 4.33, which LAVIS pins, where a row begins with a start
   * token: a sequence that reaches the maximum length is one longer, and so is the length at which the best running one must
   * still beat the finished. Only eos ids and the maximum length end a sequence there. Default "5".
   */
  beam_rules: oneOf("5", "4.33").default("5").needs("num_beams"),
  /**
   * Prompt lookup decoding: drafts up to this many tokens, as they follow where the row's last tokens occurred before, and
   * verifies them in one pass. The same tokens, in fewer passes. One prompt at a time; not with beams, guidance, SynthID,
   * interventions or states.
   */
  prompt_lookup_num_tokens: whole(1, MOST_DRAFT_TOKENS).flag(
    "draft up to n tokens from the row so far and verify them in one pass",
  ),
  /** Prompt lookup: how many of the row's last tokens are searched for, at most. Default 2. */
  max_matching_ngram_size: whole(1)
    .default(2)
    .needs("prompt_lookup_num_tokens")
    .flag("prompt lookup: search for the last n tokens, else for fewer"),
  /**
   * Assisted decoding: a smaller model on the same device, with the same tokenizer and image inputs, that drafts tokens for
   * this one to verify. It is given the same image and prompt. The same tokens, in fewer passes of this model; limits as of
   * prompt_lookup_num_tokens.
   */
  assistant_model: option<AssistantModel>(isModel),
  /** Assistant: draft tokens for each pass, at most. Default 20, as in HF, where the assistant's generation config has it. */
  num_assistant_tokens: whole(1, MOST_DRAFT_TOKENS)
    .default(20)
    .needs("assistant_model")
    .flag("assistant: draft tokens for each pass, at most"),
  /** Assistant: "heuristic" drafts 2 more after a pass that accepts all, else 1 less. Default "constant". */
  num_assistant_tokens_schedule: oneOf("constant", "heuristic", "heuristic_transient")
    .default("constant")
    .needs("assistant_model")
    .odd((value) =>
      value === "heuristic" ? "every call begins at num_assistant_tokens, as heuristic_transient" : undefined,
    )
    .flag(
      "assistant: constant; or heuristic_transient: a draft after one that was all accepted has 2 tokens more, else 1 less",
    ),
  /**
   * Assistant: a draft ends with a token less probable than this; 0: never. Default 0.4. It stays as it is, as in transformers
   * without scikit-learn.
   */
  assistant_confidence_threshold: number("a number from 0 to 1", (value) => value >= 0 && value <= 1)
    .default(0.4, 0)
    .needs("assistant_model")
    .flag("assistant: a draft ends with a token less probable than this"),

  /** Answers for each prompt: at most num_beams with beams, any number with do_sample. Default 1. */
  num_return_sequences: whole(1, 1024).default(1).flag("answers, one a line"),

  /** Above 1 makes every token that is already in the row, image and prompt ids included, less likely. */
  repetition_penalty: above(0).default(1).readsPrompt().flag("above 1: tokens of the row so far become less likely"),
  /**
   * Whether repetition_penalty counts the prompt's and image's ids. Default true, as in HF; false counts the answer's alone, a
   * list of ids these and the answer's, as in LAVIS, whose language model is given embeddings and a start token.
   */
  penalize_prompt: option<boolean | readonly number[]>(
    oneOrList(
      is("true, false or a list of token ids", (value) => typeof value === "boolean"),
      listOf(checkId, "a list of token ids"),
    ),
  )
    .default(true)
    .needs("repetition_penalty"),
  /** No run of this many tokens occurs twice in a row, prompt included. */
  no_repeat_ngram_size: whole(0).default(0).readsPrompt().flag("no run of n tokens occurs twice; 0: off"),

  /**
   * Classifier-free guidance scale. Above 1 moves answers away from those of the language model without image and prompt,
   * below 1 towards them. 1 is off. Not with beams or T5. Takes a second cache and a second pass for each token.
   */
  guidance_scale: number().default(1).flag("above 1: away from answers without image and prompt"),
  /**
   * The negative prompt of guidance, a row for each answer: [B * num_return_sequences][N]. Default: the prompt's last id.
   */
  negative_prompt_ids: rows("token ids").needs("guidance_scale"),
  /** 1 = not padding. Default: ones. */
  negative_prompt_attention_mask: rows("0 and 1").needs("guidance_scale"),
  /** [[ids, bias], …]: added to the score of the last id wherever the ids before it have just occurred. */
  sequence_bias: option<readonly (readonly [ids: readonly number[], bias: number])[]>(
    listOf(
      (name, pair, vocabulary, fail) => {
        listOf(() => {}, BIASES, 2, 2)(name, pair, vocabulary, fail);
        const [ids, added] = pair as unknown[];
        checkIds(name, ids, vocabulary, fail);
        bias(name, added, vocabulary, fail);
      },
      BIASES,
      1,
    ),
  ).default([]),
  /** Sequences that must not occur: their last id is banned after the others. */
  bad_words_ids: option<readonly (readonly number[])[]>(listOf(checkIds, "a list of lists of token ids", 1)).default(
    [],
  ),
  /** Returns the ids that may follow the row so far. */
  prefix_allowed_tokens_fn: option<(batch: number, ids: readonly number[]) => readonly number[]>(
    isFunction("(batch, ids)"),
  ),
  /** The token after a row of one id, which is an encoder-decoder's start token. */
  forced_bos_token_id: option<number>(checkId),
  /** The last token of an answer that reaches its maximum length. */
  forced_eos_token_id: option<number | readonly number[]>(oneOrList(checkId, checkIds)).kept<readonly number[]>(
    [],
    (ids) => [ids].flat(),
  ),
  /** NaN in the scores becomes 0, an infinity the largest number of its sign. */
  remove_invalid_values: flag(),
  /**
   * Whether scores with NaN or infinities are an error. Default true, unless remove_invalid_values is set. Not in HF, where
   * NaN counts as the largest score.
   */
  check_numerics: flag(),
  /** [start, factor]: after `start` new tokens the score of the end grows by powers of `factor`. */
  exponential_decay_length_penalty: option<readonly [start: number, factor: number]>(
    is("[start, factor], a whole number and a number", (value) => {
      const [start, factor] = Array.isArray(value) && value.length === 2 ? value : [];
      return Number.isSafeInteger(start) && Number.isFinite(factor);
    }),
  ),
  /** Ids that are never chosen. */
  suppress_tokens: anyIds(),
  /** Ids that may not be the first of an answer. */
  begin_suppress_tokens: anyIds(),
  /** Processors of the caller's, run after those above and before those of sampling. */
  logits_processor: functions<CustomLogitsProcessor>("(rows, scores)").default([]),
  /** Criteria of the caller's: true ends a row, which includes the new token. Beams: called for every candidate. */
  stopping_criteria: functions<StoppingCriterion>("a row").default([]),
  /** Watermarks the output with a key; the same watermark as Hugging Face's on the CPU. */
  watermarking_config: option<WatermarkingConfig | SynthIDTextWatermarkingConfig>(checkWatermark, {
    argument: "<json>",
    read: jsonObject,
    must: 'an object as JSON: {} or {"bias": 2.5}',
  }).flag("watermark the answer by a green list ({} for the defaults) or SynthID"),
  /** Normalises the processed scores to log probabilities again. Default false. */
  renormalize_logits: flag(),
  /** Applies to prompts given as ids; here they are given as embeddings, and HF ignores it with a warning. */
  encoder_repetition_penalty: number().default(1).idle(EMBEDDED),
  /** As encoder_repetition_penalty: no effect, with a warning. */
  encoder_no_repeat_ngram_size: number().default(0).idle(EMBEDDED),

  /** A GenerateOutput instead of rows of ids. Default false. */
  return_dict_in_generate: flag(),
  /** With return_dict_in_generate: the processed scores of every step. */
  output_scores: flag().needs("return_dict_in_generate"),
  /** With return_dict_in_generate: the raw logits of every step. */
  output_logits: flag().needs("return_dict_in_generate"),
  /**
   * With return_dict_in_generate: the log-probability of every token of an answer, and the n most probable in its place; 0:
   * none of them. Not in HF, where compute_transition_scores(…, normalize_logits=True) gives it from the scores.
   */
  logprobs: whole(0, 1000)
    .needs("return_dict_in_generate")
    .bare(0)
    .flag("also the log-probability of each token, and the n most probable in its place"),
  /** With return_dict_in_generate: the language model's attention probabilities of every step and layer. */
  output_attentions: flag().needs("return_dict_in_generate"),
  /** With return_dict_in_generate: the language model's states of every step, between all layers. */
  output_hidden_states: flag().needs("return_dict_in_generate"),
  /** False: the answers alone, without image ids and prompt. Default true, as in HF. */
  return_full_text: flag().default(true),
  /** Always on; false changes only the speed in HF, and nothing here. */
  use_cache: flag().default(true),
};

/** Options of generate(), by Hugging Face's names. `null` switches an option off, as `None` does there. */
export interface GenerationOptions extends OptionsOf<typeof GENERATION> {}

function jsonObject(text: string): unknown {
  try {
    const parsed: unknown = JSON.parse(text);
    return typeof parsed === "object" && parsed !== null && !Array.isArray(parsed) ? parsed : undefined;
  } catch {
    return undefined;
  }
}

// --- other options of Hugging Face -------------------------------------------------------------------------------------

/** Neutral values, such as HF's defaults, are accepted; `null` always is. */
const unsupported =
  (why: string, ...neutral: unknown[]): Check =>
  (name, value) => {
    if (!neutral.includes(value)) throw new InputError("UNSUPPORTED_OPTION", `${name}: ${why}`);
  };

const ONE_TOKENIZER = "an assistant has the tokenizer of the model that it assists";
const GROUP_BEAMS = "group beam search was removed from transformers; num_beams follows beams that may be alike";
const CONSTRAINED =
  "constrained beam search was removed from transformers; prefix_allowed_tokens_fn says what may follow";
const CACHE = "the cache is as long as the longest row and stays on the device";

/** For options that have no effect in HF either. */
const harmless: Check = () => {};

/**
 * Options of HF's DecodingConfig and generate() that this project does not support. Listed so that they are refused by
 * name, not as typos, and so that a generation_config.json with neutral values is accepted.
 */
export const UNSUPPORTED: Readonly<Record<string, Check>> = {
  num_beam_groups: unsupported(GROUP_BEAMS, 1),
  diversity_penalty: unsupported(GROUP_BEAMS, 0),
  constraints: unsupported(CONSTRAINED),
  force_words_ids: unsupported(CONSTRAINED),
  penalty_alpha: unsupported("contrastive search was removed from transformers", 0),
  dola_layers: unsupported("DoLa was removed from transformers"),
  low_memory: unsupported("transformers' beam search no longer has it", false),
  token_healing: unsupported("the prompt is taken as it is", false),

  assistant_tokenizer: unsupported(ONE_TOKENIZER),
  assistant_early_exit: unsupported("these language models are not trained to end after some layers"),
  use_mtp: unsupported("these language models predict one token at a time", false),
  is_assistant: unsupported("give the assistant as assistant_model", false),
  assistant_ensemble_weight: unsupported("answers would not be the model's own"),
  speculation_type: unsupported("prompt_lookup_num_tokens and assistant_model are what drafts"),
  // They align two tokenizers. In HF they have defaults.
  assistant_lookbehind: harmless,
  target_lookbehind: harmless,

  cache_implementation: unsupported(CACHE),
  cache_config: unsupported(CACHE),
  max_cache_len: unsupported(CACHE),
  compile_config: unsupported("there is no torch.compile; from_pretrained's compile prepares kernels"),
  disable_compile: harmless,
  continuous_batching_config: unsupported("there is no continuous batching: a batch is answered together"),
  prefill_chunk_size: unsupported("long prompts are read in pieces as it is, and the pieces change nothing"),

  decoder_start_token_id: unsupported("it is the language model's own, text_config.decoder_start_token_id"),
  decoder_input_ids: unsupported("answers begin with decoder_start_token_id alone; forward() takes them"),
  custom_generate: unsupported("there is no code from the Hub; logits_processor and stopping_criteria take functions"),
  synced_gpus: unsupported("one model runs on one device", false),
  inputs: unsupported("the inputs have names: give pixel_values, input_ids and what else the processor makes"),

  // Metadata of a generation_config.json.
  _from_model_config: harmless,
  transformers_version: harmless,
};

/** Names in `given` that generate() does not know. Throws UNKNOWN_OPTION with the nearest right one. */
export function refuseUnknownOptions(given: object, alsoKnown: readonly string[] = []): void {
  const wanted = Object.entries(given).filter(([name]) => !Object.hasOwn(UNSUPPORTED, name));
  refuseUnknown("generate", Object.fromEntries(wanted), [...Object.keys(GENERATION), ...alsoKnown]);
}
