/** LoRA adapters, merged while weights are read: PEFT's merge_and_unload() on a tiny model (test/golden/adapters/make.py). */
import { cp, mkdtemp, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, test } from "vitest";
import { AutoModelForImageTextToText, type Checkpoint, ModelFolder } from "../../../src/index.node.ts";
import { identityOf } from "../../../src/instructblip/cli/requests/predictions.node.ts";
import { weightsOf } from "../../../src/instructblip/pretrained/checkpoint/open_weights.ts";
import { DTYPES, type DType, type FloatDType, narrow, widen } from "../../../src/tensor/dtype.ts";
import { serializeSafetensors, type TensorEntry } from "../../../src/tensor/files/safetensors_writer.ts";
import { openCheckpoint } from "../../../src/tensor/files/source.node.ts";
import { testDevice } from "../../device.ts";
import { pytorchFile, type View } from "../../tensor/files/pytorch_file.ts";

const GOLDEN = fileURLToPath(new URL("../../golden/adapters/data/", import.meta.url));
const BASE = join(GOLDEN, "base");
const NAMES = (await readdir(GOLDEN)).filter((name) => name !== "base");
const root = await mkdtemp(join(tmpdir(), "adapter-"));
afterAll(() => rm(root, { recursive: true }));

const numbers = async (checkpoint: Checkpoint, name: string) =>
  widen(await checkpoint.read(name), checkpoint.tensors.get(name)!.dtype as FloatDType);

/** Sums of a few products in another order, of numbers near 1. */
const BOUND = 2 ** -21;

function expectNear(ours: Float32Array, theirs: Float32Array, name: string): void {
  expect(ours.length).toBe(theirs.length);
  const worst = ours.reduce((most, x, i) => {
    const off = Math.abs(x - theirs[i]) / (1 + Math.abs(theirs[i]));
    return off <= most ? most : off; // NaN is the worst
  }, 0);
  expect(worst, name).toBeLessThanOrEqual(BOUND);
}

describe.each(NAMES)("%s", (name) => {
  test("is what merge_and_unload() makes, whole, by rows and streamed; other tensors stay", async () => {
    const folder = await ModelFolder.open(BASE, { adapter: join(GOLDEN, name) });
    const [merged, base] = [await weightsOf(folder), await openCheckpoint(BASE)];
    const expected = await openCheckpoint(join(GOLDEN, name, "merged.safetensors"));
    expect(new Set(merged.tensors.keys())).toEqual(new Set(base.tensors.keys()));
    const streamed = new Map<string, number[]>();
    for await (const { name, byteOffset, bytes } of merged.stream(merged.tensors.keys(), {
      chunkBytes: 96,
      reads: 3,
    })) {
      const found = streamed.get(name) ?? [];
      expect(byteOffset).toBe(found.length);
      streamed.set(name, found.concat([...bytes]));
    }
    let changed = 0;
    for (const [name, { shape, dtype }] of base.tensors) {
      expect(merged.tensors.get(name)).toMatchObject({ shape, dtype });
      const ours = await numbers(merged, name);
      const theirs = await numbers(expected.tensors.has(name) ? expected : base, name);
      expectNear(ours, theirs, name);
      expect(new Uint8Array(ours.buffer)).toEqual(Uint8Array.from(streamed.get(name)!));
      const before = await numbers(base, name);
      if (!expected.tensors.has(name)) expect(ours).toEqual(before);
      else changed += Number(ours.some((x, i) => Math.abs(x - before[i]) > 0.01));
      if (shape.length === 2) {
        const rows = new Float32Array((await merged.read(name, [1, 3])).buffer);
        expect(rows).toEqual(ours.subarray(shape[1], 3 * shape[1]));
      }
    }
    expect(changed).toBe(expected.tensors.size);
    for (const checkpoint of [merged, base, expected]) await checkpoint.close();
  });
});

