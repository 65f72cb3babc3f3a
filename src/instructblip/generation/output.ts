/** The output of a search, by Hugging Face's names (GenerateDecoderOnlyOutput, GenerateBeamEncoderDecoderOutput, …). */
import type { Decoder } from "./decoder.ts";
import type { AnswerLogprobs, EncoderStates, StepStates } from "./types.ts";

/** f32[R, V] of one step; R counts prompts times beams or samples. */
export interface StepScores {
  readonly data: Float32Array;
  readonly shape: readonly [rows: number, vocabulary: number];
}

export interface AssistedCounts {
  /** Passes of the model, the prompt's included. Every pass adds one token of its own and those that it accepts. */
  passes: number;
  /** Tokens that were proposed to it. */
  draft_tokens: number;
  /** Those that it accepted: new tokens less passes, as Hugging Face counts. */
  accepted_tokens: number;
}

export interface GenerateOutput extends StepStates, EncoderStates {
  /** Token ids, [prompts * num_return_sequences][length], best first for each prompt. */
  sequences: number[][];
  /** Beams: summed log probabilities over (new tokens)^length_penalty. */
  sequences_scores?: number[];
  /** With output_scores: after the processors, a step each. Beams: log probabilities without their beam's score. */
  scores?: StepScores[];
  /** With output_logits: the raw logits. */
  logits?: StepScores[];
  /** With logprobs: of each sequence. */
  logprobs?: AnswerLogprobs[];
  /** Beams: prompt * num_beams + beam that each new token came from; -1 past a sequence's end. */
  beam_indices?: number[][];
  /** With prompt_lookup_num_tokens or assistant_model: what was drafted, and accepted. */
  assisted?: AssistedCounts;
  /** Sampling: the seed that repeats it. */
  seed?: number;
}

/** Collects a decoder's hidden states and attentions, step by step. */
export class StepRecords {
  readonly states: StepStates & EncoderStates = {};

  /** @param copies rows of the output for each row of the decoder */
  async add(decoder: Decoder, copies: number): Promise<void> {
    const { encoder_attentions, encoder_hidden_states, ...steps } = (await decoder.readStates?.()) ?? {};
    if (encoder_attentions) this.states.encoder_attentions = encoder_attentions;
    if (encoder_hidden_states) this.states.encoder_hidden_states = encoder_hidden_states;
    for (const [name, layers] of Object.entries(steps)) {
      const rows = layers.map(({ data, shape }) => {
        const B = shape[0]!;
        return { data: repeatRows(data, B, copies), shape: shape.with(0, B * copies) };
      });
      const key = name as keyof StepStates;
      this.states[key] = [...(this.states[key] ?? []), rows];
    }
  }

  /** Drops a step, counted from 0, and later ones. */
  drop(step: number): void {
    const { encoder_attentions: _, encoder_hidden_states: __, ...steps } = this.states;
    for (const key of Object.keys(steps) as (keyof StepStates)[]) this.states[key] = this.states[key]?.slice(0, step);
  }
}

/** Drops the records of a step that was not completed, and of later ones. */
export function dropSteps(step: number, records: StepRecords, ...scores: (StepScores[] | undefined)[]): void {
  for (const list of scores) list?.splice(step);
  records.drop(step);
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
