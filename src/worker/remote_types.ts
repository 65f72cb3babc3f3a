/** Types of a page's end. */
import type { GenerateOptions } from "../instructblip/generation/generate.ts";
import type { GenerateOutput } from "../instructblip/generation/output.ts";
import type { RankedAnswers, RankOptions } from "../instructblip/generation/ranking.ts";
import type { Streamer } from "../instructblip/generation/streamer.ts";
import type { AnyProcessor } from "../instructblip/pretrained/auto_processor.ts";
import type { ModelInputs, QFormerInputs } from "../instructblip/pretrained/inputs.ts";
import type { FromPretrainedOptions } from "../instructblip/pretrained/load.ts";
import type { VisionLanguageModel } from "../instructblip/pretrained/vision_language_model.ts";
import type { ProcessorInput } from "../instructblip/processing/instructblip_processor.ts";
import type { InstructBlipVideoProcessorInput } from "../instructblip/processing/instructblip_video_processor.ts";
import type { ProcessorFromPretrainedOptions } from "../instructblip/processing/processor_files.ts";
import type { ProcessorOptions } from "../instructblip/processing/processor_input.ts";
import type { DecodeOptions } from "../instructblip/tokenizer/types.ts";
import type { ModelFacts, ProcessorFacts } from "./messages.ts";

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

/** Inputs and options as the model's own, but for functions that would have to answer: they cannot be posted. */
export type RemoteGenerateOptions = Omit<GenerateOptions, "tokenizer" | "streamer"> & {
  tokenizer?: RemoteTokenizer | null;
  /** The library's, whose methods are called in the page, or one of text, which the worker decodes. */
  streamer?: Streamer | TextStream | null;
};

/** See {@link TextIteratorStreamer} of this entry point. */
export interface TextStream extends AsyncIterable<string> {
  readonly tokenizer: RemoteTokenizer;
  readonly cancelled: boolean;
  text(piece: string): void;
  end(error?: unknown): void;
}

export type RemoteInputs = ModelInputs & Partial<QFormerInputs>;

/** A model of the worker. Its methods do what those of the same names do there. */
export interface RemoteModel extends ModelFacts {
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
  /** Frees what it holds in the worker. Later calls are refused. */
  dispose(): Promise<void>;
}

/** Stands for the tokenizer of a processor of the worker. */
export interface RemoteTokenizer {
  readonly processor: RemoteProcessor;
}

/** A processor of the worker: `await processor({ images, text })`. */
export interface RemoteProcessor extends ProcessorFacts {
  (input: (ProcessorInput | InstructBlipVideoProcessorInput) & ProcessorOptions): Promise<RemoteInputs>;
  /** For TextIteratorStreamer, and generate()'s `tokenizer`. */
  readonly tokenizer: RemoteTokenizer;
  batch_decode(rows: readonly (readonly number[])[], options?: DecodeOptions): Promise<string[]>;
  decode(ids: readonly number[], options?: DecodeOptions): Promise<string>;
  dispose(): Promise<void>;
}

export type RemoteModelOptions = Omit<FromPretrainedOptions, "device" | "base_model" | "adapter">;
export type RemoteProcessorOptions = ProcessorFromPretrainedOptions;

/** What a handler of the worker is given for what the page has asked with. */
export type Local<T> = T extends RemoteModel
  ? VisionLanguageModel
  : T extends RemoteProcessor
    ? AnyProcessor
    : T extends object
      ? { readonly [K in keyof T]: T[K] extends RemoteModel | RemoteProcessor ? Local<T[K]> : T[K] }
      : T;
