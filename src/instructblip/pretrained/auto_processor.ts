/**
 * The processor that a checkpoint folder asks for: by `processor_class` in its files, else by the model's type.
 *
 * Source: transformers 5.18, models/auto/processing_auto.py.
 */
import { ConfigError } from "../../tensor/errors.ts";
import type { Folder } from "../../tensor/files/source.ts";
import { quote } from "../../tensor/shown.ts";
import { readJson } from "../config/json_file.ts";
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

/** Any processor, called alike; `processor_class`, or its class, says which it is. Only a video's takes lists of frames. */
export interface AnyProcessor
  extends ProcessorBase<
    ProcessorInput | InstructBlipVideoProcessorInput,
    BatchFeature | Blip2BatchFeature | VideoBatchFeature
  > {
  readonly processor_class: keyof typeof PROCESSORS;
}

const PROCESSORS = { InstructBlipProcessor, Blip2Processor, InstructBlipVideoProcessor } as const;
/** config.json's model_type -> processor. */
const OF_MODEL: Readonly<Record<string, keyof typeof PROCESSORS>> = {
  instructblip: "InstructBlipProcessor",
  "blip-2": "Blip2Processor",
  instructblipvideo: "InstructBlipVideoProcessor",
};

export const AutoProcessor = {
  /**
   * Reads the processor of a checkpoint folder, whichever of the three it is.
   *
   * @param from a path, in Node also a Hub id (`owner/name[@revision]`), a URL, or a Folder
   * @throws ConfigError UNSUPPORTED_PROCESSOR and those of the processor; WeightError; InputError UNKNOWN_OPTION,
   * UNSUPPORTED_OPTION; the signal's reason
   */
  async from_pretrained(from: PretrainedFrom, options: ProcessorFromPretrainedOptions = {}): Promise<AnyProcessor> {
    const { folder, backend } = await openProcessor(from, options);
    const { name, file } = await processorClass(folder);
    if (!Object.hasOwn(PROCESSORS, name)) {
      throw new ConfigError("UNSUPPORTED_PROCESSOR", `${file}: no processor here is for ${quote(name)}`, {
        hint: `there are ${Object.keys(PROCESSORS).join(", ")}`,
      });
    }
    const Processor = PROCESSORS[name as keyof typeof PROCESSORS] as typeof InstructBlipProcessor;
    return (await Processor.from_pretrained(folder, { backend })) as unknown as AnyProcessor;
  },
};

/** The processor's name, or the model's if that has none here, and the file that said so. */
async function processorClass(folder: Folder): Promise<{ name: string; file: string }> {
  // video_preprocessor_config.json counts only where preprocessor_config.json is absent.
  const pixels = (await folder.has("preprocessor_config.json")) ? "preprocessor_config" : "video_preprocessor_config";
  for (const file of ["processor_config.json", `${pixels}.json`, "tokenizer_config.json"]) {
    const maxBytes = file === "tokenizer_config.json" ? 8 * 2 ** 20 : undefined;
    const name = (await readJson(folder, file, "CONFIG", maxBytes))?.processor_class;
    if (typeof name === "string") return { name, file };
  }
  const file = "config.json";
  const type = (await readJson(folder, file))?.model_type;
  if (typeof type !== "string") {
    throw new ConfigError("UNSUPPORTED_PROCESSOR", `${folder.name}: no file says which processor it needs`, {
      hint: "config.json's model_type would",
    });
  }
  return { name: Object.hasOwn(OF_MODEL, type) ? OF_MODEL[type] : type, file };
}
