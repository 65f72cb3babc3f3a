/** The work of `npm run bench`: the measurements, the tuner, and the table of a file of rows. */
import { existsSync, readFileSync } from "node:fs";
import { join, relative, resolve } from "node:path";
import { regularExpression, UsageError } from "../scripts/script.ts";
import { EXIT, Interrupted } from "../src/instructblip/cli/format.ts";
import { Progress, processTerminal } from "../src/instructblip/cli/terminal.node.ts";
import type { StorageDType } from "../src/modules/weights.ts";
import { CASES } from "../src/tensor/cases/support/all.ts";
import { caseName, type Group, type Groups, withCases } from "../src/tensor/cases/support/group.ts";
import { MODEL_SHAPES, QUICK_SHAPES } from "../src/tensor/cases/support/shapes.ts";
import type { Caps } from "../src/tensor/device/caps.ts";
import { tunedPlanFile, webgpuVersion } from "../src/tensor/device/tuned_plan.node.ts";
import {
  adapterKey,
  formatTunedFile,
  parseTunedFile,
  type TunedFile,
  withTuned,
} from "../src/tensor/device/tuned_plan.ts";
import {
  alternate,
  canBePaced,
  checkOut,
  familyFilter,
  interleave,
  processRunner,
  processStarter,
  renderSelfTest,
  type SelfTest,
  selfTestOf,
} from "./against.ts";
import { type Comparison, comparePairs, compareRows, exitCodeOf, renderComparison } from "./compare.ts";
import { readRowsOf, writeWhole } from "./files.ts";
import { type Measured, measure, type Shared, withShare } from "./harness.ts";
import { groups as layerGroups } from "./layers.bench.ts";
import { betterOf, groups as limitGroups, limitsOf } from "./limits.bench.ts";
import { LOAD_STEPS, loadStepName, measureLoads } from "./load.bench.ts";
import { describeMachine, openBenchDevice, root } from "./machine.ts";
import { MODEL_STEPS, measureModel, modelFolder, modelStepName } from "./model.bench.ts";
import { OWN, ownShapes } from "./own_shapes.ts";
import { asParentSays, atOnce } from "./pace.ts";
import { renderReport, replaceInDocs } from "./report.ts";
import { cachesOf, formatRows, isWrong, mergeRows, parseRows, type Row, slug } from "./rows.ts";
import { type Clock, INTERLEAVED_ROUNDS, type Settings } from "./settings.ts";
import { measureStart, START_STEPS, startStepName } from "./start.bench.ts";
import { wilson } from "./stats.ts";
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
  /** Sizes of one's own, as written. */
  readonly shape?: readonly string[] | undefined;
  readonly json?: string | undefined;
  /** Turns are taken when the parent process says so, and limits are not measured. */
  readonly paced?: boolean;
}

/**
 * Measures the selected cases, kernel by kernel; rows are saved as soon as a kernel is done, and with their fraction of the
 * limits at the end.
 */
