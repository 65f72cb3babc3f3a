/**
 * What a public function is called with: options by name, in one object or, as a Python call turns into, in several. They are
 * read once, at the call: what is checked and what is used later, when the device is free, are the same numbers, whatever
 * the caller has done to his arrays since.
 */
import { InputError, nearest } from "./errors.ts";
import { quote, shown } from "./shown.ts";

/** Inputs are nested less deep; what lies deeper is refused where it is looked at. */
const DEEPEST = 8;
/** Of a list. No batch has as many tokens; a slip (`new Array(2 ** 32 - 1)`) should not end in an allocation failure. */
const LONGEST = 2 ** 26;

/**
 * A copy of the lists, typed arrays and plain objects in `value`. What else there is (functions, signals, tokenizers,
 * tensors) is not a number and stays itself.
 *
 * @throws InputError BAD_INPUT for lists beyond any use
 */
export function copyOf<T>(value: T): T {
  return copied(value, 0, new Map()) as T;
}

function copied(value: unknown, depth: number, done: Map<object, unknown>): unknown {
  if (typeof value !== "object" || value === null || depth > DEEPEST) return value;
  if (done.has(value)) return done.get(value);
  const keep = <C>(copy: C): C => {
    done.set(value, copy);
    return copy;
  };
  if (Array.isArray(value)) {
    if (value.length > LONGEST) throw new InputError("BAD_INPUT", `a list of ${value.length} items is too long`);
    const copy: unknown[] = keep([]);
    // By index, for a hole counts as undefined.
    for (let i = 0; i < value.length; i++) copy.push(copied(value[i], depth + 1, done));
    return copy;
  }
  if (value instanceof ArrayBuffer && value.byteLength > 0) return keep(value.slice(0));
  // A detached array is empty, and cannot be copied.
  if (isTypedArray(value)) return value.length > 0 ? keep(sliceOf.call(value)) : value;
  // Numbers with their shape, of whatever class.
  if ("data" in value && "shape" in value) {
    return keep({ data: copied(value.data, depth + 1, done), shape: copied(value.shape, depth + 1, done) });
  }
  const prototype = Object.getPrototypeOf(value);
  const isData = prototype === Object.prototype || prototype === null;
  // An object with methods may be a streamer: what it has of its own changes as it works.
  if (!isData || Object.values(value).some((item) => typeof item === "function")) return value;
  return keep(Object.fromEntries(Object.entries(value).map(([key, item]) => [key, copied(item, depth + 1, done)])));
}

const TypedArray = Object.getPrototypeOf(Uint8Array) as { readonly prototype: Uint8Array };
/** Not a Buffer's own, which copies nothing. */
const sliceOf = TypedArray.prototype.slice as (this: unknown) => unknown;

function isTypedArray(value: object): value is Uint8Array {
  return ArrayBuffer.isView(value) && !(value instanceof DataView);
}

/**
 * The options of a call, copied. Both `f({ ...inputs, max_new_tokens: 3 })` and `f(inputs, { max_new_tokens: 3 })` will do.
 *
 * @param name of the function, for messages
 * @param given its arguments; undefined ones do not count
 * @param most how many objects of options it takes
 * @param before how many arguments come before them
 * @throws InputError ARGUMENTS for what is no object of options, or an option that two of them have; BAD_INPUT
 */
export function optionsOf(name: string, given: readonly unknown[], most = 2, before = 0): Record<string, unknown> {
  refuseMore(name, given, most, before);
  const all = new Map<string, unknown>();
  given.forEach((options, i) => {
    if (options === undefined) return;
    if (!isOptions(options)) {
      const hint = options instanceof Promise ? "it is a promise: await it" : "options are given as { name: value, … }";
      const where = most > 1 ? `argument ${i + 1} of ${name}` : `the options of ${name}`;
      throw new InputError("ARGUMENTS", `${where} must be an object, got ${kindOf(options)}`, { hint });
    }
    for (const [key, value] of Object.entries(options)) {
      if (value === undefined) continue;
      if (all.has(key)) throw new InputError("ARGUMENTS", `${name} was given ${quote(key)} twice`);
      all.set(key, value);
    }
  });
  const done = new Map<object, unknown>();
  return Object.fromEntries([...all].map(([key, value]) => [key, copied(value, 1, done)]));
}

/** An object whose own fields are options: none of the kinds that have their contents elsewhere. */
function isOptions(value: unknown): value is object {
  if (typeof value !== "object" || value === null || Array.isArray(value) || ArrayBuffer.isView(value)) return false;
  return !(value instanceof Promise || value instanceof Map || value instanceof Set || value instanceof AbortSignal);
}

function kindOf(value: unknown): string {
  if (typeof value !== "object" || value === null) return shown(value);
  if (Array.isArray(value)) return "a list";
  return `a ${Object.prototype.toString.call(value).slice(8, -1)}`;
}

/**
 * Throws if a function that takes `most` arguments was given another, which would have no effect.
 *
 * @param before how many there are besides those in `given`
 * @throws InputError ARGUMENTS
 */
export function refuseMore(name: string, given: readonly unknown[], most: number, before = 0): void {
  if (given.slice(most).every((value) => value === undefined)) return;
  const takes = `${most + before} argument${most + before > 1 ? "s" : ""}`;
  const hint = "options are given by their names, in one object";
  throw new InputError("ARGUMENTS", `${name} takes ${takes}, got ${given.length + before}`, { hint });
}

/** What to do instead of an option that is not supported; undefined: this value changes nothing. */
export type Word = (value: unknown) => string | undefined;

/**
 * Throws if `given` has an option that is not in `known`.
 *
 * @param unsupported options that one may come upon elsewhere; null, Python's None, is none of them
 * @throws InputError UNKNOWN_OPTION with the nearest right name, UNSUPPORTED_OPTION with what to do
 */
export function refuseUnknown(
  name: string,
  given: object,
  known: readonly string[],
  unsupported: Readonly<Record<string, Word>> = {},
): void {
  for (const [key, value] of Object.entries(given)) {
    if (known.includes(key)) continue;
    const wordOf = Object.hasOwn(unsupported, key) ? unsupported[key] : undefined;
    if (wordOf) {
      const hint = value === undefined || value === null ? undefined : wordOf(value);
      if (hint === undefined) continue;
      throw new InputError("UNSUPPORTED_OPTION", `${name}: ${key} is not supported here`, { hint });
    }
    throw unknownName(name, key, known);
  }
}

/** The error for a name that is none of `known`; its hint is the nearest of them, unless a better one is given. */
export function unknownName(
  owner: string,
  name: string,
  known: readonly string[],
  { kind = "option", hint }: { kind?: "option" | "field"; hint?: string | undefined } = {},
): InputError {
  const meant = nearest(name, known);
  const code = kind === "option" ? "UNKNOWN_OPTION" : "UNKNOWN_FIELD";
  return new InputError(code, `${owner} has no ${kind} ${quote(name)}`, {
    hint: hint ?? (meant ? `did you mean ${meant}?` : `${kind}s: ${known.join(", ")}`),
  });
}
