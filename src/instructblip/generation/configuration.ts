/**
 * The generation config of one call: generate()'s options (options.ts) with defaults, checked for a model and a prompt.
 * Defaults are global, except for the special token ids, which come from `text_config`: the composite's generate() calls the
 * language model's, whose own generation config was derived from text_config at construction. generation_config.json is
 * never consulted, and v5 drops other generation keys (`num_beams`, `max_length`, …) of old text_configs.
 * Source: transformers 5.18, generation/configuration_utils.py and _prepare_generated_length in generation/utils.py.
 */
import { InputError } from "../../tensor/errors.ts";
import { checkOption, refuse, type ValuesOf, valuesOf, warningsOf } from "../config/options.ts";
import {
  DEFAULT_NEW_TOKENS,
  GENERATION,
  type GenerationOptions,
  refuseUnknownOptions,
  UNSUPPORTED,
} from "./options.ts";
import type { StoppingCriterion } from "./types.ts";

/** Options that are replaced by others (max_length, min_length) or have no effect. */
type Unkept = "max_new_tokens" | "min_new_tokens" | "bos_token_id" | "use_cache" | "penalize_prompt";

/** Options after defaults and checks; lengths count whole rows. */
export interface DecodingConfig extends Omit<ValuesOf<typeof GENERATION>, Unkept> {
  /** Generated ids are below it; prompts may have others. */
  readonly vocabulary: number;
  readonly prompt_length: number;
  /** The ids that repetition_penalty counts: those of a row from one on, and others. */
  readonly penalized: { readonly from: number; readonly more: readonly number[] };
  /** max_new_tokens and min_new_tokens are converted to these. */
  readonly max_length: number;
  readonly min_length: number;
  readonly eos_token_id: readonly number[];
  /** Fills rows that ended early. Null where neither it nor an eos id is known: no row ends early then. */
  readonly pad_token_id: number | null;
  /** Warnings about ignored options. */
  readonly warnings: readonly string[];
}

/** The model and prompt that options are checked against. */
export interface GenerationSetting {
  /** Length of the rows to be continued: image tokens and prompt; for an encoder-decoder the start token alone. */
  readonly promptLength: number;
  /**
   * Tokens that the language model is given as embeddings only, so that the rows lack them; max_length and min_length count
   * them. Default 0.
   */
  readonly embeddedLength?: number | undefined;
  /** Rows of the language model's head: ids at or above it cannot occur. */
  readonly vocabulary: number;
  /** Of the language model; where the default length stops. */
  readonly max_position_embeddings?: number | undefined;
  readonly eos_token_id: number | readonly number[] | null;
  readonly pad_token_id: number | null;
  /** The start token, if answers do not begin with the prompt. */
  readonly decoder_start_token_id?: number | undefined;
  /** Bytes of keys and values of one token of one row, for the message that refuses too many beams. */
  readonly cacheBytesPerToken?: number | undefined;
}

/** Each beam has keys and values of its own. */
const MOST_BEAMS = 64;
/**
 * Checks options and fills in defaults.
 *
 * A requested length may exceed max_position_embeddings, as in HF; the default does not.
 *
 * @throws InputError UNKNOWN_OPTION, UNSUPPORTED_OPTION, PARAM_RANGE, BEAM_LIMIT, naming the option
 */
export function decodingConfig(options: GenerationOptions, setting: GenerationSetting): DecodingConfig {
  refuseUnknownOptions(options);
  const { promptLength, vocabulary } = setting;
  const given = Object.entries(options).filter(([, value]) => value !== undefined && value !== null);
  for (const [name, value] of given) {
    if (Object.hasOwn(GENERATION, name)) checkOption(GENERATION, name, options, vocabulary);
    else if (!isOwnStart(name, value, setting)) UNSUPPORTED[name]!(name, value, vocabulary);
  }
  const { max_new_tokens, min_new_tokens, bos_token_id, use_cache, ...values } = valuesOf(
    GENERATION,
    options,
    vocabulary,
  );
  const warnings: string[] = [];
  const eos_token_id = [(options.eos_token_id === undefined ? setting : options).eos_token_id ?? []].flat();
  const { pad_token_id } = options.pad_token_id === undefined ? setting : options;
  const config: DecodingConfig = {
    ...values,
    vocabulary,
    prompt_length: promptLength,
    penalized: penalizedOf(values.penalize_prompt, setting),
    ...ownLength(values.stopping_criteria, promptLength, lengths(options, setting, warnings)),
    eos_token_id,
    pad_token_id: pad_token_id ?? eos_token_id[0] ?? null,
    check_numerics: options.check_numerics ?? !values.remove_invalid_values,
    warnings,
  };
  checkTogether(config, setting);
  warnings.push(...replaced(config, options));
  warnings.push(...warningsOf(GENERATION, options, vocabulary, promptLength > 0));
  return config;
}

/**
 * Checks options as far as neither a model nor a prompt is needed, so that none is loaded for options that cannot be had.
 *
 * @param hasAssistant whether there will be an assistant_model
 * @throws as {@link decodingConfig}
 */
export function checkDecoding(options: GenerationOptions, hasAssistant = false): void {
  const setting = { promptLength: 0, vocabulary: Number.POSITIVE_INFINITY, eos_token_id: 0, pad_token_id: null };
  decodingConfig(hasAssistant ? { ...options, assistant_model: { language_model: {} } } : options, setting);
}

/** A decoder's start token is no prompt. */
function penalizedOf(
  counts: boolean | readonly number[],
  { promptLength, decoder_start_token_id }: GenerationSetting,
): DecodingConfig["penalized"] {
  const from = counts === true || decoder_start_token_id !== undefined ? 0 : promptLength;
  return { from, more: typeof counts === "boolean" ? [] : counts };
}

