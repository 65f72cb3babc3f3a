/**
 * Rows of a tar file as webdataset writes them: consecutive members with one key, `dog/0001.jpg`, `dog/0001.json` and
 * `dog/0001.txt`, are a row. Its columns are `__key__`, the fields of the JSON, and the members by their extensions.
 *
 * Formats: POSIX ustar and pax (`path`, `size`), GNU's long names.
 */
import { InputError } from "../../tensor/errors.ts";
import type { ByteSource } from "../../tensor/files/source.ts";
import { quote } from "../../tensor/shown.ts";
import { parseJson } from "../config/json_file.ts";
import { badFile, EmbeddedImage, type Row, type RowFile } from "./row.ts";

const BLOCK = 512;
/** Longest member that is read as text, and longest name. */
const MOST_TEXT = 2 ** 20;
const MOST_NAME = 2 ** 16;
const FORMAT = "a tar file";
/** Extensions of text; other members but JSON are images. */
const TEXTS = ["txt", "text", "cls", "question", "answer", "caption", "prompt"];

interface Member {
  readonly name: string;
  readonly begin: number;
  readonly size: number;
}

/** @throws InputError BAD_DATA_FILE if it does not begin with a header; what the source throws */
export async function openTar(source: ByteSource): Promise<RowFile> {
  const first = await membersOf(source).next(); // its errors are thrown before rows are read
  if (first.done) throw badFile(source.name, FORMAT, new Error("there are no files in it"));
  return { rows: () => rowsOf(source) };
}

async function* rowsOf(source: ByteSource): AsyncGenerator<Row> {
  let key: string | undefined;
  let members: (Member & { readonly ext: string })[] = [];
  for await (const member of membersOf(source)) {
    const base = member.name.lastIndexOf("/") + 1;
    const dot = member.name.indexOf(".", base);
    if (dot <= base || dot === member.name.length - 1) continue; // hidden, or without an extension
    const [stem, ext] = [member.name.slice(0, dot), member.name.slice(dot + 1)];
    if (key !== undefined && stem !== key) {
      yield await rowOf(source, key, members);
      members = [];
    }
    key = stem;
    members.push({ ...member, ext: ext.toLowerCase() });
  }
  if (key !== undefined) yield await rowOf(source, key, members);
}

async function rowOf(
  source: ByteSource,
  key: string,
  members: readonly (Member & { readonly ext: string })[],
): Promise<Row> {
  const where = `${source.name}: ${quote(key)}`;
  try {
    const value: Record<string, unknown> = Object.assign(Object.create(null), { __key__: key });
    for (const { ext, begin, size, name } of members) {
      if (Object.hasOwn(value, ext))
        throw new InputError("BAD_DATA", `there are two members ${quote(`${key}.${ext}`)}`);
      if (ext === "json") {
        const fields = jsonOf(await textOf(source, begin, size, name), name);
        for (const [field, content] of Object.entries(fields)) if (!Object.hasOwn(value, field)) value[field] = content;
      } else if (TEXTS.includes(ext)) value[ext] = await textOf(source, begin, size, name);
      else {
        value[ext] = new EmbeddedImage(name, async () => {
          const bytes = new Uint8Array(size);
          await source.read(begin, bytes);
          return bytes;
        });
      }
    }
    return { where, value };
  } catch (error) {
    return { where, key, error: badFile(source.name, FORMAT, error) as InputError };
  }
}

function jsonOf(text: string, name: string): object {
  let value: unknown;
  try {
    value = parseJson(text);
  } catch {
    throw new InputError("BAD_DATA", `${quote(name)} is not valid JSON`);
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value;
  throw new InputError("BAD_DATA", `${quote(name)} is not a JSON object`);
}

async function textOf(source: ByteSource, begin: number, size: number, name: string): Promise<string> {
  if (size > MOST_TEXT)
    throw new InputError("BAD_DATA", `${quote(name)} has ${size} bytes; the limit of text is ${MOST_TEXT}`);
  const bytes = new Uint8Array(size);
  await source.read(begin, bytes);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes).trim();
  } catch {
    throw new InputError("BAD_DATA", `${quote(name)} is not valid UTF-8`);
  }
}

