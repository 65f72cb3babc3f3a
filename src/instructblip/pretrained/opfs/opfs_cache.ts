/// <reference lib="dom" preserve="true" />
/** What a browser keeps of checkpoints, in the origin private file system (OPFS): downloaded files, and quantized weights. */
import type { CacheFolder } from "../../../modules/weight_cache.ts";
import { WeightError } from "../../../tensor/errors.ts";
import { HandleFolder, ignoreMissing } from "../../../tensor/files/handle_folder.ts";
import type { Folder } from "../../../tensor/files/source.ts";
import {
  CachedFolder,
  type CachedFolderOptions,
  folderIn,
  isFolder,
  type KeptFile,
  keptFiles,
  readState,
  writeState,
} from "./cached_folder.ts";

/** A folder of the cache. */
export interface KeptFolder {
  readonly url: string;
  readonly files: readonly KeptFile[];
  /** Its quantized weights (`weight_cache`), one file for each choice of dtypes. */
  readonly quantized: readonly QuantizedFile[];
  /** Of all of them. */
  readonly keptBytes: number;
}

export interface QuantizedFile {
  readonly name: string;
  readonly size: number;
}

/** How much a page may keep. */
export interface StorageSpace {
  /** Bytes of all that the origin keeps, as the browser estimates them. */
  readonly usedBytes: number;
  /** Bytes it may keep; undefined if the browser does not say. */
  readonly quotaBytes: number | undefined;
  /** Whether the browser keeps it when its disk is nearly full, until the user deletes it. */
  readonly persisted: boolean;
}

const [ROOT, CHECKPOINTS, QUANTIZED, REFS] = ["instructblip-webgpu", "checkpoints", "quantized", "refs.json"] as const;

/** Commits that branches of the Hub's models had. */
interface Refs {
  readonly format: 1;
  readonly commits: Readonly<Record<string, string>>;
}

/** The cache of this page's origin. Every page and worker of the origin has the same. */
export class OpfsCache {
  readonly #root: FileSystemDirectoryHandle;

  private constructor(root: FileSystemDirectoryHandle) {
    this.#root = root;
  }

  /** @throws WeightError NO_OPFS if the browser has none here, as in some private windows */
  static async open(): Promise<OpfsCache> {
    try {
      const top = await navigator.storage.getDirectory();
      if (typeof FileSystemFileHandle.prototype.createWritable !== "function") throw new TypeError("no createWritable");
      return new OpfsCache(await top.getDirectoryHandle(ROOT, { create: true }));
    } catch (cause) {
      throw new WeightError("NO_OPFS", "this browser keeps no files for this page", {
        hint: "the origin private file system needs https or localhost, and is missing in some private windows",
        cause,
      });
    }
  }

  /** A folder at a URL, whose files are downloaded when they are first opened, and kept. */
  async folder(url: string | URL, options: CachedFolderOptions = {}): Promise<Folder> {
    const where = new URL(url, globalThis.location?.href).href.replace(/\/+$/, "");
    const all = await this.#root.getDirectoryHandle(CHECKPOINTS, { create: true });
    return CachedFolder.open(where, await all.getDirectoryHandle(await hashOf(where), { create: true }), options);
  }

  /** The folders, by URL. */
  async list(): Promise<KeptFolder[]> {
    const all = await folderIn(this.#root, CHECKPOINTS, false);
    const quantizedFolder = await folderIn(this.#root, QUANTIZED, false);
    const found: KeptFolder[] = [];
    for await (const entry of all?.values() ?? []) {
      const kept = isFolder(entry) ? await keptFiles(entry) : undefined;
      if (!kept) continue;
      const quantized: QuantizedFile[] = [];
      for (const name of kept.quantized) {
        const file = await quantizedFolder?.getFileHandle(name).catch(ignoreMissing);
        if (file) quantized.push({ name, size: (await file.getFile()).size });
      }
      const bytes = [...kept.files.map(({ keptBytes }) => keptBytes), ...quantized.map(({ size }) => size)];
      found.push({ ...kept, quantized, keptBytes: bytes.reduce((sum, one) => sum + one, 0) });
    }
    return found.sort((a, b) => (a.url < b.url ? -1 : 1));
  }

  /** Deletes what is kept of a folder, its quantized weights too. */
  async delete(url: string | URL): Promise<void> {
    const where = new URL(url, globalThis.location?.href).href.replace(/\/+$/, "");
    const kept = await this.list();
    const others = kept.filter((folder) => folder.url !== where).flatMap(({ quantized }) => quantized);
    const quantized = await folderIn(this.#root, QUANTIZED, false);
    for (const { name } of kept.find((folder) => folder.url === where)?.quantized ?? []) {
      if (!others.some((other) => other.name === name)) await quantized?.removeEntry(name).catch(ignoreMissing);
    }
    const all = await folderIn(this.#root, CHECKPOINTS, false);
    await all?.removeEntry(await hashOf(where), { recursive: true }).catch(ignoreMissing);
  }

  /** Deletes everything, quantized weights too. */
  async clear(): Promise<void> {
    for (const name of [CHECKPOINTS, QUANTIZED]) {
      await this.#root.removeEntry(name, { recursive: true }).catch(ignoreMissing);
    }
    await this.#root.removeEntry(REFS).catch(ignoreMissing);
  }

  async space(): Promise<StorageSpace> {
    const { usage = 0, quota } = await navigator.storage.estimate();
    return { usedBytes: usage, quotaBytes: quota, persisted: await navigator.storage.persisted() };
  }

  /**
   * Asks the browser to keep the files when its disk is nearly full; some ask the user. Only a page can, not its worker.
   *
   * @returns whether it will
   */
  async persist(): Promise<boolean> {
    if (await navigator.storage.persisted()) return true;
    return (await navigator.storage.persist?.()) ?? false;
  }

  /** Where `weight_cache` keeps quantized weights, in the same format as in Node. */
  async quantized(): Promise<CacheFolder> {
    const folder = new HandleFolder(await this.#root.getDirectoryHandle(QUANTIZED, { create: true }));
    return { read: folder, write: folder };
  }

  /** The commit that a branch had when it was last asked for. */
  async commitOf(name: string): Promise<string | undefined> {
    return (await readState<Refs>(this.#root, REFS))?.commits[name];
  }

  async setCommit(name: string, commit: string): Promise<void> {
    const commits = (await readState<Refs>(this.#root, REFS))?.commits ?? {};
    if (commits[name] === commit) return;
    await writeState(this.#root, REFS, { format: 1, commits: { ...commits, [name]: commit } } satisfies Refs);
  }
}

/** A URL as the name of a folder. */
async function hashOf(text: string): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return [...new Uint8Array(digest).subarray(0, 16)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
