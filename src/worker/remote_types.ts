/** Types of a page's end. */
import type { GenerateOptions } from "../instructblip/generation/generate.ts";
import type { GenerateOutput, StepScores } from "../instructblip/generation/output.ts";
import type { RankedAnswers, RankOptions } from "../instructblip/generation/ranking.ts";
import type { Streamer } from "../instructblip/generation/streamer.ts";
import type { AttributeOptions, Attribution } from "../instructblip/instruments/attribute/attribute.ts";
import type { LogitLens, LogitLensOptions } from "../instructblip/instruments/lens.ts";
import type { AblateOptions, Ablation } from "../instructblip/instruments/sweep/ablate.ts";
import type { Patching } from "../instructblip/instruments/sweep/patch.ts";
import type { SweepOptions } from "../instructblip/instruments/sweep/sweep.ts";
import type { InterventionData } from "../instructblip/interventions/intervention.ts";
import type { EmbeddedImages, EmbeddedTexts } from "../instructblip/model/blip_2_retrieval.ts";
import type { Ids, TextStates } from "../instructblip/model/language_model.ts";
import type { QFormerOutput } from "../instructblip/model/qformer.ts";
import type {
  ImageFeatures,
  VisionLanguageBaseOutput,
  VisionLanguageOutput,
} from "../instructblip/model/vision_language.ts";
import type { VisionOutput } from "../instructblip/model/vision_model.ts";
import type { AnyProcessor } from "../instructblip/pretrained/auto_processor.ts";
import type { Blip2LanguageInputs } from "../instructblip/pretrained/base/blip_2_model.ts";
import type { Blip2QFormerModelInputs } from "../instructblip/pretrained/base/blip_2_qformer.ts";
import type { BaseForwardInputs } from "../instructblip/pretrained/base/instructblip_models.ts";
import type {
  Blip2ForImageTextRetrieval,
  Blip2ImageTextMatchingModelOutput,
  Blip2RetrievalInputs,
  Blip2TextInputs,
  Blip2TextModelOutput,
  Blip2VisionModelOutput,
} from "../instructblip/pretrained/blip_2_retrieval.ts";
import type { ForwardInputs } from "../instructblip/pretrained/forward_options.ts";
import type { HostTensor, ModelInputs, QFormerInputs, VisionInputs } from "../instructblip/pretrained/inputs.ts";
import type { FromPretrainedOptions } from "../instructblip/pretrained/load.ts";
import type { ModelConfig, PretrainedModel } from "../instructblip/pretrained/pretrained_model.ts";
import type { SavePretrainedOptions } from "../instructblip/pretrained/save_pretrained.ts";
import type { VisionLanguageModel } from "../instructblip/pretrained/vision_language_model.ts";
import type { ProcessorInput } from "../instructblip/processing/instructblip_processor.ts";
import type { InstructBlipVideoProcessorInput } from "../instructblip/processing/instructblip_video_processor.ts";
import type { ProcessorFromPretrainedOptions } from "../instructblip/processing/processor_files.ts";
import type { ProcessorOptions } from "../instructblip/processing/processor_input.ts";
import type { Tokenizer } from "../instructblip/tokenizer/tokenizer.ts";
import type { DecodeOptions, EncodeOptions, Encoding } from "../instructblip/tokenizer/types.ts";
import type { GenerationFields } from "../instructblip/transformers/generation_config.ts";
import type {
  ImageTextToTextCall,
  ImageToTextCall,
  PipelineOptions,
  VisualQuestionAnsweringCall,
} from "../instructblip/transformers/pipeline.ts";
import type { StateOptions } from "../modules/observer.ts";
import type { ActivationDType } from "../tensor/dtype.ts";
import type { Shape } from "../tensor/shape.ts";
import type { HostArray, Tensor } from "../tensor/tensor.ts";
import type { ModelFacts, ProcessorFacts, SpecialId } from "./messages.ts";

/**
 * Where a page has a checkpoint: a Hub id, a URL (relative to the page), one with its files, files of an `<input
 * webkitdirectory>`, or a folder that the user picked.
 */
