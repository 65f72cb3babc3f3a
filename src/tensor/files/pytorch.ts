/**
 * Reader of PyTorch's files (.bin, .pt, .pth), without running anything: the pickle is read by a machine that only knows how tensors
 * are rebuilt (pytorch_pickle.ts), and tensors are read by range.
 *
 * Two formats. Since 1.6 a zip archive of stored entries: `NAME/data.pkl`, and a storage each in `NAME/data/KEY`. Before, pickles one
 * after the other: a magic number, a version, the machine, the state dict, the keys of storages; then each storage after its number
 * of elements.
 *
 * Source: torch 2.13, serialization.py (_save, _legacy_save).
 */
import { WeightError } from "../errors.ts";
import { formatShape } from "../shape.ts";
import { quote } from "../shown.ts";
import { Dict, PickleEnd, type PickleLimits, type PickleValue } from "./pickle.ts";
import { elementBytes, readPickle, readStateDict, type StateDict, type StoredTensor } from "./pytorch_pickle.ts";
import { otherFormat } from "./safetensors_header.ts";
import { type ByteSource, readScattered } from "./source.ts";
import {
  byteSize,
  checkName,
  DEFAULT_HEADER_BYTES,
  DEFAULT_TENSORS,
  type DerivedTensor,
  type Header,
  type HeaderLimits,
  listed,
  type Refuse,
  refuser,
  TensorFile,
  type TensorInfo,
} from "./tensor_file.ts";
import { locateEntries, type Place, readZipDirectory } from "./zip.ts";

/** An open file of PyTorch's with a valid state dict. */
export class PyTorchFile extends TensorFile {
  /**
   * Reads the pickle and finds the storages. Takes ownership of `source`: closes it if the file is refused.
   *
   * @throws WeightError NOT_PYTORCH, PICKLE_GLOBAL (a pickle that asks for anything but tensors; nothing is run), BAD_PICKLE,
   * NO_STATE_DICT, BIG_ENDIAN, BAD_ZIP, ZIP_PACKED, HEADER_TOO_LARGE, TOO_MANY_TENSORS, BAD_NAME, RANK, OVERFLOW, SIZE_MISMATCH,
   * BAD_VIEW, TENSOR_TOO_LARGE, TRUNCATED, TRAILING_DATA, BAD_UTF8, and the source's own
   */
  static async open(source: ByteSource, limits: HeaderLimits = {}): Promise<PyTorchFile> {
    try {
      const { header, derived } = await readFile(source, limits);
      return new PyTorchFile(source, header, derived);
    } catch (error) {
      await source.close();
      throw error;
    }
  }
}

/** Values and references of a pickle for each tensor, at most. A tensor takes 5 and 15. */
const [VALUES_PER_TENSOR, MEMO_PER_TENSOR] = [8, 32];
/** Entries of an archive besides storages. */
const OTHER_ENTRIES = 100;
/** First read of a pickle whose length is not known. */
const FIRST_READ = 2 ** 16;
/** Most bytes of a storage that a tensor is gathered from by its strides: they are in memory as a whole. */
const MAX_GATHERED = 2 ** 30;
/** Bytes that a tensor of repeated numbers may take, whatever the file's size. */
const MIN_REPEATED = 2 ** 20;

/** `0x1950a86a20f9469cfc6c` as LONG1 after PROTO, then STOP: how files before 1.6 begin. */
const LEGACY = [0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, 0x2e];
const LEGACY_VERSION = 1001;

interface Contents {
  readonly header: Header;
  readonly derived: readonly DerivedTensor[];
}

