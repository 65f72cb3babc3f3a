/**
 * y = activate(x Wᵀ + bias) + residual: a linear layer with its epilogue, for every weight dtype. With a paired weight also
 * y = activate(x Gateᵀ + bias) * (x Upᵀ + bias) + residual: a gated linear unit (GLU).
 */
import { type Activation, activationCode } from "../activation.ts";
import type { Caps } from "../device/caps.ts";
import { FEW_ROWS, type PlanOverride, plan, planNorm, subgroupMatricesOf } from "../device/plan.ts";
import { planBlocks, planTiling, subgroupSizeOf, tilesOf } from "../device/tiling.ts";
import type { WeightDType } from "../dtype.ts";
import { ShapeError } from "../errors.ts";
import { defer, deferredNorm, type Epilogue, type Norm } from "../fuse.ts";
import { isQuantized, rowBytes } from "../quantize.ts";
import { expectShape, formatShape, hasRank, sizes } from "../shape.ts";
import type { Device, Launch, Tensor } from "../tensor.ts";
import type { Weight } from "../weight.ts";
import { contiguous } from "./copy.ts";
import { f16Scales } from "./f16_scales.ts";
import { placeholder } from "./placeholder.ts";

/** Whether matvec_blocks supports a weight: whole blocks of 32 numbers, rows of a multiple of 16 bytes. */
export function hasBlocks(dtype: WeightDType, K: number): boolean {
  return isQuantized(dtype) && K % 32 === 0 && rowBytes(dtype, K) % 16 === 0;
}

/**
 * If the weight's `compute_dtype` is f16, products have f16 inputs and f32 sums. Few rows of x are multiplied in f32: their time is
 * that of reading the weight. Without `epilogue` the launch is deferred until the result is needed, and fused with the ops that
 * follow: fuse.ts.
 *
 * @param x f32[..., K]
 * @param weight [N, K], sharded or not
 * @param bias f32[N]
 * @param epilogue an activation, or all of the epilogue; default: fused from the ops that follow
 * @returns f32[..., N]; gated, f32[..., N / 2]
 * @throws ShapeError if x does not end in K, bias is not [N], residual not of y's shape, or a gated product's weight not paired
 * Source: torch.nn.Linear; y = x Wᵀ + b.
 */
export function linear(
  x: Tensor,
  weight: Weight,
  bias?: Tensor,
  epilogue?: Activation | Epilogue,
  override?: PlanOverride,
): Tensor {
  const [N, K] = weight.shape;
  if (x.shape.at(-1) !== K) {
    throw new ShapeError(`linear: x must be [..., ${K}] for a weight of [${N}, ${K}], got ${formatShape(x.shape)}`);
  }
  if (K === 0) throw new ShapeError(`linear: rows of x ${formatShape(x.shape)} have no numbers to multiply`);
  if (bias) expectShape("linear", "bias", bias.shape, [N]);
  const takesNorm = planNorm(x.device.caps, [x.size / K, K], override) === "fused";
  const norm = takesNorm ? deferredNorm(x) : undefined;
  const instead = norm && x.deferred;
  const product = {
    shape: x.shape.with(-1, N),
    paired: weight.paired,
    launch: (epilogue: Epilogue) => launchProduct(norm ?? { x: contiguous(x) }, weight, bias, epilogue, override),
  };
  if (epilogue === undefined) return defer(x.device, product, instead);
  if (instead) x.device.undefer(instead);
  return product.launch(typeof epilogue === "string" ? { activation: epilogue } : epilogue);
}

