/**
 * Good and bad checkpoint folders, as a list of what lies in them. Verdicts: verdicts.json.
 */
import type { HeaderLimits } from "../../../../src/tensor/files/tensor_file.ts";
import { build, entry } from "./files.ts";

/** A file's bytes, followed by zeros up to `size`; or something that is not a file. */
export type Content =
  | Uint8Array
  | string
  | { readonly start: string; readonly size: number }
  | { readonly symlink: string }
  | "directory"
  | "fifo";

export interface CorpusFolder {
  readonly about: string;
  readonly files: () => Readonly<Record<string, Content>>;
  readonly limits?: HeaderLimits;
}

const INDEX = "model.safetensors.index.json";

/** A shard of one-byte tensors. */
function shard(...names: string[]): Uint8Array {
  return build(`{${names.map((name, i) => entry(name, "U8", [1], [i, i + 1])).join()}}`, names.length);
}

function index(weight_map: Readonly<Record<string, unknown>>, metadata?: unknown): Uint8Array {
  return new TextEncoder().encode(JSON.stringify({ metadata, weight_map }));
}

/** Two good shards under an index whose second shard is called `path`. */
function shardCalled(path: string): CorpusFolder {
  return {
    about: `shard called ${JSON.stringify(path.slice(0, 40))}`,
    files: () => ({ [INDEX]: index({ a: "one.safetensors", b: path }), "one.safetensors": shard("a") }),
  };
}

const goodShards = { "one.safetensors": shard("a"), "two.safetensors": shard("b", "c") };
const goodMap = { a: "one.safetensors", b: "two.safetensors", c: "two.safetensors" };

