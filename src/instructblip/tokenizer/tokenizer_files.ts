/** Reads a tokenizer's files, in the layouts of transformers 4 and 5. */
import { ConfigError } from "../../tensor/errors.ts";
import { quote, shown } from "../../tensor/shown.ts";
import type { JsonRecord } from "../config/json_file.ts";
import { FAMILIES, type Family } from "./families.ts";
import type { TokenizerFiles } from "./types.ts";
import { modelType } from "./vocabulary_model.ts";

/** Normalises the layouts of transformers 4 and 5, and a bare vocab.txt. */
export function resolveFiles(
  files: TokenizerFiles,
  where: string,
): { family: Family | undefined; name: string; init: JsonRecord; json: JsonRecord } {
  const config = files.config ?? {};
  const given = typeof config.tokenizer_class === "string" ? config.tokenizer_class.replace(/Fast$/, "") : "";
  const bare = files.tokenizer === undefined;
  const name = bare ? "BertTokenizer" : given;
  const family = Object.hasOwn(FAMILIES, name) ? FAMILIES[name] : undefined;
  const json = files.tokenizer ?? { model: { vocab: vocabOf(files.vocab ?? "", where) } };
  const { model } = json;
  if (typeof model !== "object" || model === null) {
    throw new ConfigError("TOKENIZER_BAD", `${where}: tokenizer.json has no model`);
  }
  const type = modelType(model as JsonRecord);
  if (family && type !== family.model) {
    const message = `${where}: ${name} needs a ${family.model} model, tokenizer.json has ${shown(type)}`;
    throw new ConfigError("TOKENIZER_CLASS", message);
  }
  // If tokenizer_config.json lists the added tokens, special_tokens_map.json is not read.
  const map = config.added_tokens_decoder === undefined ? files.special_tokens_map : undefined;
  const init: JsonRecord = { ...config, ...map };
  if (Array.isArray(config.additional_special_tokens) && !config.extra_special_tokens) {
    init.extra_special_tokens = config.additional_special_tokens;
  }
  // Padding and truncation of tokenizer.json are used only as these defaults.
  const truncation = json.truncation as JsonRecord | null | undefined;
  const padding = json.padding as JsonRecord | null | undefined;
  const side = (value: unknown) => (typeof value === "string" ? value.toLowerCase() : value);
  const fill = (key: string, value: unknown) => {
    if (!(key in init)) init[key] = value;
  };
  if (truncation) {
    fill("max_length", truncation.max_length);
    fill("truncation_side", side(truncation.direction));
    fill("stride", truncation.stride);
  }
  if (padding) {
    if (!family?.named.pad_token) fill("pad_token", padding.pad_token);
    fill("padding_side", side(padding.direction));
    fill("max_length", (padding.strategy as JsonRecord | null)?.Fixed ?? null);
    fill("pad_to_multiple_of", padding.pad_to_multiple_of);
  }
  return { family, name, init, json };
}

/** One token a line; the line's number is its id. */
function vocabOf(text: string, where: string): Record<string, number> {
  const lines = text.split(/\r?\n/);
  if (lines.at(-1) === "") lines.pop();
  const ids = new Map<string, number>();
  lines.forEach((token, id) => {
    if (ids.has(token)) {
      const message = `${where}: vocab.txt has ${quote(token)} on line ${ids.get(token)! + 1} and on line ${id + 1}`;
      throw new ConfigError("TOKENIZER_BAD", message);
    }
    ids.set(token, id);
  });
  for (const token of ["[UNK]", "[CLS]", "[SEP]", "[PAD]"]) {
    if (!ids.has(token)) throw new ConfigError("TOKENIZER_BAD", `${where}: vocab.txt has no ${token}`);
  }
  return Object.fromEntries(ids);
}