export async function run({
  quick,
  planned,
  list,
  filter,
  settings,
  json,
  shape,
  paced = false,
  ...options
}: RunOptions): Promise<number> {
  const started = performance.now();
  const wanted = (name: string) => filter.test(name);
  const progress = new Progress(processTerminal(({ exitCode }) => process.exit(exitCode)));
  const show = (text: string) => progress.show(text);
  const device = await openBenchDevice();
  const pace = paced ? asParentSays() : atOnce(show);
  try {
    const { shapes, folder, benches, steps, loads, starts, names } = selected(
      { quick, planned, filter, model: options.model, shape },
      device.caps,
    );
    if (list) {
      for (const name of names) console.log(name);
      return 0;
    }

    const machine = describeMachine(device);
    const toStdout = json === "-";
    const isKept = !toStdout && (json !== undefined || shape === undefined); // the file of an adapter is of the model's shapes
    const file = json ?? join(root, "bench/results", `${slug(machine.adapter)}.jsonl`);
    const older = isKept && existsSync(file) ? readRows(file) : [];
    const keep = (rows: readonly Shared[]) => {
      const whole = rows.map((row) => ({ caches: cachesOf(row.footprint, shapes.memory), ...row, ...machine }));
      // What git tracks has no wrong results; a file of one's own does, so that --compare can name them.
      const right = json === undefined ? whole.filter((row) => !isWrong(row)) : whole;
      if (isKept) writeWhole(file, formatRows(mergeRows(older, right)));
      return whole;
    };

    const measureLimits = () =>
      withCases(
        device,
        limitGroups(shapes, device.caps),
        () => true,
        (cases) => measure(device, cases, settings, pace),
      );
    const unshared = (row: Measured): Shared => ({ ...row, share: null, bound: null });
    const before = paced ? [] : await measureLimits();
    const kernels: Measured[] = [];
    for (const groups of benches) {
      kernels.push(...(await withCases(device, groups, wanted, (cases) => measure(device, cases, settings, pace))));
      keep([...before, ...kernels].map(unshared));
    }
    const modelSettings = { ...settings, dtype: options.dtype ?? "auto" };
    const model = steps.length ? await measureModel(folder, steps, modelSettings, pace) : [];
    if (loads.length) model.push(...(await measureLoads(folder, loads, settings, show)));
    model.push(...(await measureStart(starts, settings, show)));
    // Other programs can only slow a limit down: the better of two measurements far apart in time is more accurate.
    const limitRows = quick || paced ? before : betterOf(before, await measureLimits());
    const limits = paced ? undefined : limitsOf(limitRows, shapes);
    const shared = (row: Measured) => (limits ? withShare(row, limits) : unshared(row));
    const rows = keep([...limitRows.map(unshared), ...[...kernels, ...model].map(shared)]);

    progress.clear();
    const wrong = rows.filter(isWrong).length;
    if (toStdout) {
      process.stdout.write(formatRows(rows));
      return wrong ? 1 : 0;
    }
    console.log(renderReport(rows));
    const seconds = ((performance.now() - started) / 1000).toFixed(0);
    const without = wrong > 0 && json === undefined ? ", without the wrong" : "";
    console.log(
      `\n${rows.length} rows in ${seconds} s, ${wrong} wrong${isKept ? `; kept in ${relative(process.cwd(), file)}${without}` : ""}`,
    );
    return wrong ? 1 : 0;
  } finally {
    progress.clear();
    device.destroy();
    pace.end();
  }
}

/**
 * The groups and steps with a case that the filter admits, and the names of those cases.
 *
 * @throws UsageError if there is none
 */
