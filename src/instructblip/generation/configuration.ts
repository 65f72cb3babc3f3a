/**
 * What `generate()` may be told, what it takes as default, and what it refuses.
 *
 * Hugging Face's names and meanings. Defaults are global, but for the special token ids, which come from `text_config`:
 * the composite's generate() calls the language model's, whose own generation config was derived from text_config at
 * construction. generation_config.json is never consulted, and v5 drops other generation keys (`num_beams`,
 * `max_length`, …) that old text_configs carry.
 * Source: transformers 5.18, generation/configuration_utils.py and _prepare_generated_length in generation/utils.py.
 */
import { InputError, nearest } from "../../tensor/errors.ts";
import { quote, shown } from "../../tensor/shown.ts";
import type {
  CustomLogitsProcessor,
  StoppingCriterion,
  SynthIDTextWatermarkingConfig,
  WatermarkingConfig,
} from "./types.ts";

/** Options of generate(), by Hugging Face's names. `null` switches an option off, as `None` does there. */
export interface GenerationOptions {
  /** Tokens to add, at most. Default 20. */
  max_new_tokens?: number | null;
  /** Tokens of a whole row, at most: image tokens, prompt and answer. Ignored when max_new_tokens is given. */
  max_length?: number | null;
  /** End-of-sequence ids are not chosen before a row has this many tokens, image tokens and prompt included. */
  min_length?: number | null;
  /** End-of-sequence ids are not chosen before a row has this many new tokens. Overrides min_length. */
  min_new_tokens?: number | null;
  /** Seconds after which no further token is begun. */
  max_time?: number | null;
  /** Texts that end an answer; they need `tokenizer`, as in HF. */
  stop_strings?: string | readonly string[] | null;
  /** Ids that end an answer. Default: those of text_config. null: none. */
  eos_token_id?: number | readonly number[] | null;
  /** Fills rows that ended early. Default: that of text_config, else the first eos id. */
  pad_token_id?: number | null;
  /** No effect: prompts begin with their own. */
  bos_token_id?: number | null;

  /** Draw tokens by their probability. Default false: take the likeliest. */
  do_sample?: boolean | null;
  /** Sequences followed side by side. Default 1. */
  num_beams?: number | null;
  /** Answers for each prompt: at most num_beams with beams, any number with do_sample. Default 1. */
  num_return_sequences?: number | null;
  /** Beams: true stops at num_beams finished sequences, false when none is likely to beat them, "never" when none can. */
  early_stopping?: boolean | "never" | null;
  /** Beams: scores are divided by (new tokens)^length_penalty; above 0 favours long answers. Default 1. */
  length_penalty?: number | null;
  /** Makes do_sample repeatable; not in HF, whose generator is PyTorch's. Default: another one each time. */
  seed?: number | null;

  /**
   * Moves answers away from what the language model would say without picture and prompt, above 1, or towards it, below.
   * 1 is off. Not with beams, nor with T5. A second cache and a second pass a token.
   */
  guidance_scale?: number | null;
  /** What guidance moves away from, a row for each answer: [B * num_return_sequences][N]. Default: the prompt's last id. */
  negative_prompt_ids?: readonly (readonly number[])[] | null;
  /** 1 = not padding. Default: ones. */
  negative_prompt_attention_mask?: readonly (readonly number[])[] | null;
  /** [[ids, bias], …]: added to the score of the last id wherever the ids before it have just occurred. */
  sequence_bias?: readonly (readonly [ids: readonly number[], bias: number])[] | null;
  /** Above 1 makes every token that is already in the row, image and prompt ids included, less likely. */
  repetition_penalty?: number | null;
  /** No run of this many tokens occurs twice in a row, prompt included. */
  no_repeat_ngram_size?: number | null;
  /** Sequences that may not occur: their last id is not chosen behind the others. */
  bad_words_ids?: readonly (readonly number[])[] | null;
  /** The ids that may follow the row so far. */
  prefix_allowed_tokens_fn?: ((batch: number, ids: readonly number[]) => readonly number[]) | null;
  /** The first token of a row of one id, as an encoder-decoder begins: of what follows the start token. */
  forced_bos_token_id?: number | null;
  /** What the last token is, where an answer reaches its maximum length. */
  forced_eos_token_id?: number | readonly number[] | null;
  /** NaN in the scores becomes 0, an infinity the largest number of its sign: goes on with a model that gives such. */
  remove_invalid_values?: boolean | null;
  /**
   * Whether scores that no token can be chosen by, with a NaN or an infinity, are an error. Default true, unless
   * remove_invalid_values is. Not in HF, where NaN is the likeliest.
   */
  check_numerics?: boolean | null;
  /** [start, factor]: after `start` new tokens the end of the sequence grows likelier by powers of `factor`. */
  exponential_decay_length_penalty?: readonly [start: number, factor: number] | null;
  /** Ids that are never chosen. */
  suppress_tokens?: readonly number[] | null;
  /** Ids that may not come first. */
  begin_suppress_tokens?: readonly number[] | null;
  /** The caller's own, run in turn after the processors above and before sampling's. */
  logits_processor?: readonly CustomLogitsProcessor[] | null;
  /** The caller's own: true ends a row, which has the new token already. Beams: asked of every candidate. */
  stopping_criteria?: readonly StoppingCriterion[] | null;
  /** Marks answers so that whoever has the key can tell; what Hugging Face writes on the CPU. */
  watermarking_config?: WatermarkingConfig | SynthIDTextWatermarkingConfig | null;
  /** Makes log probabilities of the processed scores again. Default false. */
  renormalize_logits?: boolean | null;

