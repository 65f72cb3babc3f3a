/** Mutations drawn from a seed: of JSON values, and of bytes. */
import type { Random } from "../random.ts";

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

export function pick<T>(random: Random, list: readonly T[]): T {
  return list[random.int(0, list.length)];
}

export function chance(random: Random, probability: number): boolean {
  return random.next() < probability;
}

/** Stands in a value for JSON text that no value can be: deeper than a stack, a million numbers, NaN. */
const RAW = "@@raw:";
const raw = (text: string): string => RAW + text;

const NAMES = [
  "",
  "a",
  "__proto__",
  "constructor",
  "toString",
  "length",
  "toJSON",
  "then",
  "\u202eabc\u009b2J",
  "\ud800",
];

const SMALL: readonly Json[] = [
  ...[null, true, false, 0, -0, -1, 1, 2, 3, 7, 0.5, -1.5, 100, 1000, 65_536, 2e8, 2 ** 31, 2 ** 32, 2 ** 53, 1e20],
  ...[1e308, -1e308, 5e-324],
  ...NAMES,
  ...["\n", "\0", "\u001b[2J", "é", "😀", "▁", "x".repeat(300)],
  ...[[], [[]], [null], [1, 2], ["a", "b"], {}, { a: {} }, { toString: 1 }, { length: -1 }],
];

/** A value that a field may not expect. */
export function odd(random: Random): Json {
  if (chance(random, 0.94)) return structuredClone(pick(random, SMALL));
  const n = pick(random, [10, 200, 5000, 100_000]);
  switch (random.int(0, 7)) {
    case 0:
      return raw("[".repeat(n) + "]".repeat(n));
    case 1:
      return raw('{"a":'.repeat(n) + "1" + "}".repeat(n));
    case 2:
      return raw(`[${"0,".repeat(n)}0]`);
    case 3:
      return raw(pick(random, ["NaN", "Infinity", "-Infinity", "1e999", "-0.0", "0".repeat(n), `1${"0".repeat(n)}`]));
    case 4:
      return "a".repeat(n);
    case 5:
      return pick(random, ["\u202e", "\u009b", "▁", "é", "\ud800", " "]).repeat(n);
    default:
      return Array.from({ length: Math.min(n, 5000) }, () => structuredClone(pick(random, SMALL)));
  }
}

/** Changes a document in one to four places, in place; `alike` gives values of the document's own language. */
export function mutateJson(random: Random, document: Json, alike: (random: Random) => Json = odd): Json {
  const root = { document };
  for (let n = chance(random, 0.5) ? 1 : random.int(2, 5); n > 0; n--) mutateOnce(random, root, alike);
  return root.document;
}

function mutateOnce(random: Random, root: { document: Json }, alike: (random: Random) => Json): void {
  let parent: Json = root;
  let key: string | number = "document";
  const child = () => (parent as Record<string | number, Json>)[key];
  for (;;) {
    const at = child();
    if (typeof at !== "object" || at === null || chance(random, 0.25)) break;
    const size = Array.isArray(at) ? at.length : Object.keys(at).length;
    if (size === 0) break;
    parent = at;
    key = Array.isArray(at) ? random.int(0, size) : Object.keys(at)[random.int(0, size)];
  }
  const list = Array.isArray(parent) ? (parent as Json[]) : undefined;
  const set = (value: Json) => {
    if (list) list[key as number] = value;
    else Object.defineProperty(parent, key, { value, enumerable: true, configurable: true, writable: true });
  };
  switch (random.int(0, 8)) {
    case 0:
      if (list) list.splice(key as number, 1);
      else if (key !== "document") delete (parent as Record<string, Json>)[key];
      return;
    case 1: {
      const name = pick(random, NAMES);
      if (list) list.splice(key as number, 0, structuredClone(child()));
      else if (key !== "document") {
        Object.defineProperty(parent, name, { value: child(), enumerable: true, configurable: true, writable: true });
      }
      return;
    }
    case 2: {
      const value = child();
      if (typeof value === "number") set(pick(random, [value + 1, value - 1, -value, value * 2, value + 0.5]));
      else if (typeof value === "string") set(pick(random, [value + value, value.slice(1), value.toUpperCase()]));
      else set([structuredClone(value)]);
      return;
    }
    case 3:
    case 4:
      set(alike(random));
      return;
    default:
      set(odd(random));
  }
}

/** A document as text, with what only text can hold put in. */
export function jsonOf(document: Json): string {
  const text = JSON.stringify(document) ?? "null";
  if (!text.includes(RAW)) return text;
  return text.replace(/"@@raw:((?:[^"\\]|\\.)*)"/g, (_, inner: string) => JSON.parse(`"${inner}"`) as string);
}

const LENGTHS = [1, 1, 1, 2, 3, 4, 8, 17, 64];

