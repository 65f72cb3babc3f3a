/**
 * Data sets by their paths: a JSONL file, a JSON array, Parquet, Arrow, tar or tar.gz, told by their first bytes; a folder of such
 * files as the Hugging Face Hub has them; or a folder of `datasets.save_to_disk`.
 */
import { createReadStream } from "node:fs";
import { readdir, readFile, stat } from "node:fs/promises";
import { basename, dirname, extname, join, relative, sep } from "node:path";
import { InputError, WeightError } from "../../tensor/errors.ts";
import { FileSource } from "../../tensor/files/source.node.ts";
import type { ByteSource } from "../../tensor/files/source.ts";
import { quote, shown } from "../../tensor/shown.ts";
import { formatOfHead, HEAD_BYTES } from "./format.ts";
import { GunzippedSource, GZIP, headOfGzip, isGzip } from "./gunzipped.node.ts";
import { openJsonArray } from "./json_array.ts";
import { badFile, type Row, type RowFile } from "./row.ts";
import { openTar } from "./tar.ts";

export type DataFormat = "jsonl" | "json" | "parquet" | "arrow" | "tar";

/** Most files of a data set; of these most that are open, and of which decoded rows are kept. */
const MOST_FILES = 100_000;
const MOST_OPEN = 32;
const MOST_DECODED = 2;
/** Largest description of a saved data set. */
const MOST_STATE = 2 ** 24;
const [DICT, STATE] = ["dataset_dict.json", "state.json"] as const;

/** A data set that is not JSONL, whose lines their readers split themselves. */
export interface DataSet {
  /** What relative names of images are relative to. */
  readonly base: string;
  /** How many rows there are, if all files say so. */
  readonly count: number | undefined;
  /** Names of columns, if the files have a schema. */
  readonly columns: readonly string[] | undefined;
  /** All rows in order of file names. Can be called more than once. */
  rows(): AsyncGenerator<Row>;
  close(): Promise<void>;
}

/**
 * Opens a data set.
 *
 * @param split of a folder that has several
 * @returns undefined for JSONL and for what is no file, such as a pipe
 * @throws InputError NOT_FOUND, BAD_DATA_FILE, UNKNOWN_SPLIT; WeightError IO, NOT_REGULAR_FILE
 */
export async function openDataSet(path: string, split?: string): Promise<DataSet | undefined> {
  const found = await stat(path).catch(() => undefined);
  if (!found) throw new InputError("NOT_FOUND", `${path}: no such file`);
  if (!found.isDirectory()) {
    const format = found.isFile() ? await formatOf(path) : "jsonl";
    if (format !== "jsonl") return Files.open([path], dirname(path), format);
    if (split === undefined) return undefined;
    throw new InputError("UNKNOWN_SPLIT", `--split ${split}: ${path} is one file; a folder has splits`);
  }
  const { files, base, indices = [] }: FilesOf = (await savedFiles(path, split)) ?? (await hubFiles(path, split));
  const set = await Files.open(files, base, await formatOf(files[0]!));
  return indices.length === 0 ? set : chosenRows(set, indices);
}

/** The files of a data set in a folder. */
interface FilesOf {
  readonly files: readonly string[];
  readonly base: string;
  /** Files with the numbers of rows, if not all are of it. */
  readonly indices?: readonly string[];
}

/** The rows of a data set that files of indices list. @throws InputError BAD_DATA_FILE */
async function chosenRows(set: Files, files: readonly string[]): Promise<DataSet> {
  let list: Files | undefined;
  try {
    list = await Files.open(files, set.base, await formatOf(files[0]!));
    const chosen: number[] = [];
    for await (const row of list.rows()) {
      if ("error" in row) throw row.error;
      chosen.push(row.value.indices as number);
    }
    await set.choose(chosen);
    return set;
  } catch (error) {
    await set.close();
    throw error;
  } finally {
    await list?.close();
  }
}

/** Whether a folder is of `save_to_disk`. */
export async function isSavedDataSet(path: string): Promise<boolean> {
  const files = await Promise.all([DICT, STATE].map((name) => stat(join(path, name)).catch(() => undefined)));
  return files.some((file) => file?.isFile());
}

