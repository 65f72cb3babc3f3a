/** `instructblip-webgpu/worker`, with both ends in this process. `npm run browser:check` tests it in a browser's worker. */
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  AutoModelForImageTextToText,
  AutoProcessor,
  candidateIds,
  EngineError,
  type InstructBlipForConditionalGeneration,
  type InstructBlipInputs,
  MaxLengthCriteria,
  ModelFolder,
  occludedWords,
  openDevice,
  pipeline,
  StoppingCriteriaList,
  WeightError,
} from "../src/index.node.ts";
import * as browser from "../src/index.ts";
import * as errors from "../src/tensor/errors.ts";
import { errorOf, failureOf } from "../src/tensor/failure.ts";
import { FileListFolder } from "../src/tensor/files/source.ts";
import { placed } from "../src/worker/places.ts";
import { REFUSED_NAMES, type RefusedName } from "../src/worker/refused.ts";
import {
  answerCalls,
  connect,
  type RemoteBaseModel,
  type RemoteBlip2Model,
  type RemoteImageModel,
  type RemoteModel,
  type RemoteProcessor,
  type RemoteQFormerModel,
  type RemoteRetrievalModel,
  type RemoteTextModel,
  type RemoteVideoModel,
  type RemoteVisionModel,
  TextIteratorStreamer,
  type WorkerClient,
  type WorkerLike,
} from "../src/worker.ts";
import { onOneGpu } from "./one_gpu.ts";
import { ALL } from "./rounds.ts";

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
let expected: {
  sequences: number[][];
  texts: string[];
  pixels: Float32Array;
  logits: Float32Array;
  features: Float32Array;
  candidates: number[][];
  piped: unknown;
};

const STATES = { logits_to_keep: 1 };
const CANDIDATES = ["red", "orange"];

/** Public names of T that neither R has nor the worker refuses: there must be none. */
type Missing<T, R, Refused> = Exclude<Extract<keyof T, string>, keyof R | Refused>;
type None<T> = [T] extends [never] ? true : T;
type Without = RefusedName<"model">;

const answerOptions = { max_new_tokens: 12, return_full_text: false };

