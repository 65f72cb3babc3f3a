/** Checkpoints of LAVIS: Hugging Face's names for its tensors (test/golden/lavis/make.py), and models joined of two folders. */
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { afterAll, describe, expect, test } from "vitest";
import { AutoModelForImageTextToText, Checkpoint } from "../../../src/index.node.ts";
import type { Inspection } from "../../../src/instructblip/cli/inspect/inspection.ts";
import { fromLavis, isLavis } from "../../../src/instructblip/pretrained/checkpoint/lavis.ts";
import type { DType } from "../../../src/tensor/dtype.ts";
import { PyTorchFile } from "../../../src/tensor/files/pytorch.ts";
import { serializeSafetensors, type TensorEntry } from "../../../src/tensor/files/safetensors_writer.ts";
import { openCheckpoint } from "../../../src/tensor/files/source.node.ts";
import { MemorySource } from "../../../src/tensor/files/source.ts";
import { testDevice } from "../../device.ts";
import { goldenFolder } from "../../golden_folder.ts";
import { dictPickle, pytorchFile, pytorchZip, tensorPickle, type View } from "../../tensor/files/pytorch_file.ts";

import { json } from "../cli/cli.ts";

const device = await testDevice();
const root = await mkdtemp(join(tmpdir(), "lavis-"));
afterAll(() => rm(root, { recursive: true }));

interface Named {
  readonly name: string;
  readonly model_type: string;
  /** By LAVIS's name. */
  readonly names: Readonly<Record<string, readonly [shape: number[], name: string]>>;
}
const MODELS = JSON.parse(
  gunzipSync(await readFile(new URL("../../golden/lavis/data/names.json.gz", import.meta.url))).toString(),
) as Named[];

const sizeOf = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);

describe.each(MODELS)("$name", ({ model_type, names }) => {
  test("every tensor gets its name, and the image encoder's biases become one, with zeros for keys", async () => {
    const tensors: Record<string, View> = {};
    const storages: Record<string, Uint8Array> = {};
    const expected = new Map<string, number[]>();
    Object.entries(names).forEach(([name, [shape, converted]], i) => {
      tensors[name] = { dtype: "f32", shape, storage: `${i}` };
      const numbers = new Float32Array(sizeOf(shape)).fill(i + 1);
      storages[i] = new Uint8Array(numbers.buffer);
      if (name.endsWith("v_bias")) expected.get(converted)!.push(...numbers.map(() => 0), ...numbers);
      else expected.set(converted, [...numbers]);
    });
    expect(isLavis(Object.keys(tensors))).toBe(true);
    const file = fromLavis(
      await PyTorchFile.open(new MemorySource("a.pth", pytorchFile(tensors, storages))),
      model_type,
    );
    expect(new Set(file.tensors.keys())).toEqual(new Set(expected.keys()));
    expect(isLavis(file.tensors.keys())).toBe(false);
    for (const [name, numbers] of expected) {
      expect([...new Float32Array((await file.read(name)).buffer)], name).toEqual(numbers);
      const { shape } = file.tensors.get(name)!;
      expect(sizeOf(shape)).toBe(numbers.length);
    }
    const [name] = [...expected.keys()].filter((name) => name.endsWith("qkv.bias"));
    const third = expected.get(name)!.length / 3;
    const rows = new Float32Array((await file.read(name, [third - 1, 2 * third + 1])).buffer);
    expect([...rows]).toEqual(expected.get(name)!.slice(third - 1, 2 * third + 1));
    await file.close();
  });
});