  /** Sampling: divides the scores; below 1 safer, above 1 more varied. Default 1. */
  temperature?: number | null;
  /** Sampling: keeps the likeliest tokens within this share of the entropy of the best 100, above 0, at most 1. */
  top_h?: number | null;
  /** Default 50; 0 is off. */
  top_k?: number | null;
  /** Sampling: keeps the likeliest tokens that together have this probability. Default 1: all. */
  top_p?: number | null;
  /** Sampling: drops tokens less likely than this times the likeliest, from 0 to 1. */
  min_p?: number | null;
  /** Sampling: keeps the most typical tokens that together have this probability. Default 1: all. */
  typical_p?: number | null;
  /** Sampling: drops tokens of a probability below this. Default 0: none. */
  epsilon_cutoff?: number | null;
  /** Sampling: drops tokens below this or √this · e^-entropy, whichever is less. Default 0: none. */
  eta_cutoff?: number | null;
  /** Of the prompt as ids; here the language model is given embeddings, and HF ignores it with a warning. */
  encoder_repetition_penalty?: number | null;
  /** As encoder_repetition_penalty: no effect, with a warning. */
  encoder_no_repeat_ngram_size?: number | null;

  /** A GenerateOutput instead of rows of ids. Default false. */
  return_dict_in_generate?: boolean | null;
  /** With return_dict_in_generate: the processed scores of every step. */
  output_scores?: boolean | null;
  /** With return_dict_in_generate: the raw logits of every step. */
  output_logits?: boolean | null;
  /** With return_dict_in_generate: the language model's attention probabilities of every step and layer. */
  output_attentions?: boolean | null;
  /** With return_dict_in_generate: the language model's states of every step, between all layers. */
  output_hidden_states?: boolean | null;
  /** False: the answers alone, without image ids and prompt. Default true, as in HF. */
  return_full_text?: boolean | null;
  /** Always on; false changes nothing but speed in HF, and nothing here. */
  use_cache?: boolean | null;
}

/** Options after defaults and checks; lengths count whole rows. */
export interface GenerationConfig {
  /** Ids are below it, though prompts may have others. */
  readonly vocabulary: number;
  readonly prompt_length: number;
  readonly max_length: number;
  /** min_new_tokens, where given, has become this. */
  readonly min_length: number;
  readonly max_time: number | null;
  readonly stop_strings: readonly string[];
  readonly eos_token_id: readonly number[];
  /** Fills rows that ended early. Null where neither it nor an eos id is known: no row ends early then. */
  readonly pad_token_id: number | null;

  readonly do_sample: boolean;
  readonly num_beams: number;
  readonly num_return_sequences: number;
  readonly early_stopping: boolean | "never";
  readonly length_penalty: number;
  readonly seed: number | null;

  readonly guidance_scale: number;
  readonly negative_prompt_ids: readonly (readonly number[])[] | null;
  readonly negative_prompt_attention_mask: readonly (readonly number[])[] | null;
  readonly sequence_bias: NonNullable<GenerationOptions["sequence_bias"]>;
  readonly repetition_penalty: number;
  readonly no_repeat_ngram_size: number;
  readonly bad_words_ids: readonly (readonly number[])[];
  readonly prefix_allowed_tokens_fn: GenerationOptions["prefix_allowed_tokens_fn"];
  readonly forced_bos_token_id: number | null;
  readonly forced_eos_token_id: readonly number[];
  readonly remove_invalid_values: boolean;
  readonly check_numerics: boolean;
  readonly exponential_decay_length_penalty: readonly [start: number, factor: number] | null;
  readonly suppress_tokens: readonly number[];
  readonly begin_suppress_tokens: readonly number[];
  readonly logits_processor: readonly CustomLogitsProcessor[];
  readonly stopping_criteria: readonly StoppingCriterion[];
  readonly watermarking_config: WatermarkingConfig | SynthIDTextWatermarkingConfig | null;
  readonly renormalize_logits: boolean;
  readonly temperature: number;
  readonly top_h: number | null;
  readonly top_k: number;
  readonly top_p: number;
  readonly min_p: number | null;
  readonly typical_p: number;
  readonly epsilon_cutoff: number;
  readonly eta_cutoff: number;

