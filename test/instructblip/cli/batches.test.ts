/** Batches of jobs: padding, separate jobs, and the same tokens as one by one. */
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import { batchesOf, batchKey, type Job, joinInputs, ownRows } from "../../../src/instructblip/cli/requests/batches.ts";
import type { Result } from "../../../src/instructblip/cli/requests/result.ts";
import { InstructBlipVisionModel } from "../../../src/instructblip/model/vision_model.ts";
import { VisionLanguageModel } from "../../../src/instructblip/pretrained/vision_language_model.ts";
import { DeviceError } from "../../../src/tensor/errors.ts";
import { ALL } from "../../rounds.ts";
import { temporaryFolder } from "../../temporary.ts";
import { cli, json, ROOT } from "./cli.ts";

const job = (options: Job["options"], lengths: readonly number[] = [3], pixel = 0): Job => ({
  options,
  inputs: {
    pixel_values: { data: new Float32Array(3 * lengths.length).fill(pixel), shape: [lengths.length, 3, 1, 1] },
    input_ids: lengths.map((length) => new Array<number>(length).fill(length)),
    qformer_input_ids: lengths.map((length) => new Array<number>(length + 1).fill(9)),
  },
});
const short = { max_new_tokens: 4 };

describe("what may be answered together", () => {
  it.each<[string, Job, Job, boolean]>([
    [
      "options in another order",
      job({ max_new_tokens: 4, num_beams: 2 }),
      job({ num_beams: 2, max_new_tokens: 4 }),
      true,
    ],
    ["prompts of other lengths", job(short), job(short, [5]), true],
    ["other options", job(short), job({ max_new_tokens: 5 }), false],
    ["no end, and the config's", job(short), job({ ...short, eos_token_id: null }), false],
    ["lengths that count the prompt", job({ max_length: 9 }), job({ max_length: 9 }, [5]), false],
    ["the same, of one length", job({ max_length: 9 }), job({ max_length: 9 }), true],
    [
      "options that look at the prompt",
      job({ ...short, repetition_penalty: 2 }),
      job({ ...short, repetition_penalty: 2 }, [5]),
      false,
    ],
    [
      "a penalty that does not",
      job({ ...short, repetition_penalty: 2, penalize_prompt: [1], beam_rules: "4.33" }),
      job({ ...short, repetition_penalty: 2, penalize_prompt: [1], beam_rules: "4.33" }, [5]),
      true,
    ],
    ["no length at all, with other prompts", job({}), job({}, [5]), false],
  ])("%s", (_, a, b, together) => {
    expect(batchKey(a) === batchKey(b)).toBe(together);
  });

  it.each<Job["options"]>([
    { ...short, do_sample: true },
    { ...short, max_time: 3 },
    { ...short, prompt_lookup_num_tokens: 3 },
    { ...short, stop_strings: ["."] },
    { ...short, guidance_scale: 2 },
    { ...short, negative_prompt_ids: [[1]] },
  ])("%j is answered alone", (options) => {
    expect(batchKey(job(options))).toBeUndefined();
    expect(
      batchKey(
        job({
          ...options,
          do_sample: false,
          prompt_lookup_num_tokens: null,
          max_time: null,
          stop_strings: null,
          guidance_scale: null,
          negative_prompt_ids: null,
        }),
      ),
    ).toBeDefined();
  });

  it("fills batches in the order of their first jobs; more rows than that are a batch of their own", () => {
    const other = { max_new_tokens: 9 };
    const jobs = [
      job(short),
      job(other),
      job(short, [1, 2]),
      job(short),
      job(short, [1, 1, 1, 1]),
      job(other),
      job(short),
    ];
    const indices = batchesOf(jobs, 3).map((batch) => batch.map((one) => jobs.indexOf(one)));
    expect(indices).toEqual([[0, 2], [1, 5], [3], [4], [6]]);
    expect(batchesOf(jobs, 1).flat()).toHaveLength(jobs.length);
    expect(batchesOf([], 3)).toEqual([]);
  });
});

