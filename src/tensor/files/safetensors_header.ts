/**
 * Reads and checks the header of a .safetensors file.
 *
 * Layout: u64 little-endian header length n, n bytes of JSON, then the tensors without gaps up to the end of the file:
 * `{"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}, …, "__metadata__": {string: string}}`.
 *
 * Every check of the Rust reference is made (github.com/huggingface/safetensors, safetensors/src/tensor.rs). Stricter
 * than it: no duplicate keys, no control characters in names, at most 8 dimensions, a smaller header unless asked for.
 */
import { DTYPES, type DType, FROM_SAFETENSORS } from "../dtype.ts";
import { nearest } from "../errors.ts";
import { formatShape } from "../shape.ts";
import { quote } from "../shown.ts";
import { type ByteSource, decodeUtf8 } from "./source.ts";
import { describe, type Json, type JsonObject, parseStrictJson } from "./strict_json.ts";
import {
  byteSize,
  checkName,
  DEFAULT_HEADER_BYTES,
  DEFAULT_TENSORS,
  type Header,
  type HeaderLimits,
  isWellFormed,
  listed,
  MAX_RANK,
  type Refuse,
  refuser,
  type TensorInfo,
  UNSUPPORTED_DTYPES,
  type UnsupportedDType,
} from "./tensor_file.ts";

export const PREFIX = 8;
export const MAX_HEADER_BYTES = 100_000_000;
/** JSON values per tensor: entry, dtype, shape, offsets, their at most 10 numbers, and some for unknown fields. */
const JSON_VALUES_PER_TENSOR = 16;

/** Reads and checks the header. @throws as SafetensorsFile.open */
export async function readHeader(source: ByteSource, limits: HeaderLimits): Promise<Header> {
  const refuse = refuser(source.name);
  const start = new Uint8Array(Math.min(source.size, 64));
  await source.read(0, start);
  const length = headerLength(start, source.size, limits, refuse);
  const bytes = new Uint8Array(length);
  await source.read(PREFIX, bytes);
  return parseHeader(decodeUtf8(bytes, source.name), source.size - PREFIX - length, PREFIX + length, limits, refuse);
}

/** The header's length, from the first bytes of the file. It is checked before anything of that length is allocated. */
function headerLength(start: Uint8Array, size: number, limits: HeaderLimits, refuse: Refuse): number {
  if (size < PREFIX) refuse("HEADER_TOO_SMALL", `${size} bytes; the header's length alone takes ${PREFIX}`);
  const length = Number(new DataView(start.buffer).getBigUint64(0, true)); // inexact above 2^53, which is far above the limits
  const soft = Math.min(limits.maxHeaderBytes ?? DEFAULT_HEADER_BYTES, MAX_HEADER_BYTES);
  if (length > MAX_HEADER_BYTES) {
    refuseOtherFormats(start, refuse); // checked only for an impossible length: a valid one may look like any magic number
    refuse("HEADER_TOO_LARGE", `the header's length is given as ${length}; the format allows ${MAX_HEADER_BYTES}`);
  }
  if (length > soft) {
    refuse("HEADER_TOO_LARGE", `a header of ${length} bytes; the limit is ${soft}`, "maxHeaderBytes raises the limit");
  }
  if (length > size - PREFIX) {
    refuse("HEADER_LENGTH", `a header of ${length} bytes does not fit into ${size} bytes`, "incomplete download?");
  }
  return length;
}

const RENAME = "give it the name pytorch_model.bin: PyTorch's files are read too, without running anything";

