/** Live settings of `compare`: `dtype=int8,compute_dtype=f16`, or `default`, a model as it is loaded without options. */
import { KV_CACHE_DTYPES, type KVCacheDType, parseStorage, type StorageDType } from "../../modules/storage_dtype.ts";
import { type PlanOverride, parseOverride } from "../../tensor/device/plan.ts";
import { COMPUTE_DTYPES, type ComputeDType } from "../../tensor/dtype.ts";
import { InputError, nearest } from "../../tensor/errors.ts";
import { quote } from "../../tensor/shown.ts";

export interface Setting {
  /** As it was written. */
  readonly text: string;
  /** Folder or Hub id; default: the command's. */
  readonly model?: string;
  readonly dtype?: StorageDType;
  readonly compute_dtype?: ComputeDType;
  readonly kv_cache_dtype?: KVCacheDType;
  /** Part of an adapter's name. */
  readonly adapter?: string;
  readonly plan?: PlanOverride;
  /** A file. */
  readonly interventions?: string;
}

/** What is not given of a setting. */
export const DEFAULT_SETTING = "default";

/** A side of the comparison. */
export type Given = { readonly file: string } | Setting;

type Key = Exclude<keyof Setting, "text">;

const oneOf =
  <T extends string>(values: readonly T[]) =>
  (text: string, name: string): T => {
    const found = values.find((value) => value === text);
    if (found !== undefined) return found;
    throw new InputError("SETTING", `${name} must be ${values.join(" or ")}, got ${quote(text)}`);
  };
const asText = (text: string) => text;

const READ: { readonly [K in Key]-?: (text: string, name: string) => NonNullable<Setting[K]> } = {
  model: asText,
  dtype: parseStorage,
  compute_dtype: oneOf(COMPUTE_DTYPES),
  kv_cache_dtype: oneOf(KV_CACHE_DTYPES),
  adapter: asText,
  plan: parseOverride,
  interventions: asText,
};
const KEYS = Object.keys(READ) as readonly Key[];
/** Their values are lists with commas and equals signs themselves: `dtype=language_model=int4,vision_model=f16`. */
const LISTS: readonly string[] = ["dtype", "plan"] satisfies Key[];

/** Whether an argument is a setting, not a file. */
export const isSetting = (text: string): boolean =>
  text === DEFAULT_SETTING || (text.includes("=") && !isTraceFile(text));
const isTraceFile = (text: string) => /\.safetensors$/.test(text) && !/^(model|interventions)=/.test(text);

/** @throws InputError SETTING; DTYPE, ENV for a value */
export function parseSetting(text: string): Setting {
  if (text === DEFAULT_SETTING) return { text };
  const values = new Map<Key, string>();
  let last: Key | undefined;
  for (const piece of text.split(",")) {
    const [key = "", ...rest] = piece.split("=");
    const name = key.trim();
    if (KEYS.includes(name as Key) && rest.length > 0) {
      last = name as Key;
      if (values.has(last)) throw new InputError("SETTING", `${quote(text)}: ${last} is given twice`);
      values.set(last, rest.join("=").trim());
    } else if (last !== undefined && LISTS.includes(last)) {
      values.set(last, `${values.get(last)},${piece}`);
    } else {
      const meant = nearest(name, KEYS);
      throw new InputError("SETTING", `${quote(text)}: there is no setting ${quote(name)}`, {
        hint: meant ? `did you mean ${meant}?` : `settings: ${KEYS.join(", ")}; a file ends in .safetensors`,
      });
    }
  }
  const read = [...values].map(([key, value]) => {
    if (value === "") throw new InputError("SETTING", `${quote(text)}: ${key} has no value`);
    return [key, READ[key](value, key)] as const;
  });
  return { text, ...Object.fromEntries(read) };
}
