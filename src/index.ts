/**
 * What the package offers, whatever the platform. It is the package in a browser, where checkpoints come by URL and WebGPU from
 * `navigator.gpu`; index.node.ts adds where files and adapters come from in Node.
 */

export {
  Blip2Config,
  Blip2QFormerConfig,
  InstructBlipConfig,
  InstructBlipQFormerConfig,
  InstructBlipVideoConfig,
  InstructBlipVisionConfig,
  LlamaConfig,
} from "./instructblip/config/config.ts";
export type { GenerateOptions } from "./instructblip/generation/generate.ts";
export type {
  GenerationOptions,
  SynthIDTextWatermarkingConfig,
  WatermarkingConfig,
} from "./instructblip/generation/options.ts";
export type { GenerateOutput, StepScores } from "./instructblip/generation/output.ts";
export { candidateIds, type RankedAnswers, type RankOptions } from "./instructblip/generation/ranking.ts";
export { type Streamer, TextIteratorStreamer } from "./instructblip/generation/streamer.ts";
export type { CustomLogitsProcessor, LayerStates, StoppingCriterion } from "./instructblip/generation/types.ts";
export type { WarningListener } from "./instructblip/generation/warnings.ts";
export { WatermarkDetector, type WatermarkDetectorOutput } from "./instructblip/generation/watermark.ts";
export type { LanguageModelOutput } from "./instructblip/model/language_model.ts";
export type { QFormerOutput } from "./instructblip/model/qformer.ts";
export type { ImageFeatures, VisionLanguageOutput } from "./instructblip/model/vision_language.ts";
export type { VisionOutput } from "./instructblip/model/vision_model.ts";
export { AutoConfig, AutoModelForImageTextToText } from "./instructblip/pretrained/auto_model.ts";
export { type AnyProcessor, AutoProcessor } from "./instructblip/pretrained/auto_processor.ts";
export { Blip2ForConditionalGeneration, type Blip2Inputs } from "./instructblip/pretrained/blip_2.ts";
export type { HostTensor } from "./instructblip/pretrained/inputs.ts";
export {
  InstructBlipForConditionalGeneration,
  type InstructBlipInputs,
  type InstructBlipOutput,
} from "./instructblip/pretrained/instructblip.ts";
export {
  InstructBlipVideoForConditionalGeneration,
  type InstructBlipVideoInputs,
} from "./instructblip/pretrained/instructblip_video.ts";
export type { FromPretrainedOptions } from "./instructblip/pretrained/load.ts";
export type { SavePretrainedOptions, SaveProgress } from "./instructblip/pretrained/save_pretrained.ts";
export type {
  ForwardInputs,
  ForwardOptions,
  VisionLanguageModel,
} from "./instructblip/pretrained/vision_language_model.ts";
export { Blip2Processor } from "./instructblip/processing/blip_2_processor.ts";
export { InstructBlipVideoProcessor } from "./instructblip/processing/instructblip_video_processor.ts";
export { type ImageInput, InstructBlipProcessor } from "./instructblip/processing/processor.ts";
export { traceOutputs } from "./modules/observer.ts";
export type { Device, KernelTime } from "./tensor/device/device.ts";
export { type DeviceOptions, openDevice } from "./tensor/device/open_device.ts";
export * from "./tensor/errors.ts";
export type { WritableFolder } from "./tensor/files/file_set.ts";
export { Checkpoint, SafetensorsFile } from "./tensor/files/safetensors.ts";
export { FileListFolder, type Folder, HttpFolder } from "./tensor/files/source.ts";
export { Tensor } from "./tensor/tensor.ts";
