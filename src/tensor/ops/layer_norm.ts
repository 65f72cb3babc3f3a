/** y = (x - mean) / sqrt(variance + eps) * weight + bias over the last dimension. */
import { type PlanOverride, planRow, workgroupOfRow } from "../device/plan.ts";
import { expectShape, rowsOf } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { contiguous } from "./copy.ts";

const WG_INVOCATION = 8;

/**
 * @param x f32[..., D]
 * @param weight f32[D]
 * @param bias f32[D]
 * @returns f32[..., D]
 * @throws ShapeError if weight or bias is not [D]
 * Source: torch.nn.LayerNorm over the last dimension; biased variance.
 */
export function layerNorm(x: Tensor, weight: Tensor, bias: Tensor, eps: number, override?: PlanOverride): Tensor {
  const { rows, width: D } = rowsOf("layerNorm", x.shape);
  expectShape("layerNorm", "weight", weight.shape, [D]);
  expectShape("layerNorm", "bias", bias.shape, [D]);
  const y = x.device.empty(x.shape);
  if (x.size === 0) return y;
  const bindings = { x: contiguous(x), weight, bias, y };
  const { device } = x;
  const variant = planRow("layer_norm", device.caps, [rows, D], override);
  switch (variant) {
    case "workgroup":
    case "workgroup_subgroups": {
      const shares = workgroupOfRow(variant, D);
      device.launch({ kernel: "layer_norm", ...shares, bindings, params: { rows, D, eps }, workgroups: rows });
      break;
    }
    case "subgroup": {
      const overrides = { SG: device.caps.subgroupMinSize };
      const params = { rows, D4: D / 4, eps };
      device.launch({ kernel: "layer_norm_subgroup", overrides, bindings, params, workgroups: rows });
      break;
    }
    case "invocation": {
      const params = { rows, D4: D / 4, eps };
      const workgroups = Math.ceil(rows / WG_INVOCATION);
      device.launch({ kernel: "layer_norm_invocation", bindings, params, workgroups });
      break;
    }
  }
  return y;
}
