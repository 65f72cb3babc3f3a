/** The classes of a checkpoint's model and config, by model_type of config.json. Source: transformers, models/auto. */
import type { StorageDType } from "../../modules/storage_dtype.ts";
import { ConfigError } from "../../tensor/errors.ts";
import type { Folder } from "../../tensor/files/source.ts";
import { configClassOf } from "../config/auto.ts";
import type { VisionLanguageConfig } from "../config/config.ts";
import type { KnownFamily } from "../config/families.ts";
import { parseRecord } from "../config/json_file.ts";
import { Blip2Model } from "./base/blip_2_model.ts";
import { Blip2QFormerModel } from "./base/blip_2_qformer.ts";
import { InstructBlipModel, InstructBlipVideoModel } from "./base/instructblip_models.ts";
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

/** What Hugging Face's AutoModel has for each family. */
const BASES = {
  InstructBlipForConditionalGeneration: InstructBlipModel,
  Blip2ForConditionalGeneration: Blip2Model,
  InstructBlipVideoForConditionalGeneration: InstructBlipVideoModel,
} as const satisfies Record<KnownFamily["architecture"], unknown>;

/** Models of BLIP-2 without a language model. */
const RETRIEVAL = {
  Blip2ForImageTextRetrieval,
  Blip2VisionModelWithProjection,
  Blip2TextModelWithProjection,
} as const;

type Instance<T extends Readonly<Record<string, abstract new (...args: never) => unknown>>> = InstanceType<T[keyof T]>;

/** The class that config.json names first in `architectures`. */
async function architectureOf(folder: ModelFolder): Promise<string | undefined> {
  const { architectures } = (await folder.json("config.json")) ?? {};
  const name: unknown = Array.isArray(architectures) ? architectures[0] : undefined;
  return typeof name === "string" ? name : undefined;
}

/** A retrieval class that config.json names in `architectures`, if it does. */
export async function retrievalClass(folder: ModelFolder): Promise<keyof typeof RETRIEVAL | undefined> {
  const name = await architectureOf(folder);
  return name !== undefined && Object.hasOwn(RETRIEVAL, name) ? (name as keyof typeof RETRIEVAL) : undefined;
}

/** Loads a checkpoint as a retrieval class that config.json names, else as the class that generates. */
export async function modelWithFeatures(
  from: Folder,
  options: FromPretrainedOptions,
): Promise<VisionLanguageModel | Instance<typeof RETRIEVAL>> {
  const folder = await openPretrained(from);
  const { family } = await folder.config();
  const name = await retrievalClass(folder);
  const Model = name ? RETRIEVAL[name] : MODELS[family.architecture];
  return (Model as typeof Blip2ForImageTextRetrieval).from_pretrained(folder, options);
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
    const name = await architectureOf(folder);
    if (name === "InstructBlipModel" || name === "InstructBlipVideoModel") {
      throw new ConfigError("UNSUPPORTED_MODEL", `config.json: the model is an ${name}, which has no head`, {
        hint: `${name}.from_pretrained or AutoModel loads it; it gives states`,
      });
    }
    const Model = MODELS[family.architecture] as typeof InstructBlipForConditionalGeneration;
    return Model.from_pretrained(folder, opened(options));
  },
};

export const AutoModel = {
  /**
   * Loads a checkpoint folder as the class that Hugging Face's AutoModel has for its model_type: Blip2Model, InstructBlipModel or
   * InstructBlipVideoModel; Blip2QFormerModel of a Q-Former alone. Where config.json names a retrieval class in `architectures`,
   * it is that.
   *
   * @param from as of AutoModelForImageTextToText
   * @throws as AutoModelForImageTextToText
   */
  async from_pretrained(
    from: PretrainedFrom,
    options: FromPretrainedOptions = {},
  ): Promise<Instance<typeof BASES> | Instance<typeof RETRIEVAL> | Blip2QFormerModel> {
    const folder = await openPretrained(from, readModelOptions(options));
    const { model_type } = (await folder.json("config.json")) ?? {};
    if (model_type === "blip_2_qformer") return Blip2QFormerModel.from_pretrained(folder, opened(options));
    const { family } = await folder.config();
    const name = await retrievalClass(folder);
    const Model = name ? RETRIEVAL[name] : BASES[family.architecture];
    return (Model as typeof Blip2ForImageTextRetrieval).from_pretrained(folder, opened(options)) as never;
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
