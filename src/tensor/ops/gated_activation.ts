/** y = activate(gate) * up, the middle of a gated feed-forward layer. */
import { type Activation, activationCode } from "../activation.ts";
import { shareRows } from "../plan.ts";
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
  const [F, stride] = [gate.shape[gate.rank - 1], gate.strides[gate.rank - 2] ?? 0];
  // Halves of what one projection gives are read where they are; what is contiguous is one row.
  const areRows = isRowsInFours(gate) && isRowsInFours(up) && stride === (up.strides[up.rank - 2] ?? 0);
  const inPlace = areRows && !(gate.isContiguous && up.isContiguous);
  const width = inPlace ? F / 4 : Math.ceil(gate.size / 4);
  const { workgroups, ...shares } = shareRows(inPlace ? gate.size / F : 1, width, gate.device.caps);
  gate.device.launch({
    kernel: "gated_activation",
    overrides: { ACTIVATION: activationCode(kind) },
    bindings: inPlace ? { gate, up, y } : { gate: contiguous(gate), up: contiguous(up), y },
    params: {
      ...{ ...shares, width },
      ...(inPlace
        ? { stride: stride / 4, gate_offset: gate.offset / 4, up_offset: up.offset / 4 }
        : { stride: 0, gate_offset: 0, up_offset: 0 }),
    },
    workgroups,
  });
  return y;
}

/** Whether x is rows of whole groups of four, one behind the other at one distance. */
function isRowsInFours({ shape, strides, offset, rank }: Tensor): boolean {
  if (rank === 0 || (strides[rank - 1] !== 1 && shape[rank - 1] !== 1)) return false;
  const evenly = strides.every((stride, i) => i >= rank - 2 || stride === strides[i + 1] * shape[i + 1]);
  return evenly && [shape[rank - 1], offset, strides[rank - 2] ?? 0].every((n) => n % 4 === 0);
}
