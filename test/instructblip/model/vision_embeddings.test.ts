/** Patch embedding in one launch, as on a GPU: the same as an observer sees of its separate steps. */
import { expect, test } from "vitest";
import { InstructBlipVisionConfig } from "../../../src/instructblip/config/config.ts";
import { InstructBlipVisionEmbeddings } from "../../../src/instructblip/model/vision_model.ts";
import { outputObserver, traceOutputs, withObserver } from "../../../src/modules/observer.ts";
import { Weights } from "../../../src/modules/weights.ts";
import { GpuDevice } from "../../../src/tensor/device/device.ts";
import { Checkpoint } from "../../../src/tensor/files/checkpoint.ts";
import { serializeSafetensors } from "../../../src/tensor/files/safetensors_writer.ts";
import { MemorySource } from "../../../src/tensor/files/source.ts";
import { expectClose } from "../../compare.ts";
import { testDevice } from "../../device.ts";
import { Random } from "../../random.ts";
import { TOLERANCES } from "../../tolerances.ts";

const { handle, caps } = await testDevice();
const device = new GpuDevice(handle, { ...caps, isSoftware: false }, Number.POSITIVE_INFINITY);
const [D, P, image_size] = [20, 3, 12];

async function load() {
  const random = new Random(7);
  const tensor = (name: string, ...shape: number[]) => {
    const numbers = random.normal(shape.reduce((size, n) => size * n, 1));
    return { name, dtype: "f32" as const, shape, data: new Uint8Array(numbers.buffer) };
  };
  const file = await serializeSafetensors([
    tensor("class_embedding", 1, 1, D),
    tensor("position_embedding", 1, (image_size / P) ** 2 + 1, D),
    tensor("patch_embedding.weight", D, 3, P, P),
    tensor("patch_embedding.bias", D),
  ]);
  const weights = Weights.open(await Checkpoint.open(new MemorySource("test", file)), device);
  const config = new InstructBlipVisionConfig({ hidden_size: D, num_attention_heads: 2, patch_size: P, image_size });
  const embeddings = new InstructBlipVisionEmbeddings(weights, config);
  await weights.load();
  return { weights, embeddings };
}

test.each([
  [1, 12, 12],
  [4, 12, 12], // the frames of a video
  [2, 17, 9], // positions of another size
])("%i images of %i x %i", async (B, height, width) => {
  const { weights, embeddings } = await load();
  const pixels = device.tensor(new Random(B).normal(B * 3 * height * width), [B, 3, height, width]);
  const [rows, columns] = [Math.floor(height / P), Math.floor(width / P)];
  const before = device.counts.launches;
  const tokens = embeddings.forward(pixels, true);
  if (height === image_size) expect(device.counts.launches - before).toBe(1);
  expect(tokens.shape).toEqual([B, rows * columns + 1, D]);

  const { result, outputs } = await traceOutputs(device, () => embeddings.forward(pixels, true));
  expect([...outputs.keys()]).toEqual(["patch_embedding", ""]); // the module's own path is the checkpoint's root
  expect(outputs.get("patch_embedding")!.shape).toEqual([B, D, rows, columns]);
  expectClose(await tokens.read(), await result.read(), TOLERANCES.linear, "tokens");

  // What an observer puts in the patches' place goes on; the class token has its position alone.
  const zeros = outputObserver(
    (_, output) => device.tensor(new Float32Array(output.size), output.shape),
    "patch_embedding",
  );
  const first = await tokens.read();
  const empty = withObserver(device, zeros, () => embeddings.forward(pixels, true));
  expect((await empty.read()).subarray(0, D)).toEqual(first.subarray(0, D));
  expect((await empty.read()).subarray(D, 2 * D)).not.toEqual(first.subarray(D, 2 * D));
  weights.dispose();
});