test("one after the other, and as PyTorch's file, as PEFT wrote before", async () => {
  const old = join(root, "old");
  await cp(join(GOLDEN, "plain"), old, { recursive: true });
  const adapter = await openCheckpoint(join(old, "adapter_model.safetensors"));
  const [views, storages]: [Record<string, View>, Record<string, Uint8Array>] = [{}, {}];
  for (const { name, dtype, shape } of adapter.tensors.values()) {
    views[name] = { dtype: dtype as DType, shape, storage: name };
    storages[name] = await adapter.read(name);
  }
  await writeFile(join(old, "adapter_model.bin"), pytorchFile(views, storages));
  await rm(join(old, "adapter_model.safetensors"));
  const mergedOf = async (adapter: string | string[]) => weightsOf(await ModelFolder.open(BASE, { adapter }));
  const [one, two] = [await mergedOf(old), await mergedOf([old, join(GOLDEN, "rslora")])];
  const [plain, rslora] = [await mergedOf(join(GOLDEN, "plain")), await mergedOf(join(GOLDEN, "rslora"))];
  const base = await openCheckpoint(BASE);
  const name = "language_model.model.layers.1.self_attn.q_proj.weight";
  expect(await numbers(one, name)).toEqual(await numbers(plain, name));
  const [a, b, w] = [await numbers(plain, name), await numbers(rslora, name), await numbers(base, name)];
  expectNear(
    await numbers(two, name),
    w.map((x, i) => a[i] + (b[i] - x)),
    name,
  );
  expect(two.files.map(({ name }) => name)).toEqual([
    "model.safetensors",
    "adapter_model.bin",
    "adapter_model.safetensors",
  ]);
  for (const checkpoint of [one, two, plain, rslora, base, adapter]) await checkpoint.close();
});

test.each(["f16", "bf16"] as const)("into %s weights, rounded", async (dtype) => {
  const folder = join(root, dtype);
  await cp(BASE, folder, { recursive: true });
  const base = await openCheckpoint(BASE);
  const entries: TensorEntry[] = [];
  for (const { name, shape } of base.tensors.values()) {
    entries.push({ name, dtype, shape, data: narrow(await numbers(base, name), dtype) });
  }
  await writeFile(join(folder, "model.safetensors"), await serializeSafetensors(entries));
  const merged = await weightsOf(await ModelFolder.open(folder, { adapter: join(GOLDEN, "plain") }));
  const whole = await weightsOf(await ModelFolder.open(BASE, { adapter: join(GOLDEN, "plain") }));
  const name = "language_model.model.layers.0.self_attn.v_proj.weight";
  const [w, exact] = [await numbers(base, name), await numbers(whole, name)];
  const stored = widen(new Uint8Array(narrow(w, dtype).buffer), dtype);
  const sum = exact.map((x, i) => x + (stored[i] - w[i]));
  const ours = await numbers(merged, name);
  const ulp = dtype === "f16" ? 2 ** -11 : 2 ** -8;
  ours.forEach((x, i) => {
    expect(Math.abs(x - sum[i])).toBeLessThanOrEqual(ulp * Math.abs(sum[i]) + BOUND);
  });
  expect(merged.tensors.get(name)!.end - merged.tensors.get(name)!.begin).toBe(DTYPES[dtype].bytes * w.length);
  for (const checkpoint of [merged, whole, base]) await checkpoint.close();
});

test("of folders of one name, and on a folder that is open with others", async () => {
  const [one, two] = ["one", "two"].map((folder) => join(root, folder, "lora"));
  await cp(join(GOLDEN, "plain"), one, { recursive: true });
  await cp(join(GOLDEN, "rslora"), two, { recursive: true });
  const whole = await weightsOf(await ModelFolder.open(BASE, { adapter: [one, two] }));
  expect(whole.files).toHaveLength(3);
  const opened = await ModelFolder.open(BASE, { adapter: one });
  const again = await weightsOf(await ModelFolder.open(opened, { adapter: two }));
  const name = "language_model.model.layers.1.self_attn.q_proj.weight";
  expect(await numbers(again, name)).toEqual(await numbers(whole, name));
  for (const checkpoint of [whole, again]) await checkpoint.close();
  await expect(ModelFolder.open(BASE, { base_model: opened })).rejects.toThrow("adapters of its own");
});

/** A copy of a folder with the tensors of `file`, and the object of `json`, changed. */
async function changed(
  from: string,
  file: string,
  change: (entry: TensorEntry) => TensorEntry | undefined,
  json: string,
  adapt: (object: Record<string, unknown>) => void = () => {},
): Promise<string> {
  const folder = await mkdtemp(join(root, "changed-"));
  await cp(from, folder, { recursive: true });
  const checkpoint = await openCheckpoint(join(from, file));
  const entries: TensorEntry[] = [];
  for (const { name, dtype, shape } of checkpoint.tensors.values()) {
    const entry = change({ name, dtype: dtype as DType, shape, data: await checkpoint.read(name) });
    if (entry) entries.push(entry);
  }
  await checkpoint.close();
  await writeFile(join(folder, file), await serializeSafetensors(entries));
  const object = JSON.parse(await readFile(join(folder, json), "utf8"));
  adapt(object);
  await writeFile(join(folder, json), JSON.stringify(object));
  return folder;
}

