/** The generated pages of docs/: errors.md, command_line.md and presets.md. */
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import ts from "typescript";
import { WORTH_A_RETRY } from "../src/instructblip/cli/format.ts";
import { runCommandLine } from "../src/instructblip/cli/program.node.ts";
import type { Run } from "../src/instructblip/cli/session.node.ts";
import { presetRows } from "../src/instructblip/evaluation/preset_list.ts";
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

/** docs/presets.md. */
export function presetsPage(): string {
  const code = (text: string) => `\`${text.replaceAll("|", "\\|").replaceAll("\n", "\\n")}\``;
  const rows = presetRows().map(({ name, prompt, images, answers, metric, source }) => {
    const transform = images.endsWith("_eval") ? code(images) : images;
    const from = source.replace(/(projects|configs)\/[^;, ]+/g, code);
    return `| ${code(name)} | ${code(prompt)} | ${transform} | ${answers} | ${metric} | ${from} |`;
  });
  return `# Presets of tasks

${GENERATED}

A task of \`instructblip evaluate\` may name a preset, and override any part of it: \`{"preset": "lavis-gqa-vicuna"}\`.
The report then says which parts are overridden. A preset of LAVIS for Vicuna or for T5 is refused for any other language model.
\`instructblip evaluate --list-presets\` prints this table.

## As LAVIS to the token

Presets \`lavis-*\`, and tasks with \`"lavis": true\`, do what LAVIS does at 506965b with transformers 4.33.2, which it pins:

- Vicuna's prompts begin with \`</s>\`, which LAVIS makes the tokenizer's beginning-of-sequence token.
- The Q-Former reads an instruction's last 128 tokens, \`[CLS]\` and \`[SEP]\` included.
- Questions go through LAVIS's text processors, \`{question:blip_question}\` and \`{question:blip_caption}\`.
- Vicuna's rows begin with a start token that is not in the answer. LAVIS's \`max_len\` and \`min_len\` count it, so that presets
  have one token less; repetition is penalised of it and of the answer, not of the prompt (\`penalize_prompt\`).
- Beams are scored and ended as in transformers 4.33 (\`beam_rules\`).
- Vicuna's answers end at its tokenizer's \`</s>\`, whatever the config says, and id 0 in them is left out.
- Candidates are ranked without an end token for Vicuna, with one for T5; \`"ranking": {"n_segments": 2}\` is its \`n_segments\`.
- Images go through \`blip_image_eval\`, which squeezes them as Hugging Face does, or \`clip_image_eval\`, which keeps the middle.

Not here: the lemmatizer, off by default; mixed precision; and how LAVIS reads videos (decord, four frames drawn at random): the
task's data has the frames.

What LAVIS's own files do may surprise: those of OK-VQA and MSRVTT-QA write the prompt where only captions read it, so that the
question alone is asked. \`{"preset": "lavis-okvqa-vicuna", "prompt": "Question: {question:blip_caption} Short Answer:"}\` asks as
they seem to mean.

## What each is held to

[test/instructblip/evaluation/lavis.test.ts](../test/instructblip/evaluation/lavis.test.ts) holds every preset \`lavis-*\`:

- from a file under \`projects/\`: to the prompt and all options that LAVIS's data set, task and model make of the file
- from a file under \`configs/datasets/\`: to what LAVIS's data set makes of a row, and its model of the paper's prompt
- from the paper's prompt in LAVIS's functions: to what \`predict_answers\` or \`_predict_class\` make of it; there is no data set

and what its \`generate\`, \`predict_answers\`, \`predict_class\` and image transforms compute to tokens, ranks and pixels, on tiny
weights. Presets \`paper-*\` are the paper's text, which no program prints: their prompts are held to nothing but it.

| preset | prompt | images | answers | metric | from |
| --- | --- | --- | --- | --- | --- |
${rows.join("\n")}
`;
}

/** The pages, by their paths. */
export async function pages(): Promise<Map<string, string>> {
  return new Map([
    ["docs/errors.md", errorsPage()],
    ["docs/command_line.md", await commandLinePage()],
    ["docs/presets.md", presetsPage()],
  ]);
}
