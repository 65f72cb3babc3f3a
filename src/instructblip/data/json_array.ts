/** Rows of a JSON array of objects, one element in memory at a time. */
import { InputError } from "../../tensor/errors.ts";
import type { ByteSource } from "../../tensor/files/source.ts";
import { parseJson } from "../config/json_file.ts";
import { badFile, type Row, type RowFile } from "./row.ts";

const FORMAT = "a JSON array of objects";
const CHUNK = 2 ** 16;
/** Longest element. */
const MOST_ELEMENT = 2 ** 20;
const [QUOTE, BACKSLASH, COMMA, OPEN, CLOSE, LEFT, RIGHT] = [0x22, 0x5c, 0x2c, 0x5b, 0x5d, 0x7b, 0x7d];

export function openJsonArray(source: ByteSource): RowFile {
  return {
    async *rows() {
      let row = 0;
      for await (const text of elementsOf(source)) yield rowOf(source.name, text, `element ${row++}`);
    },
  };
}

function rowOf(name: string, text: Uint8Array, where: string): Row {
  try {
    const value: unknown = parseJson(new TextDecoder("utf-8", { fatal: true }).decode(text));
    if (typeof value === "object" && value !== null && !Array.isArray(value)) {
      return { where, value: value as Record<string, unknown> };
    }
    return { where, error: new InputError("BAD_DATA", "not a JSON object") };
  } catch (cause) {
    if (cause instanceof RangeError) throw badFile(name, FORMAT, cause);
    return { where, error: new InputError("BAD_DATA", "not valid JSON") };
  }
}

/** The texts of an array's elements. @throws InputError BAD_DATA_FILE if it is no array, or an element is too long */
async function* elementsOf(source: ByteSource): AsyncGenerator<Uint8Array> {
  const bad = (what: string) => badFile(source.name, FORMAT, new Error(what));
  let parts: Uint8Array[] = [];
  let size = 0;
  let state = "before" as "before" | "inside" | "after";
  let [depth, inString, isEscaped] = [0, false, false];
  let count = 0;
  const take = (bytes: Uint8Array) => {
    size += bytes.length;
    if (size > MOST_ELEMENT) throw bad(`element ${count} has more than ${MOST_ELEMENT} bytes`);
    if (bytes.length > 0) parts.push(bytes.slice());
  };
  const element = () => {
    const text = new Uint8Array(size);
    let at = 0;
    for (const part of parts) {
      text.set(part, at);
      at += part.length;
    }
    [parts, size] = [[], 0];
    count++;
    return text;
  };
  for (let at = 0; at < source.size; at += CHUNK) {
    const chunk = new Uint8Array(Math.min(CHUNK, source.size - at));
    await source.read(at, chunk);
    let start = 0;
    for (let i = 0; i < chunk.length; i++) {
      const byte = chunk[i]!;
      if (state !== "inside") {
        if (byte <= 32 || (state === "before" && at === 0 && i < 3 && byte >= 0x80)) continue; // or a byte order mark
        if (state === "after" || byte !== OPEN)
          throw bad(state === "after" ? "there is more after it" : "it is no array");
        state = "inside";
        start = i + 1;
      } else if (inString) {
        if (isEscaped) isEscaped = false;
        else if (byte === BACKSLASH) isEscaped = true;
        else if (byte === QUOTE) inString = false;
      } else if (byte === QUOTE) inString = true;
      else if (byte === OPEN || byte === LEFT) depth++;
      else if ((byte === CLOSE || byte === RIGHT) && depth > 0) depth--;
      else if (depth === 0 && (byte === COMMA || byte === CLOSE)) {
        take(chunk.subarray(start, i));
        start = i + 1;
        const text = element();
        const isBlank = text.every((one) => one <= 32);
        if (!isBlank) yield text;
        else if (byte === COMMA || count > 1) throw bad(`element ${count - 1} is missing`);
        if (byte === CLOSE) state = "after";
      }
    }
    if (state === "inside") take(chunk.subarray(start));
  }
  if (state !== "after") throw bad("it ends within the array");
}