export type RemoteFrom =
  | string
  | URL
  | {
      readonly url: string | URL;
      /** Names of the files that are there, if they are known: others are not requested. */
      readonly files?: readonly string[];
      /** Sent with each request. */
      readonly headers?: Readonly<Record<string, string>>;
    }
  | Iterable<File>
  | FileSystemDirectoryHandle;

/** Options that are functions which would have to answer, and objects of the page. */
type Unposted =
  | "tokenizer"
  | "streamer"
  | "assistant_model"
  | "interventions"
  | "logits_processor"
  | "stopping_criteria"
  | "prefix_allowed_tokens_fn";

/** Inputs and options as the model's own, but for functions that would have to answer: they cannot be posted. */
export interface RemoteGenerateOptions extends Omit<GenerateOptions, Unposted> {
  tokenizer?: RemoteTokenizer | null;
  /** The library's, whose methods are called in the page, or one of text, which the worker decodes. */
  streamer?: Streamer | TextStream | null;
  /** Of the same worker. */
  assistant_model?: RemoteModel | null;
  interventions?: readonly InterventionData[] | null;
}

/** See {@link TextIteratorStreamer} of this entry point. */
export interface TextStream extends AsyncIterable<string> {
  readonly tokenizer: RemoteTokenizer;
  readonly cancelled: boolean;
  text(piece: string): void;
  end(error?: unknown): void;
}

export type RemoteInputs = ModelInputs & Partial<QFormerInputs>;

/** A tensor of the worker's device. It lives until it is disposed, as there. */
export interface RemoteTensor<D extends ActivationDType = ActivationDType> {
  readonly dtype: D;
  readonly shape: Shape;
  /** The numbers, row by row. @throws DeviceError DISPOSED, DEVICE_LOST, WORKER_GONE */
  read(): Promise<HostArray<D>>;
  dispose(): Promise<void>;
}

/** What a model returns, with tensors of the worker. */
export type Remotely<T> =
  T extends Tensor<infer D> ? RemoteTensor<D> : T extends object ? { readonly [K in keyof T]: Remotely<T[K]> } : T;

/** Options of a pass besides the model's own. */
interface PassOptions {
  signal?: AbortSignal | null;
}

/** What a pass of a model takes and returns: in one object, or inputs and options in two. */
type Pass<I, R> = (inputs: I & PassOptions, options?: Partial<I> & PassOptions) => Promise<Remotely<R>>;

/** What all models of a worker have. */
export interface RemotePretrained extends ModelFacts {
  /**
   * Saves config.json and the weights as transformers does.
   *
   * @param to a folder that the user picked, or one of OPFS
   * @throws as PretrainedModel.save_pretrained
   */
  save_pretrained(to: FileSystemDirectoryHandle, options?: SavePretrainedOptions): Promise<void>;
  /** Frees what it holds in the worker. Later calls are refused. */
  dispose(): Promise<void>;
}

type RemoteForwardInputs = Omit<ForwardInputs, "interventions"> & {
  interventions?: readonly InterventionData[] | null;
};

/** A model of the worker that answers. Its methods do what those of the same names do there. */
export interface RemoteModel extends RemotePretrained {
  /** Defaults of generate(), sent with each call: fields can be set. */
  generation_config: GenerationFields;
  /** @throws as VisionLanguageModel.generate; InputError WORKER_CLONE for what cannot be posted; DeviceError WORKER_GONE */
  generate(inputs: RemoteInputs & RemoteGenerateOptions & { return_dict_in_generate: true }): Promise<GenerateOutput>;
  generate(
    inputs: RemoteInputs & RemoteGenerateOptions,
    options: RemoteGenerateOptions & { return_dict_in_generate: true },
  ): Promise<GenerateOutput>;
  generate(
    inputs: RemoteInputs & RemoteGenerateOptions & { return_dict_in_generate?: false | null },
    options?: RemoteGenerateOptions & { return_dict_in_generate?: false | null },
  ): Promise<number[][]>;
  rank_answers(inputs: RemoteInputs & RankOptions, options?: Partial<RankOptions>): Promise<RankedAnswers[]>;
  /** One pass; tensors stay in the worker. @throws as VisionLanguageModel.forward */
  readonly forward: Pass<RemoteInputs & RemoteForwardInputs, VisionLanguageOutput>;
  readonly get_qformer_features: Pass<RemoteInputs & StateOptions, QFormerOutput>;
  compute_transition_scores(
    sequences: Ids,
    scores: readonly StepScores[],
    beam_indices?: Ids | null,
    normalize_logits?: boolean,
  ): Promise<number[][]>;
  clear_image_cache(): Promise<void>;
}

