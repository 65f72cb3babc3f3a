/** What goes between a page and its worker, all of which can be posted, and what handlers are given. No code. */
import type { StorageDType } from "../modules/storage_dtype.ts";
import type { ActivationDType } from "../tensor/dtype.ts";
import type { Failure } from "../tensor/failure.ts";
import type { Shape } from "../tensor/shape.ts";

/** Of each call what it is given, what it tells on the way, and what it returns. */
export type Calls = Readonly<
  Record<string, { readonly asked: unknown; readonly news: unknown; readonly result: unknown }>
>;

/** What a handler may use while it works. */
export interface Context<News = unknown> {
  /** Aborted by the page. */
  readonly signal: AbortSignal;
  /** Whether the reader of the news has stopped. */
  readonly cancelled: boolean;
  /** Tells the page something before the result. */
  tell(news: News): void;
}

/** An object of the worker, in a message. */
export interface Remote {
  readonly remote: number;
  /** Not the processor itself, but its tokenizer. */
  readonly part?: "tokenizer" | undefined;
}

/** A tensor of the worker's device, in an output. */
export interface PostedTensor extends Remote {
  readonly dtype: ActivationDType;
  readonly shape: Shape;
}

export type ToWorker =
  | { readonly id: number; readonly name: string; readonly asked: unknown }
  | { readonly id: number; readonly abort: true }
  /** The reader of a stream has stopped: no error. */
  | { readonly id: number; readonly cancel: true };

export type FromWorker =
  | { readonly id: number; readonly news: unknown }
  | { readonly id: number; readonly result: unknown }
  | { readonly id: number; readonly failure: Failure }
  /** The GPU device was lost: models of this worker are gone. */
  | { readonly lost: Failure };

/** Where the files of a checkpoint are. */
export type Place =
  | string
  | FileSystemDirectoryHandle
  | {
      readonly url: string;
      readonly files?: readonly string[] | undefined;
      readonly headers?: Readonly<Record<string, string>> | undefined;
    }
  | { readonly chosen: readonly { readonly path: string; readonly file: File }[] };

/** The library's own calls. Functions of options are names: the page has them, and is told their arguments. */
export interface LibraryCalls {
  openDevice: { asked: object; news: never; result: unknown };
  load_processor: { asked: LoadAsked; news: ListenerNews; result: Remote & { readonly facts: ProcessorFacts } };
  load_model: { asked: LoadAsked & { readonly name: ModelClassName }; news: ListenerNews; result: PostedModel };
  load_pipeline: {
    asked: Omit<LoadAsked, "from"> & {
      readonly task: string;
      /** A loaded model, or where its files are. */
      readonly model: Remote | Place;
      readonly processor?: Remote | undefined;
    };
    news: ListenerNews;
    result: Remote & { readonly model: PostedModel; readonly generation_config: object };
  };
  process: { asked: { readonly processor: Remote; readonly given: readonly unknown[] }; news: never; result: object };
  /** A method of a model, of a processor's tokenizer, or the call of a pipeline. */
  run: { asked: RunAsked; news: ListenerNews; result: unknown };
  /** A function of the library with a model or tokenizer as its first argument. */
  apply: {
    asked: { readonly name: FunctionName; readonly given: readonly unknown[]; readonly listeners: readonly string[] };
    news: ListenerNews;
    result: unknown;
  };
  /** The numbers of a tensor. */
  read: { asked: { readonly tensor: Remote }; news: never; result: Float32Array | Uint32Array };
  dispose: { asked: Remote; news: never; result: null };
}

export interface LoadAsked {
  readonly from: Place;
  readonly options: Readonly<Record<string, unknown>>;
  readonly listeners: readonly string[];
}

export interface RunAsked {
  readonly on: Remote;
  readonly method: string;
  readonly given: readonly unknown[];
  /** Of the last object of options. */
  readonly listeners: readonly string[];
  /** How tokens are told on the way: as ids, or as text of this tokenizer. */
  readonly stream?: "ids" | { readonly tokenizer: Remote; readonly options: object } | undefined;
  /** The model's, which the page may have changed. */
  readonly generation_config?: object | undefined;
}

/** A call of a function of the page's: an option by its name, or a method of the streamer. */
export type ListenerNews = readonly [name: string, ...given: unknown[]];

/** The classes that load models. */
export type ModelClassName =
  | "AutoModel"
  | "AutoModelForImageTextToText"
  | "Blip2ForConditionalGeneration"
  | "Blip2ForImageTextRetrieval"
  | "Blip2Model"
  | "Blip2QFormerModel"
  | "Blip2TextModelWithProjection"
  | "Blip2VisionModelWithProjection"
  | "InstructBlipForConditionalGeneration"
  | "InstructBlipModel"
  | "InstructBlipVideoForConditionalGeneration"
  | "InstructBlipVideoModel";

/** The functions that `apply` calls. */
export type FunctionName = "ablate" | "attribute" | "candidateIds" | "logitLens" | "patchActivations";

export interface ProcessorFacts {
  readonly processor_class: string;
  readonly num_query_tokens: number | null;
  /** Names of the outputs, which are the model's inputs. */
  readonly model_input_names: readonly string[];
  /** The placeholder's text. */
  readonly image_token?: string | undefined;
  readonly video_token?: string | undefined;
  /** Of the tokenizer. */
  readonly special_ids: Readonly<Partial<Record<SpecialId, number>>>;
}

export type SpecialId = "bos_token_id" | "eos_token_id" | "pad_token_id" | "unk_token_id";

export interface ModelFacts {
  /** The class in Hugging Face. */
  readonly architecture: string;
  /** Storage dtype of matrices, as from_pretrained was given it. */
  readonly dtype: StorageDType;
  /** config.json */
  readonly config: Readonly<Record<string, unknown>>;
  readonly warnings: readonly string[];
}

export interface PostedModel extends Remote {
  readonly facts: ModelFacts;
  /** Methods that the page can call. */
  readonly methods: readonly string[];
  /** Of a model that generates. */
  readonly generation_config?: object | undefined;
}
