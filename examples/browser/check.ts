/**
 * `npm run browser:check`: the page in a real browser, headless, with the demo's images and questions, whose answers must be
 * PyTorch's. Without a Chromium it prints a message and exits with 0.
 *
 *   npm run browser:check                                  an installed Chromium, else the one that came with npm ci
 *   CHROME_PATH=FILE npm run browser:check                 this one
 *   FIREFOX_PATH=FILE npm run browser:check                and this Firefox, else one on the PATH, if there is any
 *   npm run browser:check -- --screenshots FOLDER          and what the page looked like
 *   npm run browser:check -- --image FILE.png              no check, but the README's image of the page
 */
import { parseArgs } from "node:util";
import { runScript } from "../../scripts/script.ts";

const HELP = `usage: npm run browser:check -- [--screenshots FOLDER | --image FILE.png]

Opens the page of npm run browser in a headless Chromium (CHROME_PATH names one) and holds its answers to PyTorch's.

  --screenshots FOLDER  write what the page looked like
  --image FILE.png      check nothing, and write the README's image: examples/browser/explorer.png
`;

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      screenshots: { type: "string" },
      image: { type: "string" },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (values.help) {
    process.stdout.write(HELP);
    return 0;
  }
  return (await import("./run_check.ts")).run(values);
}

await runScript(main);
