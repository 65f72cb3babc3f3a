/** What goes between a page and its worker, all of which can be posted, and what handlers are given. No code. */
import type { Failure } from "../tensor/failure.ts";

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
  load_model: { asked: LoadAsked; news: ListenerNews; result: Remote & { readonly facts: ModelFacts } };
  process: { asked: { readonly processor: Remote; readonly given: readonly unknown[] }; news: never; result: object };
  decode: { asked: { readonly processor: Remote; readonly given: readonly unknown[] }; news: never; result: string[] };
  generate: { asked: GenerateAsked; news: ListenerNews; result: unknown };
  rank_answers: { asked: GenerateAsked; news: ListenerNews; result: unknown };
  dispose: { asked: Remote; news: never; result: null };
}

export interface LoadAsked {
  readonly from: Place;
  readonly options: Readonly<Record<string, unknown>>;
  readonly listeners: readonly string[];
}

export interface GenerateAsked {
  readonly model: Remote;
  /** Inputs and options in one object. */
  readonly given: Readonly<Record<string, unknown>>;
  readonly listeners: readonly string[];
  /** How tokens are told on the way: as ids, or as text of this processor's tokenizer. */
  readonly stream?: "ids" | { readonly processor: Remote; readonly options: object } | undefined;
}

/** A call of a function of the page's: an option by its name, or a method of the streamer. */
export type ListenerNews = readonly [name: string, ...given: unknown[]];

export interface ProcessorFacts {
  readonly processor_class: string;
  readonly num_query_tokens: number | null;
}

export interface ModelFacts {
  /** config.json */
  readonly config: Readonly<Record<string, unknown>>;
  readonly warnings: readonly string[];
}
