/**
 * Where the command line writes: results to stdout and nothing else there; messages and progress to stderr, where it is one
 * line that is rewritten on a terminal, and a line a minute elsewhere, as in a cluster's log. A closed stdout (`| head`) ends the run quietly.
 */
import { InputError } from "../../tensor/errors.ts";
import { escaped } from "../../tensor/shown.ts";
import { EXIT, Interrupted } from "./format.ts";

/** What commands write to; tests give one of their own. */
export interface Terminal {
  /** A result, handed to the system when the promise resolves. @throws Interrupted when nobody reads any more; InputError IO */
  out(text: string): Promise<void>;
  /** A message. */
  err(text: string): void;
  readonly outIsTerminal: boolean;
  readonly errIsTerminal: boolean;
  /** Characters in a line of stderr's terminal. */
  readonly columns: number;
  /** Whether stderr may be coloured; NO_COLOR and TERM=dumb say no. */
  readonly color: boolean;
}

/** The process's own stdout and stderr. `onClosed` is called once when stdout is closed by its reader. */
export function processTerminal(onClosed: (reason: Interrupted) => void): Terminal {
  const { stdout, stderr } = process;
  let failed: Error | undefined;
  const fail = (error: NodeJS.ErrnoException): Error => {
    if (failed) return failed;
    const interrupted = error.code === "EPIPE" ? new Interrupted(EXIT.sigpipe) : undefined;
    failed = interrupted ?? new InputError("IO", `stdout cannot be written: the system reports ${error.code}`);
    if (interrupted) onClosed(interrupted);
    return failed;
  };
  stdout.on("error", fail);
  stderr.on("error", () => {}); // nobody is left to be told
  return {
    out: (text) =>
      new Promise((resolve, reject) => {
        if (failed) return reject(failed);
        stdout.write(stdout.isTTY ? escaped(text) : text, (error) => (error ? reject(fail(error)) : resolve()));
      }),
    err: (text) => {
      stderr.write(text);
    },
    outIsTerminal: Boolean(stdout.isTTY),
    errIsTerminal: Boolean(stderr.isTTY) && process.env.TERM !== "dumb",
    get columns() {
      return stderr.columns || 80;
    },
    color: Boolean(stderr.isTTY) && stderr.hasColors(),
  };
}

/** For scripts that print by console.log: ends the process when its stdout cannot be written any more, quietly if its reader has gone. */
export function exitWithReader(): void {
  const { stdout, stderr } = process;
  stderr.on("error", () => {}); // nobody is left to be told
  stdout.on("error", ({ code }: NodeJS.ErrnoException) => {
    if (code === "EPIPE") process.exit(EXIT.sigpipe);
    stderr.write(`error: stdout cannot be written: the system reports ${code}\n`);
    process.exit(EXIT.refused);
  });
}

const COLORS = { red: 31, yellow: 33 } as const;

/** Says something on stderr: `error: …`, `warning: …`, `note: …`; the first word is coloured where that is wanted. */
export function say(terminal: Terminal, message: string): void {
  const text = escaped(message);
  const word = /^(error|warning):/.exec(text)?.[0];
  const color = word === "error:" ? COLORS.red : COLORS.yellow;
  const shown = terminal.color && word ? `\x1b[${color}m${word}\x1b[0m${text.slice(word.length)}` : text;
  terminal.err(`${shown}\n`);
}

/** Says where an error came from, and its causes, if INSTRUCTBLIP_DEBUG asks for it. */
export function sayStack(terminal: Terminal, error: unknown): void {
  if (process.env.INSTRUCTBLIP_DEBUG !== "1") return;
  const stackOf = (thrown: unknown): string => {
    if (!(thrown instanceof Error)) return String(thrown);
    return `${thrown.stack}${thrown.cause ? `\ncaused by: ${stackOf(thrown.cause)}` : ""}`;
  };
  say(terminal, stackOf(error));
}

/** How often a progress line is rewritten on a terminal. */
const INTERVAL_MS = 100;
/** How often there is a line of progress elsewhere; what takes less has none. */
const LOG_INTERVAL_MS = 60_000;

/** One line of progress, rewritten in place on a terminal, a line a minute elsewhere. */
export class Progress {
  readonly #terminal: Terminal;
  readonly #now: () => number;
  #shown = 0;
  #at = Number.NEGATIVE_INFINITY;
  #loggedAt: number;

  constructor(terminal: Terminal, now: () => number = () => performance.now()) {
    this.#terminal = terminal;
    this.#now = now;
    this.#loggedAt = now();
  }

  /** Shows a line in place of the last one, unless that one is very recent. */
  show(text: string): void {
    const now = this.#now();
    if (!this.#terminal.errIsTerminal) {
      if (now - this.#loggedAt < LOG_INTERVAL_MS) return;
      this.#loggedAt = now;
      say(this.#terminal, text);
      return;
    }
    if (now - this.#at < INTERVAL_MS) return;
    this.#at = now;
    const line = escaped(text).slice(0, this.#terminal.columns - 1); // a full line would wrap, and then stay
    this.#terminal.err(`\r${line.padEnd(this.#shown)}`);
    this.#shown = line.length;
  }

  /** Shows a text that grows, on one line: its end, if there is no room for all of it. */
  showEnd(text: string): void {
    const line = text.replace(/\s+/g, " ").trim();
    const room = this.#terminal.columns - 1;
    const end = line.slice(1 - room).replace(/^[\udc00-\udfff]/, ""); // half of a character
    this.show(line.length > room ? `…${end}` : line);
  }

  /** Wipes the line: before anything else is written, and at the end. */
  clear(): void {
    if (this.#shown) this.#terminal.err(`\r${" ".repeat(this.#shown)}\r`);
    this.#shown = 0;
    this.#at = Number.NEGATIVE_INFINITY;
  }
}
