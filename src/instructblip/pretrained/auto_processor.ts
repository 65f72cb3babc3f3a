/**
 * The processor of a checkpoint folder: by `processor_class` in its files, else by the model's type.
 *
 * Source: transformers 5.18, models/auto/processing_auto.py.
 */
import { ConfigError } from "../../tensor/errors.ts";
import { quote } from "../../tensor/shown.ts";
import { familyOf, type KnownFamily } from "../config/families.ts";
import { type Blip2BatchFeature, Blip2Processor } from "../processing/blip_2_processor.ts";
import { type BatchFeature, InstructBlipProcessor, type ProcessorInput } from "../processing/instructblip_processor.ts";
import {
  InstructBlipVideoProcessor,
  type InstructBlipVideoProcessorInput,
  type VideoBatchFeature,
} from "../processing/instructblip_video_processor.ts";
import type { ProcessorBase } from "../processing/processor.ts";
import { openProcessor, type ProcessorFromPretrainedOptions } from "../processing/processor_files.ts";
import type { PretrainedFrom } from "./from_pretrained.ts";
import type { ModelFolder } from "./model_folder.ts";

/** Any processor. `processor_class`, or `instanceof`, tells which. Only a video's takes lists of frames. */
export interface AnyProcessor
  extends ProcessorBase<
    ProcessorInput | InstructBlipVideoProcessorInput,
    BatchFeature | Blip2BatchFeature | VideoBatchFeature
  > {
  readonly processor_class: keyof typeof PROCESSORS;
}

const PROCESSORS = {
  InstructBlipProcessor,
  Blip2Processor,
  InstructBlipVideoProcessor,
} as const satisfies Record<KnownFamily["processor_class"], unknown>;

export const AutoProcessor = {
  /**
   * Reads the processor of a checkpoint folder, of any of the three classes.
   *
   * @param from a path, in Node also a Hub id (`owner/name[@revision]`), a URL, or a Folder
   * @throws ConfigError UNSUPPORTED_PROCESSOR and those of the processor; WeightError; InputError UNKNOWN_OPTION,
   * UNSUPPORTED_OPTION; the signal's reason
   */
  async from_pretrained(from: PretrainedFrom, options: ProcessorFromPretrainedOptions = {}): Promise<AnyProcessor> {
    const { folder, pixels } = await openProcessor(from, options);
    const Processor = PROCESSORS[await processorClass(folder)] as typeof InstructBlipProcessor;
    return (await Processor.from_pretrained(folder, pixels)) as unknown as AnyProcessor;
  },
};

/**
 * The processor's class name, by the model's type if no file has it. @throws ConfigError UNSUPPORTED_PROCESSOR, CONFIG_JSON
 */
async function processorClass(folder: ModelFolder): Promise<keyof typeof PROCESSORS> {
  const known = (name: string, file: string) => {
    if (Object.hasOwn(PROCESSORS, name)) return name as keyof typeof PROCESSORS;
    throw new ConfigError("UNSUPPORTED_PROCESSOR", `${file}: no processor here is for ${quote(name)}`, {
      hint: `there are ${Object.keys(PROCESSORS).join(", ")}`,
    });
  };
  // video_preprocessor_config.json is used only if preprocessor_config.json is absent.
  const pixels = (await folder.has("preprocessor_config.json")) ? "preprocessor_config" : "video_preprocessor_config";
  for (const file of ["processor_config.json", `${pixels}.json`, "tokenizer_config.json"]) {
    const name = (await folder.json(file))?.processor_class;
    if (typeof name === "string") return known(name, file);
  }
  const file = "config.json";
  const type = (await folder.json(file))?.model_type;
  if (typeof type === "string") return familyOf(type)?.processor_class ?? known(type, file);
  throw new ConfigError("UNSUPPORTED_PROCESSOR", `${folder.name}: no file names its processor class`, {
    hint: "config.json's model_type would",
  });
}
