/** The model that a command is given, a folder or a Hub id, and what is said when it is neither. */
import { stat } from "node:fs/promises";
import { InputError } from "../../tensor/errors.ts";
import { formatBytes } from "../../tensor/memory.ts";
import { NodeFolder } from "../../tensor/source.node.ts";
import type { Folder } from "../../tensor/source.ts";
import { AutoConfig } from "../auto_model.ts";
import type { VisionLanguageConfig } from "../config.ts";
import { HubFolder } from "../hub.node.ts";
import { parseHubId } from "../hub.ts";
import type { Run } from "./session.node.ts";
import { Progress } from "./terminal.node.ts";

/**
 * A local checkpoint folder, or a model of the Hugging Face Hub (`owner/name[@revision]`) whose files are downloaded when
 * they are opened, with progress on the terminal and until the signal.
 *
 * @throws InputError MODEL_NOT_FOUND; WeightError HUB_…
 */
export async function openModelFolder(path: string, { terminal, signal }: Partial<Run> = {}): Promise<Folder> {
  const found = await stat(path).catch(() => undefined);
  if (found?.isDirectory()) {
    const folder = new NodeFolder(path);
    if (await folder.has("config.json")) return folder;
    throw new InputError("MODEL_NOT_FOUND", `${path}: there is no config.json in this folder`, {
      hint: "a checkpoint folder has config.json, the weights (*.safetensors) and the tokenizer's files",
    });
  }
  const id = found ? undefined : parseHubId(path);
  if (id) {
    const progress = terminal && new Progress(terminal);
    return HubFolder.open(id, {
      signal,
      on_download: ({ file, loadedBytes, totalBytes }) => {
        const share = `${Math.floor((loadedBytes / (totalBytes || 1)) * 100)} %`;
        progress?.show(`downloading ${file} … ${share}  ${formatBytes(loadedBytes)} of ${formatBytes(totalBytes)}`);
        if (loadedBytes === totalBytes) progress?.clear();
      },
    });
  }
  throw new InputError("MODEL_NOT_FOUND", `${path}: ${found ? "this is a file, not a folder" : "no such folder"}`, {
    hint: found ? "give the folder that holds config.json and the weights" : undefined,
  });
}

/** The checkpoint's config. @throws ConfigError, WeightError */
export async function readConfig(folder: Folder): Promise<VisionLanguageConfig> {
  return AutoConfig.parse(await folder.text("config.json", 2 ** 20));
}
