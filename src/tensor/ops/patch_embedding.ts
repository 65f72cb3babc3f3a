/** Images to tokens: patches times a weight behind a class token, with positions. */
import { activationCode } from "../activation.ts";
import { ShapeError } from "../errors.ts";
import { type PlanOverride, plan } from "../plan.ts";
import { expectShape, formatShape } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import type { Weight } from "../weight.ts";
import { add } from "./add.ts";
import { cat, contiguous } from "./copy.ts";
import { linear, multiply } from "./linear.ts";
import { unfold } from "./unfold.ts";

/** What makes tokens of patches. */
export interface PatchEmbedding {
  /** [D, C·P·P], each row ordered (c, y, x) */
  readonly weight: Weight;
  /** f32[D] */
  readonly bias: Tensor;
  /** f32[1, 1, D] */
  readonly class_token: Tensor;
  /** f32[1, N + 1, D], for N patches; the class token's first */
  readonly positions: Tensor;
}

/** Rows from which on the kernels for many are used: those for few read their input where rows lie. */
const MANY_ROWS = 9;

/**
 * @param pixels f32[B, C, H, W]
 * @param patch side P of a patch, in pixels; what does not fill a patch is left out
 * @returns f32[B, N + 1, D]: the class token, then the patches, row after row
 * @throws ShapeError if an image is smaller than a patch, or a shape not as said
 * Source: Dosovitskiy et al. 2021, An Image is Worth 16x16 Words, equation 1.
 */
export function patchEmbedding(
  pixels: Tensor,
  patch: number,
  { weight, bias, class_token, positions }: PatchEmbedding,
  override?: PlanOverride,
): Tensor {
  const { device } = pixels;
  const [B, C, height, width] = pixels.shape;
  if (pixels.rank !== 4 || !(patch >= 1 && patch <= Math.min(height, width))) {
    const shape = formatShape(pixels.shape);
    throw new ShapeError(`patchEmbedding: pixels must be [B, C, H, W], H and W at least ${patch}, got ${shape}`);
  }
  const tokens = Math.floor(height / patch) * Math.floor(width / patch) + 1;
  const [D, K] = weight.shape;
  expectShape("patchEmbedding", "weight", [D, K], [D, C * patch * patch]);
  expectShape("patchEmbedding", "bias", bias.shape, [D]);
  expectShape("patchEmbedding", "class_token", class_token.shape, [1, 1, D]);
  expectShape("patchEmbedding", "positions", positions.shape, [1, tokens, D]);
  const M = B * tokens;
  if (plan("patch_embedding", device.caps, override, { M }) === "composed") {
    const patches = linear(unfold(pixels, patch), weight, bias, "none", override); // [B, N, D]
    return add(cat([class_token.expand([B, 1, D]), patches], 1), positions);
  }
  const y = device.empty([B, tokens, D]);
  multiply(weight, [M, Math.max(M, MANY_ROWS)], 1, override, {
    uses: { input: "input_patches", end: "end_tokens" },
    overrides: { ACTIVATION: activationCode("none"), PATCH: patch },
    bindings: {
      x: contiguous(pixels),
      bias: contiguous(bias),
      class_token: contiguous(class_token),
      positions: contiguous(positions),
      y,
    },
    params: { has_bias: 1, has_residual: 0, tokens, height, width },
  });
  return y;
}
