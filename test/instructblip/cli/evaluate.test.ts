/** `evaluate` and `merge` on the embedded checkpoint: PyTorch's scores, merged shards, resumed runs. */
import { readFileSync } from "node:fs";
import { appendFile, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeEach, describe, expect, it, vi } from "vitest";
import { EXIT } from "../../../src/instructblip/cli/format.ts";
import type { Settings } from "../../../src/instructblip/evaluation/prediction_file.ts";
import { PRESETS } from "../../../src/instructblip/evaluation/presets.ts";
import type { Prediction, Summary } from "../../../src/instructblip/evaluation/summary.ts";
import { InstructBlipForConditionalGeneration } from "../../../src/instructblip/pretrained/instructblip.ts";
import type { VisionLanguageModel } from "../../../src/instructblip/pretrained/vision_language_model.ts";
import { InstructBlipProcessor } from "../../../src/instructblip/processing/instructblip_processor.ts";
import { DeviceError } from "../../../src/tensor/errors.ts";
import { goldenFolder } from "../../golden_folder.ts";
import { temporaryFolder } from "../../temporary.ts";
import { cli, json, ROOT } from "./cli.ts";

const SHAPES = join(ROOT, "examples/shapes");
const EVAL = join(SHAPES, "eval");
const MODEL = join(SHAPES, "checkpoint");

const jsonLines = <T>(text: string) =>
  text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as T);
const requests = jsonLines<{ images: string[]; prompts: string[] }>(readFileSync(join(EVAL, "requests.jsonl"), "utf8"));
const expected = jsonLines<{ id: string; kind: string; answer: string; prediction: string }>(
  readFileSync(join(EVAL, "expected.jsonl"), "utf8"),
);
/** Six questions, one of each kind but one, one of which PyTorch answers wrongly: 058. */
const [FROM, N] = [54, 6];
const truth = expected.slice(FROM, FROM + N);
const items = truth.map(({ id, kind, answer }, i) => ({
  id,
  image: requests[FROM + i].images[0],
  question: requests[FROM + i].prompts[0],
  answers: [answer],
  kind,
}));

let folder: string;
let evaluate: string[];
beforeEach(async () => {
  folder = temporaryFolder();
  const [task, data] = [join(folder, "task.json"), join(folder, "data.jsonl")];
  await writeFile(task, '{"prompt": "{question}", "generation": {"max_new_tokens": 40}, "metric": "exact_match"}');
  await writeFile(data, items.map((item) => JSON.stringify(item)).join("\n"));
  evaluate = ["evaluate", "--model", MODEL, "--task", task, "--data", data, "--images", EVAL];
});

type Report = Summary & { settings: Settings };
const report = async (...args: string[]) => (await json<Report>(args))[0];
const lines = async (file: string) => jsonLines<Prediction>(await readFile(file, "utf8"));

