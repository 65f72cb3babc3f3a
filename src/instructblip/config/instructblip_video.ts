/**
 * The config of InstructBLIP for videos, with Hugging Face's fields and defaults: InstructBLIP's, but for what is here.
 *
 * Source: transformers 5.18, models/instructblipvideo/configuration_instructblipvideo.py.
 */
import { compositeOf, InstructBlipQFormerConfig } from "./config.ts";
import { tokenId } from "./fields.ts";

/** HF reads either spelling. */
const VIDEO_TOKEN = { video_token_index: tokenId(null), video_token_id: tokenId(null) };

/** InstructBLIP for videos: the same parts, and a placeholder of another name. */
export class InstructBlipVideoConfig extends compositeOf(VIDEO_TOKEN, InstructBlipQFormerConfig) {
  static readonly model_type = "instructblipvideo";
  readonly modality = "video";
  readonly architectures = ["InstructBlipVideoForConditionalGeneration"];

  get image_token(): number | null {
    return this.video_token_index ?? this.video_token_id;
  }
}
