/** `npm run bench:peers`: compares this project's kernels with other engines; how, says run.ts. */
import { parseArgs } from "node:util";
import { goesWith, regularExpression, runScript, UsageError, wholeNumber } from "../../scripts/script.ts";
import { ENGINE_NAMES, type EngineName } from "./engine.ts";

/** `turnMs`: least time of a turn. */
const SETTINGS = { full: { rounds: 5, turnMs: 50 }, quick: { rounds: 3, turnMs: 20 } };

const HELP = `usage: npm run bench:peers -- [options]

Compares this project's kernels with other WebGPU engines on the same adapter, at the shapes of the models. The other
engines are installed into bench/peers/node_modules on first use (about 360 MB); one that does not run is skipped.

  --filter REGEX   only jobs whose "kind name shape" matches: --filter "gemm vit"
  --engines LIST   only these: ${ENGINE_NAMES.join(",")}
  --quick          some of the jobs and fewer rounds
  --rounds N       rounds of every job (default ${SETTINGS.full.rounds}; ${SETTINGS.quick.rounds} with --quick)
  --json FILE      where rows are written (default bench/results/peers-ADAPTER.jsonl); a new row replaces the old;
                   - for stdout, without other output; no file is written
  --list           print the names of all jobs without measuring

  --table FILE     print the table of a file of rows without measuring
  --markdown       with --table: in Markdown
  --docs FILE      put the table of a file of rows into docs/benchmarks.md, between its peers markers
  --help           this text`;

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      filter: { type: "string", default: "" },
      engines: { type: "string" },
      quick: { type: "boolean", default: false },
      rounds: { type: "string" },
      json: { type: "string" },
      list: { type: "boolean", default: false },
      table: { type: "string" },
      markdown: { type: "boolean", default: false },
      docs: { type: "string" },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (values.help) {
    console.log(HELP);
    return 0;
  }
  goesWith(values, "markdown", ["table"]);
  const filter = regularExpression("--filter", values.filter);
  const settings = { ...SETTINGS[values.quick ? "quick" : "full"] };
  if (values.rounds !== undefined) settings.rounds = wholeNumber("--rounds", values.rounds);
  const engines = enginesOf(values.engines);

  const { printTable, run, writeDocs } = await import("./run.ts");
  if (values.table !== undefined) return printTable(values.table, values.markdown);
  if (values.docs !== undefined) return writeDocs(values.docs);
  const { jobName, MODEL_JOBS, QUICK_JOBS } = await import("./jobs.ts");
  const jobs = (values.quick ? QUICK_JOBS : MODEL_JOBS).filter((job) => filter.test(jobName(job)));
  if (jobs.length === 0) throw new UsageError(`--filter: no job matches ${filter}; --list prints their names`);
  if (!values.list) return run(jobs, engines, settings, values.json);
  for (const job of jobs) console.log(jobName(job));
  return 0;
}

/** Ours is always among them: without it there is nothing to compare. */
function enginesOf(list: string | undefined): readonly EngineName[] {
  if (list === undefined) return ENGINE_NAMES;
  const names = list.split(",");
  const unknown = names.find((name) => !(ENGINE_NAMES as string[]).includes(name));
  if (unknown !== undefined)
    throw new UsageError(`--engines: no engine "${unknown}"; there are ${ENGINE_NAMES.join(", ")}`);
  return ENGINE_NAMES.filter((name) => name === "ours" || names.includes(name));
}

await runScript(main);
