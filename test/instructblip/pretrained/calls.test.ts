/** Arguments are copied at the call: none is dropped, and none is read later. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import {
  candidateIds,
  InstructBlipForConditionalGeneration,
  InstructBlipProcessor,
  TextIteratorStreamer,
  WatermarkDetector,
} from "../../../src/index.node.ts";
import type { InstructBlipInputs } from "../../../src/instructblip/pretrained/instructblip.ts";
import { copyOf } from "../../../src/tensor/arguments.ts";
import { testDevice } from "../../device.ts";
import { goldenFolder } from "../../golden_folder.ts";
import { goldenInputs } from "../../parity/golden.ts";

const device = await testDevice();
const model = await InstructBlipForConditionalGeneration.from_pretrained(goldenFolder("plain_f32"), { device });
const processor = await InstructBlipProcessor.from_pretrained("examples/shapes/checkpoint");
const image = new Uint8Array(readFileSync("examples/shapes/images/a.png"));
const given = (await goldenInputs("plain_f32")) as InstructBlipInputs;
afterAll(() => model.dispose());

/** Every number in `value` becomes another one, in place. */
function spoil(value: unknown): void {
  if (ArrayBuffer.isView(value)) new Uint8Array(value.buffer, value.byteOffset, value.byteLength).fill(0xff);
  else if (Array.isArray(value)) {
    for (const [i, item] of value.entries()) {
      if (typeof item === "number") value[i] = 1e6;
      else spoil(item);
    }
    value.push(1e6);
  } else if (typeof value === "object" && value !== null && Object.getPrototypeOf(value) === Object.prototype) {
    for (const [name, item] of Object.entries(value)) {
      if (typeof item === "number") (value as Record<string, unknown>)[name] = 1e6;
      else spoil(item);
    }
  }
}

/** The same result whether or not its arguments are spoilt as soon as the call has returned. */
async function expectSnapshot(args: () => unknown[], call: (...args: never[]) => Promise<unknown>): Promise<void> {
  const expected = await call(...(args() as never[]));
  const spoilt = args();
  const result = call(...(spoilt as never[]));
  for (const one of spoilt) spoil(one);
  expect(await result).toEqual(expected);
}

const fresh = (): InstructBlipInputs => structuredClone(given);

describe("changes by the caller after the call have no effect", () => {
  test("generate", async () => {
    const options = () => ({
      max_new_tokens: 3,
      bad_words_ids: [[7], [8, 9]],
      sequence_bias: [[[5], 0.5]],
      suppress_tokens: [11],
      negative_prompt_ids: [[5, 6]],
      guidance_scale: 1.5,
      watermarking_config: { bias: 3 },
    });
    await expectSnapshot(
      () => [fresh(), options()],
      (...args) => model.generate(...(args as unknown as [typeof given])),
    );
    await expectSnapshot(
      () => [{ ...fresh(), ...options() }],
      (inputs) => model.generate(inputs),
    );
  });

  test("forward, its labels, and the methods for features", async () => {
    const labels = () => ({ labels: given.input_ids.map((row) => [...row]), logits_to_keep: 0 });
    await expectSnapshot(
      () => [{ ...fresh(), ...labels() }],
      async (inputs) => {
        const { loss, logits } = await model.forward(inputs);
        return { loss, logits: await logits.read() };
      },
    );
    await expectSnapshot(
      () => [fresh()],
      async (inputs) => (await model.get_image_features(inputs)).image_features.read(),
    );
    await expectSnapshot(
      () => [fresh()],
      async (inputs) => (await model.get_qformer_features(inputs)).last_hidden_state.read(),
    );
  });

  test("rank_answers", async () => {
    const options = () => ({ candidates: [[5], [6, 7], [8]], groups: [0, 1, 1], segment_size: 1 });
    await expectSnapshot(
      () => [fresh(), options()],
      (inputs, more) => model.rank_answers(inputs, more),
    );
  });

  test("a processor's images, of every kind, and options", async () => {
    const rgb = () => ({ data: new Uint8Array(3 * 20 * 20).map((_, i) => i), width: 20, height: 20 });
    const tensor = () => ({ data: Float32Array.from({ length: 3 * 12 * 12 }, (_, i) => i / 432), shape: [3, 12, 12] });
    const input = () => ({
      images: [image.slice(), Buffer.from(image), rgb(), tensor()],
      text: ["a", "b", "c", "d"],
      images_kwargs: { image_mean: [0.1, 0.2, 0.3] },
      text_kwargs: { max_length: 60, padding: "max_length" },
    });
    await expectSnapshot(
      () => [input()],
      (one) => processor(one as never),
    );
  });

  test("save_pretrained", async () => {
    const save = async (options: object) => {
      const folder = mkdtempSync(join(tmpdir(), "calls-"));
      try {
        await model.save_pretrained(folder, options);
        return readdirSync(folder).sort();
      } finally {
        rmSync(folder, { recursive: true });
      }
    };
    await expectSnapshot(() => [{ max_shard_size: 100_000 }], save as never);
  });

  test("a streamer gets copies", async () => {
    const streamer = { put: (rows: number[][]) => spoil(rows), end() {} };
    for (const num_beams of [1, 2]) {
      const one = { ...given, max_new_tokens: 3, num_beams };
      const best = (rows: number[][]) => spoil(rows);
      expect(await model.generate({ ...one, streamer: { ...streamer, best } as never })).toEqual(
        await model.generate(one),
      );
    }
  });

  test("a tensor's shape", () => {
    const shape = [2, 3];
    const tensor = device.tensor(new Float32Array(6), shape);
    shape[0] = 7;
    expect(tensor.shape).toEqual([2, 3]);
    expect(() => (tensor.shape as number[]).push(1)).toThrow(TypeError);
    tensor.dispose();
  });
});

