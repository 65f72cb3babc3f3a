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

/** The identity, and zeros in columns after it. */
export function identity(rows: number, columns = rows): Matrix {
  const I = zeros(rows, columns);
  for (let i = 0; i < rows; i++) I.data[i * columns + i] = 1;
  return I;
}

/** (state + attention · source) / 2: a layer with its residual connection. Rows beyond the attention's stay as they are. */
export function rolled(state: Matrix, attention: Matrix, source = state): Matrix {
  const { columns } = state;
  const data = Float64Array.from(state.data);
  for (let i = 0; i < attention.rows; i++) {
    const row = data.subarray(i * columns, (i + 1) * columns);
    for (let j = 0; j < columns; j++) row[j]! /= 2;
    for (let k = 0; k < attention.columns; k++) {
      const weight = attention.data[i * attention.columns + k]! / 2;
      if (weight === 0) continue;
      const from = source.data.subarray(k * columns, (k + 1) * columns);
      for (let j = 0; j < columns; j++) row[j]! += weight * from[j]!;
    }
  }
  return { rows: state.rows, columns, data };
}

/** A matrix with `before` columns of zeros in front. */
function shifted({ rows, columns, data }: Matrix, before: number): Matrix {
  const wide = zeros(rows, before + columns);
  for (let i = 0; i < rows; i++) {
    wide.data.set(data.subarray(i * columns, (i + 1) * columns), i * wide.columns + before);
  }
  return wide;
}

const rolledThrough = (layers: readonly Matrix[]) =>
  layers.reduce((state, layer) => rolled(state, layer), identity(layers[0]!.rows));

/** Where a frame's query outputs come from. [Q + T, Q + T + S] */
function qformerRollout(attentions: MeanAttentions, frame: number): Matrix {
  const layers = attentions.qformer[frame]!;
  const M = layers[0]!.rows;
  const image = shifted(rolledThrough(attentions.vision[frame]!), M); // [S, M + S]
  const cross = attentions.qformer_cross[frame]!;
  let state = identity(M, image.columns);
  for (const [i, layer] of layers.entries()) {
    state = rolled(state, layer);
    if (i % attentions.cross_attention_frequency !== 0) continue;
    state = rolled(state, cross[i / attentions.cross_attention_frequency]!, image);
  }
  return state;
}

/** Where the states come from that the answer's n tokens are chosen from. [n, A]; of an encoder-decoder [n, n + L] */
function languageRollout({ language, encoder }: MeanAttentions, n: number): Matrix {
  if (!encoder) {
    const { rows, columns, data } = rolledThrough(language);
    return { rows: n, columns, data: data.slice((rows - n) * columns) };
  }
  const prompt = shifted(rolledThrough(encoder.self), n); // [L, n + L]
  let state = identity(n, prompt.columns);
  for (const [i, layer] of language.entries()) state = rolled(rolled(state, layer), encoder.cross[i]!, prompt);
  return state;
}

/**
 * The rollout of each token of the answer: the language model's to its prompt, from its image tokens the Q-Former's to words
 * and image states, from these the image encoder's to patches.
 *
 * @param L tokens of the prompt
 * @param n of the answer
 * @param image positions of image tokens in the prompt: F · Q
 */
export function rollout(attentions: MeanAttentions, L: number, n: number, image: readonly number[]): RolloutShares[] {
  const language = languageRollout(attentions, n);
  const before = attentions.encoder ? n : 0; // of an encoder-decoder the decoder's own tokens are in front
  const F = attentions.vision.length;
  const Q = image.length / F;
  const qformer = numbers(F).map((f) => qformerRollout(attentions, f));
  const S = attentions.vision[0]![0]!.rows;
  const N = S - 1;
  const T = qformer[0]!.rows - Q;
  return numbers(n).map((t) => {
    const own = language.data.subarray(t * language.columns, (t + 1) * language.columns);
    const prompt = own.slice(before, before + L);
    const answer = own.reduce((sum, x) => sum + x, 0) - prompt.reduce((sum, x) => sum + x, 0);
    const patches = new Float64Array(F * N);
    const instruction = new Float64Array(T);
    let [class_token, queries] = [0, 0];
    for (const [i, position] of image.entries()) {
      const [f, q] = [Math.floor(i / Q), i % Q];
      const { columns, data } = qformer[f]!;
      const row = data.subarray(q * columns, (q + 1) * columns);
      const weight = prompt[position]!;
      for (let j = 0; j < Q; j++) queries += weight * row[j]!;
      for (let j = 0; j < T; j++) instruction[j]! += weight * row[Q + j]!;
      class_token += weight * row[Q + T]!;
      for (let j = 0; j < N; j++) patches[f * N + j]! += weight * row[Q + T + 1 + j]!;
      prompt[position] = 0;
    }
    const [f32, words, texts] = [patches, instruction, prompt].map((x) => Float32Array.from(x)) as Triple;
    return { patches: f32, class_token, instruction: words, prompt: texts, queries, answer };
  });
}

type Triple = [Float32Array, Float32Array, Float32Array];

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
