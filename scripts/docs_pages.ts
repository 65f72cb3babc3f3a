/** The generated pages of docs/: errors.md and command_line.md. */
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import ts from "typescript";
import { WORTH_A_RETRY } from "../src/instructblip/cli/format.ts";
import { runCommandLine } from "../src/instructblip/cli/program.node.ts";
import type { Run } from "../src/instructblip/cli/session.node.ts";
import { ENV } from "../src/tensor/env.ts";
import { ERROR_CODES } from "./error_codes.ts";

const ROOT = fileURLToPath(new URL("..", import.meta.url));

/** Where a code is thrown. */
interface Thrown {
  readonly classes: Set<string>;
  /** Folders of src. */
  readonly rooms: Set<string>;
}

/** Functions that throw errors: the argument with the code, and the class. */
const HELPERS: Readonly<Record<string, readonly [argument: number, error: string]>> = {
  refuse: [0, "WeightError"],
  inEntry: [0, "WeightError"],
  inTensor: [0, "WeightError"],
  "this.#refuse": [0, "WeightError"],
  failure: [0, "WeightError"],
  refusal: [0, "WeightError"],
  parseObject: [1, "InputError"],
  textOf: [1, "InputError"],
  strings: [0, "InputError"],
  parseRecord: [2, "ConfigError"],
  "this.#driver.wait": [2, "KernelError"],
};

/** Codes that are not the first argument of an error: from a table, a default, or the command line. */
const NAMED: Readonly<Record<string, string>> = {
  ADAPTER: "WeightError",
  QUANTIZED_CHECKPOINT: "WeightError",
  OTHER_WEIGHTS: "WeightError",
  GPU: "DeviceError",
  INTERNAL: "any other error",
  INTERRUPTED: "-",
  UNKNOWN_FIELD: "InputError",
  UNKNOWN_OPTION: "InputError",
};

/** Every code that src throws. */
function thrownCodes(): Map<string, Thrown> {
  const codes = new Map<string, Thrown>();
  const files = readdirSync(join(ROOT, "src"), { recursive: true, encoding: "utf8" });
  for (const file of files.filter((name) => name.endsWith(".ts") && !name.endsWith(".gen.ts")).sort()) {
    const room = dirname(file.replaceAll("\\", "/"));
    const add = (code: string, error: string) => {
      if (!/^[A-Z][A-Z0-9_]+$/.test(code)) return;
      const { classes, rooms } = codes.get(code) ?? { classes: new Set(), rooms: new Set() };
      codes.set(code, { classes: classes.add(error), rooms: rooms.add(room) });
    };
    const visit = (node: ts.Node, around: string) => {
      const name = ts.isClassDeclaration(node) ? (node.name?.text ?? around) : around;
      if (ts.isNewExpression(node) && /Error$/.test(node.expression.getText())) {
        for (const code of textsOf(node.arguments?.[0])) add(code, node.expression.getText());
      } else if (ts.isCallExpression(node)) {
        const called = node.expression.getText();
        if (called === "super") for (const code of textsOf(node.arguments[0])) add(code, name);
        const made = ts.isCallExpression(node.expression) && node.expression.expression.getText() === "refuser";
        const [argument, error] = HELPERS[made ? "refuse" : called] ?? [];
        if (argument !== undefined) for (const code of textsOf(node.arguments[argument])) add(code, error!);
      } else if (
        (ts.isPropertyAssignment(node) || ts.isParameter(node) || ts.isVariableDeclaration(node)) &&
        node.name.getText() === "code"
      ) {
        for (const code of textsOf(node.initializer)) {
          if (Object.hasOwn(NAMED, code)) add(code, NAMED[code]);
        }
      }
      ts.forEachChild(node, (child) => visit(child, name));
    };
    const text = readFileSync(join(ROOT, "src", file), "utf8");
    visit(ts.createSourceFile(file, text, ts.ScriptTarget.Latest, true), "");
  }
  return codes;
}

/** The possible strings of an expression. */
function textsOf(node: ts.Expression | undefined): string[] {
  if (!node) return [];
  if (ts.isStringLiteralLike(node)) return [node.text];
  if (ts.isParenthesizedExpression(node)) return textsOf(node.expression);
  if (ts.isConditionalExpression(node)) return [...textsOf(node.whenTrue), ...textsOf(node.whenFalse)];
  return [];
}

