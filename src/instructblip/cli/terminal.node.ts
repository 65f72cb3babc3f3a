/**
 * Output of the command line: results only to stdout; messages and progress to stderr. Progress is one line that is
 * rewritten on a terminal, and elsewhere, as in a cluster's log, a line per minute. A closed stdout (`| head`) ends the run
 * without an error.
 */
import { InputError } from "../../tensor/errors.ts";
import { systemReason } from "../../tensor/files/system_error.ts";
import { escaped } from "../../tensor/shown.ts";
import { EXIT, Interrupted } from "./format.ts";

/** The interface that commands write to; tests implement it. */
export interface Terminal {
  /** Writes a result, which is written when the promise resolves. @throws Interrupted if stdout is closed; InputError IO */
  out(text: string): Promise<void>;
  /** Writes a message. */
  err(text: string): void;
  readonly outIsTerminal: boolean;
  readonly errIsTerminal: boolean;
  /** Width of stderr's terminal. */
  readonly columns: number;
  /** Whether stderr may be coloured; not with NO_COLOR or TERM=dumb. */
  readonly color: boolean;
}

/** The process's own stdout and stderr. `onClosed` is called once when stdout is closed by its reader. */
export function processTerminal(onClosed: (reason: Interrupted) => void): Terminal {
  const { stdout, stderr } = process;
  let failed: Error | undefined;
  const fail = (error: NodeJS.ErrnoException): Error => {
    if (failed) return failed;
    const interrupted = error.code === "EPIPE" ? new Interrupted(EXIT.sigpipe) : undefined;
    failed = interrupted ?? new InputError("IO", `stdout cannot be written: ${systemReason(error)}`);
    if (interrupted) onClosed(interrupted);
    return failed;
  };
  stdout.on("error", fail);
  stderr.on("error", () => {}); // nobody reads the message
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

/**
 * For scripts that print by console.log: ends the process when stdout cannot be written, without an error if its reader has
 * closed it.
 */
export function exitWithReader(): void {
  const { stdout, stderr } = process;
  stderr.on("error", () => {}); // nobody is left to be told
  stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE") process.exit(EXIT.sigpipe);
    stderr.write(`error: stdout cannot be written: ${systemReason(error)}\n`);
    process.exit(EXIT.refused);
  });
}

const COLORS = { red: 31, yellow: 33 } as const;

/** Prints to stderr: `error: …`, `warning: …`, `note: …`; the first word may be coloured. */
export function say(terminal: Terminal, message: string): void {
  const text = escaped(message);
  const word = /^(error|warning):/.exec(text)?.[0];
  const color = word === "error:" ? COLORS.red : COLORS.yellow;
  const shown = terminal.color && word ? `\x1b[${color}m${word}\x1b[0m${text.slice(word.length)}` : text;
  terminal.err(`${shown}\n`);
}

/** Prints an error's stack and causes if INSTRUCTBLIP_DEBUG is set. */
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
/** Interval of progress lines elsewhere; shorter work has none. */
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

  /** Replaces the line, unless it is very recent. */
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

  /** Shows growing text on one line: its end, if it is too long. */
  showEnd(text: string): void {
    const line = text.replace(/\s+/g, " ").trim();
    const room = this.#terminal.columns - 1;
    const end = line.slice(1 - room).replace(/^[\udc00-\udfff]/, ""); // half of a character
    this.show(line.length > room ? `…${end}` : line);
  }

  /** Clears the line, before other output and at the end. */
  clear(): void {
    if (this.#shown) this.#terminal.err(`\r${" ".repeat(this.#shown)}\r`);
    this.#shown = 0;
    this.#at = Number.NEGATIVE_INFINITY;
  }
}