beforeAll(() =>
  onOneGpu(async () => {
    const device = await openDevice();
    const here = await AutoModelForImageTextToText.from_pretrained(EMBEDDED, { device });
    const words = await AutoProcessor.from_pretrained(EMBEDDED);
    const inputs = await words(QUESTION);
    const sequences = await here.generate({ ...inputs, ...answerOptions });
    const texts = words.batch_decode(sequences, { skip_special_tokens: true });
    const { logits } = await here.forward({ ...inputs, ...STATES });
    const { image_features } = await (here as unknown as InstructBlipForConditionalGeneration).get_image_features(
      inputs as InstructBlipInputs,
    );
    const ask = await pipeline("visual-question-answering", { model: here, processor: words });
    expected = {
      ...{ sequences, texts, pixels: inputs.pixel_values.data },
      logits: await logits.read(),
      features: await image_features.read(),
      candidates: candidateIds(words.tokenizer, CANDIDATES),
      piped: await ask(IMAGE, "What is this?", { max_new_tokens: 3 }),
    };
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

describe("has every name of the library, or says why not", () => {
  /** What needs no model works in the page itself. */
  const IN_PAGE = [
    ...Object.keys(browser).filter((name) =>
      /(Config|Error|Folder|File|Criteria|CriteriaList|LogitsProcessor.*)$/.test(name),
    ),
    ...["AutoTokenizer", "Checkpoint", "OpfsCache", "Tensor", "TextIteratorStreamer", "TextStreamer"],
    ...["WatermarkDetector", "chromeTrace", "load_image", "profileReport"],
    // AutoProcessor makes them.
    ...["Blip2Processor", "InstructBlipProcessor", "InstructBlipVideoProcessor"],
    // They call what they are given: a worker's processor is a function, too.
    "occludedWords",
  ];

  test("of functions and classes", () => {
    const missing = Object.keys(browser).filter((name) => !IN_PAGE.includes(name) && !has(client, name));
    expect(missing.filter((name) => !REFUSED_NAMES.client.includes(name))).toEqual([]);
    expect(REFUSED_NAMES.client.filter((name) => !(name in browser))).toEqual([]);
  });

  test("of models and processors", () => {
    // The compiler holds them to this.
    const none: readonly [
      None<Missing<browser.InstructBlipForConditionalGeneration, RemoteImageModel, Without>>,
      None<Missing<browser.Blip2ForConditionalGeneration, RemoteImageModel, Without>>,
      None<Missing<browser.InstructBlipVideoForConditionalGeneration, RemoteVideoModel, Without>>,
      None<Missing<browser.Blip2ForImageTextRetrieval, RemoteRetrievalModel, Without>>,
      None<Missing<browser.Blip2VisionModelWithProjection, RemoteVisionModel, Without>>,
      None<Missing<browser.Blip2TextModelWithProjection, RemoteTextModel, Without>>,
      None<Missing<browser.Blip2Model, RemoteBlip2Model, Without>>,
      None<Missing<browser.InstructBlipModel, RemoteBaseModel, Without>>,
      None<Missing<browser.InstructBlipVideoModel, RemoteBaseModel, Without>>,
      None<Missing<browser.Blip2QFormerModel, RemoteQFormerModel, Without>>,
      None<Missing<browser.InstructBlipProcessor, RemoteProcessor, RefusedName<"processor"> | keyof CallableFunction>>,
    ] = [true, true, true, true, true, true, true, true, true, true, true];
    expect(none).not.toContain(false);
    for (const name of REFUSED_NAMES.model) expect(() => (model as never)[name]).toThrow(name);
    for (const name of REFUSED_NAMES.processor) expect(() => (processor as never)[name]).toThrow(name);
  });

  test.each<[string, () => unknown]>([
    ["language_model", () => (model as unknown as Record<string, unknown>).language_model],
    ["state_dict", () => (model as unknown as { state_dict(): unknown }).state_dict()],
    ["profile", () => (client as unknown as { profile(): unknown }).profile()],
    ["image_processor", () => (processor as unknown as Record<string, unknown>).image_processor],
  ])("%s", (name, use) => {
    expect(use).toThrow(
      expect.objectContaining({
        code: "WORKER_CLONE",
        message: expect.stringMatching(new RegExp(`^${name} .*answerCalls`, "s")),
      }),
    );
  });

  function has(object: object, name: string): boolean {
    try {
      return name in object && (object as Record<string, unknown>)[name] !== undefined;
    } catch {
      return false;
    }
  }
});

describe("a pass", () => {
  test("gives tensors, which are read and disposed as the library's", async () => {
    const inputs = await processor(QUESTION);
    const output = await model.forward(inputs, STATES);
    const { logits } = output;
    expect([logits.dtype, logits.shape.length]).toEqual(["f32", 3]);
    expect(await logits.read()).toEqual(expected.logits);
    await logits.dispose();
    await expect(logits.read()).rejects.toMatchObject({ code: "DISPOSED" });
    expect(output.qformer_outputs.last_hidden_state.shape).toHaveLength(3);
    const { image_features } = await (model as RemoteImageModel).get_image_features(inputs);
    expect(await image_features.read()).toEqual(expected.features);
  });

  test("refuses what the library's refuses, and what has methods by its name", async () => {
    const inputs = await processor(QUESTION);
    class Seen {
      wants() {}
      see() {}
    }
    const observer = { observer: new Seen() } as object;
    const stopping_criteria = new StoppingCriteriaList([new MaxLengthCriteria(3)]);
    for (const [call, error] of [
      [() => model.forward({ ...inputs, top_k: 3 } as never), { code: "UNKNOWN_OPTION" }],
      [
        () => model.forward(inputs, observer),
        { code: "WORKER_CLONE", message: expect.stringMatching(/^forward: observer .*an object with methods/) },
      ],
      [
        () => model.generate({ ...inputs, stopping_criteria } as never),
        { code: "WORKER_CLONE", message: expect.stringMatching(/^generate: stopping_criteria\.0 /) },
      ],
      [() => client.attribute(model, inputs, { methods: ["eyes" as "image"] }), { code: "PARAM_RANGE" }],
      [() => client.logitLens(model, inputs, { top_k: 0 }), { code: "PARAM_RANGE" }],
      [() => client.ablate(model, inputs, { batch_size: 0 }), { code: "PARAM_RANGE" }],
      [() => client.patchActivations(model, inputs, inputs, { batch_size: 0 }), { code: "PARAM_RANGE" }],
    ] as const) {
      await expect(call()).rejects.toMatchObject(error);
    }
  });
});

describe("a pipeline", () => {
  const kwargs = { max_new_tokens: 3 };

  test("answers as the library's", async () => {
    const ask = await client.pipeline("visual-question-answering", { model, processor });
    expect(await ask(IMAGE, "What is this?", kwargs)).toEqual(expected.piped);
    expect(await ask({ image: IMAGE, question: "What is this?", ...kwargs })).toEqual(expected.piped);
    expect(ask.model).toBe(model);
    ask.generation_config.max_new_tokens = 1;
    const [{ answer }] = await ask(IMAGE, "Describe the image.");
    expect(answer.split(" ")).toHaveLength(1);
    await ask.dispose();
    await expect(ask(IMAGE, "What is this?")).rejects.toMatchObject({ code: "DISPOSED" });
  });

  test("streams, and stops at its signal", async () => {
    const pipe = await client.pipeline("image-text-to-text", { model, processor });
    const streamer = new TextIteratorStreamer(processor.tokenizer, { skip_prompt: true, skip_special_tokens: true });
    const done = pipe(IMAGE, { text: "Describe the image.", ...kwargs, generate_kwargs: { streamer } as object });
    let text = "";
    for await (const piece of streamer) text += piece;
    const [{ generated_text }] = await done;
    expect(generated_text.endsWith(text.trim())).toBe(true);
    const reason = new Error("enough");
    const signal = AbortSignal.abort(reason);
    await expect(pipe(IMAGE, { text: "a", generate_kwargs: { signal } })).rejects.toBe(reason);
  });

  test("refuses as the library's", async () => {
    const from = EMBEDDED as never;
    const task = "text-to-video" as "image-to-text";
    await expect(client.pipeline(task, { model: from })).rejects.toMatchObject({ code: "UNKNOWN_OPTION" });
    const device = {} as never;
    await expect(client.pipeline("image-to-text", { model: from, device } as never)).rejects.toMatchObject({
      code: "UNSUPPORTED_OPTION",
    });
    await expect(
      pipeline("image-to-text", { model: await ModelFolder.open(EMBEDDED), revision: "main" }),
    ).rejects.toMatchObject({ code: "UNSUPPORTED_OPTION", message: expect.stringContaining("revision") });
  });
});

test("tokenizers and instruments take the worker's objects", async () => {
  const { tokenizer } = processor;
  expect(await client.candidateIds(tokenizer, CANDIDATES)).toEqual(expected.candidates);
  const ids = await tokenizer.encode("red");
  expect((await tokenizer.decode(ids, { skip_special_tokens: true })).trim()).toBe("red");
  expect(await tokenizer.convert_ids_to_tokens(tokenizer.eos_token_id!)).toBeTypeOf("string");
  expect(await tokenizer.convert_ids_to_tokens(10 ** 6)).toBeUndefined();
  const inputs = await processor({ ...QUESTION, text: ["What is this?"] });
  const words = await occludedWords(processor, "What is this?", inputs);
  expect(words.map(({ text }) => text)).toEqual(["What", "is", "this", "?"]);
});

test.runIf(ALL)("instruments and an assistant answer as without a worker", async () => {
  const inputs = await processor(QUESTION);
  const here = await AutoModelForImageTextToText.from_pretrained(EMBEDDED);
  const local = (await (
    await AutoProcessor.from_pretrained(EMBEDDED)
  )(QUESTION)) as Parameters<typeof here.generate>[0];
  const answer = expected.sequences[0].slice(0, 2);
  const [lens, attributed, ablated] = [
    await client.logitLens(model, inputs, { answer, top_k: 1 }),
    await client.attribute(model, inputs, { answer, methods: ["image"] }),
    await client.ablate(model, inputs, { answer, targets: ["qformer.queries"] }),
  ];
  expect(lens).toEqual(await browser.logitLens(here, local, { answer, top_k: 1 }));
  expect(attributed).toEqual(await browser.attribute(here, local, { answer, methods: ["image"] }));
  expect(ablated).toEqual(await browser.ablate(here, local, { answer, targets: ["qformer.queries"] }));
  const assisted = await model.generate({ ...inputs, ...answerOptions, assistant_model: model });
  expect(assisted).toEqual(expected.sequences);
  here.dispose();
});

describe("places of a checkpoint's parts", () => {
  const file = new File(["{}"], "adapter_config.json");
  const chosen = { chosen: [{ path: "adapter_config.json", file }] };

  test("stay as they are beside an id, or are opened", async () => {
    const options = { token: "t", adapter: ["a/b", chosen], base_model: "c/d" };
    const [from, given] = await placed("owner/name", options);
    expect([from, given]).toEqual(["owner/name", { ...options, adapter: ["a/b", expect.any(FileListFolder)] }]);
  });

  test("are opened beside a folder", async () => {
    const url = new URL("data:,").href;
    const [folder, given] = await placed({ url }, { dtype: "int8", cache: null, adapter: [EMBEDDED] });
    expect((folder as { name: string }).name).toBeTypeOf("string");
    expect(given).toEqual({ dtype: "int8", adapter: [expect.any(ModelFolder)] });
    await expect(placed(chosen, { adapter: ["/nowhere"] })).rejects.toMatchObject({ code: "NOT_FOUND" });
  });
});

test("a model's generation_config counts, as the page has it", async () => {
  const inputs = await processor(QUESTION);
  model.generation_config.max_new_tokens = 2;
  const [row] = await model.generate(inputs, { return_full_text: false });
  delete model.generation_config.max_new_tokens;
  expect(row).toEqual(expected.sequences[0].slice(0, 2));
});

test("tells what the library says of itself", async () => {
  expect([processor.processor_class, processor.num_query_tokens]).toEqual(["InstructBlipProcessor", 12]);
  expect(model.architecture).toBe("InstructBlipForConditionalGeneration");
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
