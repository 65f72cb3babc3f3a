/** Ablation: each layer, head, query and token is taken out in turn, and the answer's log-probability is that without it. */
import { refuseUnknown } from "../../../tensor/arguments.ts";
import { InputError } from "../../../tensor/errors.ts";
import { shown } from "../../../tensor/shown.ts";
import type { ModelInputs } from "../../pretrained/inputs.ts";
import { answerPass, checkBatchSize } from "../answer_pass.ts";
import {
  meanPlaces,
  type PreparedSweep,
  passLogprobs,
  SiteNotes,
  SWEEP_OPTIONS,
  type SweepOptions,
  type SweptModel,
  scoreUnits,
  sum,
  tokenIds,
} from "./sweep.ts";
import { chosenUnits, type SweepUnit, unitsOf } from "./units.ts";

export interface AblateOptions<I extends ModelInputs = ModelInputs> extends SweepOptions {
  /**
   * Inputs of other images with the same instruction, each of one prompt: a part is replaced by the mean of its numbers in
   * their runs, for each token, instead of by zeros.
   */
  readonly mean?: readonly I[] | undefined;
}

export interface AblatedUnit extends SweepUnit {
  /** The sum of the answer's log-probabilities without it, in nats. */
  readonly logprob: number;
  /** `logprob` less that of the whole model: below 0 where the answer rests on it. */
  readonly effect: number;
}

export interface Ablation extends Pick<PreparedSweep, "answer" | "logprobs"> {
  readonly units: readonly AblatedUnit[];
}

/**
 * Takes parts of a model out, one at a time, by zeros or by their mean over other images: of a layer what its attentions and feed-forward network add to the
 * residual stream, of a head its values before the output projection, of a query its image token, of a token its embedding.
 *
 * @param inputs of one prompt, from a processor
 * @throws InputError TARGETS, MEAN_INPUTS, PARAM_RANGE and for inputs that cannot be used; NumericError; DeviceError; the signal's reason
 */
export async function ablate<I extends ModelInputs>(
  model: SweptModel<I>,
  inputs: I,
  options: AblateOptions<I> = {},
): Promise<Ablation> {
  const { answer, logprobs, units, scores } = await prepareAblation(model, inputs, options);
  const before = sum(logprobs);
  const found: AblatedUnit[] = [];
  for await (const { index, logprob } of scores(units.map((_, i) => i))) {
    found.push({ ...units[index]!, logprob, effect: logprob - before });
  }
  return { answer, logprobs, units: found };
}

/** As ablate(), to be run in parts. */
export async function prepareAblation<I extends ModelInputs>(
  model: SweptModel<I>,
  inputs: I,
  { mean, ...options }: AblateOptions<I>,
): Promise<PreparedSweep> {
  refuseUnknown("ablate", options, [...SWEEP_OPTIONS, "mean"]);
  if (mean !== undefined && !(Array.isArray(mean) && mean.length > 0)) {
    throw new InputError("MEAN_INPUTS", `mean must be a list of inputs, got ${shown(mean)}`);
  }
  if (options.batch_size !== undefined) checkBatchSize(options.batch_size);
  const { answer, call, read } = await answerPass("ablate", model, inputs, options);
  const observer = new SiteNotes();
  const [logprobs] = await passLogprobs(model, call, answer, { observer });
  const units = chosenUnits(unitsOf(observer.sites, "ablate", model.config.num_query_tokens), options.targets);
  const calls: I[] = [];
  for (const other of mean ?? []) calls.push((await answerPass("ablate", model, other, { answer })).call);
  const { signal } = options;
  const kept = mean && (await meanPlaces(model, calls, answer, { units, sites: observer.sites, signal }));
  return {
    answer,
    logprobs: logprobs!,
    units,
    token_ids: tokenIds(model, call.input_ids![0]!, read),
    scores: (indices) => scoreUnits(model, call, answer, units, indices, { ...options, ...(kept && { kept }) }),
  };
}
