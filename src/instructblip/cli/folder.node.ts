/** Opens the model of a command, a folder, a Hub id or a URL, with progress of downloads. */
import { formatBytes } from "../../tensor/device/memory.ts";
import { ModelFolder } from "../pretrained/model_folder.ts";
import type { Run } from "./session.node.ts";
import "./session.node.ts";
import { Progress } from "./terminal.node.ts";

/**
 * Opens a local checkpoint folder, a model of the Hugging Face Hub (`owner/name[@revision]`, or its page's URL) whose files
 * are downloaded when they are opened, or a folder on another server, and reads its config.
 *
 * @throws as ModelFolder.open and its config()
 */
export async function openModelFolder(
  path: string,
  { terminal, signal, parts }: Partial<Run> = {},
): Promise<ModelFolder> {
  const progress = terminal && new Progress(terminal);
  const folder = await ModelFolder.open(path, {
    ...parts,
    signal,
    on_download: ({ file, loadedBytes, totalBytes }) => {
      const share = `${Math.floor((loadedBytes / (totalBytes || 1)) * 100)} %`;
      progress?.show(`downloading ${file} … ${share}  ${formatBytes(loadedBytes)} of ${formatBytes(totalBytes)}`);
      if (loadedBytes === totalBytes) progress?.clear();
    },
  });
  await folder.config();
  return folder;
}
