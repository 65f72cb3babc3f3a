/** A case of a target: drawing, running and judging it, and saving it to a file. */
import { Random } from "../random.ts";
import { type Case, isTyped, type Prepared } from "./target.ts";

export type Kind = "untyped" | "message" | "slow" | "hang" | "crash" | "memory";

export interface Finding {
  readonly kind: Kind;
  readonly what: string;
}

/** Processor time a case may take, in seconds: the machine may be busy with others. */
export const MOST_SECONDS = 5;
/** A person shall read it. */
const MOST_MESSAGE = 3100;
/** What a case may add to the process, in bytes: images of the largest size that is allowed take most of it. */
const MOST_MEMORY = 2 ** 31;

/** A case by target, seed and number: every one has a generator of its own. */
export function caseOf(prepared: Prepared, seed: number, index: number): Case {
  return prepared.make(new Random(Math.imul(seed ^ 0x5bd1e995, 0x9e3779b1) ^ Math.imul(index + 1, 0x85ebca6b)));
}

/** Runs a case; undefined if it held. */
export async function judge(prepared: Prepared, given: Case): Promise<Finding | undefined> {
  const start = process.cpuUsage();
  let messages: readonly string[] = [];
  try {
    messages = await prepared.run(given);
  } catch (error) {
    if (!isTyped(error)) {
      const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
      return { kind: "untyped", what: text.slice(0, 4000) };
    }
    messages = [error.message];
  }
  const odd = messages.find((message) => !isReadable(message));
  if (odd !== undefined)
    return { kind: "message", what: `${odd.length} characters: ${JSON.stringify(odd.slice(0, 300))}` };
  const { user, system } = process.cpuUsage(start);
  const seconds = (user + system) / 1e6;
  if (seconds > MOST_SECONDS) return { kind: "slow", what: `${seconds.toFixed(1)} s of processor time` };
  const bytes = process.memoryUsage.rss();
  if (bytes > MOST_MEMORY) return { kind: "memory", what: `the process takes ${Math.round(bytes / 2 ** 20)} MiB` };
  return undefined;
}

const OBEYED =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
  /[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/;

/** Bounded, and free of what a terminal obeys; lines after the first are indented. */
export function isReadable(message: string): boolean {
  const text = message.replaceAll(/\n {4}/g, " ");
  return message.length <= MOST_MESSAGE && !OBEYED.test(text);
}

/** What two cases that show one fault have in common: the kind, and where it was thrown. */
export function signatureOf({ kind, what }: Finding): string {
  const frame = /\n\s+at (.*)/.exec(what)?.[1];
  if (frame) return `${kind} ${what.slice(0, what.search(/\W/))} ${frame}`;
  return `${kind} ${what.replaceAll(/\\?"(?:[^"\\]|\\.)*"|\d+/g, "…").slice(0, 100)}`;
}

export interface CaseFile {
  readonly target: string;
  readonly seed: number;
  readonly index: number;
  readonly finding?: Finding;
  readonly given: Case;
}

export function writeCase(file: CaseFile): string {
  const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString("base64");
  const files = Object.fromEntries(Object.entries(file.given.files).map(([name, bytes]) => [name, base64(bytes)]));
  return `${JSON.stringify({ ...file, given: { ...file.given, files } }, null, 1)}\n`;
}

export function readCase(text: string): CaseFile {
  const file = JSON.parse(text) as CaseFile & { given: { files: Record<string, string> } };
  const bytes = (base64: string) => new Uint8Array(Buffer.from(base64, "base64"));
  const files = Object.fromEntries(Object.entries(file.given.files).map(([name, base64]) => [name, bytes(base64)]));
  return { ...file, given: { ...file.given, files } };
}
