/**
 * The finished sequences of one prompt by the rules of transformers 4.33, which LAVIS pins. A row begins there with a start
 * token, also if the language model is given embeddings, and the length that divides a sum counts it, and no end token: of t
 * new tokens t if the last ends the sequence, else t + 1. Arithmetic is f64, as Python's.
 *
 * Source: transformers 4.33.2, BeamSearchScorer and BeamHypotheses in generation/beam_search.py.
 */

/** The options that count. */
export interface HypothesesRules {
  readonly num_beams: number;
  readonly length_penalty: number;
  readonly early_stopping: boolean | "never";
  /** Most new tokens. */
  readonly most: number;
}

export class Hypotheses<T> {
  readonly #rules: HypothesesRules;
  readonly #kept: { readonly sequence: T; readonly score: number }[] = [];

  constructor(rules: HypothesesRules) {
    this.#rules = rules;
  }

  /** Keeps a sequence if it is one of the best num_beams. @param sum of its log-probabilities @param length see above */
  add(sequence: T, sum: number, length: number): void {
    const score = this.#divided(sum, length);
    const isFull = this.#kept.length >= this.#rules.num_beams;
    if (isFull && !(score > this.#worst())) return;
    this.#kept.push({ sequence, score });
    if (!isFull) return;
    const worst = this.#worst(); // with the new one; the first of equals goes
    this.#kept.splice(
      this.#kept.findIndex((one) => one.score === worst),
      1,
    );
  }

  /** Whether no running sequence is likely to become one of the best. @param best the best sum @param t new tokens */
  isDone(best: number, t: number): boolean {
    const { num_beams, length_penalty, early_stopping, most } = this.#rules;
    if (this.#kept.length < num_beams) return false;
    if (early_stopping === true) return true;
    const length = early_stopping === "never" && length_penalty > 0 ? most : t;
    return this.#worst() >= this.#divided(best, length + 1);
  }

  /** Best first; the latest first of equals. */
  best(): { readonly sequence: T; readonly score: number }[] {
    return this.#kept.toSorted((a, b) => a.score - b.score).reverse();
  }

  #worst(): number {
    return this.#kept.reduce((least, { score }) => Math.min(least, score), 1e9);
  }

  #divided(sum: number, length: number): number {
    return sum / length ** this.#rules.length_penalty;
  }
}
