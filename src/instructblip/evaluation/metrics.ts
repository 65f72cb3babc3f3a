/** The metrics by name: what a task may ask for, and how answered questions become one score each. */
import { ciderD } from "./cider.ts";
import { exactMatch } from "./exact_match.ts";
import { ptbTokenize } from "./ptb_tokenizer.ts";
import { LEAST_ANSWERS, vqaAccuracy } from "./vqa_accuracy.ts";

/** What the model said, and what people did. */
export interface Answered {
  readonly prediction: string;
  readonly answers: readonly string[];
}

export interface Metric {
  /** What it counts, on a line of help. */
  readonly meaning: string;
  /** Answers a question must come with. */
  readonly leastAnswers: number;
  /** Each score is 0 or 1. */
  readonly binary: boolean;
  /** The best score; the worst is 0. */
  readonly best: number;
  /** A score for each, in order. Of CIDEr-D it depends on all of them. */
  scores(answered: readonly Answered[]): number[];
}

/** A metric whose scores do not depend on each other. */
function each(score: (prediction: string, answers: readonly string[]) => number): Metric["scores"] {
  return (answered) => answered.map(({ prediction, answers }) => score(prediction, answers));
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
} satisfies Record<string, Metric>;

export type MetricName = keyof typeof METRICS;
