/** `npm run bench:dataset`: what batches and threads are worth over a data set; how, says run.ts. */
import { parseArgs } from "node:util";
import { goesWith, runScript, UsageError, wholeNumber } from "../../scripts/script.ts";

const QUESTIONS = 500;
const PARTS = 5;

const HELP = `usage: npm run bench:dataset -- [options]

Answers questions about images of the size of photographs by the embedded checkpoint: one by one, in batches, and in
batches with threads that decode and resize images ahead. Prints questions a second and the share of the time that the device
is busy. Fails if any answer differs. Takes about five minutes on two cores without a GPU.

  --questions N        default ${QUESTIONS}
  --parts N            the questions are answered in so many parts, each by all settings in turn (default ${PARTS})
  --command NAME       evaluate (default) or generate, which is generate --requests
  --workers N          threads of the third setting (default: one less than cores, at most 8, and at least 1)
  --keep FOLDER        keep images, questions and answers there
  --json FILE          where rows are written (default bench/results/dataset-ADAPTER.jsonl), replacing what is there;
                       - for stdout, without other output; no file is written

  --table FILE         print the table of a file of rows without measuring
  --markdown           with --table: in Markdown
  --docs FILE          put the table of a file of rows into docs/benchmarks.md, between its dataset markers
  --help               this text`;

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      questions: { type: "string", default: String(QUESTIONS) },
      parts: { type: "string", default: String(PARTS) },
      command: { type: "string", default: "evaluate" },
      workers: { type: "string" },
      keep: { type: "string" },
      json: { type: "string" },
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
  const { command } = values;
  const questions = wholeNumber("--questions", values.questions);
  const parts = wholeNumber("--parts", values.parts);
  const workers = values.workers === undefined ? undefined : wholeNumber("--workers", values.workers);
  if (command !== "evaluate" && command !== "generate") {
    throw new UsageError(`--command: there are evaluate and generate, got "${command}"`);
  }
  if (parts > questions) throw new UsageError(`--parts: ${parts} parts of ${questions} questions`);
  const { printTable, run, writeDocs } = await import("./run.ts");
  if (values.table !== undefined) return printTable(values.table, values.markdown);
  if (values.docs !== undefined) return writeDocs(values.docs);
  return run({ questions, parts, command, workers, keep: values.keep, json: values.json });
}

await runScript(main);
