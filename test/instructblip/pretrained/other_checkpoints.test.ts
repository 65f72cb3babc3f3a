/** Unusual checkpoints: loaded if transformers 5.18 loads them, else refused by kind. */
import { cp, mkdtemp, readFile, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeEach, describe, expect, test } from "vitest";
import { AutoModelForImageTextToText, AutoProcessor } from "../../../src/index.node.ts";
import { inspect } from "../../../src/instructblip/cli/inspect/inspection.ts";
import { InstructBlipConfig } from "../../../src/instructblip/config/instructblip.ts";
import type { InstructBlipForConditionalGeneration } from "../../../src/instructblip/pretrained/instructblip.ts";
import { DTYPES, type DType, widen } from "../../../src/tensor/dtype.ts";
import { serializeSafetensors, type TensorEntry } from "../../../src/tensor/files/safetensors_writer.ts";
import { openCheckpoint } from "../../../src/tensor/files/source.node.ts";
import { testDevice } from "../../device.ts";
import { goldenFolder } from "../../golden_folder.ts";

const device = await testDevice();
const root = await mkdtemp(join(tmpdir(), "other-"));
afterAll(() => rm(root, { recursive: true }));
let folder = "";
let turn = 0;
beforeEach(async () => {
  folder = join(root, `${++turn}`);
  await cp(goldenFolder("plain_f32"), folder, { recursive: true });
});

const load = () => AutoModelForImageTextToText.from_pretrained(folder, { device, compile: false });
const refusal = () => load().catch((error: { code: string; message: string; hint?: string }) => error);

async function changeJson(file: string, change: (json: Record<string, never>) => void): Promise<void> {
  const json = JSON.parse(await readFile(join(folder, file), "utf8"));
  change(json);
  await writeFile(join(folder, file), JSON.stringify(json));
}

/** Writes the weights anew, each entry as `change` has it. */
async function changeWeights(change: (entry: TensorEntry) => TensorEntry | readonly TensorEntry[]): Promise<void> {
  const checkpoint = await openCheckpoint(folder);
  const entries: TensorEntry[] = [];
  for (const { name, dtype, shape } of checkpoint.tensors.values()) {
    entries.push(...[change({ name, dtype: dtype as DType, shape, data: await checkpoint.read(name) })].flat());
  }
  await checkpoint.close();
  await writeFile(join(folder, "model.safetensors"), await serializeSafetensors(entries));
}

/** Says of some tensors that their bytes have another dtype, which the writer does not have. */
async function retype(pattern: RegExp, safetensors: string): Promise<void> {
  const bytes = await readFile(join(folder, "model.safetensors"));
  const end = 8 + Number(bytes.readBigUInt64LE());
  const header = JSON.parse(bytes.toString("utf8", 8, end));
  for (const [name, info] of Object.entries<{ dtype: string; shape: number[] }>(header)) {
    if (!pattern.test(name)) continue;
    info.shape = [...info.shape.slice(0, -1), info.shape.at(-1)! * 4];
    info.dtype = safetensors;
  }
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  await writeFile(join(folder, "model.safetensors"), Buffer.concat([length, text, bytes.subarray(end)]));
}

const LINEAR = /^language_model\.model\.layers\..*_proj\.weight$/;
const words = (name: string, n = 4): TensorEntry => ({ name, dtype: "i32", shape: [n], data: new Int32Array(n) });
const replaced = (name: string, suffixes: readonly string[]) =>
  suffixes.map((suffix) => words(name.replace(/\.weight$/, suffix)));