/** Changes bytes in one to six places: flips, zeros, copies, cuts, and numbers at the ends of their ranges. */
export function mutateBytes(random: Random, original: Uint8Array): Uint8Array {
  let bytes = Uint8Array.from(original); // a copy: slice() of a Buffer is none
  for (let n = chance(random, 0.5) ? 1 : random.int(2, 7); n > 0; n--) {
    const at = random.int(0, bytes.length + 1);
    const length = pick(random, LENGTHS);
    switch (random.int(0, 9)) {
      case 0:
        if (at < bytes.length) bytes[at] ^= 1 << random.int(0, 8);
        break;
      case 1:
        bytes.fill(pick(random, [0, 0xff, 0x7f, 0x80, 0x20, 0x22, 0x7b, 0x5b]), at, at + length);
        break;
      case 2: // cut out
        bytes = joined(bytes.subarray(0, at), bytes.subarray(at + length));
        break;
      case 3: // put in
        bytes = joined(
          bytes.subarray(0, at),
          Uint8Array.from({ length }, () => random.int(0, 256)),
          bytes.subarray(at),
        );
        break;
      case 4: {
        const from = random.int(0, bytes.length + 1);
        bytes.copyWithin(at, from, from + length * 4);
        break;
      }
      case 5: // doubled
        bytes = joined(bytes.subarray(0, at), bytes.subarray(Math.max(0, at - 4 * length)));
        break;
      case 6: // cut off
        if (chance(random, 0.3)) bytes = bytes.slice(0, at);
        break;
      case 7: {
        const view = new DataView(bytes.buffer);
        if (at + 4 > bytes.length) break;
        const value = pick(random, [0, 1, 0x7fffffff, 0x80000000, 0xffffffff, 0xffff, bytes.length, bytes.length + 1]);
        view.setUint32(at, value, chance(random, 0.5));
        break;
      }
      default:
        if (at < bytes.length) bytes[at] = random.int(0, 256);
    }
  }
  return bytes;
}

function joined(...parts: Uint8Array[]): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

/** JSON damaged as a document mostly, as text sometimes. */
export function damagedJson(random: Random, document: Json, alike?: (random: Random) => Json): Uint8Array {
  const encode = (text: string) => new TextEncoder().encode(text);
  if (chance(random, 0.15)) return mutateBytes(random, encode(jsonOf(document)));
  const text = jsonOf(mutateJson(random, structuredClone(document), alike));
  return chance(random, 0.05) ? mutateBytes(random, encode(text)) : encode(text);
}

/** Text of the kinds that tokenizers meet and fear. */
export function oddText(random: Random): string {
  const parts = [
    "a",
    "the ",
    "▁",
    " ",
    "\n",
    "这",
    "e\u0301",
    "👨‍👩‍👧",
    "</s>",
    "<pad>",
    "##",
    "'s",
    "\ufdfa",
    "\0",
    "\ud800",
    "\u0301",
    "<image>",
    "İ",
    "ß",
    "0",
    "x.y,z!",
  ];
  const text = Array.from({ length: random.int(0, 12) }, () => pick(random, parts).repeat(random.int(1, 5))).join("");
  return chance(random, 0.02) ? (text || "a").repeat(pick(random, [100, 1000, 5000])).slice(0, 2 ** 18) : text;
}

/** Something an option may be given that JSON cannot hold: described, so that a case can be written to a file. */
export type Described = Json | { $: string };

export function oddOption(random: Random): Json {
  if (chance(random, 0.8)) return odd(random);
  const kinds = [
    "nan",
    "inf",
    "function",
    "symbol",
    "bigint",
    "undefined",
    "cyclic",
    "deep",
    "getter",
    "proxy",
    "f32",
    "u8",
    "sparse",
    "null-prototype",
    "boxed",
    "date",
  ];
  return { $: pick(random, kinds) };
}

/** The value that a description describes, descriptions inside it too. */
export function realised(value: Json): unknown {
  if (typeof value === "string") return value.startsWith(RAW) ? value.slice(RAW.length, RAW.length + 1000) : value;
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) return value.map(realised);
  if (typeof value.$ === "string") return special(value.$);
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, realised(inner)]));
}

function special(kind: string): unknown {
  const fail = (): never => {
    throw new Error("a getter of the caller's");
  };
  switch (kind) {
    case "nan":
      return Number.NaN;
    case "inf":
      return Number.POSITIVE_INFINITY;
    case "function":
      return () => [];
    case "symbol":
      return Symbol("odd");
    case "bigint":
      return 7n;
    case "cyclic": {
      const cycle: unknown[] = [];
      cycle.push(cycle);
      return cycle;
    }
    case "deep": {
      let deep: unknown = 1;
      for (let i = 0; i < 20_000; i++) deep = [deep];
      return deep;
    }
    case "getter":
      return { toString: fail, toJSON: fail, valueOf: fail };
    case "proxy":
      return new Proxy({}, {});
    case "f32":
      return new Float32Array(12);
    case "u8":
      return new Uint8Array(12);
    case "sparse":
      return new Array(1000);
    case "null-prototype":
      return Object.assign(Object.create(null), { a: 1 });
    case "boxed":
      return Object("text");
    case "date":
      return new Date(Number.NaN);
    default:
      return undefined;
  }
}
