/** y = x / sqrt(mean(x²) + eps) * weight over the last dimension. */
import { type PlanOverride, plan, workgroupOfRow } from "../plan.ts";
import { expectShape, rowsOf } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { contiguous } from "./copy.ts";

const WG_INVOCATION = 8;

/**
 * @param x f32[..., D]
 * @param weight f32[D]
 * @returns f32[..., D]
 * @throws ShapeError if weight is not [D]
 * Source: transformers' LlamaRMSNorm and T5LayerNorm, in f32 throughout.
 */
export function rmsNorm(x: Tensor, weight: Tensor, eps: number, override?: PlanOverride): Tensor {
  const { rows, width: D } = rowsOf("rmsNorm", x.shape);
  expectShape("rmsNorm", "weight", weight.shape, [D]);
  const y = x.device.empty(x.shape);
  if (x.size === 0) return y;
  const bindings = { x: contiguous(x), weight, y };
  const variant = plan("row", x.device.caps, override, { M: rows });
  const ofWorkgroup = variant === "workgroup" || variant === "workgroup_subgroups";
  if (ofWorkgroup || D % 4 > 0) {
    const shares = workgroupOfRow(ofWorkgroup ? variant : "workgroup", D);
    x.device.launch({ kernel: "rms_norm", ...shares, bindings, params: { rows, D, eps }, workgroups: rows });
  } else {
    const subgroup = variant === "subgroup";
    x.device.launch({
      kernel: subgroup ? "rms_norm_subgroup" : "rms_norm_invocation",
      overrides: subgroup ? { SG: x.device.caps.subgroupMinSize } : {},
      bindings,
      params: { rows, D4: D / 4, eps },
      workgroups: subgroup ? rows : Math.ceil(rows / WG_INVOCATION),
    });
  }
  return y;
}
