/** The work of `npm run bench`: the measurements, the tuner, and the table of a file of rows. */
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { regularExpression, UsageError } from "../scripts/script.ts";
import { Progress, processTerminal } from "../src/instructblip/cli/terminal.node.ts";
import type { StorageDType } from "../src/modules/weights.ts";
import { CASES } from "../src/tensor/cases/support/all.ts";
import { caseName, type Group, type Groups, withCases } from "../src/tensor/cases/support/group.ts";
import { MODEL_SHAPES, QUICK_SHAPES } from "../src/tensor/cases/support/shapes.ts";
import { tunedPlanFile, webgpuVersion } from "../src/tensor/device/tuned_plan.node.ts";
import {
  adapterKey,
  formatTunedFile,
  parseTunedFile,
  type TunedFile,
  withTuned,
} from "../src/tensor/device/tuned_plan.ts";
import { compareRows, exitCodeOf, renderComparison } from "./compare.ts";
import { type Measured, measure, type Shared, withShare } from "./harness.ts";
import { groups as layerGroups } from "./layers.bench.ts";
import { betterOf, groups as limitGroups, limitsOf } from "./limits.bench.ts";
import { LOAD_STEPS, loadStepName, measureLoads } from "./load.bench.ts";
import { describeMachine, openBenchDevice, root } from "./machine.ts";
import { MODEL_STEPS, measureModel, modelFolder, modelStepName } from "./model.bench.ts";
import { renderReport, replaceInDocs } from "./report.ts";
import { cachesOf, formatRows, isWrong, mergeRows, parseRows, type Row, slug } from "./rows.ts";
import type { Clock, Settings } from "./settings.ts";
import { measureStart, START_STEPS, startStepName } from "./start.bench.ts";
import { type Choice, groupsByClass, renderChoices, tuneClass, tunedPlanFrom } from "./tune.ts";

/** Measures the variants of every op that has several; the fastest is saved as soon as a size class is done. */
export async function runTuner({ quick, filter, settings, out }: RunOptions & { readonly out?: string | undefined }) {
  delete process.env.INSTRUCTBLIP_PLAN; // plan() must follow its rules
  const path = out ?? tunedPlanFile();
  let kept: TunedFile = existsSync(path) ? parseTunedFile(path, readFileSync(path, "utf8")) : new Map();
  const progress = new Progress(processTerminal(({ exitCode }) => process.exit(exitCode)));
  const device = await openBenchDevice();
  try {
    const shapes = quick ? QUICK_SHAPES : MODEL_SHAPES;
    const groups = ALL_GROUPS.flatMap((groups) => groups(shapes, device.caps));
    const classes = groupsByClass(groups, (name) => filter.test(name));
    if (classes.size === 0) throw new UsageError(`--filter: no op with several variants matches ${filter}`);
    const key = adapterKey(device.handle.adapterInfo, webgpuVersion());
    const date = new Date().toISOString();
    const choices: Choice[] = [];
    const complaints: string[] = [];
    for (const groups of classes.values()) {
      const { choice, wrong } = await tuneClass(device, groups, settings, (text) => progress.show(text));
      choices.push(choice);
      complaints.push(...wrong.map((row) => `WRONG: ${caseName(row)}`));
      kept = withTuned(kept, key, { date, choices: tunedPlanFrom([choice]) });
      writeWhole(path, formatTunedFile(kept));
    }
    progress.clear();
    console.log([renderChoices(choices), ...complaints].join("\n"));
    console.log(`\nkept in ${path}\n    for ${key}`);
    console.log(`to use them: INSTRUCTBLIP_PLAN=${out === undefined ? "tuned" : `@${path}`}`);
    return complaints.length ? 1 : 0;
  } finally {
    progress.clear();
    device.destroy();
  }
}

export interface RunOptions {
  readonly quick: boolean;
  /** Only the variants that plan() picks. */
  readonly planned: boolean;
  readonly list: boolean;
  readonly filter: RegExp;
  readonly model?: string | undefined;
  readonly dtype?: StorageDType | undefined;
  readonly settings: Settings;
  readonly json?: string | undefined;
}

/**
 * Measures the selected cases, kernel by kernel; rows are saved as soon as a kernel is done, and with their fraction of the
 * limits at the end.
 */
