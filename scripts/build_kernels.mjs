// Writes src/tensor/kernels.gen.ts: the text of every kernels/**/*.wgsl as a module of strings, so that Node, a bundler
// and the browser read the same thing. `--check` only says whether the module is fresh.
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, relative, sep } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const target = join(root, "src/tensor/kernels.gen.ts");

const HELP = `usage: npm run kernels [-- --check]
       npm run -s kernels -- show NAME [slot=part …] [OVERRIDE=VALUE …]

Writes src/tensor/kernels.gen.ts, the text of every kernels/**/*.wgsl.

  --check   write nothing; exit 1 if the file is stale, or a kernel of one's own is named without a file
  show      print a kernel as it is compiled, with its parts; comments say from which file lines come,
            and which parts and overrides can be chosen

  npm run -s kernels -- show matmul_tile weight=weight_int4 input=input_scalar FACTORS=2
  npm run -s kernels -- show kernels/rows/softmax.wgsl | less
`;

/** The text of every kernel and part by its path in kernels/, without its ending. */
export function readKernels(from = root) {
  const files = readdirSync(join(from, "kernels"), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith(".wgsl"))
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
  const stems = new Map();
  const texts = {};
  for (const file of files) {
    const name = relative(join(from, "kernels"), file)
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
    texts[name] = text;
  }
  return texts;
}

/** Kernels that own_kernels.ts names and that have no file, as messages. @param texts of readKernels */
export function missingKernels(texts, from = root) {
  const table = readFileSync(join(from, "src/tensor/device/own_kernels.ts"), "utf8");
  const stems = new Set(Object.keys(texts).map((name) => name.replace(/^.*\//, "")));
  const named = [...table.matchAll(/^ {2}(\w+): \[(.*)\],$/gm)].flatMap(([, op, names]) =>
    [...names.matchAll(/"(\w+)"/g)].map(([, variant]) => ({ op, variant })),
  );
  return named
    .filter(({ op, variant }) => !stems.has(`${op}_${variant}`))
    .map(({ op, variant }) => {
      return `src/tensor/device/own_kernels.ts names ${variant} of ${op}, but there is no ${op}_${variant}.wgsl: bring it back, or take the name out`;
    });
}

/** The generated module's text. */
export function generate(from = root) {
  const entries = Object.entries(readKernels(from)).map(([name, text]) => `  ${JSON.stringify(name)}: \`${text}\`,\n`);
  return (
    "// Generated from kernels/**/*.wgsl by `npm run kernels`. Do not edit.\n" +
    `export const KERNELS: Readonly<Record<string, string>> = {\n${entries.join("")}};\n`
  );
}

/** Prints a kernel; its reader may close the pipe. */
async function print(args) {
  (await import("tsx/esm/api")).register();
  const { messageOf, show } = await import("./show_kernel.ts");
  process.stdout.on("error", ({ code }) => process.exit(code === "EPIPE" ? 141 : 1));
  try {
    process.stdout.write(show(args, readKernels()));
  } catch (error) {
    console.error(`error: ${messageOf(error)}`);
    process.exitCode = 2;
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [first, ...rest] = process.argv.slice(2);
  const unknown =
    first === "show" ? rest.find((arg) => arg.startsWith("-")) : [first, ...rest][first === "--check" ? 1 : 0];
  if ([first, ...rest].some((arg) => arg === "--help" || arg === "-h")) {
    process.stdout.write(HELP);
  } else if (unknown !== undefined) {
    console.error(`error: unknown argument: ${unknown}\n\n${HELP}`);
    process.exitCode = 2;
  } else if (first === "show") {
    await print(rest);
  } else {
    const missing = missingKernels(readKernels());
    for (const message of missing) console.error(`error: ${message}`);
    if (missing.length > 0) process.exit(1);
    const text = generate();
    let current = "";
    try {
      current = readFileSync(target, "utf8");
    } catch {}
    if (first === "--check" && current !== text) {
      console.error("src/tensor/kernels.gen.ts is stale: run `npm run kernels`");
      process.exitCode = 1;
    } else if (first !== "--check" && current !== text) {
      writeFileSync(target, text);
      console.error("wrote src/tensor/kernels.gen.ts");
    }
  }
}
