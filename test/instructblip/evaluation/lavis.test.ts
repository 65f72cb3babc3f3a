/**
 * LAVIS to the token: its own functions (test/golden/lavis/functions.py), on texts, prompts and tiny weights. With
 * INSTRUCTBLIP_TEST_ALL=1 on all of them, and it prints how many functions and presets are held.
 */
import { readFileSync } from "node:fs";
import { afterAll, describe, expect, test } from "vitest";
import { candidateIds, InstructBlipForConditionalGeneration, InstructBlipProcessor } from "../../../src/index.node.ts";
import { lavisOptions, TEXT_PROCESSORS, withEndInFront } from "../../../src/instructblip/evaluation/lavis.ts";
import { PRESETS } from "../../../src/instructblip/evaluation/presets.ts";
import { parseQuestion, parseTask } from "../../../src/instructblip/evaluation/task.ts";
import { testDevice } from "../../device.ts";
import { goldenFolder } from "../../golden_folder.ts";
import { goldenInputs } from "../../parity/golden.ts";
import { ALL } from "../../rounds.ts";

interface Form {
  readonly form: string;
  readonly samples: Readonly<Record<string, string[] | string[][]>>;
  readonly prompt: string;
  readonly options: Readonly<Record<string, number>>;
}
interface Tiny {
  readonly question: string;
  readonly candidates: string[];
  readonly answer: number[];
  readonly caption: number[];
  /** With a repetition penalty of 8. */
  readonly strong: number[];
  readonly ranks: number[];
}
const GOLDEN: {
  readonly texts: Readonly<Record<"pre_question" | "pre_caption", [string, string][]>>;
  readonly forms: Readonly<Record<"vicuna" | "t5", Form[]>>;
  readonly classes: Readonly<Record<"vicuna" | "t5", Pick<Form, "samples" | "prompt">[]>>;
  readonly tiny: Readonly<Record<string, Tiny>>;
} = JSON.parse(readFileSync("test/golden/lavis/data/functions.json", "utf8"));

const presetTask = (preset: string) => parseTask(JSON.stringify({ preset }), "t.json");
const promptOf = (preset: string, item: object) =>
  parseQuestion(
    JSON.stringify({ id: 1, image: "a.png", answers: new Array(10).fill("a"), ...item }),
    presetTask(preset),
  ).prompt;

/** LAVIS's functions that are held here, and presets by what they are held to. */
const held = { functions: new Set<string>(), presets: new Set<string>() };

describe("text processors", () => {
  test.each([
    ["pre_question", "blip_question"],
    ["pre_caption", "blip_caption"],
  ] as const)("%s is %s", (theirs, ours) => {
    held.functions.add(theirs);
    expect(GOLDEN.texts[theirs].map(([text]) => TEXT_PROCESSORS[ours](text))).toEqual(
      GOLDEN.texts[theirs].map(([, text]) => text),
    );
  });

  test("are forms of a prompt's fields", () => {
    const task = parseTask('{"prompt": "{q:blip_question}|{q:blip_caption}", "metric": "exact_match"}', "t.json");
    const item = { id: 1, image: "a.png", answers: ["a"], q: "Is IT (red)?" };
    expect(parseQuestion(JSON.stringify(item), task).prompt).toBe("is it red?|is it red ?");
    expect(() => parseQuestion(JSON.stringify({ ...item, q: ["a"] }), task)).toThrow(/a text/);
  });
});

describe.each(["vicuna", "t5"] as const)("prompts of %s", (model) => {
  const NAMES: Readonly<Record<string, readonly string[]>> = {
    "Question: {} Short answer:": ["vqa", "gqa", "vizwiz", "ivqa"],
    "OCR tokens: {}. Question: {} Short answer:": ["textvqa", "ocrvqa"],
    "Question: {} Options: {}. Short answer:": ["iconqa"],
  };

  test.each(GOLDEN.forms[model])("predict_answers: $form", ({ form, samples, prompt, options }) => {
    held.functions.add("predict_answers");
    const item = {
      question: samples.text_input[0],
      ocr_tokens: samples.ocr_tokens?.[0],
      choices: samples.choices?.[0],
    };
    for (const name of NAMES[form].map((one) => `lavis-${one}-${model}`)) {
      held.presets.add(name);
      expect(promptOf(name, item), name).toBe(prompt);
      const { num_beams, max_length, length_penalty } = options;
      expect(presetTask(name).generation).toEqual({
        ...{ num_beams, max_new_tokens: max_length, length_penalty },
        repetition_penalty: 1.5, // generate()'s own
      });
    }
  });

  test("_predict_class", () => {
    held.functions.add("_predict_class");
    const [science, dialog, memes] = GOLDEN.classes[model];
    const ranked = { answers: ["a"] };
    const { samples } = science;
    const [[question]] = samples.text_input;
    const choices = ["x", "y"];
    const context = `context: ${samples.context[0]}. `;
    expect(promptOf("lavis-scienceqa", { question, context, choices, ...ranked, answers: ["x"] })).toBe(science.prompt);
    const options = { options: ["red", "blue"], answers: ["red"] };
    const asked = { question: dialog.samples.text_input[0], history: dialog.samples.history[0] };
    expect(promptOf("lavis-visdial", { ...asked, ...options })).toBe(dialog.prompt);
    expect(promptOf("lavis-hatefulmemes", { text: memes.samples.text_input[0], answers: ["yes"] })).toBe(memes.prompt);
    for (const name of ["scienceqa", "visdial", "hatefulmemes"]) held.presets.add(`lavis-${name}`);
  });
});

