/**
 * plan(op, caps, override, sizes) chooses the variant of a kernel. Pure, so that it is tested without a GPU. Tests and benches
 * force a variant by an argument or by INSTRUCTBLIP_PLAN=linear=tile,attention=composed. The results of `npm run bench -- --tune`
 * are in the caps (tuned_plan.ts).
 */
import { env } from "../env.ts";
import { InputError, nearest } from "../errors.ts";
import { shown } from "../shown.ts";
import type { Caps } from "./caps.ts";
import { OWN_KERNELS, type OwnOp, ownVariants } from "./own_kernels.ts";
import { subgroupSizeOf } from "./tiling.ts";
import { type Op, type PlanOverride, VARIANTS, type Variant } from "./variants.ts";

export * from "./variants.ts";

/**
 * The variant of an op: `override`'s, else the tuned one of these sizes if the adapter can run it, else the default of this
 * adapter.
 *
 * @throws InputError PLAN for a variant that the op does not have
 */
export function plan<O extends Op>(
  op: O,
  caps: Caps,
  override: PlanOverride = environmentOverride(),
  sizes: Sizes = {},
): Variant<O> {
  const tuned = caps.tuned?.[op]?.[sizeClass(op, sizes)];
  const runnable = tuned !== undefined && canRun(tuned, caps) ? tuned : undefined;
  const variant: string = override[op] ?? runnable ?? DEFAULTS[op](caps, sizes);
  expectVariant(op, variant, VARIANTS[op]);
  return variant as Variant<O>;
}

/** The kernel of an op: its own, or one in its place (own_kernels.ts). @throws InputError PLAN for one that there is not */
export function kernelOf(op: OwnOp, override: PlanOverride = environmentOverride()): string {
  const own = override[op];
  if (own === undefined) return op;
  expectVariant(op, own, ownVariants(op));
  return `${op}_${own}`;
}

function expectVariant(op: string, variant: unknown, variants: readonly string[]): void {
  if (variants.includes(variant as string)) return;
  const near = typeof variant === "string" ? nearest(variant, variants) : undefined;
  const known = variants.length > 0 ? variants.join(", ") : `npm run kernel:new ${op} NAME adds one`;
  throw new InputError("PLAN", `${op} has no variant ${shown(variant)}`, { hint: near ?? known });
}

/** Whether products of x compute its RMS norm by themselves: of M rows of K numbers. */
export function planNorm(caps: Caps, [M, K]: readonly [number, number], override?: PlanOverride): Variant<"norm"> {
  if (M > FEW_ROWS || K % 4 !== 0 || kernelOf("rms_norm", override) !== "rms_norm") return "composed";
  const product = plan("matvec", caps, override, { M });
  if (product !== "workgroup" && product !== "workgroup_subgroups") return "composed";
  return plan("norm", caps, override, { M });
}

/** Longest softmax row of one invocation: longer ones are slow, and a long f32 sum loses digits. */
const LONGEST_OF_INVOCATION = 4096;

/** The variant of an op on rows of n numbers: that of plan(), but workgroup for rows too long for an invocation. */
export function planRow(
  op: "layer_norm" | "rms_norm" | "softmax" | "f16_scales",
  caps: Caps,
  [rows, n]: readonly [number, number],
  override?: PlanOverride,
): Variant<"row"> {
  const variant = plan("row", caps, override, { M: rows });
  return op === "softmax" && variant === "invocation" && n > LONGEST_OF_INVOCATION ? "workgroup" : variant;
}

/** The launch of a row kernel, by the slots of kernels/rows/parts, for rows of n numbers. */
export function rowLaunch(variant: Variant<"row">, caps: Caps, [rows, n]: readonly [number, number]) {
  const numbers = n % 4 === 0 ? "numbers_vec4" : "numbers_scalar";
  // GPUs hide latency by loads in flight; on software adapters they only add code.
  const LOADS = caps.isSoftware ? 1 : 4;
  if (variant === "subgroup") {
    return {
      uses: { row: "row_subgroup", numbers },
      overrides: { WG: caps.subgroupMinSize, LOADS },
      workgroups: rows,
    };
  }
  if (variant === "invocation") {
    const WG = 8;
    return {
      uses: { row: "row_invocation", numbers },
      overrides: { WG, LOADS },
      workgroups: Math.ceil(rows / WG),
    };
  }
  const { uses, overrides } = rowReduction(variant, n);
  return {
    uses: { ...uses, row: "row_workgroup", numbers },
    overrides: { ...overrides, LOADS },
    workgroups: rows,
  };
}