describe("quantized", () => {
  test.each<[string, object, (entry: TensorEntry) => TensorEntry | readonly TensorEntry[]]>([
    [
      "gptq, 4 bits",
      { quant_method: "gptq", bits: 4 },
      ({ name }) => replaced(name, [".qweight", ".qzeros", ".g_idx"]),
    ],
    ["awq, 4 bits", { quant_method: "awq", bits: 4 }, ({ name }) => replaced(name, [".qweight", ".qzeros", ".scales"])],
  ])("%s", async (what, quantization_config, change) => {
    await changeWeights((entry) => (LINEAR.test(entry.name) ? change(entry) : entry));
    for (const said of [true, false]) {
      // What the config says is said; without it, what the tensors show.
      if (said) await changeJson("config.json", (json) => Object.assign(json, { quantization_config }));
      else await changeJson("config.json", (json) => delete json.quantization_config);
      const { code, message, hint } = (await refusal()) as { code: string; message: string; hint: string };
      expect(code).toBe("QUANTIZED_CHECKPOINT");
      expect(message).toMatch(said ? `quantized (${what})` : /GPTQ/);
      expect(hint).toContain("original checkpoint");
    }
  });

  test("fp8", async () => {
    await retype(LINEAR, "F8_E4M3");
    await changeJson("config.json", (json) => Object.assign(json, { quantization_config: { quant_method: "fp8" } }));
    expect(await refusal()).toMatchObject({ code: "QUANTIZED_CHECKPOINT", message: expect.stringContaining("(fp8)") });
    const config = InstructBlipConfig.parse<InstructBlipConfig>(await readFile(join(folder, "config.json"), "utf8"));
    const checkpoint = await openCheckpoint(folder);
    const report = inspect({ name: "x", config, checkpoint, files: [], caps: undefined, withTensors: false });
    await checkpoint.close();
    expect(report.warnings[0]).toMatch(/quantized \(fp8\).*original checkpoint/);
  });

  test.each(["torchao", "hqq", "quanto", "compressed-tensors", "bitnet", "a scheme of tomorrow"])(
    "%s is refused by name, even of floats",
    async (quant_method) => {
      await changeJson("config.json", (json) => Object.assign(json, { quantization_config: { quant_method } }));
      expect(await refusal()).toMatchObject({
        code: "QUANTIZED_CHECKPOINT",
        message: expect.stringContaining(`quantized (${quant_method})`),
        hint: expect.stringContaining("take quantization_config out of config.json"),
      });
    },
  );

  test("float weights with a quantization config of bitsandbytes are loaded, with a warning", async () => {
    const quantization_config = { quant_method: "bitsandbytes", load_in_4bit: true };
    await changeJson("config.json", (json) => Object.assign(json, { quantization_config }));
    const model = await load();
    expect(model.warnings).toEqual([expect.stringContaining("quantization_config (bitsandbytes, 4 bits)")]);
    model.dispose();
  });
});

test.each([
  ["PEFT's names", (name: string) => `base_model.model.${name}`],
  ["LoRA's matrices", (name: string) => name.replace(/weight$/, "lora_A.default.weight")],
])("an adapter is called one: %s", async (_, rename) => {
  await changeWeights((entry) => ({ ...entry, name: rename(entry.name) }));
  expect(await refusal()).toMatchObject({ code: "ADAPTER", message: expect.stringContaining("adapter") });
});

test.each(["module.", "_orig_mod.module."])(
  "names with %s before them: inspect and the error say so",
  async (prefix) => {
    await changeWeights((entry) => ({ ...entry, name: prefix + entry.name }));
    expect(await refusal()).toMatchObject({
      code: "MISSING_TENSORS",
      hint: expect.stringContaining(`"${prefix}" is before`),
    });
    const config = InstructBlipConfig.parse<InstructBlipConfig>(await readFile(join(folder, "config.json"), "utf8"));
    const checkpoint = await openCheckpoint(folder);
    const report = inspect({ name: "x", config, checkpoint, files: [], caps: undefined, withTensors: false });
    await checkpoint.close();
    expect(report.warnings).toEqual([expect.stringContaining(`"${prefix}" is before the names of all tensors`)]);
  },
);

test.each([
  ["model.fp16.safetensors", "rename it to model.safetensors"],
  ["model-00001-of-00003.safetensors", "download model.safetensors.index.json too"],
  ["adapter_model.safetensors", "an adapter, not a model"],
  ["pytorch_model.fp16.bin", "rename it to pytorch_model.bin"],
  ["pytorch_model-00001-of-00002.bin", "download pytorch_model.bin.index.json too"],
])("%s in place of model.safetensors", async (file, hint) => {
  await rename(join(folder, "model.safetensors"), join(folder, file));
  await expect(openCheckpoint(folder)).rejects.toMatchObject({
    code: "MISSING_MODEL",
    hint: expect.stringContaining(hint),
  });
});

test.each(["config.json", "tokenizer.json", "processor_config.json"])("a Git LFS pointer as %s", async (file) => {
  await writeFile(join(folder, file), "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n");
  const loading: Promise<unknown> = file === "config.json" ? load() : AutoProcessor.from_pretrained(folder);
  await expect(loading).rejects.toMatchObject({ hint: expect.stringContaining("git lfs pull") });
});

test("many missing tensors are named in one error, and nothing remains allocated", async () => {
  const before = device.memory.use.live;
  const gone = /\.(layernorm|LayerNorm|input_layernorm|post_attention_layernorm|layer_norm1)\./;
  let count = 0;
  await changeWeights((entry) => {
    if (!gone.test(entry.name)) return entry;
    count++;
    return [];
  });
  expect(count).toBeGreaterThan(20);
  const { code, message } = (await refusal()) as { code: string; message: string };
  expect(code).toBe("MISSING_TENSORS");
  expect(message).toContain(`lacks ${count} tensors: `);
  expect(message.match(/(weight|bias), /g)).toHaveLength(19);
  expect(message).toContain(` and ${count - 20} more`);
  expect(device.memory.use.live).toBe(before);
});

