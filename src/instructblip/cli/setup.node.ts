/** `setup`: scripts/setup.mjs, which is plain JavaScript because in the repository it runs before TypeScript can. */
import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { Run } from "./session.node.ts";

/**
 * Finds or installs an adapter, in a separate process, as a broken driver may crash it. @returns the exit code @throws the
 * signal's reason
 */
export function runSetup({ check }: { check?: boolean }, { signal }: Pick<Run, "signal">): Promise<number> {
  // The same path from src/instructblip/cli and from dist/instructblip/cli.
  const script = fileURLToPath(new URL("../../../scripts/setup.mjs", import.meta.url));
  const child = spawn(process.execPath, [script, ...(check ? ["--check"] : [])], { stdio: "inherit" });
  // It ends by itself and never leaves a partial installation. A terminal sends Ctrl-C to it, too; a second signal does no
  // harm.
  signal.addEventListener("abort", () => child.kill("SIGTERM"));
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code) => (signal.aborted ? reject(signal.reason) : resolve(code ?? 1)));
  });
}
