/**
 * A sweep: how probable an answer is with one part of the model changed, for each part in turn. Units are rows of one batch
 * of the same prompt, each row with its own interventions, in one pass over prompt and answer.
 *
 * R rows, n tokens of the answer, V vocabulary.
 */
import { keptCopy } from "../../../modules/observer.ts";
import type { ObservedKind, Observer } from "../../../tensor/device/device.ts";
import type { ActivationDType } from "../../../tensor/dtype.ts";
import { InputError } from "../../../tensor/errors.ts";
import type { Shape } from "../../../tensor/shape.ts";
import type { Tensor } from "../../../tensor/tensor.ts";
import { layoutOf } from "../../interventions/edit.ts";
import type { InterventionData } from "../../interventions/intervention.ts";
import type { HostTensor, ModelInputs } from "../../pretrained/inputs.ts";
import type { VisionLanguageModel } from "../../pretrained/vision_language_model.ts";
import { type AnswerOptions, logprobsOf, rowsAtOnce } from "../answer_pass.ts";
import { placeKey, type Sites, type SweepUnit, type UnitPlace } from "./units.ts";

export interface SweepOptions extends Omit<AnswerOptions, "interventions"> {
  /** Names of groups, or patterns of them; default: all but the tokens of the image encoder. */
  readonly targets?: readonly string[] | undefined;
  /** Units that are computed together. Default 8. */
  readonly batch_size?: number | undefined;
}

export const SWEEP_OPTIONS = [
  "answer",
  "generation",
  "targets",
  "batch_size",
  "signal",
] satisfies (keyof SweepOptions)[];

/** The answer of a sweep with one unit changed. */
export interface UnitScore {
  /** Of the unit in the sweep's list. */
  readonly index: number;
  /** The sum of the log-probabilities of the answer's tokens, in nats. */
  readonly logprob: number;
}

/** A sweep that can be run in parts. */
export interface PreparedSweep {
  /** Ids. */
  readonly answer: readonly number[];
  /** Log-probabilities of the answer's tokens with nothing changed, in nats; to patch, in the clean run. */
  readonly logprobs: readonly number[];
  /** To patch: their sum in the corrupted run. */
  readonly corrupted?: number;
  readonly units: readonly SweepUnit[];
  /** Ids that the language model reads, by group of tokens; of a legacy model image features are in front of them. */
  readonly token_ids: Readonly<Record<string, readonly number[]>>;
  /** @param indices of units, in the order in which they are scored */
  scores(indices: readonly number[]): AsyncGenerator<UnitScore>;
}

/** A model as sweeps take it. */
export type SweptModel<I extends ModelInputs> = VisionLanguageModel<VisionLanguageModel["config"], I>;

/** Places of a run's numbers, on the host. */
export type KeptPlaces = ReadonlyMap<string, { readonly data: Float32Array; readonly layout: readonly number[] }>;

/**
 * The log-probability of each token of the answer, for each row.
 *
 * @param call inputs of forward(), of one row
 * @returns [R][n], in nats
 * @throws NumericError for one that is NaN
 */
export async function passLogprobs<I extends ModelInputs>(
  model: SweptModel<I>,
  call: I,
  answer: readonly number[],
  { rows = 1, interventions = [], observer }: PassOptions = {},
): Promise<number[][]> {
  const n = answer.length;
  return model.device.scope(async () => {
    const inputs = { ...repeated(call, rows), logits_to_keep: n, interventions };
    const { logits } = await model.forward(inputs, observer && { observer });
    const targets = Array.from({ length: rows }, () => answer);
    return logprobsOf(logits, targets);
  });
}

interface PassOptions {
  readonly rows?: number;
  readonly interventions?: readonly InterventionData[];
  readonly observer?: Observer;
}

export const sum = (list: readonly number[]) => list.reduce((total, x) => total + x, 0);

/** Inputs of one row as those of R equal rows. */
function repeated<I extends ModelInputs>(call: I, R: number): I {
  if (R === 1) return call;
  const many = Object.entries(call).map(([key, value]) => {
    if (Array.isArray(value)) return [key, Array.from({ length: R }, () => value[0])];
    if (key !== "pixel_values") return [key, value];
    const { data, shape } = value as HostTensor;
    const pixels = new Float32Array(R * data.length);
    for (let r = 0; r < R; r++) pixels.set(data, r * data.length);
    return [key, { data: pixels, shape: shape.with(0, R) }];
  });
  return Object.fromEntries(many) as I;
}

/** Ids of the tokens of each group of tokens. @param ids of the prompt and, where it goes on with the answer, of that */
export function tokenIds<I extends ModelInputs>(
  { language_model: { decoder_start_token_id: start } }: SweptModel<I>,
  ids: readonly number[],
  read: readonly number[],
): Readonly<Record<string, readonly number[]>> {
  if (start === undefined) return { "language_model.tokens": ids };
  return { "language_model.encoder.tokens": ids, "language_model.decoder.tokens": [start, ...read] };
}

/** Notes the shapes of all places of a pass. */
export class SiteNotes implements Observer {
  readonly sites = new Map<string, Shape>();

  wants(_path: string, kind: ObservedKind): boolean {
    return kind === "output" || kind === "input" || kind === "heads";
  }

  see(path: string, kind: ObservedKind, x: Tensor<ActivationDType>): undefined {
    const key = placeKey(kind, path);
    if (!this.sites.has(key)) this.sites.set(key, x.shape);
  }
}

/**
 * Scores units in batches, and yields them in order.
 *
 * @param indices of units
 * @param kept numbers that the units' places are given; without them they are zero
 */
