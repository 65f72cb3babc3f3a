/** `doctor`: checks the adapter that a model would use, kernel by kernel, and prints the data for an issue. */
import { readFile, writeFile } from "node:fs/promises";
import { arch, cpus, platform, release } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { openDevice } from "../../tensor/device/open_device.ts";
import { webgpuVersion } from "../../tensor/device/tuned_plan.node.ts";
import { InputError } from "../../tensor/errors.ts";
import { systemReason } from "../../tensor/files/system_error.ts";
import { type Exam, examine, formatCheck, formatSummary } from "../doctor/doctor.ts";
import { EXIT } from "./format.ts";
import { checkOuts } from "./requests/out_file.node.ts";
import type { Run } from "./session.node.ts";
import { Progress } from "./terminal.node.ts";
import "./session.node.ts";

// The same path from src/instructblip/cli and from dist/instructblip/cli.
const FOLDER = fileURLToPath(new URL("../../../examples/shapes/", import.meta.url));

export interface DoctorFlags {
  /** A file for the report; - is stdout, without other output. */
  readonly json?: string;
  readonly quick?: boolean;
  /** Only checks whose name matches. */
  readonly filter?: RegExp;
  readonly version: string;
}

/** @returns the exit code: 1 if any check is wrong @throws EngineError; the signal's reason */
export async function runDoctor(
  { json, quick, filter, version }: DoctorFlags,
  { terminal, signal }: Run,
): Promise<number> {
  await checkOuts({ "--json": json });
  const print = json === "-" ? async () => {} : (text: string) => terminal.out(text);
  const progress = new Progress(terminal);
  const device = await openDevice();
  try {
    const report = await examine(device, await embeddedExam(), {
      ...{ quick, signal, wanted: (name: string) => filter?.test(name) ?? true },
      progress: (text) => progress.show(`checking ${text}`),
      onCheck: async (check) => {
        progress.clear();
        await print(formatCheck(check));
      },
      versions: {
        "instructblip-webgpu": version,
        webgpu: webgpuVersion(),
        node: process.versions.node,
        os: `${platform()} ${release()} ${arch()}`,
        cpu: `${cpus()[0]?.model.trim() ?? "unknown"} x ${cpus().length}`,
      },
    });
    progress.clear();
    if (report.checks.length === 0) {
      signal.throwIfAborted();
      throw new InputError("FILTER", `--filter: no check matches ${filter}`);
    }
    const text = `${JSON.stringify(report)}\n`;
    if (json !== undefined && json !== "-") await writeReport(json, text);
    await (json === "-" ? terminal.out(text) : print(`* used on this adapter\n\n${formatSummary(report)}`));
    signal.throwIfAborted();
    return report.ok ? EXIT.ok : EXIT.refused;
  } finally {
    progress.clear();
    device.destroy();
  }
}

/** The checkpoint, images and questions of the package. */
async function embeddedExam(): Promise<Exam> {
  const read = async (name: string) => JSON.parse(await readFile(join(FOLDER, "images", name), "utf8"));
  const questions: readonly { image: string; questions: string[] }[] = await read("questions.json");
  const tokens: readonly number[][][] = await read("tokens.json");
  return {
    checkpoint: join(FOLDER, "checkpoint"),
    images: questions.map(({ image, questions }, i) => ({
      ...{ name: image, image: join(FOLDER, image), questions },
      tokens: tokens[i]!,
    })),
  };
}

/** @throws InputError IO */
function writeReport(name: string, text: string): Promise<void> {
  return writeFile(name, text).catch((cause: unknown) => {
    throw new InputError("IO", `--json ${name}: ${systemReason(cause)}`, { cause });
  });
}
