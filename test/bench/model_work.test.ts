/** The operations of a whole answer, counted by launches as they run, and from the modules' matrices and the tokens. */
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { workOf } from "../../bench/model_work.ts";
import { AutoModelForImageTextToText, AutoProcessor } from "../../src/index.node.ts";
import { profile } from "../../src/instructblip/instruments/profile/profile.ts";
import { testDevice } from "../device.ts";

const device = await testDevice();
const SHAPES = fileURLToPath(new URL("../../examples/shapes/", import.meta.url));

test("launches and modules agree on the operations of an answer", async () => {
  const folder = join(SHAPES, "checkpoint");
  const processor = await AutoProcessor.from_pretrained(folder);
  const model = await AutoModelForImageTextToText.from_pretrained(folder, { device, image_cache: 0 });
  try {
    const inputs = await processor({ images: [join(SHAPES, "images/a.png")], text: ["How many shapes are there?"] });
    const ids = inputs as unknown as Record<"input_ids" | "qformer_input_ids", number[][]>;
    const [L, T] = [ids.input_ids[0].length, ids.qformer_input_ids[0].length];
    const tokens = 6;
    const { launches } = await profile(model, () =>
      model.generate({ ...inputs, max_new_tokens: tokens, min_new_tokens: tokens }),
    );
    const of = (S: number) => workOf(model as never, { L, T, S });
    const first = of(L)["first token"];
    const later = Array.from({ length: tokens - 1 }, (_, i) => of(L + 1 + i).decode);
    const flops = [first, ...later].reduce((sum, work) => sum + work.flops, 0);
    expect(launches.reduce((sum, one) => sum + one.flops, 0)).toBe(flops);
    // Weights are read once in every pass: the matrices' bytes are the better part of all.
    const bytes = [first, ...later].reduce((sum, work) => sum + work.bytes, 0);
    const persistent = launches.reduce((sum, one) => sum + one.persistent, 0);
    expect(persistent / bytes).toBeGreaterThan(1);
    expect(persistent / bytes).toBeLessThan(1.3);
  } finally {
    model.dispose();
  }
});
