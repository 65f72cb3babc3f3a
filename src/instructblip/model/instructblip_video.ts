/**
 * InstructBLIP for videos: the same model, shown every frame as an image with the same instruction. The frames' features
 * follow one another in the prompt, [<video> x F·Q][instruction].
 *
 * B videos, F frames (any number; Hugging Face's processor gives 4), Q queries a frame, D hidden size.
 * Source: transformers 5.18, modeling_instructblipvideo.py; LAVIS, blip2_vicuna_instruct.py.
 */
import { InstructBlip, type InstructedImages } from "./instructblip.ts";
import type { ImageFeatures } from "./vision_language.ts";

/** B·F images, a video's frames one after the other, each with the instruction: the batch of InstructedImages is B·F. */
export interface InstructedFrames extends InstructedImages {
  /** F */
  readonly frames?: number | undefined;
}

export class InstructBlipVideo extends InstructBlip {
  /** image_features f32[B, F·Q, D]; the others f32[B·F, …] */
  override imageFeatures({ frames = 1, ...inputs }: InstructedFrames): ImageFeatures {
    const features = super.imageFeatures(inputs); // [B·F, Q, D]
    const [images, Q, D] = features.image_features.shape;
    return { ...features, image_features: features.image_features.reshape([images / frames, frames * Q, D]) };
  }
}
