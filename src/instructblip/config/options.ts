/**
 * Tables of options, of a call or of a file. A row describes an option completely: its type, check, default, when it has no
 * effect, and its flag on the command line. Types, checks, warnings, help and "did you mean" are derived from the table; the
 * doc comments of its rows are what an editor shows.
 */
import { InputError } from "../../tensor/errors.ts";
import { shown } from "../../tensor/shown.ts";

/** Throws an error with this message. */
export type Fail = (message: string, hint?: string) => never;
/**
 * Throws unless `value` is allowed for `name`: by `fail`, or an InputError PARAM_RANGE. Token ids are below `vocabulary`.
 */
export type Check = (name: string, value: unknown, vocabulary: number, fail?: Fail) => void;

interface Row<Given, Kept> {
  readonly check: Check;
  /** The value of an option that is not given, or null. */
  readonly fallback: Kept;
  readonly off: Kept;
  readonly keep: (value: Given, vocabulary: number) => Kept;
  /** The option without which this one has no effect, and a stricter check for when it has one. */
  readonly needs?: string;
  readonly used?: Check;
  /** Why a value has no effect; undefined for one that has. */
  readonly idle?: (value: Given) => string | undefined;
  /** A warning about a value that is accepted. */
  readonly odd?: (value: Given, vocabulary: number) => string | undefined;
  /** Whether it reads the ids of the prompt. */
  readonly readsPrompt?: boolean;
  /** Its line in the command line's help; without one it has no flag. */
  readonly help?: string;
  /** The flag, if it does not follow from the name. */
  readonly flag?: string;
  /** How a value is parsed on the command line; undefined for a switch. */
  readonly text?: Text;
}

/** How the command line parses a value. */
export interface Text {
  /** In the help: `<n>`. */
  readonly argument: string;
  /** Returns text that is not a value unchanged, for the check to refuse, or undefined. */
  readonly read: (text: string) => unknown;
  /** What the text must be, if `read` returns undefined. */
  readonly must?: string;
  /** The value of a flag without one. */
  readonly bare?: unknown;
}

/** An option: `Given` is the type that a caller passes (besides null), `Kept` the type of the stored value. */
export class Option<Given, Kept = Given | null> {
  readonly row: Row<Given, Kept>;

  constructor(row: Row<Given, Kept>) {
    this.row = row;
  }

  #with(more: Partial<Row<Given, Kept>>): Option<Given, Kept> {
    return new Option({ ...this.row, ...more });
  }

  /** @param off the meaning of null, if not the default */
  default(fallback: Given, off: Given = fallback): Option<Given, Given> {
    return new Option({ ...this.row, keep: (value: Given) => value, fallback, off });
  }

  /** Converts the given value. */
  kept<K>(fallback: K, keep: (value: Given, vocabulary: number) => K): Option<Given, K> {
    return new Option({ ...this.row, keep, fallback, off: fallback });
  }

  /** Has no effect while the option `name` has its default. @param used a stricter check for when it has one */
  needs(name: string, used?: Option<Given, unknown>): Option<Given, Kept> {
    const { check, text } = used?.row ?? {};
    return this.#with({ needs: name, ...(check ? { used: check } : {}), ...(text ? { text } : {}) });
  }

  /** Values that have no effect, and why. */
  idle(why: string, isIdle: (value: Given) => boolean = () => true): Option<Given, Kept> {
    return this.#with({ idle: (value) => (isIdle(value) ? why : undefined) });
  }

  /** Values that are accepted with a warning. */
  odd(odd: (value: Given, vocabulary: number) => string | undefined): Option<Given, Kept> {
    return this.#with({ odd });
  }

  /** Reads the ids of the prompt; there are none where the language model is given embeddings. */
  readsPrompt(): Option<Given, Kept> {
    return this.#with({ readsPrompt: true });
  }

  /** The flag may have no value, and then has this one. */
  bare(bare: Given): Option<Given, Kept> {
    const { text } = this.row;
    return text ? this.#with({ text: { ...text, argument: text.argument.replace(/^<(.*)>$/, "[$1]"), bare } }) : this;
  }

  /** Has a flag on the command line, named after the option unless another name is given. */
  flag(help: string, flag?: string): Option<Given, Kept> {
    return this.#with({ help, ...(flag ? { flag } : {}) });
  }
}

