/** The JSON files of a checkpoint folder, each read and parsed once. */
import type { ByteSource, Folder } from "../../tensor/files/source.ts";
import { type JsonRecord, parseRecord } from "./json_file.ts";

const MIB = 2 ** 20;
/**
 * JSON files of a tokenizer, by the last name of their paths (the Q-Former's are in a subfolder), with their largest size in
 * bytes.
 */
const TOKENIZER: Readonly<Record<string, number>> = {
  "tokenizer.json": 64 * MIB,
  "tokenizer_config.json": 8 * MIB,
  "special_tokens_map.json": MIB,
  "added_tokens.json": MIB,
};

/** A folder that caches its JSON files. Other files are not cached. */
export class JsonFolder implements Folder {
  readonly name: string;
  readonly #folder: Folder;
  readonly #there = new Map<string, Promise<boolean>>();
  readonly #records = new Map<string, Promise<JsonRecord | undefined>>();

  constructor(folder: Folder) {
    this.name = folder.name;
    this.#folder = folder;
  }

  get warnings(): readonly string[] {
    return this.#folder.warnings ?? [];
  }

  preview(): Folder | undefined {
    return this.#folder.preview?.();
  }

  get isRemote(): boolean {
    return this.#folder.isRemote ?? false;
  }

  /** Whether the folder keeps its files; see Folder.quantizedAs. */
  get keepsFiles(): boolean {
    return this.#folder instanceof JsonFolder ? this.#folder.keepsFiles : this.#folder.quantizedAs !== undefined;
  }

  async quantizedAs(file: string, read?: (folder: Folder) => Promise<void>): Promise<void> {
    await this.#folder.quantizedAs?.(file, read);
  }

  /** Wraps a folder, unless that has been done. */
  static of(folder: Folder): JsonFolder {
    return folder instanceof JsonFolder ? folder : new JsonFolder(folder);
  }

  /**
   * The object in a JSON file, the same object at every call, or undefined if the folder has no such file.
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

/** The cached value for a key, or that of `make`. A failure is not cached. */
function once<T>(made: Map<string, Promise<T>>, key: string, make: () => Promise<T>): Promise<T> {
  let value = made.get(key);
  if (!value) {
    value = make();
    made.set(key, value);
    value.catch(() => made.delete(key));
  }
  return value;
}
