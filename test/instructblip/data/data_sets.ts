/** The data sets of test/golden/datasets, one and the same in every format. */
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { gunzipSync } from "node:zlib";

const ROOT = new URL("../../../", import.meta.url).pathname;

/** Files by their paths. */
export function dataFiles(): Record<string, Buffer> {
  const files = ["files", "compressed", "views"].flatMap((name) => {
    const packed = readFileSync(join(ROOT, `test/golden/datasets/data/${name}.json.gz`));
    return Object.entries(JSON.parse(gunzipSync(packed).toString()) as Record<string, string>);
  });
  return Object.fromEntries(files.map(([name, base64]) => [name, Buffer.from(base64, "base64")]));
}

/** Writes them to a folder, with the six images beside the files that name them. */
export function writeDataSets(folder: string): void {
  for (const [name, bytes] of Object.entries(dataFiles())) {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileSync(join(folder, name), bytes);
  }
  for (let i = 54; i < 60; i++) {
    copyFileSync(join(ROOT, `examples/shapes/eval/images/0${i}.png`), join(folder, `0${i}.png`));
  }
}

/** The same questions, by format. */
export const SAME: readonly string[] = [
  "paths.json",
  ...["none", "snappy", "gzip", "brotli", "zstd", "lz4", "pages"].map((name) => `${name}.parquet`),
  "hub --split train",
  "saved",
  "chosen",
  ...["file", "feather"].map((name) => `${name}.arrow`),
  "shards",
  "shards_gz",
];
