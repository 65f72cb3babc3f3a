/** Files of rows: read with their names in errors, and written whole or not at all. */
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";

/** @throws Error what `parse` throws, with the file's name */
export function readRowsOf<T>(path: string, parse: (text: string) => T[]): T[] {
  try {
    return parse(readFileSync(path, "utf8"));
  } catch (cause) {
    throw new Error(`${path}: ${(cause as Error).message}`, { cause });
  }
}

/** Writes to a temporary file and renames it, so that the old one is kept if the disk is full. */
export function writeWhole(path: string, text: string): void {
  mkdirSync(dirname(path), { recursive: true });
  const fresh = `${path}.${process.pid}.tmp`;
  try {
    writeFileSync(fresh, text);
    renameSync(fresh, path);
  } catch (error) {
    rmSync(fresh, { force: true });
    throw error;
  }
}
