/** `npm run report`: files of results as one HTML page of charts; how, says report/run.ts. */
import { parseArgs } from "node:util";
import { runScript, UsageError } from "./script.ts";

const OUT = "report.html";

const HELP = `usage: npm run report -- [options] RESULTS...

Draws results as one HTML page, which loads nothing: kernels under the limits of each adapter, other engines beside this project,
questions of a data set a second, times over commits, launches a token, the error and time of every module. Each chart has its numbers in words and
as a table. Adapters are kept apart.

  RESULTS          files, told apart by what is in them, of
                     npm run bench                            bench/results/ADAPTER.jsonl, or --json FILE
                     npm run bench:peers                      bench/results/peers-ADAPTER.jsonl, or --json FILE
                     npm run bench:dataset                    bench/results/dataset-ADAPTER.jsonl, or --json FILE
                     npm run bench -- --compare | --against   --json FILE
                     npm run parity -- --json FILE
                     npm run quality -- --json FILE
                     instructblip compare --json FILE
                     instructblip profile --json FILE
  --out FILE       the page (default ${OUT})
  --history        also every earlier version of the bench's files that git keeps: times over commits
  --svg FILE       instead, the roofline of the first adapter as an image, of the variants that plan() picks
  --help           this text`;

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      out: { type: "string" },
      history: { type: "boolean", default: false },
      svg: { type: "string" },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (values.help) {
    console.log(HELP);
    return 0;
  }
  if (positionals.length === 0) throw new UsageError("no file of results is given");
  if (values.svg !== undefined && values.out !== undefined) throw new UsageError("--out does not go with --svg");
  if (values.out === "" || values.svg === "") throw new UsageError("the name of a file is empty");
  const { run } = await import("./report/run.ts");
  return run(positionals, { ...values, out: values.out ?? OUT });
}

await runScript(main);