/** Sizes that the choice depends on. */
export interface Sizes {
  /** Rows of a product or of a row kernel. */
  readonly M?: number;
  /** Queries and keys of attention. */
  readonly T?: number;
  readonly S?: number;
}

/** Up to so many rows of x the matvec kernels are used, which read the weight once for all rows. */
export const FEW_ROWS = 8;

/** Size classes, each tuned separately, by their largest M; of attention by their largest S, for T = 1 and for T > 1. */
const CLASSES = {
  linear: [32, 128, Number.POSITIVE_INFINITY],
  linear_f16: [32, 128, Number.POSITIVE_INFINITY],
  matvec: [1, Number.POSITIVE_INFINITY],
  norm: [1, Number.POSITIVE_INFINITY],
  patch_embedding: [512, Number.POSITIVE_INFINITY],
  row: [1, 64, Number.POSITIVE_INFINITY],
  attention: [128, 512, Number.POSITIVE_INFINITY],
  logits: [1, Number.POSITIVE_INFINITY],
} as const satisfies Record<Op, readonly number[]>;

/** The class of sizes, as spelled in a tuned plan: `M <= 32`, `M > 128`, `T = 1, S <= 512`. */
export function sizeClass(op: Op, { M = 0, T = 0, S = 0 }: Sizes): string {
  const range = (name: string, size: number) => {
    const most = CLASSES[op].find((most) => size <= most)!;
    return most === Number.POSITIVE_INFINITY ? `${name} > ${CLASSES[op].at(-2)}` : `${name} <= ${most}`;
  };
  return op === "attention" ? `${T === 1 ? "T = 1" : "T > 1"}, ${range("S", S)}` : range("M", M);
}

/** All size classes of an op. */
export function sizeClasses(op: Op): string[] {
  const sizes = CLASSES[op];
  return op === "attention"
    ? [1, 2].flatMap((T) => sizes.map((S) => sizeClass(op, { T, S })))
    : sizes.map((M) => sizeClass(op, { M }));
}

/**
 * Software adapters run the threads of a workgroup in turn, on vector units, and split the loops around each barrier. Register
 * tiles without barriers are 2 to 3 times as fast as shared-memory tiles there. Loads are slow and shuffles are fast, so subgroup
 * kernels double the speed again, if the subgroup size is fixed.
 */
const DEFAULTS: { [O in Op]: (caps: Caps, sizes: Sizes) => Variant<O> } = {
  linear: (caps) => {
    if (caps.isSoftware) return hasFixedSubgroups(caps) ? "subgroup" : "register";
    return canRun("subgroup_matrix", caps) ? "subgroup_matrix" : "tile";
  },
  linear_f16: (caps) => {
    if (canRun("f16_subgroup_matrix", caps)) return "f16_subgroup_matrix";
    // With dual issue (see subgroupSizeOf), f32 multiply-adds are twice as fast as those of f16 with f32 sums.
    return subgroupSizeOf(caps) === undefined ? "f16_tile" : "f32";
  },
  matvec: (caps) => (caps.isSoftware ? (hasFixedSubgroups(caps) ? "subgroup" : "register") : workgroupOf(caps)),
  // On a GPU a launch takes longer than the product does longer; a software driver loads one number after the other.
  norm: (caps) => (caps.isSoftware ? "composed" : "fused"),
  attention: (caps, { T = 0 }) => {
    if (caps.isSoftware) return hasFixedSubgroups(caps) ? "subgroup" : "composed";
    // One query and one workgroup a head do not fill a GPU: the keys are split.
    if (T > 1) return "flash";
    return caps.subgroups ? "split_subgroups" : "split";
  },
  // Indexing patches takes divisions and scalar loads, which cost software adapters more than four launches.
  patch_embedding: (caps) => (caps.isSoftware ? "composed" : "fused"),
  row: (caps) => (caps.isSoftware ? (hasFixedSubgroups(caps) ? "subgroup" : "invocation") : workgroupOf(caps)),
  logits: (caps) => (caps.isSoftware ? "workgroup" : workgroupOf(caps)),
};