export const FOLDERS: Readonly<Record<string, CorpusFolder>> = {
  B24a: { about: "good: one file", files: () => ({ "model.safetensors": shard("a") }) },
  B24b: { about: "good: two shards", files: () => ({ [INDEX]: index(goodMap, { total_size: 3 }), ...goodShards }) },
  B24c: {
    about: "one file and an index: the file counts",
    files: () => ({ "model.safetensors": shard("a"), [INDEX]: index({ z: "none.safetensors" }) }),
  },
  B24d: { about: "nothing", files: () => ({}) },
  B24e: { about: "only a damaged pickle", files: () => ({ "pytorch_model.bin": new Uint8Array(9) }) },
  B24f: {
    about: "only a damaged index of pickles",
    files: () => ({ "pytorch_model.bin.index.json": new Uint8Array(2) }),
  },
  B24g: {
    about: "shards in a subfolder",
    files: () => ({
      sub: "directory",
      [INDEX]: index({ a: "sub/one.safetensors" }),
      "sub/one.safetensors": shard("a"),
    }),
  },
  B25: { about: "a shard is missing", files: () => ({ [INDEX]: index(goodMap), "one.safetensors": shard("a") }) },
  B26a: shardCalled("../x.safetensors"),
  B26b: shardCalled("/etc/x.safetensors"),
  B26c: shardCalled("C:\\x.safetensors"),
  B26d: shardCalled("https://example.com/x.safetensors"),
  B26e: shardCalled("x\0.safetensors"),
  B26f: shardCalled("sub\\x.safetensors"),
  B26g: shardCalled("sub/../../x.safetensors"),
  B26h: shardCalled(""),
  B26i: shardCalled("."),
  B26j: shardCalled("n".repeat(5000)),
  B26k: shardCalled("x\u001b[2J.safetensors"),
  B27a: {
    about: "a shard is a directory",
    files: () => ({ [INDEX]: index(goodMap), ...goodShards, "two.safetensors": "directory" }),
  },
  B27b: {
    about: "a shard is a FIFO",
    files: () => ({ [INDEX]: index(goodMap), ...goodShards, "two.safetensors": "fifo" }),
  },
  B27c: {
    about: "a shard is a symbolic link, as in the Hugging Face cache",
    files: () => ({
      blobs: "directory",
      "blobs/0123": goodShards["two.safetensors"],
      [INDEX]: index(goodMap),
      "one.safetensors": goodShards["one.safetensors"],
      "two.safetensors": { symlink: "blobs/0123" },
    }),
  },
  B27d: {
    about: "a shard is a symbolic link to nothing",
    files: () => ({ [INDEX]: index(goodMap), ...goodShards, "two.safetensors": { symlink: "blobs/0123" } }),
  },
  B27e: {
    about: "a shard is a symbolic link to itself",
    files: () => ({ [INDEX]: index(goodMap), ...goodShards, "two.safetensors": { symlink: "two.safetensors" } }),
  },
  B27f: { about: "the single file is a FIFO", files: () => ({ "model.safetensors": "fifo" }) },
  B28a: {
    about: "a tensor in both shards",
    files: () => ({ [INDEX]: index(goodMap), ...goodShards, "two.safetensors": shard("b", "c", "a") }),
  },
  B28b: {
    about: "the index points to the shard that lacks the tensor",
    files: () => ({ [INDEX]: index({ ...goodMap, c: "one.safetensors" }), ...goodShards }),
  },
  B28c: {
    about: "a tensor that the index does not list",
    files: () => ({ [INDEX]: index(goodMap), ...goodShards, "two.safetensors": shard("b", "c", "d") }),
  },
  B28d: {
    about: "a tensor in both shards that the index does not list",
    files: () => ({
      [INDEX]: index(goodMap),
      "one.safetensors": shard("a", "d"),
      "two.safetensors": shard("b", "c", "d"),
    }),
  },
  B28e: {
    about: "the index lists tensors that are nowhere",
    files: () => ({ [INDEX]: index({ ...goodMap, x: "one.safetensors", y: "one.safetensors" }), ...goodShards }),
  },
  B28f: {
    about: "a damaged shard",
    files: () => ({ [INDEX]: index(goodMap), ...goodShards, "two.safetensors": shard("b", "c").subarray(0, -1) }),
  },
  B28g: {
    about: "a tensor in both shards with the same bytes",
    files: () => ({ [INDEX]: index(goodMap), ...goodShards, "two.safetensors": shard("a", "b", "c") }),
  },
  B28h: {
    about: "a tensor in both shards in two shapes",
    files: () => ({
      [INDEX]: index({ a: "one.safetensors", b: "two.safetensors" }),
      "one.safetensors": shard("a"),
      "two.safetensors": build(`{${entry("a", "U8", [1, 1], [0, 1])},${entry("b", "U8", [1], [1, 2])}}`, 2),
    }),
  },
  B29a: { about: "total_size wrong", files: () => ({ [INDEX]: index(goodMap, { total_size: 4 }), ...goodShards }) },
  B29b: {
    about: "total_size not an integer",
    files: () => ({ [INDEX]: index(goodMap, { total_size: 3.5 }), ...goodShards }),
  },
  B30a: {
    about: "index with 100,001 entries",
    files: () => ({
      [INDEX]: index(Object.fromEntries(Array.from({ length: 100_001 }, (_, i) => [`t${i}`, "one.safetensors"]))),
    }),
  },
  B30b: { about: "index of 200 MB", files: () => ({ [INDEX]: { start: "{", size: 200_000_000 } }) },
  B30c: {
    about: "1,001 shards",
    files: () => ({
      [INDEX]: index(Object.fromEntries(Array.from({ length: 1001 }, (_, i) => [`t${i}`, `${i}.safetensors`]))),
    }),
  },
  B30d: { about: "index is a list", files: () => ({ [INDEX]: "[]" }) },
  B30e: { about: "index without weight_map", files: () => ({ [INDEX]: "{}" }) },
  B30f: { about: "index with an empty weight_map", files: () => ({ [INDEX]: index({}) }) },
  B30g: { about: "index that names a number", files: () => ({ [INDEX]: index({ a: 1 }) }) },
  B30h: { about: "index with a tensor twice", files: () => ({ [INDEX]: '{"weight_map":{"a":"x","a":"y"}}' }) },
  B30i: { about: "index cut short", files: () => ({ [INDEX]: '{"weight_map":{"a":"x"' }) },
  B30j: { about: "index is a directory", files: () => ({ [INDEX]: "directory" }) },
};
