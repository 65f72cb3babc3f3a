/**
 * Greedy search that is pipelined: each step takes the previous step's ids on the GPU, and the host reads ids some steps
 * later, for stopping and streaming. Steps beyond an answer's end are discarded. Gives the same as `sample`, which waits for
 * every id.
 */
import type { ArgmaxResult, Decoder, Tokens } from "./decoder.ts";
import { ScoresError } from "./numerics.ts";
import type { GenerateOutput } from "./output.ts";
import type { SearchOptions } from "./sample.ts";
import { endsById, inTime } from "./stopping.ts";

/** Whether `greedyPipelined` can be used: nothing needs the scores, or an id before the next step. */
export function canPipeline({
  config,
  processors,
  unconditional,
  couplesRows,
}: Pick<SearchOptions, "config" | "processors" | "unconditional" | "couplesRows">): boolean {
  const { do_sample, num_beams, num_return_sequences, return_dict_in_generate: whole } = config;
  const records =
    config.logprobs !== null ||
    config.output_scores ||
    config.output_logits ||
    config.output_attentions ||
    config.output_hidden_states;
  if (unconditional || couplesRows) return false;
  return !do_sample && num_beams === 1 && num_return_sequences === 1 && processors.length === 0 && !(whole && records);
}

/**
 * @param prompt ids of every row, all of one length
 * @param inFlight steps that may be launched before the ids of the first of them are read, 1 or more
 * @returns prompt and answer of every row; rows that ended early are filled with pad_token_id
 */
export async function greedyPipelined(
  decoder: Decoder,
  prompt: readonly (readonly number[])[],
  { config, stops, streamer, signal, on_token }: SearchOptions,
  inFlight: number,
): Promise<GenerateOutput> {
  const { pad_token_id: pad, max_length, prompt_length, check_numerics } = config;
  const rows = prompt.map((ids) => [...ids]);
  const unfinished = rows.map(() => true);
  streamer?.put(rows.map((ids) => [...ids]));

  const launches = max_length - prompt_length;
  const waiting: ReturnType<ArgmaxResult["read"]>[] = [];
  let tokens: Tokens | undefined;
  try {
    for (let launched = 0, step = 0; unfinished.includes(true) && !streamer?.cancelled; ) {
      signal?.throwIfAborted();
      if (launched < launches && waiting.length <= inFlight) {
        const previous = tokens;
        const result = decoder.scope(() => decoder.argmax(previous ? decoder.step(previous) : decoder.prefill()));
        tokens = result.tokens;
        previous?.dispose();
        const read = result.read();
        read.catch(() => {}); // thrown when it is awaited
        waiting.push(read);
        launched++;
        continue;
      }
      const read = await inTime(waiting.shift()!);
      if (!read) break;
      const { ids: best, undecided } = read;
      const failed = undecided.find((b) => unfinished[b]);
      if (check_numerics && failed !== undefined) throw new ScoresError(failed, [...rows[failed]!]);
      const chosen = [...best];
      const fills = endsById(config) && pad !== null;
      const ids = fills ? chosen.map((id, b) => (unfinished[b] ? id : pad)) : chosen;
      for (const [b, id] of ids.entries()) {
        const row = rows[b]!;
        row.push(id);
        if (unfinished[b] && stops(row)) unfinished[b] = false;
      }
      streamer?.put(ids.map((id) => [id]));
      on_token?.(step++);
    }
  } finally {
    await Promise.allSettled(waiting); // the cache is in use until then
    tokens?.dispose();
  }
  return { sequences: rows };
}