describe("evaluate", () => {
  it("has PyTorch's answers and the figures that follow from them", async () => {
    const out = join(folder, "all.jsonl");
    const { settings, ...figures } = await report(...evaluate, "--out", out, "--json");
    const [header, ...rows] = await lines(out);
    expect(header).toEqual({ evaluation: settings });
    expect(rows.map(({ id, prediction }) => [id, prediction])).toEqual(
      truth.map(({ id, prediction }) => [id, prediction]),
    );
    const right = truth.filter(({ answer, prediction }) => answer === prediction).length;
    expect(right).toBe(N - 1);
    expect(figures).toMatchObject({
      metric: "exact_match",
      score: expect.closeTo((100 * right) / N, 10),
      count: N,
      failed: 0,
    });
    expect(figures.kinds.count).toEqual({ score: 0, interval: null, count: 1, failed: 0 });
    expect(Object.keys(figures.kinds)).toEqual([...new Set(truth.map(({ kind }) => kind))].sort());
    expect(settings).toMatchObject({ questions: N, shard: { i: 0, n: 1 }, dtype: "auto", model: "checkpoint" });
  });

  it("in parts, merged, has the same figures as one run, to the last bit", async () => {
    await writeFile(
      join(folder, "task.json"),
      '{"name": "captions", "prompt": "{question}", "metric": "cider", "generation": {"max_new_tokens": 40, "num_beams": 2}}',
    );
    const whole = await cli([...evaluate, "--out", join(folder, "whole.jsonl"), "--json"]);
    expect(whole.stderr).toBe("");
    const parts = [0, 1, 2].map((i) => join(folder, `part-${i}.jsonl`));
    for (const [i, part] of parts.entries()) {
      const { count, settings } = await report(...evaluate, "--shard", `${i}/3`, "--out", part, "--json");
      expect({ count, shard: settings.shard }).toEqual({ count: N / 3, shard: { i, n: 3 } });
    }
    const merged = await cli(["merge", parts[2], parts[0], parts[1], "--json"]);
    expect(merged).toEqual(whole);
    expect(JSON.parse(whole.stdout).score).toBeGreaterThan(10);
    expect((await cli(["merge", join(folder, "whole.jsonl"), "--json"])).stdout).toBe(whole.stdout);
    const text = await cli(["merge", ...parts]);
    expect(text.stdout).toMatch(/all .* 6 +0\n/);
    expect(text.stdout).toMatch(/^task +captions$/m);

    const partial = await cli(["merge", parts[0], parts[2]]);
    expect(partial).toEqual({ code: EXIT.refused, stdout: "", stderr: "error: shards are missing: 1/3\n" });
    await truncate(parts[1], (await readFile(parts[1])).length - 3);
    expect((await cli(["merge", ...parts])).stderr).toMatch(/part-1\.jsonl: .*(not valid JSON|not complete)/);
  });

  it("goes on where it was stopped, and answers nothing twice", async () => {
    const [whole, out] = [join(folder, "whole.jsonl"), join(folder, "out.jsonl")];
    const full = await cli([...evaluate, "--out", whole, "--json"]);
    const text = await readFile(whole, "utf8");
    const generate = vi.spyOn(InstructBlipForConditionalGeneration.prototype, "generate");
    const load = vi.spyOn(InstructBlipForConditionalGeneration, "from_pretrained");
    try {
      // Stopped in the header, between lines, within the last line, and not at all.
      const cuts = [10, text.indexOf("\n") + 1, text.split("\n").slice(0, 4).join("\n").length + 1, text.length - 4];
      for (const [cut, left] of [...cuts, text.length].map((cut, i) => [cut, [N, N, N - 3, 1, 0][i]])) {
        await writeFile(out, text.slice(0, cut));
        generate.mockClear();
        load.mockClear();
        const resumed = await cli([...evaluate, "--out", out, "--resume", "--json", "--batch-size", "1"]);
        expect(resumed).toEqual(full);
        expect(await readFile(out, "utf8")).toBe(text);
        expect(generate).toHaveBeenCalledTimes(left);
        expect(load).toHaveBeenCalledTimes(left ? 1 : 0);
      }
    } finally {
      generate.mockRestore();
      load.mockRestore();
    }
    // Neither over something that is there, nor with another run's.
    const over = await cli([...evaluate, "--out", out]);
    expect(over).toMatchObject({ code: EXIT.refused, stdout: "" });
    expect(over.stderr).toMatch(/the file is not empty\n.*--resume/);
    expect((await cli([...evaluate, "--out", out, "--resume", "--dtype", "f32"])).stderr).toMatch(/differ in dtype/);
    expect((await cli([...evaluate, "--out", out, "--resume", "--shard", "0/2"])).stderr).toMatch(/differ in shard/);
    await appendFile(join(folder, "data.jsonl"), "\n\n");
    expect((await cli([...evaluate, "--out", out, "--resume"])).stderr).toMatch(/differ in data_sha256/);
    expect(await readFile(out, "utf8")).toBe(text);
  });

  it.each([
    ["--kv-cache-dtype", "kv_cache_dtype", "cache as f16"],
    ["--compute-dtype", "compute_dtype", "computed in f16"],
  ] as const)("loads the model as %s says, which parts must agree on", async (flag, name, reported) => {
    const load = vi.spyOn(InstructBlipForConditionalGeneration, "from_pretrained");
    try {
      await writeFile(
        join(folder, "data.jsonl"),
        items
          .slice(0, 2)
          .map((item) => JSON.stringify(item))
          .join("\n"),
      );
      const out = join(folder, "out.jsonl");
      const { settings, score } = await report(...evaluate, flag, "f16", "--out", out, "--json");
      expect({ score, [name]: settings[name] }).toEqual({ score: 100, [name]: "f16" });
      expect(load.mock.calls[0][1]).toMatchObject({ [name]: "f16" });
      const { language_model } = (await load.mock.results[0].value) as VisionLanguageModel;
      if (name === "kv_cache_dtype") expect(language_model.kvCacheDtype).toBe("f16");
      const other = await cli([...evaluate, "--out", out, "--resume"]);
      expect(other).toMatchObject({ code: EXIT.refused, stdout: "" });
      expect(other.stderr).toContain(`differ in ${name}`);
      expect((await cli(["merge", out])).stdout).toMatch(new RegExp(`^model .*weights as auto, ${reported}$`, "m"));
      expect((await report(...evaluate, "--json")).settings).not.toHaveProperty(name);
    } finally {
      load.mockRestore();
    }
  });

  it("never scores a failure as an empty answer", async () => {
    const lost = items.slice(0, 3).map((item, i) => (i === 1 ? { ...item, image: "none.png" } : item));
    await writeFile(join(folder, "data.jsonl"), lost.map((item) => JSON.stringify(item)).join("\n"));
    const out = join(folder, "out.jsonl");
    const failing = await cli([...evaluate, "--out", out, "--json"]);
    expect(failing.code).toBe(EXIT.someFailed);
    expect(JSON.parse(failing.stdout)).toMatchObject({ score: 100, count: 2, failed: 1 });
    expect(failing.stderr).toBe(
      '1 of 3 questions failed and are not in the score; the first: "055": none.png: no such file\n',
    );
    const row = (await lines(out))[2];
    expect(row).toMatchObject({ id: "055", error: { code: "NOT_FOUND" } });
    expect(row).not.toHaveProperty("prediction");
    // Gone on with or merged, it is a failure still.
    expect(await cli([...evaluate, "--out", out, "--resume", "--json"])).toEqual(failing);
    expect(await cli(["merge", out, "--json"])).toEqual(failing);
    // And tried once more when its line is gone.
    await writeFile(out, (await readFile(out, "utf8")).replace(/^.*none\.png.*\n/m, ""));
    expect((await lines(out)).length).toBe(3);
    expect((await cli([...evaluate, "--out", out, "--resume"])).code).toBe(EXIT.someFailed);
    expect((await lines(out)).length).toBe(4);
  });

  it("ends, and leaves the question to the next run, when every question would fail", async () => {
    const out = join(folder, "out.jsonl");
    const generate = vi.spyOn(InstructBlipForConditionalGeneration.prototype, "generate");
    generate.mockRejectedValue(new DeviceError("GPU_OOM", "the GPU ran out of memory"));
    const lost = await cli([...evaluate, "--out", out]);
    generate.mockRestore();
    expect(lost).toEqual({ code: EXIT.retry, stdout: "", stderr: "error: the GPU ran out of memory\n" });
    expect(await lines(out)).toHaveLength(1);
    await rm(out);
    await writeFile(
      join(folder, "task.json"),
      '{"prompt": "{question}", "metric": "cider", "generation": {"max_length": 2}}',
    );
    const wrong = await cli([...evaluate, "--out", out]);
    expect(wrong).toMatchObject({ code: EXIT.refused, stdout: "" });
    expect(wrong.stderr).toMatch(/max_length must be more than/);
    expect(await lines(out)).toHaveLength(1);
  });

  it("refuses mistakes before it loads a model", async () => {
    const load = vi.spyOn(InstructBlipForConditionalGeneration, "from_pretrained");
    const [task, data] = [join(folder, "task.json"), join(folder, "data.jsonl")];
    const refused = async (...args: string[]) => {
      const outcome = await cli(args.length ? args : evaluate);
      expect(outcome).toMatchObject({ code: EXIT.refused, stdout: "" });
      return outcome.stderr;
    };
    await writeFile(data, `${JSON.stringify(items[0])}\n\n${JSON.stringify(items[0])}\n`);
    expect(await refused()).toMatch(/data\.jsonl: line 3: the id "054" is on line 1 already/);
    await writeFile(data, `${JSON.stringify(items[0])}\n{"id": 1}\n`);
    expect(await refused()).toMatch(/data\.jsonl: line 2: image must be a file name/);
    await writeFile(data, "\n");
    expect(await refused()).toMatch(/data\.jsonl: there are no questions in it/);
    await writeFile(data, Uint8Array.of(0x7b, 0xff));
    expect(await refused()).toMatch(/data\.jsonl: line 1: the line is not valid UTF-8/);
    await rm(data);
    expect(await refused()).toMatch(/data\.jsonl: no such file/);
    await writeFile(task, '{"preset": "paper-msvd-qa"}');
    expect(await refused()).toMatch(/task\.json: there are no candidates to rank/);
    await rm(task);
    expect(await refused()).toMatch(/--task .*task\.json: no such file/);
    expect(await refused(...evaluate.with(4, "lavis-gqa-t5"))).toMatch(/of a preset: \{"preset": "lavis-gqa-t5"\}/);
    expect(await refused("merge", data)).toMatch(/data\.jsonl: no such file/);
    await writeFile(data, "");
    expect(await refused("merge", data)).toMatch(/data\.jsonl: the file is empty/);
    expect(await refused("merge", data, data)).toMatch(/the file is empty|given twice/);
    expect(load).not.toHaveBeenCalled();
    load.mockRestore();
  });
});

