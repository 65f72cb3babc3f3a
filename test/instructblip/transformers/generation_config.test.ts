/** GenerationConfig, criteria and processors as classes, and the pipelines that transformers 5 has no more. */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import {
  AutoModelForImageTextToText,
  AutoProcessor,
  type BatchFeature,
  EosTokenCriteria,
  GenerationConfig,
  LogitsProcessor,
  LogitsProcessorList,
  load_image,
  MaxLengthCriteria,
  MaxTimeCriteria,
  pipeline,
  StoppingCriteria,
  StoppingCriteriaList,
  StopStringCriteria,
  TextStreamer,
  type VisionLanguageModel,
} from "../../../src/index.node.ts";
import { widen } from "../../../src/tensor/dtype.ts";
import { testDevice } from "../../device.ts";

const SHAPES = "examples/shapes/checkpoint";
const IMAGE = "examples/shapes/images/a.png";
const device = await testDevice();
const processor = await AutoProcessor.from_pretrained(SHAPES);
let model: VisionLanguageModel;
let inputs: BatchFeature;
beforeAll(async () => {
  model = await AutoModelForImageTextToText.from_pretrained(SHAPES, { device, compile: false, on_warning: null });
  inputs = (await processor({ images: IMAGE, text: "Describe the image." })) as BatchFeature;
});
afterAll(() => model.dispose());

const code = (code: string) => expect.objectContaining({ code });
const answer = async (options: object) => {
  const [row] = await model.generate({ ...inputs, return_full_text: false, max_new_tokens: 9, ...options });
  return processor.decode(row, { skip_special_tokens: true });
};
const WHOLE = "a yellow triangle at the top left, a";

