/** Whole processors against transformers 5.18: ids, masks, pixels and their order, from folders of versions 4 and 5. */
import { createHash } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { nodePlatform } from "../../../src/instructblip/pretrained/platform.node.ts";
import { setPlatform } from "../../../src/instructblip/pretrained/platform.ts";
import {
  type BatchFeature,
  InstructBlipProcessor,
  type ProcessorInput,
} from "../../../src/instructblip/processing/instructblip_processor.ts";
import { EngineError } from "../../../src/tensor/errors.ts";
import { type FolderFiles, filesOf, golden, image, memoryFolder, path } from "./processor_golden.ts";

type Feature = Record<string, number[][]> & { pixel_values?: [number[], string] };
type Outcome = Feature | { error: string };
type Call = [text: string | string[] | null, images: number, options: ProcessorInput];
const GOLDEN = golden<{
  folders: Record<string, FolderFiles>;
  saved: Record<string, Record<string, string>>;
  calls: Call[];
  outcomes: Record<string, Outcome[]>;
}>("processors.json.gz");

/**
 * Calls that Hugging Face takes and we refuse, or the other way round; every other outcome must be equal. Each is checked
 * against what Hugging Face returned, so that nothing else hides behind it.
 */
function isKnownDifference([, images, options]: Call, outcome: Outcome, error: string): boolean {
  // max_length without num_query_tokens: Python subtracts None.
  if ("error" in outcome) return outcome.error === "TypeError" && images === 0 && error === "accepted";
  const lengths = (rows: number[][]) => new Set(rows.map((row) => row.length));
  if (error === "RAGGED_BATCH") {
    // A list of lists there, and an error as soon as it shall become a tensor.
    return lengths(outcome.input_ids).size > 1 || lengths(outcome.qformer_input_ids).size > 1;
  }
  // No room for queries and special tokens: tokenizers 0.23 returns more tokens than were asked for.
  const asked = options.max_length ?? 0;
  return error === "TOKENIZER_LENGTH" && Math.max(...lengths(outcome.input_ids)) > asked - (images > 0 ? 0 : 4);
}

function plain(feature: Partial<BatchFeature>): Feature {
  const { pixel_values, ...rows } = feature;
  const result = rows as Feature;
  if (pixel_values) {
    const { data, shape } = pixel_values;
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    result.pixel_values = [shape, createHash("sha256").update(bytes).digest("hex")];
  }
  return result;
}

async function codeOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
    return "accepted";
  } catch (error) {
    expect(error).toBeInstanceOf(EngineError);
    return (error as EngineError).code;
  }
}

const load = (name: string) => InstructBlipProcessor.from_pretrained(memoryFolder(filesOf(GOLDEN.folders[name])));

const FOLDERS = [
  ...Object.entries(GOLDEN.folders).map(([name, folder]) => [name, name, filesOf(folder)] as const),
  ...Object.entries(GOLDEN.saved).map(([name, files]) => [`${name}, saved by transformers 5`, name, files] as const),
];

test.each(FOLDERS)("%s", async (_, name, files) => {
  const processor = await InstructBlipProcessor.from_pretrained(memoryFolder(files));
  let skipped = 0;
  for (const [i, call] of GOLDEN.calls.entries()) {
    const [text, images, options] = call;
    const outcome = GOLDEN.outcomes[name][i];
    const drawn = images > 0 ? Array.from({ length: images }, (_, seed) => image(seed)) : undefined;
    const input = { images: drawn, text: text ?? undefined, allow_image_token: true, ...options };
    const error = await codeOf(processor(input));
    if (isKnownDifference(call, outcome, error)) {
      skipped++;
    } else if ("error" in outcome) {
      expect([call, error]).not.toEqual([call, "accepted"]);
    } else {
      expect([call, error]).toEqual([call, "accepted"]);
      const feature = plain(await processor(input));
      expect([call, feature]).toEqual([call, outcome]);
      expect(Object.keys(feature)).toEqual(Object.keys(outcome)); // the order too
    }
  }
  expect(GOLDEN.calls.length).toBeGreaterThan(60);
  expect(skipped).toBeLessThan(25);
});

describe("the leak of padding_side", () => {
  const texts = ["What is unusual about this image?", "A dog."];
  test("without the key the Q-Former pads on the right, whatever the language model does", async () => {
    const feature = await (await load("vicuna"))({ text: texts, images: [image(0), image(1)], padding: true });
    expect(feature.qformer_attention_mask[1].at(-1)).toBe(0);
    expect(feature.attention_mask[1].slice(0, 5)).toEqual([1, 1, 1, 1, 0]); // queries, then left padding
  });
  test("with the key it pads on that side", async () => {
    const feature = await (await load("vicuna_v4"))({ text: texts, images: [image(0), image(1)], padding: true });
    expect(feature.qformer_attention_mask[1][0]).toBe(0);
  });
});

