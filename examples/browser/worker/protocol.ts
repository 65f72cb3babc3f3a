/**
 * What the page asks of its worker besides the library's own calls (src/worker.ts), and what the worker answers: all of it can be
 * posted. No code.
 */
import type { InterventionData, SweepUnit } from "../../../src/index.ts";
import type { RemoteModel, RemoteProcessor } from "../../../src/worker.ts";

/** A model that is loaded, in the worker, with its processor. */
export interface Loaded {
  readonly model: RemoteModel;
  readonly processor: RemoteProcessor;
}

export interface Question {
  readonly image: Blob;
  readonly text: string;
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

/** Of each call what it is given, what it tells on the way, and what it returns. */
export type PageCalls = {
  /** Answers a question, and tells its tokens on the way. */
  look: {
    asked: Loaded & Question & { readonly interventions: readonly InterventionData[] };
    news: { readonly id: number; readonly text: string };
    result: Look;
  };
  /** The queries and heads that can be taken out. */
  parts: { asked: Loaded & Question; news: never; result: readonly SweepUnit[] };
  /** Takes each part out by itself, and tells how much less probable that makes the answer, in nats. */
  effects: {
    asked: Loaded & Question & { readonly answer: readonly number[] };
    news: { readonly part: number; readonly effect: number };
    result: null;
  };
  /** Occludes the image and the question part by part, and tells how many parts are done. */
  occlude: {
    asked: Loaded & Question & { readonly answer: readonly number[] };
    news: { readonly done: number; readonly total: number };
    result: Occluded;
  };
  /** Checks the adapter, on a device of its own. */
  examine: {
    asked: {
      readonly checkpoint: { readonly url: string; readonly files: readonly string[] };
      readonly exam: Exam;
      readonly quick: boolean;
    };
    news: DoctorNews;
    result: string;
  };
};
