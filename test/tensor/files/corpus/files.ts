/**
 * Good and bad .safetensors files, built from scratch: what each id of the fault list looks like in bytes. What a reader
 * must say to each is in verdicts.json, which no code writes. `export.ts` puts them in a folder for other readers.
 *
 * Faults that only show against a model (a dtype or shape the model does not expect, a missing weight) are not here.
 */
import type { HeaderLimits } from "../../../../src/tensor/files/tensor_file.ts";

export interface CorpusFile {
  readonly about: string;
  /** The file's bytes, up to its last one that is not zero. */
  readonly bytes: () => Uint8Array;
  /** The file's size, where zeros follow `bytes`; such a file is written sparse. */
  readonly size?: number;
  readonly limits?: HeaderLimits;
}

/** One entry of a header, as JSON text. */
export function entry(name: string, dtype = "U8", shape: readonly number[] = [1], offsets: readonly number[] = [0, 1]) {
  return `${JSON.stringify(name)}:${JSON.stringify({ dtype, shape, data_offsets: offsets })}`;
}

/** Length, header and data in one piece; the data counts 1, 2, 3, … so that every byte tells where it lay. */
export function build(header: string | Uint8Array, dataBytes = 1, length?: bigint, bigEndian = false): Uint8Array {
  const text = typeof header === "string" ? new TextEncoder().encode(header) : header;
  const file = new Uint8Array(8 + text.length + dataBytes);
  new DataView(file.buffer).setBigUint64(0, length ?? BigInt(text.length), !bigEndian);
  file.set(text, 8);
  for (let i = 0; i < dataBytes; i++) file[8 + text.length + i] = i + 1;
  return file;
}

function bytes(...parts: (string | number)[]): Uint8Array {
  return Uint8Array.from(
    parts.flatMap((part) => (typeof part === "string" ? [...new TextEncoder().encode(part)] : part)),
  );
}

/** One tensor `t` of 1 byte. */
const GOOD = `{${entry("t")}}`;

/** The good file with some JSON of its header replaced. */
function altered(from: string, to: string): Uint8Array {
  if (!GOOD.includes(from)) throw new Error(`${from} is not in ${GOOD}`);
  return build(GOOD.replace(from, to));
}

function withMetadata(value: string): Uint8Array {
  return build(`{"__metadata__":${value},${entry("t")}}`);
}

/** The file of many tensors that was made last: a million take half a second, and are read twice in turn. */
let last: { count: number; file: Uint8Array } = { count: 0, file: new Uint8Array() };
function manyTensors(count: number): Uint8Array {
  if (last.count === count) return last.file;
  const rest = entry("", "U8", [0], [0, 0]).slice(1);
  const entries = Array.from({ length: count }, (_, i) => `"t${i}${rest}`);
  last = { count, file: build(`{${entries.join(",")}}`, 0) };
  return last.file;
}

/** Two tensors of `U8` at the given offsets. */
function two(a: [number, number], b: [number, number], dataBytes: number): Uint8Array {
  return build(`{${entry("a", "U8", [a[1] - a[0]], a)},${entry("b", "U8", [b[1] - b[0]], b)}}`, dataBytes);
}

const nested = (depth: number) => "[".repeat(depth) + "]".repeat(depth);

