/** Running the command line in a test: in this process with a terminal made of strings, or as a child process. */
import { type ChildProcess, spawn } from "node:child_process";
import { cp } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { onTestFinished } from "vitest";
import type { Interrupted } from "../../../src/instructblip/cli/format.ts";
import { runCommandLine } from "../../../src/instructblip/cli/program.node.ts";
import type { Terminal } from "../../../src/instructblip/cli/terminal.node.ts";
import { compiled, PATIENT } from "../../compiled.ts";
import { withoutDawn } from "../../dawn.ts";
import { goldenFolder } from "../../golden_folder.ts";
import { onOneGpu } from "../../one_gpu.ts";
import { Golden } from "../../parity/golden.ts";
import { temporaryFolder } from "../../temporary.ts";

export const ROOT = dirname(dirname(dirname(dirname(fileURLToPath(import.meta.url)))));

/** The embedded checkpoint's folder, and one of its images. */
export const SHAPES = join(ROOT, "examples/shapes");
export const SHAPES_IMAGE = join(SHAPES, "images/a.png");

/** A command that asks the embedded checkpoint about the image. */
export const askShapes = (command: string, prompt = "What color is the square?"): readonly string[] => [
  ...[command, "--model", join(SHAPES, "checkpoint")],
  ...["--image", SHAPES_IMAGE, "--prompt", prompt],
];

export interface Outcome {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface CliOptions {
  /** stdout and stderr are a terminal. */
  readonly terminal?: boolean;
  /** Sees every piece of stdout; what it returns, if anything, interrupts the run. */
  readonly onOut?: (text: string) => Interrupted | undefined;
}

/** Runs a command line in this process. */
export async function cli(args: readonly string[], { terminal = false, onOut }: CliOptions = {}): Promise<Outcome> {
  let [stdout, stderr] = ["", ""];
  const interruption = new AbortController();
  const written: Terminal = {
    out: async (text) => {
      stdout += text;
      const reason = onOut?.(text);
      if (reason) interruption.abort(reason);
    },
    err: (text) => {
      stderr += text;
    },
    outIsTerminal: terminal,
    errIsTerminal: terminal,
    columns: 80,
    color: terminal,
  };
  const code = await onOneGpu(() => runCommandLine(args, { terminal: written, signal: interruption.signal }));
  return { code, stdout, stderr };
}

/** What is said of a batch whose shorter prompts end in padding, as they do where tokenizer_config.json says "right". */
export const PADDED_RIGHT =
  "a prompt is padded on the right: its answer goes on from the padding; " +
  'give the processor padding_side: "left", or write it into tokenizer_config.json';

/** As `cli`, for a run that must succeed with these warnings on stderr and nothing else. Gives stdout's lines as JSON. */
export async function json<T>(args: readonly string[], warnings: readonly string[] = []): Promise<T[]> {
  const { code, stdout, stderr } = await cli(args);
  const expected = warnings.map((warning) => `warning: ${warning}\n`).join("");
  if (code !== 0 || stderr !== expected) throw new Error(`exit code ${code}\n${stderr}`);
  return stdout
    .split("\n")
    .slice(0, -1)
    .map((line) => JSON.parse(line) as T);
}

export interface Child {
  readonly process: ChildProcess;
  readonly ended: Promise<Outcome & { readonly signal: NodeJS.Signals | null }>;
  /** Resolves when stdout holds this many whole lines. */
  lines(count: number): Promise<void>;
}

const MAIN = "src/instructblip/cli/main.ts";

/** Starts the command line as a child process. */
export function startCli(args: readonly string[], env: Readonly<Record<string, string>> = {}): Child {
  return start(process.execPath, [compiled(MAIN), ...args], env);
}

/** Starts a shell with `instructblip` as a function, for pipes and redirections. */
export function startShell(script: string): Child {
  const wrapped = `instructblip() { ${process.execPath} ${compiled(MAIN)} "$@"; }\n${script}`;
  return start("bash", ["-c", wrapped], {});
}

function start(command: string, args: readonly string[], env: Readonly<Record<string, string>>): Child {
  const child = spawn(command, args, { cwd: ROOT, env: { ...process.env, ...PATIENT, ...env }, stdio: "pipe" });
  let [stdout, stderr] = ["", ""];
  const waiting: { count: number; resolve: () => void }[] = [];
  const wake = () => {
    for (const { count, resolve } of waiting) if (stdout.split("\n").length > count) resolve();
  };
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
    wake();
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  return {
    process: child,
    ended: new Promise((resolve, reject) => {
      child.on("error", reject);
      child.on("close", (code, signal) => resolve({ code: code ?? -1, signal, stdout, stderr: withoutDawn(stderr) }));
    }),
    lines: (count) =>
      new Promise((resolve, reject) => {
        waiting.push({ count, resolve });
        child.on("close", () => reject(new Error(`ended with:\n${stdout}\n${stderr}`)));
        wake();
      }),
  };
}

/** A golden that is closed after the test, whether it passes or not. */
export async function openGolden(folder: string): Promise<Golden> {
  const golden = await Golden.open(folder);
  onTestFinished(() => golden.close());
  return golden;
}

/** A golden's folder to damage. */
export async function copyOfGolden(name: string): Promise<string> {
  const folder = join(temporaryFolder(), "model");
  await cp(goldenFolder(name), folder, { recursive: true });
  return folder;
}