/** A MaxLengthCriteria counts instead of the options; HF, too, stops at the first new token if the prompt is longer. */
function ownLength(
  criteria: readonly StoppingCriterion[],
  promptLength: number,
  { max_length, min_length }: Pick<DecodingConfig, "max_length" | "min_length">,
): Pick<DecodingConfig, "max_length" | "min_length"> {
  const own = criteria.find(({ replaces }) => replaces === "max_length")?.max_length;
  return { max_length: own === undefined ? max_length : Math.max(own, promptLength + 1), min_length };
}

/** Warnings about options that are given, and replaced by a criterion. HF warns of defaults, too. */
function replaced({ stopping_criteria }: DecodingConfig, options: GenerationOptions): string[] {
  return stopping_criteria.flatMap(({ replaces }) => {
    const names = replaces === "max_length" ? (["max_new_tokens", "max_length"] as const) : replaces ? [replaces] : [];
    return names
      .filter((name) => (options[name] ?? null) !== null)
      .map((name) => `${name} is ignored: one of stopping_criteria replaces it`);
  });
}

/** May be given if text_config has it; a decoder-only model ignores it, as HF does. */
function isOwnStart(name: string, value: unknown, setting: GenerationSetting): boolean {
  return name === "decoder_start_token_id" && value === (setting.decoder_start_token_id ?? value);
}

/** HF's rules: max_new_tokens beats max_length, min_new_tokens beats min_length, and neither maximum is 20 new tokens. */
function lengths(
  options: GenerationOptions,
  { promptLength, embeddedLength = 0, max_position_embeddings = Number.POSITIVE_INFINITY }: GenerationSetting,
  warnings: string[],
): Pick<DecodingConfig, "max_length" | "min_length"> {
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

function checkTogether(config: DecodingConfig, { cacheBytesPerToken }: GenerationSetting): void {
  const { do_sample, num_beams, num_return_sequences, suppress_tokens } = config;
  if (num_beams > MOST_BEAMS) {
    const bytes = (cacheBytesPerToken ?? 0) * num_beams * config.max_length;
    const size = bytes ? `: keys and values for each prompt would take ${(bytes / 2 ** 30).toFixed(1)} GiB` : "";
    throw new InputError("BEAM_LIMIT", `num_beams is ${num_beams}, at most ${MOST_BEAMS} are followed${size}`);
  }
  if (num_beams > 1 && num_return_sequences > num_beams) {
    refuse("num_return_sequences", `at most num_beams, ${num_beams}`, num_return_sequences);
  }
  checkAssisted(config);
  if (num_beams === 1 && !do_sample && num_return_sequences > 1) {
    const hint = "greedy search has one answer; set do_sample: true or num_beams";
    refuse("num_return_sequences", "1 without do_sample and without beams", num_return_sequences, hint);
  }
  if (config.guidance_scale !== 1 && num_beams > 1) {
    // HF does not reorder the unconditional rows with the beams, so that each would be guided by another beam's answer.
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
      { hint: "set num_beams to 1, or use a green list" },
    );
  }
  if (config.guidance_scale !== 1 && config.negative_prompt_attention_mask && !config.negative_prompt_ids) {
    refuse("negative_prompt_attention_mask", "given with negative_prompt_ids", config.negative_prompt_attention_mask);
  }
  if (config.exponential_decay_length_penalty && config.eos_token_id.length === 0) {
    throw new InputError("PARAM_RANGE", "exponential_decay_length_penalty needs an eos_token_id");
  }
  for (const name of ["forced_bos_token_id", "forced_eos_token_id"] as const) {
    const forced = [config[name] ?? []].flat();
    if (forced.length > 0 && forced.every((one) => suppress_tokens.includes(one))) {
      refuse("suppress_tokens", `without ${name}: no token would be left`, suppress_tokens);
    }
  }
}

/** Whether tokens are drafted, and verified by the model several at once. */
export function isAssisted({
  prompt_lookup_num_tokens,
  assistant_model,
}: Pick<DecodingConfig, "prompt_lookup_num_tokens" | "assistant_model">): boolean {
  return prompt_lookup_num_tokens !== null || assistant_model !== null;
}

/** @throws InputError UNSUPPORTED_OPTION for options that cannot be combined with drafts */
function checkAssisted(config: DecodingConfig): void {
  if (!isAssisted(config)) return;
  const drafts = config.assistant_model === null ? "prompt_lookup_num_tokens" : "assistant_model";
  const states = "a pass reads several tokens, and its states are not divided among them";
  const refusals: [what: string, isGiven: boolean, why: string][] = [
    [
      "prompt_lookup_num_tokens",
      drafts === "assistant_model" && config.prompt_lookup_num_tokens !== null,
      "one drafts",
    ],
    ["num_beams", config.num_beams > 1, "one sequence is drafted, as in transformers"],
    ["num_return_sequences", config.num_return_sequences > 1, "one sequence is drafted, as in transformers"],
    ["guidance_scale", config.guidance_scale !== 1, "its second pass reads one token at a time"],
    ["output_attentions", config.output_attentions, states],
    ["output_hidden_states", config.output_hidden_states, states],
    [
      "watermarking_config",
      config.watermarking_config !== null && "keys" in config.watermarking_config,
      "SynthID remembers the tokens that it was asked about, rejected drafts too",
    ],
  ];
  const refusal = refusals.find(([, isGiven]) => isGiven);
  if (refusal) throw new InputError("UNSUPPORTED_OPTION", `${drafts}: not with ${refusal[0]}: ${refusal[2]}`);
}
