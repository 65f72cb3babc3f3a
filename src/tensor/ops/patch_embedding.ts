/** Patch embedding (ViT): projects image patches, prepends a class token, adds position embeddings. */
import { activationCode } from "../activation.ts";
import { type PlanOverride, plan } from "../device/plan.ts";
import { ShapeError } from "../errors.ts";
import { defer, fuseTokens } from "../fuse.ts";
import { expectShape, formatShape, hasRank, sizes } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import type { Weight } from "../weight.ts";
import { add } from "./add.ts";
import { cat, contiguous } from "./copy.ts";
import { linear, multiply } from "./linear.ts";
import { unfold } from "./unfold.ts";

/** Least M to plan the product for: the matvec kernels, for fewer rows, have no slot for patches. */
const MANY_ROWS = 9;

/**
 * Projects the patches of images: a convolution whose stride equals its kernel size. Deferred (fuse.ts), so that a following
 * `prependClassToken` can be fused.
 *
 * @param pixels f32[B, C, H, W]
 * @param patch side P of a patch, in pixels; pixels that do not fill a patch are dropped
 * @param weight [D, C·P·P], each row ordered (c, y, x)
 * @param bias f32[D]
 * @returns f32[B, N, D]: the patches in row-major order
 * @throws ShapeError if an image is smaller than a patch, or for another shape
 */
export function patchProjection(
  pixels: Tensor,
  patch: number,
  weight: Weight,
  bias: Tensor,
  override?: PlanOverride,
): Tensor {
  const { device } = pixels;
  if (!hasRank(pixels.shape, 4) || !(patch >= 1 && patch <= Math.min(pixels.shape[2], pixels.shape[3]))) {
    const shape = formatShape(pixels.shape);
    throw new ShapeError(`patchEmbedding: pixels must be [B, C, H, W], H and W at least ${patch}, got ${shape}`);
  }
  const [B, C, height, width] = pixels.shape;
  const tokens = Math.floor(height / patch) * Math.floor(width / patch) + 1;
  const [D, K] = weight.shape;
  expectShape("patchEmbedding", "weight", [D, K], [D, C * patch * patch]);
  expectShape("patchEmbedding", "bias", bias.shape, [D]);
  const M = B * tokens;
  const asTokens = (class_token: Tensor, positions: Tensor) => {
    const y = device.empty([B, tokens, D]);
    // Planned for the rows of the unfused product, so that the bits are the same.
    multiply(weight, [M, Math.max(M - B, MANY_ROWS)], 1, override, {
      uses: { input: "input_patches", epilogue: "epilogue_tokens" },
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
  };
  return defer(device, {
    shape: [B, tokens - 1, D],
    paired: false,
    launch: (epilogue) => linear(unfold(pixels, patch), weight, bias, epilogue, override),
    asTokens: plan("patch_embedding", device.caps, override, { M }) === "composed" ? undefined : asTokens,
  });
}

/**
 * Prepends the class token to the patches of each image, and adds position embeddings. Fused with `patchProjection` if the plan
 * says so.
 *
 * @param patches f32[B, N, D]
 * @param class_token f32[1, 1, D]
 * @param positions f32[1, N + 1, D], the class token's first
 * @returns f32[B, N + 1, D]
 * Source: Dosovitskiy et al. 2021, An Image is Worth 16x16 Words, equation 1.
 */
export function prependClassToken(patches: Tensor, class_token: Tensor, positions: Tensor): Tensor {
  const [B, N, D] = sizes(patches.shape, 3, "patchEmbedding: patches");
  expectShape("patchEmbedding", "class_token", class_token.shape, [1, 1, D]);
  expectShape("patchEmbedding", "positions", positions.shape, [1, N + 1, D]);
  const fused = fuseTokens(patches, class_token, positions);
  if (fused) return fused;
  return add(cat([class_token.expand([B, 1, D]), patches], 1), positions);
}

/** Parameters of a patch embedding. */
export interface PatchEmbedding {
  readonly weight: Weight;
  readonly bias: Tensor;
  readonly class_token: Tensor;
  readonly positions: Tensor;
}

/** `patchProjection`, then `prependClassToken`. f32[B, C, H, W] -> f32[B, N + 1, D] @throws ShapeError */
export function patchEmbedding(
  pixels: Tensor,
  patch: number,
  { weight, bias, class_token, positions }: PatchEmbedding,
  override?: PlanOverride,
): Tensor {
  return prependClassToken(patchProjection(pixels, patch, weight, bias, override), class_token, positions);
}
