/** The goldens of test/golden/processor/make.py, and folders in memory, for the tests of processors. */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { gunzipSync } from "node:zlib";
import type { RgbImage } from "../../../src/instructblip/processing/image.ts";
import type { WritableFolder } from "../../../src/tensor/files/file_set.ts";
import { type Folder, MemorySink, MemorySource, readText } from "../../../src/tensor/files/source.ts";

const DATA = new URL("../../golden/processor/data/", import.meta.url);

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

/** A folder to write to, and the text files that were written. */
export function writableMemory(): { folder: WritableFolder; files: Record<string, string> } {
  const files: Record<string, string> = {};
  const folder: WritableFolder = {
    name: "memory",
    list: async () => Object.keys(files),
    writeText: async (file, text) => {
      files[file] = text;
    },
    write: async (file, fill) => {
      const sink = new MemorySink();
      await fill(sink);
      files[file] = new TextDecoder().decode(sink.bytes());
    },
    delete: async (file) => {
      delete files[file];
    },
  };
  return { folder, files };
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

/** A folder of processors.py: files, and tokenizers by name. */
export interface FolderFiles extends Record<string, unknown> {
  tokenizer: string;
  qformer?: string;
  config?: object;
  json?: object;
}

/** The files of a folder of processors.py, its tokenizers looked up. */
export function filesOf(folder: FolderFiles): Record<string, string> {
  const files: Record<string, string> = tokenizerFiles(folder.tokenizer);
  const merge = (file: string, changes: object = {}) => {
    files[file] = JSON.stringify({ ...JSON.parse(files[file]), ...changes });
  };
  merge("tokenizer_config.json", folder.config);
  merge("tokenizer.json", folder.json);
  for (const [file, text] of Object.entries(tokenizerFiles(folder.qformer ?? "bert"))) {
    files[`qformer_tokenizer/${file}`] = text;
  }
  for (const [file, value] of Object.entries(folder)) if (file.endsWith(".json")) files[file] = JSON.stringify(value);
  return files;
}

/** image_files.py's image(seed). */
export function image(seed: number): RgbImage {
  const data = new Uint8Array(90);
  let state = seed;
  for (let i = 0; i < 90; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    data[i] = state >>> 24;
  }
  return { width: 5, height: 6, data };
}
