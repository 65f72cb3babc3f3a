/** The weight cache: written once, then read, and not used if it is stale or damaged. */
import { spawnSync } from "node:child_process";
import { cp, mkdtemp, readdir, readFile, rm, stat, truncate, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeEach, expect, test, vi } from "vitest";
import { InstructBlipForConditionalGeneration } from "../../src/index.node.ts";
import { WeightCache } from "../../src/modules/weight_cache.ts";
import { type StorageDType, Weights } from "../../src/modules/weights.ts";
import type { DType } from "../../src/tensor/dtype.ts";
import { Checkpoint } from "../../src/tensor/files/checkpoint.ts";
import { serializeSafetensors, type TensorEntry } from "../../src/tensor/files/safetensors_writer.ts";
import { NodeFolder, openCheckpoint } from "../../src/tensor/files/source.node.ts";
import { MemorySource } from "../../src/tensor/files/source.ts";
import { NodeWritableFolder } from "../../src/tensor/files/writable_folder.node.ts";
import { Weight } from "../../src/tensor/weight.ts";
import { compiled, PATIENT } from "../compiled.ts";
import { testDevice } from "../device.ts";
import { goldenFolder } from "../golden_folder.ts";
import { cli } from "../instructblip/cli/cli.ts";
import { Golden } from "../parity/golden.ts";
import { Random } from "../random.ts";

const device = await testDevice();
const scratch = await mkdtemp(join(tmpdir(), "instructblip-cache-"));
let [model, caches] = ["", ""];
let turn = 0;

beforeEach(async () => {
  model = join(scratch, `model-${++turn}`);
  caches = join(scratch, `caches-${turn}`);
  await cp(goldenFolder("odd_widths"), model, { recursive: true });
});
afterAll(() => rm(scratch, { recursive: true, force: true }));

/** Every quantized matrix of a loaded checkpoint as it lies on the device, and whether the cache had it. */
async function load(dtype: StorageDType = "int4", max_rows = 3) {
  const checkpoint = await openCheckpoint(model);
  const weights = Weights.open(checkpoint, device, dtype);
  const matrices: Weight[] = [];
  for (const { name, shape } of checkpoint.tensors.values()) {
    if (shape.length === 2 && matrices.length < max_rows * 4) matrices.push(weights.matrix(name, [shape[0], shape[1]]));
  }
  const write = await NodeWritableFolder.create(caches);
  const cache = await weights.openCache({ read: new NodeFolder(caches), write });
  const restored = await weights.load({ cache });
  if (!restored) await cache.write();
  await checkpoint.close();
  const bits: string[] = [];
  for (const matrix of matrices) {
    for (const shard of matrix.shards) bits.push(Buffer.from((await shard.bits.read()).buffer).toString("base64"));
  }
  weights.dispose();
  return { restored, bits, file: join(caches, cache.file) };
}

test("written at the first start, read at the second with equal bits", async () => {
  const write = vi.spyOn(Weight.prototype, "write");
  const first = await load();
  expect(first.restored).toBe(false);
  expect(await readdir(caches)).toHaveLength(1); // and no temporary file
  expect(write.mock.calls.length).toBeGreaterThan(10);
  write.mockClear();
  const second = await load();
  expect(second).toEqual({ ...first, restored: true });
  expect(write).not.toHaveBeenCalled(); // nothing was quantized
  write.mockRestore();

  const header = await openCheckpoint(first.file);
  expect(header.metadata.get("format")).toBe("instructblip-webgpu quantized weights 2");
  const storage = JSON.parse(header.metadata.get("storage")!) as Record<string, { dtype: string; shape: number[] }>;
  expect([...header.tensors.keys()].sort()).toEqual(["checksums", ...Object.keys(storage)].sort());
  expect(Object.values(storage).every(({ dtype }) => dtype === "int4" || dtype === "int8")).toBe(true);
  await header.close();
});

test("each quantized dtype has its own file; floats have none", async () => {
  const { file } = await load("int4");
  const other = await load("int8");
  expect(other.restored).toBe(false);
  expect(other.file).not.toBe(file);
  expect((await load("int4")).restored).toBe(true);
  // All that is loaded here is the language model's: what counts is what matrices are stored as, not how it was said.
  expect((await load({ language_model: "int8" })).restored).toBe(true);
  expect((await load({ language_model: "int8", "language_model.lm_head": "int4" })).restored).toBe(false);
  expect(await readdir(caches)).toHaveLength(3);
});

