/**
 * InstructBLIP-Video's processor: the frames of a video as one batch of pictures, and a placeholder for every query of every
 * frame. Hugging Face counts four frames whatever it is given; here the frames are counted, which is the same at four. No
 * video file is decoded and no frame is chosen: the caller has the frames.
 *
 * Source: transformers 5.18, models/instructblipvideo/processing_instructblipvideo.py and video_processing_instructblipvideo.py.
 * There the pixels are torchvision's; here they are PIL's, as in the other processors, unless `backend` says otherwise.
 */
import { InputError } from "../../tensor/errors.ts";
import { shown } from "../../tensor/shown.ts";
import type { PretrainedFrom } from "../pretrained/from_pretrained.ts";
import { Tokenizer } from "../tokenizer/tokenizer.ts";
import type { PixelTensor } from "./image.ts";
import type { BlipImageProcessor } from "./image_processor.ts";
import { type BatchFeature, baseOf, type ProcessorBase } from "./processor.ts";
import {
  openProcessor,
  type ProcessorFromPretrainedOptions,
  readQueryCount,
  readVideoProcessor,
  requireQueryCount,
  saveProcessor,
} from "./processor_files.ts";
import {
  encodePrompts,
  type ImageInput,
  type ProcessorOptions,
  pixelsOf,
  placeholderOf,
  refusePlaceholder,
  refuseRagged,
  requestOf,
} from "./processor_input.ts";

/** A video: its frames in order, or a tensor of them, `[F, H, W, 3]` or `[F, 3, H, W]`. */
export type VideoInput = readonly ImageInput[] | PixelTensor;

export interface InstructBlipVideoProcessorInput extends ProcessorOptions {
  /** One video, or one for each prompt; a single picture is a video of one frame. Also a tensor `[B, F, …]` of videos. */
  images?: ImageInput | VideoInput | readonly VideoInput[];
}

/** f32[B, F, 3, H, W] */
export interface VideoPixelValues {
  data: Float32Array;
  shape: [number, number, number, number, number];
}

/** In Hugging Face's order; text or pixels are absent where none were given. Rows of one kind have one length. */
export interface VideoBatchFeature extends Omit<BatchFeature, "pixel_values"> {
  pixel_values: VideoPixelValues;
}

/** A processor is called: `await processor({ images: frames, text: "What happens?" })`. */
export interface InstructBlipVideoProcessor extends ProcessorBase {
  (
    input: InstructBlipVideoProcessorInput & { images: object | string; text: string | readonly string[] },
    options?: ProcessorOptions,
    ...more: never[]
  ): Promise<VideoBatchFeature>;
  (
    input: InstructBlipVideoProcessorInput,
    options?: InstructBlipVideoProcessorInput,
    ...more: never[]
  ): Promise<Partial<VideoBatchFeature>>;
  readonly processor_class: "InstructBlipVideoProcessor";
  readonly model_input_names: readonly string[];
  readonly video_processor: BlipImageProcessor;
  readonly qformer_tokenizer: Tokenizer;
  /** The placeholder's text, `<video>`. */
  readonly video_token: string;
}

export const InstructBlipVideoProcessor = {
  /**
   * Reads the processor's files of a checkpoint folder: processor_config.json, video_preprocessor_config.json or
   * preprocessor_config.json, tokenizer.json and qformer_tokenizer/.
   *
   * @param from a path, in Node also a Hub id (`owner/name[@revision]`), a URL, or a Folder
   * @throws ConfigError, WeightError; InputError UNKNOWN_OPTION, UNSUPPORTED_OPTION; the signal's reason
   */
  async from_pretrained(
    from: PretrainedFrom,
    options: ProcessorFromPretrainedOptions = {},
  ): Promise<InstructBlipVideoProcessor> {
    const { folder, backend } = await openProcessor(from, options);
    const num_query_tokens = await readQueryCount(folder);
    return makeVideoProcessor(
      await readVideoProcessor(folder, backend),
      await Tokenizer.from_pretrained(folder),
      await Tokenizer.from_pretrained(folder, "qformer_tokenizer"),
      num_query_tokens,
    );
  },
};