/** InstructBLIP or BLIP-2. */
export interface RemoteImageModel extends RemoteModel {
  readonly get_image_features: Pass<RemoteInputs & StateOptions, ImageFeatures>;
}

/** InstructBLIP for videos. */
export interface RemoteVideoModel extends RemoteModel {
  readonly get_video_features: Pass<RemoteInputs & StateOptions, ImageFeatures>;
}

/** Blip2ForImageTextRetrieval in the worker. */
export interface RemoteRetrievalModel extends RemotePretrained {
  readonly forward: Pass<Blip2RetrievalInputs & StateOptions, Blip2ImageTextMatchingModelOutput>;
  readonly get_image_features: Pass<VisionInputs & StateOptions, EmbeddedImages>;
  readonly get_text_features: Pass<Blip2TextInputs & StateOptions, EmbeddedTexts>;
}

/** Blip2VisionModelWithProjection in the worker. */
export interface RemoteVisionModel extends RemotePretrained {
  readonly forward: Pass<VisionInputs & StateOptions, Blip2VisionModelOutput>;
}

/** Blip2TextModelWithProjection in the worker. */
export interface RemoteTextModel extends RemotePretrained {
  readonly forward: Pass<Blip2TextInputs & { position_ids?: Ids } & StateOptions, Blip2TextModelOutput>;
}

/** InstructBlipModel or InstructBlipVideoModel in the worker. */
export interface RemoteBaseModel extends RemotePretrained {
  readonly forward: Pass<RemoteInputs & BaseForwardInputs, VisionLanguageBaseOutput>;
}

/** Blip2Model in the worker. */
export interface RemoteBlip2Model extends RemotePretrained {
  readonly forward: Pass<RemoteInputs & RemoteForwardInputs, VisionLanguageOutput>;
  readonly get_image_features: Pass<VisionInputs & StateOptions, VisionOutput>;
  readonly get_qformer_features: Pass<VisionInputs & StateOptions, Tensor>;
  readonly get_text_features: Pass<Blip2LanguageInputs & StateOptions, TextStates>;
}

/** Blip2QFormerModel in the worker, whose inputs may be tensors of it. */
export interface RemoteQFormerModel extends RemotePretrained {
  readonly forward: Pass<RemoteQFormerInputs & StateOptions, QFormerOutput>;
}

type RemoteQFormerInputs = {
  [K in keyof Blip2QFormerModelInputs]: Tensor extends Blip2QFormerModelInputs[K]
    ? HostTensor | RemoteTensor<"f32">
    : Blip2QFormerModelInputs[K];
};

/** What AutoModel loads. */
export type RemoteAnyModel =
  | RemoteBaseModel
  | RemoteBlip2Model
  | RemoteQFormerModel
  | RemoteRetrievalModel
  | RemoteTextModel
  | RemoteVisionModel;

/** Loads models into the worker. */
export interface RemoteModelClass<M> {
  /** @throws as the library's; InputError UNSUPPORTED_OPTION for `device`; DeviceError WORKER_GONE */
  from_pretrained(from: RemoteFrom, options?: RemoteModelOptions): Promise<M>;
}

/** A tokenizer of the worker, which works as the library's, by promises. */
export interface RemoteTokenizer extends Readonly<Partial<Record<SpecialId, number>>> {
  readonly processor: RemoteProcessor;
  encode(text: string, options?: EncodeOptions): Promise<number[]>;
  encode_batch(texts: readonly string[], options?: EncodeOptions): Promise<Encoding>;
  decode(ids: readonly number[], options?: DecodeOptions): Promise<string>;
  batch_decode(rows: readonly (readonly number[])[], options?: DecodeOptions): Promise<string[]>;
  convert_tokens_to_ids(token: string): Promise<number | undefined>;
  convert_ids_to_tokens(id: number): Promise<string | undefined>;
}

