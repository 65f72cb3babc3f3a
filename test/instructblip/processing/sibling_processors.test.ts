/**
 * BLIP-2's and InstructBLIP-Video's processors, AutoProcessor, and saving all three, against transformers 5.18: ids, masks,
 * pixels and their order. InstructBLIP's own calls are in processor.test.ts.
 */
import { createHash } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type AnyProcessor, AutoProcessor } from "../../../src/instructblip/pretrained/auto_processor.ts";
import { nodePlatform } from "../../../src/instructblip/pretrained/platform.node.ts";
import { setPlatform } from "../../../src/instructblip/pretrained/platform.ts";
import { Blip2Processor } from "../../../src/instructblip/processing/blip_2_processor.ts";
import type { RgbImage } from "../../../src/instructblip/processing/image.ts";
import {
  InstructBlipProcessor,
  type InstructBlipProcessorParts as Parts,
  type ProcessorInput,
} from "../../../src/instructblip/processing/instructblip_processor.ts";
import {
  InstructBlipVideoProcessor,
  type InstructBlipVideoProcessorInput,
} from "../../../src/instructblip/processing/instructblip_video_processor.ts";
import { ProcessorBase } from "../../../src/instructblip/processing/processor.ts";
import { EngineError } from "../../../src/tensor/errors.ts";
import { type FolderFiles, filesOf, golden, image, memoryFolder, writableMemory } from "./processor_golden.ts";

const FRAMES = 4;
type Outcome = Record<string, unknown> | { error: string };
type Call = [text: string | string[] | null, images: number, options: InstructBlipVideoProcessorInput];
const GOLDEN = golden<{
  folders: Record<string, FolderFiles>;
  calls: Call[];
  image_calls: Call[];
  classes: Record<string, string>;
  saved: Record<string, string>;
  outcomes: Record<string, Outcome[]>;
}>("siblings.json.gz");
const NAMES = Object.keys(GOLDEN.folders);

const filesNamed = (name: string) => filesOf(GOLDEN.folders[name]);
const load = (name: string) => AutoProcessor.from_pretrained(memoryFolder(filesNamed(name)));

function inputOf([text, count, options]: Call, processor: AnyProcessor): InstructBlipVideoProcessorInput {
  const video = processor.processor_class === "InstructBlipVideoProcessor";
  const one = (i: number) =>
    video ? Array.from({ length: FRAMES }, (_, frame) => image(FRAMES * i + frame)) : image(i);
  const images = count > 0 ? Array.from({ length: count }, (_, i) => one(i)) : undefined;
  return { images: images as RgbImage[], text: text ?? undefined, allow_image_token: true, ...options };
}

/** A feature as the goldens have it, or the code of the error. */
async function outcomeOf(processor: AnyProcessor, input: InstructBlipVideoProcessorInput): Promise<unknown> {
  try {
    const { pixel_values, ...rows } = await processor(input as ProcessorInput);
    if (!pixel_values) return rows;
    const { data, shape } = pixel_values;
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    return { ...rows, pixel_values: [shape, createHash("sha256").update(bytes).digest("hex")] };
  } catch (error) {
    expect(error).toBeInstanceOf(EngineError);
    return (error as EngineError).code;
  }
}

test.each(NAMES)("%s", async (name) => {
  const processor = await load(name);
  expect(processor.processor_class).toBe(GOLDEN.classes[name]);
  const video = processor.processor_class === "InstructBlipVideoProcessor";
  let compared = 0;
  for (const [i, call] of [...GOLDEN.calls, ...(video ? [] : GOLDEN.image_calls)].entries()) {
    const outcome = GOLDEN.outcomes[name][i];
    const ours = await outcomeOf(processor, inputOf(call, processor));
    if ("error" in outcome) {
      // Python subtracts None from max_length; here no queries are none to subtract.
      const subtracts = outcome.error === "TypeError" && name === "blip_2_without_queries";
      expect([call, typeof ours]).toEqual([call, subtracts ? "object" : "string"]);
      continue;
    }
    expect([call, ours]).toEqual([call, outcome]);
    expect(Object.keys(ours as object)).toEqual(Object.keys(outcome)); // the order too
    compared++;
  }
  expect(compared).toBeGreaterThan(20);
});

