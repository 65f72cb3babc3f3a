/** Temporary folders of tests. test/setup.ts removes them after each file: a hook of this module would run for the first alone. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const folders: string[] = [];

/** An empty folder that is removed after the test's file. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "instructblip-test-"));
  folders.push(folder);
  return folder;
}

export function removeTemporaryFolders(): void {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
}