// biome-ignore lint/suspicious/noExplicitAny: an option of any type, whose keep takes that type
export type Options = Readonly<Record<string, Option<any, any>>>;
// biome-ignore lint/suspicious/noExplicitAny: as above
type GivenOf<O> = O extends Option<infer Given, any> ? Given : never;
// biome-ignore lint/suspicious/noExplicitAny: as above
type KeptOf<O> = O extends Option<any, infer Kept> ? Kept : never;
/** The options that a caller passes. `null` switches an option off, as `None` does in Python. */
export type OptionsOf<T extends Options> = { [K in keyof T]?: GivenOf<T[K]> | null };
/** The stored options: every one, with its default. */
export type ValuesOf<T extends Options> = { readonly [K in keyof T]: KeptOf<T[K]> };

/** The type of an object in a file. */
export type FieldsOf<T extends Options> = { readonly [K in keyof T]?: GivenOf<T[K]> };

/** Neither undefined nor null. */
const isGiven = (value: unknown) => value !== undefined && value !== null;

function keptOf({ row }: Options[string], given: unknown, vocabulary: number): unknown {
  return isGiven(given) ? row.keep(given, vocabulary) : given === null ? row.off : row.fallback;
}

/** Every option of a table, with its default if it is not given. Checks nothing. */
export function valuesOf<T extends Options>(table: T, given: OptionsOf<T>, vocabulary = 0): ValuesOf<T> {
  const kept = Object.entries(table).map(([name, row]) => [name, keptOf(row, given[name], vocabulary)]);
  return Object.fromEntries(kept) as ValuesOf<T>;
}

/** Every option of a table, checked, with its default if it is not given. @throws InputError PARAM_RANGE, or by `fail` */
export function readOptions<T extends Options>(table: T, given: OptionsOf<T>, fail?: Fail): ValuesOf<T> {
  for (const name of Object.keys(table)) if (isGiven(given[name])) checkOption(table, name, given, 0, fail);
  return valuesOf(table, given);
}

/** Checks an option; more strictly if it has an effect. @throws InputError PARAM_RANGE, or by `fail` */
export function checkOption<T extends Options>(
  table: T,
  name: string,
  given: OptionsOf<T>,
  vocabulary: number,
  fail?: Fail,
): void {
  const { check, used, needs } = table[name]!.row;
  check(name, given[name], vocabulary, fail);
  if (used && !unmet(table, needs, given)) used(name, given[name], vocabulary, fail);
}

/**
 * Warnings about given options that are odd or have no effect; HF warns of the same.
 *
 * @param hasIds whether the prompt is given as ids
 */
export function warningsOf<T extends Options>(
  table: T,
  given: OptionsOf<T>,
  vocabulary: number,
  hasIds: boolean,
): string[] {
  return Object.entries(table).flatMap(([name, { row }]) => {
    const value = given[name];
    if (!isGiven(value) || value === row.fallback) return [];
    const lines: string[] = [];
    const odd = row.odd?.(value, vocabulary);
    if (odd) lines.push(`${name}: ${odd}`);
    const why = unmet(table, row.needs, given) ?? row.idle?.(value);
    if (why) lines.push(`${name} has no effect: ${why}`);
    if (row.readsPrompt && !hasIds) {
      lines.push(
        `${name} counts new tokens only: the prompt is given as embeddings (a checkpoint without image_token_index)`,
      );
    }
    return lines;
  });
}

/** Why an option that `needs` another one has no effect: the other has its default. */
function unmet<T extends Options>(table: T, needs: string | undefined, given: OptionsOf<T>): string | undefined {
  if (needs === undefined) return undefined;
  const { fallback } = table[needs]!.row;
  if ((given[needs] ?? fallback) !== fallback) return undefined;
  return typeof fallback === "boolean" ? `${needs} is not ${!fallback}` : `${needs} is ${shown(fallback)}`;
}

// --- checks ------------------------------------------------------------------------------------------------------------

const paramRange: Fail = (message, hint) => {
  throw new InputError("PARAM_RANGE", message, { hint });
};

export function refuse(name: string, must: string, value: unknown, hint?: string, fail: Fail = paramRange): never {
  return fail(`${name} must be ${must}, got ${shown(value)}`, hint);
}

export const is =
  (must: string, holds: (value: unknown) => boolean, hint?: string): Check =>
  (name, value, _vocabulary, fail) => {
    if (!holds(value)) refuse(name, must, value, hint, fail);
  };

/** A list whose items pass `item`. @param must the message for a value that is not a list, or has another length */
export const listOf =
  (item: Check, must: string, least = 0, most = Number.POSITIVE_INFINITY): Check =>
  (name, value, vocabulary, fail) => {
    if (!Array.isArray(value) || value.length < least || value.length > most) {
      refuse(name, must, value, undefined, fail);
    }
    for (const one of value as unknown[]) item(name, one, vocabulary, fail);
  };

