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
