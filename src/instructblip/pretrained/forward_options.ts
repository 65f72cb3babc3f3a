/** The options of a model's methods: forward's own, by Hugging Face's names, and the kinds of values that options have. */
import type { StateOptions } from "../../modules/observer.ts";
import { optionsOf, refuseUnknown, type Word } from "../../tensor/arguments.ts";
import type { Observer } from "../../tensor/device/device.ts";
import { InputError } from "../../tensor/errors.ts";
import { shown } from "../../tensor/shown.ts";
import type { VisionLanguageConfig } from "../config/config.ts";
import type { Intervention } from "../interventions/intervention.ts";
import type { Ids, LanguageModel } from "../model/language_model.ts";
import { shiftRight } from "../model/loss.ts";
import { expectLabels, expectRectangle } from "./inputs.ts";

/** Inputs of forward() besides the processor's, by Hugging Face's names. */
export interface ForwardInputs extends StateOptions {
  /** With a language model that has a decoder of its own (T5): [B][T], decoder_start_token_id first. Default: from labels. */
  decoder_input_ids?: Ids;
  /**
   * [B][L], -100 for ignored tokens: image, prompt, padding. Fewer labels are those of the last tokens. T5: [B][T], the
   * answer.
   */
  labels?: Ids;
  /** Number of last tokens whose logits are returned; 0 (default): all. */
  logits_to_keep?: number;
  /** Whether a loss that is NaN is an error. Default true; false returns it, as PyTorch does. */
  check_numerics?: boolean;
  /** Changes to what flows between the modules; see docs/interpretability.md. */
  interventions?: readonly Intervention[] | null;
}

export interface ForwardOptions {
  /** Sees outputs of modules, under their checkpoint paths; see `outputObserver`. */
  observer?: Observer;
}

export const STATE_OPTIONS = ["output_hidden_states", "output_attentions"] satisfies (keyof StateOptions)[];
/** Options of forward(), besides the inputs. */
export const FORWARD_OPTIONS = [
  "decoder_input_ids",
  "labels",
  "logits_to_keep",
  "check_numerics",
  "interventions",
  "observer",
  ...STATE_OPTIONS,
] satisfies (keyof ForwardInputs | keyof ForwardOptions)[];
/** Options of Hugging Face's methods, which here have one value. */
const FIXED: Readonly<Record<string, Word>> = {
  return_dict: (value) => (value === true ? undefined : "leave it out: outputs are objects"),
  use_cache: (value) => (value === false ? undefined : "leave it out: no keys and values are returned"),
};

/** Objects of the caller that are called or listened to during a call, by the methods they must have. */
const METHODS: Readonly<Record<string, readonly string[]>> = {
  streamer: ["put", "end"],
  tokenizer: ["encode", "decode", "convert_ids_to_tokens"],
  signal: ["throwIfAborted", "addEventListener"],
  observer: ["wants", "see"],
};

/** @throws InputError PARAM_RANGE unless callbacks are functions and flags are booleans */
export function expectKinds(options: Readonly<Record<string, unknown>>): void {
  for (const [name, value] of Object.entries(options)) {
    if (value === undefined || value === null) continue;
    const bad = (must: string) => {
      throw new InputError("PARAM_RANGE", `${name} must be ${must}, got ${shown(value)}`);
    };
    const methods = Object.hasOwn(METHODS, name) ? METHODS[name] : undefined;
    const has = (method: string) => typeof (value as Record<string, unknown>)[method] === "function";
    if (methods) {
      if (typeof value !== "object" || !methods.every(has))
        bad(`an object with ${methods.map((m) => `${m}()`).join(", ")}`);
    } else if (name.startsWith("on_")) {
      if (typeof value !== "function") bad("a function");
    } else if (name === "interpolate_pos_encoding" || name === "check_numerics" || name.startsWith("output_")) {
      if (typeof value !== "boolean") bad("true or false");
    }
  }
}

/**
 * The arguments of a call, copied: the `inputs`, of which `null` counts as not given, and `known` options.
 *
 * @param known default: any
 * @throws InputError ARGUMENTS, UNKNOWN_OPTION, UNSUPPORTED_OPTION, PARAM_RANGE
 */
export function readCall<I>(
  name: string,
  given: readonly unknown[],
  names: readonly string[],
  known?: readonly string[],
): { inputs: I; options: Record<string, unknown> } {
  const all = Object.entries(optionsOf(name, given));
  const isInput = ([key]: [string, unknown]) => names.includes(key);
  const inputs = Object.fromEntries(all.filter((entry) => isInput(entry) && entry[1] !== null));
  const options = Object.fromEntries(all.filter((entry) => !isInput(entry)));
  if (known) {
    refuseUnknown(name, options, [...names, ...known], FIXED);
    for (const key of Object.keys(FIXED)) delete options[key];
  }
  expectKinds(inputs);
  expectKinds(options);
  return { inputs: inputs as I, options };
}

/** Checks what is an input of forward() alone. @param B rows of the prompt @throws InputError PARAM_RANGE, LABELS */
export function checkForward(
  model: LanguageModel,
  { labels, logits_to_keep = 0, decoder_input_ids }: ForwardInputs,
  B: number,
): void {
  if (!Number.isSafeInteger(logits_to_keep) || logits_to_keep < 0) {
    const given = shown(logits_to_keep);
    throw new InputError("PARAM_RANGE", `logits_to_keep must be a whole number of at least 0, got ${given}`);
  }
  const given = checkDecoderIds(model, decoder_input_ids);
  if (!labels) return;
  const T = expectLabels(labels, B, model.vocabulary);
  if (logits_to_keep > 0) throw new InputError("LABELS", "labels need all logits: leave logits_to_keep out");
  if (model.is_encoder_decoder && T !== (given ?? T)) {
    throw new InputError("LABELS", `labels have ${T} tokens, decoder_input_ids ${given}`);
  }
}

/**
 * The length of decoder_input_ids, if they are given.
 *
 * @throws InputError BAD_INPUT, RAGGED; UNSUPPORTED_OPTION for a decoder-only model
 */
export function checkDecoderIds(
  { is_encoder_decoder }: Pick<LanguageModel, "is_encoder_decoder">,
  ids: Ids | null | undefined,
): number | undefined {
  if (ids === undefined || ids === null) return undefined;
  if (!is_encoder_decoder) {
    const message = "decoder_input_ids: this language model has no decoder beside its encoder";
    throw new InputError("UNSUPPORTED_OPTION", message, { hint: "leave it out: the model reads input_ids" });
  }
  return expectRectangle("decoder_input_ids", ids);
}

/** The decoder's input ids for labels; undefined for a decoder-only model. */
export function decoderInputs(
  { language_model, config }: { readonly language_model: LanguageModel; readonly config: VisionLanguageConfig },
  labels: Ids | undefined,
): Ids | undefined {
  const start = language_model.decoder_start_token_id;
  if (labels === undefined || start === undefined) return undefined;
  return shiftRight(labels, start, config.text_config.pad_token_id ?? start);
}