describe("a processor is an object of its class, which is called", () => {
  const CLASSES = { InstructBlipProcessor, Blip2Processor, InstructBlipVideoProcessor };

  test.each(NAMES)("%s", async (name) => {
    const processor = await load(name);
    for (const [one, Class] of Object.entries(CLASSES)) {
      expect([one, processor instanceof Class]).toEqual([one, one === processor.processor_class]);
    }
    expect(processor).toBeInstanceOf(ProcessorBase);
    const feature = await processor({ text: "a dog" });
    expect(await processor.call(undefined, { text: "a dog" })).toEqual(feature);
    expect(await processor.bind(undefined)({ text: "a dog" })).toEqual(feature);
    expect(processor.model_input_names).toEqual(expect.arrayContaining(Object.keys(feature)));
  });

  test("and is put together of another's parts", async () => {
    const { image_processor, tokenizer, qformer_tokenizer } = (await load("instructblip")) as unknown as Parts;
    const parts = { image_processor, tokenizer, qformer_tokenizer };
    const input = { images: image(0), text: "a dog" };
    const made = new InstructBlipProcessor({ ...parts, num_query_tokens: 3 });
    const { input_ids, pixel_values } = await made(input);
    const placeholder = tokenizer.convert_tokens_to_ids("<image>")!;
    expect(input_ids[0].filter((id) => id === placeholder)).toHaveLength(3);
    const blip = new Blip2Processor({ image_processor, tokenizer, num_query_tokens: null });
    expect(Object.keys(await blip(input))).toEqual(["input_ids", "attention_mask", "pixel_values"]);
    const video = new InstructBlipVideoProcessor({
      ...parts,
      image_processor: undefined,
      video_processor: image_processor,
    } as never);
    expect((await video({ images: image(0) })).pixel_values).toEqual({
      ...pixel_values,
      shape: [1, ...pixel_values.shape],
    });
    // Without a count: text alone, and images alone.
    const uncounted = new InstructBlipProcessor(parts);
    await expect(uncounted(input)).rejects.toMatchObject({ code: "CONFIG_MISSING" });
    expect(await uncounted({ text: "a dog" })).toEqual(await made({ text: "a dog" }));
  });

  test.each([
    ["nothing", () => ({}), "BAD_INPUT"],
    ["no object", () => null, "ARGUMENTS"],
    ["another's part", (parts: Parts) => ({ ...parts, tokenizer: parts.image_processor }), "BAD_INPUT"],
    ["a tokenizer too few", ({ qformer_tokenizer: _, ...rest }: Parts) => rest, "BAD_INPUT"],
    ["a part of another name", (parts: Parts) => ({ ...parts, feature_extractor: 1 }), "UNKNOWN_OPTION"],
    ["a count that is none", (parts: Parts) => ({ ...parts, num_query_tokens: "32" }), "CONFIG_RANGE"],
    ["a count without end", (parts: Parts) => ({ ...parts, num_query_tokens: 1e9 }), "CONFIG_RANGE"],
  ])("but not of %s", async (_, partsOf, code) => {
    const { image_processor, tokenizer, qformer_tokenizer } = (await load("instructblip")) as unknown as Parts;
    const parts = partsOf({ image_processor, tokenizer, qformer_tokenizer }) as never;
    expect(() => new InstructBlipProcessor(parts)).toThrow(expect.objectContaining({ code }));
  });
});

