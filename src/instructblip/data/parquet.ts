/**
 * Rows of a Parquet file, by hyparquet. The columns of a row group are in memory at a time; those with images are read when
 * an image is, as they are most of the file.
 */
import { type FileMetaData, type ParquetScan, parquetMetadataAsync, parquetScan, type SchemaElement } from "hyparquet";
import { parquetHeader } from "hyparquet/src/column.js";
import { compressors } from "hyparquet-compressors";
import type { InputError } from "../../tensor/errors.ts";
import type { ByteSource } from "../../tensor/files/source.ts";
import { quote } from "../../tensor/shown.ts";
import { badFile, type ImageKind, imagesOf, plain, type Row, type RowFile } from "./row.ts";

const FORMAT = "a Parquet file";
/** Most values of a column in a row group, and bytes of a page: above what writers make, small enough for memory. */
const MOST_VALUES = 2 ** 25;
const MOST_PAGE = 2 ** 30;
/** Longest footer. */
const MOST_FOOTER = 2 ** 26;

/** @throws InputError BAD_DATA_FILE; what the source throws */
export async function openParquet(source: ByteSource): Promise<RowFile> {
  try {
    return await open(source);
  } catch (cause) {
    throw badFile(source.name, FORMAT, cause);
  }
}

async function open(source: ByteSource): Promise<RowFile> {
  const bytes = async (start: number, end: number) => {
    const into = new Uint8Array(Math.max(0, end - start));
    await source.read(start, into);
    return into;
  };
  const tail = source.size < 12 ? new Uint8Array(8) : await bytes(source.size - 8, source.size);
  const footer = new DataView(tail.buffer).getUint32(0, true);
  if (
    new TextDecoder("latin1").decode(tail.subarray(4)) !== "PAR1" ||
    footer > Math.min(MOST_FOOTER, source.size - 12)
  ) {
    throw new Error("it does not end in a footer of its own");
  }
  /** In the order of the file. */
  let chunks: readonly Chunk[] = [];
  const slice = async (start: number, end = source.size) => {
    const from = start < 0 ? source.size + start : start;
    const found = await bytes(from, end < 0 ? source.size + end : end);
    // Near columns are read at once.
    for (let i = firstFrom(chunks, from); i < chunks.length; i++) {
      const { start, size, values } = chunks[i]!;
      if (start + size > from + found.length) break;
      checkPages(found.subarray(start - from, start - from + size), values);
    }
    return found.buffer;
  };
  // Several columns are read ahead, and awaited one by one: after a failure the others are not.
  const file = { byteLength: source.size, slice: (start: number, end?: number) => handled(slice(start, end)) };
  const metadata = await parquetMetadataAsync(file, { initialFetchSize: footer + 8, geoparquet: false });
  chunks = checkedChunks(metadata, source.size);
  const images = imageColumns(metadata.schema);
  const options = { file: { ...file }, compressors, utf8: false, useOffsetIndex: false, geoparquet: false } as const;
  const small = withoutBytes(metadata, images);
  // A scan keeps the last values of each column.
  let scans: { readonly texts: Promise<ParquetScan>; readonly whole: Promise<ParquetScan> } | undefined;
  const scan = () => {
    scans ??= {
      texts: handled(parquetScan({ ...options, metadata: small })),
      whole: handled(parquetScan({ ...options, metadata })),
    };
    return scans;
  };
  const columns = topLevel(metadata.schema).map(({ element }) => element.name);
  const inTexts = topLevel(small.schema).map(({ element }) => element.name);
  return {
    columns,
    count: Number(metadata.num_rows),
    async *rows() {
      for (const { rowStart, rowEnd } of (await scan().whole).ranges) {
        const cells = new Map<string, ArrayLike<unknown>>();
        for (const column of inTexts) {
          cells.set(column, await read(source.name, await scan().texts, column, rowStart, rowEnd));
        }
        for (let row = rowStart; row < rowEnd; row++) yield rowOf(row, rowStart, rowEnd, cells);
      }
    },
    trim: () => {
      scans = undefined;
    },
  };

  function rowOf(row: number, rowStart: number, rowEnd: number, cells: ReadonlyMap<string, ArrayLike<unknown>>): Row {
    const where = `row ${row}`;
    try {
      const value: Record<string, unknown> = Object.create(null);
      for (const column of columns) {
        const kind = images.get(column);
        const cell = plain(cells.get(column)?.[row - rowStart]);
        if (!kind) value[column] = cell;
        else {
          const again = async () =>
            (await read(source.name, await scan().whole, column, rowStart, rowEnd))[row - rowStart];
          value[column] = imagesOf(kind, cell, `${source.name} ${where}`, again);
        }
      }
      return { where, value };
    } catch (error) {
      return { where, error: badFile(source.name, FORMAT, error) as InputError };
    }
  }
}

