/** Decoding, resizing and normalising against Pillow and Hugging Face's PIL backend (test/golden/processor). */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, test, vi } from "vitest";
import { decodeImage } from "../../../src/instructblip/processing/image.node.ts";
import type { PixelTensor } from "../../../src/instructblip/processing/image.ts";
import { MAX_PIXELS, readImageHeader, withoutExif } from "../../../src/instructblip/processing/image_format.ts";
import type { ImageOptions } from "../../../src/instructblip/processing/image_options.ts";
import { BlipImageProcessor, MAX_IMAGES } from "../../../src/instructblip/processing/image_processor.ts";
import { resize } from "../../../src/instructblip/processing/resize.ts";
import { EngineError } from "../../../src/tensor/errors.ts";
import { golden, memoryFolder, path } from "./processor_golden.ts";

interface Decoded {
  size: [number, number];
  rgb: string;
  first: number[];
  turned?: { size: [number, number]; rgb: string };
  resized: string[];
  pixel_values: string[];
  /** u8[H, W, 3] in base64 */
  pixels?: string;
}
const GOLDEN = golden<{
  sizes: [number, number][];
  files: Record<string, Decoded>;
  resizes: [number, number, number, number, number, string][];
  tensors: [string, ImageOptions, number[], string][];
}>("image_files.json.gz");

const TORCH = golden<{
  resizes: [number, number, number, number, number, string][];
  values: [ImageOptions, string][];
}>("torch_backend.json.gz");

/** By how much our pixels differ from Pillow's, where they do. Each is checked to, so that the list cannot outlive its reasons. */
const KNOWN_DIFFERENCES: Record<string, { most: number; mean: number }> = {
  "444.avif": { most: 1, mean: 0.3 }, // libheif and libavif round differently
  "rgba.avif": { most: 1, mean: 0.3 },
  "exif_5.avif": { most: 1, mean: 0.3 },
  "exif_6.avif": { most: 1, mean: 0.3 },
  "animated.avif": { most: 1, mean: 0.3 },
  "420.avif": { most: 40, mean: 10 }, // and enlarge colours differently; this image is nearly all edges
};

const file = (name: string) => new Uint8Array(readFileSync(path(`images/${name}`)));
const sha = (data: Uint8Array | Float32Array) =>
  createHash("sha256")
    .update(new Uint8Array(data.buffer, data.byteOffset, data.byteLength))
    .digest("hex");

/** The generator of image_files.py. */
function noise(seed: number, count: number): Uint8Array {
  const out = new Uint8Array(count);
  let state = seed;
  for (let i = 0; i < count; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    out[i] = state >>> 24;
  }
  return out;
}

async function codeOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
  } catch (error) {
    expect(error).toBeInstanceOf(EngineError);
    expect((error as EngineError).message.length).toBeLessThan(300);
    return (error as EngineError).code;
  }
  return "accepted";
}

