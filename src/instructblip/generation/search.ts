/** Runs the search that checked options select, with any decoder. */
import { InputError } from "../../tensor/errors.ts";
import { assistedDecoding } from "./assisted/assisted.ts";
import type { Assistant } from "./assisted/candidates.ts";
import { beamSearch } from "./beam_search.ts";
import { type DecodingConfig, isAssisted } from "./configuration.ts";
import type { Decoder } from "./decoder.ts";
import { logitsProcessors } from "./logits_process.ts";
import type { GenerateOutput } from "./output.ts";
import { canPipeline, greedyPipelined } from "./pipelined_greedy.ts";
import { type SearchOptions, sample } from "./sample.ts";
import { stoppingCriterion, TimeLimit, type TokenTexts } from "./stopping.ts";

export interface SearchInputs
  extends Pick<SearchOptions, "streamer" | "signal" | "on_token" | "unconditional" | "couplesRows"> {
  /** The tokenizer for stop_strings. */
  readonly tokenizer?: TokenTexts | undefined;
  /** Of assistant_model. */
  readonly assistant?: Assistant | undefined;
}

/**
 * Greedy search, sampling, either with drafts; beam search or beam sampling.
 *
 * @param prompt ids of every row, all of one length; for an encoder-decoder the start token
 * @throws InputError NO_TOKENIZER, STREAM_BEAMS; the signal's reason
 */
export async function search(
  decoder: Decoder,
  prompt: readonly (readonly number[])[],
  config: DecodingConfig,
  { tokenizer, assistant, ...inputs }: SearchInputs = {},
): Promise<GenerateOutput> {
  const beams = config.num_beams > 1;
  if (beams && inputs.streamer && !inputs.streamer.best) {
    throw new InputError(
      "STREAM_BEAMS",
      "this streamer does not support beam search, whose best answer changes until the end",
      {
        hint: "set num_beams to 1, or give a streamer with best()",
      },
    );
  }
  if (config.guidance_scale !== 1 && !inputs.unconditional) throw new Error("guidance needs the language model alone");
  const stops = stoppingCriterion(config, tokenizer);
  const time = new TimeLimit(config.max_time, decoder.interrupt);
  const on_token = (step: number) => {
    time.begin();
    inputs.on_token?.(step);
  };
  const options = { ...inputs, on_token, config, processors: logitsProcessors(config), stops };
  const inFlight = decoder.inFlight ?? 0;
  let output: GenerateOutput;
  try {
    if (isAssisted(config)) output = await assistedDecoding(decoder, prompt, options, assistant);
    else if (inFlight > 0 && canPipeline(options)) output = await greedyPipelined(decoder, prompt, options, inFlight);
    else output = await (beams ? beamSearch : sample)(decoder, prompt, options);
  } finally {
    time.clear();
  }
  if (!config.return_full_text) output.sequences = output.sequences.map((ids) => ids.slice(config.prompt_length));
  return output;
}