const models: { dispose(): void }[] = [];
afterAll(() => {
  for (const model of models) model.dispose();
});

/** A sample: Vicuna's. */
const NAMES = Object.keys(GOLDEN.tiny).filter((name) => ALL || name === "plain_f32");

describe.each(NAMES)("%s", async (name) => {
  const device = await testDevice();
  const folder = goldenFolder(name);
  const model = await InstructBlipForConditionalGeneration.from_pretrained(folder, {
    ...{ device, compile: false, on_warning: null },
  });
  models.push(model);
  const processor = await InstructBlipProcessor.from_pretrained(folder);
  const { pixel_values } = await goldenInputs(name);
  const { is_encoder_decoder } = model.language_model;
  const { question, candidates, answer, caption, strong, ranks } = GOLDEN.tiny[name];
  const inputsOf = async (
    text: string,
    begin = (rows: number[][]) => withEndInFront(rows, processor.tokenizer, model.config.image_token),
  ) => {
    const shape = [1, ...pixel_values.shape.slice(1)];
    const data = pixel_values.data.slice(
      0,
      shape.reduce((a, b) => a * b),
    );
    const { input_ids, ...words } = await processor(
      { text: [text], images: [{ data, shape: shape.slice(1) }] } as never,
      {
        ...{ do_resize: false, do_rescale: false, do_normalize: false },
      } as never,
    );
    return { ...words, pixel_values: { data, shape }, input_ids: begin(input_ids!) } as never;
  };
  const prompt = promptOf("lavis-vqa-t5", { question });
  /** With the start token, if there is one, and without filler. */
  const answerOf = async (
    text: string,
    preset: string,
    more: object = {},
    begin?: (rows: number[][]) => number[][],
  ) => {
    const options = { ...lavisOptions(PRESETS[preset].generation), ...more, return_full_text: is_encoder_decoder };
    const rows = await model.generate(await inputsOf(text, begin), { ...options, return_dict_in_generate: false });
    return (rows as unknown as number[][])[0];
  };

  test("generate() by predict_answers(): tokens", async () => {
    held.functions.add("generate");
    expect(await answerOf(prompt, is_encoder_decoder ? "lavis-vqa-t5" : "lavis-vqa-vicuna")).toEqual(answer);
  });

  test("generate() of captions: tokens", async () => {
    const preset = is_encoder_decoder ? "lavis-nocaps-t5" : "lavis-nocaps";
    for (const one of ["caption", "nocaps", "flickr30k"])
      held.presets.add(`lavis-${one}${is_encoder_decoder ? "-t5" : ""}`);
    expect(await answerOf(PRESETS[preset].prompt, preset, { max_new_tokens: 16 })).toEqual(caption);
  });

  test("predict_class(): ranks", async () => {
    for (const one of ["predict_class", "concat_text_input_output"]) held.functions.add(one);
    const ids = candidateIds(processor.tokenizer, candidates);
    const [ranked] = await model.rank_answers({ ...((await inputsOf(prompt)) as object), candidates: ids } as never);
    expect(ranked.ranks).toEqual(ranks);
  });

  test.runIf(name === "plain_f32")(
    "tokens depend on what the penalty counts, and on how the prompt begins",
    async () => {
      const { prompt: text } = PRESETS["lavis-nocaps"];
      const more = { max_new_tokens: 16, repetition_penalty: 8 };
      expect(await answerOf(text, "lavis-nocaps", more)).toEqual(strong);
      expect(await answerOf(text, "lavis-nocaps", { ...more, penalize_prompt: true })).not.toEqual(strong);
      expect(await answerOf(text, "lavis-nocaps", more, (rows) => rows)).not.toEqual(strong);
    },
  );
});

test("functions and presets that are held to LAVIS", () => {
  const without = Object.keys(PRESETS).filter((name) => PRESETS[name].lavis && !held.presets.has(name));
  console.log(
    `${held.functions.size} functions of LAVIS and ${held.presets.size} presets are held; of the others, with prompts of the ` +
      `paper or of LAVIS's files: ${without.join(", ")}`,
  );
  expect([...held.functions].sort()).toEqual([
    ...["_predict_class", "concat_text_input_output", "generate", "pre_caption", "pre_question"],
    ...["predict_answers", "predict_class"],
  ]);
  expect(held.presets.size).toBe(ALL ? 23 : 20); // of T5 the captions
  if (!ALL) return;
  expect(without).toEqual([
    ...["lavis-okvqa-vicuna", "lavis-okvqa-t5", "lavis-msvd-qa-vicuna", "lavis-msvd-qa-t5"],
    ...["lavis-msrvtt-qa-vicuna", "lavis-msrvtt-qa-t5", "lavis-vsr"],
  ]);
});
