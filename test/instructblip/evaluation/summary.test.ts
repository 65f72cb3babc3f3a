/** Scores of predictions, and merging prediction files. */
import { describe, expect, it } from "vitest";
import {
  headerLine,
  joinParts,
  type PredictionFile,
  predictionReader,
  type Settings,
} from "../../../src/instructblip/evaluation/prediction_file.ts";
import { sizeOf } from "../../../src/instructblip/evaluation/shards.ts";
import { type Prediction, summarize } from "../../../src/instructblip/evaluation/summary.ts";
import type { EngineError } from "../../../src/tensor/errors.ts";

const ERROR = { code: "NOT_FOUND", message: "gone" };

function row(index: number, prediction: string | null, kind: string | null = null): Prediction {
  const common = { index, id: `q${index}`, kind, prompt: "?", answers: ["yes", "a yes", "y", "yes yes"] };
  return prediction === null ? { ...common, error: ERROR } : { ...common, prediction };
}

const SETTINGS: Settings = {
  version: "1",
  task: { name: "t", preset: null, prompt: "?", generation: {}, metric: "exact_match" },
  model: "m",
  model_sha256: "a",
  dtype: "auto",
  data: "d",
  data_sha256: "b",
  questions: 7,
  shard: { i: 0, n: 1 },
};

describe("figures of candidates", () => {
  const scored = (index: number, scores: number[], right: number, kind: string | null = null): Prediction => ({
    index,
    id: `q${index}`,
    kind,
    prompt: "?",
    answers: ["yes"],
    prediction: "yes",
    scores,
    right: [right],
  });

  it("are an area of all, and of each kind by itself", () => {
    // Odds of the positive candidate. Kind a: 3, 1 against 2: half. Kind b: 9 against 8: all. Together 4 of 6.
    const rows = [
      scored(0, [0, 3], 0, "a"),
      scored(1, [0, 1], 0, "a"),
      scored(2, [0, 2], 1, "a"),
      scored(3, [0, 9], 0, "b"),
      scored(4, [0, 8], 1, "b"),
      scored(5, [0, 8], 0, "c"),
    ];
    const { score, interval, kinds } = summarize("auc", [...rows, row(6, null, "b")]);
    // 3 beats 2; 1 none; 9 beats 2 and 8; 8 beats 2 and ties with 8: 1 + 0 + 2 + 1.5 of 8
    expect(score).toBeCloseTo((100 * 4.5) / 8, 10);
    expect(interval![0]).toBeGreaterThanOrEqual(0);
    expect(interval![1]).toBeLessThanOrEqual(100);
    expect(kinds.a).toEqual({ score: 50, interval: null, count: 3, failed: 0 });
    expect(kinds.b).toEqual({ score: 100, interval: null, count: 2, failed: 1 });
    expect(kinds.c).toEqual({ score: null, interval: null, count: 1, failed: 0 });
  });

  it("are the same whatever the order of the rows, through a part's lines", () => {
    const rows = Array.from({ length: 7 }, (_, i) => scored(i, [Math.sin(i), Math.cos(i) / 3], i % 2));
    const settings: Settings = { ...SETTINGS, task: { ...SETTINGS.task, metric: "auc" } };
    const reader = predictionReader("p");
    reader.add(headerLine(settings).trim());
    for (const one of [...rows].reverse()) reader.add(JSON.stringify(one));
    expect(summarize("auc", reader.file()!.rows)).toEqual(summarize("auc", rows));
    const without = { ...rows[0], scores: undefined };
    const other = predictionReader("p");
    other.add(headerLine(settings).trim());
    expect(() => other.add(JSON.stringify(without))).toThrow(/not a prediction written by evaluate/);
  });
});

