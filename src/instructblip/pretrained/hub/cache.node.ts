/** The cache of the Hub's files, in huggingface_hub's layout. */
import { randomBytes } from "node:crypto";
import { copyFile, link, mkdir, rename, rm, stat, symlink, writeFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { EngineError, WeightError } from "../../../tensor/errors.ts";
import { WEIGHT_FILES } from "../../../tensor/files/checkpoint.ts";
import { systemReason } from "../../../tensor/files/system_error.ts";

/** Moves a finished file to its place, unless another process was faster: that file may already be in use. */
export async function publish(from: string, to: string): Promise<void> {
  try {
    await link(from, to); // unlike rename, never replaces
  } catch (error) {
    if (systemCode(error) !== "EEXIST") return rename(from, to); // a file system without hard links
  }
  await rm(from);
}

/**
 * Links `snapshots/COMMIT/FILE` to its blob; if links are not supported, a new blob is moved there and an old one copied.
 */
export async function point(pointer: string, blob: string, isNew: boolean, symlinks: boolean): Promise<void> {
  await mkdir(dirname(pointer), { recursive: true });
  if (symlinks) {
    try {
      const target = relative(dirname(pointer), blob);
      try {
        return await symlink(target, pointer);
      } catch (error) {
        if (systemCode(error) !== "EEXIST") throw error;
        if (await isFile(pointer)) return; // another process was faster; a commit's file has one content only
        await rm(pointer); // a link to a deleted blob
        return await symlink(target, pointer);
      }
    } catch (error) {
      if (!["EPERM", "EACCES", "ENOSYS", "ENOTSUP", "EOPNOTSUPP", "EINVAL"].includes(String(systemCode(error))))
        throw error;
    }
  }
  if (isNew) return publish(blob, pointer);
  const copy = `${pointer}.${randomBytes(4).toString("hex")}.tmp`;
  await copyFile(blob, copy);
  await rename(copy, pointer);
}

/**
 * Whether a snapshot of a model or a processor can be used offline. It is not known then whether the commit has other files.
 */
export async function isWhole(snapshot: string): Promise<boolean> {
  const has = async (...files: string[]) =>
    (await Promise.all(files.map((file) => isFile(join(snapshot, file))))).some((found) => found);
  if ((await has("config.json")) && (await has(...WEIGHT_FILES))) return true;
  const pixels = ["processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json"];
  return (await has("tokenizer.json")) && (await has(...pixels));
}

/** Writes a small file atomically, and creates its folders. */
export async function replaceFile(path: string, text: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  const temporary = `${path}.${randomBytes(4).toString("hex")}.tmp`;
  await writeFile(temporary, text);
  await rename(temporary, path);
}

/** Whether the path is a regular file, links followed. */
export async function isFile(path: string): Promise<boolean> {
  const found = await stat(path).catch(() => undefined);
  return found?.isFile() ?? false;
}

export function systemCode(error: unknown): unknown {
  return error instanceof Error && "syscall" in error && "code" in error ? error.code : undefined;
}

/** Runs `work`; errors of the file system are rethrown, typed. */
export async function inCache<T>(cache: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (systemCode(error) === undefined || error instanceof EngineError) throw error;
    throw new WeightError("IO", `the Hub's cache at ${cache} cannot be written: ${systemReason(error)}`, {
      hint: "HF_HOME names another place",
      cause: error,
    });
  }
}
