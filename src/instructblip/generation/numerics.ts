/**
 * Detects scores with NaN or infinities, the effect of a NaN or an infinity in the weights, or of a sum beyond f32's range.
 * Unnoticed, an answer would repeat its first token.
 */
import { firstNotFinite, observing } from "../../modules/observer.ts";
import type { Device, Observer } from "../../tensor/device/device.ts";
import { EngineError, NumericError } from "../../tensor/errors.ts";

/** Where such scores occurred. generate.ts finds the cause. */
export class ScoresError extends NumericError {
  /** Which prompt of the batch. */
  readonly prompt: number;
  /** The row so far, after which the scores are. */
  readonly ids: readonly number[];

  constructor(
    prompt: number,
    ids: readonly number[],
    what = `prompt ${prompt}: no token can be chosen, for its scores have a NaN or an infinity`,
  ) {
    super(what);
    this.prompt = prompt;
    this.ids = ids;
  }
}

/** Whether a row has a NaN or plus infinity. f32[V] */
export function hasFault(scores: Float32Array): boolean {
  return scores.some((score) => Number.isNaN(score) || score === Number.POSITIVE_INFINITY);
}

/**
 * Whether softmax of a row is a distribution: it has neither NaN nor plus infinity, and a score above minus infinity. f32[V]
 */
export function hasDistribution(scores: Float32Array): boolean {
  return !hasFault(scores) && scores.some((score) => score > Number.NEGATIVE_INFINITY);
}

/**
 * Checks processed scores, which may have infinities.
 *
 * @throws NumericError
 */
export function expectChoice(scores: Float32Array, prompt: number, draws: boolean): void {
  if (draws ? hasDistribution(scores) : !scores.some(Number.isNaN)) return;
  throw new NumericError(`prompt ${prompt}: the logits processors have left no valid score`, {
    hint: "they have banned every token, or turned valid scores into NaN or infinities",
  });
}

/**
 * An error that names the module in which a second run of `pass`, observed, first has a NaN or an infinity.
 *
 * @param the beginning of its message
 */
export async function numericError(
  device: Device,
  what: string,
  pass: () => unknown,
  observer?: Observer,
): Promise<NumericError> {
  let module: string | undefined;
  let why = "a second, observed pass had none";
  try {
    module = await observing(device, observer, () => firstNotFinite(device, pass));
    if (module) why = `the first module whose output has one is ${module}`;
  } catch (error) {
    if (!(error instanceof EngineError)) throw error;
    why = `a second pass, to see where from, failed (${error.code})`;
  }
  return new NumericError(`${what}; ${why}`, {
    module,
    hint: "weights that are NaN or infinite are the usual cause; check_numerics: false generates regardless",
  });
}