function selected(
  { quick, planned, filter, model, shape }: Pick<RunOptions, "quick" | "planned" | "filter" | "model" | "shape">,
  caps: Caps,
) {
  const wanted = (name: string) => filter.test(name);
  const named = quick ? QUICK_SHAPES : MODEL_SHAPES;
  const isOwn = shape !== undefined; // then nothing else is measured
  const shapes = isOwn ? ownShapes(shape, named) : named;
  const folder = modelFolder(model);
  const steps = isOwn ? [] : MODEL_STEPS.filter((step) => wanted(modelStepName(folder, step)));
  const loads = isOwn ? [] : LOAD_STEPS.filter((step) => wanted(loadStepName(folder, step)));
  const starts = isOwn || model !== undefined ? [] : START_STEPS.filter((step) => wanted(startStepName(step)));
  const benches = ALL_GROUPS.map((groups) =>
    groups(shapes, caps)
      .filter((group) => !isOwn || group.shape.startsWith(`${OWN} `))
      .map((group) => (planned ? { ...group, variants: [group.planned] } : group)),
  ).filter((bench) => bench.flatMap(namesOf).some(wanted));
  const names = [
    ...benches.flat().flatMap(namesOf).filter(wanted),
    ...steps.map((step) => modelStepName(folder, step)),
    ...loads.map((step) => loadStepName(folder, step)),
    ...starts.map((step) => startStepName(step)),
  ];
  if (names.length === 0) throw new UsageError(`--filter: no case matches ${filter}; --list prints their names`);
  return { shapes, folder, benches, steps, loads, starts, names };
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

interface AlternateOptions extends RunOptions {
  readonly runs: number;
  readonly rounds?: string | undefined;
}

/** Measures a revision and the working tree in alternating processes, and compares them. */
export async function runAgainst(revision: string, options: AlternateOptions & Omit<CompareOptions, "filter">) {
  const kernels = await kernelsOf(options);
  const filters = kernels.map((kernel) => familyFilter(kernel, options.filter.source));
  const { folder, remove } = checkOut(revision);
  try {
    const sides = [
      { name: revision, folder, args: [] },
      { name: "working tree", folder: root, args: [] },
    ];
    // Compilation is not measured in turns; an old revision cannot wait.
    if (options.clock === "first" || !canBePaced(folder)) {
      const [base, fresh] = await withProcesses(options, (args, show, signal) =>
        alternate(sides, filters, options.runs, processRunner(args, options.clock === "first", signal), show),
      );
      return showComparison(compareRows(base, fresh, options.clock), options);
    }
    const runs = await withProcesses(options, (args, show, signal) =>
      interleave(sides, filters, options.runs, processStarter(manyRounds(args), signal), show),
    );
    const pairs = runs.map(([base, fresh]) => [base, fresh] as const);
    return showComparison(comparePairs(pairs, options.clock), options);
  } finally {
    remove();
  }
}

/** Compares the working tree with itself, and with itself at more work. Exit code 1 if equal code surely differs too often. */
export async function runSelfTest(options: AlternateOptions & { readonly trials: number }): Promise<number> {
  // Without a filter, some kernels at small shapes.
  const own = options.filter.source !== "(?:)" || options.quick;
  const filter = own ? options.filter : /^(layer_norm|rms_norm|softmax|linear) /;
  const all = { ...options, filter, quick: own ? options.quick : true };
  await kernelsOf(all);
  const side = (name: string, ...args: string[]) => ({ name, folder: root, args });
  const sides = [side("first"), side("the same"), side("10 % more work", "--handicap", ".")];
  const tests = await withProcesses(all, async (args, show, signal) => {
    const tests: SelfTest[] = [];
    for (let trial = 0; trial < options.trials; trial++) {
      const progress = (text: string) => show(`comparison ${trial + 1} of ${options.trials}, ${text}`);
      tests.push(
        selfTestOf(
          await interleave(sides, [filter.source], options.runs, processStarter(manyRounds(args), signal), progress),
        ),
      );
    }
    return tests;
  });
  console.log(renderSelfTest(tests, options.runs));
  const sum = (of: (test: SelfTest) => number) => tests.reduce((total, test) => total + of(test), 0);
  const [least] = wilson(
    sum(({ alarms }) => alarms),
    sum(({ rows }) => rows),
  );
  return least > MOST_ALARMS ? 1 : 0;
}

/** More rounds than a table needs, unless their number is given. */
const manyRounds = (args: readonly string[]) =>
  args.includes("--rounds") ? args : [...args, "--rounds", `${INTERLEAVED_ROUNDS}`];

/** The share of rows of equal code that may be reported as changed. */
const MOST_ALARMS = 0.05;

const SIGNALS = ["SIGINT", "SIGTERM"] as const;

/** Runs processes with the options that sides share; they end with this one. @throws Interrupted by a signal */
async function withProcesses<T>(
  { quick, planned, rounds, model, dtype, shape = [] }: AlternateOptions,
  measureSides: (args: readonly string[], show: (text: string) => void, signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const stopping = new AbortController();
  const stop = (reason: Interrupted) => stopping.abort(reason);
  const onSignal = {
    SIGINT: () => stop(new Interrupted(EXIT.sigint)),
    SIGTERM: () => stop(new Interrupted(EXIT.sigterm)),
  };
  for (const signal of SIGNALS) process.once(signal, onSignal[signal]);
  const progress = new Progress(processTerminal(stop));
  const given = (name: string, value: string | undefined) => (value === undefined ? [] : [name, value]);
  const stored = typeof dtype === "string" && dtype !== "auto" ? dtype : undefined;
  const args = [
    ...(quick ? ["--quick"] : []),
    ...(planned ? ["--planned"] : []),
    ...given("--rounds", rounds),
    ...given("--model", model && resolve(model)),
    ...given("--dtype", stored),
    ...shape.flatMap((text) => ["--shape", text]),
  ];
  try {
    return await measureSides(args, (text) => progress.show(text), stopping.signal);
  } finally {
    progress.clear();
    for (const signal of SIGNALS) process.off(signal, onSignal[signal]);
  }
}

/** The first words of the selected cases' names. */
async function kernelsOf(options: RunOptions): Promise<string[]> {
  const device = await openBenchDevice();
  try {
    const { names } = selected(options, device.caps);
    return [...new Set(names.map((name) => name.split(" ", 1)[0]))];
  } finally {
    device.destroy();
  }
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
  const [olds, news] = [base, fresh].map((files) => rows(files).filter(wanted));
  return showComparison(compareRows(olds, news, options.clock), options);
}

function showComparison(comparison: Comparison, options: Omit<CompareOptions, "filter">): number {
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

const readRows = (path: string): Row[] => readRowsOf(path, parseRows);
