/**
 * InstructBLIP for videos: the same model, with every frame as an image with the same instruction. The frames' features are
 * concatenated in the prompt, [<video> x F·Q][instruction].
 *
 * B videos, F frames (any number; Hugging Face's processor gives 4), Q queries a frame, D hidden size.
 * Source: transformers 5.18, modeling_instructblipvideo.py; LAVIS, blip2_vicuna_instruct.py.
 */
import { sizes } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { InstructBlip, type InstructedImages } from "./instructblip.ts";
import type { EmbeddingLanguageModel, LanguageModel } from "./language_model.ts";
import type { ImageFeatures, ImageTensors } from "./vision_language.ts";

/** B·F images, the frames of each video contiguous, each with the instruction: the batch of InstructedImages is B·F. */
export interface InstructedFrames extends InstructedImages {
  /** F */
  readonly frames?: number | undefined;
}

export class InstructBlipVideo<L extends EmbeddingLanguageModel = LanguageModel> extends InstructBlip<L> {
  /** image_features f32[B, F·Q, D]; the others f32[B·F, …] */
  override imageFeatures({ frames = 1, ...inputs }: InstructedFrames): ImageFeatures {
    const features = super.imageFeatures(inputs);
    return { ...features, image_features: joinFrames(features.image_features, frames) };
  }

  override featuresOfStates(image: Tensor, { frames = 1, ...instruction }: Omit<InstructedFrames, keyof ImageTensors>) {
    return joinFrames(super.featuresOfStates(image, instruction), frames);
  }
}

/** f32[B·F, Q, D] -> f32[B, F·Q, D] */
function joinFrames(image_features: Tensor, F: number): Tensor {
  const [images, Q, D] = sizes(image_features.shape, 3);
  return image_features.reshape([images / F, F * Q, D]);
}
