/** `npm run quality`: what other dtypes cost; how it is measured, says quantized.ts. */
import { parseArgs } from "node:util";
import { runScript } from "../../scripts/script.ts";

const MODES = ["f16", "bf16", "int8", "int4", "compute_dtype=f16"];

const HELP = `usage: npm run quality -- [options] [MODE …]

Compares the embedded checkpoint's answers in another dtype to those in f32, token by token.

  MODE         a value of the command line's --dtype: int4, language_model=int4, …; or compute_dtype=f16
               (default ${MODES.join(" ")})
  --count N    questions, at most 500 (default 100)
  --json FILE  also write the figures as JSON; - for stdout, with all other output on stderr`;

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      count: { type: "string", default: "100" },
      json: { type: "string" },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (values.help) {
    console.log(HELP);
    return 0;
  }
  const { run } = await import("./quantized.ts");
  return run(positionals.length ? positionals : MODES, Number(values.count), values.json);
}

await runScript(main);
