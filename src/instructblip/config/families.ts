/**
 * The model families, one row each, with their names in files and in Hugging Face. The classes of configs, models and
 * processors refer to their row, not the row to them, so that a page that uses one of them is bundled without the others.
 *
 * Source: transformers 5.18, models/auto/{modeling,processing}_auto.py and models/{instructblip,blip_2,instructblipvideo}.
 */
export interface Family {
  /** `model_type` of config.json. */
  readonly model_type: string;
  /** The modality. Names the placeholder, `<image>`, its id, `image_token_index`, and the `image_processor`. */
  readonly modality: "image" | "video";
  readonly config_class: string;
  /** The model's class, which config.json lists as `architectures`. */
  readonly architecture: string;
  readonly processor_class: string;
}

// Separate constants, so that a page with one of the configs is bundled without the rows of the others.
export const INSTRUCTBLIP = {
  model_type: "instructblip",
  modality: "image",
  config_class: "InstructBlipConfig",
  architecture: "InstructBlipForConditionalGeneration",
  processor_class: "InstructBlipProcessor",
} as const satisfies Family;

export const BLIP_2 = {
  model_type: "blip-2",
  modality: "image",
  config_class: "Blip2Config",
  architecture: "Blip2ForConditionalGeneration",
  processor_class: "Blip2Processor",
} as const satisfies Family;

export const INSTRUCTBLIP_VIDEO = {
  model_type: "instructblipvideo",
  modality: "video",
  config_class: "InstructBlipVideoConfig",
  architecture: "InstructBlipVideoForConditionalGeneration",
  processor_class: "InstructBlipVideoProcessor",
} as const satisfies Family;

/** By model_type. */
export const FAMILIES = {
  instructblip: INSTRUCTBLIP,
  "blip-2": BLIP_2,
  instructblipvideo: INSTRUCTBLIP_VIDEO,
} as const satisfies Readonly<Record<string, Family>>;

export type KnownFamily = (typeof FAMILIES)[keyof typeof FAMILIES];

/** The row of a model_type, or undefined. */
export function familyOf(model_type: unknown): KnownFamily | undefined {
  return typeof model_type === "string" && Object.hasOwn(FAMILIES, model_type)
    ? FAMILIES[model_type as keyof typeof FAMILIES]
    : undefined;
}
