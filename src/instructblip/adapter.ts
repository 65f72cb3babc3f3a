/**
 * LoRA and other adapters, which PEFT keeps in files of their own beside a base or apart from it. Transformers loads them
 * with the base; here they are refused, as the base alone would answer something else.
 *
 * Source: transformers 5.18, integrations/peft.py (maybe_load_adapters); PEFT's save_pretrained.
 */
import { WeightError } from "../tensor/errors.ts";
import type { Folder } from "../tensor/source.ts";
import { quote } from "../tensor/strict_json.ts";
import { readJson } from "./json_file.ts";

export const ADAPTER_CONFIG = "adapter_config.json";

/** What a folder's adapter is. */
export interface Adapter {
  /** PEFT's name of its kind, such as `LORA`; null if the file has none. */
  readonly kind: string | null;
  /** What it was trained on: a Hub id or a path. */
  readonly base: string | null;
}

/** The adapter in a folder, if there is one; what it is, as far as its file can be read. */
export async function readAdapter(folder: Folder): Promise<Adapter | undefined> {
  if (!(await folder.has(ADAPTER_CONFIG))) return undefined;
  const config = (await readJson(folder, ADAPTER_CONFIG).catch(() => undefined)) ?? {};
  const text = (value: unknown) => (typeof value === "string" && value !== "" ? value : null);
  return { kind: text(config.peft_type), base: text(config.base_model_name_or_path) };
}

/** What is said of a folder with an adapter, and what to do. */
export function adapterWords({ kind, base }: Adapter): { message: string; hint: string } {
  const what = kind === null ? "an adapter" : `an adapter (${quote(kind).slice(1, -1)})`;
  return {
    message: `there is ${what} in this folder, ${ADAPTER_CONFIG}, and adapters are not applied`,
    hint:
      `in Python, merge it into its base${base === null ? "" : ` ${quote(base)}`} (PEFT: merge_and_unload(), then ` +
      `save_pretrained()), and give that folder; or, to ask the base alone, move ${ADAPTER_CONFIG} away`,
  };
}

/** @throws WeightError ADAPTER for a folder whose answers an adapter would change */
export async function refuseAdapter(folder: Folder): Promise<void> {
  const adapter = await readAdapter(folder);
  if (!adapter) return;
  const { message, hint } = adapterWords(adapter);
  throw new WeightError("ADAPTER", `${folder.name}: ${message}`, { hint });
}