describe("figures", () => {
  it("leave failures out of the score, and count them", () => {
    const rows = [row(0, "yes", "a"), row(1, "no", "b"), row(2, null, "b"), row(3, "", "a"), row(4, null, "c")];
    const { score, count, failed, kinds } = summarize("exact_match", rows);
    expect({ score: score?.toFixed(6), count, failed }).toEqual({ score: "33.333333", count: 3, failed: 2 });
    expect(kinds).toEqual({
      a: { score: 50, interval: expect.anything(), count: 2, failed: 0 },
      b: { score: 0, interval: null, count: 1, failed: 1 },
      c: { score: null, interval: null, count: 0, failed: 1 },
    });
  });

  it("have Wilson's interval for shares", () => {
    const { interval } = summarize(
      "exact_match",
      Array.from({ length: 10 }, (_, i) => row(i, "yes")),
    );
    expect(interval![0]).toBeCloseTo(72.2467, 3); // n / (n + z²), by hand
    expect(interval![1]).toBeCloseTo(100, 10);
    expect(interval![1]).toBeLessThanOrEqual(100);
    const half = summarize(
      "exact_match",
      Array.from({ length: 100 }, (_, i) => row(i, i % 2 ? "yes" : "no")),
    );
    expect(half.interval!.map((end) => end.toFixed(2))).toEqual(["40.38", "59.62"]); // Brown, Cai and DasGupta's tables
  });

  it("have the standard error's interval for means", () => {
    const scores = [0.25, 1, 0].map((share) => ["yes", "a", "b"][[0.25, 1, 0].indexOf(share)]);
    const rows = scores.map((prediction, i) => ({
      ...row(i, prediction),
      answers: ["a", "a", "a", "a", "yes", "yes"],
    }));
    const { score, interval } = summarize("vqa_accuracy", rows as Prediction[]);
    // yes: 2 of 6 say it: (2 × 1/3 + 4 × 2/3) / 6; a: an article, so "" = "" for 4 of 6; b: nothing
    const values = [(2 / 3 + 8 / 3) / 6, 1, 0];
    const mean = (values[0] + 1) / 3;
    const error = Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / 2 / 3);
    expect(score).toBeCloseTo(100 * mean, 10);
    expect(interval![0]).toBeCloseTo(Math.max(0, 100 * (mean - 1.959963984540054 * error)), 10);
    expect(mean + 1.959963984540054 * error).toBeGreaterThan(1);
    expect(interval![1]).toBe(100); // mean + 1.96 errors is above what can be
    const narrow = summarize("vqa_accuracy", Array.from({ length: 20 }, (_, i) => rows[i % 3]) as Prediction[]);
    const spread = Array.from({ length: 20 }, (_, i) => values[i % 3]);
    const middle = spread.reduce((sum, value) => sum + value, 0) / 20;
    const half = 1.959963984540054 * Math.sqrt(spread.reduce((sum, value) => sum + (value - middle) ** 2, 0) / 19 / 20);
    expect(narrow.interval![0]).toBeCloseTo(100 * (middle - half), 10);
    expect(narrow.interval![1]).toBeCloseTo(100 * (middle + half), 10);
  });

  it("do not depend on the order of rows", () => {
    const words = ["yes", "a yes y", "yes yes a", "y", "no yes", "a", "yes a y yes"];
    const rows = words.map((word, i) => row(i, word));
    for (const metric of ["cider", "vqa_accuracy"] as const) {
      expect(summarize(metric, [...rows].reverse())).toEqual(summarize(metric, rows));
    }
  });
});

/** Reads back what a run would have written. */
function part(
  shard: { i: number; n: number },
  rows: readonly Prediction[],
  more: Partial<Settings> = {},
): PredictionFile {
  const reader = predictionReader("p");
  reader.add(headerLine({ ...SETTINGS, ...more, shard }));
  for (const one of rows) reader.add(JSON.stringify(one));
  return reader.file()!;
}

const all = Array.from({ length: 7 }, (_, i) => row(i, "yes"));
const third = (i: number) => all.filter(({ index }) => index % 3 === i);

