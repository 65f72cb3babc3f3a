/** The model that a checkpoint is: the class is picked by config.json's model_type. Source: transformers, models/auto. */

import { Blip2Config } from "../config/blip_2.ts";
import { InstructBlipConfig, readConfigJson, type VisionLanguageConfig } from "../config/config.ts";
import { InstructBlipVideoConfig } from "../config/instructblip_video.ts";
import { Blip2ForConditionalGeneration } from "./blip_2.ts";
import { opened, openPretrained, type PretrainedFrom, readPretrainedOptions } from "./from_pretrained.ts";
import type { OpenFolderOptions } from "./hub/hub.ts";
import { InstructBlipForConditionalGeneration } from "./instructblip.ts";
import { InstructBlipVideoForConditionalGeneration } from "./instructblip_video.ts";
import { type FromPretrainedOptions, readModelOptions } from "./load.ts";
import { refuseUnheeded } from "./unheeded_files.ts";
import type { VisionLanguageModel } from "./vision_language_model.ts";

const MODELS = {
  instructblip: InstructBlipForConditionalGeneration,
  "blip-2": Blip2ForConditionalGeneration,
  instructblipvideo: InstructBlipVideoForConditionalGeneration,
} as const;

/** Apart from the models, which a page that only reads configs does not want. */
const CONFIGS = {
  instructblip: InstructBlipConfig,
  "blip-2": Blip2Config,
  instructblipvideo: InstructBlipVideoConfig,
} as const satisfies Record<keyof typeof MODELS, unknown>;

/** Which model a checkpoint is. @throws ConfigError CONFIG_JSON, UNSUPPORTED_MODEL */
function modelType(text: string, name = "config.json"): keyof typeof CONFIGS {
  return readConfigJson(text, name, Object.keys(CONFIGS)).model_type as keyof typeof CONFIGS;
}

export const AutoConfig = {
  /** Reads a config.json. @throws ConfigError CONFIG_JSON, UNSUPPORTED_MODEL and those of the config */
  parse(text: string, name?: string): VisionLanguageConfig {
    return CONFIGS[modelType(text, name)].parse<VisionLanguageConfig>(text, name);
  },

  /**
   * Reads the config.json of a checkpoint folder.
   *
   * @param from a path, in Node also a Hub id (`owner/name[@revision]`), a URL, or a Folder
   * @throws ConfigError as parse; WeightError; InputError UNKNOWN_OPTION, UNSUPPORTED_OPTION; the signal's reason
   */
  async from_pretrained(from: PretrainedFrom, options: OpenFolderOptions = {}): Promise<VisionLanguageConfig> {
    const folder = await openPretrained(from, readPretrainedOptions(options, []));
    return AutoConfig.parse(await folder.text("config.json", 2 ** 20));
  },
};

/** The name of the model that a config is of, Hugging Face's `architectures`. */
export function architectureOf(config: VisionLanguageConfig): string {
  return Object.values(MODELS).find(({ config_class }) => config instanceof config_class)!.name;
}

export const AutoModelForImageTextToText = {
  /**
   * Loads a checkpoint folder, whichever of the models it is.
   *
   * @param from a path, in Node also a Hub id (`owner/name[@revision]`), a URL, or a Folder (a browser's files, HTTP)
   * @throws ConfigError, WeightError, DeviceError; InputError UNKNOWN_OPTION, UNSUPPORTED_OPTION, DTYPE; the signal's reason
   */
  async from_pretrained(from: PretrainedFrom, options: FromPretrainedOptions = {}): Promise<VisionLanguageModel> {
    const folder = await openPretrained(from, readModelOptions(options));
    if (!(await folder.has("config.json"))) await refuseUnheeded(folder); // an adapter without its base
    const Model = MODELS[modelType(await folder.text("config.json", 2 ** 20))];
    return (Model as typeof InstructBlipForConditionalGeneration).from_pretrained(folder, opened(options));
  },
};