describe("GenerationConfig", () => {
  test("has the fields that are set, and no others", () => {
    const config = new GenerationConfig({ num_beams: 3, max_length: null });
    expect(config.to_dict()).toEqual({ num_beams: 3 });
    expect(config.max_new_tokens).toBeUndefined();
    config.update({ max_new_tokens: 4, num_beams: null });
    expect({ ...config }).toEqual({ max_new_tokens: 4 });
    expect(JSON.stringify(config)).toBe('{"max_new_tokens":4}');
  });

  test.each<[object, string]>([
    [{ num_beams: 0 }, "PARAM_RANGE"],
    [{ num_beam: 3 }, "UNKNOWN_OPTION"],
    [{ penalty_alpha: 0.6 }, "UNSUPPORTED_OPTION"],
    [{ logits_processor: [() => {}] }, "UNSUPPORTED_OPTION"],
  ])("refuses %j, and stays as it was", (fields, expected) => {
    expect(() => new GenerationConfig(fields)).toThrow(code(expected));
    const config = new GenerationConfig({ max_new_tokens: 4 });
    expect(() => config.update(fields)).toThrow(code(expected));
    expect(config.to_dict()).toEqual({ max_new_tokens: 4 });
    Object.assign(config, fields);
    expect(() => config.validate()).toThrow(code(expected));
  });

  test("validate() tells of fields without effect", () => {
    expect(new GenerationConfig({ top_p: 0.9 }).validate()).toEqual(["top_p has no effect: do_sample is not true"]);
    expect(new GenerationConfig({ top_p: 0.9, do_sample: true }).validate()).toEqual([]);
  });

  test("is read and written", async () => {
    const folder = mkdtempSync(join(tmpdir(), "generation-config-"));
    try {
      const config = await GenerationConfig.from_pretrained(SHAPES, { num_beams: 2 });
      expect(config).toMatchObject({ bos_token_id: 1, eos_token_id: 2, pad_token_id: 760, num_beams: 2 });
      await config.save_pretrained(folder, { config_file_name: "mine.json" });
      expect(JSON.parse(readFileSync(join(folder, "mine.json"), "utf8"))).toEqual(config.to_dict());
      const again = await GenerationConfig.from_pretrained(folder, { config_file_name: "mine.json" });
      expect(again).toEqual(config);
      await expect(GenerationConfig.from_pretrained(folder)).rejects.toThrow(code("NOT_FOUND"));
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  test("the call wins over its config, and that over the model's", async () => {
    const generation_config = new GenerationConfig({ max_new_tokens: 3 });
    const call = { max_new_tokens: undefined };
    model.generation_config.max_new_tokens = 4;
    expect(await answer(call)).toBe("a yellow triangle at");
    expect(await answer({ ...call, generation_config })).toBe("a yellow triangle");
    expect(await answer({ max_new_tokens: 2, generation_config })).toBe("a yellow");
    model.generation_config = GenerationConfig.from_model_config(model.config);
    expect(await answer({})).toBe(WHOLE);
    await expect(answer({ generation_config: 5 })).rejects.toThrow(code("PARAM_RANGE"));
    generation_config.num_beams = -1;
    await expect(answer({ generation_config })).rejects.toThrow(code("PARAM_RANGE"));
  });
});

describe("criteria", () => {
  const comma = processor.tokenizer.convert_tokens_to_ids(",")!;
  class Never extends StoppingCriteria {
    stops() {
      return false;
    }
  }

  test("are functions, and a list of them is a list", () => {
    const list = new StoppingCriteriaList([new MaxLengthCriteria(3), new EosTokenCriteria([7, 8])]);
    expect([list.length, list.max_length, new StoppingCriteriaList().max_length]).toEqual([2, 3, null]);
    expect([list.stops([1, 2]), list.stops([1, 8]), list.stops([1, 2, 3]), list[0]([1])]).toEqual([
      ...[false, true, true],
      false,
    ]);
    expect(list.map(() => 1)).toEqual([1, 1]);
    expect(() => new MaxLengthCriteria(0)).toThrow(code("PARAM_RANGE"));
    expect(() => new EosTokenCriteria([])).toThrow(code("PARAM_RANGE"));
    expect(() => new MaxTimeCriteria(0)).toThrow(code("PARAM_RANGE"));
    expect(() => new StopStringCriteria(processor.tokenizer, "")).toThrow(code("PARAM_RANGE"));
    expect(() => new StopStringCriteria({} as never, "a")).toThrow(code("NO_TOKENIZER"));
  });

  test("replace what options say", async () => {
    const length = inputs.input_ids[0].length;
    const stopping = (...criteria: StoppingCriteria[]) => ({ stopping_criteria: new StoppingCriteriaList(criteria) });
    expect(await answer(stopping(new MaxLengthCriteria(length + 11)))).toBe(`${WHOLE} red star`);
    expect(await answer(stopping(new MaxLengthCriteria(2)))).toBe("a"); // at the first new token
    const strings = { tokenizer: processor.tokenizer, stop_strings: "triangle" };
    expect(await answer({ ...strings, ...stopping(new StopStringCriteria(processor.tokenizer, "top")) })).toBe(
      "a yellow triangle at the top",
    );
    expect(await answer(stopping(new Never()))).toBe(WHOLE);
    const eos = { eos_token_id: processor.tokenizer.convert_tokens_to_ids("▁triangle"), pad_token_id: 760 };
    expect(await answer(eos)).toBe("a yellow triangle");
    expect(await answer({ ...eos, ...stopping(new EosTokenCriteria(comma)) })).toBe(
      "a yellow triangle at the top left,",
    );
    const over = new MaxTimeCriteria(1e-9);
    expect(await answer({ max_time: 1000, ...stopping(over) })).toBe("a");
  });

  test("rows of a batch that an EosTokenCriteria ends are filled", async () => {
    const text = ["Describe the image.", "What color is the square?"];
    const both = (await processor({ images: [IMAGE, IMAGE], text, padding: true })) as BatchFeature;
    const stopping_criteria = [new EosTokenCriteria(processor.tokenizer.convert_tokens_to_ids("▁orange")!)];
    const options = { stopping_criteria, eos_token_id: null, pad_token_id: 760, max_new_tokens: 3 };
    const [, row] = await model.generate({ ...both, return_full_text: false, ...options });
    expect(row.slice(1)).toEqual([760, 760]);
  });
});

describe("logits processors", () => {
  class Only extends LogitsProcessor {
    constructor(readonly id: number) {
      super();
    }
    process(_rows: readonly (readonly number[])[], scores: readonly Float32Array[]) {
      return scores.map((row) => row.map((score, id) => (id === this.id ? score : -Infinity)));
    }
  }

  test("may return scores, and run in their order", async () => {
    expect(await answer({ logits_processor: new LogitsProcessorList([new Only(310)]), max_new_tokens: 2 })).toBe("a a");
    const list = new LogitsProcessorList([(_rows, [row]) => void row.fill(1), new Only(1)]);
    expect(list.process([[0]], [Float32Array.of(5, 6, 7)])).toEqual([Float32Array.of(-Infinity, 1, -Infinity)]);
  });

  test.each([[[]], [[new Float32Array(3)]], [Promise.resolve()]])("that return %s are refused", async (result) => {
    await expect(answer({ logits_processor: [() => result] })).rejects.toThrow(code("BAD_INPUT"));
  });
});

test("TextStreamer follows one row, and prints no more after an error", async () => {
  const printed: string[] = [];
  class Kept extends TextStreamer {
    override on_finalized_text(text: string, stream_end = false) {
      printed.push(stream_end ? `${text}|` : text);
    }
  }
  const streamer = new Kept(processor.tokenizer, { skip_prompt: true });
  expect(() => streamer.put([[1], [2]])).toThrow(code("BATCH"));
  const fails = () => {
    throw new Error("mine");
  };
  await expect(answer({ streamer, logits_processor: [fails] })).rejects.toThrow("mine");
  expect(printed).toEqual(["|"]);
  await answer({ streamer });
  expect(printed.slice(1).join("")).toBe(`${WHOLE}|`);
  expect(printed.slice(1, 4)).toEqual(["", "a ", "yellow "]);
});

test("load_image reads what the processor reads, upright", async () => {
  const file = await load_image(IMAGE);
  const bytes = readFileSync(IMAGE);
  expect(await load_image(bytes)).toEqual(file);
  expect(await load_image(`data:image/png;base64,${bytes.toString("base64")}`)).toEqual(file);
  expect(await load_image(file)).toEqual(file);
  const rgba = new Uint8Array(16).map((_, i) => i);
  const { data } = await load_image({ data: rgba, width: 2, height: 2 });
  expect([...data]).toEqual([0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14]);
  await expect(load_image({ data: new Float32Array(12), shape: [2, 2, 3] })).rejects.toThrow(code("BAD_PIXELS"));
  await expect(load_image({ data: rgba, width: 3, height: 2 })).rejects.toThrow(code("BAD_PIXELS"));
});

/** Bytes of all tensors of a file, by its header. */
const dataBytes = (header: Record<string, { data_offsets: number[] }>) =>
  Math.max(...Object.values(header).map(({ data_offsets: [, end] }) => end));

test("a model's parameters are listed as its checkpoint has them", async () => {
  const state = model.state_dict();
  const checkpoint = readFileSync(join(SHAPES, "model.safetensors"));
  const header = JSON.parse(checkpoint.subarray(8, 8 + Number(checkpoint.readBigUInt64LE(0))).toString());
  delete header.__metadata__;
  expect([...state.keys()].sort()).toEqual(Object.keys(header).sort());
  for (const [name, { shape }] of state) expect(shape, name).toEqual(header[name].shape);
  const name = "qformer.encoder.layer.0.attention.attention.query.weight";
  const { dtype, data_offsets, shape } = header[name];
  const [begin, end] = data_offsets.map((at: number) => checkpoint.length - dataBytes(header) + at);
  expect(dtype).toBe("F16");
  expect(state.get(name)).toMatchObject({ dtype: "f16", shape });
  expect(await state.get(name)!.read()).toEqual(widen(new Uint8Array(checkpoint.subarray(begin, end)), "f16"));
  expect([model.to(device), model.to("auto"), model.eval(), model.dtype]).toEqual([model, model, model, "auto"]);
  expect(() => model.to("int8")).toThrow(code("UNSUPPORTED_OPTION"));
});

describe("pipeline", () => {
  test("answers questions as transformers 4 returns them", async () => {
    const vqa = await pipeline("visual-question-answering", { model, processor });
    const [square, circle] = ["What color is the square?", "Is there a circle?"];
    expect(await vqa({ image: IMAGE, question: square })).toEqual([{ answer: "orange" }]);
    expect(await vqa(IMAGE, [square, circle])).toEqual([[{ answer: "orange" }], [{ answer: "no" }]]);
    await expect(vqa({ image: IMAGE, question: square, top_k: 5 } as never)).rejects.toThrow(
      code("UNSUPPORTED_OPTION"),
    );
    await expect(vqa({ image: IMAGE, question: square, num_beams: 2 } as never)).rejects.toThrow(/generate_kwargs/);
  });

  test("captions", async () => {
    const captioner = await pipeline("image-to-text", { model, processor });
    const prompt = "Describe the image.";
    const options = { prompt, generate_kwargs: { num_beams: 2 }, max_new_tokens: 3 };
    const caption = [{ generated_text: `${prompt} a yellow triangle` }];
    expect(await captioner(IMAGE, options)).toEqual(caption);
    expect(await captioner([IMAGE], options)).toEqual([caption]);
    await expect(captioner(IMAGE)).rejects.toThrow(/needs a prompt: the Q-Former of InstructBLIP reads an instruction/);
  });

  test("takes batches, token ids and stop sequences", async () => {
    const pipe = await pipeline("image-text-to-text", { model, processor });
    const text = ["Describe the image.", "What color is the square?"];
    const both = { images: [IMAGE, IMAGE], text, stop_sequence: "yellow", return_full_text: false };
    expect((await pipe(both)).map(({ generated_text }) => generated_text)).toEqual([" a yellow", " orange"]);
    const [{ generated_token_ids }] = await pipe(IMAGE, { text: text[1], return_tensors: true, max_new_tokens: 1 });
    expect(processor.decode(generated_token_ids!, { skip_special_tokens: true })).toBe(`${text[1]} orange`);
    await expect(pipe({ images: IMAGE } as never)).rejects.toThrow(code("NO_INPUT"));
  });

  test("refuses what is no input, with what to give", async () => {
    const of = { model, processor };
    const given = { text: "What?" };
    const [pipe, vqa, captioner] = [
      (await pipeline("image-text-to-text", of)) as unknown as (...args: unknown[]) => Promise<unknown>,
      (await pipeline("visual-question-answering", of)) as (...args: unknown[]) => Promise<unknown>,
      (await pipeline("image-to-text", of)) as (...args: unknown[]) => Promise<unknown>,
    ];
    const messages = [{ role: "user", content: "What?" }];
    for (const [call, name, message] of [
      [() => pipe(null), "NO_INPUT", /image-text-to-text needs images, got null\n.*pipe\(image, \{ text/],
      [() => pipe(undefined), "NO_INPUT", /needs images/],
      [() => pipe(null, given), "NO_INPUT", /needs images, got null/],
      [() => pipe([], given), "NO_INPUT", /needs images, got an empty list/],
      [() => pipe(IMAGE, { text: [] }), "NO_INPUT", /needs text, got an empty list/],
      [() => pipe(IMAGE, { text: null }), "NO_INPUT", /needs text, got null/],
      [() => pipe(IMAGE, { text: ["What?", 7] }), "BAD_PROMPT", /text must be a string or a list of strings/],
      [() => pipe(IMAGE, "What?"), "ARGUMENTS", /must be an object, got "What\?"/],
      [() => pipe(7, given), "BAD_PIXELS", /image 0 cannot be 7/],
      [() => pipe([null], given), "BAD_PIXELS", /image 0 cannot be null/],
      [() => pipe(messages), "BAD_PROMPT", /no chat template\n.*give images and text/],
      [() => pipe({ images: IMAGE, text: messages }), "BAD_PROMPT", /no chat template/],
      [() => pipe(IMAGE, { ...given, generate_kwargs: "fast" }), "ARGUMENTS", /generate_kwargs must be an object/],
      [() => pipe(IMAGE, { ...given, processor_kwargs: [1] }), "ARGUMENTS", /processor_kwargs must be an object/],
      [() => vqa(null), "NO_INPUT", /visual-question-answering needs image, got null/],
      [() => vqa(IMAGE), "NO_INPUT", /needs question, got nothing/],
      [() => vqa(IMAGE, []), "NO_INPUT", /needs question, got an empty list/],
      [() => vqa({ image: IMAGE, question: 7 }), "BAD_PROMPT", /question must be a string/],
      [() => captioner(null), "NO_INPUT", /image-to-text needs images, got null\n.*captioner\(image\)/],
      [() => captioner(), "NO_INPUT", /needs images/],
      [() => captioner(""), "BAD_PIXELS", /image 0 cannot be ""\n.*a path or URL/],
      [() => captioner(5), "BAD_PIXELS", /image 0 cannot be 5\n/],
      [() => captioner([IMAGE, null]), "BAD_PIXELS", /image 1 cannot be null\n/],
      [() => captioner(IMAGE), "NO_INPUT", /image-to-text needs a prompt/],
      [() => vqa([IMAGE, {}], "What?"), "BAD_PIXELS", /image 1 cannot be \{\}\n/],
      [
        () => vqa({ image: IMAGE, pages: 1 }),
        "UNKNOWN_OPTION",
        /hint: options: image, question, top_k, max_new_tokens/,
      ],
      [() => captioner(messages), "BAD_PROMPT", /no chat template/],
      [() => pipeline(null as never, of), "UNKNOWN_OPTION", /no pipeline for the task null/],
      [() => pipeline("image-to-text", null as never), "ARGUMENTS", /must be an object, got null/],
      [() => pipeline("image-to-text", "a" as never), "ARGUMENTS", /by its name\n.*\{ model: … \}/],
      [() => pipeline("image-to-text", { model: null as never }), "BAD_INPUT", /model is needed/],
      [() => pipeline("image-to-text", { model: 7 as never }), "BAD_INPUT", /got number/],
      [() => pipeline("image-to-text", { model, processor: 7 as never }), "BAD_INPUT", /processor/],
    ] as const) {
      await expect(call()).rejects.toMatchObject({ code: name, message: expect.stringMatching(message) });
    }
  });

  test("gives every answer of each text", async () => {
    const pipe = await pipeline("image-text-to-text", { model, processor });
    const text = ["Describe the image.", "What color is the square?"];
    const generate_kwargs = { num_beams: 2, num_return_sequences: 2, max_new_tokens: 2 };
    const several = { images: [IMAGE, IMAGE], text, generate_kwargs };
    const alone = await pipe(IMAGE, { text: text[1]!, generate_kwargs });
    const all = await pipe(several);
    expect(all.map(({ input_text }) => input_text)).toEqual([text[0], text[0], text[1], text[1]]);
    expect(all.slice(2)).toEqual(alone);
    expect(new Set(alone.map(({ generated_text }) => generated_text)).size).toBe(2);
    const rows = await pipe({ ...several, return_tensors: true });
    const answers = rows.map(({ generated_token_ids: ids }) => processor.decode(ids!, { skip_special_tokens: true }));
    expect(answers).toEqual(all.map(({ generated_text }) => generated_text));
  });

  test("does not free a model that it was given", async () => {
    const dispose = vi.spyOn(model, "dispose");
    (await pipeline("image-to-text", { model, processor })).dispose();
    expect(dispose).not.toHaveBeenCalled();
    dispose.mockRestore();
  });

  test.each<[string, object, string]>([
    ["image-classification", { model: SHAPES }, "UNKNOWN_OPTION"],
    ["image-to-text", {}, "BAD_INPUT"],
    ["image-to-text", { model: SHAPES, devise: 1 }, "UNKNOWN_OPTION"],
  ])("%s of %j is refused", async (task, options, expected) => {
    await expect(pipeline(task as never, options as never)).rejects.toThrow(code(expected));
  });
});
