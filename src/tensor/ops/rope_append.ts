/** Rotary positions and appending to the key/value cache in one launch, for a fused projection of queries, keys and values. */
import type { ActivationDType } from "../dtype.ts";
import { ShapeError } from "../errors.ts";
import { expectShape, formatShape, sizes } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { contiguous } from "./copy.ts";

const WG = 64;

export interface RopeAppendOptions {
  /** f32[P, d], from `ropeTable` */
  readonly table: Tensor;
  /** u32[B, T]; a position of P or more is clamped to P - 1 */
  readonly positions: Tensor<"u32">;
  /**
   * f32[rows, Hkv, C, d], rows at least B; row b takes what batch b has. Or f16, two in a u32, as in kvAppend:
   * u32[rows, Hkv, C, d/2]
   */
  readonly keys: Tensor<ActivationDType>;
  readonly values: Tensor<ActivationDType>;
  /** u32[1], the cache's length before the call */
  readonly past: Tensor<"u32">;
}

/**
 * rope() of queries and keys and kvAppend() of keys and values. Nothing is written beyond the cache's C places.
 *
 * @param qkv f32[B, T, (H + 2 Hkv) d]: queries, keys, values
 * @returns the rotated queries: f32[B, T, H, d]
 * @throws ShapeError
 */
export function ropeAppend(qkv: Tensor, { table, positions, keys, values, past }: RopeAppendOptions): Tensor {
  const [B, T, width] = sizes(qkv.shape, 3, "ropeAppend: qkv");
  const [rows, Hkv, C, last] = sizes(keys.shape, 4, "ropeAppend: keys");
  const isF16 = keys.dtype === "u32";
  const d = last * (isF16 ? 2 : 1);
  const H = width / d - 2 * Hkv;
  if (d % 2 !== 0 || !Number.isInteger(H) || H < 1 || rows < B) {
    throw new ShapeError(
      `ropeAppend: qkv must be [B, T, (H + 2 Hkv) d] for keys [≥ B, Hkv, C, d], d even, got ${formatShape(qkv.shape)} and ${formatShape(keys.shape)}`,
    );
  }
  if (isF16 !== (values.dtype === "u32")) throw new ShapeError("ropeAppend: keys and values must be of one dtype");
  if (isF16 && d % 4 !== 0) throw new ShapeError(`ropeAppend: d must be a multiple of 4 for an f16 cache, got ${d}`);
  const [P] = sizes(table.shape, 2, "ropeAppend: table");
  expectShape("ropeAppend", "values", values.shape, keys.shape);
  expectShape("ropeAppend", "table", table.shape, [P, d]);
  expectShape("ropeAppend", "positions", positions.shape, [B, T]);
  expectShape("ropeAppend", "past", past.shape, [1]);
  if (!keys.isContiguous || !values.isContiguous) throw new ShapeError("ropeAppend: the cache must be contiguous");
  const { device } = qkv;
  const q = device.empty([B, T, H, d]);
  const size = d % 8 === 0 ? 4 : isF16 ? 2 : 1;
  const half = d / 2 / size;
  const elements = B * T * (H + 2 * Hkv) * half;
  const read = { qkv: contiguous(qkv), table: contiguous(table), positions: contiguous(positions) };
  device.launch({
    kernel: "rope_append",
    uses: { store: `store_${isF16 ? "f16" : "f32"}${size === 1 ? "" : `x${size}`}` },
    bindings: { ...read, past: contiguous(past), q, keys, values },
    params: { size: elements, T, H, Hkv, half, P, C },
    workgroups: Math.ceil(elements / WG),
    work: () => ({ bytes: qkv.bytes + q.bytes + B * T * (2 * Hkv * d * (isF16 ? 2 : 4) + 4 * d) }),
  });
  return q;
}