/** @param input x, or of which it is the norm */
function launchProduct(
  input: Norm | { readonly x: Tensor },
  weight: Weight,
  bias: Tensor | undefined,
  { activation = "none", gated = false, residual }: Epilogue,
  override: PlanOverride | undefined,
): Tensor {
  if (gated && !weight.paired) throw new ShapeError("linear: a gated product needs a paired weight");
  const [N, K] = weight.shape;
  const { x } = input;
  const { device } = x;
  const M = x.size / K;
  const FACTORS = gated ? 2 : 1;
  const y = device.empty(x.shape.with(-1, N / FACTORS));
  if (residual) expectShape("linear", "residual", residual.shape, y.shape);
  if (M === 0) return y;
  const isF16 =
    weight.compute_dtype === "f16" && M > FEW_ROWS && plan("linear_f16", device.caps, override, { M }) !== "f32";
  multiply(weight, [M, M], FACTORS, override, {
    uses: { input: K % 4 === 0 ? "input_vec4" : "input_scalar" },
    overrides: { ACTIVATION: activationCode(activation) },
    bindings: {
      x,
      bias: bias ? contiguous(bias) : placeholder(device),
      residual: residual ? contiguous(residual) : placeholder(device),
      y,
    },
    row_scales: isF16 ? f16Scales(x, override) : undefined,
    norm: "eps" in input ? input : undefined,
    params: { has_bias: bias ? 1 : 0, has_residual: residual ? 1 : 0, tokens: 0, height: 0, width: 0 },
  });
  return y;
}

/** Slots, overrides, bindings and Params that depend on the op. */
interface Operands extends Required<Pick<Launch, "uses" | "overrides" | "bindings" | "params">> {
  readonly uses: { readonly input: string; readonly [slot: string]: string };
  readonly overrides: { readonly ACTIVATION: number; readonly [name: string]: number };
  /** f32[M], of f16 products; see `f16Scales`. */
  readonly row_scales?: Tensor | undefined;
  /** What x is normed by, of few rows. */
  readonly norm?: Norm | undefined;
}

/**
 * Launches a product, one launch for each shard of the weight; see kernels/matmul/parts/matmul.wgsl.
 *
 * @param M rows of x
 * @param planned rows of x that the kernel is chosen for
 * @param FACTORS sums of a column of y: 2 in a gated linear unit
 */
export function multiply(
  weight: Weight,
  [M, planned]: readonly [number, number],
  FACTORS: 1 | 2,
  override: PlanOverride | undefined,
  { uses, overrides, bindings, params, row_scales, norm }: Operands,
): void {
  const { device } = weight;
  const [N, K] = weight.shape;
  const { input, ...slots } = uses;
  for (const { firstRow, rows, bits, row0, f16_scales } of FACTORS === 2 ? weight.shards : weight.runs) {
    const size = { rows: M, M: planned, N: FACTORS * rows, FACTORS, isNormed: norm !== undefined };
    const { loaders, ...choice } = (row_scales ? chooseF16 : choose)(device.caps, size, weight, override);
    const launch = {
      ...choice,
      uses: { ...(loaders ?? { ...weight.uses, input }), ...choice.uses, ...slots },
      overrides: { ...choice.overrides, ...overrides, FACTORS, ...(norm && { EPS: norm.eps }) },
      bindings: {
        ...bindings,
        ...(norm && { gain: norm.weight }),
        weight: bits,
        row_scales: row_scales ?? placeholder(device),
        weight_scales: f16_scales ?? placeholder(device),
      },
      params: { ...params, M, N: rows, K, column0: firstRow, row0, y_stride: N / FACTORS },
    };
    const { x, residual } = bindings;
    const read = FACTORS * rows * (rowBytes(weight.dtype, K) + (params.has_bias ? 4 : 0));
    const multiplied = params.tokens ? M - M / params.tokens : M; // but for class tokens, which are only added
    const work = {
      flops: 2 * multiplied * FACTORS * rows * K,
      bytes: x!.bytes + read + (params.has_residual ? (residual!.bytes * FACTORS * rows) / N : 0) + 4 * M * rows,
    };
    const { SPLITS = 1 } = choice.overrides;
    if (SPLITS > 1) launchSplitK(device, SPLITS, { ...launch, work }, uses.epilogue);
    else device.launch({ ...launch, work: () => work });
  }
}

