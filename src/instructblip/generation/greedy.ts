/** Greedy search: the likeliest token, again and again, for every row of a batch. Source: spec 5.4. */
import type { Tensor } from "../../tensor/tensor.ts";
import type { GenerationConfig } from "./configuration.ts";
import { argmaxOf, type LogitsProcessor } from "./logits_process.ts";
import type { Streamer } from "./streamer.ts";

/** The model, as far as a search needs it. */
export interface Decoder {
  /** Logits f32[B, V] of the token after the prompt. */
  prefill(): Tensor;
  /** Logits f32[B, V] of the token after `tokens` u32[B]. */
  step(tokens: Tensor<"u32">): Tensor;
  /** The likeliest id of every row: f32[B, V] -> u32[B]. */
  argmax(logits: Tensor): Tensor<"u32">;
  /** u32[B] from the host. */
  upload(tokens: readonly number[]): Tensor<"u32">;
  /** Frees what `fn` allocated and does not return. */
  scope<T>(fn: () => T): T;
}

export interface SearchOptions {
  readonly config: GenerationConfig;
  readonly processors: readonly LogitsProcessor[];
  readonly streamer?: Streamer | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly on_token?: ((step: number) => void) | undefined;
}

/**
 * @param prompt ids of every row, all of one length
 * @returns prompt and answer of every row; rows that ended early are filled with pad_token_id
 */
export async function greedySearch(
  decoder: Decoder,
  prompt: readonly (readonly number[])[],
  { config, processors, streamer, signal, on_token }: SearchOptions,
): Promise<number[][]> {
  const rows = prompt.map((row) => [...row]);
  const unfinished = rows.map(() => true);
  streamer?.put(prompt);

  let tokens: Tensor<"u32"> | undefined;
  for (let step = 0; ; step++) {
    signal?.throwIfAborted();
    const previous = tokens;
    const choice = await decoder.scope(async () => {
      const logits = previous ? decoder.step(previous) : decoder.prefill(); // [B, V]
      if (processors.length === 0) {
        const best = decoder.argmax(logits);
        return { ids: [...(await best.read())], tensor: best };
      }
      const ids = chooseOnHost(await logits.read(), rows, processors);
      return { ids, tensor: decoder.upload(ids) };
    });
    previous?.dispose();
    tokens = choice.tensor;

    // A finished row emits pad. What the model is fed in its place does not matter: rows do not see each other.
    const next = choice.ids.map((id, row) => (unfinished[row] ? id : config.pad_token_id));
    next.forEach((id, row) => {
      rows[row].push(id);
      if (config.eos_token_id.includes(id)) unfinished[row] = false;
    });
    streamer?.put(next.map((id) => [id]));
    on_token?.(step);
    if (!unfinished.includes(true) || rows[0].length >= config.max_length || streamer?.cancelled) break;
  }
  tokens?.dispose();
  return rows;
}

function chooseOnHost(
  logits: Float32Array,
  rows: readonly number[][],
  processors: readonly LogitsProcessor[],
): number[] {
  const V = logits.length / rows.length;
  return rows.map((ids, b) => {
    const scores = logits.subarray(b * V, (b + 1) * V);
    for (const process of processors) process(ids, scores);
    return argmaxOf(scores);
  });
}
