/**
 * What the package offers, whatever the platform. It is the package in a browser, where checkpoints come by URL and WebGPU from
 * `navigator.gpu`; index.node.ts adds where files and adapters come from in Node.
 */
export { AutoConfig, AutoModelForImageTextToText } from "./instructblip/auto_model.ts";
export { type AnyProcessor, AutoProcessor } from "./instructblip/auto_processor.ts";
export { Blip2ForConditionalGeneration, type Blip2Inputs } from "./instructblip/blip_2.ts";
export { Blip2Processor } from "./instructblip/blip_2_processor.ts";
export {
  Blip2Config,
  Blip2QFormerConfig,
  InstructBlipConfig,
  InstructBlipQFormerConfig,
  InstructBlipVideoConfig,
  InstructBlipVisionConfig,
  LlamaConfig,
} from "./instructblip/config.ts";
export type { GenerationOptions } from "./instructblip/generation/configuration.ts";
export type { CustomLogitsProcessor } from "./instructblip/generation/logits_process.ts";
export type { GenerateOutput, LayerStates, StepScores } from "./instructblip/generation/output.ts";
export type { StoppingCriterion } from "./instructblip/generation/stopping.ts";
export { type Streamer, TextIteratorStreamer } from "./instructblip/generation/streamer.ts";
export {
  type SynthIDTextWatermarkingConfig,
  WatermarkDetector,
  type WatermarkDetectorOutput,
  type WatermarkingConfig,
} from "./instructblip/generation/watermark.ts";
export {
  type FromPretrainedOptions,
  type GenerateOptions,
  type HostTensor,
  InstructBlipForConditionalGeneration,
  type InstructBlipInputs,
  type InstructBlipOutput,
} from "./instructblip/instructblip.ts";
export {
  InstructBlipVideoForConditionalGeneration,
  type InstructBlipVideoInputs,
} from "./instructblip/instructblip_video.ts";
export { InstructBlipVideoProcessor } from "./instructblip/instructblip_video_processor.ts";
export type { LanguageModelOutput } from "./instructblip/language_model.ts";
export { type ImageInput, InstructBlipProcessor } from "./instructblip/processor.ts";
export type { QFormerOutput } from "./instructblip/qformer.ts";
export { candidateIds, type RankedAnswers, type RankOptions } from "./instructblip/ranking.ts";
export type { SavePretrainedOptions, SaveProgress } from "./instructblip/save_pretrained.ts";
export type {
  ForwardInputs,
  ForwardOptions,
  ImageFeatures,
  VisionLanguageModel,
  VisionLanguageOutput,
} from "./instructblip/vision_language_model.ts";
export type { VisionOutput } from "./instructblip/vision_model.ts";
export type { WarningListener } from "./instructblip/warnings.ts";
export { traceOutputs } from "./modules/observer.ts";
export { type Device, type DeviceOptions, type KernelTime, openDevice } from "./tensor/device.ts";
export * from "./tensor/errors.ts";
export type { WritableFolder } from "./tensor/file_set.ts";
export { Checkpoint, SafetensorsFile } from "./tensor/safetensors.ts";
export { FileListFolder, type Folder, HttpFolder } from "./tensor/source.ts";
export { Tensor } from "./tensor/tensor.ts";
