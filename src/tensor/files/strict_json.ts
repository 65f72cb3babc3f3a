/**
 * A JSON parser for untrusted files: safetensors headers and shard indexes. Unlike `JSON.parse` it refuses duplicate keys, returns
 * numbers that JavaScript may round as {@link OtherNumber}, returns objects as Maps (so that `__proto__` is an ordinary key),
 * and bounds depth, members and values while it parses.
 */
import { quote } from "../shown.ts";

/** A parsed value. A `number` is an integer 0 … 2^53-1 that is written without sign, fraction or exponent. */
export type Json = null | boolean | string | number | OtherNumber | Json[] | JsonObject;
export type JsonObject = Map<string, Json>;

/** Any other number: negative, with a fraction or an exponent, or too large to be exact. */
export class OtherNumber {
  /** As written in the file. */
  readonly token: string;

  constructor(token: string) {
    this.token = token;
  }
}

/** The type of a JSON value, for messages. */
export function describe(value: Json | undefined): string {
  if (value === null || value === undefined) return "null";
  if (value instanceof OtherNumber) return quote(value.token).slice(1, -1);
  if (value instanceof Map) return "an object";
  if (Array.isArray(value)) return "a list";
  return typeof value === "string" ? `the string ${quote(value)}` : String(value);
}

/** Throws the caller's error. */
export type JsonRefusal = (
  code: "BAD_JSON" | "DUPLICATE_KEY" | "TOO_MANY_MEMBERS",
  message: string,
  hint?: string,
) => never;

/** `members` bounds one object, `values` the whole document. */
export interface JsonLimits {
  members: number;
  values: number;
}

/** Bounds the parser's recursion; above the depth of any header or index. */
const MAX_DEPTH = 32;