async function readFile(source: ByteSource, limits: HeaderLimits): Promise<Contents> {
  const refuse = refuser(source.name);
  const start = new Uint8Array(Math.min(source.size, 512));
  await source.read(0, start);
  const is = (offset: number, bytes: readonly number[]) => bytes.every((byte, i) => start[offset + i] === byte);
  if (is(0, [0x50, 0x4b, 0x03, 0x04])) return readZip(source, limits, refuse);
  // From protocol 4 on a frame's opcode and length are before it.
  if (start[0] === 0x80 && (is(2, LEGACY) || (start[2] === 0x95 && is(11, LEGACY))))
    return readLegacy(source, limits, refuse);
  if (is(257, [...new TextEncoder().encode("ustar")])) {
    refuse("NOT_PYTORCH", "this is a tar archive, as of PyTorch before 0.1.10", "load it in Python, and save it again");
  }
  if (start[0] === 0x80)
    refuse("NOT_PYTORCH", "this is a pickle that torch.save did not write", "save it in Python by torch.save");
  const [kind, hint] = otherFormat(start) ?? [];
  if (kind) refuse("NOT_PYTORCH", `this is ${kind}`, hint);
  if (start[8] === 0x7b)
    refuse("NOT_PYTORCH", "this looks like a safetensors file", "give it a name that ends in .safetensors");
  return refuse("NOT_PYTORCH", "this is no file of torch.save", "incomplete download?");
}

function pickleLimits({ maxTensors = DEFAULT_TENSORS }: HeaderLimits): PickleLimits {
  return { values: VALUES_PER_TENSOR * maxTensors + 1000, memo: MEMO_PER_TENSOR * maxTensors + 1000 };
}

// --- the zip archive ---------------------------------------------------------------------------------------------------------

async function readZip(source: ByteSource, limits: HeaderLimits, refuse: Refuse): Promise<Contents> {
  const { maxHeaderBytes: maxBytes = DEFAULT_HEADER_BYTES, maxTensors = DEFAULT_TENSORS } = limits;
  const directory = await readZipDirectory(source, { maxBytes, maxEntries: maxTensors + OTHER_ENTRIES }, refuse);
  const { entries } = directory;
  const pickles = [...entries.keys()].filter((name) => /^[^/]+\/data\.pkl$/.test(name));
  const [pickle] = pickles;
  if (pickle === undefined || pickles.length > 1) {
    return refuse("NOT_PYTORCH", `a zip archive with ${pickles.length} entries NAME/data.pkl`, "torch.save writes one");
  }
  const folder = pickle.slice(0, -"data.pkl".length);
  const order = entries.get(`${folder}byteorder`);
  const small = await locateEntries(source, directory, [entries.get(pickle)!, ...(order ? [order] : [])], refuse);
  if (order) {
    const text = new TextDecoder().decode(await bytesAt(source, small[1]!, 16, refuse));
    if (text !== "little")
      refuse("BIG_ENDIAN", `its byte order is ${quote(text)}`, "load it in Python, and save it again");
  }
  const bytes = await bytesAt(source, small[0]!, maxBytes, refuse);
  let state: StateDict;
  try {
    ({ state } = readStateDict(bytes, 0, pickleLimits(limits), refuse));
  } catch (error) {
    if (!(error instanceof PickleEnd)) throw error;
    return refuse("BAD_PICKLE", "its pickle ends too early");
  }
  const viewed = new Map([...state.tensors.values()].map(({ storage }) => [storage.key, storage]));
  const stored = [...viewed.values()].map(({ key, bytes: size }) => {
    const entry = entries.get(`${folder}data/${key}`);
    if (!entry) return refuse("TRUNCATED", `the storage ${quote(key)} is not in the archive`);
    if (entry.size !== size)
      refuse("SIZE_MISMATCH", `the storage ${quote(key)} takes ${size} bytes, got ${entry.size}`);
    return entry;
  });
  const places = await locateEntries(source, directory, stored, refuse);
  return contentsOf(source, state, new Map([...viewed.keys()].map((key, i) => [key, places[i]!])), limits, refuse);
}

/** A small entry. */
async function bytesAt(source: ByteSource, { begin, end }: Place, most: number, refuse: Refuse): Promise<Uint8Array> {
  if (end - begin > most) {
    refuse(
      "HEADER_TOO_LARGE",
      `a pickle of ${end - begin} bytes; the limit is ${most}`,
      "maxHeaderBytes raises the limit",
    );
  }
  const bytes = new Uint8Array(end - begin);
  await source.read(begin, bytes);
  return bytes;
}

// --- files before 1.6 --------------------------------------------------------------------------------------------------------