/** A folder of `save_to_disk`: of a Dataset, or of a DatasetDict with a folder for each split. */
async function savedFiles(path: string, split: string | undefined): Promise<FilesOf | undefined> {
  const dict = await jsonIn(path, DICT);
  if (dict) {
    const { splits } = dict;
    if (!Array.isArray(splits) || !splits.every((name) => typeof name === "string" && /^\w[\w.-]*$/.test(name))) {
      throw new InputError("BAD_DATA_FILE", `${path}: dataset_dict.json has no list of splits`);
    }
    return savedFiles(join(path, chosen(path, splits as string[], split)), undefined);
  }
  const state = await jsonIn(path, STATE);
  if (!state) return undefined;
  if (split !== undefined && state._split !== split) {
    const { _split: own } = state;
    const what = typeof own === "string" ? `the split ${quote(own)}` : "of no split";
    throw new InputError("UNKNOWN_SPLIT", `--split ${split}: ${path} is ${what}`, { hint: "leave --split out" });
  }
  const named = (key: string) => {
    const given = state[key] ?? [];
    const entries = (Array.isArray(given) ? given : [given]) as ({
      filename?: unknown;
      skip?: unknown;
      take?: unknown;
    } | null)[];
    if (entries.some((file) => file?.skip || file?.take)) {
      throw new InputError("BAD_DATA_FILE", `${path}: state.json: ${key} has skip or take, of datasets before 1.6`, {
        hint: "load it with datasets, and save it again",
      });
    }
    const names = entries.map((file) => file?.filename);
    if (!names.every((name) => typeof name === "string" && basename(name) === name)) {
      throw new InputError("BAD_DATA_FILE", `${path}: state.json: ${key} must be names of files in this folder`);
    }
    return names.map((name) => join(path, name as string));
  };
  const files = named("_data_files");
  if (files.length === 0) throw new InputError("BAD_DATA_FILE", `${path}: state.json names no data files`);
  // Written by datasets 1: rows that select, shuffle or filter left, in their order.
  return { files, base: path, indices: named("_indices_data_files") };
}

async function jsonIn(folder: string, name: string): Promise<Record<string, unknown> | undefined> {
  const path = join(folder, name);
  const found = await stat(path).catch(() => undefined);
  if (!found?.isFile()) return undefined;
  try {
    if (found.size > MOST_STATE) throw new Error("too large");
    const value: unknown = JSON.parse(await readFile(path, "utf8"));
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  } catch {}
  throw new InputError("BAD_DATA_FILE", `${path}: not a JSON object`);
}

/** The shards of a folder as on the Hub, of one format and one split, sorted. */
async function hubFiles(path: string, split: string | undefined): Promise<FilesOf> {
  const entries = await readdir(path, { recursive: true, withFileTypes: true });
  const names = entries
    .filter((entry) => !entry.isDirectory() && /\.(parquet|arrow|tar|tar\.gz|tgz|jsonl|json)$/i.test(entry.name))
    .map((entry) => relative(path, join(entry.parentPath, entry.name)))
    .filter((name) => !name.split(sep).some((part) => part.startsWith(".")));
  const formats = new Set(names.map(extensionOf));
  const extensions = [".parquet", ".arrow", ".tar"].filter((ext) => formats.has(ext));
  const [extension] = extensions;
  if (extension === undefined) {
    const [json] = names;
    const hint = json === undefined ? undefined : `give the file: ${join(path, json)}`;
    throw new InputError("NOT_FOUND", `${path}: no .parquet, .arrow or .tar in this folder`, { hint });
  }
  if (extensions.length > 1) {
    throw new InputError(
      "BAD_DATA_FILE",
      `${path}: files of several formats: ${extensions.join(", ")}; give one, or its folder`,
    );
  }
  const files = names.filter((name) => extensionOf(name) === extension);
  if (files.length > MOST_FILES) throw new InputError("BAD_DATA_FILE", `${path}: more than ${MOST_FILES} files`);
  const folders = new Set(files.map((name) => configOf(name)));
  if (folders.size > 1) {
    const some = [...folders]
      .sort()
      .slice(0, 20)
      .map((name) => quote(name))
      .join(", ");
    throw new InputError("UNKNOWN_SPLIT", `${path}: several data sets are in it: ${some}`, {
      hint: "give the folder of one",
    });
  }
  const splits = new Map<string, string[]>();
  for (const file of files.sort(byNumbers)) {
    const name = splitOf(file);
    splits.set(name, [...(splits.get(name) ?? []), join(path, file)]);
  }
  return { files: splits.get(chosen(path, [...splits.keys()], split))!, base: path };
}

/** `.tar` of a.tar, a.tar.gz and a.tgz. */
function extensionOf(file: string): string {
  return extname(file.toLowerCase().replace(/(\.tar)\.gz$|\.tgz$/, ".tar"));
}

/** Shard 2 before shard 10, where numbers have no leading zeros. */
const collator = new Intl.Collator("en", { numeric: true });
const byNumbers = (a: string, b: string) => collator.compare(a, b);

/** Folders that mean a split. */
const SPLITS = /(^|[^a-z])(train|training|validation|valid|dev|val|test|testing|eval|evaluation)([^a-z]|$)/i;