/** Parses a JSON document (RFC 8259); calls `fail` if it is invalid. Lone surrogate escapes are accepted. */
export function parseStrictJson(text: string, limits: JsonLimits, fail: JsonRefusal): Json {
  return new Parser(text, limits, fail).document();
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COMMA = 0x2c;
const COLON = 0x3a;
const BRACE_OPEN = 0x7b;
const BRACE_CLOSE = 0x7d;
const BRACKET_OPEN = 0x5b;
const BRACKET_CLOSE = 0x5d;

const NUMBER = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y;
const PLAIN_INTEGER = /^(?:0|[1-9][0-9]*)$/;
const HEX4 = /^[0-9a-fA-F]{4}$/;
const ESCAPES = new Map([
  ['"', '"'],
  ["\\", "\\"],
  ["/", "/"],
  ["b", "\b"],
  ["f", "\f"],
  ["n", "\n"],
  ["r", "\r"],
  ["t", "\t"],
]);
const LITERALS: readonly (readonly [string, Json])[] = [
  ["true", true],
  ["false", false],
  ["null", null],
];

class Parser {
  readonly #text: string;
  readonly #limits: JsonLimits;
  readonly #refuse: JsonRefusal;
  #at = 0;
  #depth = 0;
  #values = 0;

  constructor(text: string, limits: JsonLimits, refuse: JsonRefusal) {
    this.#text = text;
    this.#limits = limits;
    this.#refuse = refuse;
  }

  document(): Json {
    if (this.#text.charCodeAt(0) === 0xfeff) this.#bad("a byte order mark before the JSON");
    const value = this.#value();
    this.#space();
    if (this.#at < this.#text.length) {
      const nul = this.#text.charCodeAt(this.#at) === 0;
      this.#bad("more text after the JSON", nul ? "NUL-padded header: the padding must be spaces" : undefined);
    }
    return value;
  }

  #value(): Json {
    if (++this.#values > this.#limits.values) this.#bad(`more than ${this.#limits.values} values`);
    this.#space();
    const c = this.#text.charCodeAt(this.#at);
    if (c === QUOTE) return this.#string();
    if (c === BRACE_OPEN) return this.#nested(() => this.#object());
    if (c === BRACKET_OPEN) return this.#nested(() => this.#array());
    NUMBER.lastIndex = this.#at;
    const number = NUMBER.exec(this.#text);
    if (number) {
      this.#at = NUMBER.lastIndex;
      return numberOf(number[0]);
    }
    for (const [word, value] of LITERALS) {
      if (this.#text.startsWith(word, this.#at)) {
        this.#at += word.length;
        return value;
      }
    }
    return this.#bad(this.#at < this.#text.length ? "expected a value" : "the text ends where a value should be");
  }

  #nested<T>(parse: () => T): T {
    if (++this.#depth > MAX_DEPTH) this.#bad(`nested deeper than ${MAX_DEPTH}`);
    this.#at++; // the bracket
    const value = parse();
    this.#depth--;
    return value;
  }

  #object(): JsonObject {
    const object: JsonObject = new Map();
    if (this.#take(BRACE_CLOSE)) return object;
    do {
      this.#space();
      if (this.#text.charCodeAt(this.#at) !== QUOTE) this.#bad('expected a key in "double quotes"');
      const key = this.#string();
      if (object.has(key)) this.#refuse("DUPLICATE_KEY", `the key ${quote(key)} appears twice`);
      if (object.size === this.#limits.members) {
        this.#refuse("TOO_MANY_MEMBERS", `an object with more than ${this.#limits.members} members`);
      }
      if (!this.#take(COLON)) this.#bad('expected ":"');
      object.set(key, this.#value());
    } while (this.#take(COMMA));
    if (!this.#take(BRACE_CLOSE)) this.#bad('expected "," or "}"');
    return object;
  }

  #array(): Json[] {
    const array: Json[] = [];
    if (this.#take(BRACKET_CLOSE)) return array;
    do array.push(this.#value());
    while (this.#take(COMMA));
    if (!this.#take(BRACKET_CLOSE)) this.#bad('expected "," or "]"');
    return array;
  }

  /** Parses the string whose opening quote is at `at`. */
  #string(): string {
    let result = "";
    let start = ++this.#at;
    for (; this.#at < this.#text.length; this.#at++) {
      const c = this.#text.charCodeAt(this.#at);
      if (c === QUOTE) return result + this.#text.slice(start, this.#at++);
      if (c < 0x20) this.#bad("an unescaped control character in a string");
      if (c === BACKSLASH) {
        result += this.#text.slice(start, this.#at++) + this.#escaped();
        start = this.#at + 1;
      }
    }
    return this.#bad("a string without its closing quote");
  }

  /** Decodes the escape whose letter is at `at`; leaves `at` at its last character. */
  #escaped(): string {
    const letter = this.#text.charAt(this.#at);
    if (letter === "u") {
      const hex = this.#text.slice(this.#at + 1, this.#at + 5);
      if (!HEX4.test(hex)) this.#bad("\\u must be followed by four hexadecimal digits");
      this.#at += 4;
      return String.fromCharCode(Number.parseInt(hex, 16));
    }
    return ESCAPES.get(letter) ?? this.#bad("an unknown escape in a string");
  }

  #space(): void {
    for (; ; this.#at++) {
      const c = this.#text.charCodeAt(this.#at);
      if (c !== 0x20 && c !== 0x0a && c !== 0x0d && c !== 0x09) return;
    }
  }

  #take(c: number): boolean {
    this.#space();
    if (this.#text.charCodeAt(this.#at) !== c) return false;
    this.#at++;
    return true;
  }

  #bad(message: string, hint?: string): never {
    return this.#refuse("BAD_JSON", `invalid JSON at character ${this.#at}: ${message}`, hint);
  }
}

function numberOf(token: string): number | OtherNumber {
  const value = Number(token);
  return PLAIN_INTEGER.test(token) && Number.isSafeInteger(value) ? value : new OtherNumber(token);
}
