/** Rotary position embedding, and the table of angles it needs. */
import { InputError, ShapeError } from "../errors.ts";
import { expectShape, formatShape, hasRank, sizes } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { contiguous } from "./copy.ts";

const WG = 64;

/**
 * @param x f32[B, T, H, d]; may be strided, its last dimension must not be
 * @param table f32[P, d], from `ropeTable`
 * @param positions u32[B, T]; a position of P or more counts as P - 1, as the host cannot see it: callers check lengths
 * @returns f32[B, T, H, d], contiguous
 * @throws ShapeError
 * Source: transformers' apply_rotary_pos_emb ("rotate_half").
 */
export function rope(x: Tensor, table: Tensor, positions: Tensor<"u32">): Tensor {
  if (!hasRank(x.shape, 4) || x.shape[3] % 2 !== 0 || x.strides[3] !== 1) {
    throw new ShapeError(
      `rope: x must be [B, T, H, d], d even and of stride 1, got ${formatShape(x.shape)} with strides ${formatShape(x.strides)}`,
    );
  }
  const [B, T, H, d] = x.shape;
  const [x_b, x_t, x_h] = sizes(x.strides, 4);
  const [P] = sizes(table.shape, 2, "rope: table");
  expectShape("rope", "table", table.shape, [P, d]);
  expectShape("rope", "positions", positions.shape, [B, T]);
  const y = x.device.empty(x.shape);
  const size = x.size / 2;
  x.device.launch({
    kernel: "rope",
    bindings: { x, table: contiguous(table), positions: contiguous(positions), y },
    params: { size, T, H, half: d / 2, P, x_offset: x.offset, x_b, x_t, x_h },
    workgroups: Math.ceil(size / WG),
    work: () => ({ bytes: 2 * x.bytes + 4 * B * T * d }),
  });
  return y;
}

/**
 * The cosines and sines of every position's angles: f32[P, d], row p holding d/2 cosines, then d/2 sines.
 *
 * Frequencies and angles are rounded to f32 where PyTorch rounds them, for the model was trained with those: at position
 * 2,047 the exact angles' cosines differ from them by 1e-4. The cosine and sine of that f32 angle are then exact to f32.
 *
 * @param d head dimension, even
 * @param theta base of the frequencies, 10,000 in Llama
 * @param factor by which "linear" scaling divides the frequencies
 * Source: transformers 5.18, LlamaRotaryEmbedding and _compute_linear_scaling_rope_parameters.
 */
export function ropeTable(P: number, d: number, theta: number, factor = 1): Float32Array {
  if (d % 2 !== 0) throw new InputError("ROPE", `ropeTable: the head dimension must be even, got ${d}`);
  const half = d / 2;
  const table = new Float32Array(P * d);
  for (let j = 0; j < half; j++) {
    const frequency = Math.fround(Math.fround(1 / Math.fround(theta ** Math.fround((2 * j) / d))) / factor);
    for (let p = 0; p < P; p++) {
      const angle = Math.fround(p * frequency);
      table[p * d + j] = Math.cos(angle);
      table[p * d + half + j] = Math.sin(angle);
    }
  }
  return table;
}
