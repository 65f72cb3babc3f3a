/**
 * Checkpoints that bitsandbytes quantized, dequantized while they are read: the same bits as its own functions give, of files that
 * transformers saved (test/golden/bitsandbytes/make.py).
 */
import { createHash } from "node:crypto";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, test } from "vitest";
import { AutoModelForImageTextToText, Checkpoint, ModelFolder } from "../../../src/index.node.ts";
import { inspect } from "../../../src/instructblip/cli/inspect/inspection.ts";
import { dequantized } from "../../../src/instructblip/pretrained/checkpoint/bitsandbytes.ts";
import { weightsOf } from "../../../src/instructblip/pretrained/checkpoint/open_weights.ts";
import type { DType } from "../../../src/tensor/dtype.ts";
import { serializeSafetensors, type TensorEntry } from "../../../src/tensor/files/safetensors_writer.ts";
import { openCheckpoint } from "../../../src/tensor/files/source.node.ts";
import { MemorySource } from "../../../src/tensor/files/source.ts";
import { testDevice } from "../../device.ts";
import { pytorchFile, type View } from "../../tensor/files/pytorch_file.ts";

const GOLDEN = fileURLToPath(new URL("../../golden/bitsandbytes/data/", import.meta.url));
const WAYS = ["int8", "nf4", "nf4_nested", "fp4"];
const root = await mkdtemp(join(tmpdir(), "bitsandbytes-"));
afterAll(() => rm(root, { recursive: true }));

const open = async (folder: string) => weightsOf(await ModelFolder.open(folder));
const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");

async function streamed(checkpoint: Checkpoint, chunkBytes: number): Promise<Map<string, Buffer>> {
  const pieces = new Map<string, Buffer[]>();
  for await (const { name, bytes } of checkpoint.stream(checkpoint.tensors.keys(), { chunkBytes, reads: 3 })) {
    pieces.set(name, [...(pieces.get(name) ?? []), Buffer.from(bytes)]);
  }
  return new Map([...pieces].map(([name, parts]) => [name, Buffer.concat(parts)]));
}

async function entriesOf(checkpoint: Checkpoint): Promise<TensorEntry[]> {
  const entries: TensorEntry[] = [];
  for (const { name, dtype, shape } of checkpoint.tensors.values()) {
    entries.push({ name, dtype: dtype as DType, shape, data: await checkpoint.read(name) });
  }
  return entries;
}

test.each(WAYS)("%s: every matrix is as bitsandbytes dequantizes it, whole, by rows and streamed", async (way) => {
  const [ours, raw] = [await open(join(GOLDEN, way)), await openCheckpoint(join(GOLDEN, way))];
  const theirs = await openCheckpoint(join(GOLDEN, "expected.safetensors"));
  const wanted = [...theirs.tensors.values()].filter(({ name }) => name.startsWith(`${way}/`));
  expect(wanted.length).toBeGreaterThan(20);
  const stream = await streamed(ours, 120);
  for (const { name: key, dtype, shape } of wanted) {
    const name = key.slice(way.length + 1);
    expect(ours.tensors.get(name)).toMatchObject({ dtype, shape });
    const expected = Buffer.from(await theirs.read(key));
    expect(Buffer.from(await ours.read(name)), name).toEqual(expected);
    expect(stream.get(name), name).toEqual(expected);
    const row = expected.length / shape[0];
    expect(Buffer.from(await ours.read(name, [1, 3])), name).toEqual(expected.subarray(row, 3 * row));
  }
  // The others are as in the file, and none of those that describe a matrix is left.
  const floats = [...raw.tensors.values()].filter(
    ({ dtype, name }) => !/weight\.|SCB|weight_f/.test(name) && dtype === "f16",
  );
  for (const { name } of floats.filter(({ name }) => !theirs.tensors.has(`${way}/${name}`))) {
    expect(stream.get(name), name).toEqual(Buffer.from(await raw.read(name)));
  }
  expect([...ours.tensors.keys()].filter((name) => /SCB|absmax|quant_|weight_format/.test(name))).toEqual([]);
  expect(ours.warnings).toEqual([expect.stringMatching(`^${wanted.length} matrices that bitsandbytes quantized \\(`)]);
  for (const checkpoint of [ours, raw, theirs]) await checkpoint.close();
});

