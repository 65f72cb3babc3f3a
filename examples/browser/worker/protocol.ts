/** What the page asks of its worker, and what the worker answers: all of it can be posted. No code. */
import type { InterventionData, SweepUnit } from "../../../src/index.ts";

/** Where the files of a checkpoint are. */
export type CheckpointPlace =
  /** On the server; the files that are there, so that optional ones are not asked for in vain. */
  | { readonly url: string; readonly files: readonly string[] }
  /** On this computer; their paths in the folder. */
  | { readonly chosen: readonly { readonly path: string; readonly file: File }[] };

export interface AdapterFacts {
  readonly description: string;
  readonly isSoftware: boolean;
}

export interface LoadProgress {
  readonly text: string;
  /** Of the weights that are loaded; undefined while that is not known. */
  readonly share?: number | undefined;
}

export interface Question {
  readonly image: Blob;
  readonly text: string;
}

export interface Timing {
  readonly tokens: number;
  readonly firstTokenMs: number;
  readonly decodeMs: number;
}

/** One part of the checks of an adapter. */
export type DoctorNews = { readonly progress: string } | { readonly report: string };

/** The questions of the doctor, with PyTorch's answers. */
export type Exam = readonly {
  readonly name: string;
  readonly image: Blob;
  readonly questions: readonly string[];
  readonly tokens: readonly (readonly number[])[];
}[];

/** A token that a model could say, and how probable it is. */
export interface SeenWord {
  readonly id: number;
  readonly text: string;
  readonly logprob: number;
}

/** A token of the answer. */
export interface SeenToken extends SeenWord {
  /** It ends the answer, and is no text. */
  readonly isEnd: boolean;
  /** The most probable tokens in its place, best first. */
  readonly top: readonly SeenWord[];
}

/** Attention probabilities f32[layers, heads, rows, columns]. */
export interface Weights {
  readonly layers: number;
  readonly heads: number;
  readonly rows: number;
  readonly columns: number;
  readonly data: Float32Array;
}

/** What is seen inside while a question is answered. */
export interface Look {
  readonly tokens: readonly SeenToken[];
  /** Patches of the image. */
  readonly grid: { readonly rows: number; readonly columns: number };
  /** Where each query looked: rows are queries, columns patches. What is missing to 1 is the class token's. */
  readonly maps: Weights;
  /** Numbers of the Q-Former's layers that look at the image. */
  readonly map_layers: readonly number[];
  /** What each token of the answer read of the queries when it was chosen: rows are tokens, columns queries. */
  readonly reads: Weights;
  /** Of each query, after each layer of the language model (0: before all), its words; none of an encoder-decoder. */
  readonly words: readonly (readonly (readonly SeenWord[])[])[];
}

/** What the answer's tokens rest on: how much less probable each is where windows of patches are occluded, or a word left out. */
export interface Occluded {
  /** Side of a window, in patches. */
  readonly window: number;
  /** Of each token f32[patches], in nats: the mean drop over the windows that cover a patch. */
  readonly drops: readonly Float32Array[];
  /** The words of the question, with the drop of each token where the word is left out. */
  readonly words: readonly { readonly text: string; readonly drops: readonly number[] }[];
}

/** Of each call what it is given, what it says on the way, and what it returns. */
export interface Calls {
  /** Opens the GPU. */
  open: { asked: null; news: never; result: AdapterFacts };
  /** Loads a checkpoint in place of the one before. */
  load: {
    asked: { readonly place: CheckpointPlace; readonly dtype: string; readonly fix_vicuna_token_ids: boolean };
    news: LoadProgress;
    result: null;
  };
  /** Answers a question; its text comes in pieces. */
  answer: {
    asked: Question & { readonly interventions: readonly InterventionData[] };
    news: string;
    result: Timing;
  };
  /** Answers a question, and tells its tokens on the way. */
  look: {
    asked: Question & { readonly interventions: readonly InterventionData[] };
    news: { readonly id: number; readonly text: string };
    result: Look;
  };
  /** The queries and heads that can be taken out. */
  parts: { asked: Question; news: never; result: readonly SweepUnit[] };
  /** Takes each part out by itself, and tells how much less probable that makes the answer, in nats. */
  effects: {
    asked: Question & { readonly answer: readonly number[] };
    news: { readonly part: number; readonly effect: number };
    result: null;
  };
  /** Occludes the image and the question part by part, and tells how many parts are done. */
  occlude: {
    asked: Question & { readonly answer: readonly number[] };
    news: { readonly done: number; readonly total: number };
    result: Occluded;
  };
  /** Checks the adapter, on a device of its own. */
  examine: {
    asked: { readonly checkpoint: CheckpointPlace; readonly exam: Exam; readonly quick: boolean };
    news: DoctorNews;
    result: string;
  };
}

export type CallName = keyof Calls;

/** An error, posted. */
export interface Failure {
  readonly code: string;
  readonly message: string;
  readonly hint: string;
  readonly aborted: boolean;
}

export type ToWorker =
  | { readonly id: number; readonly name: CallName; readonly asked: Calls[CallName]["asked"] }
  | { readonly id: number; readonly abort: true };

export type FromWorker =
  | { readonly id: number; readonly news: Calls[CallName]["news"] }
  | { readonly id: number; readonly result: Calls[CallName]["result"] }
  | { readonly id: number; readonly failure: Failure };