describe("what a processor saves is read as the same", () => {
  test.each(NAMES)("%s", async (name) => {
    const processor = await load(name);
    const { folder, files } = writableMemory();
    await processor.save_pretrained(folder);
    const again = await AutoProcessor.from_pretrained(memoryFolder(files));
    expect(again.processor_class).toBe(processor.processor_class);
    for (const call of GOLDEN.calls) {
      const input = inputOf(call, processor);
      expect([call, await outcomeOf(again, input)]).toEqual([call, await outcomeOf(processor, input)]);
    }
    if (GOLDEN.saved[name]) expect(files["processor_config.json"]).toBe(GOLDEN.saved[name]); // byte for byte
    const listed = JSON.parse(files["tokenizer.json"]).added_tokens as { id: number; content: string }[];
    const video = processor.processor_class === "InstructBlipVideoProcessor";
    const placeholder = listed.find(({ content }) => content === (video ? "<video>" : "<image>"));
    expect(placeholder?.id).toBe(processor.tokenizer.convert_tokens_to_ids(video ? "<video>" : "<image>"));
  });

  test("in files that list their tokens twice, and of a vocab.txt", async () => {
    const listed = filesNamed("blip_2_opt");
    const tokens = JSON.parse(listed["tokenizer.json"]);
    const config = JSON.parse(listed["tokenizer_config.json"]);
    config.added_tokens_decoder = Object.fromEntries(
      tokens.added_tokens.slice(0, -1).map(({ id, ...token }: { id: number }) => [String(id), token]),
    );
    tokens.added_tokens.pop(); // <image>, which the processor has to add
    listed["tokenizer.json"] = JSON.stringify(tokens);
    listed["tokenizer_config.json"] = JSON.stringify(config);
    const processor = await Blip2Processor.from_pretrained(memoryFolder(listed));
    const { folder, files } = writableMemory();
    await processor.save_pretrained(folder);
    expect(JSON.parse(files["tokenizer_config.json"]).added_tokens_decoder).toHaveProperty(
      String(processor.tokenizer.convert_tokens_to_ids("<image>")),
    );
    const again = await Blip2Processor.from_pretrained(memoryFolder(files));
    const input = { images: image(0), text: "a dog" };
    expect(await again(input)).toEqual(await processor(input));

    const old = filesOf({ ...GOLDEN.folders.video_t5, qformer: "bert_vocab_txt" });
    const video = await InstructBlipVideoProcessor.from_pretrained(memoryFolder(old));
    const second = writableMemory();
    await video.save_pretrained(second.folder);
    expect(second.files["qformer_tokenizer/vocab.txt"]).toBe(old["qformer_tokenizer/vocab.txt"]);
    expect(Object.keys(second.files)).not.toContain("qformer_tokenizer/tokenizer.json");
  });

  test("a side set by the caller is saved only where a file named one", async () => {
    for (const [name, expected] of [
      ["blip_2_t5", "right"],
      ["blip_2_opt", undefined],
    ] as const) {
      const processor = await load(name);
      processor.tokenizer.padding_side = "right";
      const { folder, files } = writableMemory();
      await processor.save_pretrained(folder);
      expect(JSON.parse(files["tokenizer_config.json"]).padding_side).toBe(expected);
    }
  });

  test("in a folder of the file system", async () => {
    setPlatform(nodePlatform);
    const parent = await mkdtemp(join(tmpdir(), "processor-"));
    try {
      const to = join(parent, "new", "folder");
      const processor = await load("video_vicuna");
      await processor.save_pretrained(to);
      const again = await AutoProcessor.from_pretrained(to);
      const input = { images: [image(0), image(1)], text: "a dog" };
      expect(await again(input)).toEqual(await processor(input));
    } finally {
      await rm(parent, { recursive: true });
    }
  });
});