describe("decodeImage", () => {
  for (const [name, expected] of Object.entries(GOLDEN.files)) {
    test(name, async () => {
      const image = await decodeImage(file(name), name);
      expect([image.width, image.height]).toEqual(expected.size);
      if (name in KNOWN_DIFFERENCES) {
        const pillow = Buffer.from(expected.pixels!, "base64");
        const differences = [...image.data].map((value, i) => Math.abs(value - pillow[i]));
        const most = Math.max(...differences);
        const mean = differences.reduce((sum, x) => sum + x, 0) / differences.length;
        expect(most).toBeGreaterThan(0);
        expect(most).toBeLessThanOrEqual(KNOWN_DIFFERENCES[name].most);
        expect(mean).toBeLessThanOrEqual(KNOWN_DIFFERENCES[name].mean);
        return;
      }
      expect([...image.data.subarray(0, 3)]).toEqual(expected.first);
      expect(sha(image.data)).toBe(expected.rgb);
      GOLDEN.sizes.forEach(([height, width], i) => {
        expect(sha(resize(image, width, height).data), `${width} x ${height}`).toBe(expected.resized[i]);
        const values = new BlipImageProcessor({ size: { height, width } }).preprocess([image]);
        expect(values.shape).toEqual([1, 3, height, width]);
        expect(sha(values.data), `pixel_values ${width} x ${height}`).toBe(expected.pixel_values[i]);
      });
      if (expected.turned) {
        const turned = await decodeImage(file(name), name, { exif_transpose: true });
        expect([turned.width, turned.height]).toEqual(expected.turned.size);
        expect(sha(turned.data)).toBe(expected.turned.rgb);
        if (!name.endsWith(".jpg")) return;
        expect(sha((await decodeImage(withoutExif(file(name), "jpeg"), name)).data)).toBe(expected.rgb);
      }
    });
  }

  test("refuses what is not an image it reads", async () => {
    const text = (s: string) => new TextEncoder().encode(s);
    for (const [bytes, code] of [
      [new Uint8Array(0), "IMAGE_TRUNCATED"],
      [new Uint8Array([0x89]), "IMAGE_TRUNCATED"],
      [file("rgb.png").slice(0, 8), "IMAGE_TRUNCATED"],
      [file("420.jpg").slice(0, 4), "IMAGE_TRUNCATED"],
      [file("lossy.webp").slice(0, 12), "IMAGE_TRUNCATED"],
      [file("palette.gif").slice(0, 6), "IMAGE_TRUNCATED"],
      [file("none.tif").slice(0, 7), "IMAGE_TRUNCATED"],
      [file("none.tif").slice(0, 100), "IMAGE_TRUNCATED"],
      [file("rgb.bmp").slice(0, 20), "IMAGE_TRUNCATED"],
      [file("palette.bmp").slice(0, 60), "IMAGE_TRUNCATED"],
      [file("444.avif").slice(0, 20), "IMAGE_TRUNCATED"],
      [text("\x7fELF\x02\x01\x01\0"), "IMAGE_FORMAT"],
      [text("BMW makes cars, and this is a text about them"), "IMAGE_FORMAT"],
    ] as const) {
      expect(await codeOf(decodeImage(bytes, "image.png"))).toBe(code);
    }
  });

  test.each<[string, string, RegExp]>([
    ["<!DOCTYPE html><p>404", "a web page, not an image", /address of the image itself/],
    ["\ufeff\n <HTML lang='en'><head>", "a web page, not an image", /address of the image itself/],
    ["<!-- saved from url --><html>", "a web page, not an image", /address of the image itself/],
    ['<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing", /save it as PNG/],
    ['<?xml version="1.0"?>\n<!-- made by hand -->\n<svg viewBox="0 0 1 1">', "an SVG drawing", /save it as PNG/],
    ['<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "an XML file", /save it/],
    ["version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "a Git LFS pointer", /git lfs pull/],
    ['{"error": "not found"}', "JSON", /answered with an error/],
    ["%PDF-1.7 and so on", "a PDF file", /save it/],
    ["\0\0\0\x20ftypheic", "a HEIC file", /save it/],
    ["\0\0\0\x20ftypisom", "an MP4 or QuickTime file", /frames/],
    ["PK\x03\x04", "an archive", /unpack/],
  ])("says what %j is", async (begin, what, hint) => {
    const refusal = decodeImage(new TextEncoder().encode(begin), "image.png");
    await expect(refusal).rejects.toMatchObject({ code: "IMAGE_FORMAT", hint: expect.stringMatching(hint) });
    await expect(refusal).rejects.toThrow(`image.png: ${what}`);
  });

  test("refuses TIFF and BMP of kinds that it would not read as Pillow does", async () => {
    const edited = (name: string, at: number, value: number) => {
      const bytes = file(name);
      new DataView(bytes.buffer).setUint16(at, value, true);
      return bytes;
    };
    /** The file with the first value of a tag changed. */
    const tagged = (name: string, tag: number, value: number) => {
      const view = new DataView(file(name).buffer);
      const start = view.getUint32(4, true);
      for (let at = start + 2; ; at += 12) if (view.getUint16(at, true) === tag) return edited(name, at + 8, value);
    };
    for (const [bytes, message] of [
      [tagged("grey.tif", 259, 50000), /compression 50000/],
      [tagged("none.tif", 262, 8), /photometric 8/],
      [tagged("dark_16bit.tif", 262, 0), /1 samples of 16 bits/],
      [edited("rgb.bmp", 28, 2), /2 bits a pixel/],
      [edited("palette.bmp", 30, 1), /run-length-coded/],
      [edited("565.bmp", 54, 0xf000), /uncommon order/],
    ] as const) {
      const refusal = decodeImage(bytes, "a");
      await expect(refusal).rejects.toThrow(message);
      await expect(refusal).rejects.toMatchObject({ code: expect.stringMatching(/^UNSUPPORTED_(TIFF|BMP)$/) });
    }
  });

  test("refuses a truncated image, wherever it ends", async () => {
    for (const name of [
      "rgb.png",
      "420.jpg",
      "progressive.jpg",
      "lossless.webp",
      "palette.gif",
      "interlaced.png",
      "palette.bmp",
      "444.avif",
    ]) {
      const bytes = file(name);
      for (const part of [0.3, 0.6, 0.9]) {
        const code = await codeOf(decodeImage(bytes.slice(0, Math.floor(bytes.length * part)), name));
        expect([name, part, code]).toEqual([name, part, "IMAGE_TRUNCATED"]);
      }
    }
  });

  test("refuses a bad checksum where Pillow does, and lives with one it does not read", async () => {
    const idat = file("rgb.png");
    idat[idat.length - 20] ^= 1; // in the last bytes of IDAT or its checksum
    expect(["IMAGE_CORRUPT", "IMAGE_TRUNCATED"]).toContain(await codeOf(decodeImage(idat, "a.png")));
    const text = file("text_bomb.png");
    text[8 + 25 + 8 + 40] ^= 1; // inside zTXt
    expect(await codeOf(decodeImage(text, "a.png"))).toBe("accepted");
  });

  test("sizes come from the header, before any pixel", async () => {
    const huge = file("rgb.png");
    new DataView(huge.buffer).setUint32(16, 20_000);
    new DataView(huge.buffer).setUint32(20, 20_000);
    expect(await codeOf(decodeImage(huge, "a.png"))).toBe("IMAGE_TOO_LARGE");
    new DataView(huge.buffer).setUint32(16, 0);
    expect(await codeOf(decodeImage(huge, "a.png"))).toBe("IMAGE_CORRUPT");
    new DataView(huge.buffer).setUint32(16, 2 ** 31);
    new DataView(huge.buffer).setUint32(20, 1);
    expect(await codeOf(decodeImage(huge, "a.png"))).toBe("IMAGE_CORRUPT");
    const lottapixel = file("420.jpg");
    const frame = lottapixel.findIndex((b, i) => b === 0xff && lottapixel[i + 1] === 0xc0);
    new DataView(lottapixel.buffer).setUint16(frame + 5, 64_250);
    new DataView(lottapixel.buffer).setUint16(frame + 7, 64_250);
    expect(await codeOf(decodeImage(lottapixel, "a.jpg"))).toBe("IMAGE_TOO_LARGE");
    for (const marker of [0xc1, 0xc3, 0xc9]) {
      const jpeg = file("420.jpg");
      jpeg[frame + 1] = marker;
      expect(await codeOf(decodeImage(jpeg, "a.jpg"))).toBe(marker === 0xc1 ? "accepted" : "UNSUPPORTED_JPEG");
    }
    expect(MAX_PIXELS).toBe(178_956_970);
  });

  test("random damage is refused with a code, or decodes to the size it says", async () => {
    const originals = [
      ...[
        "palette.png",
        "420.jpg",
        "progressive.jpg",
        "lossy.webp",
        "animated.gif",
        "dark_16bit.png",
        "small_frame.gif",
      ],
      ...["palette.tif", "jpeg.tif", "exif_6.tif", "palette_4bit.bmp", "565.bmp", "420.avif", "exif_5.avif"],
    ].map(file);
    await fc.assert(
      fc.asyncProperty(
        fc.nat(originals.length - 1),
        fc.array(fc.tuple(fc.nat(3000), fc.nat(255)), { minLength: 1, maxLength: 4 }),
        async (which, edits) => {
          const bytes = originals[which].slice();
          for (const [at, value] of edits) bytes[at % bytes.length] = value;
          try {
            const image = await decodeImage(bytes, "damaged");
            expect(image.data.length).toBe(image.width * image.height * 3);
          } catch (error) {
            expect(error).toBeInstanceOf(EngineError);
          }
        },
      ),
      { numRuns: 400, seed: 1 },
    );
  });

  test("withoutExif leaves other files alone", () => {
    expect(withoutExif(file("rgb.png"), "png")).toEqual(file("rgb.png"));
    expect(withoutExif(file("420.jpg"), "jpeg")).toEqual(file("420.jpg"));
    const exif = file("exif_6.jpg");
    expect(withoutExif(exif, "jpeg").length).toBeLessThan(exif.length);
    expect(readImageHeader(withoutExif(exif, "jpeg"), "a")).toMatchObject({ width: 24, height: 16 });
  });
});

describe("resize", () => {
  test("is Pillow's for all six filters", () => {
    GOLDEN.resizes.forEach(([width, height, newWidth, newHeight, resample, expected], i) => {
      const image = { width, height, data: noise(Math.floor(i / 6), width * height * 3) };
      const out = resize(image, newWidth, newHeight, resample);
      expect([i, resample, sha(out.data)]).toEqual([i, resample, expected]);
    });
    expect(GOLDEN.resizes.length).toBeGreaterThan(200);
  });

  test("is PyTorch's for the two filters of the torchvision backend", () => {
    let unlike = 0;
    TORCH.resizes.forEach(([width, height, newWidth, newHeight, resample, expected], i) => {
      const image = { width, height, data: noise(Math.floor(i / 2), width * height * 3) };
      const out = resize(image, newWidth, newHeight, resample, "torchvision");
      expect([i, resample, sha(out.data)]).toEqual([i, resample, expected]);
      unlike += Number(sha(resize(image, newWidth, newHeight, resample).data) !== expected);
    });
    expect(unlike).toBeGreaterThan(20); // or it would not be worth having
  });

  test("takes a strip of a million pixels by its columns first, and refuses what would not fit", () => {
    const strip = { width: 1, height: 1_000_000, data: new Uint8Array(3_000_000).fill(7) };
    const made: number[] = [];
    vi.stubGlobal(
      "Uint8Array",
      new Proxy(Uint8Array, {
        construct(target, [length]: [number]) {
          made.push(length);
          return new target(length);
        },
      }),
    );
    const { data } = resize(strip, 224, 224);
    vi.unstubAllGlobals();
    expect(new Set(data)).toEqual(new Set([7]));
    expect(made).toEqual([3 * 224, 3 * 224 * 224]); // rows first: 672 MB in between
    const long = { width: 2, height: 2_000_000, data: new Uint8Array(12_000_000) };
    expect(() => resize(long, 224, 224)).toThrow(/too long/);
  });
});

describe("BlipImageProcessor", () => {
  test("rescales and normalises every byte as the torchvision backend does", () => {
    const image = { width: 16, height: 16, data: Uint8Array.from({ length: 768 }, (_, i) => Math.floor(i / 3)) };
    const processor = new BlipImageProcessor({ size: 16 }, "preprocessor_config.json", "torchvision");
    for (const [options, expected] of TORCH.values) {
      expect([options, sha(processor.preprocess([image], options).data)]).toEqual([options, expected]);
    }
    const { image_mean: _, image_std: __, ...clip } = TORCH.values[0][0];
    const pil = new BlipImageProcessor({ size: 16 }).preprocess([image], clip).data;
    const torch = processor.preprocess([image], clip).data;
    const differences = torch.map((x, i) => Math.abs(x - pil[i]));
    expect(Math.max(...differences)).toBeLessThan(3e-7); // the folded factor; seen 2.4e-7
    expect(differences.some((x) => x > 0)).toBe(true);
  });

  test("refuses what the torchvision backend does not have", () => {
    const processor = new BlipImageProcessor({ size: 16 }, "preprocessor_config.json", "torchvision");
    const image = { width: 2, height: 2, data: new Uint8Array(12) };
    expect(() => processor.preprocess([image], { resample: 1 })).toThrow("resample 1");
    const floats = { data: new Float32Array(12), shape: [2, 2, 3] };
    expect(() => processor.preprocess([floats])).toThrow("bytes only");
    expect(processor.preprocess([floats], { do_resize: false }).shape).toEqual([1, 3, 2, 2]);
    expect(() => new BlipImageProcessor({}, "a.json", "numpy" as never)).toThrow('"numpy"');
  });

  test("takes arrays and every switch as the PIL backend does", () => {
    const [height, width] = [19, 23];
    const bytes = noise(77, height * width * 3);
    const unit = Float32Array.from(bytes, (x) => x / 255);
    const first = <T extends Uint8Array | Float32Array>(data: T): T =>
      data.map((_, i) => data[(i % (height * width)) * 3 + Math.floor(i / (height * width))]) as T;
    const sources: Record<string, PixelTensor> = {
      u8_last: { data: bytes, shape: [height, width, 3] },
      u8_first: { data: first(bytes), shape: [3, height, width] },
      unit_last: { data: unit, shape: [height, width, 3] },
      unit_first: { data: first(unit), shape: [3, height, width] },
      whole_last: { data: Float32Array.from(bytes), shape: [height, width, 3] },
      ambiguous: { data: noise(78, 180), shape: [3, 20, 3] },
    };
    const processor = new BlipImageProcessor({ size: { height: 30, width: 28 } });
    for (const [name, options, shape, expected] of GOLDEN.tensors) {
      const values = processor.preprocess([sources[name]], options);
      expect([name, options, values.shape, sha(values.data)]).toEqual([name, options, shape, expected]);
    }
  });

  test("stacks images in order", () => {
    const processor = new BlipImageProcessor({ size: 4 });
    const images = [1, 2, 3].map((seed) => ({ width: 5, height: 6, data: noise(seed, 90) }));
    const batch = processor.preprocess(images);
    expect(batch.shape).toEqual([3, 3, 4, 4]);
    images.forEach((image, i) => {
      expect(batch.data.slice(i * 48, i * 48 + 48)).toEqual(processor.preprocess([image]).data);
    });
  });

  test("reads both layouts of files, the nested one first", async () => {
    const old = { "preprocessor_config.json": '{"size": {"height": 30, "width": 31}, "image_mean": [0.5, 0.5, 0.5]}' };
    expect((await BlipImageProcessor.from_pretrained(memoryFolder(old))).config.size).toEqual({
      height: 30,
      width: 31,
    });
    const both = { ...old, "processor_config.json": '{"image_processor": {"size": 56}, "num_query_tokens": 32}' };
    expect((await BlipImageProcessor.from_pretrained(memoryFolder(both))).config.size).toBe(56);
    const flat = { ...old, "processor_config.json": '{"num_query_tokens": 32}' };
    expect((await BlipImageProcessor.from_pretrained(memoryFolder(flat))).config.size).toEqual({
      height: 30,
      width: 31,
    });
    expect(await codeOf(BlipImageProcessor.from_pretrained(memoryFolder({})))).toBe("CONFIG_MISSING");
    for (const text of ["", "{", "[]", "\ufeff{}"]) {
      const folder = memoryFolder({ "preprocessor_config.json": text });
      expect(await codeOf(BlipImageProcessor.from_pretrained(folder))).toBe("CONFIG_JSON");
    }
  });

  test("refuses impossible configs and options, each by its name", async () => {
    const bad: ImageOptions[] = [
      { image_mean: [0.5, 0.5] },
      { image_mean: [0.5, 0.5, Number.NaN] },
      { image_std: [1, 0, 1] },
      { image_std: [1, 1e-50, 1] },
      { resample: 6 },
      { resample: 1.5 },
      { size: 0 },
      { size: 1e9 },
      { size: { height: 3.5, width: 3 } },
      { size: [3] as never },
      { size: { shortest_edge: 224 } as never },
      { rescale_factor: Number.POSITIVE_INFINITY },
      { do_resize: "yes" as never },
    ];
    const image = { width: 1, height: 1, data: new Uint8Array(3) };
    for (const config of bad) {
      const key = Object.keys(config)[0];
      await expect(async () => new BlipImageProcessor({ ...config })).rejects.toThrow(key);
      expect(await codeOf((async () => new BlipImageProcessor({ ...config }))())).toBe("CONFIG_IMAGE");
      expect(await codeOf((async () => new BlipImageProcessor().preprocess([image], config))())).toBe("IMAGE_OPTION");
    }
    // Of a call alone: any other word was once as good as channels_last's contrary.
    for (const input_data_format of ["last", "channels_Last", true, 3]) {
      const options = { input_data_format } as never;
      const tensor = { data: new Uint8Array(9), shape: [1, 3, 3] };
      expect(await codeOf((async () => new BlipImageProcessor().preprocess([tensor], options))())).toBe("IMAGE_OPTION");
    }
    expect(await codeOf((async () => new BlipImageProcessor({ do_center_crop: true }))())).toBe("CONFIG_IMAGE");
    await expect(async () =>
      new BlipImageProcessor().preprocess([image], { do_rezise: true } as never),
    ).rejects.toThrow("did you mean do_resize?");
    // Keys of other classes, of older versions and of JavaScript are no one's business.
    const odd = {
      crop_size: 3,
      feature_extractor_type: "Blip",
      auto_map: { a: "evil.py" },
      constructor: 1,
      __proto__: 2,
    };
    expect(new BlipImageProcessor(odd).config.do_resize).toBe(true);
  });

  test("refuses pixels that do not fit their shape", async () => {
    const bad: [unknown, RegExp][] = [
      [{ width: 2, height: 2, data: new Uint8Array(11) }, /12 bytes of RGB or 16 of RGBA, got 11/],
      [{ width: 2, height: 2, data: new Uint16Array(12) }, /must be a Uint8Array/],
      [{ width: 2.5, height: 2, data: new Uint8Array(15) }, /whole/],
      [{ width: 2, height: 2, data: [1, 2, 3] }, /Uint8Array/],
      [{ shape: [2, 2, 4], data: new Uint8Array(16) }, /no 3 channels/],
      [{ shape: [2, 2], data: new Uint8Array(4) }, /must be \[H, W, 3\]/],
      [{ shape: [2, 2, 3], data: new Uint8Array(13) }, /needs 12 numbers, got 13/],
      [{ shape: [1, 1, 3], data: new Float32Array([0, Number.NaN, 0]) }, /not finite/],
      [{ shape: [1, 1, 3], data: new Float32Array([0, 300, 0]) }, /0 … 1, or whole/],
      [{ shape: [1, 1, 3], data: new Float32Array([0, 1.5, 0]) }, /0 … 1, or whole/],
      [{ shape: [1, 1, 3], data: new Float32Array([0, -0.1, 0]) }, /0 … 1, or whole/],
    ];
    for (const [image, message] of bad) {
      expect(() => new BlipImageProcessor().preprocess([image as PixelTensor])).toThrow(message);
    }
    const detached = new Uint8Array(12);
    structuredClone(detached.buffer, { transfer: [detached.buffer] });
    expect(() => new BlipImageProcessor().preprocess([{ width: 2, height: 2, data: detached }])).toThrow(/got 0/);
    const image = { width: 1, height: 1, data: new Uint8Array(3) };
    const many = Array.from({ length: MAX_IMAGES + 1 }, () => image);
    expect(await codeOf((async () => new BlipImageProcessor({ size: 1 }).preprocess(many))())).toBe("BATCH_LIMIT");
    expect(() =>
      new BlipImageProcessor().preprocess([image, { width: 2, height: 1, data: new Uint8Array(6) }], {
        do_resize: false,
      }),
    ).toThrow(/one size/);
  });
});
