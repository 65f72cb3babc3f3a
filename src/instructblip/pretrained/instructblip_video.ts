/** InstructBLIP for videos with Hugging Face's methods; model/instructblip_video.ts is the model. */
import type { StateOptions } from "../../modules/observer.ts";
import type { Weights } from "../../modules/weights.ts";
import { sizes } from "../../tensor/shape.ts";
import { InstructBlipVideoConfig } from "../config/instructblip_video.ts";
import type { Instruction } from "../model/instructblip.ts";
import { InstructBlipVideo, type InstructedFrames } from "../model/instructblip_video.ts";
import type { Ids } from "../model/language_model.ts";
import type { InstructBlipQFormerModel } from "../model/qformer.ts";
import type { ImageFeatures } from "../model/vision_language.ts";
import type { ForwardOptions } from "./forward_options.ts";
import {
  blankImages,
  EXAMPLE_TEXT,
  examplePrompt,
  expectWords,
  type ModelInputs,
  type QFormerInputs,
  type VisionInputs,
} from "./inputs.ts";
import { INSTRUCTED_INPUTS, uploadInstruction } from "./instructblip.ts";
import { VisionLanguageModel } from "./vision_language_model.ts";

/** Model inputs from the processor: pixel_values f32[B, F, 3, H, W], F·Q placeholders in every row. */
export interface InstructBlipVideoInputs extends ModelInputs, QFormerInputs {
  input_ids: Ids;
}

export class InstructBlipVideoForConditionalGeneration extends VisionLanguageModel<
  InstructBlipVideoConfig,
  InstructBlipVideoInputs,
  InstructedFrames
> {
  static readonly config_class = InstructBlipVideoConfig;
  protected readonly input_names = INSTRUCTED_INPUTS;
  protected override readonly pixel_layout = ["B", "F", "3", "H", "W"];

  constructor(weights: Weights, config: InstructBlipVideoConfig) {
    super(weights, config, new InstructBlipVideo(weights, config));
  }

  override get qformer(): InstructBlipQFormerModel {
    return super.qformer as InstructBlipQFormerModel;
  }

  /** Features of videos for an instruction, f32[B, F·Q, D]; outputs of vision model and Q-Former are f32[B·F, …]. */
  async get_video_features(
    inputs: VisionInputs & QFormerInputs & StateOptions,
    options?: ForwardOptions & StateOptions,
    ...more: never[]
  ): Promise<ImageFeatures>;
  async get_video_features(...given: unknown[]): Promise<ImageFeatures> {
    return this.look("get_video_features", given, (features) => features);
  }

  protected override featuresOf({ shape }: VisionInputs["pixel_values"]): number {
    const [, F] = sizes(shape, 5);
    return F * this.config.num_query_tokens;
  }

  protected override rowsOf({ qformer_input_ids }: InstructBlipVideoInputs, B: number | undefined): number | undefined {
    return B ?? qformer_input_ids?.length;
  }

  protected override checkWords(inputs: InstructBlipVideoInputs, B: number | undefined): void {
    expectWords(inputs, this.qformer.embeddings, B);
  }

  /** Every frame has its video's instruction. */
  protected uploadWords({ pixel_values, ...inputs }: VisionInputs & QFormerInputs): Instruction & { frames: number } {
    const [, F] = sizes(pixel_values.shape, 5);
    const perFrame = (rows: Ids) => rows.flatMap((row) => new Array<readonly number[]>(F).fill(row));
    const { qformer_input_ids, qformer_attention_mask } = inputs;
    const instructed = {
      qformer_input_ids: perFrame(qformer_input_ids),
      ...(qformer_attention_mask && { qformer_attention_mask: perFrame(qformer_attention_mask) }),
    };
    return { ...uploadInstruction(this.device, instructed, this.config.num_query_tokens), frames: F };
  }

  protected exampleInputs(): InstructBlipVideoInputs {
    const { data, shape } = blankImages(this.config, 1);
    const pixel_values = { data, shape: [1, ...shape] };
    return { pixel_values, qformer_input_ids: [EXAMPLE_TEXT], input_ids: [examplePrompt(this.config)] };
  }
}
