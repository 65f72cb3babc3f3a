/**
 * `npm run bench`: measures every kernel and the model on this machine, prints a table and keeps the rows as JSON lines.
 * Progress goes to stderr.
 */
import { parseArgs } from "node:util";
import { goesWith, regularExpression, runScript, UsageError, wholeNumber } from "../scripts/script.ts";
import type { StorageDType } from "../src/modules/weights.ts";
import { CLOCKS, type Clock, INTERLEAVED_ROUNDS, RUNS, SETTINGS, type Settings } from "./settings.ts";

/** @param plan where tuned plans are kept */
const help = (plan: string, FORMS: string) => `usage: npm run bench -- [options]

Measures this machine's limits, then every kernel at the shapes of InstructBLIP-Vicuna-7B, then the model. Every result is
checked before it is timed; a wrong one is not timed, and the exit code is 1. Loading a large checkpoint as it is stored, as
int8 and as int4, beside a plain read of its files: --filter "^model (reading|loading)" --model DIR --rounds 1

  --filter REGEX   only cases whose "kernel variant shape" matches: --filter "linear.*vicuna"
  --shape SIZES    only cases of these sizes, instead of the model's: --filter linear --shape M=32,K=4096,N=4096,dtype=int4; may
                   be repeated. Rows are not kept without --json. Sizes that go together:
                   ${FORMS}
  --model DIR      measure this checkpoint instead of the embedded one: --filter "^model" --model DIR --rounds 1
  --dtype DTYPE    storage dtype of its matrices (default: as in the checkpoint)
  --quick          small shapes, fewer rounds, limits measured once: under a minute on two cores
  --planned        only the variants that plan() picks on this adapter
  --rounds N       rounds of every case (default ${SETTINGS.full.rounds}; ${SETTINGS.quick.rounds} with --quick)
  --json FILE      where rows are written (default bench/results/ADAPTER.jsonl, without wrong ones);
                   a new row replaces the old one;
                   - for stdout, without other output; no file is written
  --list           print the names of all cases without measuring

  --tune           instead, time all variants of every op that has several and keep the fastest for each class of sizes, for
                   this adapter, driver and version of webgpu; INSTRUCTBLIP_PLAN=tuned (or @FILE) then uses them
  --out FILE       with --tune: where they are kept (default ${plan}); others stay

  --compare BASE NEW   instead, compare two files of rows (or several each: A.jsonl,B.jsonl), of any machine. Several runs of a
                   case, as of npm run -s bench -- --json - >> FILE, are compared by their medians, single runs by their
                   rounds: Mann-Whitney test at p < 0.02, Hodges-Lehmann ratio; ~ for no change
  --against REV    instead, measure this revision of the repository and the working tree, interleaved, kernel by kernel, and compare
                   them: a process of each, of which one takes a turn of a case while the other waits, then the other.
                   Wilcoxon's signed-rank test of the runs' ratios. --filter, --shape, --rounds (default ${INTERLEAVED_ROUNDS}), --quick, --planned, --model and --dtype are
                   handed on. The revision is checked out in a temporary folder
  --self-test      instead, compare the working tree with itself, and with itself at 10 % more work: prints how many rows are
                   reported in error, and how many are found (20 minutes on two cores)
  --runs N         with --against and --self-test: processes a side (default ${RUNS}; 7 are the fewest that show anything)
  --trials N       with --self-test: comparisons (default 4)
  --all            with --compare and --against: also the rows that have not changed
  --clock CLOCK    with them: cpu, gpu, wall or first (the first run, with compilation); default: that of the rows' rates
                   exit code: 0, nothing is slower; 3, some row is; 1, a result is wrong on the new side only, or an error

  --handicap REGEX every run of these cases works 10 % more than is counted, as --self-test needs it
  --paced          every turn waits for a word of the process that started this one, as --against needs it

  --table FILE     print the table of a file of rows without measuring
  --markdown       with --table, --compare or --against: in Markdown
  --docs FILE      put the planned variants of a file of rows into docs/benchmarks.md, between its bench markers
  --help           this text`;

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: process.argv.includes("--compare"), // of which they are the files
    options: {
      filter: { type: "string", default: "" },
      shape: { type: "string", multiple: true },
      model: { type: "string" },
      dtype: { type: "string" },
      quick: { type: "boolean", default: false },
      planned: { type: "boolean", default: false },
      rounds: { type: "string" },
      json: { type: "string" },
      list: { type: "boolean", default: false },
      tune: { type: "boolean", default: false },
      out: { type: "string" },
      table: { type: "string" },
      compare: { type: "boolean", default: false },
      against: { type: "string" },
      "self-test": { type: "boolean", default: false },
      runs: { type: "string" },
      trials: { type: "string" },
      handicap: { type: "string" },
      paced: { type: "boolean", default: false },
      all: { type: "boolean", default: false },
      clock: { type: "string" },
      markdown: { type: "boolean", default: false },
      docs: { type: "string" },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (values.help) {
    const { tunedPlanFile } = await import("../src/tensor/device/tuned_plan.node.ts");
    const { FORMS_HELP } = await import("./own_shapes.ts");
    console.log(help(tunedPlanFile(), FORMS_HELP));
    return 0;
  }
  if (values.compare) {
    const clock = readClock(values.clock);
    const others = Object.keys(values).filter((name) => values[name as keyof typeof values] && !COMPARES.has(name));
    if (others.length > 0) throw new UsageError(`--${others[0]} does not go with --compare`);
    const [base, fresh, ...more] = positionals;
    if (fresh === undefined || more.length > 0) throw new UsageError("--compare takes two files, BASE and NEW");
    const { compareFiles } = await import("./run.ts");
    return compareFiles(base, fresh, { ...values, clock });
  }
  const alternates = values.against !== undefined || values["self-test"];
  if (!alternates && values.runs !== undefined) throw new UsageError("--runs goes with --against or --self-test");
  if (!values["self-test"] && values.trials !== undefined) throw new UsageError("--trials goes with --self-test");
  for (const name of ["all", "clock"] as const) {
    if (values.against === undefined && values[name])
      throw new UsageError(`--${name} goes with --compare or --against`);
  }
  goesWith(values, "markdown", ["table", "against"]);
  const settings: { -readonly [K in keyof Settings]: Settings[K] } = { ...SETTINGS[values.quick ? "quick" : "full"] };
  if (values.rounds !== undefined) settings.rounds = wholeNumber("--rounds", values.rounds);
  const filter = regularExpression("--filter", values.filter);
  const dtype = readDType(values.dtype);
  const untuned = (["list", "shape", "model", "dtype", "json", "planned"] as const).find((name) => values[name]);
  if (values.tune && untuned) throw new UsageError(`--${untuned} does not go with --tune`);
  if (!values.tune && values.out !== undefined) throw new UsageError("--out goes with --tune");

  if (values.shape && values.model) throw new UsageError("--shape does not go with --model");
  if (values.handicap !== undefined) settings.handicap = regularExpression("--handicap", values.handicap);
  if (values.paced && !process.send) throw new UsageError("--paced goes with a process that starts this one");
  if (alternates) {
    const others = [
      "tune",
      "list",
      "table",
      "docs",
      "handicap",
      "paced",
      values["self-test"] ? "json" : "self-test",
    ] as const;
    const other = others.find((name) => values[name]);
    if (other !== undefined)
      throw new UsageError(`--${other} does not go with --${values["self-test"] ? "self-test" : "against"}`);
    const runs = values.runs === undefined ? RUNS : wholeNumber("--runs", values.runs);
    const trials = values.trials === undefined ? 4 : wholeNumber("--trials", values.trials);
    const { runAgainst, runSelfTest } = await import("./run.ts");
    const options = { ...values, settings, filter, dtype, runs, trials, clock: readClock(values.clock) };
    return values.against === undefined ? runSelfTest(options) : runAgainst(values.against, options);
  }

  const { printTable, run, runTuner, writeDocs } = await import("./run.ts");
  if (values.table !== undefined) return printTable(values.table, values.markdown);
  if (values.docs !== undefined) return writeDocs(values.docs);
  return (values.tune ? runTuner : run)({ ...values, settings, filter, dtype });
}

/** The options that go with --compare. */
const COMPARES: ReadonlySet<string> = new Set(["compare", "all", "clock", "json", "markdown", "filter"]);

function readClock(text: string | undefined): Clock | undefined {
  const known = CLOCKS.find((clock) => clock === text);
  if (text !== undefined && known === undefined) {
    throw new UsageError(`--clock: "${text}" is not one of ${CLOCKS.join(", ")}`);
  }
  return known;
}

const STORED: readonly StorageDType[] = ["auto", "f32", "f16", "bf16", "int8", "int4"];

function readDType(text = "auto"): StorageDType {
  const known = STORED.find((dtype) => dtype === text);
  if (known === undefined) throw new UsageError(`--dtype: "${text}" is not one of ${STORED.join(", ")}`);
  return known;
}

await runScript(main);
