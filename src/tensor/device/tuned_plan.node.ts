/** Reads the file of a tuned plan in Node (see tuned_plan.ts), if INSTRUCTBLIP_PLAN asks for it. */
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { env } from "../env.ts";
import { InputError } from "../errors.ts";
import { machineFolder } from "./gpu.node.ts";
import { namesTunedPlan, type TunedPlan } from "./plan.ts";
import { adapterKey, parseTunedFile } from "./tuned_plan.ts";

/** The file that `tuned` means. */
export function tunedPlanFile(): string {
  return join(machineFolder(), "plan.json");
}

/** Of the npm package `webgpu`, which is Dawn. */
export function webgpuVersion(): string {
  const folder = dirname(createRequire(import.meta.url).resolve("webgpu"));
  return (JSON.parse(readFileSync(join(folder, "package.json"), "utf8")) as { version: string }).version;
}

const warned = new Set<string>();

/**
 * The tuned plan of an adapter, from the file that INSTRUCTBLIP_PLAN names; undefined if it names none. A file without a
 * plan for this adapter, driver and Dawn is ignored with a warning.
 *
 * @throws InputError PLAN_FILE
 */
export function readTunedPlan(info: GPUAdapterInfo): TunedPlan | undefined {
  const text = env("INSTRUCTBLIP_PLAN") ?? "";
  if (!namesTunedPlan(text)) return undefined;
  const path = text === "tuned" ? tunedPlanFile() : text.slice(1);
  const file = parseTunedFile(path, readText(path));
  const key = adapterKey(info, webgpuVersion());
  const found = file.get(key);
  if (!found && !warned.has(`${path}|${key}`)) {
    warned.add(`${path}|${key}`);
    const others = [...file.keys()].map((other) => `\n    it has: ${other}`).join("");
    process.emitWarning(
      `INSTRUCTBLIP_PLAN: ${path} has no choices for this adapter, driver and webgpu, and is ignored\n    this is: ${key}${others}`,
      { type: "TunedPlanWarning", detail: "`npm run bench -- --tune`, in the repository, measures them" },
    );
  }
  return found?.choices;
}

function readText(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (cause) {
    throw new InputError("PLAN_FILE", `${path}: cannot be read (${(cause as NodeJS.ErrnoException).code})`, {
      hint: "`npm run bench -- --tune`, in the repository, writes it; INSTRUCTBLIP_PLAN=@FILE names another",
      cause,
    });
  }
}