it("prompts are padded in front, what the Q-Former reads behind, and neither is seen", () => {
  const joined = joinInputs([job(short, [2], 1).inputs, job(short, [3, 1], 2).inputs], 7);
  expect(joined).toEqual({
    pixel_values: { data: Float32Array.from([1, 1, 1, 2, 2, 2, 2, 2, 2]), shape: [3, 3, 1, 1] },
    input_ids: [
      [7, 2, 2],
      [3, 3, 3],
      [7, 7, 1],
    ],
    attention_mask: [
      [0, 1, 1],
      [1, 1, 1],
      [0, 0, 1],
    ],
    qformer_input_ids: [
      [9, 9, 9, 0],
      [9, 9, 9, 9],
      [9, 9, 0, 0],
    ],
    qformer_attention_mask: [
      [1, 1, 1, 0],
      [1, 1, 1, 1],
      [1, 1, 0, 0],
    ],
  });
});

it("a job's rows end with its own longest answer", () => {
  const rows = [
    [0, 0, 5, 6, 2, 8, 8, 8],
    [0, 0, 5, 6, 7, 2, 8, 8],
  ];
  expect(ownRows(rows, 2, 1, [2])).toEqual([
    [5, 6, 2, 8],
    [5, 6, 7, 2],
  ]);
  expect(ownRows(rows, 2, 1, [])).toEqual(rows.map((row) => row.slice(2)));
  expect(ownRows([[2, 5, 2, 0]], 0, 1, [2])).toEqual([[2, 5, 2]]); // an end id in the prompt ends nothing
});

const SHAPES = join(ROOT, "examples/shapes");
const MODEL = join(SHAPES, "checkpoint");
const images = ["a", "b", "c", "d", "e"].map((name) => join(SHAPES, `images/${name}.png`));
const questions = [
  "What color is the square?",
  "How many shapes are there?",
  "What is in the image?",
  "Where is the star?",
];

/** Images that the image encoder looks at. */
function looks(): number[] {
  vi.spyOn(VisionLanguageModel.prototype, "compile").mockResolvedValue(); // which looks, though at nothing
  const rows: number[] = [];
  const { forward } = InstructBlipVisionModel.prototype;
  vi.spyOn(InstructBlipVisionModel.prototype, "forward").mockImplementation(function (
    this: InstructBlipVisionModel,
    pixels,
    interpolate,
  ) {
    rows.push(pixels.shape[0]);
    return forward.call(this, pixels, interpolate);
  });
  return rows;
}
afterEach(() => vi.restoreAllMocks());

