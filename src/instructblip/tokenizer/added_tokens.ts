/** Added tokens of a tokenizer's files, which are matched before the model runs, normalised over all layouts. */
import { ConfigError } from "../../tensor/errors.ts";
import { quote, shown } from "../../tensor/shown.ts";
import type { JsonRecord } from "../config/json_file.ts";
import { isId } from "./checks.ts";
import type { AddedToken } from "./pipeline.ts";
import type { TokenizerFiles } from "./types.ts";

const NAMED_TOKENS = ["bos", "eos", "unk", "sep", "pad", "cls", "mask"].map((name) => `${name}_token`);

export function contentOf(token: unknown): string | undefined {
  if (typeof token === "string") return token;
  const content = (token as JsonRecord | null | undefined)?.content;
  return typeof content === "string" ? content : undefined;
}

/** A token from a file: a string, or an object with flags. */
function tokenOf(value: unknown, special: boolean): AddedToken | undefined {
  const content = contentOf(value);
  if (content === undefined) return undefined;
  const flags = typeof value === "object" ? (value as JsonRecord) : {};
  const isSpecial = typeof flags.special === "boolean" ? flags.special : special;
  return {
    content,
    single_word: flags.single_word === true,
    lstrip: flags.lstrip === true,
    rstrip: flags.rstrip === true,
    normalized: typeof flags.normalized === "boolean" ? flags.normalized : !isSpecial,
    special: isSpecial,
  };
}

export function same(a: AddedToken, b: AddedToken | undefined): boolean {
  return b !== undefined && (Object.keys(a) as (keyof AddedToken)[]).every((key) => a[key] === b[key]);
}

export function addedTokensOf(json: JsonRecord): (AddedToken & { id: number })[] {
  const entries = json.added_tokens ?? [];
  if (!Array.isArray(entries)) throw new ConfigError("TOKENIZER_BAD", "tokenizer.json: added_tokens must be a list");
  return entries.map((entry: unknown, i) => {
    const token = tokenOf(entry, false);
    const id = (entry as JsonRecord | null)?.id;
    if (!token || token.content === "" || !Number.isInteger(id)) {
      throw new ConfigError("TOKENIZER_BAD", `tokenizer.json: added_tokens[${i}] must have an id and a content`);
    }
    return { ...token, id: id as number };
  });
}

/** The tokens that the configs list, by id: Hugging Face's added_tokens_decoder, or its predecessors. */
export function addedTokensDecoder(files: TokenizerFiles, json: JsonRecord): Map<number, AddedToken> {
  const tokens = new Map<number, AddedToken>();
  const listed = files.config?.added_tokens_decoder;
  if (listed !== undefined) {
    for (const [id, entry] of Object.entries((listed ?? {}) as JsonRecord)) {
      const token = tokenOf(entry, false);
      if (!token || token.content === "" || !/^\d+$/.test(id)) {
        throw new ConfigError(
          "TOKENIZER_BAD",
          `tokenizer_config.json: added_tokens_decoder ${quote(id)} is not a token`,
        );
      }
      tokens.set(Number(id), token);
    }
    return tokens;
  }
  const special = new Set<string>();
  for (const source of [files.config, files.special_tokens_map]) {
    for (const value of Object.values(source ?? {}).flat()) special.add(contentOf(value) ?? "");
  }
  for (const [content, id] of Object.entries(files.added_tokens ?? {})) {
    const token = tokenOf(content, special.has(content));
    if (!token || !Number.isInteger(id)) {
      throw new ConfigError("TOKENIZER_BAD", `added_tokens.json: ${quote(content)} must have an id`);
    }
    tokens.set(id as number, token);
  }
  for (const { id, ...token } of addedTokensOf(json)) tokens.set(id, token);
  return tokens;
}

/** Named tokens such as bos_token, model-specific ones such as image_token included. */
export function namedTokens(
  init: JsonRecord,
  family: { readonly named: Readonly<Record<string, string>> } | undefined,
): [string, AddedToken][] {
  const extra = init.extra_special_tokens;
  const specific = typeof extra === "object" && extra !== null && !Array.isArray(extra) ? (extra as JsonRecord) : {};
  const all = { ...family?.named, ...specific, ...init };
  const keys = [
    ...NAMED_TOKENS,
    ...Object.keys(all).filter((key) => key.endsWith("_token") && !NAMED_TOKENS.includes(key)),
  ];
  return keys.flatMap((key): [string, AddedToken][] => {
    const token = Object.hasOwn(all, key) ? tokenOf(all[key], true) : undefined;
    return token ? [[key, { ...token, special: true }]] : [];
  });
}

/** Published T5s have 100, mT5s none or 300. */
const MOST_SENTINELS = 10_000;

/** Special tokens without a name; T5 has a hundred sentinels even if no file lists them. */
export function extraTokens(init: JsonRecord, name: string): AddedToken[] {
  const { extra_special_tokens: extra, additional_special_tokens: additional } = init;
  let listed = Array.isArray(extra) ? extra : Array.isArray(additional) ? additional : undefined;
  if (name === "T5Tokenizer" && !Array.isArray(extra)) {
    const count = init.extra_ids ?? 100;
    if (!isId(count) || count > MOST_SENTINELS) {
      const message = `tokenizer_config.json: extra_ids must be a whole number up to ${MOST_SENTINELS}, got ${shown(count)}`;
      throw new ConfigError("TOKENIZER_BAD", message);
    }
    const sentinels = Array.from({ length: count }, (_, i) => `<extra_id_${i}>`);
    const has = listed?.some((token) => contentOf(token)?.includes("<extra_id_"));
    listed = has ? listed : [...(listed ?? []), ...sentinels];
  }
  return (listed ?? []).flatMap((value: unknown) => tokenOf(value, true) ?? []);
}