/** The regular files of an archive, or of several one after another. @throws InputError BAD_DATA_FILE */
async function* membersOf(source: ByteSource): AsyncGenerator<Member> {
  const header = new Uint8Array(BLOCK);
  let long: { path?: string | undefined; size?: number | undefined } = {};
  const bad = (what: string) => badFile(source.name, FORMAT, new Error(what));
  for (let at = 0; at < source.size; ) {
    if (at + BLOCK > source.size) header.fill(0);
    await source.read(at, header.subarray(0, source.size - at));
    // The end of an archive, after which there are zeros, or another archive (`cat a.tar b.tar`).
    if (header.every((byte) => byte === 0)) {
      at += BLOCK;
      continue;
    }
    if (at + BLOCK > source.size) throw bad("it ends within a header");
    if (checksumOf(header) !== numberOf(header.subarray(148, 156))) throw bad(`there is no header at ${at}`);
    const type = String.fromCharCode(header[156]!);
    const own = numberOf(header.subarray(124, 136));
    const size = type === "x" || type === "L" ? own : (long.size ?? own);
    const begin = at + BLOCK;
    if (!Number.isSafeInteger(size) || size < 0 || begin + size > source.size) throw bad("it ends within a file");
    at = begin + Math.ceil(size / BLOCK) * BLOCK;
    if (type === "x" || type === "L") {
      if (size > MOST_NAME) throw bad(`a name has ${size} bytes`);
      const bytes = new Uint8Array(size);
      await source.read(begin, bytes);
      const found = type === "L" ? { path: textBefore0(bytes) } : paxOf(bytes);
      if (!found) throw bad(`the names at ${begin} are damaged`);
      long = { ...long, ...found };
      continue;
    }
    const isUstar = textBefore0(header.subarray(257, 262)) === "ustar" && header[262] === 0;
    const prefix = isUstar ? textBefore0(header.subarray(345, 500)) : "";
    const short = textBefore0(header.subarray(0, 100));
    const name = long.path ?? (prefix === "" ? short : `${prefix}/${short}`);
    long = {};
    if (type === "0" || type === "\0") yield { name, begin, size };
  }
}

/** The sum of a header's bytes, its own field as blanks. */
function checksumOf(header: Uint8Array): number {
  return header.reduce((sum, byte, i) => sum + (i >= 148 && i < 156 ? 32 : byte), 0);
}

/** Octal text; or, with the first bit set, a big-endian number (GNU). */
function numberOf(field: Uint8Array): number {
  if (field[0]! & 0x80) return field.reduce((n, byte, i) => n * 256 + (i === 0 ? byte & 0x7f : byte), 0);
  const text = textBefore0(field).trim();
  return /^[0-7]*$/.test(text) ? Number.parseInt(text || "0", 8) : Number.NaN;
}

function textBefore0(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return new TextDecoder().decode(end < 0 ? bytes : bytes.subarray(0, end));
}

/** Records `length key=value\n`, of which path and size are for us; undefined if they are damaged. */
function paxOf(bytes: Uint8Array): { path?: string; size?: number } | undefined {
  const found: { path?: string; size?: number } = {};
  for (let at = 0; at < bytes.length; ) {
    const blank = bytes.indexOf(32, at);
    const length = Number(new TextDecoder().decode(bytes.subarray(at, blank)));
    // The number counts itself, the blank, and a newline at least.
    if (blank < 0 || !Number.isSafeInteger(length) || length <= blank - at + 1 || at + length > bytes.length)
      return undefined;
    const [name, ...value] = new TextDecoder().decode(bytes.subarray(blank + 1, at + length - 1)).split("=");
    if (name === "path") found.path = value.join("=");
    if (name === "size") found.size = Number(value.join("="));
    at += length;
  }
  return found;
}