describe("generate --requests", () => {
  const requests = images.flatMap((image, i) =>
    questions.map((prompt, q) => ({
      id: `${i}.${q}`,
      images: q === 3 ? [image, images[0]] : [image],
      prompts: q === 3 ? [prompt, questions[0]] : [prompt],
      generation:
        q === 1 ? { max_new_tokens: 12, num_beams: 3 } : q === 2 ? { max_length: 60 } : { max_new_tokens: 12 },
    })),
  );
  const ask = async (...args: string[]) => {
    const file = join(temporaryFolder(), "requests.jsonl");
    await writeFile(file, requests.map((request) => JSON.stringify(request)).join("\n"));
    return json<Result>(["generate", "--model", MODEL, "--requests", file, "--json", ...args]);
  };
  const answersOf = (results: readonly Result[]) =>
    results.map(({ id, sequences, text, timing: { new_tokens } }) => ({ id, sequences, text, new_tokens }));

  let alone: readonly Result[];
  beforeAll(async () => {
    alone = await ask("--batch-size", "1");
  });

  it("answers in batches as one by one, in the order of the requests", async () => {
    expect(alone.every(({ batch_rows }) => batch_rows === undefined)).toBe(true);
    const generate = vi.spyOn(VisionLanguageModel.prototype, "generate");
    for (const args of [[], ["--batch-size", "3"]]) {
      const together = await ask(...args);
      expect(answersOf(together)).toEqual(answersOf(alone));
      const sizes = together.map(({ batch_rows }) => batch_rows ?? 0);
      // Of the first eight requests, which are read before any is answered, seven rows go together.
      expect(Math.max(...sizes)).toBe(args.length ? 3 : 7);
      expect(generate.mock.calls.length).toBeLessThan(requests.length);
      generate.mockClear();
    }
  });

  it("halves a batch that memory does not allow, and those after it", async () => {
    const { generate } = VisionLanguageModel.prototype;
    const sizes: number[] = [];
    vi.spyOn(VisionLanguageModel.prototype, "generate").mockImplementation(function (
      this: VisionLanguageModel,
      ...args: never[]
    ) {
      const [{ input_ids }] = args as unknown as [{ input_ids: unknown[] }];
      sizes.push(input_ids.length);
      if (input_ids.length > 2) return Promise.reject(new DeviceError("BUDGET", "it does not fit"));
      return (generate as (...args: never[]) => Promise<never>).apply(this, args);
    } as never);
    expect(answersOf(await ask())).toEqual(answersOf(alone));
    expect(sizes.filter((size) => size > 4)).toHaveLength(1);
  });

  it("loses no request of a batch that the GPU fails in", async () => {
    const failing = vi.spyOn(VisionLanguageModel.prototype, "generate");
    failing.mockRejectedValueOnce(new DeviceError("GPU_VALIDATION", "a batch too many"));
    expect(answersOf(await ask())).toEqual(answersOf(alone));
    expect(failing.mock.calls.length).toBeGreaterThan(1);
  });

  it("lets a bad one fail alone", async () => {
    const { generate } = VisionLanguageModel.prototype;
    vi.spyOn(VisionLanguageModel.prototype, "generate").mockImplementation(function (
      this: VisionLanguageModel,
      ...args: never[]
    ) {
      const [{ input_ids }] = args as unknown as [{ input_ids: number[][] }];
      if (input_ids.some((row) => row.length > 45)) return Promise.reject(new RangeError("a prompt as long as that"));
      return (generate as (...args: never[]) => Promise<never>).apply(this, args);
    } as never);
    const file = join(temporaryFolder(), "requests.jsonl");
    const long = "What color is the square? ".repeat(9);
    const lines = ["a", long, "b"].map((prompt) => ({ images: [images[0]], prompts: [prompt], generation: short }));
    await writeFile(file, lines.map((line) => JSON.stringify(line)).join("\n"));
    const { stdout } = await cli(["generate", "--model", MODEL, "--requests", file, "--json"]);
    const results = stdout
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as { error?: { message: string } });
    expect(results.map(({ error }) => error?.message !== undefined)).toEqual([false, true, false]);
  });
});

/** Of the evaluation's 500 questions. */
const [QUESTIONS, IMAGES] = ALL ? [100, 10] : [12, 3];

describe(`${QUESTIONS} questions about ${IMAGES} images`, () => {
  it(`are ${IMAGES} images looked at, and answered as one by one`, async () => {
    const folder = temporaryFolder();
    const [task, data] = [join(folder, "task.json"), join(folder, "data.jsonl")];
    await writeFile(task, '{"prompt": "{question}", "generation": {"max_new_tokens": 12}, "metric": "exact_match"}');
    const eval_ = join(SHAPES, "eval");
    const asked = (await readFile(join(eval_, "requests.jsonl"), "utf8"))
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    const items = Array.from({ length: QUESTIONS }, (_, i) => ({
      id: i,
      image: asked[i % IMAGES].images[0], // in turn, so that they have to be brought together
      question: asked[i].prompts[0],
      answers: ["red"],
    }));
    await writeFile(data, items.map((item) => JSON.stringify(item)).join("\n"));
    const rows = looks();
    const run = async (...args: string[]) => {
      const out = join(folder, `${args.length}.jsonl`);
      await cli([
        "evaluate",
        "--model",
        MODEL,
        "--task",
        task,
        "--data",
        data,
        "--images",
        eval_,
        "--out",
        out,
        ...args,
      ]);
      const [, ...lines] = (await readFile(out, "utf8"))
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line));
      return lines.sort((a, b) => a.index - b.index).map(({ id, prediction }) => ({ id, prediction }));
    };
    const together = await run();
    expect(rows.splice(0).reduce((sum, n) => sum + n, 0)).toBe(IMAGES);
    expect(await run("--batch-size", "1")).toEqual(together);
    expect(rows.reduce((sum, n) => sum + n, 0)).toBe(IMAGES);
    expect(new Set(together.map(({ prediction }) => prediction)).size).toBeGreaterThan(IMAGES);
  });
});
