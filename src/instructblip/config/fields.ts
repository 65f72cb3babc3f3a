/**
 * Readers of single config fields, and a base class that reads a table of them. Unknown keys are ignored (old files have
 * dozens); impossible values are refused by name. The tables are in the files beside this one.
 */
import type { Activation } from "../../tensor/activation.ts";
import { ConfigError } from "../../tensor/errors.ts";
import { shown } from "../../tensor/shown.ts";

/** Reads one field: the value given (undefined: use the default) -> the value of the field. */
export type Field<T> = (value: unknown, where: string) => T;
export type Fields = Readonly<Record<string, Field<unknown>>>;
export type ValuesOf<F extends Fields> = { readonly [K in keyof F]: ReturnType<F[K]> };

/** An activation by Hugging Face's name (transformers, activations.py). */
export type HiddenAct = "gelu" | "gelu_new" | "gelu_pytorch_tanh" | "quick_gelu" | "relu" | "silu" | "swish";

export const HIDDEN_ACTS: Readonly<Record<HiddenAct, Activation>> = {
  gelu: "gelu",
  gelu_new: "gelu_tanh",
  gelu_pytorch_tanh: "gelu_tanh",
  quick_gelu: "quick_gelu",
  relu: "relu",
  silu: "silu",
  swish: "silu",
};

const isHiddenAct = (value: unknown): value is HiddenAct =>
  typeof value === "string" && Object.hasOwn(HIDDEN_ACTS, value);

export function refuse(where: string, must: string, value: unknown): never {
  throw new ConfigError("CONFIG_RANGE", `${where} must be ${must}, got ${shown(value)}`);
}

export const count =
  (fallback: number, most = 2 ** 20): Field<number> =>
  (value = fallback, where) =>
    Number.isInteger(value) && (value as number) >= 1 && (value as number) <= most
      ? (value as number)
      : refuse(where, `a whole number from 1 to ${most}`, value);

export const countOrNull =
  (most = 2 ** 20): Field<number | null> =>
  (value = null, where) =>
    value === null ? null : count(1, most)(value, where);

export const number =
  (fallback: number, low = Number.NEGATIVE_INFINITY, high = Number.POSITIVE_INFINITY): Field<number> =>
  (value = fallback, where) =>
    typeof value === "number" && value >= low && value <= high
      ? value
      : refuse(where, `a number from ${low} to ${high}`, value);

export const epsilon =
  (fallback: number): Field<number> =>
  (value = fallback, where) =>
    typeof value === "number" && value > 0 && value < 1 ? value : refuse(where, "a number between 0 and 1", value);

export const flag =
  (fallback: boolean): Field<boolean> =>
  (value = fallback, where) =>
    typeof value === "boolean" ? value : refuse(where, "true or false", value);

export const flagOrNull: Field<boolean | null> = (value = null, where) =>
  value === null ? null : flag(false)(value, where);

export const hiddenAct =
  (fallback: HiddenAct): Field<HiddenAct> =>
  (value = fallback, where) => {
    if (isHiddenAct(value)) return value;
    throw new ConfigError("UNSUPPORTED_ACT", `${where}: ${shown(value)} is not an activation this project has`, {
      hint: `it has ${Object.keys(HIDDEN_ACTS).join(", ")}`,
    });
  };

/** A token id, or null. Published Vicuna configs have -1 for "none"; it is kept, as in HF. */
export const tokenId =
  (fallback: number | null): Field<number | null> =>
  (value = fallback, where) =>
    value === null || (Number.isInteger(value) && (value as number) >= -1)
      ? (value as number | null)
      : refuse(where, "a token id or null", value);

export const tokenIds =
  (fallback: number | null): Field<number | readonly number[] | null> =>
  (value = fallback, where) => {
    if (!Array.isArray(value)) return tokenId(fallback)(value, where);
    return value.every((id) => Number.isInteger(id) && id >= 0)
      ? (value as number[])
      : refuse(where, "token ids", value);
  };

/** Names of fields in older files, and fields that transformers 5 does not have. */
const NOT_WRITTEN = new Set(["image_token_id", "video_token_id", "position_embedding_type"]);

/**
 * A base class that reads `fields` from a plain object. `toJSON` returns that object with every field set and unknown keys
 * unchanged.
 */
export function configOf<F extends Fields>(name: string, fields: F): new (given?: unknown) => ValuesOf<F> {
  return class {
    readonly #given: object;

    constructor(given: unknown = {}) {
      if (given === null || typeof given !== "object" || Array.isArray(given)) {
        throw new ConfigError("CONFIG_TYPE", `${name} must be an object, got ${shown(given)}`);
      }
      const values = new Map<string, unknown>(Object.entries(given));
      for (const [key, read] of Object.entries(fields)) {
        Object.defineProperty(this, key, { value: read(values.get(key), `${name}.${key}`), enumerable: true });
      }
      this.#given = given;
    }

    toJSON(): object {
      const isNested = (value: unknown) => typeof (value as { toJSON?: unknown } | null)?.toJSON === "function";
      // A field whose default is null is left out: for HF a null may mean something else than an absent field.
      const own = Object.entries(this).filter(([key, value]) =>
        Object.hasOwn(fields, key) ? value !== null && !NOT_WRITTEN.has(key) : isNested(value),
      );
      const { model_type } = this.constructor as { model_type?: string };
      return { ...this.#given, ...Object.fromEntries(own), model_type };
    }
  } as new (
    given?: unknown,
  ) => ValuesOf<F>;
}

/** @throws ConfigError CONFIG_RANGE unless one of the config's numbers divides another */
export function expectDivides<C>(config: C, name: string, part: keyof C & string, whole: keyof C & string): void {
  const [divisor, number] = [Number(config[part]), Number(config[whole])];
  if (number % divisor === 0) return;
  throw new ConfigError("CONFIG_RANGE", `${name}: ${part} must divide ${whole}: ${divisor} does not divide ${number}`);
}

/** A language model's sizes under LLaMA's names, whichever model it is, for `inspect` and the memory plan. */
export interface LanguageModelSizes {
  /** Layers of the decoder. */
  readonly num_hidden_layers: number;
  /** Layers of T5's encoder; 0 without one. */
  readonly num_encoder_layers: number;
  readonly hidden_size: number;
  readonly intermediate_size: number;
  readonly num_attention_heads: number;
  readonly num_key_value_heads: number;
  readonly head_dim: number;
  readonly hidden_act: HiddenAct;
}
