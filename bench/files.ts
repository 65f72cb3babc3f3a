/** Files of rows: read with their names in errors, and written whole or not at all. */
import { mkdirSync, readFileSync, realpathSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { systemReason } from "../src/tensor/files/system_error.ts";

/** @throws Error what `parse` throws, with the file's name */
export function readRowsOf<T>(path: string, parse: (text: string) => T[]): T[] {
  try {
    return parse(readFileSync(path, "utf8"));
  } catch (cause) {
    throw new Error(`${path}: ${systemReason(cause)}`, { cause });
  }
}

/**
 * Writes to a temporary file and renames it, so that the old one is kept if the disk is full. A link keeps its place, and a
 * device or a pipe is written to.
 */
export function writeWhole(path: string, text: string): void {
  mkdirSync(dirname(path), { recursive: true });
  const old = statSync(path, { throwIfNoEntry: false });
  if (old?.isDirectory()) throw new Error(`${path} is a folder; give a file name`);
  if (old && !old.isFile()) {
    writeFileSync(path, text);
    return;
  }
  const target = old ? realpathSync(path) : path;
  const fresh = `${target}.${process.pid}.tmp`;
  try {
    writeFileSync(fresh, text, { mode: old?.mode });
    renameSync(fresh, target);
  } catch (error) {
    rmSync(fresh, { force: true });
    throw error;
  }
}
