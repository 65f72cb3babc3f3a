/** The files of a kernel of one's own; see kernel_new.ts. */
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { OWN_KERNELS, ownVariants } from "../src/tensor/device/own_kernels.ts";
import { VARIANTS } from "../src/tensor/device/variants.ts";
import { nearest } from "../src/tensor/errors.ts";
import { KERNELS } from "../src/tensor/kernels.gen.ts";
import { quote } from "../src/tensor/shown.ts";
// @ts-expect-error: plain JavaScript.
import { generate } from "./build_kernels.mjs";
import { UsageError } from "./script.ts";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const TABLE = "src/tensor/device/own_kernels.ts";
const GENERATED = "src/tensor/kernels.gen.ts";

/**
 * Writes a variant's files, and returns their paths.
 *
 * @param root of the repository, or of a copy of its kernels/ and src/
 * @throws UsageError for an op that has none, or a name that is taken or cannot be one; nothing is written then
 */
export function newVariant(op: string, variant: string, root: string = ROOT): string[] {
  expectOp(op);
  if (!/^[a-z][a-z0-9]*(_[a-z0-9]+)*$/.test(variant) || variant.length > 40) {
    throw new UsageError(
      `${quote(variant)} cannot be a variant's name: lower-case letters and digits, a letter first, with single underscores, at most 40`,
    );
  }
  const kernel = `${op}_${variant}`;
  const taken = new Set<string>([...VARIANTS.row, ...VARIANTS.logits, ...ownVariants(op)]);
  if (taken.has(variant)) {
    throw new UsageError(`${op} has a variant ${variant} already: ${[...taken].join(", ")}`);
  }
  const family = familyOf(op, root);
  const path = `kernels/${family}/${kernel}.wgsl`;
  const stems = Object.keys(KERNELS).map((name) => name.replace(/^.*\//, ""));
  if (stems.includes(kernel) || existsSync(join(root, path))) {
    throw new UsageError(`there is a kernel ${kernel}.wgsl already; choose another name`);
  }
  const table = readFileSync(join(root, TABLE), "utf8");
  const row = new RegExp(`^  ${op}: \\[(.*)\\],$`, "m");
  const [line, names] = row.exec(table) ?? [];
  if (line === undefined) throw new UsageError(`${TABLE} has no line of ${op}`);
  const listed = `${names ? `${names}, ` : ""}"${variant}"`;

  writeFileSync(join(root, path), variantText(readFileSync(join(root, `kernels/${family}/${op}.wgsl`), "utf8"), op));
  writeFileSync(join(root, TABLE), table.replace(row, `  ${op}: [${listed}],`));
  writeFileSync(join(root, GENERATED), generate(root));
  return [path, TABLE, GENERATED];
}

/** What to do next, as docs/kernels.md has it. */
export function nextSteps(op: string, variant: string): string {
  return [
    `Change the kernel, and give it a header of its own. Then`,
    `  npm run kernels`,
    `  npm test -- test/kernels/${op}.test.ts test/architecture.test.ts test/tensor/wgsl.test.ts`,
    `  npm run bench -- --filter "^${op} " --json ${variant}.jsonl`,
    `  INSTRUCTBLIP_PLAN=${op}=${variant} npm run -s instructblip -- demo`,
  ].join("\n");
}

function expectOp(op: string): void {
  const ops = Object.keys(OWN_KERNELS);
  if (ops.includes(op)) return;
  const all = readdirSync(join(ROOT, "src/tensor/ops")).map((name) => name.replace(/\.ts$/, ""));
  if (all.includes(op)) {
    throw new UsageError(
      `${op} cannot have a kernel in place of its own: its op chooses among kernels, or has no plan; docs/kernels.md has the steps by hand. Those that can: ${ops.join(", ")}`,
    );
  }
  const near = nearest(op, [...ops, ...all]);
  throw new UsageError(`there is no op ${quote(op)}${near ? `; did you mean ${near}?` : `: ${ops.join(", ")}`}`);
}

function familyOf(op: string, root: string): string {
  const families = readdirSync(join(root, "kernels"));
  const family = families.find((name) => existsSync(join(root, "kernels", name, `${op}.wgsl`)));
  if (family === undefined) throw new UsageError(`there is no kernel ${op}.wgsl`);
  return family;
}

/** The copy of a kernel, with a line in its header that says what it is. */
function variantText(text: string, op: string): string {
  const lines = text.split("\n");
  const end = lines.findIndex((line) => !line.startsWith("//") || line.startsWith("// @"));
  const note = `// In place of ${op}.wgsl, whose bindings, Params, slots and dispatch it has.`;
  return [...lines.slice(0, end), note, ...lines.slice(end)].join("\n");
}