test("a changed checkpoint is quantized again, and its file replaced", async () => {
  const before = await load();
  const weights = join(model, "model.safetensors");
  const bytes = await readFile(weights);
  bytes.fill(0x3c, bytes.length - 4000);
  await writeFile(weights, bytes); // as long as it was, with the same header
  await utimes(weights, new Date(), new Date(Date.now() + 5000));
  const after = await load("int4", 100);
  expect(after.restored).toBe(false);
  expect((await load("int4", 100)).bits).toEqual(after.bits);
  const few = await load();
  expect(few.file).toBe(before.file);
  expect(few.restored).toBe(false);
  expect((await load()).restored).toBe(true);
});

test("another file of the same name, size and time is another checkpoint", async () => {
  const weights = join(model, "model.safetensors");
  const packed = new Date("2024-01-01T00:00:00Z"); // as an archive keeps it
  await utimes(weights, packed, packed);
  await load();
  const bytes = await readFile(weights);
  await rm(weights);
  await writeFile(weights, bytes.fill(0x3c, bytes.length - 4000));
  await utimes(weights, packed, packed);
  expect((await load()).restored).toBe(false);
});

const DAMAGE: Record<string, (file: string, size: number) => Promise<void>> = {
  "a flipped bit": async (file, size) => {
    const bytes = await readFile(file);
    bytes[Math.floor(size / 2)] ^= 4;
    await writeFile(file, bytes);
  },
  "the same bit flipped twice": async (file, size) => {
    const bytes = await readFile(file);
    for (const at of [0, 8]) bytes[Math.floor(size / 2) - (Math.floor(size / 2) % 4) + at + 3] ^= 0x80;
    await writeFile(file, bytes);
  },
  "zeros in all of its body": async (file) => {
    const bytes = await readFile(file);
    await writeFile(file, bytes.fill(0, 8 + Number(bytes.readBigUInt64LE())));
  },
  "one checksum too few": (file) => rewriteSums(file, (sums) => sums.subarray(4)),
  "an odd number of bytes of checksums": (file) => rewriteSums(file, (sums) => sums.subarray(1)),
  "no checksums": (file) => rewriteSums(file, () => undefined),
  "a flipped bit in the checksums": async (file, size) => {
    const bytes = await readFile(file);
    bytes[size - 1] ^= 1;
    await writeFile(file, bytes);
  },
  "a missing end": (file, size) => truncate(file, size - 100),
  "nothing in it": (file) => writeFile(file, ""),
  "another file's text": (file) => writeFile(file, "<html>"),
  "other tensors": async (file) => {
    const old = await openCheckpoint(file);
    await old.close();
    await writeFile(
      file,
      await serializeSafetensors(
        [{ name: "w", dtype: "u32", shape: [1], data: Uint32Array.of(1) }],
        Object.fromEntries(old.metadata),
      ),
    );
  },
};

/** The same file with other checksums. */
async function rewriteSums(file: string, change: (sums: Uint8Array) => Uint8Array | undefined): Promise<void> {
  const old = await openCheckpoint(file);
  const entries: TensorEntry[] = [];
  for (const { name, dtype, shape } of old.tensors.values()) {
    const bytes = await old.read(name);
    const data = name === "checksums" ? change(bytes) : bytes;
    if (data) entries.push({ name, dtype: dtype as DType, shape: name === "checksums" ? [data.length] : shape, data });
  }
  await old.close();
  await writeFile(file, await serializeSafetensors(entries, Object.fromEntries(old.metadata)));
}

/** What is damaged: whole before each damage, as it is replaced after the one before. */
let whole: { readonly folders: [string, string]; readonly first: Awaited<ReturnType<typeof load>> } | undefined;

test.each(Object.keys(DAMAGE))("damage is detected and the file replaced: %s", async (kind) => {
  whole ??= { folders: [model, caches], first: await load() };
  [model, caches] = whole.folders;
  const { first } = whole;
  await DAMAGE[kind](first.file, (await stat(first.file)).size);
  expect(await load()).toEqual(first); // restored: false, and the right bits
  expect(await load()).toEqual({ ...first, restored: true });
});