interface ProductLaunch extends Required<Omit<Launch, "work">> {
  readonly work: { readonly flops: number; readonly bytes: number };
  readonly overrides: { readonly FACTORS: number; readonly ACTIVATION: number; readonly [name: string]: number };
  readonly params: { readonly M: number; readonly N: number; readonly [name: string]: number };
}

/** Split-K: launches a product whose K is split among workgroups, then adds the partial sums. */
function launchSplitK(device: Device, SPLITS: number, launch: ProductLaunch, epilogue = "epilogue_residual"): void {
  const { M, N } = launch.params;
  const { FACTORS, ACTIVATION } = launch.overrides;
  const partials = device.empty([SPLITS, M, FACTORS, N]);
  const { flops, bytes } = launch.work;
  const work = { flops, bytes: bytes - 4 * M * N + partials.bytes };
  device.launch({ ...launch, bindings: { ...launch.bindings, y: partials }, work: () => work });
  device.launch({
    kernel: "matmul_combine",
    uses: { epilogue },
    overrides: { SPLITS, FACTORS, ACTIVATION },
    bindings: { ...launch.bindings, x: partials },
    params: launch.params,
    workgroups: Math.ceil((M * N) / 64),
    work: () => ({ bytes: partials.bytes + 4 * M * N }),
  });
  partials.dispose();
}

interface Choice extends Pick<Launch, "kernel" | "uses" | "workgroups">, Required<Pick<Launch, "overrides">> {
  /** Slots that load x and W, in place of the product's. */
  readonly loaders?: Launch["uses"];
}

/** Sizes of one launch. */
interface ProductSizes {
  /** Of x. */
  readonly rows: number;
  /** Rows of x that the kernel is chosen for. */
  readonly M: number;
  /** Sums of a row of x: FACTORS for each column of y. */
  readonly N: number;
  readonly FACTORS: 1 | 2;
  /** Whether the launch computes the norm of x. */
  readonly isNormed: boolean;
}

/** The kernel of a launch, its tile and its number of workgroups. */
function choose(caps: Caps, sizes: ProductSizes, { dtype, shape }: Weight, override: PlanOverride | undefined): Choice {
  const { rows, M, N, FACTORS, isNormed } = sizes;
  const variant = plan(M <= FEW_ROWS ? "matvec" : "linear", caps, override, { M });
  const tiles = (TM: number, TN: number) => Math.ceil(rows / TM) * Math.ceil(N / TN);
  switch (variant) {
    case "tile":
      return chooseTile(caps, sizes, shape);
    case "subgroup_matrix":
      return {
        ...chooseMatrices(sizes),
        // Tests override the variant on adapters without subgroup matrices.
        uses: { matrix: subgroupMatricesOf("f32", caps) ? "matrix_subgroup" : "matrix_threads" },
      };
    case "register": {
      const TM = Math.min(M, 8);
      return { kernel: "matmul_register", overrides: { WG: 8, TM }, workgroups: tiles(TM, 32) };
    }
    case "workgroup":
    case "workgroup_subgroups": {
      const hasSubgroups = variant === "workgroup_subgroups";
      const norm = isNormed && { norm: "norm_rms", reduce: hasSubgroups ? "reduce_subgroups" : "reduce_tree" };
      if (hasBlocks(dtype, shape[1])) {
        const SG = sizedOf(caps);
        const tiling = planBlocks(M, caps, isNormed);
        return {
          kernel: SG ? "matvec_blocks_sized" : "matvec_blocks",
          loaders: { blocks: `blocks_${dtype}` },
          ...(norm && { uses: norm }),
          overrides: { ...tiling, TM: M, ...SG },
          workgroups: Math.ceil(N / ((4 * tiling.WG) / tiling.LANES)),
        };
      }
      // At most 16 KiB of shared memory, the default limit.
      const WG = 2 ** Math.floor(Math.log2((16 * 1024) / (16 * M + (isNormed ? 4 : 0))));
      return {
        kernel: "matvec_workgroup",
        uses: { column_sums: hasSubgroups ? "column_sums_subgroups" : "column_sums_tree", ...norm },
        overrides: { WG: Math.min(256, WG), TM: M },
        workgroups: Math.ceil(N / 4),
      };
    }
    case "subgroup": {
      const SG = caps.subgroupMinSize;
      if (M <= 2) {
        const TN = isQuantized(dtype) ? 8 : 4;
        return { kernel: "matvec_subgroup", overrides: { SG, TM: M }, workgroups: Math.ceil(N / TN) };
      }
      // Not a TM for each M: each takes another compilation.
      const [TM, TN] = M <= FEW_ROWS ? [M, 4] : [16, FACTORS === 1 ? 3 : 4];
      return { kernel: "matmul_subgroup", overrides: { SG, TM, TN }, workgroups: tiles(TM, TN * SG) };
    }
  }
}

