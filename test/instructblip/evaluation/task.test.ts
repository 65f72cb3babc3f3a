/** Task files, lines of data, prompts, presets, and the words that CIDEr counts. */
import { describe, expect, it } from "vitest";
import { reportText } from "../../../src/instructblip/cli/report.ts";
import { METRICS } from "../../../src/instructblip/evaluation/metrics.ts";
import { expectPresetModel, overridesOf } from "../../../src/instructblip/evaluation/preset_of_task.ts";
import { PRESETS } from "../../../src/instructblip/evaluation/presets.ts";
import { ptbTokenize } from "../../../src/instructblip/evaluation/ptb_tokenizer.ts";
import { summarize } from "../../../src/instructblip/evaluation/summary.ts";
import { parseQuestion, parseTask, type Task } from "../../../src/instructblip/evaluation/task.ts";
import type { EngineError } from "../../../src/tensor/errors.ts";

const TASK = { prompt: "Question: {question} Short answer:", metric: "exact_match" };
const task = (more: object = {}): Task => parseTask(JSON.stringify({ ...TASK, ...more }), "dir/my.json");
const ITEM = { id: 1, image: "a.png", question: "What?", answers: ["yes"] };

function refusal(act: () => unknown): string {
  try {
    act();
  } catch (error) {
    return `${(error as EngineError).code}: ${(error as Error).message}`;
  }
  return "not refused";
}