export async function run({ quick, planned, list, filter, settings, json, ...options }: RunOptions): Promise<number> {
  const started = performance.now();
  const wanted = (name: string) => filter.test(name);
  const progress = new Progress(processTerminal(({ exitCode }) => process.exit(exitCode)));
  const show = (text: string) => progress.show(text);
  const device = await openBenchDevice();
  try {
    const shapes = quick ? QUICK_SHAPES : MODEL_SHAPES;
    const benches = ALL_GROUPS.map((groups) =>
      groups(shapes, device.caps).map((group) => (planned ? { ...group, variants: [group.planned] } : group)),
    );
    const folder = modelFolder(options.model);
    const steps = MODEL_STEPS.filter((step) => wanted(modelStepName(folder, step)));
    const loads = LOAD_STEPS.filter((step) => wanted(loadStepName(folder, step)));
    const starts = options.model === undefined ? START_STEPS.filter((step) => wanted(startStepName(step))) : [];
    const wantedBenches = benches.filter((bench) => bench.flatMap(namesOf).some(wanted));
    if (wantedBenches.length + steps.length + loads.length + starts.length === 0) {
      throw new UsageError(`--filter: no case matches ${filter}; --list prints their names`);
    }
    if (list) {
      for (const name of benches.flat().flatMap(namesOf).filter(wanted)) console.log(name);
      for (const step of steps) console.log(modelStepName(folder, step));
      for (const step of loads) console.log(loadStepName(folder, step));
      for (const step of starts) console.log(startStepName(step));
      return 0;
    }

    const machine = describeMachine(device);
    const toStdout = json === "-";
    const file = json ?? join(root, "bench/results", `${slug(machine.adapter)}.jsonl`);
    const older = !toStdout && existsSync(file) ? readRows(file) : [];
    const keep = (rows: readonly Shared[]) => {
      const whole = rows.map((row) => ({ caches: cachesOf(row.footprint, shapes.memory), ...row, ...machine }));
      if (!toStdout) writeWhole(file, formatRows(mergeRows(older, whole)));
      return whole;
    };

    const measureLimits = () =>
      withCases(
        device,
        limitGroups(shapes, device.caps),
        () => true,
        (cases) => measure(device, cases, settings, show),
      );
    const unshared = (row: Measured): Shared => ({ ...row, share: null, bound: null });
    const before = await measureLimits();
    const kernels: Measured[] = [];
    for (const groups of wantedBenches) {
      kernels.push(...(await withCases(device, groups, wanted, (cases) => measure(device, cases, settings, show))));
      keep([...before, ...kernels].map(unshared));
    }
    const modelSettings = { ...settings, dtype: options.dtype ?? "auto" };
    const model = steps.length ? await measureModel(folder, steps, modelSettings, show) : [];
    if (loads.length) model.push(...(await measureLoads(folder, loads, settings, show)));
    model.push(...(await measureStart(starts, settings, show)));
    // Other programs can only slow a limit down: the better of two measurements far apart in time is more accurate.
    const limitRows = quick ? before : betterOf(before, await measureLimits());
    const limits = limitsOf(limitRows, shapes);
    const rows = keep([...limitRows.map(unshared), ...[...kernels, ...model].map((row) => withShare(row, limits))]);

    progress.clear();
    const wrong = rows.filter(isWrong).length;
    if (toStdout) {
      process.stdout.write(formatRows(rows));
      return wrong ? 1 : 0;
    }
    console.log(renderReport(rows));
    const seconds = ((performance.now() - started) / 1000).toFixed(0);
    console.log(`\n${rows.length} rows in ${seconds} s, ${wrong} wrong; kept in ${relative(process.cwd(), file)}`);
    return wrong ? 1 : 0;
  } finally {
    progress.clear();
    device.destroy();
  }
}

/** The cases of every op, then of the layers. */
const ALL_GROUPS: readonly Groups[] = [...Object.values(CASES), layerGroups];

function namesOf({ kernel, shape, variants }: Group): string[] {
  return variants.map((variant) => caseName({ kernel, shape, variant }));
}

/** Prints the table of a file of rows. */
export function printTable(file: string, markdown: boolean): number {
  console.log(renderReport(readRows(file), markdown));
  return 0;
}

interface CompareOptions {
  readonly filter: string;
  readonly all: boolean;
  readonly markdown: boolean;
  readonly json?: string | undefined;
  readonly clock?: Clock | undefined;
}

/** Compares two lists of files, separated by commas. */
export function compareFiles(base: string, fresh: string, options: CompareOptions): number {
  const filter = regularExpression("--filter", options.filter);
  const rows = (files: string) => files.split(",").flatMap((file) => readRows(file));
  const wanted = (row: Row) => filter.test(caseName(row)) || row.kernel === "limit";
  return showComparison(rows(base).filter(wanted), rows(fresh).filter(wanted), options);
}

function showComparison(base: readonly Row[], fresh: readonly Row[], options: Omit<CompareOptions, "filter">): number {
  const comparison = compareRows(base, fresh, options.clock);
  if (options.json !== undefined && options.json !== "-")
    writeWhole(options.json, `${JSON.stringify(comparison, null, 1)}\n`);
  console.log(options.json === "-" ? JSON.stringify(comparison) : renderComparison(comparison, options));
  return exitCodeOf(comparison);
}

/** Puts the planned variants of a file of rows into docs/benchmarks.md. */
export function writeDocs(file: string): number {
  const path = join(root, "docs/benchmarks.md");
  writeWhole(path, replaceInDocs(readFileSync(path, "utf8"), readRows(file)));
  return 0;
}

function readRows(path: string): Row[] {
  try {
    return parseRows(readFileSync(path, "utf8"));
  } catch (cause) {
    throw new Error(`${path}: ${(cause as Error).message}`, { cause });
  }
}

/** Writes to a temporary file and renames it, so that the old one is kept if the disk is full. */
function writeWhole(path: string, text: string): void {
  mkdirSync(dirname(path), { recursive: true });
  const fresh = `${path}.${process.pid}.tmp`;
  try {
    writeFileSync(fresh, text);
    renameSync(fresh, path);
  } catch (error) {
    rmSync(fresh, { force: true });
    throw error;
  }
}