/** A column of a row group, which hyparquet keeps until the next one of that column is read. */
async function read(
  name: string,
  scan: ParquetScan,
  column: string,
  rowStart: number,
  rowEnd: number,
): Promise<ArrayLike<unknown>> {
  try {
    const data = await scan.readColumn({ column, rowStart, rowEnd });
    if (data.length === rowEnd - rowStart) return data;
    throw new Error(`${quote(column)} has ${data.length} values for ${rowEnd - rowStart} rows`);
  } catch (cause) {
    throw badFile(name, FORMAT, cause);
  }
}

interface Leaf {
  readonly element: SchemaElement;
  readonly children: readonly Leaf[];
  /** Its index in the schema. */
  readonly index: number;
}

/** The columns of a schema, which is a tree written in order. */
function topLevel(schema: readonly SchemaElement[]): readonly Leaf[] {
  let next = 0;
  const take = (depth: number): Leaf => {
    const index = next++;
    const element = schema[index];
    if (!element || depth > 16) throw new Error("its schema is damaged");
    const children: Leaf[] = [];
    for (let i = 0; i < (element.num_children ?? 0); i++) children.push(take(depth + 1));
    return { element, children, index };
  };
  const root = take(0);
  if (next !== schema.length) throw new Error("its schema is damaged");
  return root.children;
}

/** Bytes and not text. */
const isBytes = ({ element, children }: Leaf) =>
  children.length === 0 && element.type === "BYTE_ARRAY" && !element.converted_type && !element.logical_type;

/** Columns with images: bytes, a group with bytes, or lists of these in Parquet's three levels. */
function imageColumns(schema: readonly SchemaElement[]): Map<string, ImageKind> {
  const found = new Map<string, ImageKind>();
  for (const column of topLevel(schema)) {
    const [repeated] =
      column.element.converted_type === "LIST" || column.element.logical_type?.type === "LIST" ? column.children : [];
    const item = repeated?.children.length === 1 ? repeated.children[0]! : column;
    const isList = item !== column;
    if (isBytes(item)) found.set(column.element.name, { isList, isStruct: false });
    else if (item.children.some((child) => child.element.name === "bytes" && isBytes(child))) {
      found.set(column.element.name, { isList, isStruct: true });
    }
  }
  return found;
}

/**
 * The same file without its columns of bytes, as if it had never had them. Lists of bytes alone stay: nothing else says how
 * long they are.
 */