async function readLegacy(source: ByteSource, limits: HeaderLimits, refuse: Refuse): Promise<Contents> {
  const most = limits.maxHeaderBytes ?? DEFAULT_HEADER_BYTES;
  for (let length = FIRST_READ; ; length *= 4) {
    const bytes = new Uint8Array(Math.min(length, most, source.size));
    await source.read(0, bytes);
    try {
      return await readLegacyPrefix(source, bytes, limits, refuse);
    } catch (error) {
      if (!(error instanceof PickleEnd)) throw error;
    }
    if (bytes.length === source.size) refuse("TRUNCATED", "its pickle ends too early", "incomplete download?");
    if (bytes.length === most) {
      refuse("HEADER_TOO_LARGE", `a pickle of more than ${most} bytes`, "maxHeaderBytes raises the limit");
    }
  }
}

/** @throws PickleEnd if `bytes`, with which the file begins, do not hold all pickles */
async function readLegacyPrefix(
  source: ByteSource,
  bytes: Uint8Array,
  limits: HeaderLimits,
  refuse: Refuse,
): Promise<Contents> {
  const most = pickleLimits(limits);
  const magic = readPickle(bytes, 0, most, refuse);
  const version = readPickle(bytes, magic.end, most, refuse);
  if (version.value !== LEGACY_VERSION) refuse("NOT_PYTORCH", "a file of torch.save of an unknown version");
  const machine = readPickle(bytes, version.end, most, refuse);
  const isLittle = machine.value instanceof Dict ? machine.value.entries.get("little_endian") : undefined;
  if (isLittle !== true) refuse("BIG_ENDIAN", "it was not saved little-endian", "load it in Python, and save it again");
  const { state, end } = readStateDict(bytes, machine.end, most, refuse);
  const keys = readPickle(bytes, end, most, refuse);
  const places = await legacyPlaces(source, keysOf(keys.value, refuse), keys.end, state.storages, refuse);
  return contentsOf(source, state, places, limits, refuse);
}

function keysOf(value: PickleValue, refuse: Refuse): string[] {
  const keys = Array.isArray(value) ? value : [undefined];
  if (!keys.every((key) => typeof key === "string")) return refuse("BAD_PICKLE", "its storages have no list of keys");
  return keys as string[];
}

async function legacyPlaces(
  source: ByteSource,
  keys: readonly string[],
  begin: number,
  storages: StateDict["storages"],
  refuse: Refuse,
): Promise<Map<string, Place>> {
  const places = new Map<string, Place>();
  const counts: { begin: number; length: number }[] = [];
  let at = begin;
  for (const key of keys) {
    const { bytes } = storages.get(key) ?? refuse("BAD_PICKLE", `the storage ${quote(key)} belongs to no tensor`);
    if (places.has(key)) refuse("BAD_PICKLE", `the storage ${quote(key)} is listed twice`);
    counts.push({ begin: at, length: 8 });
    places.set(key, { begin: at + 8, end: at + 8 + bytes });
    at += 8 + bytes;
    if (at > source.size)
      refuse("TRUNCATED", `the data ends ${at - source.size} bytes too early`, "incomplete download?");
  }
  if (at < source.size) refuse("TRAILING_DATA", `${source.size - at} bytes after the last storage belong to no tensor`);
  const gone = [...storages.keys()].find((key) => !places.has(key));
  if (gone !== undefined) refuse("TRUNCATED", `the storage ${quote(gone)} is not in the file`);
  await readScattered(source, counts, (i, bytes) => {
    const key = keys[i]!;
    const { dtype, bytes: size } = storages.get(key)!;
    const count = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigInt64(0, true));
    const found = count * (dtype ? elementBytes(dtype) : 1);
    if (found !== size) refuse("SIZE_MISMATCH", `the storage ${quote(key)} takes ${size} bytes, got ${found}`);
  });
  return places;
}

// --- tensors -----------------------------------------------------------------------------------------------------------------

