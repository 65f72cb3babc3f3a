/** The metrics of tasks, by name, each with its scores of answered questions. */
import { areaUnderCurve } from "./auc.ts";
import { ciderD } from "./cider.ts";
import { exactMatch } from "./exact_match.ts";
import { ptbTokenize } from "./ptb_tokenizer.ts";
import { LEAST_ANSWERS, vqaAccuracy } from "./vqa_accuracy.ts";

/** A prediction and its references. */
export interface Answered {
  readonly prediction: string;
  readonly answers: readonly string[];
  /** NLL of each candidate, where the metric needs them. */
  readonly scores?: readonly number[];
  /** Indices of correct candidates, from 0. */
  readonly right?: readonly number[];
}

/** A score of all questions together. */
export interface Pooled {
  readonly score: number;
  /** Standard error; null where there are too few questions for one. */
  readonly error: number | null;
}

export type Metric = MetricFacts &
  (
    | {
        /** A score for each question, in order; the result is their mean. In CIDEr-D a score depends on all questions. */
        scores(answered: readonly Answered[]): number[];
      }
    | {
        /** For metrics that are not a mean of scores. Null if it is undefined for these questions. */
        pooled(answered: readonly Answered[]): Pooled | null;
      }
  );

interface MetricFacts {
  /** Its description in the help. */
  readonly meaning: string;
  /** Least references of a question. */
  readonly leastAnswers: number;
  /** Each score is 0 or 1. */
  readonly binary: boolean;
  /** The best score; the worst is 0. */
  readonly best: number;
  /** It needs the NLL of every candidate: the number of candidates, of which at least one is correct. */
  readonly candidates?: "two" | "any";
}

/** A metric whose scores do not depend on each other. */
function each(score: (prediction: string, answers: readonly string[]) => number) {
  return (answered: readonly Answered[]) => answered.map(({ prediction, answers }) => score(prediction, answers));
}

export const METRICS = {
  exact_match: {
    meaning: "the prediction is one of the answers, letter for letter",
    leastAnswers: 1,
    binary: true,
    best: 1,
    scores: each((prediction, answers) => exactMatch(prediction, answers, "none")),
  },
  exact_match_vqa: {
    meaning: "the same after the VQA evaluation's spelling of both (GQA, VSR)",
    leastAnswers: 1,
    binary: true,
    best: 1,
    scores: each((prediction, answers) => exactMatch(prediction, answers, "vqa")),
  },
  vqa_accuracy: {
    meaning: "VQA accuracy by the official evaluation: agreement with 10 annotators",
    leastAnswers: LEAST_ANSWERS,
    binary: false,
    best: 1,
    scores: each((prediction, answers) => vqaAccuracy(prediction, answers, "official")),
  },
  vqa_accuracy_lavis: {
    meaning: "VQA accuracy as LAVIS computes it",
    leastAnswers: LEAST_ANSWERS,
    binary: false,
    best: 1,
    scores: each((prediction, answers) => vqaAccuracy(prediction, answers, "lavis")),
  },
  cider: {
    meaning: "CIDEr-D of captions against references, document frequencies from all of them",
    leastAnswers: 1,
    binary: false,
    best: 10,
    scores: (answered) =>
      ciderD(
        answered.map(({ prediction, answers }) => ({
          prediction: ptbTokenize(prediction),
          references: answers.map(ptbTokenize),
        })),
      ),
  },
  mrr: {
    meaning: "mean reciprocal rank of the best right candidate (Visual Dialog)",
    leastAnswers: 1,
    binary: false,
    best: 1,
    candidates: "any",
    scores: (answered) => answered.map(({ scores, right }) => 1 / rankOf(scores!, right!)),
  },
  auc: {
    meaning: "area under the ROC curve; of two candidates the first is the positive one (HatefulMemes)",
    leastAnswers: 1,
    binary: false,
    best: 1,
    candidates: "two",
    pooled: (answered) => {
      // Log odds of the positive candidate against the negative.
      const oddsOf = ({ scores }: Answered) => {
        const [yes, no] = scores!;
        return no! - yes!;
      };
      const odds = (positive: boolean) => answered.filter(({ right }) => right!.includes(0) === positive).map(oddsOf);
      return areaUnderCurve(odds(true), odds(false));
    },
  },
} satisfies Record<string, Metric>;

/** The best rank of the correct candidates, from 1; of equal scores the first is first. */
function rankOf(scores: readonly number[], right: readonly number[]): number {
  const ranks = right.map((r) => {
    const own = scores[r]!;
    return 1 + scores.filter((score, c) => score < own || (score === own && c < r)).length;
  });
  return Math.min(...ranks);
}

export type MetricName = keyof typeof METRICS;
