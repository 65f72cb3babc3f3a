/** Moving elements: making a view contiguous, and joining tensors. */

import { splitRows } from "../device/plan.ts";
import type { ActivationDType } from "../dtype.ts";
import { ShapeError } from "../errors.ts";
import { axis, formatShape, type Shape, sizeOf, sizes } from "../shape.ts";
import type { Tensor } from "../tensor.ts";

/** Dimensions besides that of a row, at most. */
const AROUND = 5;

/** Copies every element of `x` to the same place of `y`; both may be strided views of the same shape. */
export function copy<D extends ActivationDType>(x: Tensor<D>, y: Tensor<D>): void {
  if (formatShape(x.shape) !== formatShape(y.shape)) {
    throw new ShapeError(`copy: y must be ${formatShape(x.shape)}, got ${formatShape(y.shape)}`);
  }
  const { inFours, shape, n, xs, ys, x_offset, y_offset, x_step, y_step } = rowsOf(x, y);
  if (shape.length > AROUND) throw new ShapeError(`copy: rank ${shape.length + 1} exceeds ${AROUND + 1}`);
  const missing = new Array<number>(AROUND - shape.length);
  const [, n1, n2, n3, n4] = sizes([...missing.fill(1), ...shape], AROUND);
  const [x0, x1, x2, x3, x4] = sizes([...missing.fill(0), ...xs], AROUND);
  const [y0, y1, y2, y3, y4] = sizes([...missing, ...ys], AROUND);
  const { workgroups, ...split } = splitRows(sizeOf(shape), n, x.device.caps);
  x.device.launch({
    kernel: "copy",
    uses: { element: inFours ? "element_u32x4" : "element_u32" },
    bindings: { x, y },
    params: {
      ...{ ...split, n, n1, n2, n3, n4 },
      ...{ x_offset, x0, x1, x2, x3, x4, x_step },
      ...{ y_offset, y0, y1, y2, y3, y4, y_step },
    },
    workgroups,
  });
}

/** Two views as rows of `n` elements, `shape` of them; see kernels/gather/copy.wgsl. */
export interface Rows {
  /** An element is four numbers, not one; all sizes, strides and offsets count elements. */
  readonly inFours: boolean;
  readonly shape: Shape;
  readonly n: number;
  readonly xs: Shape;
  readonly ys: Shape;
  readonly x_offset: number;
  readonly y_offset: number;
  readonly x_step: number;
  readonly y_step: number;
}

type View = Pick<Tensor<ActivationDType>, "shape" | "strides" | "offset">;

/** Merges dimensions that are contiguous in both views, so that rows become as long as possible. Pure. */
export function rowsOf(x: View, y: View): Rows {
  const dims: { n: number; x: number; y: number }[] = [];
  x.shape.forEach((n, i) => {
    const next = { n, x: x.strides[i]!, y: y.strides[i]! };
    const last = dims.at(-1);
    if (n === 1) return;
    if (last && last.x === n * next.x && last.y === n * next.y) dims[dims.length - 1] = { ...next, n: last.n * n };
    else dims.push(next);
  });
  const row = dims.pop() ?? { n: 1, x: 1, y: 1 };
  const numbers = [x.offset, y.offset, row.n, ...dims.flatMap((dim) => [dim.x, dim.y])];
  const inFours = row.x === 1 && row.y === 1 && numbers.every((number) => number % 4 === 0);
  const size = inFours ? 4 : 1;
  return {
    inFours,
    shape: dims.map((dim) => dim.n),
    n: row.n / size,
    xs: dims.map((dim) => dim.x / size),
    ys: dims.map((dim) => dim.y / size),
    x_offset: x.offset / size,
    y_offset: y.offset / size,
    x_step: row.x,
    y_step: row.y,
  };
}

/** `x` itself if it is contiguous, else a contiguous copy. */
export function contiguous<D extends ActivationDType>(x: Tensor<D>): Tensor<D> {
  if (x.isContiguous) return x;
  const y = x.device.empty(x.shape, x.dtype);
  copy(x, y);
  return y;
}

/**
 * Joins tensors along a dimension, as torch.cat.
 *
 * @throws ShapeError if there are none, or unless all other dimensions are equal
 */
export function cat<D extends ActivationDType>(tensors: readonly Tensor<D>[], dim: number): Tensor<D> {
  const [first] = tensors;
  if (!first) throw new ShapeError("cat: there is nothing to join");
  const d = axis("cat", first.rank, dim);
  for (const t of tensors) {
    if (t.rank !== first.rank || t.shape.some((n, i) => i !== d && n !== first.shape[i])) {
      throw new ShapeError(
        `cat: ${formatShape(t.shape)} does not join ${formatShape(first.shape)} along dimension ${d}`,
      );
    }
  }
  const total = tensors.reduce((sum, t) => sum + t.shape[d]!, 0);
  const y = first.device.empty(first.shape.with(d, total), first.dtype);
  let at = 0;
  for (const t of tensors) {
    const length = t.shape[d]!;
    copy(t, y.narrow(d, at, length));
    at += length;
  }
  return y;
}