/** Other formats found in files of weights: magic number, name, hint. */
const OTHER_FORMATS: readonly (readonly [RegExp, string, string])[] = [
  [/^version https:\/\/git-lfs/, "a Git LFS pointer, not the file itself", "run `git lfs pull`, or download the file"],
  [/^\s*<(?:!doctype|html|\?xml|error)/i, "an HTML or XML page", "the download saved an error page; download it again"],
  // biome-ignore lint/suspicious/noControlCharactersInRegex: a magic number
  [/^PK\x03\x04/, "a zip archive, such as a PyTorch .bin or .pt file", RENAME],
  // biome-ignore lint/suspicious/noControlCharactersInRegex: a magic number
  [/^\x80[\x02-\x05]/, "a Python pickle, such as an old PyTorch .bin or .pt file", RENAME],
  [/^GGUF/, "a GGUF file", "use the model's original safetensors files"],
  [/^\x89HDF/, "an HDF5 file", "use the model's safetensors files"],
  [/^\s*[{[]/, "bare JSON, such as a shard index", "open the folder, or one of the .safetensors files"],
];

/** What a file is by its first bytes, and a hint; undefined if unknown. */
export function otherFormat(start: Uint8Array): readonly [kind: string, hint: string] | undefined {
  const text = String.fromCharCode(...start.subarray(0, 64));
  const found = OTHER_FORMATS.find(([pattern]) => pattern.test(text));
  return found && [found[1], found[2]];
}

function refuseOtherFormats(start: Uint8Array, refuse: Refuse): void {
  const [kind, hint] = otherFormat(start) ?? [];
  if (kind) refuse("NOT_SAFETENSORS", `this is ${kind}`, hint);
}

/** Parses the header and checks it against the data, `dataBytes` bytes from offset `dataBegin` of the file. */
function parseHeader(text: string, dataBytes: number, dataBegin: number, limits: HeaderLimits, refuse: Refuse): Header {
  const maxTensors = limits.maxTensors ?? DEFAULT_TENSORS;
  const tooMany = (): never => refuse("TOO_MANY_TENSORS", `more than ${maxTensors} tensors`);
  const jsonLimits = { members: maxTensors + 1, values: (maxTensors + 2) * JSON_VALUES_PER_TENSOR };
  const root = parseStrictJson(text, jsonLimits, (code, message, hint) =>
    code === "TOO_MANY_MEMBERS" ? tooMany() : refuse(code, message, hint),
  );
  if (!(root instanceof Map)) return refuse("BAD_HEADER_TYPE", `the header must be an object, got ${describe(root)}`);
  const metadata = root.has("__metadata__") ? metadataOf(root.get("__metadata__"), refuse) : new Map<string, string>();
  root.delete("__metadata__");
  if (root.size > maxTensors) tooMany();

  const unknownFields = new Set<string>();
  const infos: TensorInfo[] = [];
  for (const [name, entry] of root) infos.push(tensorOf(name, entry, dataBegin, unknownFields, refuse));
  infos.sort((a, b) => a.begin - b.begin || a.end - b.end);
  checkLayout(infos, dataBegin, dataBegin + dataBytes, refuse);
  const warnings = unknownFields.size ? [`ignored unknown fields in the header: ${listed([...unknownFields])}`] : [];
  return { metadata, tensors: new Map(infos.map((info) => [info.name, info])), warnings };
}

function metadataOf(value: Json | undefined, refuse: Refuse): Map<string, string> {
  const bad = (what: string): never => refuse("BAD_METADATA", `__metadata__ must map strings to strings, ${what}`);
  if (!(value instanceof Map)) return bad(`got ${describe(value)}`);
  const metadata = new Map<string, string>();
  for (const [key, text] of value) {
    if (typeof text !== "string") return bad(`got ${describe(text)} for ${quote(key)}`);
    if (!isWellFormed(key) || !isWellFormed(text)) bad("got half of a surrogate pair");
    metadata.set(key, text);
  }
  return metadata;
}

const FIELDS = ["dtype", "shape", "data_offsets"];

/** One entry of the header. */
function tensorOf(name: string, entry: Json, dataBegin: number, unknown: Set<string>, refuse: Refuse): TensorInfo {
  checkName(name, refuse);
  const inEntry: Refuse = (code, message, hint) => refuse(code, `${quote(name)}: ${message}`, hint);
  if (!(entry instanceof Map)) return inEntry("BAD_ENTRY", `must be an object, got ${describe(entry)}`);
  const absent = FIELDS.filter((field) => !entry.has(field));
  if (absent.length) inEntry("BAD_ENTRY", `lacks ${absent.join(" and ")}`);
  for (const field of entry.keys()) if (!FIELDS.includes(field)) unknown.add(field);

  const { dtype, bits } = dtypeOf(entry.get("dtype"), inEntry);
  const dims = listOf("shape", entry, inEntry);
  if (dims.length > MAX_RANK) inEntry("RANK", `${dims.length} dimensions; the limit is ${MAX_RANK}`);
  const shape = dims.map((dim) => integerOf("shape", dim, inEntry));
  const offsets = listOf("data_offsets", entry, inEntry);
  const [first, last] = offsets;
  if (first === undefined || last === undefined || offsets.length !== 2) {
    return inEntry("BAD_ENTRY", `data_offsets must hold 2 integers, got ${offsets.length}`);
  }
  const begin = integerOf("data_offsets", first, inEntry);
  const end = integerOf("data_offsets", last, inEntry);
  if (end < begin) inEntry("OFFSETS", `data_offsets [${begin}, ${end}]: the end lies before the begin`);
  const bytes = byteSize(shape, bits, inEntry);
  if (bytes !== end - begin) {
    inEntry("SIZE_MISMATCH", `${entry.get("dtype")} ${formatShape(shape)} takes ${bytes} bytes, got ${end - begin}`);
  }
  return { name, dtype, shape, begin: dataBegin + begin, end: dataBegin + end };
}

function dtypeOf(value: Json | undefined, refuse: Refuse): { dtype: DType | UnsupportedDType; bits: number } {
  if (typeof value !== "string") return refuse("BAD_DTYPE", `dtype must be a string, got ${describe(value)}`);
  const dtype = FROM_SAFETENSORS.get(value);
  if (dtype) return { dtype, bits: 8 * DTYPES[dtype].bytes };
  if (Object.hasOwn(UNSUPPORTED_DTYPES, value) && value !== "C128") {
    const unsupported = value as UnsupportedDType;
    return { dtype: unsupported, bits: UNSUPPORTED_DTYPES[unsupported] };
  }
  const near = nearest(value.slice(0, 20).toUpperCase(), FROM_SAFETENSORS.keys());
  return refuse("BAD_DTYPE", `unknown dtype ${quote(value)}`, near && `did the writer mean ${near}?`);
}

function listOf(field: string, entry: JsonObject, refuse: Refuse): Json[] {
  const list = entry.get(field);
  return Array.isArray(list) ? list : refuse("BAD_ENTRY", `${field} must be a list, got ${describe(list)}`);
}

function integerOf(field: string, value: Json, refuse: Refuse): number {
  if (typeof value === "number") return value;
  return refuse("BAD_INT", `${field} must hold integers from 0 to 2^53-1, got ${describe(value)}`);
}

/** Checks that the tensors, in file order, cover the data without holes or overlaps. */
function checkLayout(infos: readonly TensorInfo[], dataBegin: number, fileEnd: number, refuse: Refuse): void {
  let at = dataBegin;
  for (const { name, begin, end } of infos) {
    if (begin > at) refuse("HOLE", `${begin - at} bytes before ${quote(name)} belong to no tensor`);
    if (begin < at) refuse("OVERLAP", `${quote(name)} shares bytes with the tensor before it`);
    at = end;
  }
  if (at > fileEnd) refuse("TRUNCATED", `the data ends ${at - fileEnd} bytes too early`, "incomplete download?");
  if (at < fileEnd) refuse("TRAILING_DATA", `${fileEnd - at} bytes after the last tensor belong to no tensor`);
}
