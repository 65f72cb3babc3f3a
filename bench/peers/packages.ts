/** The packages of bench/peers, which have their own node_modules: checks and installs them. */
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const folder = fileURLToPath(new URL(".", import.meta.url));

interface Lock {
  readonly packages: Readonly<Record<string, { readonly version?: string; readonly optional?: boolean }>>;
}

const readJson = <T>(path: string) => JSON.parse(readFileSync(join(folder, path), "utf8")) as T;

/** Version of an installed package. */
export function packageVersion(name: string): string {
  return readJson<{ version: string }>(`node_modules/${name}/package.json`).version;
}

/** Whether node_modules holds what package-lock.json asks for. */
export function isInstalled(): boolean {
  if (!existsSync(join(folder, "node_modules/.package-lock.json"))) return false;
  const installed = readJson<Lock>("node_modules/.package-lock.json").packages;
  return Object.entries(readJson<Lock>("package-lock.json").packages).every(
    ([path, { version, optional }]) => path === "" || optional || installed[path]?.version === version,
  );
}

/** Runs `npm ci` here, without the packages' own scripts: ONNX Runtime's would only download CUDA. @throws Error */
export function install(): void {
  const args = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"];
  // npm's own path when started by npm, which need not be on PATH.
  const npm = process.env.npm_execpath;
  const [command, ...first] = npm?.endsWith("npm-cli.js") ? [process.execPath, npm] : ["npm"];
  const options = { cwd: folder, encoding: "utf8", shell: process.platform === "win32" } as const;
  const { status, stderr, error } = spawnSync(command, [...first, ...args], options);
  if (status === 0) return;
  const reason = error?.message ?? (stderr.trim() || `exit ${status}`);
  throw new Error(`npm ci failed in bench/peers: ${reason}`, { cause: error });
}
