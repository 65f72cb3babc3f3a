/** Metrics against the results of the published evaluation code: see test/golden/evaluation/make.py. */
import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { areaUnderCurve } from "../../../src/instructblip/evaluation/auc.ts";
import { ciderD } from "../../../src/instructblip/evaluation/cider.ts";
import { exactMatch } from "../../../src/instructblip/evaluation/exact_match.ts";
import { METRICS } from "../../../src/instructblip/evaluation/metrics.ts";
import {
  normalizeAnswer,
  processDigitArticle,
  processPunctuation,
  vqaAccuracy,
} from "../../../src/instructblip/evaluation/vqa_accuracy.ts";

interface Golden {
  readonly vqa: {
    readonly normalised: readonly (readonly [text: string, punctuation: string, digitArticle: string])[];
    readonly scores: readonly {
      readonly prediction: string;
      readonly answers: readonly string[];
      readonly official: number;
      readonly lavis: number;
    }[];
  };
  readonly cider: readonly {
    readonly items: readonly { readonly prediction: string; readonly references: readonly string[] }[];
    readonly mean: number;
    readonly scores: readonly number[];
  }[];
}

const file = new URL("../../golden/evaluation/data/metrics.json.gz", import.meta.url);
const golden = JSON.parse(gunzipSync(readFileSync(file)).toString()) as Golden;

/** Sums of ten numbers in another order, divided by 100 after rounding to 15 decimals. */
const CLOSE = 12;

describe("VQA accuracy", () => {
  it("spells like the published code", () => {
    expect(golden.vqa.normalised.length).toBeGreaterThan(300);
    for (const [text, punctuation, digitArticle] of golden.vqa.normalised) {
      expect(processPunctuation(text), JSON.stringify(text)).toBe(punctuation);
      expect(processDigitArticle(text), JSON.stringify(text)).toBe(digitArticle);
    }
  });

  it.each(["official", "lavis"] as const)("scores like the %s code", (rules) => {
    expect(golden.vqa.scores.length).toBeGreaterThanOrEqual(400);
    for (const item of golden.vqa.scores) {
      expect(vqaAccuracy(item.prediction, item.answers, rules), JSON.stringify(item)).toBeCloseTo(item[rules], CLOSE);
    }
  });

  it("counts annotators, leaving one out", () => {
    const answers = (yes: number) => Array.from({ length: 10 }, (_, i) => (i < yes ? "Yes." : "no"));
    expect([0, 1, 2, 3, 4, 10].map((yes) => vqaAccuracy("yes", answers(yes)))).toEqual([
      0,
      expect.closeTo(0.3, 12),
      expect.closeTo(0.6, 12),
      expect.closeTo(0.9, 12),
      1,
      0, // all agree on "Yes.", and then nothing is respelt
    ]);
    expect(vqaAccuracy("Yes.", answers(10))).toBe(1);
  });

  it("has LAVIS's blind spots in lavis mode only", () => {
    const answers = ["two", "two", "two", "two", "2", "2", "2", "2", "2", "2"];
    expect(vqaAccuracy("2", answers, "official")).toBe(1);
    expect(vqaAccuracy("two", answers.slice(0, 4).concat("a"), "lavis")).toBe(0);
  });
});

describe("exact match", () => {
  it("is letter for letter, or spelt as for VQA accuracy", () => {
    expect(exactMatch(" red\n", ["blue", "red"])).toBe(1);
    expect(exactMatch("Red", ["red"])).toBe(0);
    expect(exactMatch("The Red.", ["red"], "vqa")).toBe(1);
    expect(exactMatch("", ["red"], "vqa")).toBe(0);
    expect(normalizeAnswer("Two dogs, dont")).toBe("2 dogs don't");
  });
});

describe("CIDEr-D", () => {
  it.each(golden.cider.map((corpus) => [corpus.items.length, corpus] as const))(
    "scores %i captions like pycocoevalcap",
    (_, corpus) => {
      const words = (text: string) => text.split(" ").filter((word) => word !== "");
      const captions = corpus.items.map(({ prediction, references }) => ({
        prediction: words(prediction),
        references: references.map(words),
      }));
      const scores = ciderD(captions);
      // 1e-12: sums in the same order, but logarithms and powers of another library
      for (const [i, score] of scores.entries()) expect(Math.abs(score - corpus.scores[i])).toBeLessThan(1e-12);
      expect(scores.reduce((sum, score) => sum + score, 0) / scores.length).toBeCloseTo(corpus.mean, 12);
      if (scores.length > 2) expect(Math.max(...corpus.scores)).toBeGreaterThan(1); // the golden says something
    },
  );
});

describe("the area under the ROC curve", () => {
  interface Case {
    readonly name: string;
    readonly labels: readonly number[];
    readonly scores: readonly number[];
    readonly area: number;
  }
  const cases = JSON.parse(
    readFileSync(new URL("../../golden/evaluation/data/auc.json", import.meta.url), "utf8"),
  ) as Case[];
  const divide = ({ labels, scores }: Case) =>
    [1, 0].map((label) => scores.filter((_, i) => labels[i] === label)) as [number[], number[]];

  it.each(cases)("is scikit-learn's: $name", (given) => {
    const [positive, negative] = divide(given);
    expect(areaUnderCurve(positive, negative)!.score).toBeCloseTo(given.area, 12);
  });

  it("has DeLong's standard error, from all pairs", () => {
    for (const given of cases.filter(({ labels }) => labels.length > 10)) {
      const [positive, negative] = divide(given);
      const wins = (p: number, n: number) => (p > n ? 1 : p === n ? 0.5 : 0);
      const variance = (values: number[]) =>
        values.reduce((sum, value) => sum + (value - given.area) ** 2, 0) / (values.length - 1) / values.length;
      const rows = positive.map((p) => negative.reduce((sum, n) => sum + wins(p, n), 0) / negative.length);
      const columns = negative.map((n) => positive.reduce((sum, p) => sum + wins(p, n), 0) / positive.length);
      const { error } = areaUnderCurve(positive, negative)!;
      expect(error).toBeCloseTo(Math.sqrt(variance(rows) + variance(columns)), 12);
    }
  });

  it("is none without both kinds, and has no error for one question of a kind", () => {
    expect(areaUnderCurve([], [1])).toBeNull();
    expect(areaUnderCurve([1], [])).toBeNull();
    expect(areaUnderCurve([2], [1, 1])).toEqual({ score: 1, error: null });
  });

  it("takes the first candidate for the positive one, and the cheaper for the likelier", () => {
    const answered = (scores: number[], right: number) => ({ prediction: "", answers: [], scores, right: [right] });
    // Odds of yes: 2 and 0 where it is right, 1 where it is not.
    const all = [answered([1, 3], 0), answered([4, 4], 0), answered([5, 6], 1)];
    expect(METRICS.auc.pooled(all)).toEqual({ score: 0.5, error: null });
  });
});

describe("the mean reciprocal rank", () => {
  it("is of the best right candidate; among equals the first comes first", () => {
    const scored = (scores: number[], right: number[]) => ({ prediction: "", answers: [], scores, right });
    const all = [
      scored([3, 1, 2], [1]),
      scored([3, 1, 2], [0]),
      scored([3, 1, 2], [0, 2]),
      scored([5, 5, 5], [2]),
      scored([5, 5, 5], [0]),
    ];
    expect(METRICS.mrr.scores(all)).toEqual([1, 1 / 3, 1 / 2, 1 / 3, 1]);
  });
});