/** Puts a processor together from its parts. */
export function makeVideoProcessor(
  video_processor: BlipImageProcessor,
  tokenizer: Tokenizer,
  qformer_tokenizer: Tokenizer,
  num_query_tokens: number | null,
): InstructBlipVideoProcessor {
  const processor_class = "InstructBlipVideoProcessor";
  const video_token = placeholderOf(tokenizer, "video");

  const process = async (...given: unknown[]): Promise<Partial<VideoBatchFeature>> => {
    const request = requestOf(given, videosOf);
    const { pictures: videos, prompts } = request;
    const frames = videos?.[0].length ?? 0;
    if (videos?.some((video) => video.length !== frames)) {
      const counts = videos.map((video) => video.length).join(", ");
      throw new InputError("BAD_PIXELS", `videos of one batch must have as many frames each, got ${counts}`);
    }
    const feature: Partial<VideoBatchFeature> = {};
    if (prompts) {
      if (!request.allow_image_token) refusePlaceholder(prompts, video_token);
      // Here tokenizer_config.json's padding_side does not reach the Q-Former, unlike in InstructBLIP's processor.
      const qformer = qformer_tokenizer.encode_batch(prompts, request.text);
      // A max_length counts the queries of one frame only, as in Hugging Face.
      const queries = num_query_tokens ?? 0;
      const count = videos ? frames * requireQueryCount(num_query_tokens) : 0;
      const prompt = encodePrompts(tokenizer, prompts, request.text, { queries, token: video_token, count });
      refuseRagged(qformer.input_ids, prompt.input_ids);
      feature.qformer_input_ids = qformer.input_ids;
      feature.qformer_attention_mask = qformer.attention_mask;
      feature.input_ids = prompt.input_ids;
      feature.attention_mask = prompt.attention_mask;
    }
    if (videos) {
      const { data, shape } = await pixelsOf(video_processor, videos.flat(), request.image, request.exif_transpose);
      feature.pixel_values = { data, shape: [videos.length, frames, 3, shape[2], shape[3]] };
    }
    return feature;
  };

  return Object.assign(
    process as unknown as InstructBlipVideoProcessor,
    {
      processor_class,
      model_input_names: [
        "input_ids",
        "attention_mask",
        "pixel_values",
        "qformer_input_ids",
        "qformer_attention_mask",
      ] as const,
      video_processor,
      qformer_tokenizer,
      video_token,
      ...baseOf(tokenizer, num_query_tokens, (to) =>
        saveProcessor(to, {
          processor_class,
          pixels: {
            video_processor: {
              ...video_processor.config,
              do_sample_frames: false,
              return_metadata: false,
              video_processor_type: "InstructBlipVideoVideoProcessor",
            },
          },
          num_query_tokens,
          tokenizer,
          qformer_tokenizer,
        }),
      ),
    } as const,
  );
}

/** The frames of every video in whatever form `images` has. */
function videosOf(images: unknown): readonly (readonly ImageInput[])[] {
  const isVideo = (item: unknown) => Array.isArray(item) || rankOf(item) === 4;
  if (Array.isArray(images)) {
    if (!images.some(isVideo)) return images.length === 0 ? [] : [Array.from(images) as ImageInput[]]; // no holes
    if (!images.every(isVideo)) {
      throw new InputError("BAD_PIXELS", "images must be the frames of one video, or a list of videos, not a mixture");
    }
    return images.map((video: unknown, i) => framesOf(video, `video ${i}`));
  }
  if (rankOf(images) === 5) return slices(images as PixelTensor).map((video, i) => framesOf(video, `video ${i}`));
  return [rankOf(images) === 4 ? framesOf(images, "video 0") : [images as ImageInput]];
}

function framesOf(video: unknown, name: string): readonly ImageInput[] {
  const frames = Array.isArray(video) ? (Array.from(video) as ImageInput[]) : slices(video as PixelTensor);
  if (frames.length === 0) throw new InputError("BAD_PIXELS", `${name} has no frames`);
  return frames;
}

/** Dimensions of a tensor; 0 for what is none. */
function rankOf(item: unknown): number {
  const shape = (item as PixelTensor | null | undefined)?.shape;
  return Array.isArray(shape) ? shape.length : 0;
}

/** The parts of a tensor along its first dimension. */
function slices({ data, shape }: PixelTensor): PixelTensor[] {
  const [count, ...rest] = shape; // rankOf has found it to be a list
  const size = rest.reduce((product, n) => product * n, 1);
  const isData = data instanceof Uint8Array || data instanceof Uint8ClampedArray || data instanceof Float32Array;
  if (!isData || !shape.every((n) => Number.isInteger(n) && n >= 0) || data.length !== count * size || size === 0) {
    const got = isData ? `${data.length} numbers` : shown(data);
    throw new InputError("BAD_PIXELS", `a video of shape ${shown(shape)} cannot be made of ${got}`);
  }
  return Array.from({ length: count }, (_, i) => ({ data: data.subarray(i * size, (i + 1) * size), shape: rest }));
}
