/**
 * The arguments of public functions: options by name, in one object or in several. They are copied at the call, so that what
 * is checked is what is used later, when the device is free, even if the caller has changed his arrays since.
 */
import { InputError, nearest } from "./errors.ts";
import { quote, shown } from "./shown.ts";

/** Deepest nesting that is copied. No valid input is nested as deep; a deeper one is refused by its own check. */
const DEEPEST = 8;
/** Longest list. No batch has as many tokens; a mistake (`new Array(2 ** 32 - 1)`) must not end in an allocation failure. */
const LONGEST = 2 ** 26;

/**
 * A copy of the lists, typed arrays and plain objects in `value`. Functions, signals, tokenizers and tensors are not copied.
 *
 * @throws InputError BAD_INPUT for a list that is too long
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
    // By index: a hole counts as undefined.
    for (let i = 0; i < value.length; i++) copy.push(copied(value[i], depth + 1, done));
    return copy;
  }
  if (value instanceof ArrayBuffer && value.byteLength > 0) return keep(value.slice(0));
  // A detached array is empty, and cannot be copied.
  if (isTypedArray(value)) return value.length > 0 ? keep(sliceOf.call(value)) : value;
  // Numbers with a shape, of any class.
  if ("data" in value && "shape" in value) {
    return keep({ data: copied(value.data, depth + 1, done), shape: copied(value.shape, depth + 1, done) });
  }
  const prototype = Object.getPrototypeOf(value);
  const isData = prototype === Object.prototype || prototype === null;
  // An object with methods may be a streamer, whose fields change as it works.
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
 * The options of a call, copied. Accepts both `f({ ...inputs, max_new_tokens: 3 })` and `f(inputs, { max_new_tokens: 3 })`.
 *
 * @param name of the function, for messages
 * @param given its arguments; undefined ones do not count
 * @param most how many objects of options it takes
 * @param before how many arguments come before them
 * @throws InputError ARGUMENTS for an argument that is not an object of options, or an option given twice; BAD_INPUT
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

/** Whether a value is an object whose own fields are options, not an array, Map, promise or the like. */
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
 * Throws if a function was given more than the `most` arguments that it takes.
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
 * @param unsupported options that other libraries have; null, Python's None, counts as not given
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
