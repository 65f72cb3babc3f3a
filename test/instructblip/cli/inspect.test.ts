/** `inspect` and `devices`: their output, and that the memory plan equals the engine's allocations. */
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it, test } from "vitest";
import type { Devices } from "../../../src/instructblip/cli/devices.node.ts";
import { formatInspection, type Inspection, inspect } from "../../../src/instructblip/cli/inspect/inspection.ts";
import { DEFAULT_LIMITS, planMemory } from "../../../src/instructblip/cli/inspect/memory_plan.ts";
import { InstructBlipConfig } from "../../../src/instructblip/config/instructblip.ts";
import { AutoConfig, AutoModelForImageTextToText } from "../../../src/instructblip/pretrained/auto_model.ts";
import type { Blip2ForConditionalGeneration } from "../../../src/instructblip/pretrained/blip_2.ts";
import { KVCache } from "../../../src/modules/kv_cache.ts";
import type { StorageDType } from "../../../src/modules/storage_dtype.ts";
import type { DeviceOptions } from "../../../src/tensor/device/open_device.ts";
import { Checkpoint, type CheckpointTensor } from "../../../src/tensor/files/checkpoint.ts";
import { NodeFolder } from "../../../src/tensor/files/source.node.ts";
import { sizeOf } from "../../../src/tensor/shape.ts";
import { otherDevice } from "../../device.ts";
import { COMPOSITES, goldenFolder, SIBLINGS } from "../../golden_folder.ts";
import { onOneGpu } from "../../one_gpu.ts";
import { cli, json, openGolden } from "./cli.ts";

describe("inspect --json", () => {
  it("describes a checkpoint in several files", async () => {
    const folder = goldenFolder("cross_frequency_3_sharded");
    const [report] = await json<Inspection>(["inspect", folder, "--json", "--tensors"]);
    expect(report.name).toBe("cross_frequency_3_sharded");
    expect(report.model).toBe("InstructBlipForConditionalGeneration");
    expect(report.config.language.model_type).toBe("llama");
    expect(report.parts.map(({ prefix }) => prefix)).toEqual([
      "vision_model",
      "query_tokens",
      "qformer",
      "language_projection",
      "language_model",
    ]);
    const sum = (
      key: "count" | "parameters" | "bytes",
      groups: readonly { count: number; parameters: number; bytes: number }[],
    ) => groups.reduce((total, group) => total + group[key], 0);
    for (const key of ["count", "parameters", "bytes"] as const) {
      expect(sum(key, report.parts)).toBe(report.tensors[key]);
      expect(sum(key, report.dtypes)).toBe(report.tensors[key]);
    }
    const golden = JSON.parse(await readFile(join(folder, "golden.json"), "utf8")) as { parameters: number };
    expect(report.tensors.parameters).toBe(golden.parameters);
    expect(report.files).toHaveLength(4);
    for (const { name, bytes } of report.files) expect((await stat(join(folder, name))).size).toBe(bytes);
    expect(report.list).toHaveLength(report.tensors.count);
    expect(report.list).toContainEqual({
      name: "query_tokens",
      dtype: "f32",
      shape: [1, report.config.num_query_tokens, report.config.qformer.hidden_size],
      file: expect.stringMatching(/^model-0000\d-of-00004\.safetensors$/),
    });
  });
});

