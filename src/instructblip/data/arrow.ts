/**
 * Rows of an Arrow file in the streaming format, which Hugging Face's `save_to_disk` writes, or in the file format (Feather),
 * which is the same between two magic words; by flechette. Some record batches are in memory at a time.
 */
import { type Column, type DataType, type Table, Type } from "@uwdata/flechette";
import type { InputError } from "../../tensor/errors.ts";
import type { ByteSource } from "../../tensor/files/source.ts";
import { decodeTable, MOST_BODY, MOST_RATIO } from "./arrow_table.ts";
import { badFile, type ImageKind, imagesOf, plain, type Row, type RowFile } from "./row.ts";

const FORMAT = "an Arrow file";
/** Longest description of a batch. */
const MOST_HEAD = 2 ** 24;
/** Bytes of decoded batches that are kept, besides the last: rows may be read in any order. */
const MOST_KEPT = 2 ** 28;
/** Message types of Arrow's Message.fbs. */
const [SCHEMA, DICTIONARY, BATCH] = [1, 2, 3];
const MAGIC = "ARROW1";
/** A type of Schema.fbs. */
const UNION = 14;
/** Most fields of a schema, and most levels. */
const MOST_FIELDS = 10_000;
const MOST_DEPTH = 16;

interface Message {
  readonly type: number;
  readonly begin: number;
  readonly end: number;
  /** Of a record batch. */
  readonly rows: number;
}

/** @throws InputError BAD_DATA_FILE; what the source throws */
export async function openArrow(source: ByteSource): Promise<RowFile> {
  try {
    return await open(source);
  } catch (cause) {
    throw badFile(source.name, FORMAT, cause);
  }
}

async function open(source: ByteSource): Promise<RowFile> {
  const bytes = async (begin: number, end: number) => {
    const into = new Uint8Array(end - begin);
    await source.read(begin, into);
    return into;
  };
  const messages = await messagesOf(source, bytes);
  const [schema] = messages;
  if (schema?.type !== SCHEMA) throw new Error("it does not begin with a schema");
  const shared = await Promise.all(
    messages.filter(({ type }) => type === SCHEMA || type === DICTIONARY).map(({ begin, end }) => bytes(begin, end)),
  );
  const batches = messages.filter(({ type }) => type === BATCH);
  const { table: empty } = decodeTable(shared);
  const columns = empty.schema.fields.map(({ name }) => name);
  const images = new Map<string, ImageKind>();
  for (const { name, type } of empty.schema.fields) {
    const kind = imageKind(type);
    if (kind) images.set(name, kind);
  }
  /** Decoded batches, the most recently used last. */
  const kept = new Map<Message, { readonly table: Promise<Table>; bytes: number }>();
  const tableOf = (batch: Message): Promise<Table> => {
    const known = kept.get(batch) ?? { table: load(batch), bytes: 0 };
    kept.delete(batch);
    kept.set(batch, known);
    return known.table;
  };
  /** Frees the oldest batches, when one more has been decoded. */
  const keep = (batch: Message, bytes: number) => {
    const one = kept.get(batch);
    if (one) one.bytes = bytes;
    let sum = [...kept.values()].reduce((total, { bytes }) => total + bytes, 0);
    for (const [old, { bytes }] of kept) {
      if (sum <= MOST_KEPT || old === batch) break;
      kept.delete(old);
      sum -= bytes;
    }
  };
  const starts: number[] = [];
  let count = 0;
  for (const { rows } of batches) {
    starts.push(count);
    count += rows;
  }
  return {
    columns,
    count,
    async *rows() {
      for (const [b, batch] of batches.entries()) {
        const table = await tableOf(batch);
        for (let i = 0; i < batch.rows; i++) yield rowOf(table, batch, i, `row ${starts[b]! + i}`);
      }
    },
    async row(index) {
      const b = starts.findLastIndex((start) => start <= index);
      const batch = batches[b]!;
      return rowOf(await tableOf(batch), batch, index - starts[b]!, `row ${index}`);
    },
    trim: () => kept.clear(),
  };

  async function load(batch: Message): Promise<Table> {
    try {
      const messages = [...shared, await bytes(batch.begin, batch.end)];
      const { table, bytes: decompressed } = decodeTable(messages, { useBigInt: true });
      const most = batch.end - batch.begin + decompressed;
      for (let i = 0; i < table.numCols; i++) {
        const column = table.getChildAt(i) as Column<unknown>;
        for (const part of column.data) checkBatch(part as unknown as AnyBatch, most);
        if (column.length !== batch.rows) throw new Error("its columns have different lengths");
      }
      keep(batch, most);
      return table;
    } catch (cause) {
      throw badFile(source.name, FORMAT, cause);
    }
  }

  function rowOf(table: Table, batch: Message, i: number, where: string): Row {
    try {
      const value: Record<string, unknown> = Object.create(null);
      for (const [c, column] of columns.entries()) {
        const kind = images.get(column);
        const cell = table.getChildAt(c)!.at(i);
        if (!kind) value[column] = plain(cell);
        else {
          const again = async () => plain((await tableOf(batch)).getChildAt(c)!.at(i));
          value[column] = imagesOf(kind, plain(cell), `${source.name} ${where}`, again);
        }
      }
      return { where, value };
    } catch (error) {
      return { where, error: badFile(source.name, FORMAT, error) as InputError };
    }
  }
}