/** A reduction takes one or two barriers with subgroups, eight to ten as a tree. */
function workgroupOf(caps: Caps): "workgroup" | "workgroup_subgroups" {
  return caps.subgroups ? "workgroup_subgroups" : "workgroup";
}

/** Whether the subgroup size is fixed, so that a workgroup of that size is one subgroup: for the `subgroup` variants. */
export function hasFixedSubgroups(caps: Caps): boolean {
  return caps.subgroups && caps.subgroupMinSize === caps.subgroupMaxSize;
}

/** Matrix shapes that matmul_subgroup_matrix supports, the fastest first: `MxNxK`. */
const MATRICES = {
  /** Most GPUs round f32 to f16 first, which loses digits; Apple's do not. */
  f32: ["8x8x8"],
  f16: ["16x16x16", "8x16x16", "8x8x8"],
} as const;

/** The first of MATRICES that the adapter has with f32 sums; undefined if none. */
export function subgroupMatricesOf<T extends keyof typeof MATRICES>(
  type: T,
  { subgroups, f16, subgroupMatrices }: Caps,
): (typeof MATRICES)[T][number] | undefined {
  if (!subgroups || (type === "f16" && !f16)) return undefined;
  const listed = subgroupMatrices
    .filter(({ componentType, resultComponentType }) => componentType === type && resultComponentType === "f32")
    .map(({ M, N, K }) => `${M}x${N}x${K}`);
  return MATRICES[type].find((sides) => listed.includes(sides));
}

function canRun(variant: string, caps: Caps): boolean {
  if (variant === "subgroup_matrix") return subgroupMatricesOf("f32", caps) !== undefined;
  if (variant === "f16_subgroup_matrix") return subgroupMatricesOf("f16", caps) !== undefined;
  if (variant.endsWith("_subgroups")) return caps.subgroups;
  return variant !== "subgroup" || hasFixedSubgroups(caps);
}

/**
 * The variants of an op of a class, each with the plan that forces it: those of the class that the adapter can run, and
 * kernels of one's own, in the variant of the class that this adapter uses.
 */
export function plansOf<O extends "row" | "logits">(op: OwnOp, classOf: O, caps: Caps): [string, PlanOverride][] {
  return [
    ...runnableVariants(classOf, caps).map((variant): [string, PlanOverride] => [variant, { [classOf]: variant }]),
    ...ownVariants(op).map((variant): [string, PlanOverride] => [variant, { [op]: variant }]),
  ];
}

/** The variants of an op that an adapter can run. */
export function runnableVariants<O extends Op>(op: O, caps: Caps): Variant<O>[] {
  return (VARIANTS[op] as readonly Variant<O>[]).filter((variant) => canRun(variant, caps));
}

/** How a workgroup reduces a row of n elements: the part and the number of threads. */
export function rowReduction(variant: "workgroup" | "workgroup_subgroups", n: number) {
  if (variant !== "workgroup" && variant !== "workgroup_subgroups") {
    // A variant that was added to VARIANTS only: without types checked, it would run as another.
    throw new InputError("PLAN", `no kernel of rows has the variant ${shown(variant)}`);
  }
  return variant === "workgroup"
    ? { uses: { reduce: "reduce_tree" }, overrides: { WG: 64 } }
    : // The reduction is cheap, so more threads finish the one long row of a decoding step sooner.
      { uses: { reduce: "reduce_subgroups" }, overrides: { WG: n > 1024 ? 256 : 64 } };
}

