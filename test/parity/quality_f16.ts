/** `npm run quality:f16`: what compute_dtype "f16" costs; how it is measured, says float16.ts. */
import { parseArgs } from "node:util";
import { runScript } from "../../scripts/script.ts";

const HELP = `usage: npm run quality:f16

Compares every module's error with compute_dtype f16 with that of PyTorch's float16, for some goldens.`;

async function main(): Promise<number> {
  const { values } = parseArgs({ options: { help: { type: "boolean", short: "h", default: false } } });
  if (values.help) {
    console.log(HELP);
    return 0;
  }
  return (await import("./float16.ts")).run();
}

await runScript(main);
