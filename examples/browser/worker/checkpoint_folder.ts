/** The folder of a checkpoint as from_pretrained takes it. */
import { FileListFolder, type Folder, HttpFolder, WeightError } from "../../../src/index.ts";
import type { CheckpointPlace } from "./protocol.ts";

export function folderOf(place: CheckpointPlace): Folder {
  if ("url" in place) return new ListedFolder(place.url, place.files);
  return new FileListFolder(
    place.chosen.map(({ path, file }) => {
      // Not every browser posts it with the file.
      return Object.defineProperty(file, "webkitRelativePath", { value: `folder/${path}` });
    }),
  );
}

/** A folder at a URL whose files are known: one that is not there is not asked for, which the console would report. */
class ListedFolder extends HttpFolder {
  readonly #files: ReadonlySet<string>;

  constructor(url: string, files: readonly string[]) {
    super(new URL(url, self.location.href).href);
    this.#files = new Set(files);
  }

  override async has(file: string): Promise<boolean> {
    return this.#files.has(file);
  }

  override async text(file: string, maxBytes?: number): Promise<string> {
    this.#expect(file);
    return super.text(file, maxBytes);
  }

  override async open(file: string): ReturnType<HttpFolder["open"]> {
    this.#expect(file);
    return super.open(file);
  }

  #expect(file: string): void {
    if (!this.#files.has(file)) throw new WeightError("NOT_FOUND", `${this.name}: no file ${file}`);
  }
}