/** Hugging Face's names to LAVIS's, numbers in them left out. */
const ORIGINAL = new Map(
  MODELS.slice(0, 1).flatMap(({ names }) =>
    Object.entries(names).map(([name, [, converted]]) => [converted.replace(/\d+/g, "#"), name.replace(/\d+/g, "#")]),
  ),
);
function originalName(name: string): string {
  const numbers = [...name.matchAll(/\d+/g)];
  return ORIGINAL.get(name.replace(/\d+/g, "#"))!.replace(/#/g, () => numbers.shift()![0]);
}

/**
 * A golden as LAVIS's file, without the language model, beside the other files of its folder; and the language model in a folder
 * of its own, with fewer rows in its tables.
 */
async function split(golden: string, file: string, lackedRows: number) {
  const [folder, language] = [join(root, `${golden}-${lackedRows}`), join(root, `${golden}-language-${lackedRows}`)];
  await cp(goldenFolder(golden), folder, { recursive: true });
  await rm(join(folder, "model.safetensors"));
  await mkdir(language);
  await writeFile(join(language, "config.json"), '{"model_type": "llama"}');
  const views: Record<string, Buffer> = {};
  const storages: Record<string, Uint8Array> = {};
  const entries: TensorEntry[] = [];
  const add = (name: string, dtype: DType, shape: readonly number[], bytes: Uint8Array) => {
    const storage = `${Object.keys(storages).length}`;
    views[name] = tensorPickle({ dtype, shape, storage }, sizeOf(shape));
    storages[storage] = bytes;
  };
  const checkpoint = await openCheckpoint(goldenFolder(golden));
  for (const { name, dtype, shape } of checkpoint.tensors.values()) {
    const bytes = await checkpoint.read(name);
    const [rows] = shape;
    if (name.startsWith("language_model.")) {
      const kept = /embed_tokens|lm_head/.test(name) ? rows - lackedRows : rows;
      const data = bytes.subarray(0, (bytes.length / rows) * kept);
      const own = name.slice("language_model.".length);
      entries.push({ name: own, dtype: dtype as DType, shape: [kept, ...shape.slice(1)], data });
    } else if (name.endsWith("qkv.bias")) {
      const original = originalName(name).replace(/v_bias$/, "q_bias");
      const third = bytes.length / 3;
      add(original, dtype as DType, [rows / 3], bytes.subarray(0, third));
      add(original.replace(/q_bias$/, "v_bias"), dtype as DType, [rows / 3], bytes.subarray(2 * third));
    } else {
      add(originalName(name), dtype as DType, shape, bytes);
    }
  }
  await checkpoint.close();
  const pickle = dictPickle({ model: dictPickle(views).subarray(2, -1) });
  await writeFile(join(folder, file), pytorchZip(pickle, storages));
  await writeFile(join(language, "model.safetensors"), await serializeSafetensors(entries));
  return { folder, language };
}

test.each([0, 5])("a trimmed file, completed by a language model whose tables lack %i rows", async (lacked) => {
  const { folder, language } = await split("plain_f32", "instruct_blip_vicuna7b_trimmed.pth", lacked);
  const options = { device, compile: false } as const;
  await expect(AutoModelForImageTextToText.from_pretrained(folder, options)).rejects.toMatchObject({
    code: "MISSING_TENSORS",
    message: expect.stringContaining("language_model."),
  });
  const model = await AutoModelForImageTextToText.from_pretrained(folder, {
    ...options,
    base_model: language,
    on_warning: null,
  });
  expect(model.warnings).toHaveLength(lacked ? 2 : 0);
  for (const warning of model.warnings) expect(warning).toContain("the others are zeros");
  const [whole] = await json<Inspection>(["inspect", folder, "--base-model", language, "--json"]);
  const [given] = await json<Inspection>(["inspect", goldenFolder("plain_f32"), "--json"]);
  expect(whole.tensors).toEqual(given.tensors);
  expect(whole.memory).toEqual(given.memory);
  const to = join(root, `saved-${lacked}`);
  await model.save_pretrained(to);
  model.dispose();
  const [saved, original] = [await openCheckpoint(to), await openCheckpoint(goldenFolder("plain_f32"))];
  expect(new Set(saved.tensors.keys())).toEqual(new Set(original.tensors.keys()));
  for (const [name, { shape }] of original.tensors) {
    const bytes = await original.read(name);
    if (name.endsWith("qkv.bias")) bytes.fill(0, bytes.length / 3, (2 * bytes.length) / 3);
    if (/embed_tokens|lm_head/.test(name)) bytes.fill(0, (bytes.length / shape[0]) * (shape[0] - lacked));
    expect(Buffer.from(await saved.read(name)).equals(Buffer.from(bytes)), name).toBe(true);
  }
  await saved.close();
  await original.close();
});

test("a checkpoint over another has its own tensors first, and closes both", async () => {
  const entry = (name: string, value: number): TensorEntry => ({
    name,
    dtype: "u8",
    shape: [1],
    data: Uint8Array.of(value),
  });
  let closed = 0;
  const open = async (file: string, entries: TensorEntry[]) => {
    const source = new MemorySource(file, await serializeSafetensors(entries));
    source.close = async () => void closed++;
    return Checkpoint.open(source);
  };
  const base = await open("a.safetensors", [entry("x", 1), entry("y", 2)]);
  const joined = (await open("a.safetensors", [entry("y", 3), entry("z", 4)])).over(base);
  const found: Record<string, number> = {};
  for await (const { name, bytes } of joined.stream(["x", "y", "z"])) found[name] = bytes[0];
  expect(found).toEqual({ x: 1, y: 3, z: 4 });
  expect(joined.files.map(({ name }) => name)).toEqual(["a.safetensors", "a.safetensors"]);
  await joined.close();
  expect(closed).toBe(2);
});
