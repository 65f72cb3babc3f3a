/**
 * Files that mean something only together: a checkpoint's shards with their index and config, a processor's vocabularies and
 * settings. Whoever reads a folder that was being written when the process, or the machine, ended must find all of the old
 * ones, all of the new ones, or none that load.
 */
import { WeightError } from "../errors.ts";
import type { ByteSink } from "./source.ts";

/** A place to write files to. Names are relative, with `/`; a file is there whole or not at all. */
export interface WritableFolder {
  readonly name: string;
  writeText(file: string, text: string): Promise<void>;
  write(file: string, fill: (sink: ByteSink) => Promise<void>): Promise<void>;
  /** Names of the files right in it, subfolders left out. */
  list(): Promise<readonly string[]>;
  delete(file: string): Promise<void>;
  /**
   * Gives a file another name, in place of what has that. Where a folder can, an older save is there until the new one is
   * written in full; where it cannot, the older one is removed first.
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

/** What a new set is called until it is complete. */
const STAGED = ".saving-";
/** Also the temporary file that a staged one is first. */
const DEBRIS = /^\.{1,2}saving-/;

/**
 * Writes files that belong together, and removes what an interrupted call has left.
 *
 * With `rename` all are written under other names first. Then the old ones are deleted and the new ones renamed, which takes
 * no time to speak of: the first to go and the last to come is the head, the file without which nothing reads the others.
 *
 * @param files the head last
 * @param old files of an older set, there or not, the head first; those that are not written anew are removed with it
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
