/**
 * What the programs of the npm scripts share. Each has its arguments and help in one file and its work in another, imported when
 * the arguments are right, so that `--help` and mistyped options respond at once.
 */
import { Interrupted } from "../src/instructblip/cli/format.ts";
import { exitWithReader } from "../src/instructblip/cli/terminal.node.ts";

/** A wrong argument. */
export class UsageError extends Error {}

/**
 * Runs a program, which returns its exit code. An error is one on stderr, and exit code 2 for a wrong argument, else 1. An
 * interrupted program, which has removed what it had made by then, has its signal's exit code.
 */
export async function runScript(main: () => Promise<number>): Promise<void> {
  exitWithReader();
  try {
    process.exitCode = await main();
  } catch (error) {
    if (error instanceof Interrupted) {
      process.exitCode = error.exitCode;
      return;
    }
    const { message, code } = error as Error & { code?: string };
    const usage = error instanceof UsageError || code?.startsWith("ERR_PARSE_ARGS");
    console.error(`error: ${withoutAdvice(message)}${usage ? "\n    hint: --help lists the options" : ""}`);
    process.exitCode = usage ? 2 : 1;
  }
}

/** What parseArgs says of a value with a dash in front, `--workers -1`, in the words of the others. */
export function withoutAdvice(message: string): string {
  const [, option] = /^Option '(?:-\w, )?(--[\w-]+)' argument is ambiguous/.exec(message) ?? [];
  return option === undefined ? message : `${option} needs a value; of one that begins with a dash, ${option}=VALUE`;
}

/** @throws UsageError if an option is given without any of those that it goes with */
export function goesWith(values: Readonly<Record<string, unknown>>, option: string, others: readonly string[]): void {
  if (!values[option] || others.some((other) => values[other])) return;
  throw new UsageError(`--${option} goes with ${others.map((other) => `--${other}`).join(" or ")}`);
}

/** A number of rounds and the like. @throws UsageError */
export function wholeNumber(option: string, text: string): number {
  if (/^[1-9]\d{0,3}$/.test(text)) return Number(text);
  throw new UsageError(`${option} must be a whole number from 1 to 9999, got "${text}"`);
}

/** @throws UsageError */
export function regularExpression(option: string, text: string): RegExp {
  try {
    return new RegExp(text);
  } catch (cause) {
    throw new UsageError(`${option}: ${(cause as Error).message}`, { cause });
  }
}