/** One, or a list. */
export const oneOrList =
  (one: Check, list: Check): Check =>
  (name, value, vocabulary, fail) =>
    (Array.isArray(value) ? list : one)(name, value, vocabulary, fail);

// --- kinds -------------------------------------------------------------------------------------------------------------

/** An option of any kind. */
export function option<Given>(check: Check, text?: Text): Option<Given> {
  return new Option<Given>({ check, fallback: null, off: null, keep: (value) => value, ...(text ? { text } : {}) });
}

/** Text that is not a number is left to the check. */
const numeric = (argument: string, pattern: RegExp): Text => ({
  argument,
  read: (text) => (pattern.test(text) && !Number.isNaN(Number(text)) ? Number(text) : text),
});
const DIGITS = /^-?[0-9]+$/;

/** @param high the largest value; shown only if it is given */
export function whole(low: number, high = Number.MAX_SAFE_INTEGER): Option<number> {
  const must = `a whole number of at least ${low}${high === Number.MAX_SAFE_INTEGER ? "" : `, at most ${high}`}`;
  const fits = (value: unknown) => Number.isSafeInteger(value) && (value as number) >= low && (value as number) <= high;
  return option(is(must, fits), numeric("<n>", DIGITS));
}

/** Finite. */
export function number(
  must = "a number",
  holds: (value: number) => boolean = () => true,
  { hint, argument = "<x>" }: { hint?: string; argument?: string } = {},
): Option<number> {
  const fits = (value: unknown) => typeof value === "number" && Number.isFinite(value) && holds(value);
  return option(is(must, fits, hint), numeric(argument, /\S/));
}

export const above = (low: number, hint?: string): Option<number> =>
  number(`a number above ${low}`, (value) => value > low, hint ? { hint } : {});

export const flag = (): Option<boolean, boolean> =>
  option<boolean>(is("true or false", (value) => typeof value === "boolean")).default(false);

/** Choices that make the help's first column no wider are shown in it. */
const MOST_SHOWN = 24;

export function oneOf<const C extends readonly unknown[]>(...choices: C): Option<C[number]> {
  const must = choices
    .map(shown)
    .join(", ")
    .replace(/, ([^,]*)$/, " or $1");
  return option(
    is(must, (value) => choices.includes(value)),
    {
      argument: choices.join("|").length <= MOST_SHOWN ? `<${choices.join("|")}>` : "<s>", // then its help has them
      read: (text) => choices.find((choice) => String(choice) === text) ?? text,
    },
  );
}

export const isId = (value: unknown, vocabulary: number): boolean =>
  Number.isInteger(value) && (value as number) >= 0 && (value as number) < vocabulary;

export const checkId: Check = (name, value, vocabulary, fail) =>
  is(`a token id below ${vocabulary}`, () => isId(value, vocabulary))(name, value, vocabulary, fail);
export const checkIds = listOf(checkId, "lists of at least one token id", 1);
const checkAnyId = is("a token id", Number.isSafeInteger);
const checkAnyIds = listOf(checkAnyId, "a list of token ids");

const missing = (ids: number | readonly number[], vocabulary: number) => {
  const wrong = [ids].flat().find((one) => !isId(one, vocabulary));
  return wrong === undefined ? undefined : `no token has the id ${wrong}`;
};

/** An id that may be out of the vocabulary, with a warning: such an end id ends nothing. HF warns of negative ones. */
export const anyId = (): Option<number> => option<number>(checkAnyId, numeric("<id>", DIGITS)).odd(missing);

/** As anyId, one or a list. */
export const anyIdOrIds = (): Option<number | readonly number[]> =>
  option<number | readonly number[]>(oneOrList(checkAnyId, checkAnyIds), {
    argument: "<ids>",
    read: (text) => (/^[0-9]+(,[0-9]+)*$/.test(text) ? text.split(",").map(Number) : undefined),
    must: "token ids, separated by commas: 2 or 2,29871",
  }).odd(missing);

/** As anyId, a list; only ids of tokens are stored. */
export const anyIds = (): Option<readonly number[], readonly number[]> =>
  option<readonly number[]>(checkAnyIds)
    .odd(missing)
    .kept<readonly number[]>([], (ids, vocabulary) => ids.filter((one) => isId(one, vocabulary)));

/** A list of functions. @param of their parameters */
export const functions = <F>(of: string): Option<readonly F[]> =>
  option(listOf(isFunction(of), `a list of functions of ${of}`));

export const isFunction = (of: string): Check => is(`a function of ${of}`, (value) => typeof value === "function");
