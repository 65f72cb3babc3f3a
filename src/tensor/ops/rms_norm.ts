/** y = x / sqrt(mean(x²) + eps) * weight over the last dimension. */
import { type PlanOverride, planRow, workgroupOfRow } from "../device/plan.ts";
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
  const { device } = x;
  const variant = planRow("rms_norm", device.caps, [rows, D], override);
  switch (variant) {
    case "workgroup":
    case "workgroup_subgroups": {
      const shares = workgroupOfRow(variant, D);
      device.launch({ kernel: "rms_norm", ...shares, bindings, params: { rows, D, eps }, workgroups: rows });
      break;
    }
    case "subgroup": {
      const overrides = { SG: device.caps.subgroupMinSize };
      const params = { rows, D4: D / 4, eps };
      device.launch({ kernel: "rms_norm_subgroup", overrides, bindings, params, workgroups: rows });
      break;
    }
    case "invocation": {
      const params = { rows, D4: D / 4, eps };
      const workgroups = Math.ceil(rows / WG_INVOCATION);
      device.launch({ kernel: "rms_norm_invocation", bindings, params, workgroups });
      break;
    }
  }
  return y;
}
