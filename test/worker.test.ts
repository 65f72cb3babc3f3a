/** `instructblip-webgpu/worker`, with both ends in this process. `npm run browser:check` tests it in a browser's worker. */
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { AutoModelForImageTextToText, AutoProcessor, EngineError, openDevice, WeightError } from "../src/index.node.ts";
import * as errors from "../src/tensor/errors.ts";
import { errorOf, failureOf } from "../src/tensor/failure.ts";
import {
  answerCalls,
  connect,
  type RemoteModel,
  type RemoteProcessor,
  TextIteratorStreamer,
  type WorkerClient,
  type WorkerLike,
} from "../src/worker.ts";
import { onOneGpu } from "./one_gpu.ts";

const EMBEDDED = fileURLToPath(new URL("../examples/shapes/checkpoint", import.meta.url));
const IMAGE = fileURLToPath(new URL("../examples/shapes/images/a.png", import.meta.url));
const QUESTION = { images: [IMAGE], text: ["Describe the image."] };

/** Calls of an application's own. */
type Own = {
  queries: { asked: { model: RemoteModel; times: number }; news: string; result: number };
  fail: { asked: null; news: never; result: null };
};

/** Both ends, without a thread between them. */
function pair(): { client: WorkerClient<Own>; close(): void } {
  const { port1, port2 } = new MessageChannel();
  answerCalls<Own>(
    {
      queries: async ({ model, times }, { tell }) => {
        tell(model.constructor.name);
        return times * model.config.num_query_tokens;
      },
      fail: async () => {
        throw new WeightError("IO", "not here", { hint: "there" });
      },
    },
    port2 as unknown as Parameters<typeof answerCalls>[1],
  );
  const close = () => {
    port1.close();
    port2.close();
  };
  return { client: connect<Own>(port1 as unknown as WorkerLike), close };
}

let client: WorkerClient<Own>;
let close: () => void;
let model: RemoteModel;
let processor: RemoteProcessor;
/** What the library says without a worker. */
let expected: { sequences: number[][]; texts: string[]; pixels: Float32Array };

const answerOptions = { max_new_tokens: 12, return_full_text: false };

beforeAll(() =>
  onOneGpu(async () => {
    const device = await openDevice();
    const here = await AutoModelForImageTextToText.from_pretrained(EMBEDDED, { device });
    const words = await AutoProcessor.from_pretrained(EMBEDDED);
    const inputs = await words(QUESTION);
    const sequences = await here.generate({ ...inputs, ...answerOptions });
    const texts = words.batch_decode(sequences, { skip_special_tokens: true });
    expected = { sequences, texts, pixels: inputs.pixel_values.data };
    device.destroy();
    ({ client, close } = pair());
    processor = await client.AutoProcessor.from_pretrained(EMBEDDED);
    model = await client.AutoModelForImageTextToText.from_pretrained(EMBEDDED);
  }),
);
afterAll(() => close());

test("answers as without a worker", async () => {
  const inputs = await processor(QUESTION);
  expect(inputs.pixel_values.data).toEqual(expected.pixels);
  const sequences = await model.generate({ ...inputs, ...answerOptions });
  expect(sequences).toEqual(expected.sequences);
  expect(await processor.batch_decode(sequences, { skip_special_tokens: true })).toEqual(expected.texts);
  expect(await processor.decode(sequences[0], { skip_special_tokens: true })).toBe(expected.texts[0]);
  const { sequences: same, logprobs } = await model.generate(inputs, {
    ...{ ...answerOptions, return_full_text: undefined, logprobs: 2 },
    return_dict_in_generate: true,
  });
  expect(same[0].slice(-expected.sequences[0].length)).toEqual(expected.sequences[0]);
  expect(logprobs![0].tokens[0].top).toHaveLength(2);
  const first = expected.sequences[0].slice(0, 1);
  const [ranked] = await model.rank_answers({ ...inputs, candidates: [[5], first] });
  expect(ranked.ranks).toEqual([1, 0]);
});

test("tells what the library says of itself", async () => {
  expect([processor.processor_class, processor.num_query_tokens]).toEqual(["InstructBlipProcessor", 12]);
  expect([model.config.model_type, model.warnings]).toEqual(["instructblip", []]);
  expect(await client.openDevice()).toMatchObject({ maxBindingBytes: expect.any(Number) });
});

describe("a stream", () => {
  test("of text comes in pieces, before the result", async () => {
    const streamer = new TextIteratorStreamer(processor.tokenizer, { skip_prompt: true, skip_special_tokens: true });
    const inputs = await processor(QUESTION);
    const steps: number[] = [];
    const done = model.generate({ ...inputs, ...answerOptions, streamer, on_token: (step) => steps.push(step) });
    const pieces: string[] = [];
    for await (const piece of streamer) pieces.push(piece);
    expect(pieces.length).toBeGreaterThan(2);
    expect(pieces.join("").trim()).toBe(expected.texts[0].trim());
    expect(await done).toEqual(expected.sequences);
    expect(steps).toEqual(expected.sequences[0].map((_, i) => i));
  });

  test("of ids has the prompt, then one id a step, and its end", async () => {
    const seen: (readonly number[])[] = [];
    let ended = 0;
    const put = ([row]: readonly (readonly number[])[]) => void seen.push(row);
    const inputs = await processor(QUESTION);
    await model.generate({ ...inputs, ...answerOptions, streamer: { put, end: () => void ended++ } });
    expect(seen.slice(1).flat()).toEqual(expected.sequences[0]);
    expect([seen[0].length, ended]).toEqual([inputs.input_ids![0].length, 1]);
  });

  test("whose reader stops ends the answer", async () => {
    const streamer = new TextIteratorStreamer(processor.tokenizer, { skip_prompt: true });
    const done = model.generate({ ...(await processor(QUESTION)), min_new_tokens: 60, max_new_tokens: 60, streamer });
    for await (const _ of streamer) break;
    expect((await done)[0].length).toBeLessThan(60);
  });

  test("with stop_strings takes the processor's tokenizer", async () => {
    const [word] = expected.texts[0].trim().split(" ");
    const inputs = await processor(QUESTION);
    const options = { ...answerOptions, stop_strings: [word], tokenizer: processor.tokenizer };
    const [row] = await model.generate({ ...inputs, ...options });
    expect(row.length).toBeLessThan(expected.sequences[0].length);
  });
});