test("a source without a version is not cached", async () => {
  const data = new Random(1).normal(64);
  const bytes = await serializeSafetensors([{ name: "a.weight", dtype: "f32", shape: [2, 32], data }]);
  const weights = Weights.open(await Checkpoint.open(new MemorySource("w", bytes)), device, "int8");
  weights.matrix("a.weight", [2, 32]);
  const folder = { read: new NodeFolder(scratch), write: await NodeWritableFolder.create(scratch) };
  await expect(weights.openCache(folder)).rejects.toMatchObject({ code: "NO_VERSION" });
  weights.dispose();
});

test("an abort while the cache is read ends the load", async () => {
  await load();
  const checkpoint = await openCheckpoint(model);
  const weights = Weights.open(checkpoint, device, "int4");
  for (const { name, shape } of [...checkpoint.tensors.values()]
    .filter(({ shape }) => shape.length === 2)
    .slice(0, 12)) {
    weights.matrix(name, [shape[0], shape[1]]);
  }
  const write = await NodeWritableFolder.create(caches);
  const cache = await weights.openCache({ read: new NodeFolder(caches), write });
  expect(cache).toBeInstanceOf(WeightCache);
  const reason = new Error("enough");
  await expect(weights.load({ cache, signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
  await checkpoint.close();
  weights.dispose();
});

test("from_pretrained writes and reads it; if it cannot, it warns and loads the model", async () => {
  const options = { device, dtype: "int8", compile: false } as const;
  const read = vi.spyOn(WeightCache.prototype, "read");
  const golden = await Golden.open(model);
  const { data, shape } = await golden.floats("pixel_values");
  const inputs = {
    pixel_values: { data, shape },
    input_ids: await golden.rows("input_ids"),
    attention_mask: await golden.rows("attention_mask"),
    qformer_input_ids: await golden.rows("qformer_input_ids"),
  };
  await golden.close();
  const logits: Float32Array[] = [];
  for (const had of [false, true]) {
    const loaded = await InstructBlipForConditionalGeneration.from_pretrained(model, {
      ...options,
      weight_cache: caches,
    });
    expect(loaded.warnings).toEqual([]);
    expect(await read.mock.results.at(-1)!.value).toBe(had);
    logits.push(await device.scope(async () => (await loaded.forward(inputs)).logits.read()));
    loaded.dispose();
  }
  expect(logits[1]).toEqual(logits[0]);
  read.mockClear();
  const plain = await InstructBlipForConditionalGeneration.from_pretrained(model, {
    ...options,
    dtype: "f16",
    weight_cache: caches,
  });
  expect(read).not.toHaveBeenCalled(); // there is nothing to keep
  plain.dispose();
  read.mockRestore();

  vi.stubEnv("XDG_CACHE_HOME", caches);
  (await InstructBlipForConditionalGeneration.from_pretrained(model, { ...options, weight_cache: true })).dispose();
  vi.unstubAllEnvs();
  expect(await readdir(join(caches, "instructblip-webgpu"))).toHaveLength(1);

  const file = join(model, "config.json"); // a file where the folder should be
  const other = await InstructBlipForConditionalGeneration.from_pretrained(model, { ...options, weight_cache: file });
  expect(other.warnings).toEqual([expect.stringMatching(/^quantized weights are not cached: /)]);
  other.dispose();
});

test("--weight-cache writes a file, in a separate process", { timeout: 120_000 }, async () => {
  const shapes = fileURLToPath(new URL("../../examples/shapes/", import.meta.url));
  const question = ["--image", `${shapes}images/a.png`, "--prompt", "Describe the image."];
  const options = ["--dtype", "language_model=int4,vision_model=int8", "--weight-cache", caches];
  const args = ["generate", "--model", `${shapes}checkpoint`, ...question, ...options];
  const first = spawnSync(process.execPath, [compiled("src/instructblip/cli/main.ts"), ...args], {
    encoding: "utf8",
    env: { ...process.env, ...PATIENT },
  });
  expect(first.status, first.stderr).toBe(0);
  expect(first.stderr).not.toContain("not cached");
  const [file, ...others] = await readdir(caches);
  expect(others).toEqual([]);
  const { mtimeMs } = await stat(join(caches, file));
  expect((await cli(args)).stdout).toBe(first.stdout);
  expect((await stat(join(caches, file))).mtimeMs).toBe(mtimeMs);
});
