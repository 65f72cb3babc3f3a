/**
 * InstructBLIP-Video's processor: the frames of a video as one batch of images, and a placeholder for every query of every
 * frame. Hugging Face always counts four frames; here the given frames are counted, which is the same for four. Video files
 * are not decoded and frames not sampled: the caller passes frames.
 *
 * Source: transformers 5.18, models/instructblipvideo/processing_instructblipvideo.py and video_processing_instructblipvideo.py.
 * There the pixels are torchvision's; here they are PIL's, as in the other processors, unless `backend` says otherwise.
 */
import { InputError } from "../../tensor/errors.ts";
import { shown } from "../../tensor/shown.ts";
import { INSTRUCTBLIP_VIDEO } from "../config/families.ts";
import type { JsonRecord } from "../config/json_file.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import type { PixelTensor } from "./image.ts";
import type { BlipImageProcessor } from "./image_processor.ts";
import type { BatchFeature, InstructBlipProcessorParts } from "./instructblip_processor.ts";
import { ProcessorBase, type ProcessorTraits } from "./processor.ts";
import type { ImageInput, ProcessorOptions } from "./processor_input.ts";

/** A video: its frames in order, or a tensor of them, `[F, H, W, 3]` or `[F, 3, H, W]`. */
export type VideoInput = readonly ImageInput[] | PixelTensor;

export interface InstructBlipVideoProcessorInput extends ProcessorOptions {
  /** One video, or one for each prompt; a single image is a video of one frame. Also a tensor `[B, F, …]` of videos. */
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

/** The parts of an InstructBlipVideoProcessor. */
export interface InstructBlipVideoProcessorParts extends Omit<InstructBlipProcessorParts, "image_processor"> {
  /** Converts frames to pixels. */
  readonly video_processor: BlipImageProcessor;
}

/** A processor is called: `await processor({ images: frames, text: "What happens?" })`. */
export class InstructBlipVideoProcessor extends ProcessorBase<
  InstructBlipVideoProcessorInput,
  VideoBatchFeature,
  InstructBlipVideoProcessorParts
> {
  static readonly family = INSTRUCTBLIP_VIDEO;
  static readonly traits: ProcessorTraits = {
    has_qformer_tokenizer: true,
    has_tokenizer_defaults: false,
    requires_query_count: true,
  };
  readonly processor_class = "InstructBlipVideoProcessor";

  get video_processor(): BlipImageProcessor {
    return this.pixels;
  }

  get qformer_tokenizer(): Tokenizer {
    return this.qformer!;
  }

  /** The placeholder's text, `<video>`. */
  get video_token(): string {
    return this.placeholder;
  }

  protected override rowsOf(images: unknown): readonly (readonly ImageInput[])[] {
    const videos = videosOf(images);
    const counts = videos.map((video) => video.length);
    if (new Set(counts).size > 1) {
      const got = counts.join(", ");
      throw new InputError("BAD_PIXELS", `videos of one batch must have as many frames each, got ${got}`);
    }
    return videos;
  }

  protected override savedPixels(): JsonRecord {
    return {
      ...this.pixels.config,
      do_sample_frames: false,
      return_metadata: false,
      video_processor_type: "InstructBlipVideoVideoProcessor",
    };
  }
}

/** The frames of every video, for any form of `images`. */
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

/** Rank of a tensor; 0 for other values. */
function rankOf(item: unknown): number {
  const shape = (item as PixelTensor | null | undefined)?.shape;
  return Array.isArray(shape) ? shape.length : 0;
}

/** The parts of a tensor along its first dimension. */
function slices({ data, shape }: PixelTensor): PixelTensor[] {
  const [count, rest] = [shape[0]!, shape.slice(1)]; // rankOf has checked that it is a list
  const size = rest.reduce((product, n) => product * n, 1);
  const isData = data instanceof Uint8Array || data instanceof Uint8ClampedArray || data instanceof Float32Array;
  if (!isData || !shape.every((n) => Number.isInteger(n) && n >= 0) || data.length !== count * size || size === 0) {
    const got = isData ? `${data.length} numbers` : shown(data);
    throw new InputError("BAD_PIXELS", `a video of shape ${shown(shape)} cannot be made of ${got}`);
  }
  return Array.from({ length: count }, (_, i) => ({ data: data.subarray(i * size, (i + 1) * size), shape: rest }));
}
