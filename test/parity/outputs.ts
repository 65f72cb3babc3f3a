import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { SafetensorsFile } from "../../src/tensor/files/safetensors.ts";
import { MemorySource } from "../../src/tensor/files/source.ts";
import { COMMITTED } from "../golden_folder.ts";

/** What test/golden/outputs has of a golden. */
export async function openOutputs(name: string): Promise<SafetensorsFile> {
  const packed = await readFile(join(COMMITTED, `outputs/${name}.safetensors.gz`));
  return SafetensorsFile.open(new MemorySource(name, new Uint8Array(gunzipSync(packed))));
}
