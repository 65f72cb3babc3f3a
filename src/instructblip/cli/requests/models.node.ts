/** The models of `generate`: that of `--model`, and that of `--assistant`, which drafts tokens for it. */
import type { KVCacheDType, StorageDType } from "../../../modules/storage_dtype.ts";
import type { ComputeDType } from "../../../tensor/dtype.ts";
import type { VisionLanguageModel } from "../../pretrained/vision_language_model.ts";
import { openModelFolder } from "../folder.node.ts";
import { loadModel, loadOptions, type Run } from "../session.node.ts";

export interface ModelOptions {
  readonly model: string;
  readonly dtype: StorageDType;
  readonly fixVicunaTokenIds?: boolean;
  readonly weightCache?: true | string;
  readonly computeDtype?: ComputeDType;
  readonly kvCacheDtype?: KVCacheDType;
  /** The folder of a model that drafts tokens, and its `--dtype`. */
  readonly assistant?: string;
  readonly assistantDtype?: StorageDType;
}

/** Loads `--assistant` to the model's device. @throws as openModelFolder and loadModel */
export async function loadAssistant(
  options: ModelOptions,
  { device }: VisionLanguageModel,
  run: Run,
): Promise<VisionLanguageModel | undefined> {
  const { assistant, assistantDtype = "auto" } = options;
  if (assistant === undefined) return undefined;
  const { parts: _, ...own } = run; // they complete the model
  return loadModel(await openModelFolder(assistant, own), assistantDtype, own, { device, ...loadOptions(options) });
}
