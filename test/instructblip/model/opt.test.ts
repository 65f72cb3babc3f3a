import { afterAll, describe, expect, test } from "vitest";
import { OPTConfig } from "../../../src/instructblip/config/opt.ts";
import { OPTForCausalLM, OPTModel } from "../../../src/instructblip/model/opt.ts";
import { testDevice } from "../../device.ts";
import { goldenFolder } from "../../golden_folder.ts";
import { LanguageModelGolden } from "./language_model_golden.ts";

const device = await testDevice();

// The first golden has every module's output, the others every fourth module's.
describe.each([
  ["opt_plain", 20],
  ["opt_post_norm_f16", 5],
  ["opt_bare", 5],
] as const)("%s", async (name, modules) => {
  const golden = await LanguageModelGolden.open(
    goldenFolder(name),
    device,
    (weights, config) => new OPTForCausalLM(weights, new OPTConfig(config)),
  );
  afterAll(() => golden.close());

  test("the modules give what PyTorch's give", async () => {
    expect(await golden.climbModules()).toBeGreaterThan(modules);
  });

  test("the logits of a whole pass are PyTorch's", () => golden.climbLogits());

  test("the greedy answer is PyTorch's", () => golden.climbGreedy());

  test("every tensor of the file is used", () => {
    expect(golden.leftovers).toEqual([]);
  });
});

test("rows that change places, and become more, go on as they were", async () => {
  const folder = goldenFolder("opt_plain");
  const golden = await LanguageModelGolden.open(
    folder,
    device,
    (weights, config) => new OPTForCausalLM(weights, new OPTConfig(config)),
  );
  await golden.climbGreedy((step) => (step === 0 ? [1, 0, 0, 1] : [2, 0, 3, 1]));
  const model = golden.model as OPTForCausalLM;
  const { max_position_embeddings: most } = model.config;
  expect(() => model.model.positionTensor([[0, most]])).toThrow(`position ${most}: this OPT knows ${most}`);
  await golden.close();
});

test("positions skip padding", () => {
  const { promptPositions } = OPTModel.prototype;
  expect(promptPositions([[1, 1, 0, 0, 1, 1]])).toEqual([[0, 1, -1, -1, 2, 3]]);
});

test("a config keeps Hugging Face's defaults and refuses what cannot be", () => {
  const config = new OPTConfig();
  expect([config.embeddingWidth, config.headDim, config.eos_token_id]).toEqual([768, 64, 2]);
  expect(new OPTConfig({ word_embed_proj_dim: 512, hidden_size: 1024, num_attention_heads: 16 }).embeddingWidth).toBe(
    512,
  );
  expect(() => new OPTConfig({ num_attention_heads: 5 })).toThrow("5 does not divide 768");
  expect(() => new OPTConfig({ activation_function: "swoosh" })).toThrow("is not an activation this project has");
});
