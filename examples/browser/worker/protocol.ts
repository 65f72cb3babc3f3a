/** What the page asks of its worker, and what the worker answers: all of it can be posted. No code. */
import type { InterventionData } from "../../../src/index.ts";

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