const GENERATED = "<!-- Made by `npm run docs`. Do not edit. -->";

/** docs/errors.md. @throws Error if a code has no meaning, or a meaning no code */
export function errorsPage(): string {
  const codes = thrownCodes();
  const without = [...codes.keys()].filter((code) => !Object.hasOwn(ERROR_CODES, code));
  const unused = Object.keys(ERROR_CODES).filter((code) => !codes.has(code));
  const where = "scripts/error_codes.ts";
  if (without.length > 0) throw new Error(`${where} does not say what these codes mean: ${without.join(", ")}`);
  if (unused.length > 0) throw new Error(`${where} has codes that src does not throw: ${unused.join(", ")}`);
  const rows = [...codes]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([code, { classes, rooms }]) => {
      const places = [...rooms].sort().map((room) => `\`${room}\``);
      return `| \`${code}\` | ${[...classes].sort().join(", ")} | ${ERROR_CODES[code]} | ${places.join(", ")} |`;
    });
  return `# Errors

${GENERATED}

Every error thrown on purpose is an \`EngineError\` with a \`code\`, stable across versions, and a message for people, which is
not. Some have a \`hint\`: a likely cause or remedy. The class tells what the error is about:

| class | about |
| --- | --- |
| \`InputError\` | an argument: an image, a prompt, an option |
| \`ConfigError\` | a config file |
| \`WeightError\` | a checkpoint's file, or access to it |
| \`DeviceError\` | the adapter, its memory or its limits |
| \`KernelError\` | a kernel or a launch: an internal error |
| \`ShapeError\`, \`DTypeError\` | a tensor's shape or dtype |
| \`NumericError\` | NaN or an infinity; \`module\` is the first module whose output has it |

A signal's reason is thrown as it is. The command line prints message and hint; the line of a failed request has the code. What
may be gone later, or elsewhere, ends it with exit code 75: ${WORTH_A_RETRY.map((code) => `\`${code}\``).join(", ")}.

| code | class | meaning | thrown in src/ |
| --- | --- | --- | --- |
${rows.join("\n")}
`;
}

/** What the command line prints. */
async function helpOf(args: readonly string[]): Promise<string> {
  let text = "";
  const out = async (piece: string) => {
    text += piece;
  };
  await runCommandLine([...args, "--help"], {
    terminal: { out, err: out, errIsTerminal: false } as unknown as Run["terminal"],
    signal: new AbortController().signal,
  });
  return text.trim();
}

/** docs/command_line.md. */
export async function commandLinePage(): Promise<string> {
  const top = await helpOf([]);
  const commands = [...top.matchAll(/^ {2}([a-z]+) .*$/gm)].map(([, name]) => name).filter((name) => name !== "help");
  const exits = /\n\nExit codes:\n(?: {2}.*\n?)+/;
  const sections = [];
  for (const command of commands) {
    const help = (await helpOf([command])).replace(exits, "\n").trimEnd();
    sections.push(`## ${command}\n\n\`\`\`\n${help}\n\`\`\`\n`);
  }
  const settings = [
    ...Object.entries(ENV),
    ["INSTRUCTBLIP_CACHE", "the cache folder of SwiftShader and tuned plans"],
    ["HF_HOME, HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE", "as in huggingface_hub"],
    ["INSTRUCTBLIP_PYTHON", "a Python with the packages of test/golden/requirements.txt, for `npm run parity`"],
  ].map(([names, what]) => `| ${names.replace(/\w+/g, "`$&`")} | ${what.replaceAll("|", "\\|")} |`);
  return `# Command line

${GENERATED}

In the repository write \`npm run -s instructblip -- …\`, once installed \`npx instructblip …\`. Results go to stdout,
progress to stderr: in a log one line per minute.

\`\`\`
${top.replace(/\n\nEnvironment:\n(?: {2}.*\n?)+/, "\n").trimEnd()}
\`\`\`

${sections.join("\n")}
## Settings

| variable | |
| --- | --- |
${settings.join("\n")}
`;
}

/** The pages, by their paths. */
export async function pages(): Promise<Map<string, string>> {
  return new Map([
    ["docs/errors.md", errorsPage()],
    ["docs/command_line.md", await commandLinePage()],
  ]);
}
