import { expect, test } from "vitest";
import {
  checkStorage,
  formatStorage,
  parseStorage,
  type StorageDType,
  storageOf,
} from "../../src/modules/storage_dtype.ts";
import { Weights } from "../../src/modules/weights.ts";
import { stored } from "../../src/tensor/cases/support/stored.ts";
import { Checkpoint } from "../../src/tensor/files/checkpoint.ts";
import { serializeSafetensors } from "../../src/tensor/files/safetensors_writer.ts";
import { MemorySource } from "../../src/tensor/files/source.ts";
import { testDevice } from "../device.ts";
import { Random } from "../random.ts";

const NAMES = [
  "vision_model.encoder.layers.0.self_attn.qkv.weight",
  "qformer.embeddings.word_embeddings.weight",
  "language_model.model.embed_tokens.weight",
  "language_model.model.layers.0.self_attn.q_proj.weight",
  "language_model.lm_head.weight",
  "language_model.encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
];
const [QKV, WORDS, EMBED, Q_PROJ, HEAD, BIAS] = NAMES;
const all = (choice: StorageDType) => NAMES.map((name) => storageOf(choice, name, "bf16"));

test("one for all; T5's attention biases are not quantized, tables not to int4", () => {
  expect(all("auto")).toEqual(["bf16", "bf16", "bf16", "bf16", "bf16", "bf16"]);
  expect(all("f32")).toEqual(["f32", "f32", "f32", "f32", "f32", "f32"]);
  expect(all("int8")).toEqual(["int8", "int8", "int8", "int8", "int8", "bf16"]);
  expect(all("int4")).toEqual(["int4", "int8", "int8", "int4", "int8", "bf16"]);
});

test("by submodule: the longest name decides, in any order; the rest is auto", () => {
  const parts = { vision_model: "f16", language_model: "int4" } as const;
  expect(all(parts)).toEqual(["f16", "bf16", "int8", "int4", "int8", "bf16"]);
  for (const choice of [
    { "language_model.lm_head": "int4", ...parts, "language_model.model": "int8" },
    { ...parts, "language_model.model": "int8", "language_model.lm_head": "int4" },
  ] as const) {
    expect(storageOf(choice, HEAD, "f32")).toBe("int4"); // named itself
    expect(storageOf(choice, Q_PROJ, "f32")).toBe("int8");
    expect(storageOf(choice, QKV, "f32")).toBe("f16");
    expect(storageOf(choice, WORDS, "f32")).toBe("f32");
  }
  // A name is whole words.
  expect(storageOf({ language: "int8", "language_model.mod": "int8" }, EMBED, "f32")).toBe("f32");
  expect(storageOf({ [BIAS.replace(/\.weight$/, "")]: "f32" }, BIAS, "f16")).toBe("f32");
});

test("unknown dtypes and submodules are refused, with the nearest name", () => {
  const check = (choice: unknown) => () => checkStorage(choice as StorageDType, NAMES);
  for (const good of ["auto", "int4", {}, { qformer: "f32" }, { "language_model.model.layers.0": "int8" }]) {
    expect(check(good)).not.toThrow();
  }
  expect(check("in4")).toThrow('dtype: unknown dtype "in4"\n    hint: did you mean int4?');
  expect(check({ qformer: "float16" })).toThrow(/unknown dtype "float16"/);
  expect(check({ qformer: undefined })).toThrow(/unknown dtype undefined/);
  expect(check({ language_mode: "f16" })).toThrow(
    'the model has no module "language_mode"\n    hint: did you mean language_model?',
  );
  expect(check({ text: "f16" })).toThrow("hint: modules: vision_model, qformer, language_model");
  expect(check({ "language_model.model.layers.0.self_attn.q_proj.weight": "f16" })).toThrow(/has no module/);
});

test("the command line's spelling", () => {
  for (const text of ["auto", "int8", "language_model=int4", "language_model=int4,vision_model=f16"]) {
    expect(formatStorage(parseStorage(text))).toBe(text);
  }
  expect(parseStorage("vision_model = f16, qformer=f32")).toEqual({ vision_model: "f16", qformer: "f32" });
  expect(parseStorage("vision_model=torch.float16, qformer=bfloat16")).toEqual({
    vision_model: "f16",
    qformer: "bf16",
  });
  expect(parseStorage("float32")).toBe("f32");
});

test("weights have the chosen dtype; lossless ones keep theirs", async () => {
  const device = await testDevice();
  const [N, K] = [6, 40];
  const data = new Random(1).normal(N * K);
  const tensors = NAMES.map((name) => ({ name, dtype: "f32" as const, shape: [N, K], data }));
  const open = async () => Checkpoint.open(new MemorySource("w", await serializeSafetensors(tensors)));
  const choice = { language_model: "int4", vision_model: "int8" } as const;
  const weights = Weights.open(await open(), device, choice);
  const found = NAMES.map((name) => weights.matrix(name, [N, K]));
  expect(found.map(({ dtype }) => dtype)).toEqual(["int8", "f32", "int8", "int4", "int8", "f32"]);
  await weights.load();
  const { linear } = await import("../../src/tensor/ops/linear.ts");
  for (const weight of found) {
    const unit = Float32Array.from({ length: K * K }, (_, i) => Number(i % (K + 1) === 0));
    const columns = await linear(device.tensor(unit, [K, K]), weight).read(); // [K, N]
    const rows = Float32Array.from(data, (_, i) => columns[(i % K) * N + Math.floor(i / K)]);
    expect(rows).toEqual(stored(data, K, weight.dtype));
  }
  weights.dispose();
  const apart = Weights.open(await open(), device, choice);
  expect(
    apart.at("language_model").lossless().at("model.layers.0.self_attn").at("q_proj").matrix("weight", [N, K]).dtype,
  ).toBe("f32");
  expect(apart.at("vision_model.encoder").matrix("layers.0.self_attn.qkv.weight", [N, K]).dtype).toBe("int8");
  apart.dispose();
});