/** A processor of the worker: `await processor({ images, text })`. */
export interface RemoteProcessor extends Omit<ProcessorFacts, "special_ids"> {
  (
    input: (ProcessorInput | InstructBlipVideoProcessorInput) & ProcessorOptions,
    options?: ProcessorOptions,
  ): Promise<RemoteInputs>;
  readonly tokenizer: RemoteTokenizer;
  batch_decode(rows: readonly (readonly number[])[], options?: DecodeOptions): Promise<string[]>;
  decode(ids: readonly number[], options?: DecodeOptions): Promise<string>;
  post_process_image_text_to_text(rows: readonly (readonly number[])[], options?: DecodeOptions): Promise<string[]>;
  /** @param to a folder that the user picked, or one of OPFS */
  save_pretrained(to: FileSystemDirectoryHandle): Promise<void>;
  dispose(): Promise<void>;
}

export interface RemoteModelOptions extends Omit<FromPretrainedOptions, "device" | "base_model" | "adapter"> {
  /** As the library's; places as RemoteFrom. An array of files alone is one folder. */
  base_model?: RemoteFrom | undefined;
  adapter?: RemoteFrom | readonly RemoteFrom[] | undefined;
}
export type RemoteProcessorOptions = ProcessorFromPretrainedOptions;

export interface RemotePipelineOptions
  extends RemoteModelOptions,
    Pick<PipelineOptions, "generation_config" | "backend"> {
  /** A checkpoint, or a model of the worker, with its `processor`. */
  model: RemoteFrom | RemoteModel;
  processor?: RemoteProcessor | null;
}

/** What pipelines of a worker have besides their call. */
interface RemotePipeline<Task extends string> {
  readonly task: Task;
  readonly model: RemoteModel;
  /** Sent with each call: fields can be set. */
  generation_config: GenerationFields;
  /** Frees the model, if the pipeline loaded it. */
  dispose(): Promise<void>;
}

export interface RemoteImageTextToText extends ImageTextToTextCall, RemotePipeline<"image-text-to-text"> {}
export interface RemoteVisualQuestionAnswering
  extends VisualQuestionAnsweringCall,
    RemotePipeline<"visual-question-answering"> {}
export interface RemoteImageToText extends ImageToTextCall, RemotePipeline<"image-to-text"> {}

/** The library's functions that take a model or a tokenizer. */
export interface RemoteFunctions {
  attribute(
    model: RemoteModel,
    inputs: RemoteInputs,
    options?: Omit<AttributeOptions, "generation"> & RemoteGeneration,
  ): Promise<Attribution>;
  logitLens(
    model: RemoteModel,
    inputs: RemoteInputs,
    options?: Omit<LogitLensOptions, "generation" | "interventions"> &
      RemoteGeneration & { interventions?: readonly InterventionData[] | null },
  ): Promise<LogitLens>;
  ablate(
    model: RemoteModel,
    inputs: RemoteInputs,
    options?: Omit<AblateOptions<RemoteInputs>, "generation"> & RemoteGeneration,
  ): Promise<Ablation>;
  patchActivations(
    model: RemoteModel,
    clean: RemoteInputs,
    corrupted: RemoteInputs,
    options?: Omit<SweepOptions, "generation"> & RemoteGeneration,
  ): Promise<Patching>;
  candidateIds(tokenizer: RemoteTokenizer, texts: readonly string[], eos?: boolean): Promise<number[][]>;
}

interface RemoteGeneration {
  /** Options of generate(), if no answer is given. */
  readonly generation?: Omit<GenerationFields, "assistant_model"> | undefined;
}

/** What a handler of the worker is given for what the page has asked with. */
export type Local<T> = T extends RemoteModel
  ? VisionLanguageModel
  : T extends RemoteRetrievalModel
    ? Blip2ForImageTextRetrieval
    : T extends RemotePretrained
      ? PretrainedModel<ModelConfig>
      : T extends RemoteProcessor
        ? AnyProcessor
        : T extends RemoteTokenizer
          ? Tokenizer
          : T extends RemoteTensor<infer D>
            ? Tensor<D>
            : T extends object
              ? { readonly [K in keyof T]: T[K] extends Held ? Local<T[K]> : T[K] }
              : T;

type Held = RemotePretrained | RemoteProcessor | RemoteTokenizer | RemoteTensor;
