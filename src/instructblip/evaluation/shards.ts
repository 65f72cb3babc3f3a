/**
 * Shards: interleaved parts of one run, each in a file of its own: a line with the settings of the run, then a line for each item.
 */
import { InputError } from "../../tensor/errors.ts";
import { isObject, parseObject } from "./task.ts";

/** The `i`-th of `n` interleaved shards, from 0. */
export interface Shard {
  readonly i: number;
  readonly n: number;
}

/** How many of `items` a shard has. */
export function sizeOf({ i, n }: Shard, items: number): number {
  return Math.max(0, Math.ceil((items - i) / n));
}

/** Lines of a shard, after a line with the settings of its run. */
export interface ShardPart<S extends { readonly shard: Shard }, R> {
  readonly settings: S;
  readonly rows: readonly R[];
}

/** What is joined: its settings' differences, how many rows they have in all, and what these are called. */
interface Joined<S> {
  readonly difference: (a: S, b: S) => string | undefined;
  readonly total: (settings: S) => number;
  readonly what: string;
  readonly command: string;
}

/** Whether a value says which shard it is of. */
export function hasShard(value: unknown): value is { readonly shard: Shard } {
  const { i, n } = (isObject(value) && isObject(value.shard) ? value.shard : {}) as Partial<Shard>;
  return Number.isSafeInteger(i) && Number.isSafeInteger(n) && i! >= 0 && i! < n!;
}

/** What a command writes. */
interface PartFormat<S, R> {
  readonly command: string;
  /** What a line is about: `question`. */
  readonly what: string;
  /** What a line is: `a prediction`. */
  readonly line: string;
  /** The settings that the first line has. Undefined if they do not fit. */
  readonly settings: (first: Readonly<Record<string, unknown>>) => S | undefined;
  /** A line's content. Undefined if it does not fit. */
  readonly row: (value: Readonly<Record<string, unknown>>, settings: S) => R | undefined;
}

/** Reads the file of a shard line by line. @throws InputError BAD_PART */
export class PartReader<S extends { readonly shard: Shard }, R extends { readonly index: number }> {
  readonly #name: string;
  readonly #format: PartFormat<S, R>;
  readonly #rows: R[] = [];
  readonly #seen = new Set<number>();
  #settings: S | undefined;
  #line = 0;

  constructor(name: string, format: PartFormat<S, R>) {
    this.#name = name;
    this.#format = format;
  }

  add(text: string): void {
    const where = `${this.#name}: line ${++this.#line}`;
    const refuse = (message: string): never => {
      throw new InputError("BAD_PART", `${where}: ${message}`);
    };
    const { command, what, line, settings, row } = this.#format;
    const value = parseObject(text, "BAD_PART", where);
    if (!this.#settings) {
      this.#settings = settings(value) ?? refuse(`not the first line of a file written by ${command} --out`);
      return;
    }
    const { i, n } = this.#settings.shard;
    const found = row(value, this.#settings) ?? refuse(`this is not ${line} written by ${command}`);
    const { index } = found;
    if (index % n !== i) refuse(`${what} ${index} is not in shard ${i}/${n}`);
    if (this.#seen.has(index)) refuse(`${what} ${index} is there twice`);
    this.#seen.add(index);
    this.#rows.push(found);
  }

  /** The file's content; undefined for an empty file. */
  file(): ShardPart<S, R> | undefined {
    return this.#settings && { settings: this.#settings, rows: this.#rows };
  }
}

/** Whether a row's index is that of one of `count` items. */
export function isIndex(index: unknown, count: number): index is number {
  return Number.isSafeInteger(index) && (index as number) >= 0 && (index as number) < count;
}

/** Merges the files of all shards of a run. @throws InputError PARTS_DIFFER, PARTS_MISSING, PART_UNFINISHED */
export function joinShards<S extends { readonly shard: Shard }, R>(
  parts: ReadonlyMap<string, ShardPart<S, R>>,
  { difference, total, what, command }: Joined<S>,
): ShardPart<S, R> {
  const [head, ...others] = parts;
  if (!head) throw new InputError("PARTS_MISSING", "there are no files to merge");
  const [firstName, first] = head;
  const { n } = first.settings.shard;
  const names = new Map([[first.settings.shard.i, firstName]]);
  for (const [name, { settings }] of others) {
    const other = settings.shard.n === n ? difference(first.settings, settings) : "shard";
    if (other)
      throw new InputError("PARTS_DIFFER", `${name} and ${firstName} are not of one run: they differ in ${other}`);
    const twin = names.get(settings.shard.i);
    if (twin !== undefined) {
      throw new InputError("PARTS_DIFFER", `${name} and ${twin} are the same shard, ${settings.shard.i}/${n}`);
    }
    names.set(settings.shard.i, name);
  }
  const missing = Array.from({ length: n }, (_, i) => i).filter((i) => !names.has(i));
  if (missing.length > 0) {
    throw new InputError("PARTS_MISSING", `shards are missing: ${missing.map((i) => `${i}/${n}`).join(", ")}`);
  }
  for (const [name, { settings, rows }] of parts) {
    const size = sizeOf(settings.shard, total(settings));
    if (rows.length === size) continue;
    const message = `${name}: ${rows.length} of ${size} ${what} are done`;
    throw new InputError("PART_UNFINISHED", message, { hint: `${command} --resume completes it` });
  }
  return {
    settings: { ...first.settings, shard: { i: 0, n: 1 } },
    rows: [...parts.values()].flatMap(({ rows }) => rows),
  };
}
