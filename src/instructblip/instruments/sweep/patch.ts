/**
 * Activation patching: in a run on a corrupted image or instruction, each part in turn gets the numbers of a clean run, and
 * the clean answer's log-probability shows what that part carries.
 *
 * Source: Meng et al. 2022, Locating and Editing Factual Associations in GPT (causal tracing); Wang et al. 2023,
 * Interpretability in the Wild (of heads).
 */
import { refuseUnknown } from "../../../tensor/arguments.ts";
import { InputError } from "../../../tensor/errors.ts";
import { layoutOf } from "../../interventions/edit.ts";
import type { ModelInputs } from "../../pretrained/inputs.ts";
import { answerPass, checkBatchSize } from "../answer_pass.ts";
import {
  PlaceKeeper,
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
import { chosenUnits, placeKey, type Sites, type SweepUnit, unitsOf } from "./units.ts";

/** Least difference between the log-probabilities of both runs, in nats: f32 errors are a thousand times smaller. */
const LEAST = 1e-3;

export interface PatchedUnit extends SweepUnit {
  /** The sum of the clean answer's log-probabilities with it restored, in nats. */
  readonly logprob: number;
  /** 0 as in the corrupted run, 1 as in the clean one. */
  readonly effect: number;
}

export interface Patching extends Pick<PreparedSweep, "answer" | "logprobs"> {
  /** The sum of the clean answer's log-probabilities in the corrupted run, in nats. */
  readonly corrupted: number;
  readonly units: readonly PatchedUnit[];
}

/**
 * Restores parts of the clean run in the corrupted run, one at a time: of a layer what its attentions or its feed-forward
 * network add to the residual stream, of the Q-Former and of T5's decoder also its whole output; a head's values before the
 * output projection; a query, or a token, in the output of a layer.
 *
 * @param clean inputs of one prompt, from a processor; the answer is its
 * @param corrupted the same with another image or another instruction, or both. Restoring layers, heads and tokens needs
 *   instructions of equally many tokens
 * @throws InputError PATCH, TARGETS, PARAM_RANGE and for inputs that cannot be used; NumericError; DeviceError; the signal's
 *   reason
 */
export async function patchActivations<I extends ModelInputs>(
  model: SweptModel<I>,
  clean: I,
  corrupted: I,
  options: SweepOptions = {},
): Promise<Patching> {
  const sweep = await preparePatching(model, clean, corrupted, options);
  const { answer, logprobs, units } = sweep;
  const [best, worst] = [sum(logprobs), sweep.corrupted!];
  const found: PatchedUnit[] = [];
  for await (const { index, logprob } of sweep.scores(units.map((_, i) => i))) {
    found.push({ ...units[index]!, logprob, effect: (logprob - worst) / (best - worst) });
  }
  return { answer, logprobs, corrupted: worst, units: found };
}

/** As patchActivations(), to be run in parts. */
export async function preparePatching<I extends ModelInputs>(
  model: SweptModel<I>,
  clean: I,
  corrupted: I,
  options: SweepOptions,
): Promise<PreparedSweep> {
  refuseUnknown("patchActivations", options, SWEEP_OPTIONS);
  if (options.batch_size !== undefined) checkBatchSize(options.batch_size);
  const pass = await answerPass("patchActivations", model, clean, options);
  const { answer, call } = pass;
  const other = await answerPass("patchActivations", model, corrupted, { answer });
  const left = unchangedParts(model, clean, corrupted);
  const notes = new SiteNotes();
  const [otherLogprobs] = await passLogprobs(model, other.call, answer, { observer: notes });
  const worst = sum(otherLogprobs!);
  const all = unitsOf(notes.sites, "patch", model.config.num_query_tokens);
  const units = chosenUnits(
    all.filter(({ group }) => !left.includes(group.split(".")[0]!)),
    options.targets,
  );
  const keeper = new PlaceKeeper(units);
  try {
    const [logprobs] = await passLogprobs(model, call, answer, { observer: keeper });
    if (!(Math.abs(sum(logprobs!) - worst) >= LEAST)) {
      throw new InputError("PATCH", "the corrupted run gives the answer the same log-probability as the clean one", {
        hint: "corrupt what the answer depends on: another image, or other words",
      });
    }
    checkLengths(units, keeper.sites, notes.sites);
    const kept = await keeper.read();
    return {
      answer,
      logprobs: logprobs!,
      corrupted: worst,
      units,
      token_ids: tokenIds(model, call.input_ids![0]!, pass.read),
      scores: (indices) => scoreUnits(model, other.call, answer, units, indices, { ...options, kept }),
    };
  } finally {
    keeper.dispose();
  }
}

/** Parts of the model in which there is nothing to restore, or that have the frames of a video as rows. */
function unchangedParts<I extends ModelInputs>(model: SweptModel<I>, clean: I, corrupted: I): readonly string[] {
  if (model.config.modality === "video") return ["vision_model", "qformer"];
  const [a, b] = [clean.pixel_values, corrupted.pixel_values];
  if (a.data.length !== b.data.length || a.shape.some((n, d) => n !== b.shape[d])) {
    const [one, other] = [a, b].map(({ shape }) => shape.slice(-2).join(" x "));
    throw new InputError("PATCH", `both images must have one size: clean ${one}, corrupted ${other}`);
  }
  return a.data.every((x, i) => x === b.data[i]) ? model.model.image_parts : [];
}

/** Tokens are restored by their places, which must be the same in both runs; queries have theirs in every run. */
function checkLengths(units: readonly SweepUnit[], clean: Sites, corrupted: Sites): void {
  for (const { group, places } of units) {
    if (group === "qformer.queries") continue;
    for (const { at, module } of places) {
      const [T, other] = [clean, corrupted].map((sites) => layoutOf(sites.get(placeKey(at, module))!, at)[1]);
      if (T === other) continue;
      throw new InputError(
        "PATCH",
        `${group} needs instructions of equally many tokens: ${module} has ${T} positions in the clean run, ${other} in the corrupted`,
        { hint: "reword one of them, or restore qformer.queries alone" },
      );
    }
  }
}
