/** Regression tests of faults found by fuzzing. */
import { expect, test } from "vitest";
import { AutoConfig, AutoProcessor, InstructBlipVideoProcessor } from "../../src/index.node.ts";
import { parseRequest } from "../../src/instructblip/cli/requests/requests.ts";
import { JsonFolder } from "../../src/instructblip/config/json_folder.ts";
import { openParquet } from "../../src/instructblip/data/parquet.ts";
import { parseQuestion, parseTask } from "../../src/instructblip/evaluation/task.ts";
import { decodingConfig } from "../../src/instructblip/generation/configuration.ts";
import { readRankOptions } from "../../src/instructblip/generation/ranking.ts";
import { BlipImageProcessor } from "../../src/instructblip/processing/image_processor.ts";
import { Tokenizer } from "../../src/instructblip/tokenizer/tokenizer.ts";
import { LayerNorm } from "../../src/modules/norm.ts";
import { checkStorage, readStorage } from "../../src/modules/storage_dtype.ts";
import { Weights } from "../../src/modules/weights.ts";
import { activationCode } from "../../src/tensor/activation.ts";
import { optionsOf } from "../../src/tensor/arguments.ts";
import { plan } from "../../src/tensor/device/plan.ts";
import { nearest } from "../../src/tensor/errors.ts";
import { Checkpoint } from "../../src/tensor/files/checkpoint.ts";
import { FileSource } from "../../src/tensor/files/source.node.ts";
import { MemorySource } from "../../src/tensor/files/source.ts";
import { committedFolder } from "../golden_folder.ts";
import { memoryFolder } from "../instructblip/processing/processor_golden.ts";
import { openLedgerDevice } from "../official/ledger_device.ts";
import { build, entry } from "../tensor/files/corpus/files.ts";
import { TARGETS } from "./targets.ts";

const code = async (run: () => unknown): Promise<string> => {
  try {
    await run();
    return "accepted";
  } catch (error) {
    return (error as { code?: string }).code ?? `untyped ${String(error)}`;
  }
};
const cyclic: unknown[] = [];
cyclic.push(cyclic);
const deep = `${"[".repeat(5000)}${"]".repeat(5000)}`;

test.each<[string, string, () => unknown]>([
  [
    "JSON deeper than the stack, read by any reader",
    "CONFIG_JSON",
    () => JsonFolder.of(memoryFolder({ a: `{"a":${deep}}` })).json("a"),
  ],
  ["… in config.json", "CONFIG_JSON", () => AutoConfig.parse(`{"model_type":"instructblip","a":${deep}}`)],
  ["… in a task", "BAD_TASK", () => parseTask(`{"a":${deep}}`, "task.json")],
  [
    "a rope_type without a text",
    "UNSUPPORTED_ROPE",
    () =>
      AutoConfig.parse(
        '{"model_type":"instructblip","text_config":{"model_type":"llama","rope_parameters":{"rope_type":{"toString":1}}}}',
      ),
  ],
  ["an activation, of an op, without a text", "ACTIVATION", () => activationCode({ toString: 1 } as never)],
  [
    "a variant without a text",
    "PLAN",
    () => plan("row", openLedgerDevice(2 ** 20).device.caps, { row: { toString: 1 } as never }),
  ],
  [
    "hidden_act without a text",
    "UNSUPPORTED_ACT",
    () => AutoConfig.parse('{"model_type":"instructblip","vision_config":{"hidden_act":{"toString":1}}}'),
  ],
  [
    "an option that is a cycle",
    "PARAM_RANGE",
    () =>
      decodingConfig(
        { top_p: cyclic as never },
        { promptLength: 1, vocabulary: 9, eos_token_id: null, pad_token_id: null },
      ),
  ],
  [
    "an option that is a bigint",
    "PARAM_RANGE",
    () =>
      decodingConfig({ seed: 7n as never }, { promptLength: 1, vocabulary: 9, eos_token_id: null, pad_token_id: null }),
  ],
  [
    "candidates that are a cycle",
    "BAD_CANDIDATES",
    () => readRankOptions({ candidates: cyclic as never }, 1, {} as never),
  ],
  ["no options to rank by", "ARGUMENTS", () => optionsOf("rank_answers", [null])],
  ["an image that is a number", "BAD_PIXELS", () => new BlipImageProcessor().preprocess([5 as never])],
  [
    "a shape that is a number",
    "BAD_PIXELS",
    () => new BlipImageProcessor().preprocess([{ data: new Uint8Array(3), shape: 2 as never }]),
  ],
  [
    "a shape that is null",
    "BAD_PIXELS",
    () => new BlipImageProcessor().preprocess([{ data: new Uint8Array(3), shape: null as never }]),
  ],
])("%s: %s", async (_, expected, run) => {
  expect(await code(run)).toBe(expected);
});

test("a dtype that is no text", () => {
  for (const dtype of [{ toString: 1 }, cyclic, Symbol("f16"), 7n, null, { language_model: Object.create(null) }]) {
    expect(() => checkStorage(readStorage(dtype as never), [])).toThrow(/unknown dtype/);
  }
});

test("a tokenizer whose truncation and model type are no texts", () => {
  const vocab = { "[UNK]": 0 };
  const model = { type: "WordPiece", unk_token: "[UNK]", vocab };
  const truncation = { direction: { toString: 1 } };
  expect(() => new Tokenizer({ tokenizer: { model, truncation } })).toThrow(/truncation_side must be/);
  const odd = { model: { type: { toString: 1 } } };
  expect(() => new Tokenizer({ tokenizer: odd, config: { tokenizer_class: "BertTokenizer" } })).toThrow(
    /needs a WordPiece/,
  );
});

