/** Moving elements: making a view contiguous, and joining tensors. */
import type { ActivationDType } from "../dtype.ts";
import { ShapeError } from "../errors.ts";
import { axis, formatShape } from "../shape.ts";
import type { Tensor } from "../tensor.ts";

const WG = 64;
const RANK = 5;

/** Copies every element of `x` to the same place of `y`; both may be strided views of the same shape. */
export function copy<D extends ActivationDType>(x: Tensor<D>, y: Tensor<D>): void {
  if (x.rank > RANK) throw new ShapeError(`copy: rank ${x.rank} exceeds ${RANK}`);
  if (formatShape(x.shape) !== formatShape(y.shape)) {
    throw new ShapeError(`copy: y must be ${formatShape(x.shape)}, got ${formatShape(y.shape)}`);
  }
  const padding = new Array<number>(RANK - x.rank);
  const shape = [...padding.fill(1), ...x.shape];
  const xs = [...padding.fill(0), ...x.strides];
  const ys = [...padding, ...y.strides];
  const [, n1, n2, n3, n4] = shape;
  const [x0, x1, x2, x3, x4] = xs;
  const [y0, y1, y2, y3, y4] = ys;
  x.device.launch({
    kernel: "copy",
    bindings: { x, y },
    params: {
      size: x.size,
      n1,
      n2,
      n3,
      n4,
      x_offset: x.offset,
      x0,
      x1,
      x2,
      x3,
      x4,
      y_offset: y.offset,
      y0,
      y1,
      y2,
      y3,
      y4,
    },
    workgroups: Math.ceil(x.size / WG),
  });
}

/** `x` itself if its elements lie one after the other, else a copy of which they do. */
export function contiguous<D extends ActivationDType>(x: Tensor<D>): Tensor<D> {
  if (x.isContiguous) return x;
  const y = x.device.empty(x.shape, x.dtype);
  copy(x, y);
  return y;
}

/**
 * Joins tensors along a dimension, as torch.cat.
 *
 * @throws ShapeError unless all other dimensions are equal
 */
export function cat<D extends ActivationDType>(tensors: readonly Tensor<D>[], dim: number): Tensor<D> {
  const [first] = tensors;
  const d = axis("cat", first.rank, dim);
  for (const t of tensors) {
    if (t.rank !== first.rank || t.shape.some((n, i) => i !== d && n !== first.shape[i])) {
      throw new ShapeError(
        `cat: ${formatShape(t.shape)} does not join ${formatShape(first.shape)} along dimension ${d}`,
      );
    }
  }
  const total = tensors.reduce((sum, t) => sum + t.shape[d], 0);
  const y = first.device.empty(first.shape.with(d, total), first.dtype);
  let at = 0;
  for (const t of tensors) {
    copy(t, y.narrow(d, at, t.shape[d]));
    at += t.shape[d];
  }
  return y;
}