  readonly return_dict_in_generate: boolean;
  readonly output_scores: boolean;
  readonly output_logits: boolean;
  readonly output_attentions: boolean;
  readonly output_hidden_states: boolean;
  readonly return_full_text: boolean;
  /** What was ignored, and why. */
  readonly warnings: readonly string[];
}

/** What the options are checked against. */
export interface GenerationSetting {
  /** Tokens in the rows to be continued: image tokens and prompt; for an encoder-decoder the start token alone. */
  readonly promptLength: number;
  /**
   * Tokens that the language model is given as embeddings only, so that the rows do not have them: max_length and
   * min_length count them nevertheless. Default 0.
   */
  readonly embeddedLength?: number | undefined;
  /** Rows of the language model's head: ids at or above it cannot occur. */
  readonly vocabulary: number;
  /** Of the language model; where the default length stops. */
  readonly max_position_embeddings?: number | undefined;
  readonly eos_token_id: number | readonly number[] | null;
  readonly pad_token_id: number | null;
  /** What answers begin with, where it is not the prompt. */
  readonly decoder_start_token_id?: number | undefined;
  /** Keys and values of one token of one row, for the message that refuses too many beams. */
  readonly cacheBytesPerToken?: number | undefined;
}

/** HF's default when neither max_length nor max_new_tokens is given. */
const DEFAULT_NEW_TOKENS = 20;
/** Of a row. Far beyond the language models here; a slip (1e9) should not end in an allocation failure. */
const MOST_TOKENS = 65536;
/** Each beam has keys and values of its own. */
const MOST_BEAMS = 64;
/** Each is searched for after every token. */
const MOST_STOP_STRINGS = 1000;

// --- one check an option -----------------------------------------------------------------------------------------------

/** Throws unless `value` may be given for `name`. */
type Check = (name: string, value: unknown, vocabulary: number) => void;

function refuse(name: string, must: string, value: unknown, hint?: string): never {
  throw new InputError("PARAM_RANGE", `${name} must be ${must}, got ${shown(value)}`, { hint });
}

const whole =
  (low: number, high = Number.MAX_SAFE_INTEGER): Check =>
  (name, value) => {
    if (Number.isSafeInteger(value) && (value as number) >= low && (value as number) <= high) return;
    refuse(
      name,
      high === Number.MAX_SAFE_INTEGER ? `a whole number of at least ${low}` : `a whole number from ${low} to ${high}`,
      value,
    );
  };

const number =
  (must: string, holds: (value: number) => boolean, hint?: string): Check =>
  (name, value) => {
    if (!(typeof value === "number" && Number.isFinite(value) && holds(value))) refuse(name, must, value, hint);
  };

const aNumber = number("a number", () => true);

const flag: Check = (name, value) => {
  if (typeof value !== "boolean") refuse(name, "true or false", value);
};

const isId = (value: unknown, vocabulary: number) =>
  Number.isInteger(value) && (value as number) >= 0 && (value as number) < vocabulary;

const id: Check = (name, value, vocabulary) => {
  if (!isId(value, vocabulary)) refuse(name, `a token id below ${vocabulary}`, value);
};

const ids: Check = (name, value, vocabulary) => {
  if (!Array.isArray(value)) refuse(name, "a list of token ids", value);
  for (const one of value as unknown[]) id(name, one, vocabulary);
};

/** Ids that no token may have: such an end ends nothing. HF warns of negative ones. */
const anyId: Check = (name, value) => {
  if (!Number.isSafeInteger(value)) refuse(name, "a token id", value);
};

const anyIds: Check = (name, value) => {
  if (!Array.isArray(value)) refuse(name, "a list of token ids", value);
  for (const one of value as unknown[]) anyId(name, one, 0);
};

const anyIdOrIds: Check = (name, value) => (Array.isArray(value) ? anyIds : anyId)(name, value, 0);

const someIds: Check = (name, value, vocabulary) => {
  if (!Array.isArray(value) || value.length === 0) refuse(name, "lists of at least one token id", value);
  ids(name, value, vocabulary);
};

