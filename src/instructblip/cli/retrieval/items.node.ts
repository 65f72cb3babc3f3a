/** The data of `features` and `retrieve`: a folder of images, JSON lines with images and texts, or a data set. */
import { createHash, type Hash } from "node:crypto";
import { readdir, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { unknownName } from "../../../tensor/arguments.ts";
import { InputError } from "../../../tensor/errors.ts";
import { type Columns, columnsOf, type Field, withFields } from "../../data/columns.ts";
import { type DataSet, isSavedDataSet, openDataSet } from "../../data/data_set.node.ts";
import { onlyJsonl } from "../../data/format.ts";
import { EmbeddedImage, type Row } from "../../data/row.ts";
import { fillTemplate, hasSlot, type ImageSource } from "../../evaluation/task.ts";
import { checkPrompt, type DataOptions, namesColumns, rowsOfLines } from "../requests/data_rows.ts";
import { chunksOf } from "../requests/predictions.node.ts";
import { splitLines } from "../requests/requests.ts";

/** An image, a text, or both. */
export interface Item {
  readonly id: string | number;
  /** A URL, a file, relative to the data's folder, or inside the data. */
  readonly image?: ImageSource;
  readonly text?: string;
}

export interface Items {
  readonly items: readonly Item[];
  /** The folder that file names are relative to. */
  readonly base: string;
  readonly sha256: string;
  /** Images inside the data can be read until then. */
  close(): Promise<void>;
}

export interface ItemOptions extends DataOptions {
  /** A template of texts. Default: the question, or the caption. */
  readonly prompt?: string;
}

const FIELDS = ["id", "image", "text"];
const OTHER_FIELDS = `fields: ${FIELDS.join(", ")}; of other fields --image-column and --question-column name those to read`;
const IMAGE_FILE = /\.(avif|bmp|gif|jpe?g|png|tiff?|webp)$/i;

/**
 * Reads all items, checked. A folder's are its image files, by name, which is their id, unless it is of a data set; `prompt` is the text of each.
 *
 * @throws InputError NOT_FOUND, BAD_DATA, BAD_DATA_FILE, UNKNOWN_FIELD, UNKNOWN_COLUMN, UNKNOWN_SPLIT, LINE_TOO_LONG, BAD_UTF8,
 *   BAD_TASK (the template), naming file and line or row
 */
export async function readItems(path: string, options: ItemOptions = {}): Promise<Items> {
  const found = await stat(path).catch(() => undefined);
  const hash = createHash("sha256");
  const asksForRows = namesColumns(options) || options.prompt !== undefined || options.split !== undefined;
  const images = found?.isDirectory() ? await imagesIn(path) : [];
  const ofFolder = (): Items => ({
    items: itemsOfImages(path, images, options.prompt),
    ...{ base: path, sha256: hash.update(JSON.stringify(images)).digest("hex"), close: async () => {} },
  });
  if (images.length > 0 && !asksForRows) return ofFolder();
  let set: DataSet | undefined;
  try {
    set = found ? await openDataSet(path, options.split) : undefined;
  } catch (error) {
    if (!found?.isDirectory() || !(error instanceof InputError && error.code === "NOT_FOUND")) throw error;
    if (images.length > 0 && options.split === undefined && !namesColumns(options)) return ofFolder();
    const text =
      images.length > 0
        ? "this is a folder of images, which has no columns and no splits"
        : "there are no images in this folder, and no .parquet, .arrow or .tar";
    throw new InputError("NOT_FOUND", `${path}: ${text}`, { hint: error.hint });
  }
  try {
    const items = await itemsOf(path, set, options, asksForRows, hash);
    if (items.length === 0) throw new InputError("BAD_DATA", `${path}: there are no images and no texts in it`);
    const base = set?.base ?? dirname(path);
    return { items, base, sha256: hash.digest("hex"), close: async () => await set?.close() };
  } catch (error) {
    await set?.close();
    throw error;
  }
}

/** One item for each image, with one and the same text. @throws InputError UNKNOWN_COLUMN, BAD_TASK (the template) */
function itemsOfImages(path: string, images: readonly string[], prompt: string | undefined): Item[] {
  if (prompt === undefined) return images.map((name) => ({ id: name, image: name }));
  checkPrompt(path, prompt, {}, ["id", "image"]);
  return images.map((name) => ({ id: name, image: name, text: fillTemplate(prompt, { id: name, image: name }) }));
}

/** The image files of a folder, if it is not one of `datasets.save_to_disk`. */
async function imagesIn(path: string): Promise<string[]> {
  if (await isSavedDataSet(path)) return [];
  const entries = await readdir(path, { withFileTypes: true });
  return entries
    .filter((entry) => !entry.isDirectory() && IMAGE_FILE.test(entry.name))
    .map(({ name }) => name)
    .sort();
}

function jsonLines(path: string, hash: Hash): AsyncGenerator<Row> {
  const chunks = chunksOf(path, (chunk) => hash.update(chunk));
  const hint = 'give a folder of images, or lines such as {"id": 7, "image": "7.jpg", "text": "a cat"}';
  return rowsOfLines(splitLines(onlyJsonl(path, chunks, hint)));
}

/**
 * The items of a data set, or of lines: whose columns are named, or by the first of them; those with our names have no other.
 */
async function itemsOf(
  path: string,
  set: DataSet | undefined,
  options: ItemOptions,
  asksForRows: boolean,
  hash: Hash,
): Promise<Item[]> {
  const { prompt } = options;
  if (set && prompt !== undefined) checkPrompt(path, prompt, options, set.columns);
  const needed: Field[] = prompt !== undefined && hasSlot(prompt, "question") ? ["question"] : [];
  let areRows = set !== undefined || asksForRows ? true : undefined;
  let columns: Columns | undefined;
  return checked(path, set?.rows() ?? jsonLines(path, hash), (value, place) => {
    if (set) hash.update(`${JSON.stringify(value)}\n`);
    areRows ??= areDataRows(Object.keys(value), path);
    if (!areRows) {
      const unknown = Object.keys(value).find((name) => !FIELDS.includes(name));
      if (unknown !== undefined) throw unknownName("a line", unknown, FIELDS, { kind: "field", hint: OTHER_FIELDS });
      return itemOf(value, place);
    }
    columns ??= columnsOf(set?.columns ?? Object.keys(value), options, needed, path);
    const fields = withFields(value, columns, place);
    const text = prompt === undefined ? textOf(fields, columns) : fillTemplate(prompt, fields);
    const images = [fields.image ?? []].flat();
    if (images.length > 1) throw new InputError("BAD_DATA", `there are ${images.length} images in this row, not one`);
    return itemOf({ id: fields.id, image: images[0] ?? undefined, text: text ?? undefined }, place);
  });
}

/** Whether a line is of a data set: a column of it is found, such as `question`, whose name is not ours. */
const areDataRows = (names: readonly string[], path: string) =>
  Object.values(columnsOf(names, {}, [], path)).some((name) => !FIELDS.includes(name));

/** The question of a row, or its caption. */
function textOf({ question, answers }: Readonly<Record<string, unknown>>, columns: Columns): unknown {
  if (columns.question !== undefined) return question;
  if (columns.answers === undefined || !/^captions?$/.test(columns.answers) || !Array.isArray(answers))
    return undefined;
  if (answers.length > 1) {
    throw new InputError("BAD_DATA", `there are ${answers.length} texts in this row, not one`, {
      hint: "--prompt makes one of its columns",
    });
  }
  return answers[0];
}

/** Items of rows, with ids that differ. */
async function checked(
  path: string,
  rows: AsyncIterable<Row>,
  make: (value: Record<string, unknown>, place: number) => Item,
): Promise<Item[]> {
  const items: Item[] = [];
  const whereOf = new Map<string, string>();
  for await (const row of rows) {
    try {
      if ("error" in row) throw row.error;
      const item = make(row.value, items.length);
      const key = JSON.stringify(item.id);
      const twin = whereOf.get(key);
      if (twin !== undefined) {
        const place = twin.startsWith("line") ? `on ${twin}` : `of ${twin}`;
        throw new InputError("BAD_DATA", `the id ${key} is ${place} already`);
      }
      whereOf.set(key, row.where);
      items.push(item);
    } catch (error) {
      if (!(error instanceof InputError) || error.code === "UNKNOWN_COLUMN") throw error;
      throw new InputError(error.code, `${path}: ${row.where}: ${error.message}`, { hint: error.hint });
    }
  }
  return items;
}

/** @param place counted from 0, the id of a line without one */
function itemOf({ id: given, image, text }: Readonly<Record<string, unknown>>, place: number): Item {
  const id = given === undefined ? place : given;
  if (typeof id !== "string" && (typeof id !== "number" || !Number.isFinite(id))) {
    throw new InputError("BAD_DATA", "id must be a string or a number");
  }
  for (const [name, one] of Object.entries({ image, text })) {
    if (one === undefined || (typeof one === "string" && one !== "")) continue;
    if (name === "image" && one instanceof EmbeddedImage) continue;
    throw new InputError("BAD_DATA", `${name} must be a text that is not empty`);
  }
  if (image === undefined && text === undefined) throw new InputError("BAD_DATA", "there is no image and no text");
  return {
    id,
    ...(image !== undefined && { image: image as ImageSource }),
    ...(text !== undefined && { text: text as string }),
  };
}
