/** Formats numbers, tables and errors for the command line. Pure: without a terminal. */
import { DeviceError, DTypeError, EngineError, KernelError, ShapeError } from "../../tensor/errors.ts";

/** Exit codes, as `--help` lists them. */
export const EXIT = {
  ok: 0,
  /** The model, an image, a prompt or an option cannot be used. */
  refused: 1,
  /** The command line itself is wrong. */
  usage: 2,
  /** Some of `--requests` failed; the line of each has its error. */
  someFailed: 3,
  /** What `compare` compared is different. */
  different: 3,
  /** An internal error (sysexits.h, EX_SOFTWARE). */
  internal: 70,
  /** The same command may succeed later, or elsewhere (sysexits.h, EX_TEMPFAIL). */
  retry: 75,
  sigint: 130,
  sigpipe: 141,
  sigterm: 143,
} as const;

/** Codes of errors that are worth a retry: of the device, its memory, the network, or a file in use. */
export const WORTH_A_RETRY: readonly string[] = [
  "DEVICE_LOST",
  "GPU_OOM",
  "GPU_TIMEOUT",
  "NO_DEVICE",
  "HTTP_BUSY",
  "HTTP_SLOW",
  "HTTP_TIMEOUT",
  "HTTP_UNREACHABLE",
  "HUB_BUSY",
  "HUB_UNREACHABLE",
  "OUT_LOCKED",
];

/** Whether an error of this code may be gone later, so that a resumed run asks a request that had it again. */
export const isWorthARetry = (code: string | undefined) => code !== undefined && WORTH_A_RETRY.includes(code);

/** The exit code of a run that goes on after failed requests: the gravest of theirs. */
export function gravest(exitCode: number, ofRequest: number): number {
  const order: readonly number[] = [EXIT.ok, EXIT.someFailed, EXIT.retry, EXIT.internal];
  const failed = order.includes(ofRequest) ? ofRequest : EXIT.someFailed;
  return order.indexOf(failed) > order.indexOf(exitCode) ? failed : exitCode;
}

/** The reason with which a run is aborted. */
export class Interrupted extends Error {
  readonly exitCode: number;

  constructor(exitCode: number) {
    super("interrupted");
    this.exitCode = exitCode;
  }
}

/** Message and exit code of an error. An interruption has no message. */
export interface Description {
  readonly message: string | undefined;
  /** The error's stable code. */
  readonly code: string;
  readonly exitCode: number;
}

/** Formats an error for a terminal. */
export function describeError(error: unknown): Description {
  if (error instanceof Interrupted) return { message: undefined, code: "INTERRUPTED", exitCode: error.exitCode };
  if (error instanceof EngineError && !isInternal(error)) {
    const exitCode = isWorthARetry(error.code) ? EXIT.retry : EXIT.refused;
    return { message: `error: ${error.message}`, code: error.code, exitCode };
  }
  const code = error instanceof EngineError ? error.code : "INTERNAL";
  const text = error instanceof Error ? error.message : String(error);
  const message =
    `error: something went wrong inside the program (${code}): ${text}\n` +
    "    please report this, with the command and the lines printed by INSTRUCTBLIP_DEBUG=1";
  return { message, code, exitCode: EXIT.internal };
}

/** Whether an error is an internal one. */
function isInternal(error: EngineError): boolean {
  return error instanceof KernelError || error instanceof ShapeError || error instanceof DTypeError;
}

/** Whether the device is lost or unusable. */
export function endsRun(error: unknown): boolean {
  if (error instanceof Interrupted || error instanceof KernelError) return true;
  return error instanceof DeviceError && ["DEVICE_LOST", "DISPOSED", "GPU_OOM"].includes(error.code);
}

/** Codes of errors of options that all questions or rows share: every one would have them. */
export const OF_SHARED_OPTIONS = new Set(["UNSUPPORTED_OPTION", "UNKNOWN_OPTION", "PARAM_RANGE", "BEAM_LIMIT"]);

/** `850 ms`, `12.3 s`, `4 min 05 s`, `1 h 02 min`. */
export function formatDuration(ms: number): string {
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  if (ms < 59_950) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  const two = (n: number) => String(Math.floor(n)).padStart(2, "0");
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${two(seconds % 60)} s`;
  return `${Math.floor(seconds / 3600)} h ${two((seconds % 3600) / 60)} min`;
}

/** Shortest time from which a rate is extrapolated. */
const SEEN_MS = 3000;

/**
 * Estimates the remaining time from the rate after the first part, which is slower, as kernels are compiled, or faster, as
 * an earlier run has done it.
 */
export class Pace {
  readonly #now: () => number;
  #first: { readonly done: number; readonly at: number } | undefined;

  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  /** Milliseconds left; undefined while unknown. Call it from the first progress on. */
  left(done: number, total: number): number | undefined {
    const at = this.#now();
    this.#first ??= { done, at };
    const [parts, ms] = [done - this.#first.done, at - this.#first.at];
    return parts > 0 && ms >= SEEN_MS ? (ms / parts) * (total - done) : undefined;
  }
}

/** `12 of 100  1.5/s  59 s left  2 failed`; `left` in milliseconds. */
export function progressText(
  { done, failed }: { done: number; failed: number },
  total: number | undefined,
  ms: number,
  left: number | undefined,
): string {
  const rate = (done / ms) * 1000;
  const parts = [total === undefined ? `${done} done` : `${done} of ${total}`];
  parts.push(rate >= 0.1 ? `${rate.toFixed(1)}/s` : `${formatDuration(ms / done)} each`);
  if (left !== undefined) parts.push(`${formatDuration(left)} left`);
  if (failed) parts.push(`${failed} failed`);
  return parts.join("  ");
}

/** `7.91 B`, `97.6 k`: for parameters. */
export function formatCount(count: number): string {
  for (const [unit, size] of [
    ["B", 1e9],
    ["M", 1e6],
    ["k", 1e3],
  ] as const) {
    // Three digits; 999.95 M would print as 1000.0 M, so the next unit takes over a little early.
    if (count >= size * 0.9995) return `${(count / size).toPrecision(3)} ${unit}`;
  }
  return String(count);
}

/** Rows of cells in columns two spaces apart; columns in `right` are right-aligned. */
export function formatTable(rows: readonly (readonly string[])[], right: readonly number[] = []): string {
  const widths: number[] = [];
  for (const row of rows) {
    row.forEach((cell, i) => {
      widths[i] = Math.max(widths[i] ?? 0, cell.length);
    });
  }
  const padded = (cell: string, i: number) => (right.includes(i) ? cell.padStart(widths[i]!) : cell.padEnd(widths[i]!));
  return rows.map((row) => `${row.map(padded).join("  ").trimEnd()}\n`).join("");
}
