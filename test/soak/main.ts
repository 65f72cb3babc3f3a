/** `npm run soak`: looks for memory that grows in a long run; how, says run.ts. */
import { parseArgs } from "node:util";

const HELP = `usage: npm run soak -- [options]

Answers of all kinds by three small models on one device: greedy, beams, sampling, streams, candidates, forward passes,
answers that are interrupted. Then loads, answers and disposals of the embedded checkpoint, each on its own device.
Prints the memory of buffers and of the process meanwhile; the exit code is 1 if it grows, 2 for wrong arguments.

  --generations N   answers (default 1000)
  --reloads N       loads (default 20)
  --help            this text`;

async function main(): Promise<number> {
  let values: { generations: string; reloads: string; help: boolean };
  try {
    values = parseArgs({
      options: {
        generations: { type: "string", default: "1000" },
        reloads: { type: "string", default: "20" },
        help: { type: "boolean", default: false },
      },
    }).values;
  } catch (error) {
    console.error(`${(error as Error).message}\n\n${HELP}`);
    return 2;
  }
  if (values.help) {
    console.log(HELP);
    return 0;
  }
  const [generations, reloads] = [values.generations, values.reloads].map(Number);
  if (![generations, reloads].every((n) => Number.isSafeInteger(n) && n >= 0)) {
    console.error(`--generations and --reloads are whole numbers\n\n${HELP}`);
    return 2;
  }
  return (await import("./run.ts")).run(generations, reloads);
}

process.exit(await main());
