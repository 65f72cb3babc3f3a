/** Small pure functions on shapes. A shape is a list of sizes, a stride counts elements, the last dimension varies fastest. */
import { ShapeError } from "./errors.ts";

export type Shape = readonly number[];

/** Product of the sizes; 1 for a scalar. */
export function sizeOf(shape: Shape): number {
  let size = 1;
  for (const n of shape) size *= n;
  return size;
}

interface Sizes {
  1: readonly [number];
  2: readonly [number, number];
  3: readonly [number, number, number];
  4: readonly [number, number, number, number];
  5: readonly [number, number, number, number, number];
}

/** Whether a shape, or strides, have `rank` dimensions; narrows the type for destructuring. */
export function hasRank<N extends keyof Sizes>(shape: Shape, rank: N): shape is Sizes[N] {
  return shape.length === rank;
}

/**
 * A shape, or strides, checked to have `rank` dimensions, for destructuring: `const [B, T, D] = sizes(x.shape, 3)`.
 *
 * @param what names the tensor in errors
 * @throws ShapeError for another rank
 */
export function sizes<N extends keyof Sizes>(shape: Shape, rank: N, what = "a tensor"): Sizes[N] {
  if (!hasRank(shape, rank)) throw new ShapeError(`${what} must have ${rank} dimensions, got ${formatShape(shape)}`);
  return shape;
}

/**
 * [rows, size of a row] of a shape: the product of all dimensions before the last, and the last. @throws ShapeError for a
 * scalar
 */
export function rowsOf(where: string, shape: Shape): { rows: number; width: number } {
  const width = shape.at(-1);
  if (width === undefined) throw new ShapeError(`${where}: a scalar has no last dimension`);
  return { rows: sizeOf(shape.slice(0, -1)), width };
}

/** Row-major strides, in elements. */
export function stridesOf(shape: Shape): number[] {
  const strides = new Array<number>(shape.length);
  let stride = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    strides[i] = stride;
    stride *= shape[i]!;
  }
  return strides;
}

/** Whether a tensor of these strides is contiguous. */
export function isDense(shape: Shape, strides: Shape): boolean {
  const dense = stridesOf(shape);
  return shape.every((n, i) => n === 1 || strides[i] === dense[i]);
}

/** `[2, 3]`, as errors print it. */
export function formatShape(shape: Shape): string {
  return `[${shape.join(", ")}]`;
}

export function sameShape(a: Shape, b: Shape): boolean {
  return a.length === b.length && a.every((n, i) => n === b[i]);
}

/** Throws `where: what must be [..], got [..]` unless the shapes are equal. */
export function expectShape(where: string, what: string, actual: Shape, expected: Shape): void {
  if (!sameShape(actual, expected)) {
    throw new ShapeError(`${where}: ${what} must be ${formatShape(expected)}, got ${formatShape(actual)}`);
  }
}

/** Resolves one `-1` in a target shape against the number of elements there are. */
export function resolveShape(size: number, shape: Shape): number[] {
  const known = sizeOf(shape.filter((n) => n !== -1));
  const resolved = shape.map((n) => (n === -1 ? size / known : n));
  if (shape.filter((n) => n === -1).length > 1 || sizeOf(resolved) !== size || !resolved.every(Number.isInteger)) {
    throw new ShapeError(`reshape: ${size} elements do not fill ${formatShape(shape)}`);
  }
  return resolved;
}

/** Turns a dimension counted from the end (`-1`) into one counted from the start. */
export function axis(where: string, rank: number, dim: number): number {
  const resolved = dim < 0 ? dim + rank : dim;
  if (!Number.isInteger(resolved) || resolved < 0 || resolved >= rank) {
    throw new ShapeError(`${where}: dimension ${dim} of a tensor of rank ${rank}`);
  }
  return resolved;
}