it("asks about videos, whose frames are files, and models of images about several", async () => {
  const video = goldenFolder("video_4_frames");
  const golden = JSON.parse(await readFile(join(video, "golden.json"), "utf8")) as {
    prompts: string[];
    images: string[];
    generations: { name: string; answers: string[] }[];
  };
  const [task, data, out] = ["task.json", "videos.jsonl", "out.jsonl"].map((file) => join(folder, file));
  const questions = golden.prompts.map((question, i) => ({
    id: i,
    image: golden.images.slice(4 * i, 4 * i + 4),
    question,
    answers: ["?"],
  }));
  await writeFile(task, '{"prompt": "{question}", "generation": {"max_new_tokens": 12}, "metric": "exact_match"}');
  await writeFile(data, questions.map((question) => JSON.stringify(question)).join("\n"));
  const command = ["evaluate", "--task", task, "--data", data, "--images", video];
  expect((await cli([...command, "--model", video, "--out", out])).code).toBe(EXIT.ok);
  const { answers } = golden.generations.find(({ name }) => name === "greedy")!;
  for (const row of (await lines(out)).slice(1)) {
    if (row.error) throw new Error(row.error.message);
    expect(row.prediction).not.toBe("");
    expect(answers[row.index].endsWith(row.prediction)).toBe(true);
  }
  // The checkpoint's processor has one image for each prompt that is no list.
  const several = await cli([...command, "--model", MODEL]);
  expect([several.code, several.stderr]).toEqual([EXIT.ok, ""]);
});

