// Writes src/tensor/kernels.gen.ts: the text of every kernels/**/*.wgsl as a module of strings, so that Node, a bundler
// and the browser read the same thing. `--check` only says whether the module is fresh.
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, relative, sep } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const target = join(root, "src/tensor/kernels.gen.ts");

const HELP = `usage: npm run kernels [-- --check]

Writes src/tensor/kernels.gen.ts, the text of every kernels/**/*.wgsl.

  --check   write nothing; exit 1 if the file is stale
`;

/** The generated module's text. */
export function generate() {
  const files = readdirSync(join(root, "kernels"), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith(".wgsl"))
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
  const stems = new Map();
  const entries = files.map((file) => {
    const name = relative(join(root, "kernels"), file)
      .split(sep)
      .join("/")
      .replace(/\.wgsl$/, "");
    const text = readFileSync(file, "utf8");
    if (/[`\\]|\$\{/.test(text))
      throw new Error(`kernels/${name}.wgsl: backquotes, backslashes and \${ cannot be embedded`);
    // A kernel and a part may have the same stem: they are never asked for in the same way.
    const stem = `${/^lib\/|\/parts\//.test(name) ? "part" : "kernel"} ${name.replace(/^.*\//, "")}`;
    if (stems.has(stem)) throw new Error(`kernels/${name}.wgsl has the stem of kernels/${stems.get(stem)}.wgsl`);
    stems.set(stem, name);
    return `  ${JSON.stringify(name)}: \`${text}\`,\n`;
  });
  return (
    "// Generated from kernels/**/*.wgsl by `npm run kernels`. Do not edit.\n" +
    `export const KERNELS: Readonly<Record<string, string>> = {\n${entries.join("")}};\n`
  );
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const text = generate();
  let current = "";
  try {
    current = readFileSync(target, "utf8");
  } catch {}
  const [first] = process.argv.slice(2);
  if (first === "--help" || first === "-h") {
    process.stdout.write(HELP);
  } else if (first !== undefined && first !== "--check") {
    console.error(`error: unknown argument: ${first}\n\n${HELP}`);
    process.exitCode = 2;
  } else if (first === "--check") {
    if (current !== text) {
      console.error("src/tensor/kernels.gen.ts is stale: run `npm run kernels`");
      process.exit(1);
    }
  } else if (current !== text) {
    writeFileSync(target, text);
    console.error("wrote src/tensor/kernels.gen.ts");
  }
}
