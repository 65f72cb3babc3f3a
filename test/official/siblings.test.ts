/**
 * BLIP-2's OPT-2.7B and InstructBLIP for videos with Vicuna-7B, without their weights: every tensor of their headers is
 * bound, none is unused, and the memory plan equals the allocations. As official.test.ts for InstructBLIP.
 */
import { expect, test } from "vitest";
import {
  AutoConfig,
  Blip2Config,
  Blip2ForConditionalGeneration,
  type InstructBlipVideoConfig,
  InstructBlipVideoForConditionalGeneration,
} from "../../src/index.node.ts";
import { planMemory } from "../../src/instructblip/cli/inspect/memory_plan.ts";
import { Weights } from "../../src/modules/weights.ts";
import { Checkpoint } from "../../src/tensor/files/checkpoint.ts";
import { sizeOf } from "../../src/tensor/shape.ts";
import { HeaderOnlyFolder } from "./header_only.ts";
import { openLedgerDevice } from "./ledger_device.ts";

const BINDING = 128 * 2 ** 20;
/** 64 - 1 rows of Vicuna's embedding and head since conversion. */
const VICUNA_ADDED = 2 * 63 * 4096;

// Parameters counted by PyTorch on the meta device. BLIP-2's Q-Former has no embeddings and no feed-forward for text.
// biome-ignore format: a table
test.each([
  { name: "blip2-opt-2.7b",  token: 50265, tensors: 1247, qformer: 105_137_664, total: 3_744_679_936 },
  { name: "video-vicuna-7b", token: 32001, tensors: 1096, qformer: 185_660_160, total: 7_913_210_624 + VICUNA_ADDED },
])("$name", async ({ name, token, tensors, qformer, total }) => {
  const folder = new HeaderOnlyFolder(name);
  const checkpoint = await Checkpoint.open(folder);
  const config = AutoConfig.parse(await folder.text("config.json"));
  expect(checkpoint.tensors.size).toBe(tensors);
  expect(config.image_token).toBe(token);

  const plan = planMemory(checkpoint.tensors, config, { maxBindingBytes: BINDING, maxBufferBytes: BINDING });
  for (const { dtype, bytes } of plan.weights) {
    const { device, sizes } = openLedgerDevice(BINDING);
    const weights = Weights.open(checkpoint, device, dtype);
    if (config instanceof Blip2Config) new Blip2ForConditionalGeneration(weights, config);
    else new InstructBlipVideoForConditionalGeneration(weights, config as InstructBlipVideoConfig);
    expect(weights.leftovers()).toEqual([]);
    expect([...weights.parameters.keys()].sort()).toEqual([...checkpoint.tensors.keys()].sort());
    expect(sizes().reduce((sum, size) => sum + size), dtype).toBe(bytes);
    const count = (prefix: string) =>
      [...weights.parameters].reduce((sum, [key, { shape }]) => sum + (key.startsWith(prefix) ? sizeOf(shape) : 0), 0);
    expect(count("")).toBe(total);
    expect(count("vision_model.")).toBe(985_952_256);
    expect(count("qformer.")).toBe(qformer);
  }
});
