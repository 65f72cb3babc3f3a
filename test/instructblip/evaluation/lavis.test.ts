/**
 * What LAVIS's own functions do, run on its own files and on tiny weights (test/golden/lavis): here the same texts, prompts,
 * options, tokens and ranks. With INSTRUCTBLIP_TEST_ALL=1 on all tiny models; it prints how many functions and presets
 * are held.
 */
import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { afterAll, describe, expect, test } from "vitest";
import { candidateIds, InstructBlipForConditionalGeneration, InstructBlipProcessor } from "../../../src/index.node.ts";
import {
  lastInstructionTokens,
  lavisOptions,
  lavisText,
  segmentLosses,
  TEXT_PROCESSORS,
  withEndInFront,
} from "../../../src/instructblip/evaluation/lavis.ts";
import { PRESETS } from "../../../src/instructblip/evaluation/presets.ts";
import { parseQuestion, parseTask } from "../../../src/instructblip/evaluation/task.ts";
import { IMAGE_TRANSFORMS } from "../../../src/instructblip/processing/image_transform.ts";
import { testDevice } from "../../device.ts";
import { goldenFolder } from "../../golden_folder.ts";
import { goldenInputs } from "../../parity/golden.ts";
import { ALL } from "../../rounds.ts";

type Model = "vicuna" | "t5";
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
  readonly segments: Readonly<Record<string, { readonly ranks: number[]; readonly losses: number[] }>>;
  readonly lists: { readonly candidates: string[][]; readonly ranks: number[][] };
  readonly video: { readonly answer: number[]; readonly ranks: number[] };
  readonly long: { question: string; most: number; answer: number[]; whole: number[]; words: number[] };
  readonly beams: {
    readonly ends: number[];
    readonly runs: { max_length: number; length_penalty: number; num_beams: number; ids: number[][] }[];
  };
  readonly texts: [number[], string][];
}
const read = (name: string) => JSON.parse(readFileSync(`test/golden/lavis/data/${name}.json`, "utf8"));
const GOLDEN: {
  readonly texts: Readonly<Record<"pre_question" | "pre_caption", [string, string][]>>;
  readonly forms: Readonly<Record<Model, Form[]>>;
  readonly captions: Readonly<Record<Model, { samples: { prompt: string; ocr_tokens: string[][] }; prompt: string }[]>>;
  readonly classes: Readonly<Record<Model, Pick<Form, "samples" | "prompt">[]>>;
  readonly tiny: Readonly<Record<string, Tiny>>;
} = read("functions");
interface Setting {
  readonly source: string;
  readonly model: Model;
  readonly image: string | null;
  readonly dataset: string;
  readonly prompt: string;
  readonly options?: Readonly<Record<string, number | boolean>>;
}
const SETTINGS: {
  readonly question: string;
  readonly files: Setting[];
  readonly datasets: Setting[];
  readonly verbalisers: string[][];
} = JSON.parse(gunzipSync(readFileSync("test/golden/lavis/data/settings.json.gz")).toString());

const presetTask = (preset: string) => parseTask(JSON.stringify({ preset }), "t.json");
const promptOf = (preset: string, item: object) =>
  parseQuestion(
    JSON.stringify({ id: 1, image: "a.png", answers: new Array(10).fill("a"), ...item }),
    presetTask(preset),
  ).prompt;
const modelOf = (preset: string): Model | undefined =>
  preset.endsWith("-t5") ? "t5" : PRESETS[preset].candidates ? undefined : "vicuna";

/** LAVIS's functions and classes that are held here, and presets by what they are held to. */
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

/** generate()'s options there as ours: rows have a start token, which max_length counts of Vicuna's, min_length of both. */
function generationOf({ options = {}, model }: Pick<Setting, "options" | "model">) {
  const { num_beams, max_length, min_length, repetition_penalty, length_penalty, ...rest } = options;
  expect(rest).toEqual({ use_nucleus_sampling: false, top_p: 0.9, num_captions: 1, temperature: 1 });
  return {
    ...{ num_beams, repetition_penalty, length_penalty },
    max_new_tokens: Number(max_length) - (model === "vicuna" ? 1 : 0),
    ...(Number(min_length) > 1 && { min_new_tokens: Number(min_length) - 1 }),
  };
}
const transformOf = ({ image }: Setting) => IMAGE_TRANSFORMS.find((one) => one === image);
/** A row as LAVIS's data sets are given in settings.py, with what presets name otherwise. */
const ROW = {
  ...{ question: SETTINGS.question, statement: SETTINGS.question, context: "", history: "H" },
  ocr_tokens: Array.from({ length: 40 }, (_, i) => `t${i}`),
  choices: ["A cat.", "2 Dogs", "none"],
  options: ["a", "b"],
};