/** By id: the fault's, and a letter where a fault has several forms. */
export const FILES: Readonly<Record<string, CorpusFile>> = {
  A00: { about: "good: one tensor", bytes: () => build(GOOD) },
  A00a: { about: "good: no tensors", bytes: () => build("{}", 0) },
  A00b: { about: "good: metadata", bytes: () => withMetadata('{"format":"pt","":"€\\u20ac"}') },
  A01: { about: "empty file", bytes: () => bytes() },
  A02a: { about: "1 byte", bytes: () => bytes(2) },
  A02b: { about: "7 bytes", bytes: () => bytes(2, 0, 0, 0, 0, 0, 0) },
  A03: { about: "header length 0", bytes: () => bytes(0, 0, 0, 0, 0, 0, 0, 0) },
  A04: { about: "header length is the file's size", bytes: () => build(GOOD, 1, BigInt(build(GOOD).length)) },
  A05: { about: "header length 2^64-1", bytes: () => build("{}", 0, 2n ** 64n - 1n) },
  A06a: {
    about: "header length 100,000,001, and so many bytes",
    bytes: () => build("{}", 0, 100_000_001n),
    size: 100_000_009,
  },
  A06b: { about: "a header of 20 MB", bytes: () => build("{}", 0, 20_000_000n), size: 20_000_008 },
  A07: { about: "the file ends inside a header of 16 MiB", bytes: () => build("{}", 0, 2n ** 24n - 1n), size: 1000 },
  A08: { about: "big-endian header length", bytes: () => build(GOOD, 1, undefined, true) },
  A09a: { about: "byte FF in a name", bytes: () => build(bytes('{"', 0xff, `":${entry("t").slice(4)}}`)) },
  A09b: { about: "overlong UTF-8 in a name", bytes: () => build(bytes('{"', 0xc0, 0x80, `":${entry("t").slice(4)}}`)) },
  A09c: {
    about: "a surrogate in UTF-8",
    bytes: () => build(bytes('{"', 0xed, 0xa0, 0x80, `":${entry("t").slice(4)}}`)),
  },
  A10: { about: "byte order mark", bytes: () => build(`\ufeff{${entry("t")}}`) },
  A11a: { about: "trailing spaces", bytes: () => build(`{${entry("t")}}      `) },
  A11b: {
    about: "JSON whitespace everywhere",
    bytes: () => build(` \t\r\n{${entry("t").replace(/([:,[\]{}])/g, " \n$1\t\r")}}\n`),
  },
  A11c: { about: "trailing form feed", bytes: () => build(`{${entry("t")}}\f`) },
  A12: { about: "padded with NUL", bytes: () => build(`{${entry("t")}}\0\0\0`) },
  A13a: { about: "header []", bytes: () => build("[]", 0) },
  A13b: { about: "header null", bytes: () => build("null", 0) },
  A13c: { about: 'header "x"', bytes: () => build('"x"', 0) },
  A13d: { about: "header 5", bytes: () => build("5", 0) },
  A14a: { about: "unclosed object", bytes: () => build(`{${entry("t")}`) },
  A14b: { about: "trailing comma", bytes: () => build(`{${entry("t")},}`) },
  A14c: { about: "comment", bytes: () => build(`{/* t */${entry("t")}}`) },
  A14d: { about: "single quotes", bytes: () => build(`{${entry("t").replaceAll('"', "'")}}`) },
  A14e: { about: "no colon", bytes: () => altered(":[1]", "[1]") },
  A14f: { about: "no comma between entries", bytes: () => altered(',"shape"', '"shape"') },
  A14g: { about: "no comma in a list", bytes: () => altered("[0,1]", "[0 1]") },
  A14h: { about: "raw newline in a name", bytes: () => altered('"t"', '"t\n"') },
  A14i: { about: "unknown escape", bytes: () => altered('"t"', '"\\x41"') },
  A14j: { about: "half a \\u escape", bytes: () => altered('"t"', '"\\u12"') },
  A14k: { about: "NaN", bytes: () => altered("[1]", "[NaN]") },
  A14l: { about: "leading zero", bytes: () => altered("[1]", "[01]") },
  A14m: { about: "plus sign", bytes: () => altered("[1]", "[+1]") },
  A14n: { about: "unclosed string", bytes: () => build('{"t', 0) },
  A14o: { about: "ends after a colon", bytes: () => build('{"t":', 0) },
  A14p: { about: "mistyped literal", bytes: () => build('{"t":nul}', 0) },
  A15: { about: "a second document", bytes: () => build(`{${entry("t")}}{}`) },
  A16: { about: "the same name twice", bytes: () => build(`{${entry("t")},${entry("t")}}`) },
  A17: {
    about: "the same name twice, once escaped",
    bytes: () => build(`{${entry("a")},${entry("a").replace('"a"', '"\\u0061"')}}`),
  },
  A18: { about: "__metadata__ twice", bytes: () => build(`{"__metadata__":{},"__metadata__":{},${entry("t")}}`) },
  A18b: { about: "a key of __metadata__ twice", bytes: () => withMetadata('{"a":"1","a":"2"}') },
  A18c: { about: "a field of an entry twice", bytes: () => altered('"shape"', '"dtype":"I8","shape"') },
  A19a: { about: "metadata with a number", bytes: () => withMetadata('{"a":1}') },
  A19b: { about: "metadata with a list", bytes: () => withMetadata('{"a":[]}') },
  A19c: { about: "metadata with null", bytes: () => withMetadata('{"a":null}') },
  A19d: { about: "metadata with an object", bytes: () => withMetadata('{"a":{}}') },
  A19e: { about: "metadata null", bytes: () => withMetadata("null") },
  A19f: { about: "metadata with half a surrogate pair", bytes: () => withMetadata('{"a":"\\ud800"}') },
  A20: { about: "metadata shaped like a tensor", bytes: () => build(`{${entry("__metadata__")}}`) },
  A21: {
    about: "names that every JavaScript object has",
    bytes: () =>
      build(
        `{${["__proto__", "constructor", "toString", "hasOwnProperty"].map((n, i) => entry(n, "U8", [1], [i, i + 1])).join()}}`,
        4,
      ),
  },
  A22a: { about: "empty name", bytes: () => altered('"t"', '""') },
  A22b: { about: "NUL in a name", bytes: () => altered('"t"', '"a\\u0000b"') },
  A22c: { about: "control character in a name", bytes: () => altered('"t"', '"a\\u001bb"') },
  A22d: { about: "high surrogate alone in a name", bytes: () => altered('"t"', '"\\ud83d"') },
  A22e: { about: "low surrogate alone in a name", bytes: () => altered('"t"', '"\\ude00"') },
  A22f: { about: "C1 control character in a name", bytes: () => altered('"t"', '"a\u009bb"') },
  A23a: { about: "name of 1 MB", bytes: () => altered('"t"', JSON.stringify("n".repeat(1_000_000))) },
  A23b: {
    about: "name of 1,026 bytes in 513 characters",
    bytes: () => altered('"t"', JSON.stringify("é".repeat(513))),
  },
  A23c: { about: "name of 1,024 bytes", bytes: () => altered('"t"', JSON.stringify("n".repeat(1024))) },
  A24: { about: "name like a path", bytes: () => altered('"t"', '"../../x"') },
  A25a: { about: "100,000 lists in one another", bytes: () => build(`{"t":${nested(100_000)}}`, 0) },
  A25b: { about: "the same in an unknown field", bytes: () => altered('"shape"', `"x":${nested(100_000)},"shape"`) },
  A25c: { about: "100,000 objects in one another, unclosed", bytes: () => build('{"a":'.repeat(100_000), 0) },
  A26a: { about: "100,001 tensors", bytes: () => manyTensors(100_001) },
  A26b: { about: "1,000,000 tensors", bytes: () => manyTensors(1_000_000) },
  A26c: {
    about: "1,000,000 tensors, larger headers allowed",
    bytes: () => manyTensors(1_000_000),
    limits: { maxHeaderBytes: 1e8 },
  },
  A26d: { about: "a list of 3,000,000 numbers", bytes: () => altered("[1]", `[${"0,".repeat(3_000_000)}0]`) },
  A26e: { about: "100,000 tensors", bytes: () => manyTensors(100_000) },
  A26f: { about: "3 tensors where 2 are allowed", bytes: () => manyTensors(3), limits: { maxTensors: 2 } },
  A27a: { about: "no dtype", bytes: () => altered('"dtype":"U8",', "") },
  A27b: { about: "no shape", bytes: () => altered('"shape":[1],', "") },
  A27c: { about: "no data_offsets", bytes: () => altered(',"data_offsets":[0,1]', "") },
  A27d: { about: "unknown field", bytes: () => altered('"shape"', '"extra":{"a":[1.5,"x",true,false,null]},"shape"') },
  A27e: { about: "entry is a list", bytes: () => build('{"t":[]}', 0) },
  A27f: { about: "entry is a number", bytes: () => build('{"t":-1.5e3}', 0) },
  A27g: { about: "shape is an object", bytes: () => altered("[1]", "{}") },
  A28a: { about: 'dtype "f32"', bytes: () => altered('"U8"', '"f32"') },
  A28b: { about: 'dtype "FLOAT"', bytes: () => altered('"U8"', '"FLOAT"') },
  A28c: { about: "dtype 7", bytes: () => altered('"U8"', "7") },
  A28d: { about: "dtype F8_E4M3", bytes: () => altered('"U8"', '"F8_E4M3"') },
  A28e: { about: "dtype F4, 2 to a byte", bytes: () => build(`{${entry("t", "F4", [6], [0, 3])}}`, 3) },
  A28f: { about: "dtype F4, half a byte", bytes: () => build(`{${entry("t", "F4", [5], [0, 2])}}`, 2) },
  A28g: { about: "dtype constructor", bytes: () => altered('"U8"', '"constructor"') },
  A28h: { about: "dtype C64", bytes: () => build(`{${entry("t", "C64", [2], [0, 16])}}`, 16) },
  A29a: {
    about: "Git LFS pointer",
    bytes: () => bytes(`version https://git-lfs.github.com/spec/v1\noid sha256:${"0".repeat(64)}\nsize 99\n`),
  },
  A29b: { about: "HTML page", bytes: () => bytes("\n<!DOCTYPE html><html><title>404</title></html>") },
  A29c: { about: "zip archive", bytes: () => bytes("PK", 3, 4, 0, 0, 8, 8, 0, 0, "archive/data.pkl") },
  A29d: { about: "pickle", bytes: () => bytes(0x80, 2, "}q", 0, "X", 1, 0, 0, 0, "aq", 1, "K", 1, "s.") },
  A29e: { about: "GGUF", bytes: () => bytes("GGUF", 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0) },
  A29f: { about: "HDF5", bytes: () => bytes(0x89, "HDF\r\n", 0x1a, "\n", 0, 0, 0, 0) },
  A29g: { about: "a shard index", bytes: () => bytes('{"metadata": {}, "weight_map": {}}') },
  A30: {
    about: "names with U+2028, an emoji, combining characters, escapes",
    bytes: () =>
      build(
        `{${entry("\u2028")},${entry("😀e\u0301", "U8", [1], [1, 2])},${entry("X", "U8", [1], [2, 3])}}`.replace(
          '"X"',
          '"\\u20ac\\ud83d\\ude00\\/\\\\\\""',
        ),
        3,
      ),
  },

  B01a: { about: "negative dimension", bytes: () => altered("[1]", "[-1]") },
  B01b: { about: "negative offset", bytes: () => altered("[0,1]", "[-1,0]") },
  B01c: { about: "minus zero", bytes: () => altered("[0,1]", "[-0,1]") },
  B02a: { about: "dimension 1.0", bytes: () => altered("[1]", "[1.0]") },
  B02b: { about: "dimension 1e0", bytes: () => altered("[1]", "[1e0]") },
  B02c: { about: 'dimension "1"', bytes: () => altered("[1]", '["1"]') },
  B02d: { about: "dimension true", bytes: () => altered("[1]", "[true]") },
  B02e: { about: "dimension null", bytes: () => altered("[1]", "[null]") },
  B02f: { about: "dimension [1]", bytes: () => altered("[1]", "[[1]]") },
  B03a: { about: "offset 2^53+1", bytes: () => altered("[0,1]", "[0,9007199254740993]") },
  B03b: { about: "dimension 2^64", bytes: () => altered("[1]", "[18446744073709551616]") },
  B04: {
    about: "2^66 elements, which is 0 in 64 bits",
    bytes: () => build(`{${entry("t", "U8", [2 ** 22, 2 ** 22, 2 ** 22], [0, 0])}}`, 0),
  },
  B05a: { about: "2^54 elements", bytes: () => build(`{${entry("t", "U8", [2 ** 27, 2 ** 27], [0, 0])}}`, 0) },
  B05b: {
    about: "2^52 elements of 8 bytes",
    bytes: () => build(`{${entry("t", "F64", [2 ** 26, 2 ** 26], [0, 0])}}`, 0),
  },
  B06: { about: "rank 0", bytes: () => build(`{${entry("t", "F32", [], [0, 4])}}`, 4) },
  B07: { about: "a dimension 0", bytes: () => build(`{${entry("t", "F32", [3, 0], [0, 0])}}`, 0) },
  B08: {
    about: "an empty tensor at another's begin, and one at its end",
    bytes: () => build(`{${entry("a")},${entry("e", "F32", [0], [0, 0])},${entry("f", "F32", [0], [1, 1])}}`),
  },
  B09a: { about: "rank 100,000", bytes: () => altered("[1]", `[${"1,".repeat(99_999)}1]`) },
  B09b: { about: "rank 9", bytes: () => altered("[1]", "[1,1,1,1,1,1,1,1,1]") },
  B09c: { about: "rank 8", bytes: () => altered("[1]", "[1,1,1,1,1,1,1,1]") },
  B10: { about: "end before begin", bytes: () => altered("[0,1]", "[1,0]") },
  B11a: { about: "one offset", bytes: () => altered("[0,1]", "[0]") },
  B11b: { about: "three offsets", bytes: () => altered("[0,1]", "[0,1,1]") },
  B11c: { about: "offsets are a string", bytes: () => altered("[0,1]", '"0,1"') },
  B12: { about: "first tensor at 4", bytes: () => altered("[0,1]", "[4,5]") },
  B13: { about: "gap", bytes: () => two([0, 4], [6, 8], 8) },
  B14a: { about: "overlap", bytes: () => two([0, 4], [2, 6], 6) },
  B14b: { about: "two tensors on one range", bytes: () => two([0, 4], [0, 4], 4) },
  B14c: { about: "one tensor inside another", bytes: () => two([0, 8], [2, 4], 8) },
  B14d: {
    about: "10 tensors on one range",
    bytes: () => build(`{${Array.from({ length: 10 }, (_, i) => entry(`t${i}`)).join()}}`),
  },
  B15: { about: "header order is not file order", bytes: () => two([4, 6], [0, 4], 6) },
  B16a: { about: "more bytes than the shape takes", bytes: () => build(`{${entry("t", "F32", [2], [0, 12])}}`, 12) },
  B16b: { about: "fewer bytes than the shape takes", bytes: () => build(`{${entry("t", "F32", [2], [0, 4])}}`, 4) },
  B17: { about: "data 1 byte short", bytes: () => build(`{${entry("t", "F32", [2], [0, 8])}}`, 7) },
  B18: {
    about: "a zip archive behind the data",
    bytes: () => bytes(...build(GOOD), "PK", 5, 6, ...new Array<number>(18).fill(0)),
  },
  B19: {
    about: "good by itself, I32 where a model expects F32",
    bytes: () => build(`{${entry("t", "I32", [2], [0, 8])}}`, 8),
  },
  B20: {
    about: "an F16 tensor at an odd offset",
    bytes: () => build(`{${entry("a")},${entry("h", "F16", [3], [1, 7])}}`, 7),
  },
};