describe("what it refuses", () => {
  const cases: [string, ProcessorInput, string][] = [
    ["nothing", {}, "NO_INPUT"],
    ["null", { images: null as never, text: null as never }, "NO_INPUT"],
    ["no text in the list", { text: [] }, "BAD_PROMPT"],
    ["a number", { text: 5 as never }, "BAD_PROMPT"],
    ["a list with null", { text: ["a", null as never] }, "BAD_PROMPT"],
    ["more texts than images", { text: ["a", "b"], images: [image(0)] }, "BATCH_MISMATCH"],
    ["more images than texts", { text: "a", images: [image(0), image(1)] }, "BATCH_MISMATCH"],
    ["rows of different lengths", { text: ["a", "a dog and a cat"] }, "RAGGED_BATCH"],
    ["the placeholder in a text", { text: "what is <image>?" }, "IMAGE_TOKEN_IN_TEXT"],
    ["a misspelt option", { text: "a", paddign: true } as never, "UNKNOWN_OPTION"],
    ["an option that has no effect here", { text: "a", return_token_type_ids: true } as never, "UNKNOWN_OPTION"],
    ["stride", { text: "a", stride: 2 } as never, "UNKNOWN_OPTION"],
    ["no room for the queries", { text: "a", max_length: 3 }, "TOKENIZER_LENGTH"],
    ["no room for the special tokens", { text: "a", max_length: 4, truncation: true }, "TOKENIZER_LENGTH"],
    ["padding without end", { text: "a", padding: "max_length", max_length: 4e8 }, "TOKENIZER_LENGTH"],
    ["padding to a huge multiple", { text: "a", padding: true, pad_to_multiple_of: 4e8 }, "TOKENIZER_LENGTH"],
    ["an impossible max_length", { text: "a", max_length: 2.5 }, "TOKENIZER_OPTION"],
    ["an impossible padding", { text: "a", padding: "left" as never }, "TOKENIZER_OPTION"],
    ["an impossible side", { text: "a", padding: true, padding_side: "up" as never }, "TOKENIZER_OPTION"],
    ["an impossible size", { images: image(0), size: -1 }, "IMAGE_OPTION"],
    ["an image that is none", { images: 7 as never }, "BAD_PIXELS"],
    ["too many images", { images: Array.from({ length: 1000 }, () => image(0)) }, "BATCH_LIMIT"],
    ["no images in the list", { images: [] }, "BAD_PIXELS"],
  ];
  test.each(cases)("%s", async (_, input, code) => {
    expect(await codeOf((await load("vicuna"))(input))).toBe(code);
  });

  test("says what was probably meant", async () => {
    const processor = await load("vicuna");
    await expect(processor({ text: "a", paddign: true } as never)).rejects.toThrow("did you mean padding?");
    await expect(processor({ text: ["a", "a dog"] })).rejects.toThrow("padding: true");
  });

  test("images without num_query_tokens", async () => {
    const processor = await load("vicuna_without_queries");
    expect(await codeOf(processor({ text: "a", images: image(0) }))).toBe("CONFIG_MISSING");
    expect(await codeOf(processor({ text: "a" }))).toBe("accepted");
  });

  test("a folder without its parts, or with damaged ones", async () => {
    const files = filesOf(GOLDEN.folders.vicuna);
    const without = (prefix: string) =>
      memoryFolder(Object.fromEntries(Object.entries(files).filter(([file]) => !file.startsWith(prefix))));
    const from = (folder: ReturnType<typeof memoryFolder>) => codeOf(InstructBlipProcessor.from_pretrained(folder));
    expect(await from(without("qformer_tokenizer/"))).toBe("TOKENIZER_MISSING");
    expect(await from(without("tokenizer.json"))).toBe("TOKENIZER_MISSING");
    expect(await from(without("processor_config"))).toBe("CONFIG_MISSING");
    for (const num_query_tokens of [0, -1, 1.5, "32", 4097, 2e8]) {
      const config = JSON.stringify({ ...JSON.parse(files["processor_config.json"]), num_query_tokens });
      expect(await from(memoryFolder({ ...files, "processor_config.json": config }))).toBe("CONFIG_RANGE");
    }
  });
});

test("files cannot ask for more padding than any text has tokens", async () => {
  const files = filesOf(GOLDEN.folders.vicuna);
  const config = JSON.parse(files["tokenizer_config.json"]);
  for (const asked of [
    { padding: "max_length", max_length: 4e8 },
    { padding: "max_length", model_max_length: 4e8 },
    { padding: true, pad_to_multiple_of: 4e8 },
  ]) {
    const text = JSON.stringify({ ...config, ...asked });
    const processor = await InstructBlipProcessor.from_pretrained(
      memoryFolder({ ...files, "tokenizer_config.json": text }),
    );
    expect(await codeOf(processor({ text: "a" })), text).toBe("TOKENIZER_LENGTH");
  }
});

describe("in Node", () => {
  let folder: string;
  beforeAll(async () => {
    setPlatform(nodePlatform);
    folder = await mkdtemp(join(tmpdir(), "processor-"));
  });
  afterAll(() => rm(folder, { recursive: true }));

  test("turns images upright only when asked", async () => {
    const processor = await load("vicuna");
    const [stored, upright] = [path("images/exif_6.jpg"), path("images/exif_1.jpg")];
    const valuesOf = async (images: string, exif_transpose?: boolean) =>
      (await processor({ images, exif_transpose })).pixel_values!.data;
    expect(await valuesOf(stored)).toEqual(await valuesOf(stored, false));
    expect(await valuesOf(stored, true)).not.toEqual(await valuesOf(stored));
    expect(await valuesOf(upright, true)).toEqual(await valuesOf(upright));
  });

  test("opens a folder by its path", async () => {
    for (const [file, text] of Object.entries(filesOf(GOLDEN.folders.t5))) {
      if (!file.includes("/")) await writeFile(join(folder, file), text);
    }
    expect(await codeOf(InstructBlipProcessor.from_pretrained(folder))).toBe("TOKENIZER_MISSING");
    await expect(InstructBlipProcessor.from_pretrained(folder)).rejects.toThrow(/qformer_tokenizer/);
    expect(await codeOf(InstructBlipProcessor.from_pretrained(join(folder, "nowhere")))).toBe("NOT_FOUND");
  });
});

test("decodes as its tokenizer does", async () => {
  const processor = await load("vicuna");
  const { input_ids } = await processor({ text: "a dog", images: image(0) });
  expect(processor.batch_decode(input_ids, { skip_special_tokens: true })).toEqual(["a dog"]);
  expect(processor.decode(input_ids[0])).toContain("<image>");
});