it("answers by a preset as LAVIS does", async () => {
  const { question, answer, candidates, segments } = JSON.parse(
    readFileSync("test/golden/lavis/data/functions.json", "utf8"),
  ).tiny.plain_f32;
  const [task, data, out] = ["task.json", "data.jsonl", "out.jsonl"].map((file) => join(folder, file));
  const model = goldenFolder("plain_f32");
  const item = { id: 1, image: "image_0.png", question, answers: new Array(10).fill("a"), options: candidates };
  await writeFile(data, JSON.stringify(item));
  const predicted = async (about: object, name: string, said: RegExp) => {
    await writeFile(task, JSON.stringify(about));
    const command = ["evaluate", "--model", model, "--task", task, "--data", data, "--images", model];
    const { code, stdout } = await cli([...command, "--out", `${out}.${name}`]);
    expect(code).toBe(EXIT.ok);
    expect(stdout).toMatch(said);
    return (await lines(`${out}.${name}`))[1].prediction;
  };
  const { tokenizer } = await InstructBlipProcessor.from_pretrained(model);
  const text = tokenizer.decode(answer, { skip_special_tokens: true }).trim();
  expect(text.length).toBeGreaterThan(10);
  expect(await predicted({ preset: "lavis-vqa-vicuna" }, "vqa", /lavis +to the token\nimages +blip_image_eval\n/)).toBe(
    text,
  );
  await writeFile(task, '{"preset": "lavis-vqa-t5"}');
  const other = await cli(["evaluate", "--model", model, "--task", task, "--data", data]);
  expect([other.code, other.stderr]).toEqual([EXIT.refused, expect.stringContaining('hint: use "lavis-vqa-vicuna"')]);
  const prompt = "Question: {question} Short answer:";
  const ranked = { lavis: true, prompt, candidates: { field: "options" }, metric: "exact_match" };
  const best = candidates[segments[2].ranks[0]];
  expect(await predicted({ ...ranked, ranking: { n_segments: 2 } }, "ranked", /, in 2 segments\n/)).toBe(best);
});