describe("a task", () => {
  it("is named after its file unless it says otherwise", () => {
    expect(task()).toEqual({ ...TASK, name: "my", preset: null, generation: {} });
    expect(task({ name: "x", generation: { num_beams: 2 } })).toMatchObject({
      name: "x",
      generation: { num_beams: 2 },
    });
  });

  it("replaces what it wants of a preset", () => {
    const made = parseTask('{"preset": "lavis-vqa-t5", "generation": {"num_beams": 1}}', "t.json");
    expect(made).toEqual({
      name: "lavis-vqa-t5",
      preset: "lavis-vqa-t5",
      lavis: true,
      image_transform: "blip_image_eval",
      prompt: "Question: {question:blip_question} Short answer:",
      generation: { num_beams: 1, max_new_tokens: 10, repetition_penalty: 1.5, length_penalty: -1 },
      metric: "vqa_accuracy_lavis",
    });
  });

  it.each(Object.keys(PRESETS))("%s is a task by itself", (preset) => {
    const toSay = PRESETS[preset].candidates === null ? { candidates: ["a", "b"] } : {};
    const made = parseTask(JSON.stringify({ preset, ...toSay }), "t.json");
    expect(Object.hasOwn(METRICS, made.metric)).toBe(true);
    const texts = { question: "Q", statement: "S", context: "", text: "T", history: "H" };
    const fields = { ...texts, ocr_tokens: ["x"], choices: ["a", "b"], options: ["a", "b"] };
    const answers = Array.from({ length: 10 }, () => (preset.endsWith("hatefulmemes") ? "yes" : "a"));
    expect(parseQuestion(JSON.stringify({ ...ITEM, ...fields, answers }), made).prompt).not.toMatch(/[{}]/);
  });

  it.each([
    ["{", /^BAD_TASK: t\.json: not valid JSON/],
    ["[]", /^BAD_TASK: t\.json: must be a JSON object/],
    ["{}", /^BAD_TASK: t\.json: there is no prompt/],
    [{ prompt: "x" }, /^BAD_TASK: t\.json: there is no metric\n.*exact_match/],
    [{ ...TASK, metric: "toString" }, /^BAD_TASK: .*no metric "toString"/],
    [{ ...TASK, metrics: 1 }, /^UNKNOWN_FIELD: .*no field "metrics"\n.*did you mean metric\?/],
    [{ ...TASK, preset: "paper-gpa" }, /^BAD_TASK: .*no preset "paper-gpa"\n.*did you mean "paper-gqa"/],
    [{ ...TASK, generation: { beams: 2 } }, /^UNKNOWN_OPTION: generate has no option "beams"/],
    [{ ...TASK, generation: { num_return_sequences: 2 } }, /^UNSUPPORTED_OPTION: .*one answer/],
    [{ ...TASK, mode: "rank_answers" }, /^BAD_TASK: .*no candidates to rank\n.*"file"/],
    [{ ...TASK, lavis: 1 }, /^BAD_TASK: .*lavis must be true or false/],
    [
      { ...TASK, image_transform: "clip" },
      /^BAD_TASK: .*image_transform must be "blip_image_eval" or "clip_image_eval"/,
    ],
    [{ ...TASK, candidates: ["a", "b"], ranking: { n_segments: 2 } }, /^BAD_TASK: .*n_segments is for "lavis": true/],
    [
      { ...TASK, lavis: true, candidates: [["a", "b"], ["c"]], ranking: { n_segments: 2 } },
      /^BAD_TASK: .*without synonyms/,
    ],
    [{ ...TASK, mode: "rank" }, /^BAD_TASK: .*mode must be "generate" or "rank_answers"/],
    [{ preset: "paper-msvd-qa" }, /^BAD_TASK: .*no candidates to rank/],
    [{ ...TASK, candidates: [] }, /^BAD_TASK: .*candidates must be texts/],
    [{ ...TASK, candidates: ["a", ["b"]] }, /^BAD_TASK: .*candidates must be texts/],
    [{ ...TASK, candidates: ["a", ""] }, /^BAD_TASK: .*candidates must be texts/],
    [{ ...TASK, candidates: { fields: "x" } }, /^BAD_TASK: .*\{"field": …\}/],
    [{ ...TASK, candidates: { field: "x", file: "y" } }, /^BAD_TASK: .*\{"field": …\}/],
    [{ ...TASK, candidates: ["a"], mode: "generate" }, /^BAD_TASK: .*candidates are for the mode "rank_answers"/],
    [{ ...TASK, ranking: {} }, /^BAD_TASK: .*ranking is for the mode "rank_answers"/],
    [{ ...TASK, candidates: ["a"], generation: {} }, /^BAD_TASK: .*generation is for the mode "generate"/],
    [{ ...TASK, candidates: ["a"], ranking: { sum: true } }, /^UNKNOWN_FIELD: .*ranking has no field "sum"/],
    [{ ...TASK, candidates: ["a"], ranking: { reduction: "max" } }, /^BAD_TASK: .*"sum" or "mean"/],
    [{ ...TASK, candidates: ["a"], ranking: { eos: 1 } }, /^BAD_TASK: .*eos must be/],
    [{ ...TASK, candidates: ["a"], ranking: { segment_size: 0 } }, /^BAD_TASK: .*segment_size must be/],
    [{ ...TASK, metric: "mrr" }, /^BAD_TASK: .*mrr needs candidates/],
    [{ ...TASK, metric: "auc", candidates: ["a", "b", "c"] }, /^BAD_TASK: .*auc needs two candidates/],
    [{ ...TASK, prompt: "{question" }, /^BAD_TASK: .*brace/],
    [{ ...TASK, prompt: "{question:0}" }, /^BAD_TASK: .*brace/],
  ])("is refused: %j", (value, message) => {
    const text = typeof value === "string" ? value : JSON.stringify(value);
    expect(refusal(() => parseTask(text, "t.json"))).toMatch(message);
  });
});

