/** y = (x - mean) / sqrt(variance + eps) * weight + bias over the last dimension. */
import { type PlanOverride, plan, workgroupOfRow } from "../plan.ts";
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
  const variant = plan("row", x.device.caps, override, { M: rows });
  const ofWorkgroup = variant === "workgroup" || variant === "workgroup_subgroups";
  if (ofWorkgroup || D % 4 > 0) {
    const shares = workgroupOfRow(ofWorkgroup ? variant : "workgroup", D);
    x.device.launch({ kernel: "layer_norm", ...shares, bindings, params: { rows, D, eps }, workgroups: rows });
  } else {
    const subgroup = variant === "subgroup";
    x.device.launch({
      kernel: subgroup ? "layer_norm_subgroup" : "layer_norm_invocation",
      overrides: subgroup ? { SG: x.device.caps.subgroupMinSize } : {},
      bindings,
      params: { rows, D4: D / 4, eps },
      workgroups: subgroup ? rows : Math.ceil(rows / WG_INVOCATION),
    });
  }
  return y;
}
