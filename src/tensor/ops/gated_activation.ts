/**
 * y = activate(gate) * up, a gated linear unit (GLU, SwiGLU); fused into the epilogue of the product if both are halves of
 * one.
 */
import { type Activation, activationCode } from "../activation.ts";
import { ELEMENTWISE_WG, itemsPerThread } from "../device/plan.ts";
import { fuseGate } from "../fuse.ts";
import { expectShape } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { contiguous } from "./copy.ts";

/**
 * @param gate f32[...]
 * @param up f32[...], shaped like gate
 * @returns f32[...], contiguous
 * @throws ShapeError if the shapes differ
 */
export function gatedActivation(gate: Tensor, up: Tensor, kind: Activation): Tensor {
  expectShape("gatedActivation", "up", up.shape, gate.shape);
  const y = gate.device.empty(gate.shape);
  const groups = Math.ceil(gate.size / 4);
  const items_per_thread = itemsPerThread(groups, gate.device.caps);
  gate.device.launch({
    kernel: "gated_activation",
    overrides: { ACTIVATION: activationCode(kind) },
    bindings: { gate: contiguous(gate), up: contiguous(up), y },
    params: { groups, items_per_thread },
    workgroups: Math.ceil(groups / (ELEMENTWISE_WG * items_per_thread)),
  });
  return y;
}

/**
 * y = a * b. One gated product, if a is the activated first half of a product that is paired, and b its second half.
 *
 * @param a f32[...]
 * @param b f32[...], shaped like a
 * @throws ShapeError if the shapes differ
 */
export function mul(a: Tensor, b: Tensor): Tensor {
  return fuseGate(a, b) ?? gatedActivation(a, b, "none");
}
