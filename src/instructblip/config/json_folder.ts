/** The JSON files of a checkpoint folder, each read and parsed once however many ask for it. */
import type { ByteSource, Folder } from "../../tensor/files/source.ts";
import { type JsonRecord, parseRecord } from "./json_file.ts";

const MIB = 2 ** 20;
/** Of a tokenizer, the names at the end of their paths, as the Q-Former's is in a folder of its own, and the most bytes. */
const TOKENIZER: Readonly<Record<string, number>> = {
  "tokenizer.json": 64 * MIB,
  "tokenizer_config.json": 8 * MIB,
  "special_tokens_map.json": MIB,
  "added_tokens.json": MIB,
};

/** A folder whose JSON files are read once, and whose other files are read as often as they are asked for. */
export class JsonFolder implements Folder {
  readonly name: string;
  readonly #folder: Folder;
  readonly #there = new Map<string, Promise<boolean>>();
  readonly #records = new Map<string, Promise<JsonRecord | undefined>>();

  constructor(folder: Folder) {
    this.name = folder.name;
    this.#folder = folder;
  }

  /** The same folder, if it is one already. */
  static of(folder: Folder): JsonFolder {
    return folder instanceof JsonFolder ? folder : new JsonFolder(folder);
  }

  /**
   * The object in a JSON file, the same for whoever asks, or undefined if the folder has no such file.
   *
   * @throws ConfigError CONFIG_JSON, TOKENIZER_JSON; WeightError FILE_TOO_LARGE, BAD_UTF8 and the folder's own
   */
  json(file: string): Promise<JsonRecord | undefined> {
    return once(this.#records, file, async () => {
      if (!(await this.has(file))) return undefined;
      const name = file.slice(file.lastIndexOf("/") + 1);
      const isTokenizers = Object.hasOwn(TOKENIZER, name);
      const text = await this.text(file, isTokenizers ? TOKENIZER[name] : MIB);
      return parseRecord(text, file, isTokenizers ? "TOKENIZER_JSON" : "CONFIG_JSON");
    });
  }

  has(file: string): Promise<boolean> {
    return once(this.#there, file, () => this.#folder.has(file));
  }

  text(file: string, maxBytes?: number): Promise<string> {
    return this.#folder.text(file, maxBytes);
  }

  open(file: string): Promise<ByteSource> {
    return this.#folder.open(file);
  }
}

/** What `made` has for a key, or what `make` makes now. What fails may be tried again. */
function once<T>(made: Map<string, Promise<T>>, key: string, make: () => Promise<T>): Promise<T> {
  let value = made.get(key);
  if (!value) {
    value = make();
    made.set(key, value);
    value.catch(() => made.delete(key));
  }
  return value;
}
