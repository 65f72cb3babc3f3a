/**
 * Untrusted data in messages: values from a file, a server or a caller, formatted for a terminal. Bounded for every value,
 * and without terminal control characters.
 */

/** Longer text is cut for a message. */
const MOST_TEXT = 80;
const MOST_SHOWN = 200;
const MOST_MEMBERS = 8;
const MOST_DEPTH = 3;

/** Control characters except tab and line feed, C1, line separators, and controls of the writing direction. */
const OBEYED =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
  /[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g;

/** Text with every control character written as `\u{…}`. */
export function escaped(text: string): string {
  return text.replace(OBEYED, (c) => `\\u{${c.charCodeAt(0).toString(16)}}`);
}

/**
 * A message of at most `most` characters, escaped; lines after the first are indented, so that none can pass for another
 * message.
 */
export function bounded(message: string, most: number): string {
  const short = message.length > most ? cut(message, most) : message;
  const text = escaped(short).replace(/\n(?! {4})/g, "\n    ");
  return text.length > most ? cut(text, most) : text; // escaped text is up to eight times as long
}

/** An untrusted string: quoted, escaped, cut to 80 characters. */
export function quote(text: string): string {
  return escaped(JSON.stringify(text.length > MOST_TEXT ? cut(text, MOST_TEXT) : text));
}

/**
 * Any untrusted value, much as JSON writes it: escaped, at most 200 characters. Never throws, calls no function of the
 * value, and reads only as much of it as it shows.
 */
export function shown(value: unknown): string {
  try {
    const text = render(value, 0);
    return text.length > MOST_SHOWN ? cut(text, MOST_SHOWN) : text;
  } catch {
    return "an object"; // whose getters or proxies throw
  }
}

function cut(text: string, most: number): string {
  return `${text.slice(0, most - 1).replace(/[\ud800-\udbff]$/, "")}…`;
}

function render(value: unknown, depth: number): string {
  switch (typeof value) {
    case "string":
      return quote(value);
    case "function":
    case "symbol":
      return `a ${typeof value}`;
    case "bigint":
      return BigInt.asIntN(64, value) === value ? String(value) : "a bigint";
    case "object":
      break;
    default:
      return String(value);
  }
  if (value === null) return "null";
  if (ArrayBuffer.isView(value))
    return `${Object.prototype.toString.call(value).slice(8, -1)} of ${value.byteLength} bytes`;
  if (Array.isArray(value)) {
    if (depth === MOST_DEPTH && value.length) return "[…]";
    const items = Array.from({ length: Math.min(value.length, MOST_MEMBERS) }, (_, i) => render(value[i], depth + 1));
    if (value.length > MOST_MEMBERS) items.push("…");
    return `[${items.join(",")}]`;
  }
  const members: string[] = [];
  for (const key in value) {
    if (!Object.hasOwn(value, key)) continue;
    if (depth === MOST_DEPTH) return "{…}";
    if (members.length === MOST_MEMBERS) {
      members.push("…");
      break;
    }
    members.push(`${quote(key)}:${render((value as Record<string, unknown>)[key], depth + 1)}`);
  }
  return `{${members.join(",")}}`;
}