test("of f64 numbers are rounded to f32, with a warning", async () => {
  const nudge = 1 + 2 ** -40; // less than f32 has room for
  const double = await changed(
    join(GOLDEN, "plain"),
    "adapter_model.safetensors",
    (entry) => ({
      ...entry,
      dtype: "f64",
      data: Float64Array.from(widen(entry.data as Uint8Array, "f32"), (x) => x * nudge),
    }),
    "adapter_config.json",
  );
  const [ours, single] = [
    await weightsOf(await ModelFolder.open(BASE, { adapter: double })),
    await weightsOf(await ModelFolder.open(BASE, { adapter: join(GOLDEN, "plain") })),
  ];
  const name = "language_model.model.layers.1.self_attn.q_proj.weight";
  expect(await numbers(ours, name)).toEqual(await numbers(single, name));
  expect(ours.warnings).toEqual([expect.stringContaining("f64 numbers are rounded to f32")]);
  await ours.close();
  await single.close();
});

describe("of a model whose head is its table of embeddings", () => {
  const [TABLE, HEAD] = ["model.embed_tokens", "lm_head"].map((name) => `language_model.${name}.weight`);
  /** The base with one table, the adapter's own, under `names`. */
  const tied = (names: readonly string[]) =>
    changed(
      BASE,
      "model.safetensors",
      (entry) => (entry.name === TABLE || entry.name === HEAD ? undefined : entry),
      "config.json",
      (config) => Object.assign(config.text_config as object, { tie_word_embeddings: true }),
    ).then(async (folder) => {
      const [base, rest] = [await openCheckpoint(BASE), await openCheckpoint(folder)];
      const entries: TensorEntry[] = [];
      for (const { name, dtype, shape } of rest.tensors.values()) {
        entries.push({ name, dtype: dtype as DType, shape, data: await rest.read(name) });
      }
      const { dtype, shape } = base.tensors.get(HEAD)!;
      for (const name of names) entries.push({ name, dtype: dtype as DType, shape, data: await base.read(HEAD) });
      await base.close();
      await rest.close();
      await writeFile(join(folder, "model.safetensors"), await serializeSafetensors(entries));
      return folder;
    });
  const adapterOf = (pattern: RegExp, adapt?: (config: Record<string, unknown>) => void) =>
    changed(
      join(GOLDEN, "everything"),
      "adapter_model.safetensors",
      (entry) => (pattern.test(entry.name) ? entry : undefined),
      "adapter_config.json",
      adapt,
    );

  // As merge_and_unload() of peft 0.21 does: the parameter is one, whichever name the adapter has for it.
  test("an adapter of either name changes it under each name there is", async () => {
    const adapter = await adapterOf(/\.lm_head\./);
    const expected = await openCheckpoint(join(GOLDEN, "everything", "merged.safetensors"));
    for (const names of [[TABLE], [TABLE, HEAD]]) {
      const merged = await weightsOf(await ModelFolder.open(await tied(names), { adapter }));
      for (const name of names) expectNear(await numbers(merged, name), await numbers(expected, HEAD), name);
      await merged.close();
    }
    await expected.close();
  });

  test("two changes of it, and one that would part it in two, are refused", async () => {
    const folder = await tied([TABLE]);
    const refusal = async (adapter: string) => weightsOf(await ModelFolder.open(folder, { adapter }));
    await expect(refusal(await adapterOf(/lm_head\.lora|embed_tokens\.lora/))).rejects.toMatchObject({
      code: "ADAPTER",
      message: expect.stringContaining("as it is one table with"),
    });
    const save = (config: Record<string, unknown>) => Object.assign(config, { modules_to_save: ["lm_head"] });
    await expect(refusal(await adapterOf(/lm_head\.base_layer/, save))).rejects.toMatchObject({
      code: "ADAPTER",
      message: expect.stringContaining("as one table with others"),
    });
  });
});

