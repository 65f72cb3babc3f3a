/** The models of `generate`: that of `--model`, and that of `--assistant`, which drafts tokens for it. */
import type { StorageDType } from "../../../modules/storage_dtype.ts";
import type { VisionLanguageConfig } from "../../config/config.ts";
import { expectKin } from "../../generation/assisted/kin.ts";
import type { VisionLanguageModel } from "../../pretrained/vision_language_model.ts";
import { openModelFolder } from "../folder.node.ts";
import { type LoadFlags, loadModel, loadOptions, type Run } from "../session.node.ts";

export interface ModelOptions extends LoadFlags {
  /** The folder of a model that drafts tokens, and its `--dtype`. */
  readonly assistant?: string;
  readonly assistantDtype?: StorageDType;
}

/** Refuses, by its config, an `--assistant` that cannot assist, before weights are loaded. @throws as openModelFolder and expectKin */
export async function checkAssistant(
  { assistant }: ModelOptions,
  config: VisionLanguageConfig,
  run: Run,
): Promise<void> {
  if (assistant === undefined) return;
  const kinOf = ({ text_config, image_token, num_query_tokens }: VisionLanguageConfig) => {
    const { model_type, vocab_size: vocabulary } = text_config;
    return { is_encoder_decoder: model_type === "t5", vocabulary, image_token, num_query_tokens };
  };
  const { parts: _, ...own } = run; // they complete the model
  expectKin(kinOf(config), kinOf(await (await openModelFolder(assistant, own)).config()));
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