describe("videos", () => {
  let processor: InstructBlipVideoProcessor;
  beforeAll(async () => {
    processor = await InstructBlipVideoProcessor.from_pretrained(memoryFolder(filesNamed("video_vicuna")));
  });
  const frames = [image(0), image(1), image(2)];
  const tensorOf = (images: RgbImage[], shape: number[]) => ({
    data: Uint8Array.from(images.flatMap(({ data }) => [...data])),
    shape,
  });

  test("frames, lists of frames and tensors are one video or many", async () => {
    const one = await processor({ images: frames, text: "a dog" });
    expect(one.pixel_values.shape).toEqual([1, 3, 3, 30, 28]);
    const placeholder = processor.tokenizer.convert_tokens_to_ids("<video>");
    expect(one.input_ids[0].filter((id) => id === placeholder)).toHaveLength(3 * 4);
    expect(one.input_ids[0].slice(0, 12)).toEqual(new Array(12).fill(placeholder));
    for (const images of [[frames], tensorOf(frames, [3, 6, 5, 3]), [tensorOf(frames, [3, 6, 5, 3])]]) {
      expect(await processor({ images, text: "a dog" })).toEqual(one);
    }
    const two = await processor({ images: tensorOf([...frames, ...frames], [2, 3, 6, 5, 3]) });
    expect(two.pixel_values!.shape).toEqual([2, 3, 3, 30, 28]);
    const half = two.pixel_values!.data.length / 2;
    expect(two.pixel_values!.data.slice(0, half)).toEqual(one.pixel_values.data);
    expect(two.pixel_values!.data.slice(half)).toEqual(one.pixel_values.data);
    expect((await processor({ images: image(0) })).pixel_values!.shape).toEqual([1, 1, 3, 30, 28]);
  });

  const refused: [string, InstructBlipVideoProcessorInput, string][] = [
    ["videos of different lengths", { images: [frames, frames.slice(1)] }, "BAD_PIXELS"],
    ["frames among videos", { images: [frames, image(0)] as never }, "BAD_PIXELS"],
    ["an empty video", { images: [[]] }, "BAD_PIXELS"],
    ["no video", { images: [] }, "BAD_PIXELS"],
    ["a tensor that lacks numbers", { images: { data: new Uint8Array(7), shape: [2, 6, 5, 3] } }, "BAD_PIXELS"],
    ["more texts than videos", { images: frames, text: ["a", "b", "c"] }, "BATCH_MISMATCH"],
    ["the placeholder in a text", { images: frames, text: "what is <video>?" }, "IMAGE_TOKEN_IN_TEXT"],
    ["too many frames", { images: Array.from({ length: 600 }, () => image(0)) }, "BATCH_LIMIT"],
  ];
  test.each(refused)("refuses %s", async (_, input, code) => {
    expect(await outcomeOf(processor as AnyProcessor, input)).toBe(code);
  });

  test("the frames are the caller's to pick", async () => {
    const files = filesNamed("video_t5");
    const config = { ...JSON.parse(files["video_preprocessor_config.json"]), do_sample_frames: true };
    const folder = memoryFolder({ ...files, "video_preprocessor_config.json": JSON.stringify(config) });
    await expect(InstructBlipVideoProcessor.from_pretrained(folder)).rejects.toThrow("do_sample_frames");
  });

  test("without a word about size frames are 384 x 384", async () => {
    const files = filesNamed("video_t5");
    const folder = memoryFolder({ ...files, "video_preprocessor_config.json": "{}" });
    const { pixel_values } = await (await InstructBlipVideoProcessor.from_pretrained(folder))({ images: frames });
    expect(pixel_values!.shape).toEqual([1, 3, 3, 384, 384]);
  });
});