test("processors: nothing at all, names with a NUL, frames that are missing", async () => {
  const processor = await AutoProcessor.from_pretrained(committedFolder("opt_plain"));
  expect(await code(() => processor(undefined as never))).toBe("NO_INPUT");
  expect(await code(() => processor({ images: "\0", text: "a" }))).toBe("IMAGE_SOURCE");
  expect(await code(() => FileSource.open("\0"))).toBe("NOT_FOUND");
  const video = await InstructBlipVideoProcessor.from_pretrained(committedFolder("video_3_frames_t5"));
  expect(await code(() => video({ images: new Array(3) as never, text: "a" }))).toBe("BAD_PIXELS");
  const shape = [1, 2, 2, 3];
  expect(await code(() => video({ images: { data: new Float64Array(12), shape } as never, text: "a" }))).toBe(
    "BAD_PIXELS",
  );
});

test("a count of queries that no model has", async () => {
  const files = { "processor_config.json": '{"num_query_tokens":200000000,"image_processor":{}}' };
  const { readQueryCount } = await import("../../src/instructblip/processing/processor_files.ts");
  expect(await code(() => readQueryCount(JsonFolder.of(memoryFolder(files))))).toBe("CONFIG_RANGE");
});

test("a task's prompt that multiplies a field", async () => {
  const task = parseTask(JSON.stringify({ prompt: "{q}".repeat(10_000), metric: "exact_match" }), "task.json");
  const item = JSON.stringify({ id: 1, image: "a", answers: ["a"], q: "x".repeat(100_000) });
  expect(await code(() => parseQuestion(item, task))).toBe("BAD_DATA");
});

test("an option's name of a million letters is refused, not searched for", () => {
  const name = "max_new_tokens".repeat(70_000);
  const { error } = parseRequest(JSON.stringify({ images: ["a"], prompts: ["a"], generation: { [name]: 1 } }));
  expect(error?.code).toBe("UNKNOWN_OPTION");
  expect(error!.message.length).toBeLessThan(2000);
  const names = Array.from({ length: 100_000 }, (_, i) => `${"n".repeat(200)}${i}`);
  expect(nearest(`${"n".repeat(200)}x`, names)).toBe(names[0]); // after some thousand of them
});

test("what is made besides parameters is freed with them, also where the constructor refuses", async () => {
  const { device } = openLedgerDevice(2 ** 30);
  const file = build(`{${entry("a", "F32", [2], [0, 8])}}`, 8);
  const weights = Weights.open(await Checkpoint.open(new MemorySource("m", file)), device);
  new LayerNorm(weights, 8, 1e-5, { elementwise_affine: false });
  expect(() => weights.stackedVector({ a: 2, b: 2 })).toThrow(/no such tensor/);
  weights.dispose();
  expect(device.memory.use.live).toBe(0);
});

test("every target has cases that are read, not only cases that are refused", async () => {
  const { Random } = await import("../random.ts");
  for (const [name, target] of Object.entries(TARGETS)) {
    const prepared = await target.prepare();
    let accepted = 0;
    for (let i = 0; i < 400 && accepted === 0; i++) {
      accepted += Number((await code(() => prepared.run(prepared.make(new Random(i))))) === "accepted");
    }
    expect(accepted, name).toBeGreaterThan(0);
  }
});

test("a Parquet schema with a negative number of children is refused, not read for ever", async () => {
  const file = [
    "UEFSMRUEFSAVIEwVBhUAEgAAAQAAAGECAAAAYmMBAAAAZBUAFSIVIiwVCBUQFQYVBhwAAAACAAAAAwIDAAAAA98AAgMkABUEFSAV",
    "IEwVBhUAEgAAAQAAAGECAAAAYmMBAAAAZBUAFSQVJCwVCBUQFQYVBhwAAAACAAAAAwIEAAAAA2QIAAIDJAAVBBmMNQAYBnNjaGVt",
    "YRUEADUCGAVieXRlcxUCFQZMPAAAADUEGARsaXN0FQIAFQwlAhgHZWxlbWVudAA1AhgHc3RydWN0cxUDFQZMPAAAADUEGARsaXN0",
    "FQIANQIYB2VsZW1lbnQVAgAVDCUCGAVieXRlcwAWBhkcGSwmABwVDBk1AAYQGTgFYnl0ZXMEbGlzdAdlbGVtZW50FQAWCBaEARaE",
    "ASZEJggpLBUEFQAVAgAVABUQFQIAPBYIGSYGAhlGAAIABgAAACYAHBUMGTUABhAZSAdzdHJ1Y3RzBGxpc3QHZWxlbWVudAVieXRl",
    "cxUAFggWhgEWhgEmyAEmjAEpLBUEFQAVAgAVABUQFQIAPBYIGSYGAhlWAAIAAAYAAAAWigIWBiYIFooCACggcGFycXVldC1jcHAt",
    "YXJyb3cgdmVyc2lvbiAyNS4wLjEZLBwAABwAAABWAQAAUEFSMQ==",
  ].join("");
  expect(await code(() => openParquet(new MemorySource("a.parquet", Buffer.from(file, "base64"))))).toBe(
    "BAD_DATA_FILE",
  );
});