/** Which ids there are and how many rows there must be is checked where they are read (guidance.ts). */
const rows =
  (of: string): Check =>
  (name, value) => {
    if (!Array.isArray(value) || !value.every(Array.isArray)) refuse(name, `rows of ${of}`, value);
  };

const functions =
  (of: string): Check =>
  (name, value) => {
    if (!Array.isArray(value) || !value.every((one) => typeof one === "function")) {
      refuse(name, `a list of functions of ${of}`, value);
    }
  };

const oneOf =
  (...choices: unknown[]): Check =>
  (name, value) => {
    if (!choices.includes(value)) refuse(name, choices.map(shown).join(" or "), value);
  };

const integer = number("a whole number", Number.isSafeInteger);

const GREEN_LIST: Readonly<Record<keyof WatermarkingConfig, Check>> = {
  greenlist_ratio: number("a number above 0, below 1", (value) => value > 0 && value < 1),
  bias: number("a number", () => true),
  hashing_key: integer,
  seeding_scheme: oneOf("lefthash", "selfhash"),
  context_width: whole(1),
};

const SYNTH_ID: Readonly<Record<keyof SynthIDTextWatermarkingConfig, Check>> = {
  ngram_len: whole(1, 1024),
  keys: (name, value) => {
    if (!Array.isArray(value) || value.length === 0 || value.length > 1024) refuse(name, "1 to 1024 numbers", value);
    for (const key of value as unknown[]) integer(name, key, 0);
  },
  context_history_size: whole(1, 2 ** 20),
  sampling_table_seed: integer,
  sampling_table_size: whole(1, 2 ** 24),
  skip_first_ngram_calls: flag,
  debug_mode: flag,
};

/** Throws unless `value` describes a watermark. */
export const checkWatermark: Check = (name, value, vocabulary) => {
  const given = value as object;
  if (typeof value !== "object" || value === null || Array.isArray(value))
    refuse(name, "an object such as { bias: 2 }", value);
  const synthID = "keys" in given || "ngram_len" in given;
  const fields: Readonly<Record<string, Check>> = synthID ? SYNTH_ID : GREEN_LIST;
  for (const [field, set] of Object.entries(given)) {
    if (!Object.hasOwn(fields, field)) {
      const close = nearest(field, Object.keys(fields));
      throw new InputError("UNKNOWN_OPTION", `${name} has no field ${quote(field)}`, {
        hint: close ? `did you mean ${close}?` : `fields: ${Object.keys(fields).join(", ")}`,
      });
    }
    if (set !== undefined) fields[field](`${name}.${field}`, set, vocabulary);
  }
  for (const field of synthID ? (["ngram_len", "keys"] as const) : []) {
    if ((given as Partial<SynthIDTextWatermarkingConfig>)[field] === undefined) {
      refuse(name, `given ${field}, which SynthID needs`, value);
    }
  }
};

/** Neutral values as in HF's defaults pass; `null` always does. */
const unsupported =
  (why: string, ...neutral: unknown[]): Check =>
  (name, value) => {
    if (!neutral.includes(value)) throw new InputError("UNSUPPORTED_OPTION", `${name}: ${why}`);
  };