describe("AutoProcessor", () => {
  const classFrom = async (changes: Record<string, object | undefined>) => {
    const files: Record<string, string> = filesNamed("instructblip");
    for (const [file, value] of Object.entries(changes)) {
      if (value === undefined) delete files[file];
      else files[file] = JSON.stringify(value);
    }
    return AutoProcessor.from_pretrained(memoryFolder(files)).then(
      (processor) => processor.processor_class,
      (error: EngineError) => error.code,
    );
  };
  const pixels = { size: 30 };

  test("asks processor_config, preprocessor_config, tokenizer_config and the model in this order", async () => {
    const silent = { "processor_config.json": { num_query_tokens: 4 }, "preprocessor_config.json": pixels };
    const config = { "config.json": { model_type: "instructblipvideo" } };
    expect(await classFrom({})).toBe("InstructBlipProcessor");
    expect(await classFrom({ ...silent, ...config })).toBe("InstructBlipVideoProcessor");
    expect(await classFrom({ ...silent, "config.json": { model_type: "blip-2" } })).toBe("Blip2Processor");
    const named = { ...silent, "preprocessor_config.json": { ...pixels, processor_class: "Blip2Processor" } };
    expect(await classFrom({ ...named, ...config })).toBe("Blip2Processor");
    const video = { processor_class: "InstructBlipVideoProcessor" };
    expect(await classFrom({ ...named, "video_preprocessor_config.json": video })).toBe("Blip2Processor");
  });

  test("refuses what it has no processor for", async () => {
    const silent = { "processor_config.json": { num_query_tokens: 4 }, "preprocessor_config.json": pixels };
    expect(await classFrom({ ...silent, "config.json": { model_type: "llava" } })).toBe("UNSUPPORTED_PROCESSOR");
    expect(await classFrom(silent)).toBe("UNSUPPORTED_PROCESSOR");
    const other = { processor_class: "toString" };
    expect(await classFrom({ ...silent, "preprocessor_config.json": other })).toBe("UNSUPPORTED_PROCESSOR");
  });
});

describe("how many placeholders", () => {
  const countOf = async (name: string, own: object, config?: object) => {
    const files: Record<string, string> = filesNamed(name);
    const pixels = JSON.parse(files["processor_config.json"]) as Record<string, unknown>;
    files["processor_config.json"] = JSON.stringify({ ...pixels, num_query_tokens: undefined, ...own });
    if (config) files["config.json"] = JSON.stringify(config);
    return AutoProcessor.from_pretrained(memoryFolder(files)).then(
      ({ num_query_tokens }) => num_query_tokens,
      (error: EngineError) => error.message,
    );
  };
  const model = { model_type: "instructblip", image_token_index: 9, num_query_tokens: 5 };

  test("is the processor's word, else the model's", async () => {
    expect(await countOf("instructblip", { num_query_tokens: 4 }, model)).toBe(4);
    expect(await countOf("instructblip", {}, model)).toBe(5);
    expect(await countOf("instructblip", { num_query_tokens: null }, { ...model, num_query_tokens: undefined })).toBe(
      32,
    );
    const { image_token_index, ...legacy } = model;
    expect(await countOf("instructblip", {}, { ...legacy, image_token_id: image_token_index })).toBe(5);
    expect(await countOf("instructblip", {}, legacy)).toBe(0);
    expect(await countOf("instructblip", {}, { ...legacy, image_token_index: null })).toBe(0);
    const video = { model_type: "instructblipvideo", video_token_index: 0, num_query_tokens: 3 };
    expect(await countOf("instructblip", {}, video)).toBe(3);
    expect(await countOf("instructblip", {}, { ...model, num_query_tokens: 1.5 })).toMatch(/^config.json: num_query_t/);
  });

  test("is unknown where neither says, which is said when there is an image", async () => {
    expect(await countOf("instructblip", {})).toBe(null);
    expect(await countOf("instructblip", {}, { model_type: "llama", num_query_tokens: 5 })).toBe(null);
    const files: Record<string, string> = filesNamed("instructblip");
    const { num_query_tokens, ...silent } = JSON.parse(files["processor_config.json"]) as Record<string, unknown>;
    expect(num_query_tokens).toBeDefined();
    files["processor_config.json"] = JSON.stringify(silent);
    const processor = await AutoProcessor.from_pretrained(memoryFolder(files));
    await expect(processor({ images: image(0), text: "a" })).rejects.toThrow(
      /no num_query_tokens.*config\.json beside it/,
    );
  });

  test("none are put before a legacy model's prompt, nor saved as a count", async () => {
    const files: Record<string, string> = { ...filesNamed("instructblip") };
    const { num_query_tokens: _, ...silent } = JSON.parse(files["processor_config.json"]) as Record<string, unknown>;
    files["processor_config.json"] = JSON.stringify(silent);
    files["config.json"] = '{"model_type": "instructblip", "num_query_tokens": 5}';
    const processor = await AutoProcessor.from_pretrained(memoryFolder(files));
    const [both, text] = [await processor({ images: image(0), text: "a dog" }), await processor({ text: "a dog" })];
    expect(both.input_ids).toEqual(text.input_ids);
    const { folder, files: saved } = writableMemory();
    await processor.save_pretrained(folder);
    expect(JSON.parse(saved["processor_config.json"]).num_query_tokens).toBe(null);
  });
});

