/** What a check found, and how it is said. */

/** One check: a kernel's variant at many shapes, or many answers in one mode. */
export interface Check {
  /** `linear tile`, `answers int4`. */
  readonly name: string;
  /** Whether this adapter uses it, at one of the shapes at least; the other variants are for other adapters, or for `INSTRUCTBLIP_PLAN`. */
  readonly used: boolean;
  /** Shapes, or answers, that were checked, wrong ones too. */
  readonly count: number;
  /** The largest share of a tolerance that was used; null of answers, which are right or wrong. */
  readonly share: number | null;
  readonly wrong: readonly Wrong[];
  readonly skipped: readonly { readonly what: string; readonly why: string }[];
  readonly ms: number;
}

/** A shape, or an answer, that came out wrong. */
export interface Wrong {
  /** The shape, or the image and the question. */
  readonly what: string;
  readonly why: string;
  /** Files of the kernels that were launched, each with its parts: `kernels/matmul/matmul_tile.wgsl (weight_int8, …)`. */
  readonly kernels: readonly string[];
}

/** How a run goes on, and ends. */
export interface Watch {
  readonly signal?: AbortSignal | undefined;
  /** Told what is being checked. */
  readonly progress?: ((text: string) => void) | undefined;
  /** Whether a check is to be run, by its name. Default: all. */
  readonly wanted?: ((name: string) => boolean) | undefined;
}

/** Adds up what is found for a {@link Check}. */
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

/** So many shapes are spelled out of a check that is wrong. */
const SPELLED_OUT = 3;

/** A line for a check; more of one that is wrong. */
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
 * The kernels that ran where something came out wrong, the one that most checks have in common first. One whose own op is
 * right in all variants is none of them, unless there is no other.
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

/** What a message says, without its hint. */
export function firstLine(message: string): string {
  return message.replace(/\n.*/s, "");
}

function percent(share: number): string {
  return share > 0 && share < 0.01 ? "1 %" : `${Math.round(100 * share)} %`;
}
