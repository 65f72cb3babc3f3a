/**
 * Attention rollout through all parts of a model: how much of a token's state in the last layer comes from each patch and each
 * word, if every layer were the mean of its attention and its residual connection.
 *
 * F frames (1 of an image), S = 1 + N image states, Q queries a frame, T words of the Q-Former, L tokens of the language model's
 * prompt with image tokens, n of the answer, A = L + n - 1 tokens that a decoder-only model reads.
 * Source: Abnar & Zuidema 2020, Quantifying Attention Flow in Transformers, equations 1 and 2. Pure, in f64.
 */
import { type Matrix, meanOf, zeros } from "../attention.ts";

/** Attention probabilities of layers, each the mean of its heads, whose rows sum to 1. */
export interface MeanAttentions {
  /** Of each frame its layers, [S, S]. */
  readonly vision: readonly (readonly Matrix[])[];
  /** Of each frame its layers, [Q + T, Q + T]; of BLIP-2 T = 0. */
  readonly qformer: readonly (readonly Matrix[])[];
  /** Of each frame the layers that have it, [Q, S]. */
  readonly qformer_cross: readonly (readonly Matrix[])[];
  /** The Q-Former has cross-attention in every layer whose number it divides. */
  readonly cross_attention_frequency: number;
  /** Decoder-only: layers, [A, A]. Of an encoder-decoder its decoder's, [n, n]. */
  readonly language: readonly Matrix[];
  /** Of an encoder-decoder. */
  readonly encoder?: {
    /** Layers, [L, L]. */
    readonly self: readonly Matrix[];
    /** The decoder's layers, [n, L]. */
    readonly cross: readonly Matrix[];
  };
}

/** Weights of what a token's state comes from; all of them sum to 1. */
export interface RolloutShares {
  /** f32[F · N]: of every patch, row by row */
  readonly patches: Float32Array;
  /** Of the image encoder's class token, which has no place in the image. */
  readonly class_token: number;
  /** f32[T]: of the words that the Q-Former reads */
  readonly instruction: Float32Array;
  /** f32[L]: of the tokens that the language model reads; 0 at image tokens */
  readonly prompt: Float32Array;
  /** Of the learned queries. */
  readonly queries: number;
  /** Of the answer's tokens so far, and of a decoder's start token. */
  readonly answer: number;
}

const numbers = (count: number) => Array.from({ length: count }, (_, i) => i);

/** weights · attention */
function product(weights: Matrix, attention: Matrix): Matrix {
  const result = zeros(weights.rows, attention.columns);
  for (let i = 0; i < weights.rows; i++) {
    const row = result.data.subarray(i * result.columns, (i + 1) * result.columns);
    for (let k = 0; k < attention.rows; k++) {
      const weight = weights.data[i * weights.columns + k]!;
      if (weight === 0) continue;
      const from = attention.data.subarray(k * attention.columns, (k + 1) * attention.columns);
      for (let j = 0; j < row.length; j++) row[j]! += weight * from[j]!;
    }
  }
  return result;
}

/** (a + b) / 2 */
const halfway = (a: Matrix, b: Matrix): Matrix => ({ ...a, data: a.data.map((x, i) => (x + b.data[i]!) / 2) });

/** Columns from `from` up to, and without, `to`. */
function columns({ rows, columns: all, data }: Matrix, from: number, to: number): Matrix {
  const part = zeros(rows, to - from);
  for (let i = 0; i < rows; i++) part.data.set(data.subarray(i * all + from, i * all + to), i * part.columns);
  return part;
}

/** Weights of a layer's outputs as weights of its inputs. */
const through = (weights: Matrix, attention: Matrix) => halfway(weights, product(weights, attention));

/**
 * Weights of outputs as weights of inputs, of layers with self- and some also with cross-attention, which comes second: half of
 * the first tokens' weights goes where they look.
 *
 * @param cross of each layer, if it has it
 * @param S states that cross-attention reads
 * @returns weights of the layers' own inputs, and of these states
 */
function throughBoth(weights: Matrix, self: readonly Matrix[], cross: readonly (Matrix | undefined)[], S: number) {
  let own = weights;
  const read = zeros(weights.rows, S);
  for (const [i, layer] of [...self.entries()].reverse()) {
    const looks = cross[i];
    if (looks) {
      const looked = product(columns(own, 0, looks.rows), looks);
      for (let at = 0; at < read.data.length; at++) read.data[at]! += looked.data[at]! / 2;
      own = { ...own, data: own.data.map((x, at) => (at % own.columns < looks.rows ? x / 2 : x)) };
    }
    own = through(own, layer);
  }
  return { own, read };
}