/** `train` of data/train-00000-of-00005.parquet, of train/0000.parquet and of train.parquet; else `train`, as in Hugging Face. */
function splitOf(file: string): string {
  const [, sharded] = /^(.+?)[-_.]\d+-of-\d+\b[^.]*\.\w+(\.gz)?$/.exec(basename(file)) ?? [];
  if (sharded !== undefined) return sharded;
  const named = SPLITS.exec(basename(file)) ?? SPLITS.exec(basename(dirname(file)));
  const name = named?.[2]?.toLowerCase() ?? "train";
  if (name.startsWith("train")) return "train";
  if (/^(dev|val)/.test(name)) return "validation";
  return "test";
}

/** The folder of a file but for `data` and a split's own. */
function configOf(file: string): string {
  return dirname(file)
    .split(sep)
    .filter(
      (part) =>
        part !== "data" && !/^(train|training|validation|valid|dev|val|test|testing|eval|evaluation)$/i.test(part),
    )
    .join("/");
}

function chosen(path: string, splits: readonly string[], split: string | undefined): string {
  const some = splits
    .slice(0, 20)
    .map((name) => quote(name))
    .join(", ");
  if (split !== undefined) {
    if (splits.includes(split)) return split;
    throw new InputError("UNKNOWN_SPLIT", `--split ${split}: ${path} has no such split; the splits are ${some}`);
  }
  const [only, ...others] = splits;
  if (only !== undefined && others.length === 0) return only;
  throw new InputError("UNKNOWN_SPLIT", `${path}: it has the splits ${some || "of no name"}`, {
    hint: "--split names one",
  });
}

/** A file's format by its first bytes, a tar's also in gzip. @throws InputError BAD_DATA_FILE for one that is compressed as a whole */
async function formatOf(path: string): Promise<DataFormat> {
  const source = await FileSource.open(path, basename(path));
  try {
    const bytes = new Uint8Array(Math.min(16 * HEAD_BYTES, source.size));
    await source.read(0, bytes);
    const found = formatOfHead(bytes);
    if (found === "compressed") {
      if (isGzip(bytes) && formatOfHead(await headInGzip(path, bytes)) === "tar") return "tar";
      throw new InputError("BAD_DATA_FILE", `${path}: the file is compressed as a whole`, {
        hint: "decompress it first; the one compressed file that is read is a tar in gzip (.tar.gz)",
      });
    }
    if (found && found !== "json" && found !== "image") return found;
    for (const [ending, format] of [
      [".parquet", "parquet"],
      [".arrow", "arrow"],
      [".tar", "tar"],
    ] as const) {
      if (path.toLowerCase().endsWith(ending)) return format; // its reader says what is wrong
    }
    if (found === "image") {
      const hint = "of images alone, features and retrieve take their folder";
      throw new InputError("BAD_DATA_FILE", `${path}: this is an image, not a data set`, { hint });
    }
    return found ?? "jsonl";
  } finally {
    await source.close();
  }
}

/** @throws InputError BAD_DATA_FILE */
async function headInGzip(path: string, bytes: Uint8Array): Promise<Uint8Array> {
  try {
    return await headOfGzip(bytes, HEAD_BYTES);
  } catch (error) {
    throw badFile(path, GZIP, error);
  }
}

/** Parquet's and Arrow's packages take 60 ms to load: only with such a file. */
const OPEN: Readonly<Record<Exclude<DataFormat, "jsonl">, (source: ByteSource) => RowFile | Promise<RowFile>>> = {
  json: openJsonArray,
  parquet: async (source) => (await import("./parquet.ts")).openParquet(source),
  arrow: async (source) => (await import("./arrow.ts")).openArrow(source),
  tar: openTar,
};

/** Files of one format, opened when their rows are read. */
class Files implements DataSet {
  readonly base: string;
  count: number | undefined;
  columns: readonly string[] | undefined;
  readonly #paths: readonly string[];
  readonly #format: Exclude<DataFormat, "jsonl">;
  /** Rows by their numbers in the whole, if not all; and the number of each file's first. */
  #chosen: { readonly rows: readonly number[]; readonly starts: readonly number[] } | undefined;
  /** Files that have been read, the most recently read last. */
  readonly #files = new Map<string, PooledSource>();

  private constructor(paths: readonly string[], base: string, format: Exclude<DataFormat, "jsonl">) {
    this.base = base;
    this.#paths = paths;
    this.#format = format;
  }

  static async open(paths: readonly string[], base: string, format: DataFormat): Promise<Files> {
    const name = paths[0] ?? base;
    if (format === "jsonl") throw new InputError("BAD_DATA_FILE", `${name}: not a file of its format`);
    const files = new Files(paths, base, format);
    try {
      const { columns, count } = await files.#rowsOf(name);
      files.columns = columns;
      if (paths.length === 1) files.count = count;
      return files;
    } catch (error) {
      await files.close();
      throw error;
    }
  }

