/**
 * `npm run docs`: writes the generated pages of docs/ (errors.md, command_line.md, presets.md), and the API reference in docs/api, which
 * git ignores.
 */
import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("..", import.meta.url));

const HELP = `usage: npm run docs [-- --check | --pages]

Writes docs/errors.md, docs/command_line.md and docs/presets.md from the code, and the API reference into docs/api.

  --check   write nothing; exit 1 if one of the pages is stale
  --pages   the pages alone
`;

function current(path: string): string {
  try {
    return readFileSync(join(ROOT, path), "utf8");
  } catch {
    return "";
  }
}

async function main([first, ...more]: readonly string[]): Promise<number> {
  if (first === "--help" || first === "-h") {
    process.stdout.write(HELP);
    return 0;
  }
  if (more.length > 0 || (first !== undefined && first !== "--check" && first !== "--pages")) {
    process.stderr.write(`docs: unknown arguments: ${[first, ...more].join(" ")}\n\n${HELP}`);
    return 2;
  }
  const { pages } = await import("./docs_pages.ts");
  const stale = [...(await pages())].filter(([path, text]) => current(path) !== text);
  if (first === "--check") {
    for (const [path] of stale) console.error(`${path} is stale: run \`npm run docs\``);
    return stale.length > 0 ? 1 : 0;
  }
  for (const [path, text] of stale) {
    writeFileSync(join(ROOT, path), text);
    console.error(`wrote ${path}`);
  }
  if (first === "--pages") return 0;
  const typedoc = join(ROOT, "node_modules/typedoc/bin/typedoc");
  return spawnSync(process.execPath, [typedoc], { cwd: ROOT, stdio: "inherit" }).status ?? 1;
}

process.exitCode = await main(process.argv.slice(2));
