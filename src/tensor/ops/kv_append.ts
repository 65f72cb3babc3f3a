/** Writing new keys or values behind those a cache holds. */
import { ShapeError } from "../errors.ts";
import { expectShape, formatShape } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { contiguous } from "./copy.ts";

const WG = 64;

/**
 * cache[b, h, past + t] = x[b, t, h]; nothing is written beyond C.
 *
 * @param x f32[B, T, Hkv, d]; may be strided, its last dimension must not be
 * @param cache f32[B, Hkv, C, d], contiguous
 * @param past u32[1], places of the cache that are taken already
 * @throws ShapeError
 */
export function kvAppend(x: Tensor, cache: Tensor, past: Tensor<"u32">): void {
  if (x.rank !== 4 || x.strides[3] !== 1) {
    throw new ShapeError(
      `kvAppend: x must be [B, T, Hkv, d], d of stride 1, got ${formatShape(x.shape)} with strides ${formatShape(x.strides)}`,
    );
  }
  const [B, T, Hkv, d] = x.shape;
  const [x_b, x_t, x_h] = x.strides;
  const C = cache.shape[2];
  expectShape("kvAppend", "cache", cache.shape, [B, Hkv, C, d]);
  expectShape("kvAppend", "past", past.shape, [1]);
  if (!cache.isContiguous) throw new ShapeError("kvAppend: cache must be contiguous");
  x.device.launch({
    kernel: "kv_append",
    bindings: { x, past: contiguous(past), cache },
    params: { size: x.size, T, Hkv, C, d, x_offset: x.offset, x_b, x_t, x_h },
    workgroups: Math.ceil(x.size / WG),
  });
}
