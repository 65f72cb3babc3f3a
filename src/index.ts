/**
 * The package's exports, on every platform. In a browser this is the entry point: checkpoints are loaded by URL, and WebGPU
 * is `navigator.gpu`; index.node.ts adds files and adapters in Node.
 */

export { Blip2Config, Blip2QFormerConfig } from "./instructblip/config/blip_2.ts";
export {
  InstructBlipQFormerConfig,
  InstructBlipVisionConfig,
  type TextConfig,
  type VisionLanguageConfig,
} from "./instructblip/config/config.ts";
export type { Family, KnownFamily } from "./instructblip/config/families.ts";
export type { HiddenAct, LanguageModelSizes } from "./instructblip/config/fields.ts";
export { InstructBlipConfig } from "./instructblip/config/instructblip.ts";
export { InstructBlipVideoConfig } from "./instructblip/config/instructblip_video.ts";
export { LlamaConfig } from "./instructblip/config/llama.ts";
export { OPTConfig } from "./instructblip/config/opt.ts";
export { T5Config } from "./instructblip/config/t5.ts";
export type { GenerateOptions } from "./instructblip/generation/generate.ts";
export type { GenerationOptions } from "./instructblip/generation/options.ts";
export type { AssistedCounts, GenerateOutput, StepScores } from "./instructblip/generation/output.ts";
export {
  candidateIds,
  type RankedAnswers,
  type RankOptions,
  type Reduction,
} from "./instructblip/generation/ranking.ts";
export type { TokenTexts } from "./instructblip/generation/stopping.ts";
export {
  type IncrementalDecoder,
  type Streamer,
  TextIteratorStreamer,
  type TextIteratorStreamerOptions,
} from "./instructblip/generation/streamer.ts";
export type {
  AnswerLogprobs,
  AnswerToken,
  AssistantModel,
  CustomLogitsProcessor,
  EncoderStates,
  LayerStates,
  StepStates,
  StoppingCriterion,
  TokenLogprob,
  WarningListener,
} from "./instructblip/generation/types.ts";
export { WatermarkDetector, type WatermarkDetectorOutput } from "./instructblip/generation/watermark/watermark.ts";
export type {
  SynthIDTextWatermarkingConfig,
  WatermarkingConfig,
} from "./instructblip/generation/watermark/watermark_options.ts";
export {
  type AttributeOptions,
  type Attribution,
  type AttributionMethod,
  attribute,
  type ImageDrops,
  type TokenAttention,
} from "./instructblip/instruments/attribute/attribute.ts";
export type { OcclusionFill, PatchGrid } from "./instructblip/instruments/attribute/occlusion.ts";
export type { CrossShares, RolloutShares } from "./instructblip/instruments/attribute/rollout.ts";
export {
  type OccludedWord,
  occludedWords,
  type TextProcessor,
  type TokenSpan,
  type WordOcclusion,
} from "./instructblip/instruments/attribute/words.ts";
export {
  type LensToken,
  type LensWords,
  type LogitLens,
  type LogitLensOptions,
  logitLens,
  type QueryMaps,
} from "./instructblip/instruments/lens.ts";
export { type ModelProfile, profile } from "./instructblip/instruments/profile/profile.ts";
export {
  type PhaseReport,
  type ProfileReport,
  type ProfileRow,
  type ProfileSums,
  profileReport,
} from "./instructblip/instruments/profile/report.ts";
export {
  type ChromeTrace,
  chromeTrace,
  type TraceArgs,
  type TraceEvent,
} from "./instructblip/instruments/profile/trace.ts";
export {
  type AblatedUnit,
  type AblateOptions,
  type Ablation,
  ablate,
} from "./instructblip/instruments/sweep/ablate.ts";
export { type PatchedUnit, type Patching, patchActivations } from "./instructblip/instruments/sweep/patch.ts";
export type { SweepOptions } from "./instructblip/instruments/sweep/sweep.ts";
export type { SweepUnit, UnitPlace } from "./instructblip/instruments/sweep/units.ts";
export type {
  Intervention,
  InterventionContext,
  InterventionData,
  InterventionFunction,
  InterventionIndex,
  NestedNumbers,
} from "./instructblip/interventions/intervention.ts";
export type { EmbeddedImages, EmbeddedTexts } from "./instructblip/model/blip_2_retrieval.ts";
export type { InstructedImages } from "./instructblip/model/instructblip.ts";
export type { InstructedFrames } from "./instructblip/model/instructblip_video.ts";
export type {
  BaseLanguageModel,
  BaseLanguageModelOutput,
  Ids,
  LanguageModel,
  LanguageModelOutput,
  TextStates,
} from "./instructblip/model/language_model.ts";
export type { Blip2QFormer, InstructBlipQFormerModel, QFormerOutput } from "./instructblip/model/qformer.ts";
export type {
  ImageFeatures,
  ImageParts,
  ImageTensors,
  PromptTensors,
  VisionLanguage,
  VisionLanguageBaseOutput,
  VisionLanguageOutput,
} from "./instructblip/model/vision_language.ts";
export type { InstructBlipVisionModel, VisionOutput } from "./instructblip/model/vision_model.ts";
export { AutoConfig, AutoModel, AutoModelForImageTextToText } from "./instructblip/pretrained/auto_model.ts";
export { type AnyProcessor, AutoProcessor } from "./instructblip/pretrained/auto_processor.ts";
export { type Blip2LanguageInputs, Blip2Model } from "./instructblip/pretrained/base/blip_2_model.ts";
export { Blip2QFormerModel, type Blip2QFormerModelInputs } from "./instructblip/pretrained/base/blip_2_qformer.ts";
export {
  type BaseForwardInputs,
  InstructBlipModel,
  InstructBlipVideoModel,
} from "./instructblip/pretrained/base/instructblip_models.ts";
export { Blip2ForConditionalGeneration, type Blip2Inputs } from "./instructblip/pretrained/blip_2.ts";
export {
  Blip2ForImageTextRetrieval,
  type Blip2ImageTextMatchingModelOutput,
  type Blip2RetrievalInputs,
  type Blip2TextInputs,
  type Blip2TextModelOutput,
  Blip2TextModelWithProjection,
  type Blip2VisionModelOutput,
  Blip2VisionModelWithProjection,
} from "./instructblip/pretrained/blip_2_retrieval.ts";
export type { ForwardInputs, ForwardOptions } from "./instructblip/pretrained/forward_options.ts";
export type { PretrainedFrom } from "./instructblip/pretrained/from_pretrained.ts";
export type { DownloadProgress, OpenFolderOptions } from "./instructblip/pretrained/hub/hub.ts";
export type { HostTensor, ModelInputs, QFormerInputs, VisionInputs } from "./instructblip/pretrained/inputs.ts";
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
export { ModelFolder } from "./instructblip/pretrained/model_folder.ts";
export type { CachedFolderOptions, KeptFile } from "./instructblip/pretrained/opfs/cached_folder.ts";
export { type KeptFolder, OpfsCache, type StorageSpace } from "./instructblip/pretrained/opfs/opfs_cache.ts";
export type { PretrainedModel } from "./instructblip/pretrained/pretrained_model.ts";
export type { SavePretrainedOptions, SaveProgress, StateDictEntry } from "./instructblip/pretrained/save_pretrained.ts";
export type { VisionLanguageModel } from "./instructblip/pretrained/vision_language_model.ts";
export {
  type Blip2BatchFeature,
  Blip2Processor,
  type Blip2ProcessorParts,
} from "./instructblip/processing/blip_2_processor.ts";
export type { PixelTensor, PixelValues, RgbaImage, RgbImage } from "./instructblip/processing/image.ts";
export type { Drawable } from "./instructblip/processing/image_drawable.ts";
export type { ImageOptions, ImageSize } from "./instructblip/processing/image_options.ts";
export type { BlipImageProcessor } from "./instructblip/processing/image_processor.ts";
export type { ImageTransform } from "./instructblip/processing/image_transform.ts";
export {
  type BatchFeature,
  InstructBlipProcessor,
  type InstructBlipProcessorParts,
  type ProcessorInput,
} from "./instructblip/processing/instructblip_processor.ts";
export {
  InstructBlipVideoProcessor,
  type InstructBlipVideoProcessorInput,
  type InstructBlipVideoProcessorParts,
  type VideoBatchFeature,
  type VideoInput,
  type VideoPixelValues,
} from "./instructblip/processing/instructblip_video_processor.ts";
export type { ProcessorBase, ProcessorCall } from "./instructblip/processing/processor.ts";
export type { ProcessorFromPretrainedOptions } from "./instructblip/processing/processor_files.ts";
export type { ImageInput, ProcessorOptions } from "./instructblip/processing/processor_input.ts";
export type { ImageBackend } from "./instructblip/processing/resize.ts";
export type { Tokenizer } from "./instructblip/tokenizer/tokenizer.ts";
export type { DecodeOptions, EncodeOptions } from "./instructblip/tokenizer/types.ts";
export { AutoTokenizer, type TokenizerFromPretrainedOptions } from "./instructblip/transformers/auto_tokenizer.ts";
export {
  EosTokenCriteria,
  LogitsProcessor,
  LogitsProcessorList,
  MaxLengthCriteria,
  MaxTimeCriteria,
  StoppingCriteria,
  StoppingCriteriaList,
  StopStringCriteria,
} from "./instructblip/transformers/criteria.ts";
export {
  GenerationConfig,
  type GenerationConfigFile,
  type GenerationFields,
} from "./instructblip/transformers/generation_config.ts";
export { load_image } from "./instructblip/transformers/load_image.ts";
export {
  type Answer,
  type Caption,
  type GeneratedText,
  type ImageTextToTextOptions,
  type ImageTextToTextPipeline,
  type ImageToTextOptions,
  type ImageToTextPipeline,
  type PipelineCallOptions,
  type PipelineOptions,
  pipeline,
  type VisualQuestionAnsweringOptions,
  type VisualQuestionAnsweringPipeline,
} from "./instructblip/transformers/pipeline.ts";
export { TextStreamer, type TextStreamerOptions } from "./instructblip/transformers/text_streamer.ts";
export type { Linear } from "./modules/linear.ts";
export type { Module } from "./modules/module.ts";
export type { ModuleCall } from "./modules/module_calls.ts";
export { type SeeOutput, type StateOptions, type TracedOutput, traceOutputs } from "./modules/observer.ts";
export type { KVCacheDType, NamedDType, OneDType, StorageDType } from "./modules/storage_dtype.ts";
export type { LoadOptions, LoadProgress, Weights } from "./modules/weights.ts";
export type { Call } from "./tensor/device/call.ts";
export type { Caps, SubgroupMatrix } from "./tensor/device/caps.ts";
export type {
  Captured,
  Device,
  Kernel,
  Launch,
  LaunchTime,
  LaunchWork,
  ObservedKind,
  Observer,
  ProfileClock,
  Profiled,
  SiteKind,
  StateKind,
  UploadTime,
} from "./tensor/device/device.ts";
export type { Memory, MemoryUse, Storage } from "./tensor/device/memory.ts";
export { type DeviceOptions, openDevice } from "./tensor/device/open_device.ts";
export type { TunedPlan } from "./tensor/device/variants.ts";
export type { ActivationDType, DType, FloatDType } from "./tensor/dtype.ts";
export {
  ConfigError,
  DeviceError,
  DTypeError,
  EngineError,
  InputError,
  KernelError,
  NumericError,
  ShapeError,
  WeightError,
} from "./tensor/errors.ts";
export {
  Checkpoint,
  type CheckpointTensor,
  type StreamOptions,
  type TensorChunk,
} from "./tensor/files/checkpoint.ts";
export type { WritableFolder } from "./tensor/files/file_set.ts";
export { HandleFolder } from "./tensor/files/handle_folder.ts";
export { SafetensorsFile } from "./tensor/files/safetensors.ts";
export type { TensorEntry } from "./tensor/files/safetensors_writer.ts";
export {
  type ByteSink,
  type ByteSource,
  FileListFolder,
  type Folder,
  HttpFolder,
  type HttpOptions,
} from "./tensor/files/source.ts";
export { type HeaderLimits, TensorFile, type TensorInfo, type UnsupportedDType } from "./tensor/files/tensor_file.ts";
export { type Bound, type Limits, measureLimits } from "./tensor/limits.ts";
export type { Shape } from "./tensor/shape.ts";
export { type HostArray, Tensor } from "./tensor/tensor.ts";
