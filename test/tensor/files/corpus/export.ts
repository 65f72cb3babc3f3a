/**
 * Writes the corpus of single files into a folder, with verdicts.json, for readers in other languages:
 * `node --import tsx test/tensor/files/corpus/export.ts FOLDER`. Files that differ only in the reader's limits are left out.
 */
import { copyFile, mkdir, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { FILES } from "./files.ts";

const folder = process.argv[2];
if (!folder) throw new Error("usage: export.ts FOLDER");
await mkdir(folder, { recursive: true });
for (const [id, { bytes, size, limits }] of Object.entries(FILES)) {
  if (limits) continue;
  const path = join(folder, `${id}.safetensors`);
  await writeFile(path, bytes());
  if (size) await truncate(path, size);
}
await copyFile(new URL("./verdicts.json", import.meta.url), join(folder, "verdicts.json"));