describe("options", () => {
  let processor: AnyProcessor;
  beforeAll(async () => {
    processor = await load("instructblip");
  });
  const refused: [string, object][] = [
    ["an option of the text among the images'", { images_kwargs: { padding: true } }],
    ["an option of the images among the text's", { text_kwargs: { resample: 2 } }],
    ["an option given twice", { padding: true, text_kwargs: { padding: true } }],
    ["a value we do not have", { return_length: true }],
    ["a layout we do not have", { images_kwargs: { data_format: "channels_last" } }],
    ["a misspelt option", { text_kwargs: { max_lenght: 3 } }],
  ];
  test.each(refused)("refuses %s", async (_, options) => {
    expect(await outcomeOf(processor, { text: "a", images: image(0), ...options })).toBe("UNKNOWN_OPTION");
  });

  test("common options give way to all others", async () => {
    const common_kwargs = { return_tensors: "pt", padding: "max_length", max_length: 30 } as object;
    const wide = await processor({ text: "a", common_kwargs });
    expect(wide.input_ids![0]).toHaveLength(26); // the queries count towards max_length
    expect(await processor({ text: "a", common_kwargs, text_kwargs: { padding: false } })).toEqual(
      await processor({ text: "a" }),
    );
  });

  test("post_process_image_text_to_text leaves special tokens out", async () => {
    const { input_ids } = await processor({ text: "a dog", images: image(0) });
    expect(processor.post_process_image_text_to_text(input_ids!)).toEqual(["a dog"]);
  });
});

test.each(["instructblip", "blip_2_opt", "video_vicuna"])("%s takes the backend's name", async (name) => {
  const folder = memoryFolder(filesNamed(name));
  const [pil, torch] = await Promise.all([
    AutoProcessor.from_pretrained(folder),
    AutoProcessor.from_pretrained(folder, { backend: "torchvision" }),
  ]);
  const [a, b] = await Promise.all([pil, torch].map((processor) => processor({ images: image(0) })));
  const differences = a.pixel_values!.data.map((x, i) => Math.abs(x - b.pixel_values!.data[i]));
  expect(differences.some((x) => x > 1e-3)).toBe(true); // a level of a byte, not only rounding
  expect(Math.max(...differences)).toBeLessThan(1.01 / 255 / 0.2);
  await expect(AutoProcessor.from_pretrained(folder, { backend: "slow" as never })).rejects.toThrow('"slow"');
});

describe("progress and cancelling reach whoever opens the folder", () => {
  afterAll(() => setPlatform(nodePlatform));
  test.each(["instructblip", "blip_2_opt", "video_vicuna"])("%s", async (name) => {
    const options = { signal: new AbortController().signal, on_download: () => {} };
    const given: unknown[] = [];
    setPlatform({
      ...nodePlatform,
      openFolder: async (where, passed) => {
        given.push([where, passed]);
        return memoryFolder(filesNamed(name));
      },
    });
    await AutoProcessor.from_pretrained("owner/name", options);
    expect(given).toEqual([["owner/name", options]]);
  });
});