const OPTIONS: Readonly<Record<keyof GenerationOptions, Check>> = {
  max_new_tokens: whole(1, MOST_TOKENS),
  max_length: whole(1, MOST_TOKENS),
  min_length: whole(0),
  min_new_tokens: whole(0),
  max_time: number("seconds, above 0", (value) => value > 0),
  stop_strings: (name, value) => {
    const list = typeof value === "string" ? [value] : value;
    const fits = Array.isArray(list) && list.length > 0 && list.length <= MOST_STOP_STRINGS;
    if (!fits || !list.every((text) => typeof text === "string" && text !== "")) {
      refuse(name, `a text or 1 to ${MOST_STOP_STRINGS} texts, none of them empty`, value);
    }
  },
  eos_token_id: anyIdOrIds,
  pad_token_id: anyId,
  bos_token_id: anyId,

  do_sample: flag,
  num_beams: whole(1),
  num_return_sequences: whole(1, 1024),
  early_stopping: (name, value) => {
    if (typeof value !== "boolean" && value !== "never") refuse(name, 'true, false or "never"', value);
  },
  length_penalty: number("a number", () => true),
  seed: whole(0),

  guidance_scale: number("a number", () => true),
  negative_prompt_ids: rows("token ids"),
  negative_prompt_attention_mask: rows("0 and 1"),
  sequence_bias: (name, value, vocabulary) => {
    const pairs = value as readonly (readonly [unknown, unknown])[];
    const must = "[[ids, bias], …] with at least one pair";
    if (!Array.isArray(value) || value.length === 0) refuse(name, must, value);
    for (const pair of pairs) {
      if (!Array.isArray(pair) || pair.length !== 2) refuse(name, must, value);
      someIds(name, pair[0], vocabulary);
      if (typeof pair[1] !== "number" || Number.isNaN(pair[1])) refuse(name, must, value);
    }
  },
  repetition_penalty: number("a number above 0", (value) => value > 0),
  no_repeat_ngram_size: whole(0),
  bad_words_ids: (name, value, vocabulary) => {
    if (!Array.isArray(value) || value.length === 0) refuse(name, "a list of lists of token ids", value);
    for (const word of value as unknown[]) someIds(name, word, vocabulary);
  },
  prefix_allowed_tokens_fn: (name, value) => {
    if (typeof value !== "function") refuse(name, "a function of (batch, ids)", value);
  },
  forced_bos_token_id: id,
  forced_eos_token_id: (name, value, vocabulary) => (Array.isArray(value) ? someIds : id)(name, value, vocabulary),
  remove_invalid_values: flag,
  check_numerics: flag,
  exponential_decay_length_penalty: (name, value) => {
    const [start, factor] = Array.isArray(value) && value.length === 2 ? value : [];
    if (!Number.isSafeInteger(start) || typeof factor !== "number" || !Number.isFinite(factor)) {
      refuse(name, "[start, factor], a whole number and a number", value);
    }
  },
  suppress_tokens: anyIds,
  begin_suppress_tokens: anyIds,
  logits_processor: functions("(rows, scores)"),
  stopping_criteria: functions("a row"),
  watermarking_config: checkWatermark,
  renormalize_logits: flag,

  temperature: aNumber,
  top_h: aNumber,
  top_k: aNumber,
  top_p: aNumber,
  min_p: aNumber,
  typical_p: aNumber,
  epsilon_cutoff: aNumber,
  eta_cutoff: aNumber,
  encoder_repetition_penalty: aNumber,
  encoder_no_repeat_ngram_size: aNumber,

  return_dict_in_generate: flag,
  output_scores: flag,
  output_logits: flag,
  output_attentions: flag,
  output_hidden_states: flag,
  return_full_text: flag,
  use_cache: flag,
};

/**
 * What sampling's options must be, where they are used: without do_sample HF takes whatever they are, and warns. The same
 * bounds as there, by which 0 is no top_p but the likeliest token's, and cut-offs of nothing or everything are off.
 */
const SAMPLING: Readonly<Partial<Record<keyof GenerationOptions, Check>>> = {
  temperature: number("a number above 0", (value) => value > 0, "do_sample: false takes the likeliest token"),
  top_h: number("a number above 0, at most 1", (value) => value > 0 && value <= 1),
  top_k: whole(0),
  top_p: number("a number of at least 0", (value) => value >= 0),
  min_p: number("a number from 0 to 1", (value) => value >= 0 && value <= 1),
  typical_p: number("a number above 0", (value) => value > 0),
  epsilon_cutoff: aNumber,
  eta_cutoff: aNumber,
};

const NO_ASSISTANT = "there is no assisted decoding: every token is the language model's own";
const GROUP_BEAMS = "group beam search was removed from transformers; num_beams follows beams that may be alike";
const CONSTRAINED =
  "constrained beam search was removed from transformers; prefix_allowed_tokens_fn says what may follow";
const CACHE = "the cache is as long as the longest row and stays on the device";

/** For what has no effect, in HF either. */
const harmless: Check = () => {};

/**
 * HF's own names for what this project does not do, of its GenerationConfig and of its generate(). Listed so that they are
 * refused for what they are, not as typos, and so that a generation_config.json that changes nothing can be given.
 */