export async function* scoreUnits<I extends ModelInputs>(
  model: SweptModel<I>,
  call: I,
  answer: readonly number[],
  units: readonly SweepUnit[],
  indices: readonly number[],
  { batch_size, signal, kept }: Pick<SweepOptions, "batch_size" | "signal"> & { kept?: KeptPlaces },
): AsyncGenerator<UnitScore> {
  const size = rowsAtOnce(model, answer.length, batch_size);
  for (let begin = 0; begin < indices.length; begin += size) {
    signal?.throwIfAborted();
    const batch = indices.slice(begin, begin + size);
    const interventions = batch.flatMap((i, row) => units[i]!.places.map((place) => interventionAt(place, row, kept)));
    const logprobs = await passLogprobs(model, call, answer, { rows: batch.length, interventions });
    for (const [row, index] of batch.entries()) yield { index, logprob: sum(logprobs[row]!) };
  }
}

function interventionAt({ module, at, index }: UnitPlace, row: number, kept: KeptPlaces | undefined): InterventionData {
  const place = { module, at, index: { ...index, row: [row] } };
  if (!kept) return { ...place, op: "zero" };
  return { ...place, op: "set", value: keptValue(kept, { module, at, index }) };
}

/** The numbers of a place that a run had there. */
function keptValue(kept: KeptPlaces, { module, at, index }: UnitPlace): { data: Float32Array; shape: number[] } {
  const { data, layout } = kept.get(placeKey(at, module))!;
  const [, T, H, C] = layout as [number, number, number, number];
  const tokens = index.token ?? Array.from({ length: T }, (_, t) => t);
  const heads = index.head ?? Array.from({ length: H }, (_, h) => h);
  const part = new Float32Array(tokens.length * heads.length * C);
  let at_ = 0;
  for (const t of tokens) {
    for (const h of heads) {
      const from = (t * H + h) * C;
      part.set(data.subarray(from, from + C), at_);
      at_ += C;
    }
  }
  const shape = at === "heads" ? [1, tokens.length, heads.length, C] : [1, tokens.length, C];
  return { data: part, shape };
}

/**
 * The means of the numbers that places have in passes, of each token, head and channel, over the passes and their rows: of a
 * video the frames are rows in its image encoder and its Q-Former.
 *
 * @param calls inputs of forward(), each of one row
 * @param sites of the pass in which the means are used
 * @throws InputError MEAN_INPUTS where a place has other tokens than there
 */
export async function meanPlaces<I extends ModelInputs>(
  model: SweptModel<I>,
  calls: readonly I[],
  answer: readonly number[],
  { units, sites, signal }: { units: readonly SweepUnit[]; sites: Sites; signal?: AbortSignal | null | undefined },
): Promise<KeptPlaces> {
  const sums = new Map<string, { readonly data: Float64Array; readonly layout: readonly number[]; rows: number }>();
  for (const [i, call] of calls.entries()) {
    signal?.throwIfAborted();
    const keeper = new PlaceKeeper(units);
    try {
      await passLogprobs(model, call, answer, { observer: keeper });
      for (const [key, { data, layout }] of await keeper.read()) {
        const [R, ...rest] = layout as [number, number, number, number];
        const at = key.startsWith("heads ") ? "heads" : "output";
        const [, T] = layoutOf(sites.get(key)!, at);
        if (T !== rest[0]) {
          const [, module] = key.split(" ");
          throw new InputError("MEAN_INPUTS", `mean[${i}] has ${rest[0]} tokens in ${module}, the inputs have ${T}`, {
            hint: "mean takes other images of one size, with the same instruction",
          });
        }
        const size = data.length / R;
        const sum = sums.get(key) ?? { data: new Float64Array(size), layout: [1, ...rest], rows: 0 };
        for (let at = 0; at < data.length; at++) sum.data[at % size]! += data[at]!;
        sum.rows += R;
        sums.set(key, sum);
      }
    } finally {
      keeper.dispose();
    }
  }
  return new Map(
    [...sums].map(([key, { data, layout, rows }]) => [key, { data: Float32Array.from(data, (x) => x / rows), layout }]),
  );
}

/** Keeps the numbers of places of a pass of one row. */
export class PlaceKeeper implements Observer {
  readonly #wanted: ReadonlySet<string>;
  readonly #kept = new Map<string, Tensor>();
  /** Their shapes. */
  readonly sites = new Map<string, Shape>();

  constructor(units: readonly SweepUnit[]) {
    this.#wanted = new Set(units.flatMap(({ places }) => places.map(({ at, module }) => placeKey(at, module))));
  }

  wants(path: string, kind: ObservedKind): boolean {
    return this.#wanted.has(placeKey(kind, path));
  }

  see(path: string, kind: ObservedKind, x: Tensor<ActivationDType>): undefined {
    const key = placeKey(kind, path);
    if (this.#kept.has(key)) return;
    this.#kept.set(key, keptCopy(x as Tensor));
    this.sites.set(key, x.shape);
  }

  async read(): Promise<KeptPlaces> {
    const kept = new Map<string, { data: Float32Array; layout: readonly number[] }>();
    for (const [key, tensor] of this.#kept) {
      const at = key.startsWith("heads ") ? "heads" : "output";
      kept.set(key, { data: await tensor.read(), layout: layoutOf(tensor.shape, at) });
    }
    return kept;
  }

  dispose(): void {
    for (const tensor of this.#kept.values()) tensor.dispose();
    this.#kept.clear();
  }
}