describe("files of LAVIS, run by its data sets, tasks and models", () => {
  const NAMES = Object.keys(PRESETS).filter((name) => PRESETS[name].source.startsWith("projects/"));

  test.each(NAMES)("%s", (name) => {
    const { source, image_transform, generation } = PRESETS[name];
    const [glob, except] = source.split(", but of Vicuna-");
    const file = new RegExp(`^${glob.replaceAll(".", "\\.").replace("*", "[a-z0-9]+")}$`);
    const all = SETTINGS.files.filter((one) => one.model === modelOf(name) && file.test(one.source));
    const others = all.filter((one) => except && one.source.includes(`vicuna${except.toLowerCase()}`));
    const found = all.filter((one) => !others.includes(one));
    expect(found.length).toBe(glob.includes("*") ? 2 - others.length : 1);
    for (const one of found) {
      for (const done of ["__getitem__", "task"]) held.functions.add(`${one.dataset}.${done}`);
      expect(promptOf(name, ROW), one.source).toBe(one.prompt);
      expect(generation, one.source).toEqual(generationOf(one));
      expect(image_transform, one.source).toBe(transformOf(one));
    }
    for (const one of others) expect([one.prompt, generationOf(one)]).not.toEqual([promptOf(name, ROW), generation]);
    for (const one of ["setup_task", "valid_step"]) held.functions.add(one);
    held.presets.add(name);
  });
});

