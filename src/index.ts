/** What the package offers, whatever the platform; index.node.ts and index.browser.ts add where files and adapters come from. */
export { type AnyProcessor, AutoProcessor } from "./instructblip/auto_processor.ts";
export { Blip2Processor } from "./instructblip/blip_2_processor.ts";
export {
  InstructBlipConfig,
  InstructBlipQFormerConfig,
  InstructBlipVisionConfig,
  LlamaConfig,
} from "./instructblip/config.ts";
export type { GenerationOptions } from "./instructblip/generation/configuration.ts";
export { type Streamer, TextIteratorStreamer } from "./instructblip/generation/streamer.ts";
export {
  type FromPretrainedOptions,
  type GenerateOptions,
  type HostTensor,
  InstructBlipForConditionalGeneration,
  type InstructBlipInputs,
  type InstructBlipOutput,
} from "./instructblip/instructblip.ts";
export { InstructBlipVideoProcessor } from "./instructblip/instructblip_video_processor.ts";
export { InstructBlipProcessor } from "./instructblip/processor.ts";
export { candidateIds, type RankedAnswers, type RankOptions } from "./instructblip/ranking.ts";
export type { SavePretrainedOptions, SaveProgress } from "./instructblip/save_pretrained.ts";
export { traceOutputs } from "./modules/trace.ts";
export type { WritableFolder } from "./tensor/checkpoint_writer.ts";
export { type Device, type DeviceOptions, type KernelTime, openDevice } from "./tensor/device.ts";
export * from "./tensor/errors.ts";
export { Checkpoint, SafetensorsFile } from "./tensor/safetensors.ts";
export { Tensor } from "./tensor/tensor.ts";
