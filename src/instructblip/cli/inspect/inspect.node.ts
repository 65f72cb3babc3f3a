/**
 * `inspect`: reads a checkpoint's config and headers, requests an adapter, and prints the result of inspection.ts. No
 * weights are read, and of a model of the Hub none are downloaded.
 */

import type { Caps } from "../../../tensor/device/caps.ts";
import { openDevice } from "../../../tensor/device/open_device.ts";
import { EngineError } from "../../../tensor/errors.ts";
import { weightsOf } from "../../pretrained/checkpoint/open_weights.ts";
import { findUnheeded } from "../../pretrained/unheeded_files.ts";
import { openModelFolder } from "../folder.node.ts";
import type { Run } from "../session.node.ts";
import { say } from "../terminal.node.ts";
import { formatInspection, inspect } from "./inspection.ts";

export interface InspectOptions {
  json?: boolean;
  tensors?: boolean;
}

export async function runInspect(path: string, { json, tensors }: InspectOptions, run: Run): Promise<void> {
  const { terminal } = run;
  const folder = await openModelFolder(path, run);
  const config = await folder.config();
  const checkpoint = await weightsOf(folder.preview() ?? folder);
  const files = checkpoint.files.map(({ name, size }) => ({ name, bytes: size }));
  await checkpoint.close();
  const caps = await adapterCaps();
  const notes = (await findUnheeded(folder)).map(({ message, hint }) => `${message}; ${hint}`);
  const report = inspect({ name: folder.name, config, checkpoint, notes, files, caps, withTensors: Boolean(tensors) });
  if (!json) for (const warning of report.warnings) say(terminal, `warning: ${warning}`);
  await terminal.out(json ? `${JSON.stringify(report)}\n` : formatInspection(report));
}

/** The limits of a model's device; undefined without an adapter. */
async function adapterCaps(): Promise<Caps | undefined> {
  try {
    const device = await openDevice();
    device.destroy();
    return device.caps;
  } catch (error) {
    if (error instanceof EngineError && (error.code === "NO_ADAPTER" || error.code === "NO_WEBGPU")) return undefined;
    throw error;
  }
}
