/**
 * Cases: every variant of an op at a shape, with its inputs and the check of its result. `npm run bench` times them and
 * `doctor` runs them.
 */
import type { Caps } from "../../device/caps.ts";
import type { Device } from "../../device/device.ts";
import { type OwnOp, ownVariants } from "../../device/own_kernels.ts";
import { type Op, type PlanOverride, plan, runnableVariants, type Sizes, type Variant } from "../../device/plan.ts";
import type { ActivationDType } from "../../dtype.ts";
import { DeviceError } from "../../errors.ts";
import type { Tensor } from "../../tensor.ts";
import type { Comparison } from "./compare.ts";
import type { Shapes } from "./shapes.ts";

/** The work of one run. */
export interface Work {
  readonly launches: number;
  readonly flops: number;
  readonly bytes: number;
  /** Bytes that successive runs touch before one is touched again. */
  readonly footprint: number;
}

/** The type of `groups`, which every file of cases exports. */
export type Groups = (shapes: Shapes, caps: Caps) => readonly Group[];

/** The variants of an op at one shape, which share inputs and check. */
export interface Group {
  readonly kernel: string;
  readonly shape: string;
  readonly variants: readonly string[];
  /** The variant that plan() picks here. */
  readonly planned: string;
  /** The arguments of plan(); absent for ops with one variant. */
  readonly choice?: { readonly op: Op; readonly sizes: Sizes };
  /** @param copies so that successive runs touch different memory, for timing */
  open(device: Device, copies?: boolean): Opened | Promise<Opened>;
}

/** For ops with one variant. */
export const ONLY = { variants: ["-"], planned: "-" } as const;

/**
 * For ops with several variants: those that the adapter can run, and the one planned at these sizes.
 *
 * @param runs the variant that the op actually runs. A variant that falls back to another one at this shape is no case: its
 *   row would show the other's time
 */
export function variantsOf<O extends Op>(
  op: O,
  sizes: Sizes,
  caps: Caps,
  runs: (override?: PlanOverride) => Variant<O> = (override) => plan(op, caps, override, sizes),
): Required<Pick<Group, "variants" | "planned" | "choice">> {
  const variants = runnableVariants(op, caps).filter((variant) => runs({ [op]: variant } as PlanOverride) === variant);
  return { variants, planned: runs(), choice: { op, sizes } };
}

/** `variantsOf` of a class, and the kernels of one's own that an op of it has. @param runs as there */
export function variantsWithOwn<C extends "row" | "logits">(
  op: OwnOp,
  classOf: C,
  sizes: Sizes,
  caps: Caps,
  runs?: (override?: PlanOverride) => Variant<C>,
): ReturnType<typeof variantsOf> {
  const found = variantsOf(classOf, sizes, caps, runs);
  return { ...found, variants: [...found.variants, ...ownVariants(op)] };
}

/** The plan that forces one of them. */
export function planWithOwn(op: OwnOp, classOf: "row" | "logits", variant: string): PlanOverride {
  return { [ownVariants(op).includes(variant) ? op : classOf]: variant };
}

/** The result of the first call, for all calls: a reference takes long, and is the same for every variant of a group. */
export function once<A extends readonly unknown[], T>(compute: (...args: A) => T): (...args: A) => T {
  let computed: { readonly result: T } | undefined;
  return (...args) => {
    computed ??= { result: compute(...args) };
    return computed.result;
  };
}

/** A group with its inputs on the device. */
export interface Opened extends Pick<Work, "flops" | "bytes"> {
  /** Bytes that successive runs touch, if these differ. */
  readonly footprint?: number;
  /** Records one run of a variant and gives its output. */
  run(variant: string): Tensor<ActivationDType>;
  /** Compares the result of `run` with the f64 reference, which is computed `once`; of large results, a sample of rows. */
  check(output: Float32Array | Uint32Array): Comparison | Promise<Comparison>;
  /** Frees weights, which no scope does. */
  dispose?(): void;
}

/** One variant to run. */
export interface Case extends Omit<Work, "launches"> {
  readonly kernel: string;
  readonly variant: string;
  readonly planned: boolean;
  readonly shape: string;
  /** Records one run. */
  launch(): void;
  /** The kernels of one run with their parts and overrides, as text; "" if it launches none. */
  kernels?(): string;
  /** Runs once, calls `ran` when that is over, and compares the result with the reference. */
  check(ran?: () => void): Promise<Comparison>;
}

/** Opens groups and passes their cases to `use`, within a scope. */
export async function withCases<T>(
  device: Device,
  groups: readonly Group[],
  wanted: (name: string) => boolean,
  use: (cases: readonly Case[]) => Promise<T>,
): Promise<T> {
  const opened: Opened[] = [];
  try {
    return await device.scope(async () => {
      const cases: Case[] = [];
      for (const group of groups) {
        const variants = group.variants.filter((variant) => wanted(caseName({ ...group, variant })));
        if (variants.length === 0) continue;
        let open: Opened;
        try {
          open = await group.open(device, true);
        } catch (error) {
          if (error instanceof DeviceError) throw error;
          cases.push(...variants.map((variant) => unopened(group, variant, error)));
          continue;
        }
        opened.push(open);
        cases.push(...variants.map((variant) => makeCase(device, group, open, variant)));
      }
      return await use(cases);
    });
  } finally {
    for (const open of opened) open.dispose?.();
    device.memory.trim();
  }
}

/** The case of a group that could not be opened, by a kernel that does not compile or sizes that the op refuses. */
function unopened({ kernel, shape, planned }: Group, variant: string, error: unknown): Case {
  return {
    ...{ kernel, shape, variant, planned: variant === planned, flops: 0, bytes: 0, footprint: 0 },
    launch() {
      throw error;
    },
    check: () => Promise.reject(error),
  };
}

/** What `--filter` is matched against. */
export function caseName({ kernel, variant, shape }: Pick<Case, "kernel" | "variant" | "shape">): string {
  return `${kernel} ${variant} ${shape}`.replace(/ {2,}/g, " ");
}

/** The case of one variant. */
export function makeCase(device: Device, group: Group, opened: Opened, variant: string): Case {
  const { kernel, shape } = group;
  const { flops, bytes, footprint = bytes } = opened;
  return {
    ...{ kernel, shape, variant, flops, bytes, footprint },
    planned: variant === group.planned,
    launch: () => {
      device.scope(() => {
        opened.run(variant);
      });
    },
    kernels() {
      const kernels = device.dryRun(() => opened.run(variant));
      return kernels.length ? JSON.stringify(kernels) : "";
    },
    check: (ran) =>
      device.scope(async () => {
        const output = opened.run(variant);
        await device.sync();
        ran?.();
        return await opened.check(await output.read());
      }),
  };
}
