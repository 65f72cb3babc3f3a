/** The machine of a run: its device, opened so that GPU timestamps are exact, and its description. */
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { cpus, release, type } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { create, globals } from "webgpu";
import type { Device } from "../src/tensor/device/device.ts";
import { requestBestAdapter } from "../src/tensor/device/gpu.node.ts";
import { setAdapterProvider, setTunedPlanProvider } from "../src/tensor/device/gpu.ts";
import { openDevice } from "../src/tensor/device/open_device.ts";
import { readTunedPlan, webgpuVersion } from "../src/tensor/device/tuned_plan.node.ts";
import type { Machine } from "./rows.ts";

export const root = fileURLToPath(new URL("..", import.meta.url));

/** Kept alive: Dawn crashes the process if it is collected while a device is open. */
let gpu: GPU | undefined;

/** Opens the best adapter as a device. */
export function openBenchDevice(): Promise<Device> {
  if (!gpu) {
    // Mesa caches compiled kernels on disk; without the cache the first run includes compilation.
    process.env.MESA_SHADER_CACHE_DISABLE ??= "true";
    Object.assign(globalThis, globals);
    // Dawn rounds timestamps to 65.5 µs unless told otherwise, which is longer than most kernels take on a GPU.
    const made = create(["disable-dawn-features=timestamp_quantization"]);
    gpu = made;
    setAdapterProvider(() => requestBestAdapter(made));
    setTunedPlanProvider(readTunedPlan);
  }
  return openDevice();
}

/** The machine's fields of a row. */
export function describeMachine({ caps }: Device): Machine {
  return {
    adapter: caps.description,
    vendor: caps.vendor,
    architecture: caps.architecture,
    software: caps.isSoftware,
    cpu: cpus()[0]?.model.trim() ?? "unknown",
    cores: cpus().length,
    os: `${type()} ${release()}`,
    node: process.version,
    webgpu: webgpuVersion(),
    commit: commit(),
    date: new Date().toISOString(),
  };
}

/** The commit of this program; a bundle of `npm run gpu:bundle` has no repository, but a note of its own. */
function commit(): string {
  const note = join(root, "commit");
  if (existsSync(note)) return readFileSync(note, "utf8").trim();
  const git = (...args: string[]) =>
    execFileSync("git", args, { cwd: root, encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
  try {
    return (
      git("rev-parse", "--short", "HEAD").trim() +
      (git("status", "--porcelain", "--untracked-files=no").trim() ? "+" : "")
    );
  } catch {
    return "unknown";
  }
}