test("a tensor of the index that no file has is an error only if it is needed, and names the file", async () => {
  folder = join(root, `sharded-${turn}`);
  await cp(goldenFolder("cross_frequency_3_sharded"), folder, { recursive: true });
  const { weight_map } = JSON.parse(await readFile(join(folder, "model.safetensors.index.json"), "utf8"));
  const file = weight_map.query_tokens;
  const inv_freq = "language_model.model.layers.0.self_attn.rotary_emb.inv_freq";
  await changeJson("model.safetensors.index.json", (json) => Object.assign(json.weight_map, { [inv_freq]: file }));
  const model = await load();
  expect(model.warnings).toEqual([expect.stringContaining("lists what no file holds")]);
  model.dispose();
  const bytes = await readFile(join(folder, file));
  bytes[bytes.indexOf('"query_tokens":') + 5] = 0x5f;
  await writeFile(join(folder, file), bytes);
  expect(await refusal()).toMatchObject({
    code: "MISSING_TENSORS",
    hint: expect.stringContaining(`puts it into ${file}`),
  });
});

test("two missing tensors, one of them a table", async () => {
  const gone = ["language_model.model.embed_tokens.weight", "query_tokens"];
  await changeWeights((entry) => (gone.includes(entry.name) ? [] : entry));
  const { message } = (await refusal()) as { message: string };
  for (const name of gone) expect(message).toContain(name);
  expect(message).toContain("lacks 2 tensors");
});

test("f64 weights are rounded to f32, and saved as that", async () => {
  const nudge = 1 + 2 ** -40; // less than f32 has room for
  await changeWeights((entry) => {
    const numbers = widen(entry.data as Uint8Array, "f32");
    return { ...entry, dtype: "f64", data: Float64Array.from(numbers, (x) => x * nudge) };
  });
  const model = await load();
  expect(model.warnings).toEqual([]);
  const to = join(root, "singles");
  await model.save_pretrained(to);
  model.dispose();
  const [saved, original] = [await openCheckpoint(to), await openCheckpoint(goldenFolder("plain_f32"))];
  expect(saved.tensors.size).toBe(original.tensors.size);
  for (const [name, { dtype }] of saved.tensors) {
    expect(DTYPES[dtype as DType].safetensors).toBe("F32");
    expect(Buffer.from(await saved.read(name)).equals(Buffer.from(await original.read(name))), name).toBe(true);
  }
  await saved.close();
  await original.close();
});

test("a config written by Python, with NaN and infinities", async () => {
  const text = await readFile(join(folder, "config.json"), "utf8");
  const odd = '{"task_specific_params": {"a": NaN, "b": [-Infinity, Infinity], "c": "NaN \\" Infinity"},';
  await writeFile(join(folder, "config.json"), text.replace("{", odd));
  (await load()).dispose();
  const config = InstructBlipConfig.parse<InstructBlipConfig>(await readFile(join(folder, "config.json"), "utf8"));
  const { task_specific_params } = (config as unknown as { toJSON(): Record<string, object> }).toJSON();
  expect(task_specific_params).toEqual({
    a: "NaN",
    b: [Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY],
    c: 'NaN " Infinity',
  });
  for (const [field, value] of [
    ["num_query_tokens", "NaN"],
    ["layer_norm_eps", "Infinity"],
    ["rope_theta", "NaN"],
  ]) {
    const changed = text.replace(new RegExp(`"${field}": [\\d.e-]+`), `"${field}": ${value}`);
    expect(changed).not.toBe(text);
    await writeFile(join(folder, "config.json"), changed);
    expect(await refusal(), field).toMatchObject({ code: "CONFIG_RANGE" });
  }
});

test("a vocabulary of another size than its table is a warning", async () => {
  await changeJson("config.json", (json) => {
    const { text_config, qformer_config } = json as unknown as Record<string, { vocab_size: number }>;
    text_config.vocab_size += 8;
    qformer_config.vocab_size -= 1;
  });
  const model = (await load()) as InstructBlipForConditionalGeneration;
  expect(model.warnings).toHaveLength(2);
  for (const part of ["text_config", "qformer_config"]) {
    expect(model.warnings.join()).toContain(`${part}.vocab_size is`);
  }
  model.dispose();
});

test("a filter by name is refused with its number", async () => {
  await changeJson("processor_config.json", (json) => {
    Object.assign(json.image_processor, { resample: "bicubic" });
  });
  await expect(AutoProcessor.from_pretrained(folder)).rejects.toMatchObject({
    code: "CONFIG_IMAGE",
    hint: expect.stringContaining("3 is bicubic"),
  });
});