function withoutBytes(metadata: FileMetaData, images: ReadonlyMap<string, ImageKind>): FileMetaData {
  const gone = new Set<string>();
  const keep = (leaf: Leaf, path: readonly string[]): SchemaElement[] => {
    const own = [...path, leaf.element.name];
    if (isBytes(leaf)) {
      gone.add(JSON.stringify(own));
      return [];
    }
    if (leaf.children.length === 0) return [leaf.element];
    const kept = leaf.children.map((child) => keep(child, own));
    const left = kept.filter((elements) => elements.length > 0);
    return left.length === 0 ? [] : [{ ...leaf.element, num_children: left.length }, ...left.flat()];
  };
  const whole = (leaf: Leaf): SchemaElement[] => [leaf.element, ...leaf.children.flatMap(whole)];
  const kept = topLevel(metadata.schema).map((column) => {
    const before = new Set(gone);
    const elements = keep(column, []);
    if (elements.length > 0 || !images.get(column.element.name)?.isList) return elements;
    for (const path of gone) if (!before.has(path)) gone.delete(path);
    return whole(column);
  });
  const left = kept.filter((elements) => elements.length > 0);
  return {
    ...metadata,
    schema: [{ ...metadata.schema[0]!, num_children: left.length }, ...left.flat()],
    row_groups: metadata.row_groups.map((group) => ({
      ...group,
      columns: group.columns.filter(({ meta_data }) => !gone.has(JSON.stringify(meta_data?.path_in_schema))),
    })),
  };
}

/** A column of a row group: its first byte, its bytes and how many values it has, nulls and those of lists counted. */
interface Chunk {
  readonly start: number;
  readonly size: number;
  readonly values: number;
}

/** The index of the first chunk that begins at a byte or after it. */
function firstFrom(chunks: readonly Chunk[], byte: number): number {
  let [low, high] = [0, chunks.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (chunks[middle]!.start < byte) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Every column chunk, in the order of the file. A damaged file may claim any size and number. */
function checkedChunks({ row_groups, num_rows }: FileMetaData, size: number): Chunk[] {
  let rows = 0;
  const found: Chunk[] = [];
  for (const { columns, num_rows: groupRows } of row_groups) {
    rows += Number(groupRows);
    if (!(groupRows >= 0n) || columns.length === 0) throw new Error("a row group is damaged");
    for (const { meta_data, file_path } of columns) {
      if (!meta_data || file_path) throw new Error("its columns are in other files");
      const { data_page_offset, dictionary_page_offset, total_compressed_size, num_values } = meta_data;
      const start = Number(dictionary_page_offset || data_page_offset);
      const values = Number(num_values);
      const fits =
        start >= 4 && Number(total_compressed_size) >= 0 && start + Number(total_compressed_size) <= size - 8;
      if (!fits) throw new Error("a column lies outside of the file");
      if (!(values >= Number(groupRows)) || values > MOST_VALUES) {
        throw new Error(`a column has ${values} values for ${groupRows} rows; at most ${MOST_VALUES} can be read`);
      }
      found.push({ start, size: Number(total_compressed_size), values });
    }
  }
  if (rows !== Number(num_rows)) throw new Error(`it has ${num_rows} rows, and its row groups ${rows}`);
  return found.sort((a, b) => a.start - b.start);
}

/** The pages of a column chunk claim no more than it has: decoders make room for what they claim. */
function checkPages(chunk: Uint8Array, most: number): void {
  const reader = { view: new DataView(chunk.buffer, chunk.byteOffset, chunk.byteLength), offset: 0 };
  let values = 0;
  while (reader.offset < chunk.length - 1) {
    const header = parquetHeader(reader);
    const { compressed_page_size: stored, uncompressed_page_size: size } = header;
    if (!(stored >= 0 && size >= 0 && size <= MOST_PAGE) || reader.offset + stored > chunk.length) {
      throw new Error("a page is damaged, or too large");
    }
    reader.offset += stored;
    const page = header.data_page_header ?? header.data_page_header_v2;
    const own = page?.num_values ?? header.dictionary_page_header?.num_values ?? 0;
    if (page) values += own;
    if (!(own >= 0 && own <= most) || values > most) throw new Error("a page has more values than its column");
    const v2 = header.data_page_header_v2;
    if (v2 && !(v2.num_rows >= 0 && v2.num_rows <= most)) throw new Error("a page has more rows than its column");
  }
}

/** A promise that is no unhandled rejection, which would end the process, if nobody awaits it. */
function handled<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => {});
  return promise;
}