const BYTES: readonly number[] = [Type.Binary, Type.LargeBinary, Type.BinaryView];

function imageKind(type: DataType): ImageKind | undefined {
  const isList = type.typeId === Type.List || type.typeId === Type.LargeList;
  const item = isList ? type.children[0]!.type : type;
  const isBytes = ({ typeId }: DataType) => BYTES.includes(typeId);
  if (isBytes(item)) return { isList, isStruct: false };
  const isStruct =
    item.typeId === Type.Struct && item.children.some(({ name, type }) => name === "bytes" && isBytes(type));
  return isStruct ? { isList, isStruct } : undefined;
}

/** Where the messages of a file are. */
async function messagesOf(
  { size }: ByteSource,
  bytes: (begin: number, end: number) => Promise<Uint8Array>,
): Promise<Message[]> {
  const found: Message[] = [];
  const isFile = size >= 8 && new TextDecoder("latin1").decode(await bytes(0, 6)) === MAGIC;
  for (let at = isFile ? 8 : 0; at + 8 <= size; ) {
    const view = new DataView((await bytes(at, at + 8)).buffer);
    const isMarked = view.getUint32(0, true) === 0xffffffff; // absent before Arrow 0.15
    const length = view.getUint32(isMarked ? 4 : 0, true);
    if (length === 0) return found;
    const head = at + (isMarked ? 8 : 4);
    if (length > MOST_HEAD || head + length > size) throw new Error("a message is longer than the file");
    const { type, body, rows, isCompressed } = readMessage(await bytes(head, head + length));
    if (!(body >= 0 && body <= MOST_BODY) || head + length + body > size)
      throw new Error("a batch is longer than the file");
    // A row takes a bit of some buffer; without any, as of columns that are all null, there is nothing to ask about.
    if (rows < 0 || rows > 8 * body * (isCompressed ? MOST_RATIO : 1))
      throw new Error("a batch has more rows than its bytes can hold");
    found.push({ type, begin: at, end: head + length + body, rows });
    at = head + length + body;
  }
  return found;
}

/** A flatbuffer's tables: an offset to the fields' offsets (vtable), then fields. Reading beyond its bytes throws. */
class Flatbuffer {
  readonly #view: DataView;

  constructor(bytes: Uint8Array) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** Where the fields of the table are that an offset at `at` leads to, by their slots; undefined for one that is absent. */
  table(at: number): (slot: number) => number | undefined {
    const table = at + this.#view.getUint32(at, true);
    const fields = table - this.#view.getInt32(table, true);
    const size = this.#view.getUint16(fields, true);
    return (slot) => {
      const offset = slot < size ? this.#view.getUint16(fields + slot, true) : 0;
      return offset === 0 ? undefined : table + offset;
    };
  }