describe("a task that ranks", () => {
  const HOW = { reduction: "sum", eos: null, segment_size: null, n_segments: 1 };

  it.each([
    [
      ["yes", "no"],
      [["yes"], ["no"]],
    ],
    [
      [["yes", "true"], ["no"]],
      [["yes", "true"], ["no"]],
    ],
    [{ field: "choices" }, "choices"],
  ])("takes candidates %j", (candidates, taken) => {
    expect(task({ candidates })).toEqual({
      ...TASK,
      name: "my",
      preset: null,
      generation: {},
      ranking: { ...HOW, candidates: taken },
    });
  });

  it("takes them from a file beside it, one on each line", () => {
    const read = (name: string) => ({ "answers.txt": "a dog\r\n \n cat \n" })[name] ?? "";
    const text = JSON.stringify({
      ...TASK,
      candidates: { file: "answers.txt" },
      ranking: { reduction: "mean", eos: true },
    });
    expect(parseTask(text, "t.json", read).ranking).toEqual({
      ...HOW,
      candidates: [["a dog"], [" cat"]],
      reduction: "mean",
      eos: true,
    });
    expect(refusal(() => parseTask(text.replace("answers", "none"), "t.json", read))).toMatch(
      /no candidates in "none\.txt"/,
    );
  });

  it("has a preset of its language model, or of any", () => {
    const refused = (preset: string, type: string) => refusal(() => expectPresetModel({ preset }, type));
    expect(refused("lavis-gqa-t5", "llama")).toMatch(
      /^BAD_TASK: the preset "lavis-gqa-t5" is of t5, the model of "llama"\n/,
    );
    for (const [preset, type, hint] of [
      ["lavis-gqa-t5", "llama", 'use "lavis-gqa-vicuna"'],
      ["lavis-textvqa-vicuna", "t5", 'use "lavis-textvqa-t5"'],
      ["lavis-nocaps", "t5", 'use "lavis-nocaps-t5"'],
      ["lavis-nocaps", "opt", "write its prompt and generation into the task, without the preset"],
    ]) {
      expect(() => expectPresetModel({ preset }, type)).toThrow(expect.objectContaining({ hint }));
    }
    for (const preset of ["lavis-gqa-vicuna", "lavis-nocaps", "lavis-vsr", "paper-gqa", null]) {
      expectPresetModel({ preset }, "llama");
    }
  });

  it.each([
    [{ preset: "lavis-gqa-t5" }, []],
    [{ preset: "lavis-gqa-t5", generation: { num_beams: 5 } }, []],
    [
      { preset: "lavis-gqa-t5", generation: { num_beams: 2, beam_rules: "5" } },
      ["generation.num_beams", "generation.beam_rules"],
    ],
    [{ preset: "lavis-gqa-t5", lavis: false, image_transform: "clip_image_eval" }, ["lavis", "image_transform"]],
    [{ preset: "lavis-gqa-t5", candidates: ["a", "b"] }, ["mode"]],
    [{ preset: "lavis-hatefulmemes" }, []],
    [
      { preset: "lavis-hatefulmemes", candidates: [["no"], ["yes"]], ranking: { n_segments: 2 } },
      ["candidates", "ranking.n_segments"],
    ],
    [{ preset: "paper-msvd-qa", candidates: ["a"] }, []],
    [{ prompt: "x", metric: "exact_match", lavis: true }, []],
  ])("%j replaces %j of its preset", (given, replaced) => {
    expect(overridesOf(parseTask(JSON.stringify(given), "t.json"))).toEqual(replaced);
  });

  it.each([
    [{ preset: "lavis-gqa-t5" }, /\nlavis +to the token\n/],
    [
      { preset: "lavis-gqa-t5", generation: { beam_rules: "5" } },
      /\noverridden +generation\.beam_rules of the preset\nlavis +true\n/,
    ],
    [{ preset: "paper-gqa", lavis: true }, /\noverridden +lavis of the preset\nlavis +true\n/],
    [{ prompt: "x", metric: "exact_match", lavis: true }, /\nlavis +true\n/],
  ])("%j is reported as it is", (given, said) => {
    const made = parseTask(JSON.stringify(given), "t.json");
    const [shard, none] = [
      { i: 0, n: 1 },
      { version: "0", model: "m", model_sha256: "", dtype: "f32", data: "d" },
    ];
    const text = reportText(summarize(made.metric, []), { ...none, data_sha256: "", task: made, questions: 1, shard });
    expect(text).toMatch(said);
    expect(text).toMatch(/\ndata +d, 1 question\n$/);
  });

  it("may have a ranked preset generate after all", () => {
    expect(parseTask('{"preset": "paper-iconqa", "mode": "generate"}', "t.json")).not.toHaveProperty("ranking");
    expect(parseTask('{"preset": "paper-iconqa"}', "t.json").ranking?.candidates).toBe("choices");
  });

  it("knows which of a question's candidates are answers", () => {
    const groups = [["yes", "true"], ["no"], ["true"]];
    const item = (more: object, of: object) => parseQuestion(JSON.stringify({ ...ITEM, ...more }), task(of));
    expect(item({ answers: ["true"] }, { candidates: groups })).toMatchObject({ candidates: groups, right: [0, 2] });
    const own = item({ choices: ["x", "y"], answers: ["y"] }, { candidates: { field: "choices" } });
    expect(own).toMatchObject({ candidates: [["x"], ["y"]], right: [1] });
    expect(item({ answers: ["no "] }, { candidates: [" no", " yes"] }).right).toEqual([0]);
    expect(item({ answers: ["never"] }, { candidates: groups }).right).toEqual([]);
  });

  it.each([
    [{}, { candidates: { field: "choices" } }, /"choices" must be candidates/],
    [{ choices: [] }, { candidates: { field: "choices" } }, /"choices" must be candidates/],
    [{ answers: ["Yes"] }, { candidates: ["yes", "no"], metric: "mrr" }, /mrr needs an answer that is a candidate/],
    [
      { answers: ["yes", "no"] },
      { candidates: ["yes", "no"], metric: "auc" },
      /auc needs one right candidate of two, got 2 right of 2/,
    ],
    [
      { choices: ["yes", "no", "so"] },
      { candidates: { field: "choices" }, metric: "auc" },
      /auc needs one right candidate of two, got 1 right of 3/,
    ],
  ])("refuses the question %j of %j", (more, of, message) => {
    const text = refusal(() => parseQuestion(JSON.stringify({ ...ITEM, ...more }), task(of)));
    expect(text).toMatch(/^BAD_DATA: /);
    expect(text).toMatch(message);
  });
});

