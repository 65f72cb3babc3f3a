/** The classes of a checkpoint's model and config, by model_type of config.json. Source: transformers, models/auto. */
import type { StorageDType } from "../../modules/storage_dtype.ts";
import { ConfigError } from "../../tensor/errors.ts";
import { configClassOf } from "../config/auto.ts";
import type { VisionLanguageConfig } from "../config/config.ts";
import type { KnownFamily } from "../config/families.ts";
import { parseRecord } from "../config/json_file.ts";
import { Blip2ForConditionalGeneration } from "./blip_2.ts";
import {
  Blip2ForImageTextRetrieval,
  Blip2TextModelWithProjection,
  Blip2VisionModelWithProjection,
} from "./blip_2_retrieval.ts";
import { opened, type PretrainedFrom } from "./from_pretrained.ts";
import type { OpenFolderOptions } from "./hub/hub.ts";
import { InstructBlipForConditionalGeneration } from "./instructblip.ts";
import { InstructBlipVideoForConditionalGeneration } from "./instructblip_video.ts";
import { checkDownload, type FromPretrainedOptions, readModelOptions } from "./load.ts";
import { ModelFolder, openPretrained } from "./model_folder.ts";
import type { VisionLanguageModel } from "./vision_language_model.ts";

const MODELS = {
  InstructBlipForConditionalGeneration,
  Blip2ForConditionalGeneration,
  InstructBlipVideoForConditionalGeneration,
} as const satisfies Record<KnownFamily["architecture"], unknown>;

/** Models of BLIP-2 without a language model. */
const RETRIEVAL = {
  Blip2ForImageTextRetrieval,
  Blip2VisionModelWithProjection,
  Blip2TextModelWithProjection,
} as const;

/** A retrieval class that config.json names in `architectures`, if it does. */
export async function retrievalClass(folder: ModelFolder): Promise<keyof typeof RETRIEVAL | undefined> {
  const { architectures } = (await folder.json("config.json")) ?? {};
  const name: unknown = Array.isArray(architectures) ? architectures[0] : undefined;
  return typeof name === "string" && Object.hasOwn(RETRIEVAL, name) ? (name as keyof typeof RETRIEVAL) : undefined;
}

export const AutoConfig = {
  /** Reads a config.json. @throws ConfigError CONFIG_JSON, UNSUPPORTED_MODEL and those of the config */
  parse(text: string, name = "config.json"): VisionLanguageConfig {
    const given = parseRecord(text, name);
    return new (configClassOf(given, name))(given);
  },

  /**
   * Reads the config.json of a checkpoint folder.
   *
   * @param from a path, in Node also a Hub id (`owner/name[@revision]`), a URL, or a Folder
   * @throws ConfigError as parse; WeightError; InputError UNKNOWN_OPTION, UNSUPPORTED_OPTION; the signal's reason
   */
  async from_pretrained(from: PretrainedFrom, options: OpenFolderOptions = {}): Promise<VisionLanguageConfig> {
    return (await ModelFolder.open(from, options)).config();
  },
};

export const AutoModelForImageTextToText = {
  /**
   * Loads a checkpoint folder of any of the models.
   *
   * @param from a path, in Node also a Hub id (`owner/name[@revision]`), a URL, or a Folder (a browser's files, HTTP)
   * @throws ConfigError, WeightError, DeviceError; InputError UNKNOWN_OPTION, UNSUPPORTED_OPTION, DTYPE; the signal's reason
   */
  async from_pretrained(from: PretrainedFrom, options: FromPretrainedOptions = {}): Promise<VisionLanguageModel> {
    const folder = await openPretrained(from, readModelOptions(options));
    const { family } = await folder.config();
    const other = await retrievalClass(folder);
    if (other) {
      throw new ConfigError("UNSUPPORTED_MODEL", `config.json: the model is a ${other}, which generates no text`, {
        hint: `${other}.from_pretrained or AutoModel loads it; it embeds and compares images and texts`,
      });
    }
    const Model = MODELS[family.architecture] as typeof InstructBlipForConditionalGeneration;
    return Model.from_pretrained(folder, opened(options));
  },
};

export const AutoModel = {
  /**
   * Loads a checkpoint folder of any model, of the class that config.json names in `architectures`, else of the class for its
   * model_type.
   *
   * @param from as of AutoModelForImageTextToText
   * @throws as AutoModelForImageTextToText
   */
  async from_pretrained(
    from: PretrainedFrom,
    options: FromPretrainedOptions = {},
  ): Promise<VisionLanguageModel | InstanceType<(typeof RETRIEVAL)[keyof typeof RETRIEVAL]>> {
    const folder = await openPretrained(from, readModelOptions(options));
    const { family } = await folder.config();
    const name = await retrievalClass(folder);
    const Model = name ? RETRIEVAL[name] : MODELS[family.architecture];
    return (Model as typeof Blip2ForImageTextRetrieval).from_pretrained(folder, opened(options));
  },
};

/**
 * Refuses a model that does not fit on the device before its weights are downloaded, if they would be.
 *
 * @throws as {@link checkDownload}
 */
export async function checkModelDownload(folder: ModelFolder, dtype: StorageDType): Promise<void> {
  if (!folder.preview()) return;
  const { family } = await folder.config();
  const name = await retrievalClass(folder);
  const Model = name ? RETRIEVAL[name] : MODELS[family.architecture];
  await checkDownload(Model as typeof Blip2ForImageTextRetrieval, folder, dtype);
}