const throughAll = (weights: Matrix, layers: readonly Matrix[]) => layers.reduceRight(through, weights);

/** The answer's states as weights of what the language model reads: the prompt [n, L], and of the answer's tokens [n]. */
function languageWeights({ language, encoder }: MeanAttentions, L: number, n: number) {
  const tokens = encoder ? n : L + n - 1;
  const last = zeros(n, tokens);
  for (let t = 0; t < n; t++) last.data[t * tokens + tokens - n + t] = 1;
  const sums = (weights: Matrix) => numbers(n).map((t) => sumOf(rowOf(weights, t)));
  if (!encoder) {
    const all = throughAll(last, language);
    return { prompt: columns(all, 0, L), answer: sums(columns(all, L, tokens)) };
  }
  const { own, read } = throughBoth(last, language, encoder.cross, L);
  return { prompt: throughAll(read, encoder.self), answer: sums(own) };
}

const rowOf = ({ columns, data }: Matrix, i: number) => data.subarray(i * columns, (i + 1) * columns);
const sumOf = (list: Float64Array) => list.reduce((sum, x) => sum + x, 0);

/**
 * The rollout of each token of the answer: its state's weight goes from layer to layer back to what it comes from, through the
 * language model to words and image tokens, from these through the Q-Former to words and image states, from these through the
 * image encoder to patches.
 *
 * @param L tokens of the prompt
 * @param n of the answer
 * @param image positions of image tokens in the prompt: F · Q
 */
export function rollout(attentions: MeanAttentions, L: number, n: number, image: readonly number[]): RolloutShares[] {
  const { vision, qformer, qformer_cross, cross_attention_frequency: every } = attentions;
  const { prompt, answer } = languageWeights(attentions, L, n);
  const F = vision.length;
  const Q = image.length / F;
  const M = qformer[0]![0]!.rows;
  const S = vision[0]![0]!.rows;
  const frames = numbers(F).map((f) => {
    const queries = zeros(n, M);
    for (let t = 0; t < n; t++) {
      for (let q = 0; q < Q; q++) queries.data[t * M + q] = rowOf(prompt, t)[image[f * Q + q]!]!;
    }
    const cross = qformer[f]!.map((_, i) => (i % every === 0 ? qformer_cross[f]![i / every] : undefined));
    const { own, read } = throughBoth(queries, qformer[f]!, cross, S);
    return { queries: columns(own, 0, Q), words: columns(own, Q, M), states: throughAll(read, vision[f]!) };
  });
  return numbers(n).map((t) => {
    const texts = rowOf(prompt, t).slice();
    for (const position of image) texts[position] = 0;
    const words = numbers(M - Q).map((j) => frames.reduce((sum, frame) => sum + rowOf(frame.words, t)[j]!, 0));
    const states = frames.map((frame) => rowOf(frame.states, t));
    return {
      patches: Float32Array.from(states.flatMap((state) => [...state.subarray(1)])),
      class_token: states.reduce((sum, [first]) => sum + first!, 0),
      instruction: Float32Array.from(words),
      prompt: Float32Array.from(texts),
      queries: frames.reduce((sum, frame) => sum + sumOf(rowOf(frame.queries, t)), 0),
      answer: answer[t]!,
    };
  });
}

/** Weights of the image's states. */
export type CrossShares = Pick<RolloutShares, "patches" | "class_token">;

/**
 * Where the queries looked that each token of the answer attended to: the Q-Former's cross-attention, the mean of its layers, of
 * each query as much as the language model's attention to its image token, the mean of its layers.
 *
 * @returns weights that sum to 1
 */
export function crossAttention(attentions: MeanAttentions, n: number, image: readonly number[]): CrossShares[] {
  const { encoder, language } = attentions;
  const attended = meanOf(encoder ? encoder.cross : language); // [n, L] or [A, A]
  const F = attentions.qformer_cross.length;
  const maps = attentions.qformer_cross.map(meanOf); // [Q, S] of each frame
  const { rows: Q, columns: S } = maps[0]!;
  return numbers(n).map((t) => {
    const row = (attended.rows - n + t) * attended.columns;
    const weights = image.map((position) => attended.data[row + position]!);
    const all = weights.reduce((sum, x) => sum + x, 0);
    const patches = new Float64Array(F * (S - 1));
    let class_token = 0;
    for (const [i, weight] of weights.entries()) {
      const [f, q] = [Math.floor(i / Q), i % Q];
      const share = all > 0 ? weight / all : 0;
      class_token += share * maps[f]!.data[q * S]!;
      for (let j = 1; j < S; j++) patches[f * (S - 1) + j - 1]! += share * maps[f]!.data[q * S + j]!;
    }
    return { patches: Float32Array.from(patches), class_token };
  });
}
