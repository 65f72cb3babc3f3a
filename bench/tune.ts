/**
 * `npm run bench -- --tune`: the fastest variant of each op on this machine, for each size class of plan.ts, saved in the
 * file that INSTRUCTBLIP_PLAN=tuned reads. Shapes, checks and clocks are those of the benchmark.
 */

import { type Case, caseName, type Group, withCases } from "../src/tensor/cases/support/group.ts";
import type { Device } from "../src/tensor/device/device.ts";
import { type Op, sizeClass, type TunedPlan, VARIANTS } from "../src/tensor/device/plan.ts";
import { basisTime, type Measured, measure } from "./harness.ts";
import { atOnce } from "./pace.ts";
import { isWrong } from "./rows.ts";
import type { Settings } from "./settings.ts";

/** The result for a size class. */
export interface Choice {
  readonly op: Op;
  readonly sizes: string;
  /** The variant of plan() by its rules. */
  readonly byRule: string;
  readonly chosen: string;
  /** How many times as fast as `byRule`: the geometric mean over the class's shapes. */
  readonly gain: number;
}

/** Least speedup for which a variant is chosen: less may be noise. */
const LEAST_GAIN = 1.05;

/** Groups with several variants, by op and size class, if one of their cases is selected. */
export function groupsByClass(groups: readonly Group[], wanted: (name: string) => boolean): Map<string, Group[]> {
  const classes = new Map<string, Group[]>();
  for (const group of groups) {
    const names = group.variants.map((variant) => caseName({ ...group, variant }));
    if (!group.choice || group.variants.length < 2 || !names.some(wanted)) continue;
    const { op, sizes } = group.choice;
    const name = `${op} ${sizeClass(op, sizes)}`;
    classes.set(name, [...(classes.get(name) ?? []), group]);
  }
  return classes;
}

/**
 * Measures all variants at the shapes of one class, whose groups are planned by rule; returns the choice, and wrong rows.
 */
export async function tuneClass(
  device: Device,
  groups: readonly Group[],
  settings: Settings,
  progress: (text: string) => void,
): Promise<{ choice: Choice; wrong: Measured[] }> {
  const { op, sizes } = groups[0].choice!;
  // Some groups measure more than the plan can choose.
  const wanted = (one: Case) => (VARIANTS[op] as readonly string[]).includes(one.variant);
  const rows = await withCases(
    device,
    groups,
    () => true,
    (cases) => measure(device, cases.filter(wanted), settings, atOnce(progress)),
  );
  const choice = { op, sizes: sizeClass(op, sizes), ...fastest(groups[0].planned, rows) };
  return { choice, wrong: rows.filter(isWrong) };
}

/**
 * The variant whose time, relative to that of `byRule`, is the least over all shapes; one that was not timed at some shape,
 * as it was wrong or far too slow there, is none.
 */
export function fastest(byRule: string, rows: readonly Measured[]): Pick<Choice, "byRule" | "chosen" | "gain"> {
  const shapes = new Map<string, Map<string, number>>();
  for (const row of rows) {
    const shape = `${row.kernel} ${row.shape}`;
    const times = shapes.get(shape) ?? new Map<string, number>();
    const ms = basisTime(row);
    if (ms) times.set(row.variant, ms);
    shapes.set(shape, times);
  }
  for (const { kernel, shape, variant, same_as } of rows) {
    const times = shapes.get(`${kernel} ${shape}`)!;
    const ms = same_as === undefined ? undefined : times.get(same_as);
    if (ms !== undefined) times.set(variant, ms);
  }
  let [chosen, gain] = [byRule, LEAST_GAIN];
  for (const variant of new Set(rows.map((row) => row.variant))) {
    const logs = [...shapes.values()].map((times) => Math.log(times.get(byRule)! / times.get(variant)!));
    const mean = Math.exp(logs.reduce((sum, log) => sum + log, 0) / logs.length);
    if (variant !== byRule && mean >= gain) [chosen, gain] = [variant, mean]; // not if it is NaN: a time is missing
  }
  return { byRule, chosen, gain: chosen === byRule ? 1 : gain };
}

/** The choices in the file's format. */
export function tunedPlanFrom(choices: readonly Choice[]): TunedPlan {
  const plan: Record<string, Record<string, string>> = {};
  for (const { op, sizes, chosen } of choices) plan[op] = { ...plan[op], [sizes]: chosen };
  return plan as TunedPlan;
}

/** A table of choices. */
export function renderChoices(choices: readonly Choice[]): string {
  const head = ["op", "sizes", "by rule", "chosen", "gain"];
  const body = choices.map(({ op, sizes, byRule, chosen, gain }) => {
    return [op, sizes, byRule, chosen === byRule ? "the same" : chosen, `${gain.toFixed(2)} x`];
  });
  const widths = head.map((_, i) => Math.max(...[head, ...body].map((line) => line[i].length)));
  return [head, ...body]
    .map((line) =>
      line
        .map((text, i) => text.padEnd(widths[i]))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}
