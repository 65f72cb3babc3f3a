/**
 * Scores that no token can be chosen by: what a NaN or an infinity in the weights, or a sum beyond f32's range, comes to.
 * Without a look at them an answer would be its first token for ever.
 */
import { firstNotFinite, observing } from "../../modules/observer.ts";
import type { Device, Observer } from "../../tensor/device/device.ts";
import { EngineError, NumericError } from "../../tensor/errors.ts";

/** Where such scores were met. What led to them is found out by who has the model. */
export class ScoresError extends NumericError {
  /** Which prompt of the batch. */
  readonly prompt: number;
  /** The row so far: what the scores come after. */
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

/** Whether softmax of a row is one: it has neither NaN nor plus infinity, and something above minus infinity. f32[V] */
export function hasDistribution(scores: Float32Array): boolean {
  return !hasFault(scores) && scores.some((score) => score > Number.NEGATIVE_INFINITY);
}

/**
 * Scores as the processors have left them. An infinity may be what they want.
 *
 * @throws NumericError
 */
export function expectChoice(scores: Float32Array, prompt: number, draws: boolean): void {
  if (draws ? hasDistribution(scores) : !scores.some(Number.isNaN)) return;
  throw new NumericError(`prompt ${prompt}: the logits processors have left no scores that a token can be chosen by`, {
    hint: "they have forbidden every token, or made NaN or infinities of the model's scores, which were in order",
  });
}

/**
 * An error that names the module in which a second run of `pass`, observed, first has a NaN or an infinity.
 *
 * @param what it says first
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
    hint: "weights that are NaN or infinite are the usual cause; check_numerics: false goes on with what comes of them",
  });
}