/** Workgroup size of elementwise kernels. */
export const ELEMENTWISE_WG = 64;

/** How rows of n elements are split among threads, by the names of kernels/gather/copy.wgsl. */
export interface RowSplit {
  /** Threads of a worker: neighbouring threads that move a chunk together. A power of two. */
  readonly lanes: number;
  /** Elements. */
  readonly chunk_size: number;
  readonly chunks_per_row: number;
  /** In all rows. */
  readonly chunks: number;
  /** Chunks of a worker, in sequence. */
  readonly items_per_thread: number;
  readonly workgroups: number;
}

/**
 * On GPUs a thread takes one element of a chunk, so that loads are coalesced. On software adapters eight threads cost as much as
 * moving some hundred elements, so a few threads take many.
 */
export function splitRows(rows: number, n: number, { isSoftware }: Pick<Caps, "isSoftware">): RowSplit {
  const [most, chunk_size] = isSoftware ? [8, 1024] : [ELEMENTWISE_WG, ELEMENTWISE_WG];
  const lanes = Math.min(most, 2 ** Math.ceil(Math.log2(Math.max(1, n))));
  const chunks_per_row = Math.ceil(n / chunk_size);
  const chunks = rows * chunks_per_row;
  // 512 elements a worker, but at least 32 workers.
  const items_per_thread = isSoftware
    ? Math.max(1, Math.min(Math.floor(512 / Math.min(n, chunk_size)), Math.ceil(chunks / 32)))
    : 1;
  const workers = ELEMENTWISE_WG / lanes;
  return {
    lanes,
    chunk_size,
    chunks_per_row,
    chunks,
    items_per_thread,
    workgroups: Math.ceil(chunks / items_per_thread / workers),
  };
}

/** Elements of a thread of an elementwise kernel, for the reason of `splitRows`; at least 8 workgroups. */
export function itemsPerThread(elements: number, { isSoftware }: Pick<Caps, "isSoftware">): number {
  if (!isSoftware) return 1;
  const [few, many] = [Math.ceil(elements / (8 * ELEMENTWISE_WG)), Math.floor(elements / (32 * ELEMENTWISE_WG))];
  return Math.max(1, Math.min(32, few), Math.min(128, many));
}

/** Parses INSTRUCTBLIP_PLAN. @throws InputError ENV for an op or variant that does not exist */
export function parseOverride(text: string): PlanOverride {
  const override: Record<string, string> = {};
  for (const part of text.split(",").filter(Boolean)) {
    const [op = "", variant = ""] = part.split("=").map((s) => s.trim());
    const variants: readonly string[] = Object.hasOwn(VARIANTS, op) ? VARIANTS[op as Op] : ownVariants(op);
    if (variants.length === 0 && Object.hasOwn(OWN_KERNELS, op)) {
      throw new InputError("ENV", `INSTRUCTBLIP_PLAN: ${op} has one kernel`, {
        hint: "npm run kernel:new adds another",
      });
    }
    if (variants.length === 0) {
      throw new InputError("ENV", `INSTRUCTBLIP_PLAN: there is no op "${op}"`, {
        hint: `ops: ${Object.keys(VARIANTS).join(", ")}`,
      });
    }
    if (!variants.includes(variant)) {
      throw new InputError("ENV", `INSTRUCTBLIP_PLAN: ${op} has no variant "${variant}"`, {
        hint: nearest(variant, variants) ?? variants.join(", "),
      });
    }
    override[op] = variant;
  }
  return override;
}

/** Whether INSTRUCTBLIP_PLAN names a tuned plan: `tuned`, the default file of `npm run bench -- --tune`, or `@FILE`. */
export function namesTunedPlan(text: string): boolean {
  return text === "tuned" || text.startsWith("@");
}

let fromEnvironment: PlanOverride | undefined;

function environmentOverride(): PlanOverride {
  const text = env("INSTRUCTBLIP_PLAN") ?? "";
  fromEnvironment ??= namesTunedPlan(text) ? {} : parseOverride(text);
  return fromEnvironment;
}
