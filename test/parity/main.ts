/** `npm run parity`: compares random composites with PyTorch; how, says run.ts. */
import { parseArgs } from "node:util";
import { runScript } from "../../scripts/script.ts";
import { FULL_RUN } from "./coverage.ts";

const HELP = `usage: npm run parity -- [options]

Draws random InstructBLIPs, BLIP-2s and InstructBLIP-Videos with PyTorch and compares every module, the logits, states
and attention maps, losses, the tokens of drawn decoding options and of drafts, the costs of candidates, and drawn calls
of the processor; with each its base model (without generation) and a retrieval model of the same sizes. Then saves
each and has transformers load the copy. A run of ${FULL_RUN} or more fails if it has missed an option.

  --count N     composites to draw (default 8)
  --seed N      seed of the drawing (default: the clock)
  --skip K      skip the seed's first K (default 0)
  --goldens     compare the committed goldens instead; needs no Python
  --modules     print a row for every module instead of every kind of module
  --summary     print one row for all modules of a part
  --keep        keep the drawn folders and print their paths
  --json FILE   also write every row as JSON; - for stdout, with all other output on stderr

Python: INSTRUCTBLIP_PYTHON if set, else an environment made in .venv from test/golden/requirements.txt.`;

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      count: { type: "string", default: "8" },
      seed: { type: "string" },
      skip: { type: "string", default: "0" },
      goldens: { type: "boolean", default: false },
      modules: { type: "boolean", default: false },
      summary: { type: "boolean", default: false },
      keep: { type: "boolean", default: false },
      json: { type: "string" },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (values.help) {
    console.log(HELP);
    return 0;
  }
  return (await import("./run.ts")).run(values);
}

await runScript(main);
