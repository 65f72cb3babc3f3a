/** The origin private file system of a browser, in memory: the part that is used. */

const missing = (name: string) => new DOMException(`${name} is not there`, "NotFoundError");

export class FakeFile {
  readonly kind = "file";
  readonly name: string;
  readonly store: FakeStore;
  bytes = new Uint8Array();
  lastModified = 1;

  constructor(name: string, store: FakeStore) {
    this.name = name;
    this.store = store;
  }

  async getFile(): Promise<File> {
    const { name, bytes, lastModified } = this;
    return new File([bytes], name, { lastModified });
  }

  /** As in a browser, the file changes when the stream is closed. */
  async createWritable({ keepExistingData = false } = {}) {
    let bytes = keepExistingData ? this.bytes.slice() : new Uint8Array();
    let at = 0;
    return {
      seek: async (to: number) => {
        at = to;
      },
      write: async (more: Uint8Array) => {
        if (this.store.left < more.length) throw new DOMException("no more", "QuotaExceededError");
        this.store.left -= more.length;
        const longer = new Uint8Array(Math.max(bytes.length, at + more.length));
        longer.set(bytes);
        longer.set(more, at);
        at += more.length;
        bytes = longer;
      },
      close: async () => {
        this.bytes = bytes;
        this.lastModified++;
      },
      abort: async () => {},
    };
  }
}

export class FakeFolder {
  readonly kind = "directory";
  readonly name: string;
  readonly store: FakeStore;
  readonly children = new Map<string, FakeFile | FakeFolder>();

  constructor(name: string, store: FakeStore) {
    this.name = name;
    this.store = store;
  }

  async getFileHandle(name: string, { create = false } = {}): Promise<FakeFile> {
    return this.#get(name, create, "file", () => new FakeFile(name, this.store)) as FakeFile;
  }

  async getDirectoryHandle(name: string, { create = false } = {}): Promise<FakeFolder> {
    return this.#get(name, create, "directory", () => new FakeFolder(name, this.store)) as FakeFolder;
  }

  #get(name: string, create: boolean, kind: string, make: () => FakeFile | FakeFolder): FakeFile | FakeFolder {
    if (/[/\\]|^\.\.?$/.test(name)) throw new TypeError("Name is not allowed.");
    const found = this.children.get(name) ?? (create ? make() : undefined);
    if (!found) throw missing(name);
    if (found.kind !== kind) throw new DOMException(`${name} is a ${found.kind}`, "TypeMismatchError");
    this.children.set(name, found);
    return found;
  }

  async removeEntry(name: string): Promise<void> {
    if (!this.children.delete(name)) throw missing(name);
  }

  async *entries() {
    yield* this.children;
  }

  async *values() {
    yield* this.children.values();
  }
}

/** What an origin keeps. */
export class FakeStore {
  readonly root = new FakeFolder("", this);
  /** Bytes that may still be written. */
  left = Number.POSITIVE_INFINITY;
  /** What the browser says of its room. */
  estimate: StorageEstimate = {};

  /** `navigator` with this store. */
  get navigator() {
    return {
      storage: {
        getDirectory: async () => this.root,
        estimate: async () => this.estimate,
        persisted: async () => false,
      },
    };
  }

  /** All files by path. */
  files(folder: FakeFolder = this.root, path = ""): Map<string, FakeFile> {
    const found = new Map<string, FakeFile>();
    for (const [name, child] of folder.children) {
      if (child instanceof FakeFile) found.set(path + name, child);
      else for (const [below, file] of this.files(child, `${path}${name}/`)) found.set(below, file);
    }
    return found;
  }
}
