/** The options of a model's methods: forward's own, by Hugging Face's names, and the kinds of values that options have. */
import type { StateOptions } from "../../modules/observer.ts";
import type { Observer } from "../../tensor/device/device.ts";
import { InputError } from "../../tensor/errors.ts";
import { shown } from "../../tensor/shown.ts";
import type { Intervention } from "../interventions/intervention.ts";
import type { Ids } from "../model/language_model.ts";

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
/** Options of Hugging Face's forward() that have no effect here. */
export const HARMLESS = ["return_dict", "use_cache"];

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
