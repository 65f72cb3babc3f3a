/** Rows of data sets, whatever the format of their files: JSON values, and images that are read when they are needed. */
import { EngineError, InputError } from "../../tensor/errors.ts";
import { bounded } from "../../tensor/shown.ts";

/** One row of a data set, or what is wrong with it. */
export type Row = {
  /** For messages: `line 3`, `row 2`, `a.tar: dog/0001`. */
  readonly where: string;
} & (
  | { readonly value: Record<string, unknown> }
  /** With the row's `__key__`, if it has one. */
  | { readonly error: InputError; readonly key?: string }
);

/** The rows of one file, in order. They can be read more than once. */
export interface RowFile {
  /** Names of columns, if the file has a schema. */
  readonly columns?: readonly string[];
  /** How many rows there are, if the file says so. */
  readonly count?: number;
  rows(): AsyncGenerator<Row>;
  /** One of them, where that is cheaper than all before it. */
  row?(index: number): Promise<Row>;
  /** Frees what was decoded; it is decoded again when it is needed. */
  trim?(): void;
}

/** An image inside a data set: its place, not its bytes. */
export class EmbeddedImage {
  /** Its path in the data set it comes from, if it has one; else where it is. Images with equal names may differ. */
  readonly name: string;
  readonly #read: () => Promise<unknown>;

  /** @param read gives bytes; or a path or URL where the file names an image and does not hold it */
  constructor(name: string, read: () => Promise<unknown>) {
    this.name = name;
    this.#read = read;
  }

  /** The bytes of an image file; or its path or URL. @throws InputError BAD_DATA if there is neither */
  async read(): Promise<Uint8Array | string> {
    const found = await this.#read();
    if (found instanceof Uint8Array || (typeof found === "string" && found !== "")) return found;
    throw new InputError("BAD_DATA", `${bounded(this.name, 200)}: there is no image in this row`);
  }

  /** So that questions about one image are found by their JSON. */
  toJSON(): string {
    return this.name;
  }
}

/** How a column holds images: bytes, Hugging Face's struct of bytes and path, or lists of these. */
export interface ImageKind {
  readonly isList: boolean;
  readonly isStruct: boolean;
}

/**
 * The images of one cell.
 *
 * @param value the cell; of structs the paths are read, of lists the length
 * @param read the cell with bytes
 */
export function imagesOf(
  { isList, isStruct }: ImageKind,
  value: unknown,
  where: string,
  read: () => Promise<unknown>,
): EmbeddedImage | EmbeddedImage[] {
  const path = (item: unknown) => {
    const text = isStruct ? (item as { path?: unknown } | null | undefined)?.path : undefined;
    return typeof text === "string" && text !== "" ? text : undefined;
  };
  const bytes = (item: unknown) =>
    isStruct ? ((item as { bytes?: unknown } | null | undefined)?.bytes ?? path(item)) : item;
  if (!isList) return new EmbeddedImage(path(value) ?? where, async () => bytes(await read()));
  const items = Array.isArray(value) ? value : [];
  return items.map((item, i) => {
    return new EmbeddedImage(path(item) ?? `${where}, image ${i}`, async () => bytes(((await read()) as unknown[])[i]));
  });
}

/** Deepest value of a row. */
const MOST_DEPTH = 32;

/** A decoded value as JSON has it: whole numbers that a double cannot hold, and dates, become text. @throws InputError BAD_DATA */
export function plain(value: unknown, depth = 0): unknown {
  if (depth > MOST_DEPTH) throw new InputError("BAD_DATA", `a value has more than ${MOST_DEPTH} levels`);
  switch (typeof value) {
    case "bigint":
      return BigInt(Number(value)) === value && Number.isSafeInteger(Number(value)) ? Number(value) : String(value);
    case "undefined":
      return null;
    case "object": {
      if (value === null || value instanceof Uint8Array) return value;
      if (value instanceof Date) return Number.isNaN(value.getTime()) ? null : value.toISOString();
      if (Array.isArray(value)) return value.map((item) => plain(item, depth + 1));
      if (ArrayBuffer.isView(value)) return Array.from(value as Float64Array, (item) => plain(item, depth + 1));
      return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, plain(item, depth + 1)]));
    }
    default:
      return value;
  }
}

/**
 * A file that its reader does not understand: a library's messages are for its own developers, so they are only quoted; and those
 * of JavaScript itself, of what a reader takes out of a damaged file, are left out.
 */
export function badFile(name: string, format: string, cause: unknown): Error {
  if (cause instanceof EngineError) return cause;
  const isJavaScripts = cause instanceof TypeError || cause instanceof RangeError;
  const message = cause instanceof Error ? cause.message : String(cause);
  const text = isJavaScripts ? "it is damaged" : message;
  return new InputError(
    "BAD_DATA_FILE",
    `${bounded(name, 200)}: not ${format} that can be read: ${bounded(text, 200)}`,
    { cause },
  );
}
