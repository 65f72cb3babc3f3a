/** Results of checks, and their text. */

/** One check: a kernel's variant at many shapes, or many answers in one mode. */
export interface Check {
  /** `linear tile`, `answers int4`. */
  readonly name: string;
  /**
   * Whether this adapter uses it, at one of the shapes at least; other variants are used on other adapters, or by
   * `INSTRUCTBLIP_PLAN`.
   */
  readonly used: boolean;
  /** Shapes, or answers, that were checked, wrong ones included. */
  readonly count: number;
  /** The largest fraction of a tolerance that was used; null for answers. */
  readonly share: number | null;
  readonly wrong: readonly Wrong[];
  readonly skipped: readonly { readonly what: string; readonly why: string }[];
  readonly ms: number;
}

/** A shape, or an answer, that is wrong. */
export interface Wrong {
  /** The shape, or the image and the question. */
  readonly what: string;
  readonly why: string;
  /** Files of the kernels that were launched, each with its parts: `kernels/matmul/matmul_tile.wgsl (weight_int8, …)`. */
  readonly kernels: readonly string[];
}

/** Callbacks and options of a run. */
export interface Watch {
  readonly signal?: AbortSignal | undefined;
  /** Called with the name of the current check. */
  readonly progress?: ((text: string) => void) | undefined;
  /** Whether a check is to be run, by its name. Default: all. */
  readonly wanted?: ((name: string) => boolean) | undefined;
}

/** Accumulates the results of a {@link Check}. */
export class Tally {
  readonly #name: string;
  readonly #wrong: Wrong[] = [];
  readonly #skipped: { what: string; why: string }[] = [];
  #used = false;
  #count = 0;
  #share: number | null = null;
  #ms = 0;

  constructor(name: string) {
    this.#name = name;
  }

  right(share: number | null): void {
    this.#count++;
    if (share !== null) this.#share = Math.max(this.#share ?? 0, share);
  }

  wrong(wrong: Wrong): void {
    this.#count++;
    this.#wrong.push(wrong);
  }

  skipped(what: string, why: string): void {
    this.#skipped.push({ what, why });
  }

  used(): void {
    this.#used = true;
  }

  took(ms: number): void {
    this.#ms += ms;
  }

  check(): Check {
    return {
      name: this.#name,
      used: this.#used,
      count: this.#count,
      share: this.#share,
      wrong: this.#wrong,
      skipped: this.#skipped,
      ms: Math.round(this.#ms),
    };
  }
}

/** Most shapes that are listed for a wrong check. */
const SPELLED_OUT = 3;

/** The text of a check: one line, more if it is wrong. */
export function formatCheck({ name, used, count, share, wrong, skipped }: Check): string {
  const [first] = skipped;
  const left = first ? `, ${skipped.length} skipped: ${first.why}` : "";
  const label = `${name}${used ? " *" : ""}`.padEnd(38);
  if (wrong.length === 0) {
    const word = count > 0 ? "ok   " : "-    ";
    const most = share === null ? "" : `, at most ${percent(share)} of the tolerance`;
    return `${word}  ${label}  ${count} right${most}${left}\n`;
  }
  const lines = wrong.slice(0, SPELLED_OUT).map(({ what, why }) => `         ${what}: ${why}\n`);
  const more = wrong.length > SPELLED_OUT ? `         and ${wrong.length - SPELLED_OUT} more\n` : "";
  const kernels = suspects([{ name, wrong }]).map((kernel) => `         ${kernel}\n`);
  return [`WRONG  ${label}  ${wrong.length} of ${count}${left}\n`, ...lines, more, ...kernels].join("");
}

/**
 * The kernels that ran in wrong checks, the most frequent first. A kernel whose own op is right in all variants is excluded,
 * unless there is no other.
 */
export function suspects(checks: readonly Pick<Check, "name" | "wrong">[]): string[] {
  const counts = new Map<string, number>();
  for (const { wrong } of checks) {
    for (const kernel of new Set(wrong.flatMap(({ kernels }) => kernels.map((kernel) => kernel.replace(/ .*/, ""))))) {
      counts.set(kernel, (counts.get(kernel) ?? 0) + 1);
    }
  }
  const opOf = ({ name }: Pick<Check, "name">) => name.replace(/ .*/s, "");
  const wrongOps = new Set(checks.filter(({ wrong }) => wrong.length > 0).map(opOf));
  const rightOps = checks.map(opOf).filter((op) => !wrongOps.has(op));
  const isRight = (kernel: string) => rightOps.some((op) => kernel.replace(/^.*\//, "").startsWith(op));
  const sorted = [...counts].sort(([, a], [, b]) => b - a).map(([kernel]) => kernel);
  const left = sorted.filter((kernel) => !isRight(kernel));
  return left.length > 0 ? left : sorted;
}

/** The message without its hint. */
export function firstLine(message: string): string {
  return message.replace(/\n.*/s, "");
}

function percent(share: number): string {
  return share > 0 && share < 0.01 ? "1 %" : `${Math.round(100 * share)} %`;
}