describe("what fails, fails as without a worker", () => {
  test.each<[string, () => Promise<unknown>, unknown]>([
    ["pixels", () => model.generate({} as never), { name: "InputError", code: "BAD_PIXELS" }],
    ["a folder", () => client.AutoProcessor.from_pretrained("/nowhere"), { name: "WeightError", code: "NOT_FOUND" }],
    [
      "a dtype",
      () => client.AutoModelForImageTextToText.from_pretrained(EMBEDDED, { dtype: "int3" as "int4" }),
      { name: "InputError", code: "DTYPE" },
    ],
    ["an own call", () => client.call("fail", null), { name: "WeightError", code: "IO", hint: "there" }],
    ["an unknown call", () => client.call("nothing" as "fail", null), { name: "InputError", code: "BAD_INPUT" }],
    [
      "a function",
      () => model.generate({ logits_processor: [() => {}] } as never),
      { code: "WORKER_CLONE", message: expect.stringContaining("logits_processor.0") },
    ],
    [
      "a device",
      () => client.AutoModelForImageTextToText.from_pretrained("x", { device: {} } as never),
      { code: "UNSUPPORTED_OPTION" },
    ],
    ["no place", () => client.AutoProcessor.from_pretrained(3 as never), { code: "BAD_INPUT" }],
  ])("%s", async (_, call, error) => {
    const failed = await call().then(
      () => expect.unreachable(),
      (thrown: unknown) => thrown,
    );
    expect(failed).toMatchObject(error as object);
    expect(failed).toBeInstanceOf(EngineError);
  });

  test("with the signal's reason, and a listener's error", async () => {
    const inputs = await processor(QUESTION);
    const long = { ...inputs, min_new_tokens: 60, max_new_tokens: 60 };
    const controller = new AbortController();
    const reason = new Error("enough");
    const on_token = (step: number) => step === 3 && controller.abort(reason);
    await expect(model.generate({ ...long, signal: controller.signal, on_token })).rejects.toBe(reason);
    await expect(model.generate({ ...long, signal: controller.signal })).rejects.toBe(reason);
    const broken = () => {
      throw reason;
    };
    await expect(model.generate({ ...long, on_token: broken })).rejects.toBe(reason);
    const streamer = new TextIteratorStreamer(processor.tokenizer);
    const failing = model.generate({ ...inputs, max_new_token: 1, streamer } as never).catch((error) => error.code);
    const read = async () => {
      for await (const _ of streamer);
    };
    await expect(read()).rejects.toMatchObject({ code: "UNKNOWN_OPTION" });
    expect(await failing).toBe("UNKNOWN_OPTION");
  });

  test("for every class of errors", () => {
    const made = [
      ...[errors.ConfigError, errors.DeviceError, errors.EngineError, errors.InputError].map(
        (E) => new E("A", "m", { hint: "h" }),
      ),
      ...[errors.KernelError, errors.WeightError].map((E) => new E("A", "m")),
      ...[
        new errors.ShapeError("m", "h"),
        new errors.DTypeError("m"),
        new errors.NumericError("m", { module: "qformer" }),
      ],
    ];
    expect(new Set(made.map((error) => error.name)).size).toBe(9);
    for (const error of made) {
      const back = errorOf(structuredClone(failureOf(error)));
      expect(back).toBeInstanceOf(error.constructor);
      expect({ ...back, message: back.message }).toEqual({ ...error, message: error.message });
    }
    expect(errorOf(failureOf(new RangeError("r")))).toMatchObject({ name: "RangeError", message: "r" });
    expect(errorOf(failureOf("odd"))).toMatchObject({ name: "Error", message: "odd" });
  });
});

test("calls of one's own are given the worker's objects", async () => {
  const told: string[] = [];
  const queries = await client.call("queries", { model, times: 2 }, { tell: (name) => told.push(name) });
  expect([queries, told]).toEqual([24, ["InstructBlipForConditionalGeneration"]]);
});

test("disposed, lost and gone are said", () =>
  onOneGpu(async () => {
    const { client, close } = pair();
    const processor = await client.AutoProcessor.from_pretrained(EMBEDDED);
    await processor.dispose();
    await expect(processor(QUESTION)).rejects.toMatchObject({ code: "DISPOSED" });
    client.terminate();
    await expect(client.openDevice()).rejects.toMatchObject({ name: "DeviceError", code: "WORKER_GONE" });
    close();
  }));