function refusal(act: () => unknown): string {
  try {
    act();
  } catch (error) {
    return `${(error as EngineError).code}: ${(error as Error).message}`;
  }
  return "not refused";
}

describe("parts", () => {
  it("have the sizes of interleaving", () => {
    for (let questions = 0; questions < 9; questions++) {
      const sizes = [0, 1, 2].map((i) => sizeOf({ i, n: 3 }, questions));
      const counted = [0, 1, 2].map(
        (i) => Array.from({ length: questions }, (_, k) => k).filter((k) => k % 3 === i).length,
      );
      expect(sizes).toEqual(counted);
    }
  });

  it("make the whole in any order", () => {
    const parts = new Map([2, 0, 1].map((i) => [`p${i}`, part({ i, n: 3 }, third(i), { model: `m${i}` })]));
    const { settings, rows } = joinParts(parts);
    expect(settings.shard).toEqual({ i: 0, n: 1 });
    expect(rows.map(({ index }) => index).sort()).toEqual([0, 1, 2, 3, 4, 5, 6]);
  });

  it("are refused where they are not the whole", () => {
    const join = (...parts: PredictionFile[]) =>
      refusal(() => joinParts(new Map(parts.map((one, i) => [`p${i}`, one]))));
    const [a, b, c] = [0, 1, 2].map((i) => part({ i, n: 3 }, third(i)));
    expect(join()).toBe("PARTS_MISSING: there are no files to merge");
    expect(join(a, c)).toBe("PARTS_MISSING: shards are missing: 1/3");
    expect(join(a, b, b)).toBe("PARTS_DIFFER: p2 and p1 are the same shard, 1/3");
    expect(join(a, b, part({ i: 2, n: 3 }, []))).toMatch(/^PART_UNFINISHED: p2: 0 of 2 questions are done\n.*--resume/);
    expect(join(a, b, part({ i: 2, n: 3 }, third(2), { data_sha256: "x" }))).toMatch(/differ in data_sha256/);
    expect(join(a, b, part({ i: 2, n: 3 }, third(2), { dtype: "f16" }))).toMatch(/differ in dtype/);
    expect(join(a, part({ i: 1, n: 2 }, []))).toMatch(/differ in shard/);
    expect(join(a, b, c)).toBe("not refused");
  });

  it.each([
    ["{", /not valid JSON/],
    [JSON.stringify({ ...row(3, "x"), index: 7 }), /not a prediction/],
    [JSON.stringify({ ...row(3, "x"), error: ERROR }), /not a prediction/],
    [JSON.stringify({ ...row(3, "x"), prediction: undefined }), /not a prediction/],
    [JSON.stringify(row(1, "x")), /question 1 is not in shard 0\/3/],
    [JSON.stringify(row(0, "x")), /question 0 is there twice/],
  ])("refuse the line %s", (line, message) => {
    const reader = predictionReader("p");
    reader.add(headerLine({ ...SETTINGS, shard: { i: 0, n: 3 } }));
    reader.add(JSON.stringify(row(0, "x")));
    const text = refusal(() => reader.add(line));
    expect(text).toMatch(/^BAD_PART: p: line 3: /);
    expect(text).toMatch(message);
  });

  it("begin with their settings", () => {
    const header = (more: object) => JSON.stringify({ evaluation: { ...SETTINGS, ...more } });
    const refused = [
      JSON.stringify(row(0, "x")),
      header({ shard: { i: 2, n: 2 } }),
      header({ shard: undefined }),
      header({ questions: 1.5 }),
      header({ task: { ...SETTINGS.task, metric: "bleu" } }),
    ];
    for (const line of refused) {
      expect(refusal(() => predictionReader("p").add(line))).toMatch(/^BAD_PART: p: line 1: not the first line/);
    }
    expect(refusal(() => predictionReader("p").add(header({})))).toBe("not refused");
  });
});
