/** The model that a command is given, a folder, a Hub id or a URL, and what is said when it is none of them. */

import { formatBytes } from "../../tensor/device/memory.ts";
import { InputError } from "../../tensor/errors.ts";
import { NodeFolder } from "../../tensor/files/source.node.ts";
import type { Folder } from "../../tensor/files/source.ts";
import { bounded } from "../../tensor/shown.ts";
import type { VisionLanguageConfig } from "../config/config.ts";
import { AutoConfig } from "../pretrained/auto_model.ts";
import { nodePlatform } from "../pretrained/platform.node.ts";
import { refuseUnheeded } from "../pretrained/unheeded_files.ts";
import type { Run } from "./session.node.ts";
import { Progress } from "./terminal.node.ts";

/**
 * A local checkpoint folder, a model of the Hugging Face Hub (`owner/name[@revision]`, or its page's URL) whose files are
 * downloaded when they are opened, with progress on the terminal and until the signal, or a folder on another server.
 *
 * @throws InputError MODEL_NOT_FOUND, FOLDER_SOURCE, HUB_URL; WeightError NOT_FOUND, ADAPTER, HUB_…
 */
export async function openModelFolder(path: string, { terminal, signal }: Partial<Run> = {}): Promise<Folder> {
  const progress = terminal && new Progress(terminal);
  const folder = await nodePlatform.openFolder(path, {
    signal,
    on_download: ({ file, loadedBytes, totalBytes }) => {
      const share = `${Math.floor((loadedBytes / (totalBytes || 1)) * 100)} %`;
      progress?.show(`downloading ${file} … ${share}  ${formatBytes(loadedBytes)} of ${formatBytes(totalBytes)}`);
      if (loadedBytes === totalBytes) progress?.clear();
    },
  });
  if (!(folder instanceof NodeFolder) || (await folder.has("config.json"))) return folder;
  await refuseUnheeded(folder); // which may lie there without its base
  throw new InputError("MODEL_NOT_FOUND", `${bounded(path, 200)}: there is no config.json in this folder`, {
    hint: "a checkpoint folder has config.json, the weights (*.safetensors) and the tokenizer's files",
  });
}

/** The checkpoint's config. @throws ConfigError, WeightError */
export async function readConfig(folder: Folder): Promise<VisionLanguageConfig> {
  return AutoConfig.parse(await folder.text("config.json", 2 ** 20));
}