test("matrices of odd sizes, blocks that end inside rows, scales of more than one block, each dtype; in small reads", async () => {
  const file = await readFile(join(GOLDEN, "cases.safetensors"));
  let most = 0;
  const source = {
    name: "cases.safetensors",
    size: file.length,
    async read(offset: number, into: Uint8Array) {
      most = Math.max(most, into.length);
      into.set(file.subarray(offset, offset + into.length));
    },
    async close() {},
  };
  const checkpoint = await dequantized(await Checkpoint.open(source));
  const expected = JSON.parse(await readFile(join(GOLDEN, "cases.json"), "utf8"));
  for (const chunkBytes of [2 ** 20, 3 * 200]) {
    most = 0;
    const found = [...(await streamed(checkpoint, chunkBytes))].map(([name, bytes]) => [name, sha256(bytes)]);
    expect(Object.fromEntries(found)).toEqual(expected);
  }
  expect(most).toBeGreaterThan(0);
  expect(most).toBeLessThanOrEqual(100); // of 200 bytes a piece: two bytes or four of a number are half of one
  await checkpoint.close();
});

test("across shards, and in PyTorch's files", async () => {
  const whole = await openCheckpoint(join(GOLDEN, "nf4_nested"));
  const entries = await entriesOf(whole);
  await whole.close();
  const folder = join(root, "shards");
  await cp(join(GOLDEN, "nf4_nested"), folder, { recursive: true });
  await rm(join(folder, "model.safetensors"));
  // A matrix is in one file, its scales in the other, some of them on either side.
  const weight_map: Record<string, string> = {};
  const [odd, even]: TensorEntry[][] = [[], []];
  entries.forEach((entry, i) => {
    (i % 2 ? odd : even).push(entry);
    weight_map[entry.name] = i % 2 ? "b.bin" : "a.safetensors";
  });
  await writeFile(join(folder, "a.safetensors"), await serializeSafetensors(even));
  const [views, storages]: [Record<string, View>, Record<string, Uint8Array>] = [{}, {}];
  for (const { name, dtype, shape, data } of odd) {
    views[name] = { dtype, shape, storage: name };
    storages[name] = data as Uint8Array;
  }
  await writeFile(join(folder, "b.bin"), pytorchFile(views, storages));
  await writeFile(join(folder, "model.safetensors.index.json"), JSON.stringify({ weight_map }));
  const [apart, together] = [await open(folder), await open(join(GOLDEN, "nf4_nested"))];
  expect(await streamed(apart, 1024)).toEqual(new Map(await streamed(together, 4096)));
  await apart.close();
  await together.close();
});

test("a model of dtype int8 is that of the dequantized floats, and is saved as floats", async () => {
  const device = await testDevice();
  const options = { device, compile: false, on_warning: null } as const;
  const floats = join(root, "floats");
  const first = await AutoModelForImageTextToText.from_pretrained(join(GOLDEN, "nf4"), options);
  expect(first.warnings).toEqual([expect.stringContaining("(nf4) are dequantized to f16")]);
  await first.save_pretrained(floats);
  first.dispose();
  const config = JSON.parse(await readFile(join(floats, "config.json"), "utf8"));
  expect(config).not.toHaveProperty("quantization_config");
  const [saved, ours] = [await openCheckpoint(floats), await open(join(GOLDEN, "nf4"))];
  const name = "language_model.model.layers.0.mlp.up_proj.weight";
  expect(await saved.read(name)).toEqual(await ours.read(name));
  await saved.close();
  await ours.close();
  const answers: Float32Array[] = [];
  for (const folder of [join(GOLDEN, "nf4"), floats]) {
    const model = await AutoModelForImageTextToText.from_pretrained(folder, { ...options, dtype: "int8" });
    const inputs = {
      pixel_values: { shape: [1, 3, 8, 8], data: Float32Array.from({ length: 192 }, (_, i) => Math.sin(i)) },
      qformer_input_ids: [[1, 2]],
      input_ids: [[22, 22, 22, 22, 3, 4]],
    };
    const { logits } = await model.forward(inputs);
    expect(logits.shape.at(-1)).toBe(23);
    answers.push(await logits.read());
    model.dispose();
  }
  expect(answers[0].some((x) => x !== answers[0][0])).toBe(true);
  expect(answers[0]).toEqual(answers[1]);
});

test("inspect says what the file is, and plans memory for what is made of it", async () => {
  const folder = await ModelFolder.open(join(GOLDEN, "int8"));
  const [config, checkpoint] = [await folder.config(), await weightsOf(folder)];
  const report = inspect({ name: "x", config, checkpoint, files: [], caps: undefined, withTensors: false });
  await checkpoint.close();
  expect(report.warnings).toEqual([
    expect.stringMatching(/bitsandbytes quantized \(int8\) are dequantized to f32.*--dtype/),
  ]);
  expect(report.dtypes.map(({ dtype }) => dtype).sort()).toEqual(["f16", "f32"]);
});

