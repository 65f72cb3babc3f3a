/** The data of `features` and `retrieve`: a folder of images, or JSON lines with images and texts. */
import { createHash } from "node:crypto";
import { readdir, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { unknownName } from "../../../tensor/arguments.ts";
import { InputError } from "../../../tensor/errors.ts";
import { onlyJsonl } from "../../data/format.ts";
import { parseObject } from "../../evaluation/task.ts";
import { chunksOf } from "../requests/predictions.node.ts";
import { lineText, splitLines } from "../requests/requests.ts";

/** An image, a text, or both. */
export interface Item {
  readonly id: string | number;
  /** A URL, or a file, relative to the data's folder. */
  readonly image?: string;
  readonly text?: string;
}

export interface Items {
  readonly items: readonly Item[];
  /** The folder that file names are relative to. */
  readonly base: string;
  readonly sha256: string;
}

const FIELDS = ["id", "image", "text"];
const IMAGE_FILE = /\.(avif|bmp|gif|jpe?g|png|tiff?|webp)$/i;

/**
 * Reads all items, checked. A folder's are its image files, by name, which is their id.
 *
 * @throws InputError NOT_FOUND, BAD_DATA, BAD_DATA_FILE, UNKNOWN_FIELD, LINE_TOO_LONG, BAD_UTF8, naming file and line
 */
export async function readItems(path: string): Promise<Items> {
  const found = await stat(path).catch(() => undefined);
  const { items, sha256 } = found?.isDirectory() ? await itemsOfFolder(path) : await itemsOfFile(path);
  if (items.length === 0) throw new InputError("BAD_DATA", `${path}: there are no images and no texts in it`);
  return { items, base: found?.isDirectory() ? path : dirname(path), sha256 };
}

async function itemsOfFolder(path: string): Promise<Omit<Items, "base">> {
  const entries = await readdir(path, { withFileTypes: true });
  const names = entries.filter((entry) => !entry.isDirectory() && IMAGE_FILE.test(entry.name)).map(({ name }) => name);
  names.sort();
  const items = names.map((name) => ({ id: name, image: name }));
  return { items, sha256: createHash("sha256").update(JSON.stringify(names)).digest("hex") };
}

async function itemsOfFile(path: string): Promise<Omit<Items, "base">> {
  const hash = createHash("sha256");
  const items: Item[] = [];
  const lineOf = new Map<string, number>();
  const chunks = chunksOf(path, (chunk) => hash.update(chunk));
  const hint = 'give a folder of images, or lines such as {"id": 7, "image": "7.jpg", "text": "a cat"}';
  for await (const line of splitLines(onlyJsonl(path, chunks, hint))) {
    try {
      const text = lineText(line);
      if (text === undefined) continue;
      const item = itemOf(parseObject(text, "BAD_DATA"), items.length);
      const key = JSON.stringify(item.id);
      const twin = lineOf.get(key);
      if (twin !== undefined) throw new InputError("BAD_DATA", `the id ${key} is on line ${twin} already`);
      lineOf.set(key, line.number);
      items.push(item);
    } catch (error) {
      if (!(error instanceof InputError)) throw error;
      throw new InputError(error.code, `${path}: line ${line.number}: ${error.message}`, { hint: error.hint });
    }
  }
  return { items, sha256: hash.digest("hex") };
}

/** @param place counted from 0, the id of a line without one */
function itemOf(value: Record<string, unknown>, place: number): Item {
  const unknown = Object.keys(value).find((name) => !FIELDS.includes(name));
  if (unknown !== undefined) throw unknownName("a line", unknown, FIELDS, { kind: "field" });
  const { id = place, image, text } = value;
  if (typeof id !== "string" && (typeof id !== "number" || !Number.isFinite(id))) {
    throw new InputError("BAD_DATA", "id must be a string or a number");
  }
  for (const [name, one] of Object.entries({ image, text })) {
    if (one === undefined || (typeof one === "string" && one !== "")) continue;
    throw new InputError("BAD_DATA", `${name} must be a text that is not empty`);
  }
  if (image === undefined && text === undefined) throw new InputError("BAD_DATA", "there is no image and no text");
  return {
    id,
    ...(image !== undefined && { image: image as string }),
    ...(text !== undefined && { text: text as string }),
  };
}
