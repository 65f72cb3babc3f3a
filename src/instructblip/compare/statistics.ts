/** What is known of one tensor, and of two that should be equal. Sums are f64; NaN and infinities are counted, not summed. */

/** The numbers of a tensor, and its place for the comparison: any typed array. */
export type Numbers = Float32Array | Float64Array | Int32Array | Uint32Array;

export interface Statistics {
  /** Of finite numbers; null if there is none. */
  readonly min: number | null;
  readonly max: number | null;
  readonly mean: number | null;
  readonly rms: number | null;
  /** Share of numbers that are 0. */
  readonly zeros: number;
  readonly nan: number;
  readonly infinite: number;
  /** Index of the first NaN or infinity in the flat array, -1 without one. */
  readonly firstNotFinite: number;
}

export function statisticsOf(numbers: Numbers): Statistics {
  let [min, max, sum, squares] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 0, 0];
  let [zeros, nan, infinite, firstNotFinite] = [0, 0, 0, -1];
  for (let i = 0; i < numbers.length; i++) {
    const x = numbers[i]!;
    if (!Number.isFinite(x)) {
      if (firstNotFinite < 0) firstNotFinite = i;
      if (Number.isNaN(x)) nan++;
      else infinite++;
      continue;
    }
    if (x === 0) zeros++;
    if (x < min) min = x;
    if (x > max) max = x;
    sum += x;
    squares += x * x;
  }
  const finite = numbers.length - nan - infinite;
  const of = (value: number) => (finite > 0 ? value : null);
  return {
    min: of(min),
    max: of(max),
    mean: of(sum / finite),
    rms: of(Math.sqrt(squares / finite)),
    zeros: numbers.length > 0 ? zeros / numbers.length : 0,
    nan,
    infinite,
    firstNotFinite,
  };
}

export interface Difference {
  /** Σ(b-a)² / Σa² of numbers that are finite in both; infinite where a is all zero and b is not. */
  readonly nmse: number;
  /** Largest |b - a|, and its index in the flat array. */
  readonly maxAbs: number;
  readonly worst: number;
  /** Σab / √(Σa² Σb²); 1 for two that are all zero. */
  readonly cosine: number;
  /** Numbers that are NaN in one or both, or infinite in one and something else in the other; and the first of them. */
  readonly broken: number;
  readonly firstBroken: number;
}

/** b against a, which have as many numbers. */
export function differenceOf(a: Numbers, b: Numbers): Difference {
  let [error, powerA, powerB, dot, maxAbs, worst] = [0, 0, 0, 0, 0, 0];
  let [broken, firstBroken] = [0, -1];
  for (let i = 0; i < a.length; i++) {
    const [x, y] = [a[i]!, b[i]!];
    if (!Number.isFinite(x) || !Number.isFinite(y)) {
      if (x === y) continue; // the same infinity
      if (firstBroken < 0) firstBroken = i;
      broken++;
      continue;
    }
    const distance = Math.abs(y - x);
    error += distance * distance;
    powerA += x * x;
    powerB += y * y;
    dot += x * y;
    if (distance > maxAbs) [maxAbs, worst] = [distance, i];
  }
  const norms = Math.sqrt(powerA * powerB);
  const cosine = norms > 0 ? Math.max(-1, Math.min(1, dot / norms)) : Number(powerA === powerB);
  return { nmse: error === 0 ? 0 : error / powerA, maxAbs, worst, cosine, broken, firstBroken };
}

/** A place in a flat array as indices: 7 of [2, 3, 4] is [0, 1, 3]. */
export function indicesOf(flat: number, shape: readonly number[]): number[] {
  let rest = flat;
  return shape
    .toReversed()
    .map((size) => {
      const index = rest % size;
      rest = (rest - index) / size;
      return index;
    })
    .toReversed();
}
