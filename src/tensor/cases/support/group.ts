/**
 * Cases: every variant of an op at a shape, with its inputs and what its result must be. `npm run bench` times them and
 * `doctor` runs them.
 */
import type { Caps } from "../../device/caps.ts";
import type { Device } from "../../device/device.ts";
import { type Op, type PlanOverride, plan, runnableVariants, type Sizes, type Variant } from "../../device/plan.ts";
import type { ActivationDType } from "../../dtype.ts";
import type { Tensor } from "../../tensor.ts";
import type { Comparison } from "./compare.ts";
import type { Shapes } from "./shapes.ts";

/** What one run does. */
export interface Work {
  readonly launches: number;
  readonly flops: number;
  readonly bytes: number;
  /** Bytes that runs after each other touch before the first comes again. */
  readonly footprint: number;
}

/** What every file of cases exports as `groups`. */
export type Groups = (shapes: Shapes, caps: Caps) => readonly Group[];

/** The variants of a kernel at one shape: they share inputs and the check. */
export interface Group {
  readonly kernel: string;
  readonly shape: string;
  readonly variants: readonly string[];
  /** The variant that plan() picks here. */
  readonly planned: string;
  /** What plan() was asked; absent of kernels that have one variant. */
  readonly choice?: { readonly op: Op; readonly sizes: Sizes };
  /** @param copies that runs after each other touch different memory, for who times them */
  open(device: Device, copies?: boolean): Opened | Promise<Opened>;
}

/** For kernels that have one variant. */
export const ONLY = { variants: ["-"], planned: "-" } as const;

/**
 * For kernels that plan() chooses among: what the adapter can run, and what it runs at these sizes.
 *
 * @param runs the variant that an op runs in the end. Some give way to another where theirs does not fit: such a variant is no
 *   case here, as the other's time would stand under its name
 */
export function variantsOf<O extends Op>(
  op: O,
  sizes: Sizes,
  caps: Caps,
  runs: (override?: PlanOverride) => Variant<O> = (override) => plan(op, caps, override, sizes),
): Required<Pick<Group, "variants" | "planned" | "choice">> {
  const variants = runnableVariants(op, caps).filter((variant) => runs({ [op]: variant }) === variant);
  return { variants, planned: runs(), choice: { op, sizes } };
}

/** A group with its inputs on the device. */
export interface Opened extends Pick<Work, "flops" | "bytes"> {
  /** Where runs after each other touch different memory: how much of it. */
  readonly footprint?: number;
  /** Records one run of a variant and gives its output. */
  run(variant: string): Tensor<ActivationDType>;
  /** Compares what `run` gave with the f64 reference; of large outputs, a sample of rows. */
  check(output: Float32Array | Uint32Array): Comparison | Promise<Comparison>;
  /** Frees what scopes do not: weights. */
  dispose?(): void;
}

/** One thing to run. */
export interface Case extends Omit<Work, "launches"> {
  readonly kernel: string;
  readonly variant: string;
  readonly planned: boolean;
  readonly shape: string;
  /** Records one run. */
  launch(): void;
  /** Runs once, calls `ran` when that is over, and compares the result with the reference. */
  check(ran?: () => void): Promise<Comparison>;
}

/** Opens groups and gives their cases to `use`, in a scope of their own. */
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
        const open = await group.open(device, true);
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
    check: (ran) =>
      device.scope(async () => {
        const output = opened.run(variant);
        await device.sync();
        ran?.();
        return await opened.check(await output.read());
      }),
  };
}