test("only numbers are copied: methods keep their object, and cycles end", () => {
  const streamer = { cancelled: false, put() {}, end() {} };
  const { signal } = new AbortController();
  const cycle: unknown[] = [1];
  cycle.push(cycle);
  const copy = copyOf({ streamer, signal, cycle, empty: new Float32Array(structuredClone(new ArrayBuffer(8)), 0, 0) });
  expect(copy.streamer).toBe(streamer);
  expect(copy.signal).toBe(signal);
  expect(copy.cycle).not.toBe(cycle);
  expect(copy.cycle[1]).toBe(copy.cycle);
  let deep: unknown[] = [];
  for (let i = 0; i < 50_000; i++) deep = [deep];
  expect(copyOf(deep)).toHaveLength(1);
  const detached = new Float32Array(4);
  structuredClone(detached, { transfer: [detached.buffer] });
  expect(copyOf({ detached }).detached).toHaveLength(0);
  expect(() => copyOf(new Array(2 ** 32 - 1))).toThrow("a list of 4294967295 items is too long");
});

describe("options in a second object, as Python's keyword arguments", () => {
  test("generate, forward and rank_answers take them", async () => {
    const together = await model.generate({ ...given, max_new_tokens: 3, num_beams: 2 });
    expect(await model.generate(given, { max_new_tokens: 3, num_beams: 2 })).toEqual(together);
    expect(await model.generate({ ...given, num_beams: 2 }, { max_new_tokens: 3 })).toEqual(together);
    const { sequences } = await model.generate(given, { max_new_tokens: 3, return_dict_in_generate: true });
    expect(sequences[0].length).toBe(given.input_ids[0].length + 3);
    const labels = given.input_ids;
    expect((await model.forward(given, { labels })).loss).toBe((await model.forward({ ...given, labels })).loss);
    const candidates = [[5], [6]];
    expect(await model.rank_answers(given, { candidates })).toEqual(await model.rank_answers({ ...given, candidates }));
  });

  test("a processor takes them", async () => {
    const input = { images: [image], text: ["What is this?"] };
    const options = { padding: "max_length", max_length: 60 } as const;
    const together = await processor({ ...input, ...options });
    expect(await (processor as never as (...args: object[]) => Promise<unknown>)(input, options)).toEqual(together);
  });

  test.each<[string, (anything: never) => unknown, string | RegExp]>([
    [
      "generate, twice the same",
      () => model.generate({ ...given, max_new_tokens: 3 }, { max_new_tokens: 4 }),
      '"max_new_tokens" twice',
    ],
    ["generate, a third", (more) => model.generate(given, {}, more), "generate takes 2 arguments, got 3"],
    ["generate, a number", (more) => model.generate(given, more), "argument 2 of generate must be an object, got 7"],
    [
      "generate, a list",
      () => model.generate([given] as never),
      "argument 1 of generate must be an object, got a list",
    ],
    ["generate, what was not awaited", () => model.generate(processor({ text: "a" }) as never), "await it"],
    [
      "forward, an unknown option",
      () => model.forward(given, { label: [[1]] } as never),
      'forward has no option "label"\n    hint: did you mean labels?',
    ],
    ["forward, a third", (more) => model.forward(given, {}, more), "forward takes 2 arguments"],
    [
      "get_image_features",
      (more) => model.get_image_features(given, { observe: more } as never),
      "did you mean observer?",
    ],
    [
      "get_image_features, an input",
      () => model.get_image_features({ pixel_value: 5 } as never),
      "did you mean pixel_values?",
    ],
    ["get_qformer_features", (more) => model.get_qformer_features(given, {}, more), "takes 2 arguments"],
    ["rank_answers", () => model.rank_answers({ ...given, candidate: [[5]] } as never), "did you mean candidates?"],
    [
      "save_pretrained, an option",
      () => model.save_pretrained("x", { max_shard: 5 } as never),
      "did you mean max_shard_size?",
    ],
    ["save_pretrained, a third", (more) => model.save_pretrained("x", {}, more), "save_pretrained takes"],
    [
      "a processor's save_pretrained",
      (more) => processor.save_pretrained("x", more),
      "save_pretrained takes 1 argument",
    ],
    [
      "a processor, by position",
      () => (processor as unknown as (...a: unknown[]) => unknown)(image, "What?"),
      "called with an object",
    ],
    [
      "a processor, images twice",
      () => (processor as never as (...a: unknown[]) => unknown)({ images: [image] }, { images: [image] }),
      "images twice",
    ],
    [
      "a processor, an unknown option",
      () => (processor as never as (...a: unknown[]) => unknown)({ text: "a" }, { paddin: true }),
      "did you mean padding?",
    ],
    ["decode", () => processor.decode([5], true as never), "hint: write { skip_special_tokens: true }"],
    [
      "decode, an unknown option",
      () => processor.decode([5], { skip_special_token: true } as never),
      "did you mean skip_special_tokens?",
    ],
    ["decode, a third", (more) => processor.decode([5], {}, more), "decode takes"],
    ["decode, rows", () => processor.decode([[5]] as never), "batch_decode takes rows"],
    ["batch_decode", (more) => processor.batch_decode([[5]], more), "must be an object, got 7"],
    ["batch_decode, ids", () => processor.batch_decode([5] as never), "token ids must be a list, got 5"],
    [
      "post_process_image_text_to_text",
      () => processor.post_process_image_text_to_text([[5]], false as never),
      "skip_special_tokens: false",
    ],
    ["encode", () => processor.tokenizer.encode("a", { max_lenght: 5 } as never), "did you mean max_length?"],
    ["candidateIds", (more) => candidateIds(processor.tokenizer, ["a"], more), "eos must be true or false"],
    [
      "a text streamer",
      () => new TextIteratorStreamer(processor.tokenizer, true as never),
      "must be an object, got true",
    ],
    [
      "a text streamer, an option",
      () => new TextIteratorStreamer(processor.tokenizer, { skip_promt: true } as never),
      "did you mean skip_prompt?",
    ],
    [
      "a watermark detector",
      () => new WatermarkDetector({ vocab_size: 10 }, { greenlist: 0.5 } as never),
      "greenlist_ratio",
    ],
    [
      "a watermark detector's options",
      () => new WatermarkDetector({ vocab_size: 10 }).detect([[1, 2, 3]], { z: 3 } as never),
      "z_threshold",
    ],
  ])("refused: %s", async (_, call, message) => {
    await expect((async () => call(7 as never))()).rejects.toMatchObject({
      name: "InputError",
      message: expect.stringContaining(message as string),
    });
  });
});
