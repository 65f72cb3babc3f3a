/** Appends new keys or values to a key/value cache. */
import type { ActivationDType } from "../dtype.ts";
import { ShapeError } from "../errors.ts";
import { expectShape, formatShape, hasRank, sizes } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { contiguous } from "./copy.ts";

const WG = 64;

/**
 * cache[b, h, past + t] = x[b, t, h]; nothing is written beyond C. In an f16 cache a number is rounded to a neighbouring
 * f16; a number beyond ±65504 becomes ±65504.
 *
 * @param x f32[B, T, Hkv, d]; may be strided, its last dimension must not be
 * @param cache f32[B, Hkv, C, d], contiguous; or f16, two in a u32: u32[B, Hkv, C, d/2], d a multiple of 4
 * @param past u32[1], the cache's length before the call
 * @throws ShapeError
 */
export function kvAppend(x: Tensor, cache: Tensor<ActivationDType>, past: Tensor<"u32">): void {
  if (!hasRank(x.shape, 4) || x.strides[3] !== 1) {
    throw new ShapeError(
      `kvAppend: x must be [B, T, Hkv, d], d of stride 1, got ${formatShape(x.shape)} with strides ${formatShape(x.strides)}`,
    );
  }
  const [B, T, Hkv, d] = x.shape;
  const isF16 = cache.dtype === "u32";
  const [, , C] = sizes(cache.shape, 4, "kvAppend: cache");
  if (isF16 && d % 4 !== 0) throw new ShapeError(`kvAppend: d must be a multiple of 4 for an f16 cache, got ${d}`);
  expectShape("kvAppend", "cache", cache.shape, [B, Hkv, C, isF16 ? d / 2 : d]);
  expectShape("kvAppend", "past", past.shape, [1]);
  if (!cache.isContiguous) throw new ShapeError("kvAppend: cache must be contiguous");
  // The stride of a dimension of size 1 is not used.
  const stepsOf = ({ shape, strides }: Tensor) =>
    sizes(
      strides.map((n, i) => (shape[i] === 1 ? 0 : n)),
      4,
    );
  const isInFours = (tensor: Tensor) => [d, tensor.offset, ...stepsOf(tensor).slice(0, 3)].every((n) => n % 4 === 0);
  const numbers = isF16 && !isInFours(x) ? contiguous(x) : x;
  const inFours = isInFours(numbers);
  const size = inFours ? 4 : 1;
  const [b, t, h] = stepsOf(numbers);
  const steps = { x_offset: numbers.offset / size, x_b: b / size, x_t: t / size, x_h: h / size };
  const elements = x.size / size;
  x.device.launch({
    kernel: "kv_append",
    uses: { store: inFours ? (isF16 ? "store_f16x4" : "store_f32x4") : "store_f32" },
    bindings: { x: numbers, past: contiguous(past), cache },
    params: { size: elements, T, Hkv, C, d: d / size, ...steps },
    workgroups: Math.ceil(elements / WG),
    work: () => ({ bytes: x.size * (isF16 ? 6 : 8) }),
  });
}
