/**
 * The errors this project throws. Each class has a stable `code` for programs and a message for people: where, what is
 * required, what was given, and a hint if there is a likely cause. The command line prints message and hint, without a
 * stack.
 */
import { bounded } from "./shown.ts";

/** Longest message. A safety net: untrusted data in a message is bounded by `quote` or `shown`. */
const MOST_MESSAGE = 2000;
const MOST_HINT = 1000;

/** Base of every error thrown on purpose. `code` is stable across versions; `message` is not. */
export class EngineError extends Error {
  // Written out in every class, because a page's bundler shortens those of classes.
  override readonly name: string = "EngineError";
  /** Stable, upper-case, for programs: `SHAPE`, `MISSING_TENSORS`, `NO_ADAPTER`, … */
  readonly code: string;
  /** A likely cause or remedy, shown on a line of its own. */
  readonly hint: string | undefined;

  constructor(code: string, message: string, options: { hint?: string | undefined; cause?: unknown } = {}) {
    const hint = options.hint && bounded(options.hint, MOST_HINT);
    const text = bounded(message, MOST_MESSAGE);
    const line = `\n    hint: ${hint}`; // there already if the message is that of an error this one is made of
    super(hint && !text.endsWith(line) ? `${text}${line}` : text, options.cause ? { cause: options.cause } : {});
    this.code = code;
    this.hint = hint;
  }
}

/** A tensor has another shape than the operation needs. */
export class ShapeError extends EngineError {
  override readonly name = "ShapeError";

  constructor(message: string, hint?: string) {
    super("SHAPE", message, { hint });
  }
}

/** A tensor holds another type of number than the operation needs. */
export class DTypeError extends EngineError {
  override readonly name = "DTypeError";

  constructor(message: string, hint?: string) {
    super("DTYPE", message, { hint });
  }
}

/** A checkpoint file is damaged, or lacks what the model needs. */
export class WeightError extends EngineError {
  override readonly name = "WeightError";
}

/** A config file is damaged, or has an impossible or unsupported value. */
export class ConfigError extends EngineError {
  override readonly name = "ConfigError";
}

/** A WGSL kernel does not compile or was launched wrongly; the message starts with `kernels/FAMILY/NAME.wgsl:line:column`. */
export class KernelError extends EngineError {
  override readonly name = "KernelError";
}

/** No adapter, a lost device, a limit or the memory budget exceeded. */
export class DeviceError extends EngineError {
  override readonly name = "DeviceError";
}

/** An argument cannot be used: an image, a prompt, an option. */
export class InputError extends EngineError {
  override readonly name = "InputError";
}

/** A result is NaN or infinite where a finite number is needed. Its code is `NUMERIC`. */
export class NumericError extends EngineError {
  override readonly name = "NumericError";
  /** The first module, in the order they run, whose output has a NaN or an infinity, by its path in the checkpoint. */
  readonly module: string | undefined;

  constructor(message: string, options: { hint?: string | undefined; module?: string | undefined } = {}) {
    super("NUMERIC", message, options);
    this.module = options.module;
  }
}

/** Steps of a search, each a pair of characters: a fraction of a second. A file may have 100,000 names of 1,000 letters. */
const MOST_STEPS = 2 ** 25;

/**
 * The closest of `candidates` to a mistyped `name`, if any is close enough to be worth suggesting: by its letters, else
 * because it is `name` with words left out, as `max_tokens` is max_new_tokens. Among very many it looks at the first.
 */
export function nearest(name: string, candidates: Iterable<string>): string | undefined {
  let left = MOST_STEPS;
  let best: string | undefined;
  let bestDistance = Math.max(2, Math.floor(name.length / 3)) + 1;
  for (const candidate of candidates) {
    if (Math.abs(candidate.length - name.length) >= bestDistance) continue; // the distance is no less
    left -= (name.length + 1) * (candidate.length + 1);
    if (left < 0) break;
    const distance = editDistance(name, candidate);
    if (distance < bestDistance) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best ?? withItsWords(name, candidates);
}

/** The one candidate with the fewest words that has all of the name's, if these are more than half of its letters. */
function withItsWords(name: string, candidates: Iterable<string>): string | undefined {
  const wordsOf = (text: string): readonly string[] =>
    text
      .replace(/([a-z])([A-Z])/g, "$1_$2")
      .toLowerCase()
      .match(/[a-z0-9]+/g) ?? [];
  const asked = wordsOf(name);
  let best: { readonly candidate: string | undefined; readonly words: number } | undefined;
  for (const candidate of candidates) {
    if (2 * name.length <= candidate.length) continue;
    const words = wordsOf(candidate);
    if (!asked.every((word) => words.includes(word)) || words.length > (best?.words ?? words.length)) continue;
    const isAlone = words.length < (best?.words ?? Number.POSITIVE_INFINITY);
    best = { candidate: isAlone ? candidate : undefined, words: words.length };
  }
  return asked.length > 0 ? best?.candidate : undefined;
}

/** Levenshtein distance, one row at a time. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      next[j] = Math.min(next[j - 1]! + 1, row[j]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1));
    }
    row = next;
  }
  return row[b.length]!;
}