test("of another scale are not those that a weight cache has", async () => {
  const folder = join(root, "scaled");
  await cp(join(GOLDEN, "plain"), folder, { recursive: true });
  const madeWith = async () => {
    const merged = await weightsOf(await ModelFolder.open(BASE, { adapter: folder }));
    await merged.close();
    return merged.made_with;
  };
  const before = await madeWith();
  const config = JSON.parse(await readFile(join(folder, "adapter_config.json"), "utf8"));
  await writeFile(
    join(folder, "adapter_config.json"),
    JSON.stringify({ ...config, lora_alpha: 2 * config.lora_alpha }),
  );
  expect(before).toHaveLength(1);
  expect(await madeWith()).not.toEqual(before);
});

test("from_pretrained({ adapter }) loads them, and predictions know the model as another", async () => {
  const device = await testDevice();
  const adapter = join(GOLDEN, "rslora");
  const model = await AutoModelForImageTextToText.from_pretrained(BASE, {
    device,
    adapter,
    compile: false,
    on_warning: null,
  });
  const to = join(root, "saved");
  await model.save_pretrained(to);
  model.dispose();
  const [saved, expected] = [await openCheckpoint(to), await openCheckpoint(join(adapter, "merged.safetensors"))];
  for (const name of expected.tensors.keys())
    expectNear(await numbers(saved, name), await numbers(expected, name), name);
  await saved.close();
  await expected.close();
  const identity = async (adapter?: string) => identityOf(await ModelFolder.open(BASE, { adapter }));
  expect(await identity()).not.toBe(await identity(adapter));
});

describe("refused", () => {
  let turn = 0;
  const refusal = async (change: object, adapt: (folder: string) => Promise<void> = async () => {}) => {
    const folder = join(root, `refused-${turn++}`);
    await cp(join(GOLDEN, "plain"), folder, { recursive: true });
    const file = join(folder, "adapter_config.json");
    await writeFile(file, JSON.stringify({ ...JSON.parse(await readFile(file, "utf8")), ...change }));
    await adapt(folder);
    return weightsOf(await ModelFolder.open(BASE, { adapter: folder }));
  };
  test.each<[object, string]>([
    [{ peft_type: "IA3" }, "IA3"],
    [{ use_dora: true }, "use_dora"],
    [{ lora_bias: true }, "lora_bias"],
    [{ target_parameters: ["experts.weight"] }, "target_parameters"],
    [{ init_lora_weights: "pissa_niter_4" }, "pissa_niter_4"],
    [{ r: 4 }, "the rank of"],
    [{ r: "3" }, "r must be a number"],
    [{ lora_alpha: null }, "lora_alpha must be a number"],
    [{ alpha_pattern: { "(a+)+$": 1 } }, "regular expression"],
    [{ rank_pattern: [["q_proj", 5]] }, "rank_pattern must be an object"],
  ])("%j", async (change, named) => {
    await expect(refusal(change)).rejects.toMatchObject({ code: "ADAPTER", message: expect.stringContaining(named) });
  });

  test("another model's, names and shapes that are none of PEFT's, a factor alone, no config", async () => {
    const with_ = (change: (entry: TensorEntry) => TensorEntry | undefined) => async (folder: string) => {
      const file = join(folder, "adapter_model.safetensors");
      const adapter = await openCheckpoint(file);
      const entries: TensorEntry[] = [];
      for (const { name, dtype, shape } of adapter.tensors.values()) {
        const entry = change({ name, dtype: dtype as DType, shape, data: await adapter.read(name) });
        if (entry) entries.push(entry);
      }
      await adapter.close();
      await writeFile(file, await serializeSafetensors(entries));
    };
    const renamed = (pattern: RegExp, by: string) =>
      with_((entry) => ({ ...entry, name: entry.name.replace(pattern, by) }));
    const cases: [(folder: string) => Promise<void>, string][] = [
      [renamed(/layers\.1/, "layers.9"), "layers.9"],
      [renamed(/^base_model\.model\./, ""), "no name of PEFT's"],
      [renamed(/lora_A/, "lora_magnitude_vector"), "not merged"],
      [with_(() => undefined), "it has no tensors"],
      [
        with_((entry) => (entry.name.includes("layers.1.self_attn.q_proj.lora_A") ? undefined : entry)),
        "one of its two",
      ],
      [with_((entry) => ({ ...entry, shape: [...entry.shape].reverse() })), "no change of"],
      [
        (folder) => rename(join(folder, "adapter_config.json"), join(folder, "other.json")),
        "there is no adapter_config.json",
      ],
    ];
    for (const [adapt, named] of cases) {
      await expect(refusal({}, adapt), named).rejects.toMatchObject({
        code: "ADAPTER",
        message: expect.stringContaining(named),
      });
    }
  });
});
