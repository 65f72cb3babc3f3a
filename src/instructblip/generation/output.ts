/** What a search returns, by Hugging Face's names (GenerateDecoderOnlyOutput, GenerateBeamDecoderOnlyOutput). */

/** f32[R, V] of one step; R counts prompts times beams or samples. */
export interface StepScores {
  readonly data: Float32Array;
  readonly shape: readonly [rows: number, vocabulary: number];
}

export interface GenerateOutput {
  /** Token ids, [prompts * num_return_sequences][length], best first for each prompt. */
  sequences: number[][];
  /** Beams: summed log probabilities over (new tokens)^length_penalty. */
  sequences_scores?: number[];
  /** With output_scores: after the processors, a step each. Beams: log probabilities without their beam's score. */
  scores?: StepScores[];
  /** With output_logits: as the model gave them. */
  logits?: StepScores[];
  /** Beams: prompt * num_beams + beam that each new token came from; -1 past a sequence's end. */
  beam_indices?: number[][];
  /** Sampling: what makes it happen again. */
  seed?: number;
}

/** Rows repeated `n` times each: [a, b] -> [a, a, b, b]. */
export function repeatRows(data: Float32Array, rows: number, n: number): Float32Array {
  if (n === 1) return data;
  const V = data.length / rows;
  const repeated = new Float32Array(data.length * n);
  for (let i = 0; i < rows * n; i++) {
    const row = Math.floor(i / n);
    repeated.set(data.subarray(row * V, (row + 1) * V), i * V);
  }
  return repeated;
}

/** The rows of f32[R, V], as views. */
export function rowsOf(data: Float32Array, rows: number): Float32Array[] {
  const V = data.length / rows;
  return Array.from({ length: rows }, (_, i) => data.subarray(i * V, (i + 1) * V));
}
