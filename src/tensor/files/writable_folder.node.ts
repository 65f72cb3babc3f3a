/** A folder of Node's file system to write a checkpoint to. */
import { mkdir, readdir, rename, rm, stat } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { WeightError } from "../errors.ts";
import type { WritableFolder } from "./file_set.ts";
import { ioError, writeFileAtomic } from "./source.node.ts";
import { type ByteSink, checkFileName } from "./source.ts";
import { systemReason } from "./system_error.ts";

export class NodeWritableFolder implements WritableFolder {
  readonly name: string;
  readonly #path: string;

  private constructor(path: string) {
    this.#path = resolve(path);
    this.name = path;
  }

  /** Creates the folder and its parents, if absent. @throws WeightError NOT_A_FOLDER, IO */
  static async create(path: string): Promise<NodeWritableFolder> {
    const found = await stat(path).catch(() => undefined);
    if (found && !found.isDirectory()) throw new WeightError("NOT_A_FOLDER", `${path}: is a file, must be a folder`);
    const folder = new NodeWritableFolder(path);
    await makeFolder(folder.#path);
    return folder;
  }

  async writeText(file: string, text: string): Promise<void> {
    await this.write(file, (sink) => sink.write(new TextEncoder().encode(text)));
  }

  async write(file: string, fill: (sink: ByteSink) => Promise<void>): Promise<void> {
    checkFileName(file);
    const path = join(this.#path, file);
    await makeFolder(dirname(path));
    await writeFileAtomic(path, fill);
  }

  async list(): Promise<string[]> {
    const entries = await readdir(this.#path, { withFileTypes: true }).catch(throwIoError(this.name));
    return entries.filter((entry) => entry.isFile()).map((entry) => entry.name);
  }

  async delete(file: string): Promise<void> {
    checkFileName(file);
    await rm(join(this.#path, file), { force: true }).catch(throwIoError(file));
  }

  async rename(from: string, to: string): Promise<void> {
    checkFileName(from);
    checkFileName(to);
    const path = join(this.#path, to);
    await makeFolder(dirname(path));
    await rename(join(this.#path, from), path).catch(throwIoError(to));
  }
}

/** A handler that rethrows a system error as a WeightError. */
function throwIoError(name: string): (cause: unknown) => never {
  return (cause) => {
    throw ioError(cause, name);
  };
}

async function makeFolder(path: string): Promise<void> {
  await mkdir(path, { recursive: true }).catch((cause: unknown) => {
    throw new WeightError("IO", `${path}: the folder cannot be made: ${systemReason(cause)}`, { cause });
  });
}