const UNSUPPORTED: Readonly<Record<string, Check>> = {
  num_beam_groups: unsupported(GROUP_BEAMS, 1),
  diversity_penalty: unsupported(GROUP_BEAMS, 0),
  constraints: unsupported(CONSTRAINED),
  force_words_ids: unsupported(CONSTRAINED),
  penalty_alpha: unsupported("contrastive search was removed from transformers", 0),
  dola_layers: unsupported("DoLa was removed from transformers"),
  low_memory: unsupported("transformers' beam search no longer has it", false),
  token_healing: unsupported("the prompt is taken as it is", false),

  assistant_model: unsupported(NO_ASSISTANT),
  assistant_tokenizer: unsupported(NO_ASSISTANT),
  assistant_early_exit: unsupported(NO_ASSISTANT),
  prompt_lookup_num_tokens: unsupported(NO_ASSISTANT),
  use_mtp: unsupported("these language models predict one token at a time", false),
  is_assistant: unsupported(NO_ASSISTANT, false),
  assistant_ensemble_weight: unsupported(NO_ASSISTANT),
  max_matching_ngram_size: unsupported(NO_ASSISTANT),
  speculation_type: unsupported(NO_ASSISTANT),
  // Without an assistant they do nothing in HF either, which has numbers for them by default.
  num_assistant_tokens: harmless,
  num_assistant_tokens_schedule: harmless,
  assistant_confidence_threshold: harmless,
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
  generation_config: unsupported("give its fields as options: generate({ ...inputs, ...generation_config })"),
  custom_generate: unsupported("there is no code from the Hub; logits_processor and stopping_criteria take functions"),
  synced_gpus: unsupported("one model runs on one device", false),
  inputs: unsupported("the inputs have names: give pixel_values, input_ids and what else the processor makes"),

  // What a generation_config.json says of itself.
  _from_model_config: harmless,
  transformers_version: harmless,
};

/** Names in `given` that generate() does not know. Throws UNKNOWN_OPTION with the nearest right one. */
export function refuseUnknownOptions(given: object, alsoKnown: readonly string[] = []): void {
  const names = Object.keys(OPTIONS);
  for (const name of Object.keys(given)) {
    if (Object.hasOwn(OPTIONS, name) || Object.hasOwn(UNSUPPORTED, name) || alsoKnown.includes(name)) continue;
    const close = nearest(name, [...names, ...alsoKnown]);
    throw new InputError("UNKNOWN_OPTION", `generate has no option ${quote(name)}`, {
      hint: close ? `did you mean ${close}?` : `options: ${names.join(", ")}`,
    });
  }
}

// --- all of them -------------------------------------------------------------------------------------------------------

/**
 * Checks options and fills in defaults.
 *
 * A length beyond max_position_embeddings is let through where it is asked for, as HF does; the default stops there.
 *
 * @throws InputError UNKNOWN_OPTION, UNSUPPORTED_OPTION, PARAM_RANGE, BEAM_LIMIT, naming the option
 */
export function decodingConfig(options: GenerationOptions, setting: GenerationSetting): GenerationConfig {
  refuseUnknownOptions(options);
  const given = new Map(Object.entries(options).filter(([, value]) => value !== undefined && value !== null));
  // As text_config has it, it may be given; without a decoder of its own a model makes nothing of it, as in HF.
  const start = setting.decoder_start_token_id ?? given.get("decoder_start_token_id");
  if (given.get("decoder_start_token_id") === start) given.delete("decoder_start_token_id");
  for (const [name, value] of given) {
    const check = Object.hasOwn(OPTIONS, name) ? OPTIONS[name as keyof GenerationOptions] : UNSUPPORTED[name];
    check(name, value, setting.vocabulary);
    if (options.do_sample) SAMPLING[name as keyof GenerationOptions]?.(name, value, setting.vocabulary);
  }
  const { promptLength } = setting;
  const warnings: string[] = [];
  const withToken = (ids: readonly number[] | null | undefined) =>
    (ids ?? []).filter((one) => isId(one, setting.vocabulary));
  const eos = options.eos_token_id === undefined ? setting.eos_token_id : options.eos_token_id;
  const eos_token_id = eos === null ? [] : typeof eos === "number" ? [eos] : [...eos];
  const pad = options.pad_token_id === undefined ? setting.pad_token_id : options.pad_token_id;

  const config: GenerationConfig = {
    vocabulary: setting.vocabulary,
    prompt_length: promptLength,
    ...lengths(options, setting, warnings),
    max_time: options.max_time ?? null,
    stop_strings: typeof options.stop_strings === "string" ? [options.stop_strings] : (options.stop_strings ?? []),
    eos_token_id,
    pad_token_id: pad ?? eos_token_id[0] ?? null,

    do_sample: options.do_sample ?? false,
    num_beams: options.num_beams ?? 1,
    num_return_sequences: options.num_return_sequences ?? 1,
    early_stopping: options.early_stopping ?? false,
    length_penalty: options.length_penalty ?? 1,
    seed: options.seed ?? null,

    guidance_scale: options.guidance_scale ?? 1,
    negative_prompt_ids: options.negative_prompt_ids ?? null,
    negative_prompt_attention_mask: options.negative_prompt_attention_mask ?? null,
    sequence_bias: options.sequence_bias ?? [],
    repetition_penalty: options.repetition_penalty ?? 1,
    no_repeat_ngram_size: options.no_repeat_ngram_size ?? 0,
    bad_words_ids: options.bad_words_ids ?? [],
    prefix_allowed_tokens_fn: options.prefix_allowed_tokens_fn ?? null,
    forced_bos_token_id: options.forced_bos_token_id ?? null,
    forced_eos_token_id: [options.forced_eos_token_id ?? []].flat(),
    remove_invalid_values: options.remove_invalid_values ?? false,
    check_numerics: options.check_numerics ?? options.remove_invalid_values !== true,
    exponential_decay_length_penalty: options.exponential_decay_length_penalty ?? null,
    suppress_tokens: withToken(options.suppress_tokens),
    begin_suppress_tokens: withToken(options.begin_suppress_tokens),
    logits_processor: options.logits_processor ?? [],
    stopping_criteria: options.stopping_criteria ?? [],
    watermarking_config: options.watermarking_config ?? null,
    renormalize_logits: options.renormalize_logits ?? false,

    temperature: options.temperature ?? 1,
    top_h: options.top_h ?? null,
    top_k: options.top_k === undefined ? 50 : (options.top_k ?? 0),
    top_p: options.top_p ?? 1,
    min_p: options.min_p ?? null,
    typical_p: options.typical_p ?? 1,
    epsilon_cutoff: options.epsilon_cutoff ?? 0,
    eta_cutoff: options.eta_cutoff ?? 0,

    return_dict_in_generate: options.return_dict_in_generate ?? false,
    output_scores: options.output_scores ?? false,
    output_logits: options.output_logits ?? false,
    output_attentions: options.output_attentions ?? false,
    output_hidden_states: options.output_hidden_states ?? false,
    return_full_text: options.return_full_text ?? true,
    warnings,
  };
  checkTogether(config, setting);
  warnings.push(...ignored(config, given, promptLength === 0));
  return config;
}

