/** The model folder that a command is given, and what is said when it is none. */
import { stat } from "node:fs/promises";
import { InputError } from "../../tensor/errors.ts";
import { NodeFolder } from "../../tensor/source.node.ts";
import type { Folder } from "../../tensor/source.ts";
import { InstructBlipConfig } from "../config.ts";

/** A local checkpoint folder. @throws InputError MODEL_NOT_FOUND */
export async function openModelFolder(path: string): Promise<Folder> {
  const found = await stat(path).catch(() => undefined);
  if (found?.isDirectory()) {
    const folder = new NodeFolder(path);
    if (await folder.has("config.json")) return folder;
    throw new InputError("MODEL_NOT_FOUND", `${path}: there is no config.json in this folder`, {
      hint: "a checkpoint folder has config.json, the weights (*.safetensors) and the tokenizer's files",
    });
  }
  const repository = /^[\w.-]+\/[\w.-]+$/.test(path);
  throw new InputError("MODEL_NOT_FOUND", `${path}: ${found ? "this is a file, not a folder" : "no such folder"}`, {
    hint: found
      ? "give the folder that holds config.json and the weights"
      : repository
        ? "models are read from the disk; download the repository first and give its folder"
        : undefined,
  });
}

/** The checkpoint's config. @throws ConfigError, WeightError */
export async function readConfig(folder: Folder): Promise<InstructBlipConfig> {
  return InstructBlipConfig.parse(await folder.text("config.json", 2 ** 20));
}
