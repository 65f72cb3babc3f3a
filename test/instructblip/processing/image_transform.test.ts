/** LAVIS's image transforms, to the last bit of its own classes with torchvision (test/golden/lavis/images.py). */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { InstructBlipProcessor } from "../../../src/index.node.ts";
import { BlipImageProcessor } from "../../../src/instructblip/processing/image_processor.ts";
import { IMAGE_TRANSFORMS, type ImageTransform } from "../../../src/instructblip/processing/image_transform.ts";
import { resize } from "../../../src/instructblip/processing/resize.ts";
import { goldenFolder } from "../../golden_folder.ts";

const IMAGES: ({ width: number; height: number; side: number } & Record<
  ImageTransform,
  { sha256: string; some: number[] }
>)[] = JSON.parse(readFileSync("test/golden/lavis/data/images.json", "utf8"));

describe("image transforms", () => {
  /** As images.py draws it. */
  const drawn = (width: number, height: number) => {
    const data = new Uint8Array(width * height * 3);
    for (let y = 0, i = 0; y < height; y++)
      for (let x = 0; x < width; x++)
        for (let c = 0; c < 3; c++) data[i++] = (x * x * 3 + y * 7 * (c + 1) + x * y + 31 * c) % 256;
    return { width, height, data };
  };
  const sha256 = (data: Float32Array) => createHash("sha256").update(new Uint8Array(data.buffer)).digest("hex");

  test.each(IMAGES)("$width x $height to $side: to the last bit", ({ width, height, side, ...transforms }) => {
    const image = drawn(width, height);
    for (const name of IMAGE_TRANSFORMS) {
      const made = new BlipImageProcessor({ size: side, image_transform: name }).preprocess([image]);
      expect(made.shape).toEqual([1, 3, side, side]);
      const at = Math.trunc(side / 2) * side + Math.trunc(side / 3);
      expect([0, 1, 2].map((c) => made.data[c * side * side + at])).toEqual(transforms[name].some);
      expect(sha256(made.data), name).toBe(transforms[name].sha256);
    }
  });

  test("a part is what the whole has there", () => {
    for (const [width, height, resample] of [
      [37, 23, 3],
      [1, 40, 3],
      [19, 60, 0],
      [60, 19, 2],
    ]) {
      const image = drawn(width, height);
      const part = { left: 5, top: 3, width: 7, height: 11 };
      const whole = resize(image, 29, 23, resample);
      const cut = resize(image, 29, 23, resample, "pil", part);
      const rows = Array.from({ length: part.height }, (_, y) => {
        const at = ((part.top + y) * 29 + part.left) * 3;
        return [...whole.data.subarray(at, at + part.width * 3)];
      });
      expect([cut.width, cut.height, ...cut.data]).toEqual([7, 11, ...rows.flat()]);
    }
  });

  test("are options of a call, of a file and of from_pretrained; resized() has what preprocess() leaves", async () => {
    const image = drawn(50, 30);
    const plain = new BlipImageProcessor({ size: 28 });
    const cut = plain.preprocess([image], { image_transform: "clip_image_eval" });
    const own = new BlipImageProcessor({ size: 28, image_transform: "clip_image_eval" });
    expect(own.preprocess([own.resized(image)]).data).toEqual(cut.data);
    expect(plain.preprocess([image]).data).not.toEqual(cut.data);
    expect(plain.toJSON()).not.toHaveProperty("image_transform");
    expect(own.toJSON()).toHaveProperty("image_transform", "clip_image_eval");
    const processor = await InstructBlipProcessor.from_pretrained(goldenFolder("plain_f32"), {
      image_transform: "clip_image_eval",
    });
    expect(processor.image_processor.config.image_transform).toBe("clip_image_eval");
    expect(() => plain.preprocess([image], { image_transform: "clip" as never })).toThrow(/image_transform/);
    const bad = { image_transform: "clip_image_eval" } as const;
    expect(() => plain.preprocess([image], { ...bad, resample: 2 })).toThrow(/IMAGE_OPTION|square/);
    expect(() => plain.preprocess([image], { ...bad, size: [28, 30] })).toThrow(/square/);
    expect(() => plain.preprocess([image], { ...bad, do_resize: false })).toThrow(/has no effect: do_resize is false/);
    expect(() => new BlipImageProcessor({ ...bad, do_resize: false })).toThrow(/has no effect: do_resize is false/);
    const asIs = own.preprocess([image], { image_transform: "blip_image_eval", do_resize: false });
    expect(asIs.shape).toEqual([1, 3, 30, 50]);
    const unknown = InstructBlipProcessor.from_pretrained(goldenFolder("plain_f32"), { image_transform: "x" as never });
    await expect(unknown).rejects.toThrow(
      expect.objectContaining({ code: "IMAGE_OPTION", message: expect.stringMatching(/^image_transform must be/) }),
    );
    expect(() => new BlipImageProcessor({ ...bad }, "f", "torchvision")).toThrow(/pil/);
  });
});