/** HF's rules: max_new_tokens beats max_length, min_new_tokens beats min_length, and neither maximum is 20 new tokens. */
function lengths(
  options: GenerationOptions,
  { promptLength, embeddedLength = 0, max_position_embeddings = Number.POSITIVE_INFINITY }: GenerationSetting,
  warnings: string[],
): Pick<GenerationConfig, "max_length" | "min_length"> {
  const { max_new_tokens, min_new_tokens } = options;
  if (max_new_tokens != null && options.max_length != null)
    warnings.push("max_length is ignored: max_new_tokens is given");
  if (min_new_tokens != null && options.min_length != null)
    warnings.push("min_length is ignored: min_new_tokens is given");
  let max_length: number;
  if (max_new_tokens != null) max_length = promptLength + max_new_tokens;
  else if (options.max_length != null) max_length = options.max_length - embeddedLength;
  else max_length = Math.min(promptLength + DEFAULT_NEW_TOKENS, max_position_embeddings);
  if (max_length <= promptLength && options.max_length == null) {
    throw new InputError(
      "CONTEXT_OVERFLOW",
      `image and prompt take ${promptLength} tokens; this model was trained for ${max_position_embeddings}, answer included`,
      { hint: "shorten the prompt; max_new_tokens lets the model go on beyond, untrained" },
    );
  }
  if (max_length <= promptLength) {
    const hint = "max_new_tokens counts the answer alone";
    refuse(
      "max_length",
      `more than the ${promptLength + embeddedLength} tokens of image and prompt, which it includes`,
      options.max_length,
      hint,
    );
  }
  const given_min_length = Math.max(0, (options.min_length ?? 0) - embeddedLength);
  const min_length = min_new_tokens != null ? promptLength + min_new_tokens : given_min_length;
  if (min_length > max_length) {
    const name = min_new_tokens != null ? "min_new_tokens" : "min_length";
    const most = max_length + (min_new_tokens != null ? -promptLength : embeddedLength);
    warnings.push(`${name} is ${options[name]}, but the maximum length ends an answer at ${most}`);
  }
  return { max_length, min_length };
}