describe("refused", () => {
  const NAME = "language_model.model.layers.0.mlp.up_proj";
  /** A golden's tensors of one matrix, written anew. */
  const changed = async (way: string, change: (entry: TensorEntry) => TensorEntry | undefined) => {
    const checkpoint = await openCheckpoint(join(GOLDEN, way));
    const entries: TensorEntry[] = [];
    for (const { name, dtype, shape } of checkpoint.tensors.values()) {
      if (!name.startsWith(`${NAME}.`)) continue;
      const entry = change({ name, dtype: dtype as DType, shape, data: await checkpoint.read(name) });
      if (entry) entries.push(entry);
    }
    await checkpoint.close();
    return dequantized(
      await Checkpoint.open(new MemorySource("model.safetensors", await serializeSafetensors(entries))),
    );
  };
  const json = (change: (state: Record<string, unknown>) => void) => (entry: TensorEntry) => {
    if (!entry.name.startsWith(`${NAME}.weight.quant_state`)) return entry;
    const state = JSON.parse(Buffer.from(entry.data as Uint8Array).toString());
    change(state);
    const data = new Uint8Array(Buffer.from(JSON.stringify(state)));
    return { ...entry, data, shape: [data.length] };
  };
  const without = (name: string) => (entry: TensorEntry) => (entry.name === `${NAME}.${name}` ? undefined : entry);
  const bytes = (name: string, change: (data: Uint8Array) => void) => (entry: TensorEntry) => {
    if (entry.name === `${NAME}.${name}`) change(entry.data as Uint8Array);
    return entry;
  };
  const cut = (name: string) => (entry: TensorEntry) => {
    if (entry.name !== `${NAME}.${name}`) return entry;
    const bytes = (entry.data as Uint8Array).length / entry.shape[0];
    const data = (entry.data as Uint8Array).subarray(bytes);
    return { ...entry, shape: [entry.shape[0] - 1, ...entry.shape.slice(1)], data };
  };
  test.each<[string, (entry: TensorEntry) => TensorEntry | undefined, string]>([
    ["int8", without("SCB"), "SCB"],
    ["int8", cut("SCB"), "SCB is f32[21] for a matrix of [22, 16]"],
    ["int8", bytes("weight_format", (data) => data.fill(2)), "weight_format is 2"],
    ["nf4", without("weight"), "missing itself"],
    ["nf4", without("weight.absmax"), "absmax is missing"],
    ["nf4", without("weight.quant_map"), "quant_map is missing"],
    ["nf4", without("weight.quant_state.bitsandbytes__nf4"), "no quant_state"],
    ["nf4", cut("weight.absmax"), "absmax is f32[5], not 6 of f32"],
    ["nf4", cut("weight"), "175 bytes are not [22, 16]"],
    ["nf4", bytes("weight.quant_map", (data) => data.fill(1)), "not that of nf4"],
    ["nf4", bytes("weight.quant_state.bitsandbytes__nf4", (data) => data.fill(32)), "no JSON object"],
    ["nf4", json((state) => Object.assign(state, { blocksize: 63 })), "blocksize is 63"],
    ["nf4", json((state) => Object.assign(state, { dtype: "int8" })), 'dtype is "int8"'],
    ["nf4", json((state) => Object.assign(state, { shape: [22, -16] })), "shape is [22,-16]"],
    ["nf4", json((state) => Object.assign(state, { quant_type: "fp4" })), 'quant_type is "fp4"'],
    ["nf4", json((state) => Object.assign(state, { nested_offset: 1 })), "nested_dtype is undefined"],
    ["nf4_nested", without("weight.nested_absmax"), "nested_absmax is missing"],
    ["nf4_nested", json((state) => Object.assign(state, { nested_offset: "x" })), 'nested_offset is "x"'],
    ["nf4_nested", json((state) => Object.assign(state, { nested_blocksize: 1 })), "blocksize is 1"],
    ["nf4_nested", cut("weight.nested_quant_map"), "nested_quant_map is f32[255]"],
  ])("%s: %#", async (way, change, named) => {
    await expect(changed(way, change)).rejects.toMatchObject({
      code: "QUANTIZED_CHECKPOINT",
      message: expect.stringContaining(named),
      hint: expect.stringContaining("save_pretrained"),
    });
  });
});
