/**
 * A model of the Hugging Face Hub as a folder, in huggingface_hub's cache. A file is downloaded when it is first opened, so
 * only the needed files are fetched. `@huggingface/hub` resolves revisions and lists files (client.node.ts); its download
 * neither resumes, nor checks a hash, nor is safe with concurrent processes, so that part is our own (download.node.ts,
 * cache.node.ts). Nothing is uploaded.
 */
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { EngineError, WeightError } from "../../../tensor/errors.ts";
import { NodeFolder } from "../../../tensor/files/source.node.ts";
import {
  type ByteSource,
  checkFileName,
  type Folder,
  MAX_TEXT_BYTES,
  previewOf,
} from "../../../tensor/files/source.ts";
import { inCache, isFile, isWhole, point, replaceFile } from "./cache.node.ts";
import { type Blob, Hub, type HubOptions } from "./client.node.ts";
import { download } from "./download.node.ts";
import { COMMIT, type HubId, hubRefusal, repositoryFolder } from "./hub.ts";

/** A repository of the Hub at one commit. */
export class HubFolder implements Folder {
  readonly name: string;
  readonly commit: string;
  /** The folder of this commit's files in the cache. */
  readonly path: string;
  readonly #store: string;
  readonly #hub: Hub;
  /** Why only the cache is used, if so. */
  #apart: EngineError | undefined;
  #listing: Promise<ReadonlyMap<string, Blob>> | undefined;
  readonly #fetching = new Map<string, Promise<void>>();

  private constructor(hub: Hub, store: string, commit: string, apart: EngineError | undefined) {
    this.name = hub.id.repository;
    this.commit = commit;
    this.path = join(store, "snapshots", commit);
    this.#store = store;
    this.#hub = hub;
    this.#apart = apart;
  }

  /**
   * Resolves the commit. A full commit hash needs no request; a branch is requested, and if the Hub cannot be reached or
   * refuses, the cached copy is used, as in huggingface_hub.
   *
   * @throws WeightError HUB_OFFLINE, HUB_UNREACHABLE and those of {@link hubRefusal}; InputError ENV; the signal's reason
   */
  static async open(id: HubId, options: HubOptions = {}): Promise<HubFolder> {
    const hub = await Hub.open(id, options);
    const store = join(hub.cache, repositoryFolder(id.repository));
    const isCommit = COMMIT.test(id.revision);
    const ref = join(store, "refs", id.revision);
    const cached = isCommit ? id.revision : (await readFile(ref, "utf8").catch(() => "")).trim();
    const isCached = COMMIT.test(cached) && (await isWhole(join(store, "snapshots", cached)));
    if (hub.settings.offline) {
      const apart = new WeightError(
        "HUB_OFFLINE",
        `${id.repository}: no such folder, and its revision ${id.revision} is not, or not wholly, in the cache at ${hub.cache}`,
        { hint: hub.hintOffline },
      );
      if (!isCached) throw apart;
      return new HubFolder(hub, store, cached, apart);
    }
    if (isCommit) return new HubFolder(hub, store, cached, undefined);
    let commit: string;
    try {
      commit = await hub.commit();
    } catch (error) {
      const usable = error instanceof EngineError && error.code !== "HUB_REVISION_NOT_FOUND";
      if (!usable || !isCached) throw error;
      return new HubFolder(hub, store, cached, error);
    }
    if (commit !== cached) await inCache(hub.cache, () => replaceFile(ref, commit));
    return new HubFolder(hub, store, commit, undefined);
  }

  /** Whether the file is in the cache or, failing that, in the repository; nothing is downloaded. */
  async has(file: string): Promise<boolean> {
    checkFileName(file);
    if (await isFile(join(this.path, file))) return true;
    // huggingface_hub's record of files that a commit lacks.
    const absent = join(this.#store, ".no_exist", this.commit, file);
    if (this.#apart || (await isFile(absent))) return false;
    try {
      if ((await this.#list()).has(file)) return true;
    } catch (error) {
      // A full commit hash is not requested before; this may be the first request.
      if (!(error instanceof EngineError && (await isWhole(this.path)))) throw error;
      this.#apart = error;
      return false;
    }
    // Without a writable cache it is only slower.
    await replaceFile(absent, "").catch(() => undefined);
    return false;
  }

  async text(file: string, maxBytes = MAX_TEXT_BYTES): Promise<string> {
    await this.#fetch(file, maxBytes);
    return new NodeFolder(this.path).text(file, maxBytes);
  }

  /** Downloads the file, unless it is cached. @throws WeightError NOT_FOUND, INTEGRITY, IO, HUB_… ; the signal's reason */
  async open(file: string): Promise<ByteSource> {
    await this.#fetch(file, Number.POSITIVE_INFINITY);
    return new NodeFolder(this.path).open(file);
  }

  /** Reads by ranges what is not in the cache, and keeps nothing. */
  preview(): Folder | undefined {
    if (this.#apart) return undefined;
    return previewOf(this, async (file) => {
      checkFileName(file);
      if (await isFile(join(this.path, file))) return undefined;
      // A server that gives no ranges, or refuses, is asked for the whole file.
      return this.#hub.ranges(this.commit, file).catch(() => undefined);
    });
  }

  async #fetch(file: string, maxBytes: number): Promise<void> {
    checkFileName(file);
    const pointer = join(this.path, file);
    if (await isFile(pointer)) return;
    let fetching = this.#fetching.get(file);
    if (!fetching) {
      fetching = this.#fetchOnce(file, pointer, maxBytes).finally(() => this.#fetching.delete(file));
      this.#fetching.set(file, fetching);
    }
    return fetching;
  }

  async #fetchOnce(file: string, pointer: string, maxBytes: number): Promise<void> {
    if (this.#apart) {
      const message = `${this.name}: ${file} is not in the cache`;
      throw new WeightError(this.#apart.code, message, { cause: this.#apart, hint: this.#apart.message });
    }
    const blob = (await this.#list()).get(file);
    const hub = this.#hub;
    if (!blob) throw hub.refusal(404, "EntryNotFound", file);
    if (blob.size > maxBytes) {
      throw new WeightError("FILE_TOO_LARGE", `${file}: larger than the limit of ${maxBytes} bytes`);
    }
    const blobs = join(this.#store, "blobs");
    const path = join(blobs, blob.oid);
    await inCache(hub.cache, async () => {
      await mkdir(blobs, { recursive: true });
      const isNew = !(await isFile(path));
      if (isNew) await download(hub, this.commit, file, blob, blobs);
      await point(pointer, path, isNew, hub.settings.symlinks);
    });
  }

  #list(): Promise<ReadonlyMap<string, Blob>> {
    this.#listing ??= this.#hub.list(this.commit).catch((error: unknown) => {
      this.#listing = undefined;
      throw error;
    });
    return this.#listing;
  }
}