  async *rows(): AsyncGenerator<Row> {
    const place = (path: string, row: Row): Row => {
      const prefix = this.#paths.length > 1 && this.#format !== "tar" ? `${basename(path)}: ` : "";
      return { ...row, where: `${prefix}${row.where}` };
    };
    if (this.#chosen) {
      const { rows, starts } = this.#chosen;
      for (const row of rows) {
        const i = starts.findLastIndex((start) => start <= row);
        const file = await this.#rowsOf(this.#paths[i]!);
        yield place(this.#paths[i]!, await file.row!(row - starts[i]!));
      }
      return;
    }
    for (const path of this.#paths) {
      const file = await this.#rowsOf(path);
      for await (const row of file.rows()) yield place(path, row);
    }
  }

  /** Leaves these rows, in this order. @throws InputError BAD_DATA_FILE for what is no number of a row */
  async choose(rows: readonly number[]): Promise<void> {
    const starts: number[] = [];
    let count = 0;
    for (const path of this.#paths) {
      const file = await this.#rowsOf(path);
      if (file.count === undefined || !file.row) {
        throw new InputError("BAD_DATA_FILE", `${path}: its rows are chosen by indices, which Arrow has alone`);
      }
      starts.push(count);
      count += file.count;
    }
    const odd = rows.findIndex((row) => !(Number.isSafeInteger(row) && row >= 0 && row < count));
    if (odd >= 0) {
      const text = `${this.base}: indices: there are ${count} rows, and none is ${shown(rows[odd])}`;
      throw new InputError("BAD_DATA_FILE", text);
    }
    this.count = rows.length;
    this.#chosen = { rows, starts };
  }

  async close(): Promise<void> {
    for (const source of this.#files.values()) await source.close();
    this.#files.clear();
  }

  async #rowsOf(path: string): Promise<RowFile> {
    const known = this.#files.get(path)?.file;
    if (known) return known;
    const source = await PooledSource.open(path, () => this.#readFrom(path));
    this.#files.set(path, source);
    source.file = await OPEN[this.#format](source);
    return source.file;
  }

  /** Keeps what is decoded of the last files only, and as many open. */
  async #readFrom(path: string): Promise<void> {
    const source = this.#files.get(path);
    if (!source) return;
    this.#files.delete(path);
    this.#files.set(path, source);
    const before = [...this.#files.values()].reverse();
    for (const [i, other] of before.entries()) {
      if (i >= MOST_DECODED) other.file?.trim?.();
      if (i >= (other.isGzip ? MOST_DECODED : MOST_OPEN)) await other.rest();
    }
  }
}

/** An open file, or what is in one of gzip. */
type Handle = FileSource | GunzippedSource;

async function openHandle(path: string): Promise<Handle> {
  const source = await FileSource.open(path, basename(path));
  let isOpen = false;
  try {
    const head = new Uint8Array(Math.min(2, source.size));
    await source.read(0, head);
    isOpen = !isGzip(head);
    return isOpen ? source : await GunzippedSource.open(source);
  } finally {
    if (!isOpen) await source.close();
  }
}

/** A file whose handle may be closed between reads. */
class PooledSource implements ByteSource {
  readonly name: string;
  readonly size: number;
  file: RowFile | undefined;
  readonly #path: string;
  readonly #version: string;
  readonly #onRead: () => Promise<void>;
  readonly isGzip: boolean;
  #handle: Promise<Handle> | undefined;
  #reads = 0;

  private constructor(path: string, handle: Handle, onRead: () => Promise<void>) {
    [this.name, this.size, this.#version] = [handle.name, handle.size, handle.version];
    this.isGzip = handle instanceof GunzippedSource;
    this.#path = path;
    this.#handle = Promise.resolve(handle);
    this.#onRead = onRead;
  }

  /** @param onRead called before every read */
  static async open(path: string, onRead: () => Promise<void>): Promise<PooledSource> {
    return new PooledSource(path, await openHandle(path), onRead);
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    this.#reads++;
    try {
      await this.#onRead();
      this.#handle ??= this.#reopen();
      await (await this.#handle).read(offset, into);
    } finally {
      this.#reads--;
    }
  }

  /** Closes the handle, unless it is in use. */
  async rest(): Promise<void> {
    if (this.#reads === 0) await this.close();
  }

  async close(): Promise<void> {
    const handle = this.#handle;
    this.#handle = undefined;
    await (await handle)?.close();
  }

  async #reopen(): Promise<Handle> {
    const source = await openHandle(this.#path);
    if (source.version === this.#version) return source;
    await source.close();
    throw new WeightError("FILE_CHANGED", `${this.name}: the file was changed while it was being read`);
  }
}

/** The bytes of a file. */
export function streamOf(path: string): AsyncIterable<Uint8Array> {
  return createReadStream(path) as AsyncIterable<Uint8Array>;
}