/** As `choose`, for f16 products. */
function chooseF16(caps: Caps, sizes: ProductSizes, { shape }: Weight, override: PlanOverride | undefined): Choice {
  const variant = plan("linear_f16", caps, override, { M: sizes.M });
  if (variant === "f16_tile") return { ...chooseTile(caps, sizes, shape), uses: { products: "products_f16" } };
  const sides = subgroupMatricesOf("f16", caps);
  return {
    ...chooseMatrices(sizes, caps),
    uses: sides
      ? { matrix: "matrix_subgroup_f16", sides: `sides_${sides}` }
      : { matrix: "matrix_threads", staged: "staged_f16" },
  };
}

/** The subgroup size to ask a _sized kernel for, if the adapter has several. */
function sizedOf(caps: Caps): { readonly SG: number } | undefined {
  const size = subgroupSizeOf(caps);
  return size === undefined ? undefined : { SG: size };
}

function chooseTile(caps: Caps, { rows, M, N }: ProductSizes, shape: Weight["shape"]): Choice {
  const tiling = planTiling([M, ...shape], caps);
  const SG = sizedOf(caps);
  const kernel = SG ? "matmul_tile_sized" : "matmul_tile";
  return { kernel, overrides: { ...tiling, ...SG }, workgroups: tilesOf(tiling, rows, N) * tiling.SPLITS };
}

/** @param caps of f16 products, whose sums have a tile of their own */
function chooseMatrices({ rows, M, N }: ProductSizes, caps?: Caps): Choice {
  // Half the rows for the short inputs of prompts and of the Q-Former.
  const isLow = M <= 32 && (!caps || caps.maxWorkgroupStorageBytes >= 17 * 1024);
  const [DOWN, ACROSS] = isLow ? [1, 4] : [2, 2];
  const workgroups = Math.ceil(rows / (32 * DOWN)) * Math.ceil(N / (32 * ACROSS));
  // At least four subgroups, one for each subtile.
  const WG = caps && caps.subgroupMaxSize > 32 ? 256 : 128;
  return { kernel: "matmul_subgroup_matrix", overrides: { WG, DOWN, ACROSS }, workgroups };
}

/**
 * y = x Wᵀ + bias by the reference kernel, with which tests and benches compare the others.
 *
 * @param x f32[M, K]
 * @param weight f32[N, K]
 * @param bias f32[N]
 * @returns f32[M, N]
 * @throws ShapeError
 */
export function matmulNaive(x: Tensor, weight: Tensor, bias: Tensor): Tensor {
  if (!hasRank(x.shape, 2)) throw new ShapeError(`matmulNaive: x must be [M, K], got ${formatShape(x.shape)}`);
  const [M, K] = x.shape;
  const [N] = sizes(bias.shape, 1, "matmulNaive: bias");
  expectShape("matmulNaive", "weight", weight.shape, [N, K]);
  const y = x.device.empty([M, N]);
  x.device.launch({
    kernel: "matmul_naive",
    bindings: { x: contiguous(x), weight: contiguous(weight), bias: contiguous(bias), y },
    params: { M, N, K },
    workgroups: [Math.ceil(N / 8), Math.ceil(M / 8), 1],
    work: () => ({ flops: 2 * M * N * K }),
  });
  return y;
}