function contentsOf(
  source: ByteSource,
  { tensors, ignored }: StateDict,
  places: ReadonlyMap<string, Place>,
  { maxTensors = DEFAULT_TENSORS }: HeaderLimits,
  refuse: Refuse,
): Contents {
  if (tensors.size > maxTensors) refuse("TOO_MANY_TENSORS", `more than ${maxTensors} tensors`);
  const infos: TensorInfo[] = [];
  const derived: DerivedTensor[] = [];
  const held: Held = { source };
  for (const [name, tensor] of tensors) {
    checkName(name, refuse);
    const inTensor: Refuse = (code, message, hint) => refuse(code, `${quote(name)}: ${message}`, hint);
    const { dtype, shape, strides, offset, storage } = tensor;
    const element = elementBytes(dtype);
    const size = byteSize(shape, 8 * element, inTensor);
    const place = places.get(storage.key)!;
    const begin = place.begin + offset * element;
    const span = size === 0 ? 0 : element * (1 + shape.reduce((sum, dim, i) => sum + (dim - 1) * strides[i]!, 0));
    if (!(begin + span <= place.end)) {
      inTensor(
        "BAD_VIEW",
        `the shape ${formatShape(shape)} with its strides and offset leaves the storage of ${storage.bytes} bytes`,
      );
    }
    if (isContiguous(tensor)) {
      infos.push({ name, dtype, shape, begin, end: begin + size });
      continue;
    }
    // A stride of 0 repeats numbers: what a file takes in memory is bounded by its size.
    if (span > MAX_GATHERED || size > Math.max(source.size, MIN_REPEATED)) {
      inTensor("TENSOR_TOO_LARGE", `${size} bytes that are not contiguous`, "save tensor.contiguous() instead");
    }
    const read = (byteOffset: number, into: Uint8Array) => gather(held, begin, span, tensor, byteOffset, into);
    derived.push({ name, dtype, shape, size, read });
  }
  infos.sort((a, b) => a.begin - b.begin || a.end - b.end);
  const warnings = ignored.length ? [`ignored what is no tensor of the state dict: ${listed(ignored)}`] : [];
  return {
    header: { metadata: new Map(), tensors: new Map(infos.map((info) => [info.name, info])), warnings },
    derived,
  };
}

/** Whether the elements are in order, without gaps. Strides of dimensions of size 1 say nothing. */
function isContiguous({ shape, strides }: StoredTensor): boolean {
  if (shape.includes(0)) return true;
  let step = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    if (shape[i] === 1) continue;
    if (strides[i] !== step) return false;
    step *= shape[i]!;
  }
  return true;
}

/** What was read last to gather from: the next read is most likely of the same tensor. */
interface Held {
  readonly source: ByteSource;
  /** Its begin and length in the file. */
  range?: string;
  bytes?: Promise<Uint8Array>;
}

/** Fills `into` with the elements of a tensor in order, from `byteOffset`. */
async function gather(
  held: Held,
  begin: number,
  span: number,
  { dtype, shape, strides }: StoredTensor,
  byteOffset: number,
  into: Uint8Array,
): Promise<void> {
  const range = `${begin} ${span}`;
  if (held.range !== range || !held.bytes) {
    held.range = range;
    const read = async () => {
      const bytes = allocate(held.source.name, span);
      await held.source.read(begin, bytes);
      return bytes;
    };
    held.bytes = read();
    held.bytes.catch(() => delete held.range); // to be tried again
  }
  const bytes = await held.bytes;
  const element = elementBytes(dtype);
  const last = shape.length - 1;
  const index: number[] = [];
  let rest = byteOffset / element;
  for (let i = last; i >= 0; i--) {
    index[i] = rest % shape[i]!;
    rest = Math.floor(rest / shape[i]!);
  }
  let from = index.reduce((sum, at, i) => sum + at * strides[i]!, 0);
  const [row, step] = [shape[last]!, strides[last]!];
  for (let to = 0; to < into.length; ) {
    // The rest of a row.
    const count = Math.min(row - index[last]!, (into.length - to) / element);
    for (let i = 0; i < count; i++, from += step) {
      for (let b = 0; b < element; b++) into[to++] = bytes[from * element + b]!;
    }
    index[last]! += count;
    for (let i = last; i > 0 && index[i] === shape[i]; i--) {
      from += strides[i - 1]! - strides[i]! * shape[i]!;
      index[i - 1]!++;
      index[i] = 0;
    }
  }
}

function allocate(name: string, size: number): Uint8Array {
  try {
    return new Uint8Array(size);
  } catch (cause) {
    throw new WeightError("TENSOR_TOO_LARGE", `${name}: a storage of ${size} bytes does not fit in one array`, {
      cause,
    });
  }
}