describe("inspect", () => {
  it("prints a report without escapes, and tensors only when asked", async () => {
    const plain = await cli(["inspect", goldenFolder("plain_f32")]);
    expect(plain).toMatchObject({ code: 0, stderr: "" });
    expect(plain.stdout).toMatch(/^plain_f32: InstructBlipForConditionalGeneration, llama language model\n/);
    // biome-ignore lint/suspicious/noControlCharactersInRegex: escapes are what is looked for
    expect(plain.stdout).not.toMatch(/\x1b|undefined|NaN|\[object/);
    expect(plain.stdout).not.toContain("language_projection.weight");
    const long = await cli(["inspect", goldenFolder("plain_f32"), "--tensors"]);
    expect(long.stdout).toMatch(/ {2}language_projection\.weight +f32 {2}\[32, 28\]\n/);
  });

  it("works without an adapter, and says so", async () => {
    const folder = new NodeFolder(goldenFolder("plain_f32"));
    const config = InstructBlipConfig.parse(await folder.text("config.json"));
    const checkpoint = await Checkpoint.open(folder);
    await checkpoint.close();
    const report = inspect({
      name: "m",
      config,
      checkpoint,
      notes: [],
      files: [],
      caps: undefined,
      withTensors: false,
    });
    expect(report.adapter).toBeNull();
    expect(report.memory.binding_limit).toBe(DEFAULT_LIMITS.maxBindingBytes);
    expect(formatInspection(report)).toContain("no WebGPU adapter was found");
  });
});

/** Loads a golden and gives its plan beside what has been allocated for it. */
async function planned(name: string, dtype: StorageDType, options: DeviceOptions = {}) {
  const folder = new NodeFolder(goldenFolder(name));
  const config = AutoConfig.parse(await folder.text("config.json"));
  const checkpoint = await Checkpoint.open(folder);
  await checkpoint.close();
  const device = await onOneGpu(() => otherDevice(options));
  const model = await AutoModelForImageTextToText.from_pretrained(folder, { device, dtype, compile: false });
  const plan = planMemory(checkpoint.tensors, config, device.caps);
  const weights = plan.weights.find((weights) => weights.dtype === dtype)!;
  return { config, device, model, plan, weights, use: device.memory.use };
}

/** Legacy checkpoints differ in nothing that is planned. */
const planable = [...COMPOSITES, ...SIBLINGS.filter((name) => !name.startsWith("legacy"))];

describe.each(planable)("the memory plan of %s", (name) => {
  it("is what is allocated", async () => {
    const { config, device, model, plan, weights, use } = await planned(name, "auto");
    // The plan counts what is in the file; norms that have no parameters there get ones and zeros, here below a kilobyte.
    const { text_config } = config;
    const constants = text_config.model_type === "opt" && !text_config.layer_norm_elementwise_affine ? 1024 : 0;
    expect(use.live - weights.bytes).toBeGreaterThanOrEqual(0);
    expect(use.live - weights.bytes).toBeLessThanOrEqual(constants);

    const { num_hidden_layers: layers, num_key_value_heads: heads, head_dim } = text_config.sizes;
    const capacity = 100;
    for (const { dtype, bytes_per_token } of plan.kv_cache) {
      const ofCache = head_dim % 4 === 0 ? dtype : "f32";
      const cache = new KVCache(device, { layers, batch: 1, heads, head_dim, capacity, dtype: ofCache });
      const others = 4 * capacity + 16; // its mask and its length
      expect(device.memory.use.live - use.live - others, dtype).toBe(capacity * bytes_per_token);
      cache.dispose();
    }

    const golden = await openGolden(goldenFolder(name));
    const { data, shape } = await golden.floats("pixel_values");
    const one = [1, ...shape.slice(1)];
    const qformer_input_ids = golden.has("qformer_input_ids") && (await golden.rows("qformer_input_ids")).slice(0, 1);
    await model.generate({
      pixel_values: { data: data.slice(0, sizeOf(one)), shape: one },
      input_ids: (await golden.rows("input_ids")).slice(0, 1),
      ...(qformer_input_ids && { qformer_input_ids }),
      ...golden.json.options,
      max_new_tokens: 1,
    });
    // An estimate, for a longer prompt than this, of tensors that are small enough here for rounding to show.
    const used = device.memory.use.peak - use.live;
    expect(plan.activations.bytes_estimated).toBeGreaterThan(used / 2);
    expect(plan.activations.bytes_estimated).toBeLessThan(used * 4);
    device.destroy();
  });
});

test.each([
  ["blip2_opt", "Blip2ForConditionalGeneration", "image_token_index", /about, for one image and 35 tokens/],
  [
    "video_3_frames_t5",
    "InstructBlipVideoForConditionalGeneration",
    "video_token_index",
    /one video of 4 frames and 44/,
  ],
  ["legacy_llama", "InstructBlipForConditionalGeneration", "image_token_index", /image_token_index +none/],
] as const)("inspect describes %s", async (name, model, placeholder, said) => {
  const report = await cli(["inspect", goldenFolder(name)]);
  expect(report).toMatchObject({ code: 0, stderr: "" });
  expect(report.stdout).toContain(`${name}: ${model}`);
  expect(report.stdout).toContain(placeholder);
  expect(report.stdout).toMatch(said);
  expect(report.stdout).not.toMatch(/undefined|NaN|\[object/);
});

test.each(["f16", "bf16"] as const)("BLIP-2's Q-Former stays as it is with --dtype %s", async (dtype) => {
  const { device, model, weights, use } = await planned("blip2_opt", dtype);
  expect(weights).toMatchObject({ bytes: use.live });
  const { qformer, language_projection } = model as Blip2ForConditionalGeneration;
  expect(qformer.encoder.layer[0].attention.attention.query.weight.dtype).toBe("f32");
  expect(language_projection.weight.dtype).toBe(dtype);
  device.destroy();
});

describe("the memory plan of odd_widths", () => {
  it.each(["f32", "f16", "bf16", "int8", "int4"] as const)("is what is allocated with --dtype %s", async (dtype) => {
    const { device, weights, use } = await planned("odd_widths", dtype);
    expect(weights).toMatchObject({ bytes: use.live, split: 0, pieces: 0 });
    device.destroy();
  });

  it("counts the pieces of what is split", async () => {
    const whole = await planned("odd_widths", "f32");
    const pieces = await planned("odd_widths", "f32", { max_binding: 16384 });
    expect(pieces.weights.split).toBeGreaterThan(1);
    expect(pieces.weights.bytes).toBe(pieces.use.live);
    expect(pieces.use.created - whole.use.created).toBe(pieces.weights.pieces - pieces.weights.split);
    for (const { device } of [whole, pieces]) device.destroy();
  });
});

describe("the memory plan", () => {
  it("splits a large matrix as evenly as its rows allow", () => {
    const config = new InstructBlipConfig({ text_config: { model_type: "llama" } });
    const name = "language_model.lm_head.weight";
    const info: CheckpointTensor = { name, dtype: "f16", shape: [32001, 4096], begin: 0, end: 0, file: "f" };
    const plan = planMemory(new Map([[name, info]]), config, DEFAULT_LIMITS);
    const table = 256 * 128 * 4; // rotations, made for 256 positions until more are needed
    // 250 MiB of f16 in bindings of 128 MiB; as f32 500 MiB.
    expect(plan.weights).toEqual([
      { dtype: "auto", bytes: 32001 * 4096 * 2 + table, split: 1, pieces: 2 },
      { dtype: "f32", bytes: 32001 * 4096 * 4 + table, split: 1, pieces: 4 },
      { dtype: "f16", bytes: 32001 * 4096 * 2 + table, split: 1, pieces: 2 },
      { dtype: "bf16", bytes: 32001 * 4096 * 2 + table, split: 1, pieces: 2 },
      { dtype: "int8", bytes: 32001 * (4096 + 256) + table, split: 1, pieces: 2 },
      // A head stays int8 under int4.
      { dtype: "int4", bytes: 32001 * (4096 + 256) + table, split: 1, pieces: 2 },
    ]);
    // Vicuna-7B: 32 layers, 32 heads of 128.
    expect(plan.kv_cache).toEqual([
      { dtype: "f32", bytes_per_token: 2 ** 20, max_tokens: 8192 },
      { dtype: "f16", bytes_per_token: 2 ** 19, max_tokens: 16_384 },
    ]);
  });
});

describe("devices", () => {
  it("names the adapter in use, and why", async () => {
    const [devices] = await json<Devices>(["devices", "--json"]);
    expect(devices.adapters.length).toBeGreaterThan(0);
    expect(devices.adapters.filter(({ used }) => used).map(({ name }) => name)).toEqual([devices.used]);
    for (const { features, limits } of devices.adapters) {
      expect(features).toEqual([...features].sort());
      for (const limit of Object.values(limits)) expect(limit).toBeGreaterThan(0);
    }
    const { code, stdout, stderr } = await cli(["devices"]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(stdout).toContain(`${devices.used}\n  used: ${devices.why}\n`);
  });
});