  int64(at: number | undefined): number {
    return at === undefined ? 0 : Number(this.#view.getBigInt64(at, true));
  }

  uint8(at: number | undefined): number {
    return at === undefined ? 0 : this.#view.getUint8(at);
  }

  /** The items of a vector, whose number may be any in a damaged file. */
  vector(at: number | undefined, stride: number): number[] {
    if (at === undefined) return [];
    const start = at + this.#view.getUint32(at, true);
    const count = this.#view.getUint32(start, true);
    if (count * stride > this.#view.byteLength - start - 4) throw new Error("a list is longer than its message");
    return Array.from({ length: count }, (_, i) => start + 4 + i * stride);
  }
}

/** What a message's description says of it, all vectors that flechette reads checked. */
function readMessage(head: Uint8Array): { type: number; body: number; rows: number; isCompressed: boolean } {
  const buffer = new Flatbuffer(head);
  const message = buffer.table(0);
  const [type, header, body] = [buffer.uint8(message(6)), message(8), buffer.int64(message(10))];
  if (header === undefined || type < SCHEMA || type > BATCH) throw new Error("a message is of no known type");
  if (type === SCHEMA) {
    checkSchema(buffer, header);
    return { type, body, rows: 0, isCompressed: false };
  }
  const data = type === BATCH ? header : buffer.table(header)(6);
  if (data === undefined) throw new Error("a dictionary is empty");
  const batch = buffer.table(data);
  for (const slot of [6, 8]) buffer.vector(batch(slot), 16); // nodes, buffers
  if (buffer.vector(batch(12), 8).some((count) => !(buffer.int64(count) >= 0 && buffer.int64(count) <= MOST_FIELDS))) {
    throw new Error("a column has too many buffers");
  }
  return { type, body, rows: buffer.int64(batch(4)), isCompressed: batch(10) !== undefined };
}

/** Offsets of a damaged schema may lead to one field many times. */
function checkSchema(buffer: Flatbuffer, at: number): void {
  let count = 0;
  const metadata = (vector: number | undefined) => {
    for (const pair of buffer.vector(vector, 4)) {
      if (++count > MOST_FIELDS) throw new Error("its schema is too large");
      buffer.table(pair);
    }
  };
  const fields = (vector: number | undefined, depth: number) => {
    if (depth > MOST_DEPTH) throw new Error("its schema is too deep");
    for (const one of buffer.vector(vector, 4)) {
      if (++count > MOST_FIELDS) throw new Error("its schema is too large");
      const field = buffer.table(one);
      const type = field(10);
      if (buffer.uint8(field(8)) === UNION && type !== undefined) buffer.vector(buffer.table(type)(6), 4);
      fields(field(14), depth + 1);
      metadata(field(16));
    }
  };
  const schema = buffer.table(at);
  fields(schema(6), 0);
  metadata(schema(8));
}

/** A batch of flechette, by its fields. */
interface AnyBatch {
  readonly length: number;
  readonly offsets?: ArrayLike<number | bigint>;
  readonly sizes?: ArrayLike<number | bigint>;
  readonly values?: { readonly length: number };
  /** What views lead to. */
  readonly data?: readonly Uint8Array[];
  readonly children?: readonly AnyBatch[];
  readonly stride?: number;
  readonly nullCount?: number;
  /** Only with a `nullCount`. */
  isValid?(i: number): boolean;
}

/** Offsets of a damaged file may span any number of values, which a list would be made of. */
function checkBatch(batch: AnyBatch, bytes: number): void {
  const { length, offsets, sizes, values, data, children = [], stride = 1 } = batch;
  if (!(length >= 0 && length <= 8 * bytes)) throw new Error("a column has more values than its bytes can hold");
  if (data) checkViews(batch, values as Uint8Array, data);
  if (offsets && !sizes) {
    const most = children[0]?.length ?? values?.length ?? 0;
    if (length > 0 && offsets.length <= length) throw new Error("a column lacks offsets");
    for (let i = 0; i < length; i++) {
      const [from, to] = [Number(offsets[i]), Number(offsets[i + 1])];
      if (!(from >= 0 && from <= to && to <= most)) throw new Error("an offset lies outside of its column");
    }
  } else if (sizes) {
    for (let i = 0; i < length; i++) {
      const [from, count] = [Number(offsets?.[i]), Number(sizes[i])];
      if (!(from >= 0 && count >= 0 && from + count <= (children[0]?.length ?? 0))) {
        throw new Error("an offset lies outside of its column");
      }
    }
  } else if (children.length === 1 && stride > 1 && !(length * stride <= children[0]!.length)) {
    throw new Error("a list lacks values");
  }
  for (const child of children) checkBatch(child, bytes);
}

/** Bytes of a view: its length, and as many bytes as it has if they are 12 at most; else 4 of them, a buffer and an offset. */
const VIEW = 16;
type Triple = [number, number, number];

function checkViews(batch: AnyBatch, values: Uint8Array, data: readonly Uint8Array[]): void {
  if (!(batch.length * VIEW <= values.length)) throw new Error("a column lacks values");
  const view = new DataView(values.buffer, values.byteOffset, values.byteLength);
  for (let at = 0; at < batch.length * VIEW; at += VIEW) {
    if (batch.nullCount !== 0 && !batch.isValid?.(at / VIEW)) continue;
    const [length, buffer, offset] = [at, at + 8, at + 12].map((place) => view.getInt32(place, true)) as Triple;
    const isIn = length <= 12 || (offset >= 0 && offset + length <= (data[buffer]?.length ?? 0));
    if (length < 0 || !isIn) throw new Error("a view lies outside of its column");
  }
}