function checkTogether(config: GenerationConfig, { cacheBytesPerToken }: GenerationSetting): void {
  const { do_sample, num_beams, num_return_sequences, suppress_tokens } = config;
  if (num_beams > MOST_BEAMS) {
    const bytes = (cacheBytesPerToken ?? 0) * num_beams * config.max_length;
    const size = bytes ? `: keys and values for each prompt would take ${(bytes / 2 ** 30).toFixed(1)} GiB` : "";
    throw new InputError("BEAM_LIMIT", `num_beams is ${num_beams}, at most ${MOST_BEAMS} are followed${size}`);
  }
  if (num_beams > 1 && num_return_sequences > num_beams) {
    refuse("num_return_sequences", `at most num_beams, ${num_beams}`, num_return_sequences);
  }
  if (num_beams === 1 && !do_sample && num_return_sequences > 1) {
    const hint = "greedy search has one answer; set do_sample: true or num_beams";
    refuse("num_return_sequences", "1 without do_sample and without beams", num_return_sequences, hint);
  }
  if (config.guidance_scale !== 1 && num_beams > 1) {
    // In HF the unconditional rows stay where they are when beams change places: each is guided by another's answer.
    throw new InputError(
      "UNSUPPORTED_OPTION",
      "guidance_scale: not with beams, which transformers guides by the wrong rows",
      {
        hint: "set num_beams to 1",
      },
    );
  }
  if (config.watermarking_config && "keys" in config.watermarking_config && num_beams > 1) {
    throw new InputError(
      "UNSUPPORTED_OPTION",
      "watermarking_config: SynthID not with beams, whose contexts transformers mixes up",
      { hint: "set num_beams to 1, or mark by a green list" },
    );
  }
  if (config.guidance_scale !== 1 && config.negative_prompt_attention_mask && !config.negative_prompt_ids) {
    refuse("negative_prompt_attention_mask", "given with negative_prompt_ids", config.negative_prompt_attention_mask);
  }
  if (config.exponential_decay_length_penalty && config.eos_token_id.length === 0) {
    throw new InputError("PARAM_RANGE", "exponential_decay_length_penalty needs an eos_token_id to make likelier");
  }
  for (const name of ["forced_bos_token_id", "forced_eos_token_id"] as const) {
    const forced = [config[name] ?? []].flat();
    if (forced.length > 0 && forced.every((one) => suppress_tokens.includes(one))) {
      refuse("suppress_tokens", `without ${name}: no token would be left`, suppress_tokens);
    }
  }
}

/** What options are without an effect, as in a generation_config.json that spells all of them out; of others nothing is. */
const NEUTRAL: Readonly<Record<string, unknown>> = {
  temperature: 1,
  top_k: 50,
  top_p: 1,
  typical_p: 1,
  epsilon_cutoff: 0,
  eta_cutoff: 0,
  early_stopping: false,
  length_penalty: 1,
  output_scores: false,
  output_logits: false,
  output_attentions: false,
  output_hidden_states: false,
  encoder_repetition_penalty: 1,
  encoder_no_repeat_ngram_size: 0,
};

/** Options that have no effect, or less than one may think; HF warns of the same ones. */
function ignored(config: GenerationConfig, given: ReadonlyMap<string, unknown>, embedded: boolean): string[] {
  const lines: string[] = [];
  const warn = (names: readonly string[], why: string) => {
    for (const name of names) {
      if (given.has(name) && given.get(name) !== NEUTRAL[name]) lines.push(`${name} has no effect: ${why}`);
    }
  };
  if (!config.do_sample) warn([...Object.keys(SAMPLING), "seed"], "do_sample is not true");
  else {
    for (const name of ["top_p", "typical_p"] as const) if (config[name] > 1) warn([name], "it is above 1");
    for (const name of ["epsilon_cutoff", "eta_cutoff"] as const) {
      if (config[name] < 0 || config[name] >= 1) warn([name], "it is not between 0 and 1");
    }
  }
  for (const name of ["eos_token_id", "pad_token_id", "suppress_tokens", "begin_suppress_tokens"] as const) {
    const wrong = [given.get(name) ?? []].flat().find((one) => !isId(one, config.vocabulary));
    if (wrong !== undefined) lines.push(`${name}: no token has the id ${wrong}`);
  }
  if (embedded) {
    const only = "counts new tokens only: the prompt is given as embeddings (a checkpoint without image_token_index)";
    if (config.repetition_penalty !== 1) lines.push(`repetition_penalty ${only}`);
    if (config.no_repeat_ngram_size > 0) lines.push(`no_repeat_ngram_size ${only}`);
  }
  if (config.num_beams === 1) warn(["early_stopping", "length_penalty"], "num_beams is 1");
  const outputs = ["output_scores", "output_logits", "output_attentions", "output_hidden_states"];
  if (!config.return_dict_in_generate) warn(outputs, "return_dict_in_generate is not true");
  if (config.guidance_scale === 1) {
    warn(["negative_prompt_ids", "negative_prompt_attention_mask"], "guidance_scale is 1");
  }
  const embeds = "the language model is given embeddings, not ids";
  warn(["encoder_repetition_penalty", "encoder_no_repeat_ngram_size"], embeds);
  return lines;
}
