/**
 * Every committed golden, compared stage by stage, on the default device; and some on three devices with lower
 * limits, or, with INSTRUCTBLIP_TEST_ALL=1 (`npm run test:all`), every one.
 */
import { afterAll, describe, expect, test } from "vitest";
import { InstructBlipForConditionalGeneration } from "../../src/index.node.ts";
import type { Device } from "../../src/tensor/device/device.ts";
import { otherDevice, testDevice } from "../device.ts";
import { COMPOSITES, goldenFolder } from "../golden_folder.ts";
import { ALL } from "../rounds.ts";
import { compareStages, failures, Golden } from "./golden.ts";

/** A device on which weights, but not activations, see a small binding limit: the goldens' matrices are below 1 MiB. */
async function splittingDevice(bytes: number): Promise<Device> {
  const device = await otherDevice({});
  Object.defineProperty(device, "caps", { value: { ...device.caps, maxBindingBytes: bytes } });
  return device;
}

const devices = {
  "the adapter as it is": await testDevice(),
  "a binding limit of 1 MiB": await otherDevice({ max_binding: 2 ** 20 }),
  "weights split at 4 KiB": await splittingDevice(4096),
  "default WebGPU limits": await otherDevice({ default_limits: true }),
};

/** LLaMA with grouped heads, OPT, and T5 of odd sizes: bf16, f32 and f16. */
const SAMPLE = ["grouped_heads_bf16", "opt_plain", "t5_odd_f16"];
/**
 * By device. A binding limit of 1 MiB changes little where all matrices are smaller: one will do. For default limits every
 * kernel is compiled anew.
 */
const samples: Partial<Record<string, readonly string[]>> = {
  "the adapter as it is": COMPOSITES,
  "a binding limit of 1 MiB": ["opt_plain"],
  "default WebGPU limits": ["grouped_heads_bf16", "t5_odd_f16"],
};

for (const [title, device] of Object.entries(devices)) {
  describe(title, () => {
    for (const name of ALL ? COMPOSITES : (samples[title] ?? SAMPLE)) {
      test(name, async () => {
        const golden = await Golden.open(goldenFolder(name));
        const rows = await compareStages(golden, device);
        await golden.close();
        expect(failures(rows)).toEqual([]);
        // A golden that compared nothing would pass: each stage must have rows.
        for (const stage of ["image", "ids", "module", "vision", "qformer", "projection", "logits", "tokens", "text"]) {
          expect(
            rows.some((row) => row.stage === stage),
            stage,
          ).toBe(true);
        }
      });
    }
  });
}

test("4 KiB does split the weights", async () => {
  const folder = goldenFolder("plain_f32");
  const model = await InstructBlipForConditionalGeneration.from_pretrained(folder, {
    device: devices["weights split at 4 KiB"],
  });
  expect(model.vision_model.embeddings.patch_embedding.weight.shards.length).toBeGreaterThan(3);
  model.dispose();
});

afterAll(() => {
  for (const device of Object.values(devices).slice(1)) device.destroy();
});
