/** Metrics against what the published evaluation codes answered: see test/golden/evaluation/make.py. */
import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { ciderD } from "../../src/instructblip/evaluation/cider.ts";
import { exactMatch } from "../../src/instructblip/evaluation/exact_match.ts";
import {
  normalizeAnswer,
  processDigitArticle,
  processPunctuation,
  vqaAccuracy,
} from "../../src/instructblip/evaluation/vqa_accuracy.ts";

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

const file = new URL("../golden/evaluation/data/metrics.json.gz", import.meta.url);
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