describe("data sets of LAVIS, and its models of the paper's prompts", () => {
  const NAMES = Object.keys(PRESETS).filter((name) => PRESETS[name].source.startsWith("configs/"));

  test.each(NAMES)("%s", (name) => {
    const { source, image_transform, generation, candidates } = PRESETS[name];
    const isOwn = ({ source: file, model }: Setting) =>
      source.split(/[;,]/)[0] === file && [model, undefined].includes(modelOf(name));
    const found = SETTINGS.datasets.filter(isOwn);
    expect(found.length).toBe(candidates ? 2 : 1);
    for (const one of found) {
      held.functions.add(`${one.dataset}.__getitem__`);
      const history = name === "lavis-visdial" ? "dialog history: H\n" : ""; // which _predict_class() adds; see below
      const answers = candidates === "choices" ? { answers: ["none"] } : { answers: new Array(10).fill("a") };
      expect(promptOf(name, { ...ROW, ...answers })).toBe(history + one.prompt);
      expect(image_transform).toBe(transformOf(one));
      expect(generation).toEqual(one.options ? generationOf(one) : {});
    }
    held.presets.add(name);
  });

  test("lavis-vsr ranks the verbalisers of VSR's labels", () => {
    const sorted = (groups: readonly (readonly string[])[]) => groups.map((texts) => [...texts].sort());
    expect(sorted(PRESETS["lavis-vsr"].candidates as string[][])).toEqual(sorted(SETTINGS.verbalisers));
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
        ...{ num_beams, max_new_tokens: max_length - (model === "vicuna" ? 1 : 0), length_penalty },
        repetition_penalty: 1.5, // generate()'s own
      });
    }
  });

  test.each(GOLDEN.captions[model])("generate: $samples.prompt", ({ samples, prompt }) => {
    const form = samples.prompt.replace("{}", "{ocr_tokens:30}");
    const task = parseTask(JSON.stringify({ prompt: form, metric: "exact_match", lavis: true }), "t.json");
    const [ocr_tokens] = samples.ocr_tokens;
    const item = { id: 1, image: "a.png", answers: ["a"], ocr_tokens };
    expect(parseQuestion(JSON.stringify(item), task).prompt).toBe(prompt);
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

test("a task has its preset's image transform, or its own", () => {
  const task = { prompt: "a", metric: "exact_match", image_transform: "clip_image_eval" };
  expect(parseTask(JSON.stringify(task), "t.json").image_transform).toBe("clip_image_eval");
  expect(presetTask("lavis-okvqa-t5").image_transform).toBe("clip_image_eval");
  expect(() => parseTask(JSON.stringify({ ...task, image_transform: "clip" }), "t.json")).toThrow(/"clip_image_eval"/);
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
  const { tokenizer } = processor;
  const { pixel_values } = await goldenInputs(name);
  const { is_encoder_decoder } = model.language_model;
  const { question, candidates, answer, caption, strong, segments, lists, video, long, beams, texts } =
    GOLDEN.tiny[name];
  const { bos_token_id, eos_token_id } = model.config.text_config;
  const special = is_encoder_decoder ? undefined : { start: bos_token_id as number, end: eos_token_id as number };
  const [, C, H, W] = pixel_values.shape;
  const image = pixel_values.data.slice(0, C * H * W);
  const mirrored = image.map((_, i) => image[i - (i % W) + (W - 1 - (i % W))]);
  const upside = image.map((_, i) => {
    const y = Math.trunc(i / W) % H;
    return image[i + (H - 1 - 2 * y) * W];
  });

  const inputsOf = async (
    text: string,
    begin = (rows: number[][]) => withEndInFront(rows, tokenizer, model.config.image_token),
    frames: readonly Float32Array[] = [image],
  ) => {
    const images = frames.map((data) => ({ data, shape: [C, H, W] }));
    const { input_ids, ...words } = await processor(
      { text: [text], images: [images] } as never,
      {
        ...{ do_resize: false, do_rescale: false, do_normalize: false },
      } as never,
    );
    return { ...words, input_ids: begin(input_ids!) } as { qformer_input_ids: number[][]; input_ids: number[][] };
  };
  const prompt = "Question: is the circle above Short answer:";
  const model_ = is_encoder_decoder ? "t5" : "vicuna";
  /** With the start token, if there is one, and without filler. */
  const rowsOf = async (inputs: object, generation: object, more: object = {}) => {
    const options = { ...lavisOptions(generation, special), ...more, return_full_text: is_encoder_decoder };
    return (await model.generate(inputs as never, {
      ...options,
      return_dict_in_generate: false,
    })) as unknown as number[][];
  };
  const answerOf = async (text: string, preset: string, more: object = {}, begin?: (rows: number[][]) => number[][]) =>
    (await rowsOf(await inputsOf(text, begin), PRESETS[preset].generation, more))[0];
  /** Of LAVIS's rows: Vicuna's begin with the start token, which ours lack. */
  const ours = (row: readonly number[]) => (is_encoder_decoder ? row : row.slice(1));
  const rank = async (texts: string[], frames?: Float32Array[]) => {
    const inputs = await inputsOf(prompt, undefined, frames);
    const [ranked] = await model.rank_answers({ ...inputs, candidates: candidateIds(tokenizer, texts) } as never);
    return { ...ranked, prompt: inputs.input_ids[0].length };
  };

  test("generate() by predict_answers(): tokens", async () => {
    held.functions.add("generate");
    expect(promptOf(`lavis-vqa-${model_}`, { question })).toBe(prompt);
    expect(await answerOf(prompt, `lavis-vqa-${model_}`)).toEqual(ours(answer));
  });

  test("generate() of captions: tokens", async () => {
    const preset = is_encoder_decoder ? "lavis-nocaps-t5" : "lavis-nocaps";
    const more = { max_new_tokens: is_encoder_decoder ? 16 : 15 };
    expect(await answerOf(PRESETS[preset].prompt, preset, more)).toEqual(ours(caption));
    expect(await answerOf(PRESETS[preset].prompt, preset, { ...more, repetition_penalty: 8 })).toEqual(ours(strong));
  });

  test("beams: lengths and ends", async () => {
    const inputs = await inputsOf("A short image caption.");
    const eos_token_id = beams.ends;
    let differs = 0;
    for (const { max_length, ids, ...options } of ALL ? beams.runs : beams.runs.filter((_, i) => i % 3 === 0)) {
      const max_new_tokens = max_length - (is_encoder_decoder ? 0 : 1);
      const more = { max_new_tokens, num_return_sequences: 3, eos_token_id };
      const plain = (rows: readonly (readonly number[])[]) =>
        rows.map((row) => {
          const end = row.findIndex((id, i) => i >= Number(is_encoder_decoder) && eos_token_id.includes(id));
          return end < 0 ? row : row.slice(0, end + 1);
        });
      const made = await rowsOf(inputs, options, more);
      expect(plain(made), JSON.stringify(options)).toEqual(plain(ids.map(ours)));
      const now = await rowsOf(inputs, options, { ...more, beam_rules: "5" });
      if (JSON.stringify(plain(now)) !== JSON.stringify(plain(made))) differs++;
    }
    expect(differs).toBeGreaterThan(0); // as transformers 5 scores them, some are others
  });

  test("predict_class(): ranks, in segments too", async () => {
    for (const one of ["predict_class", "concat_text_input_output"]) held.functions.add(one);
    const { ranks, sums, prompt: length } = await rank(candidates);
    expect(ranks).toEqual(segments[1].ranks);
    const lengths = candidateIds(tokenizer, candidates).map((ids) => ids.length);
    for (const [n, { ranks: theirs, losses }] of Object.entries(segments)) {
      const made = is_encoder_decoder ? sums : segmentLosses(sums, lengths, { prompt: length, n_segments: Number(n) });
      for (const [c, loss] of losses.entries()) expect(made[c]).toBeCloseTo(loss, 4);
      expect(made.map((_, c) => c).sort((a, b) => made[a] - made[b])).toEqual(theirs);
    }
    for (const [i, texts] of lists.candidates.entries())
      expect([(await rank(texts)).ranks].flat()).toEqual([lists.ranks[i]].flat());
  });

  test("a video's frames are several images", async () => {
    const frames = [image, mirrored, upside];
    const inputs = await inputsOf(prompt, undefined, frames);
    const [row] = await rowsOf(inputs, PRESETS[`lavis-msvd-qa-${model_}`].generation, {
      max_new_tokens: is_encoder_decoder ? 10 : 9,
    });
    expect(row).toEqual(ours(video.answer));
    expect((await rank(candidates, frames)).ranks).toEqual(video.ranks);
  });

  test("of a long instruction the Q-Former reads the end", async () => {
    const inputs = await inputsOf(`Question: ${long.question} Short answer:`);
    expect(inputs.qformer_input_ids).toEqual([long.whole]);
    const qformer_input_ids = lastInstructionTokens(inputs.qformer_input_ids, long.most);
    expect(qformer_input_ids).toEqual([long.words]);
    const cut = { ...inputs, qformer_input_ids, qformer_attention_mask: [long.words.map(() => 1)] };
    const [row] = await rowsOf(cut, PRESETS[`lavis-vqa-${model_}`].generation);
    expect(row).toEqual(ours(long.answer));
  });

  test("texts of answers", () => {
    for (const [ids, text] of texts) expect(lavisText(tokenizer, ids, special), String(ids)).toBe(text);
  });

  test.runIf(name === "plain_f32")(
    "tokens depend on what the penalty counts, and on how the prompt begins",
    async () => {
      const { prompt: text } = PRESETS["lavis-nocaps"];
      const more = { max_new_tokens: 15, repetition_penalty: 8 };
      expect(await answerOf(text, "lavis-nocaps", { ...more, penalize_prompt: true })).not.toEqual(ours(strong));
      expect(await answerOf(text, "lavis-nocaps", more, (rows) => rows)).not.toEqual(ours(strong));
    },
  );
});

test("every preset is held to LAVIS, or to the paper", () => {
  const lavis = Object.keys(PRESETS).filter((name) => PRESETS[name].lavis);
  console.log(
    `${held.functions.size} functions and classes of LAVIS and ${held.presets.size} presets are held; the other ` +
      `${Object.keys(PRESETS).length - lavis.length} are the paper's text`,
  );
  expect([...held.presets].sort()).toEqual(lavis.sort());
  expect(Object.keys(PRESETS).every((name) => PRESETS[name].lavis || PRESETS[name].source.includes("paper"))).toBe(
    true,
  );
});
