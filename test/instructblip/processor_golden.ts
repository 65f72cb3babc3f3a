/** The files that test/golden/processor/make.py made, and folders in memory. Used by the tests of the processor. */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { gunzipSync } from "node:zlib";
import { type Folder, MemorySource, readText } from "../../src/tensor/source.ts";

const DATA = new URL("../golden/processor/data/", import.meta.url);

export function path(name: string): string {
  return fileURLToPath(new URL(name, DATA));
}

export function golden<T>(name: string): T {
  return JSON.parse(gunzipSync(readFileSync(path(name))).toString("utf8")) as T;
}

/** A folder whose files are these strings. */
export function memoryFolder(files: Record<string, string>): Folder {
  const open = async (name: string) => new MemorySource(name, new TextEncoder().encode(files[name]));
  return {
    name: "memory",
    has: async (name) => Object.hasOwn(files, name),
    text: async (name, maxBytes) => readText(await open(name), maxBytes),
    open,
  };
}

/** A file of one tokenizer: its JSON value, its text, or another tokenizer's with some keys replaced. */
type TokenizerFile = string | Record<string, unknown> | { from: string; set: Record<string, unknown> };
const TOKENIZERS = golden<Record<string, Record<string, TokenizerFile>>>("tokenizers.json.gz");

/** The files of a tokenizer that make.py trained, by the names they have on disk. */
export function tokenizerFiles(name: string): Record<string, string> {
  const values = (which: string): Record<string, unknown> =>
    Object.fromEntries(
      Object.entries(TOKENIZERS[which]).map(([file, value]) => {
        if (typeof value === "string" || !("from" in value)) return [file, value];
        const { from, set } = value as { from: string; set: Record<string, unknown> };
        return [file, { ...(values(from)[file] as Record<string, unknown>), ...set }];
      }),
    );
  return Object.fromEntries(
    Object.entries(values(name)).map(([file, value]) => [
      file,
      typeof value === "string" ? value : JSON.stringify(value),
    ]),
  );
}