describe("a question", () => {
  it("fills the prompt in", () => {
    const fields = { ...ITEM, kind: "k", ocr: ["a", "b", "c"], n: 7 };
    const prompt = "{{{question}}} {ocr} {ocr:2} {ocr:9} {ocr:letters} {n} $&";
    expect(parseQuestion(JSON.stringify(fields), task({ prompt }))).toEqual({
      id: 1,
      image: "a.png",
      answers: ["yes"],
      kind: "k",
      prompt: "{What?} a, b, c a, b a, b, c (a) a (b) b (c) c 7 $&",
    });
  });

  it.each([
    [{ ...ITEM, id: null }, /id must be/],
    [{ ...ITEM, image: "" }, /image must be/],
    [{ ...ITEM, image: [] }, /image must be/],
    [{ ...ITEM, image: ["a.png", 2] }, /image must be/],
    [{ ...ITEM, answers: undefined, answer: "x" }, /answers must be an array of texts\n.*"answers": \["yes"\]/],
    [{ ...ITEM, answers: [] }, /needs at least 1, got 0/],
    [{ ...ITEM, answers: [1] }, /answers must be/],
    [{ ...ITEM, kind: 3 }, /kind must be a text/],
    [{ ...ITEM, question: undefined }, /needs the field "question"/],
    [{ ...ITEM, question: { a: 1 } }, /needs the field "question"/],
  ])("is refused: %j", (value, message) => {
    const text = refusal(() => parseQuestion(JSON.stringify(value), task()));
    expect(text).toMatch(/^BAD_DATA: /);
    expect(text).toMatch(message);
  });

  it("needs enough annotators for VQA accuracy", () => {
    const message = refusal(() => parseQuestion(JSON.stringify(ITEM), task({ metric: "vqa_accuracy" })));
    expect(message).toMatch(/vqa_accuracy needs at least 4, got 1\n.*exact_match_vqa/);
  });
});

describe("a caption's words", () => {
  it.each([
    ["A man, and a DOG!", "a man and a dog"],
    ["Two ducks floating in a green, grassy pond.", "two ducks floating in a green grassy pond"],
    ["The man's dogs don't sit; they’re running", "the man 's dogs do n't sit they 're running"],
    ["It cannot fly", "it can not fly"],
    ["a two-story t-shirt -- black/white", "a two-story t-shirt black/white"],
    ["At 7:30 a.m. Mr. Smith pays $1,000.50 (50%)...", "at 7:30 a.m. mr. smith pays $ 1,000.50 -lrb- 50 % -rrb-"],
    ["\"quoted\" 'words' and o'clock", "quoted words and o'clock"],
    ["a street.a car", "a street a car"],
    ["", ""],
    [" . ", ""],
  ])("%j", (caption, words) => {
    expect(ptbTokenize(caption).join(" ")).toBe(words);
  });
});
