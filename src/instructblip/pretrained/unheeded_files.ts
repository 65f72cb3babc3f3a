/**
 * Files of a folder that transformers uses and this project does not: a PEFT adapter, which transformers applies to the
 * weights, and weights under another name. Such folders are refused, as answers would differ.
 *
 * Source: transformers 5.18, integrations/peft.py (maybe_load_adapters), modeling_utils.py (_get_resolved_checkpoint_files).
 */
import { WeightError } from "../../tensor/errors.ts";
import { quote } from "../../tensor/shown.ts";
import type { JsonRecord } from "../config/json_file.ts";
import type { JsonFolder } from "../config/json_folder.ts";

const ADAPTER = "adapter_config.json";
/** Names of files of weights that can be read, and of indexes of them. */
export const WEIGHT_FORMATS = /\.(safetensors|bin|pth?|ckpt)(\.index\.json)?$/;

/** A file that is not used, and a hint. */
export interface Unheeded {
  readonly code: "ADAPTER" | "OTHER_WEIGHTS";
  readonly message: string;
  readonly hint: string;
}

/** All such files of a folder. @throws the folder's errors */
export async function findUnheeded(folder: JsonFolder): Promise<Unheeded[]> {
  const found: Unheeded[] = [];
  const config = await readable(folder, ADAPTER);
  if (config) {
    const { peft_type: kind, base_model_name_or_path: base } = config;
    const what = isName(kind) ? `an adapter (${quote(kind).slice(1, -1)})` : "an adapter";
    found.push({
      code: "ADAPTER",
      message: `there is ${what} in this folder, ${ADAPTER}, which is not applied unless it is asked for`,
      hint:
        `load its base${isName(base) ? ` ${quote(base)}` : ""}, and give this folder as adapter (--adapter), which merges it; ` +
        `or, to ask the base alone, move ${ADAPTER} away`,
    });
  }
  const weights = (await readable(folder, "config.json"))?.transformers_weights;
  if (isName(weights) && !WEIGHT_FORMATS.test(weights)) {
    const name = "model.safetensors";
    found.push({
      code: "OTHER_WEIGHTS",
      message: `config.json says that the weights are in ${quote(weights)}, whose format is not read`,
      hint: `give that file the name ${name}, in a folder of its own, and take transformers_weights out of config.json`,
    });
  }
  return found;
}

/** @throws WeightError ADAPTER, OTHER_WEIGHTS for a folder whose answers would differ from transformers' */
export async function refuseUnheeded(folder: JsonFolder): Promise<void> {
  const [first] = await findUnheeded(folder);
  if (first) throw new WeightError(first.code, `${folder.name}: ${first.message}`, { hint: first.hint });
}

/** The object of a JSON file, undefined if there is none or it is invalid; other code reports that. */
async function readable(folder: JsonFolder, file: string): Promise<JsonRecord | undefined> {
  if (!(await folder.has(file))) return undefined;
  return (await folder.json(file).catch(() => undefined)) ?? {};
}

function isName(value: unknown): value is string {
  return typeof value === "string" && value !== "";
}
