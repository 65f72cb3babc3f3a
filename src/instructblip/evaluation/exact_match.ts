/** Exact match: whether the prediction is one of the answers, letter for letter or under the VQA evaluation's spelling. */
import { normalizeAnswer } from "./vqa_accuracy.ts";

/** `none`: without surrounding blanks, otherwise letter for letter. `vqa`: both sides as for VQA accuracy (GQA, MSVD-QA). */
export type Spelling = "none" | "vqa";

/** 1 or 0. */
export function exactMatch(prediction: string, answers: readonly string[], spelling: Spelling = "none"): number {
  const spelled = (text: string) => (spelling === "vqa" ? normalizeAnswer(text.trim()) : text.trim());
  const given = spelled(prediction);
  return answers.some((answer) => spelled(answer) === given) ? 1 : 0;
}