it("prints its presets", async () => {
  const { stdout, code } = await cli(["evaluate", "--list-presets"]);
  expect(code).toBe(EXIT.ok);
  for (const [name, { prompt, source }] of Object.entries(PRESETS)) {
    const at = stdout.indexOf(`${name}\n  prompt   ${JSON.stringify(prompt)}\n`);
    expect(stdout.slice(at).split("\n")[5]).toBe(`  from     ${source}`);
  }
  const both = await cli(["evaluate", "--list-presets", "--json"]);
  expect([both.code, both.stderr]).toEqual([
    EXIT.usage,
    expect.stringContaining("cannot be used with option '--json'"),
  ]);
});

describe("evaluate, ranking", () => {
  /** Questions of yes or no, and other words that are to mean the same. */
  const asked = expected
    .flatMap((line, i) => (line.kind === "exists" ? [{ ...line, ...requests[i] }] : []))
    .slice(0, 6);
  const questions = asked.map(({ id, answer, images, prompts }, i) => ({
    id,
    image: images[0],
    question: prompts[0],
    answers: [answer],
    choices: i % 2 ? ["no", "yes"] : ["yes", "no", "red"],
    kind: i % 3 ? "a" : "b",
  }));
  const TASKS = {
    shared: { candidates: ["yes", "no"], metric: "exact_match" },
    own: { candidates: { field: "choices" }, metric: "mrr", ranking: { eos: true, reduction: "mean" } },
    verbalised: {
      candidates: [
        ["yes", "red"],
        ["no", "blue"],
      ],
      metric: "auc",
      ranking: { segment_size: 3 },
    },
  };
  let ranking: string[];
  const use = async (name: keyof typeof TASKS) => {
    const [task, data] = [join(folder, `${name}.json`), join(folder, "ranked.jsonl")];
    await writeFile(task, JSON.stringify({ prompt: "{question}", ...TASKS[name] }));
    await writeFile(data, questions.map((question) => JSON.stringify(question)).join("\n"));
    ranking = ["evaluate", "--model", MODEL, "--task", task, "--data", data, "--images", EVAL];
  };

  it.each(["shared", "own", "verbalised"] as const)(
    "has the figures of whole and merged runs alike: %s",
    async (name) => {
      await use(name);
      const [whole, ...parts] = ["whole", 0, 1, 2].map((part) => join(folder, `${part}.jsonl`));
      const { score, count, failed } = await report(...ranking, "--out", whole, "--json");
      expect({ score, count, failed }).toEqual({ score: 100, count: 6, failed: 0 });
      for (const [i, part] of parts.entries()) {
        expect((await cli([...ranking, "--shard", `${i}/3`, "--out", part, "--json"])).code).toBe(EXIT.ok);
      }
      const merged = await cli(["merge", ...parts, "--json"]);
      expect(merged.stdout).toBe((await cli(["merge", whole, "--json"])).stdout);
      const [, ...rows] = await lines(whole);
      expect(rows.map(({ prediction }) => prediction)).toEqual(asked.map(({ answer }) => answer));
      for (const [i, row] of rows.entries()) {
        if (row.error) throw new Error(row.error.message);
        const { scores, right, answers } = row;
        if (name === "shared") {
          expect([scores, right]).toEqual([undefined, undefined]);
          continue;
        }
        expect(scores!.length).toBe(name === "own" ? questions[i].choices.length : 2);
        expect(right).toEqual([
          name === "own" ? questions[i].choices.indexOf(answers[0]) : answers[0] === "yes" ? 0 : 1,
        ]);
        expect(scores!.indexOf(Math.min(...scores!))).toBe(right![0]);
      }
      const text = (await cli(["merge", whole])).stdout;
      expect(text).toMatch(/ranked +(each question's choices, by the mean|2 candidates, by the sum)/);
    },
  );

  it.each([
    ["choices.json", "choices"],
    ["words.json", 28],
  ])("does the example's task %s", async (task, candidates) => {
    const files = ["--task", join(SHAPES, "ranking", task), "--data", join(SHAPES, "ranking/questions.jsonl")];
    const { score, count, settings } = await report(
      "evaluate",
      "--model",
      MODEL,
      ...files,
      "--shard",
      "1/72",
      "--json",
    );
    expect({ score, count, questions: settings.questions }).toEqual({ score: 100, count: 6, questions: 429 });
    const { candidates: ranked } = settings.task.ranking!;
    expect(typeof ranked === "string" ? ranked : ranked.length).toBe(candidates);
  });

  it("goes on with a run, and with no other ranking", async () => {
    await use("verbalised");
    const out = join(folder, "out.jsonl");
    const full = await cli([...ranking, "--out", out, "--json"]);
    const text = await readFile(out, "utf8");
    await truncate(out, text.indexOf("\n", text.length / 2) + 5);
    expect(await cli([...ranking, "--out", out, "--resume", "--json"])).toEqual(full);
    await writeFile(ranking[4], JSON.stringify({ prompt: "{question}", ...TASKS.verbalised, ranking: { eos: true } }));
    expect((await cli([...ranking, "--out", out, "--resume"])).stderr).toMatch(/differ in task/);
  });

  it("says before the model is loaded what is wrong with candidates", async () => {
    await use("own");
    await writeFile(ranking[6], JSON.stringify({ ...questions[0], choices: ["red", "blue"] }));
    expect((await cli(ranking)).stderr).toMatch(/line 1: mrr needs an answer that is a candidate/);
    await writeFile(ranking[4], '{"prompt": "{question}", "metric": "mrr", "candidates": {"file": "none.txt"}}');
    expect((await cli(ranking)).stderr).toMatch(/none\.txt cannot be read/);
  });
});
