/**
 * CIDEr-D: similarity of a caption to human references, with rare words weighted more.
 *
 * Cosines of tf-idf vectors of 1- to 4-grams, clipped, with a penalty for a different length. Document frequencies come
 * from the references of the whole corpus, so a part of a data set has other scores than the same images in the whole.
 * Sources: Vedantam, Zitnick and Parikh, "CIDEr: Consensus-based Image Description Evaluation", CVPR 2015, section 5;
 * salaniz/pycocoevalcap cider/cider_scorer.py at ad63453, whose order of sums is kept.
 */

const MOST_WORDS = 4;
const SIGMA = 6;

/** A caption and its references, as words. */
export interface Caption {
  readonly prediction: readonly string[];
  readonly references: readonly (readonly string[])[];
}

/** Counts of n-grams, for n = 1 … 4 in that order. */
type Counts = readonly ReadonlyMap<string, number>[];

/** The score of each caption, 0 … 10; pycocoevalcap reports their mean, papers 100 times that. */
export function ciderD(corpus: readonly Caption[]): number[] {
  const counted = corpus.map(({ prediction, references }) => ({
    prediction: countNgrams(prediction),
    references: references.map(countNgrams),
  }));
  const documents = new Map<string, number>();
  for (const { references } of counted) {
    const ngrams = new Set(references.flatMap((counts) => counts.flatMap((some) => [...some.keys()])));
    for (const ngram of ngrams) documents.set(ngram, (documents.get(ngram) ?? 0) + 1);
  }
  const logCorpus = Math.log(corpus.length);
  const vectorOf = (counts: Counts) => weigh(counts, (ngram) => logCorpus - Math.log(documents.get(ngram) ?? 1));
  return counted.map(({ prediction, references }) => {
    const given = vectorOf(prediction);
    const sums = new Float64Array(MOST_WORDS);
    for (const reference of references) {
      for (const [n, similar] of similarity(given, vectorOf(reference)).entries()) sums[n]! += similar;
    }
    return (sums.reduce((total, sum) => total + sum, 0) / MOST_WORDS / references.length) * 10;
  });
}

function countNgrams(words: readonly string[]): Counts {
  return Array.from({ length: MOST_WORDS }, (_, n) => {
    const counts = new Map<string, number>();
    for (let end = n + 1; end <= words.length; end++) {
      const ngram = words.slice(end - n - 1, end).join(" ");
      counts.set(ngram, (counts.get(ngram) ?? 0) + 1);
    }
    return counts;
  });
}

interface Vector {
  /** For n = 1 … 4 */
  readonly grams: readonly { readonly weights: ReadonlyMap<string, number>; readonly norm: number }[];
  /** Words. pycocoevalcap counts pairs of them, and only uses the difference of two lengths. */
  readonly length: number;
}

function weigh(counts: Counts, idf: (ngram: string) => number): Vector {
  const grams = counts.map((some) => {
    const weights = new Map([...some].map(([ngram, count]) => [ngram, count * idf(ngram)]));
    return { weights, norm: Math.sqrt([...weights.values()].reduce((sum, weight) => sum + weight ** 2, 0)) };
  });
  return { grams, length: [...counts[0]!.values()].reduce((sum, count) => sum + count, 0) };
}

/** For n = 1 … 4 */
function similarity(given: Vector, reference: Vector): number[] {
  const penalty = Math.E ** (-((given.length - reference.length) ** 2) / (2 * SIGMA ** 2));
  return given.grams.map((some, n) => {
    const others = reference.grams[n]!;
    let sum = 0;
    for (const [ngram, weight] of some.weights) {
      const other = others.weights.get(ngram) ?? 0;
      sum += Math.min(weight, other) * other;
    }
    const norm = some.norm * others.norm;
    return (norm === 0 ? sum : sum / norm) * penalty;
  });
}
