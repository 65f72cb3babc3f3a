/**
 * Replaces a set of files as one transaction: a checkpoint's shards with their index and config, or a processor's vocabularies and
 * settings. If the process or the machine stops in between, the folder has all of the old files, all of the new ones, or a set
 * that does not load.
 */
import { WeightError } from "../errors.ts";
import type { ByteSink } from "./source.ts";

/** A folder to write files to. Names are relative, with `/`. Each file is written atomically. */
export interface WritableFolder {
  readonly name: string;
  writeText(file: string, text: string): Promise<void>;
  write(file: string, fill: (sink: ByteSink) => Promise<void>): Promise<void>;
  /** Names of the files in the folder, without those of subfolders. */
  list(): Promise<readonly string[]>;
  delete(file: string): Promise<void>;
  /**
   * Renames a file, replacing one of the new name. Optional: without it, the old files are removed before the new ones are
   * written.
   */
  rename?(from: string, to: string): Promise<void>;
}

export interface NewFile {
  readonly name: string;
  write(sink: ByteSink): Promise<void>;
}

export function textFile(name: string, text: string): NewFile {
  return { name, write: (sink) => sink.write(new TextEncoder().encode(text)) };
}

/** Prefix of the new files' names until the set is complete. */
const STAGED = ".saving-";
/** Staged files and their own temporary files. */
const DEBRIS = /^\.{1,2}saving-/;

/**
 * Writes a set of files, and removes the staged files of interrupted calls.
 *
 * With `rename`, all files are first written under staged names; then the old ones are deleted and the new ones renamed, which is
 * quick. The head is the file without which no reader finds the others: it is deleted first and renamed last.
 *
 * @param files the head last
 * @param old names of older files to delete, the head first; they need not exist
 * @throws WeightError SAVE_CONFLICT if another call began on the same folder meanwhile; the folder's own; what `write` throws
 */
export async function writeTogether(
  folder: WritableFolder,
  files: readonly NewFile[],
  old: readonly string[],
): Promise<void> {
  const remove = async (names: readonly string[]) => {
    for (const name of names) await folder.delete(name);
  };
  await remove((await folder.list()).filter((name) => DEBRIS.test(name)));
  if (!folder.rename) {
    await remove(old);
    for (const file of files) await folder.write(file.name, file.write);
    return;
  }
  const id = crypto.randomUUID();
  const newFiles = files.map(({ name, write }) => ({
    name,
    write,
    staged: `${STAGED}${id}-${name.replaceAll("/", "-")}`,
  }));
  try {
    for (const { staged, write } of newFiles) await folder.write(staged, write);
    const there = new Set(await folder.list());
    if (!newFiles.every(({ staged }) => there.has(staged))) {
      throw new WeightError(
        "SAVE_CONFLICT",
        `${folder.name}: another save into this folder began before this one ended`,
      );
    }
    await remove(old);
    for (const { staged, name } of newFiles) await folder.rename(staged, name);
  } catch (error) {
    await remove(newFiles.map(({ staged }) => staged)).catch(() => undefined);
    throw error;
  }
}
