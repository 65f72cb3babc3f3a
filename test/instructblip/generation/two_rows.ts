import { type LanguageModel, upload } from "../../../src/instructblip/model/language_model.ts";
import type { Device } from "../../../src/tensor/device/device.ts";
import { sizes } from "../../../src/tensor/shape.ts";
import { Random } from "../../random.ts";

/** A prompt of two rows, drawn, the second of which is padded: f32[2, 7, D], u32[2][7]. */
export function twoRows(device: Device, language_model: LanguageModel) {
  const [, , D] = sizes(language_model.embed(upload(device, [[1]])).shape, 3);
  const numbers = new Random(1).normal(2 * 7 * D).map((number) => number / 4);
  const attention_mask = [
    [1, 1, 1, 1, 1, 1, 1],
    [0, 0, 1, 1, 1, 1, 1],
  ];
  return { inputs_embeds: device.tensor(numbers, [2, 7, D]), attention_mask };
}
