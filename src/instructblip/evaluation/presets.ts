/**
 * Prompts, decoding and metrics of the InstructBLIP paper and of LAVIS, by Hugging Face's option names.
 *
 * `paper-*`: Dai et al., "InstructBLIP", 2023, table 1 and appendix; templates as other repositories quote them too, and
 * LAVIS's lengths where the paper gives none. `lavis-*`: what the code does, lavis/projects/instructblip/*.yaml and
 * lavis/models/blip2_models at 506965b: VQATask hands no length_penalty on, so that each model's own default holds,
 * 0 for Vicuna and -1 for T5, and repetition_penalty stays 1.5, of captions 1.15.
 *
 * Two differences remain. LAVIS penalises repetition of generated tokens only, Hugging Face of the prompt's as well; and
 * LAVIS's optional lemmatizer is not here. Tasks that rank candidates are named, and refused.
 */
import type { GenerationOptions } from "../generation/configuration.ts";
import type { MetricName } from "./metrics.ts";

export interface Preset {
  readonly prompt: string;
  readonly generation: GenerationOptions;
  readonly metric: MetricName;
}

const PAPER_CAPTION: GenerationOptions = { num_beams: 5, max_new_tokens: 80, min_new_tokens: 10, length_penalty: 1 };
const PAPER_ANSWER: GenerationOptions = { num_beams: 5, max_new_tokens: 10, length_penalty: -1 };
const LAVIS_ANSWER: GenerationOptions = { num_beams: 5, max_new_tokens: 10, repetition_penalty: 1.5 };
const SHORT_ANSWER = "Question: {question} Short answer:";
const CAPTION = "A short image description:";

export const PRESETS: Readonly<Record<string, Preset>> = {
  "paper-nocaps": { prompt: CAPTION, generation: PAPER_CAPTION, metric: "cider" },
  "paper-flickr30k": { prompt: CAPTION, generation: PAPER_CAPTION, metric: "cider" },
  "paper-gqa": { prompt: SHORT_ANSWER, generation: PAPER_ANSWER, metric: "exact_match_vqa" },
  "paper-vsr": {
    prompt: 'Based on the image, is this statement true or false? "{statement}" Answer:',
    generation: PAPER_ANSWER,
    metric: "exact_match_vqa",
  },
  "paper-textvqa": {
    prompt: "OCR tokens: {ocr_tokens:30}. Question: {question} Short answer:",
    generation: PAPER_ANSWER,
    metric: "vqa_accuracy",
  },
  "paper-vizwiz": { prompt: SHORT_ANSWER, generation: PAPER_ANSWER, metric: "vqa_accuracy" },
  "lavis-caption": {
    prompt: "A short image caption.",
    generation: { ...PAPER_CAPTION, repetition_penalty: 1.15 },
    metric: "cider",
  },
  "lavis-vqa-vicuna": {
    prompt: SHORT_ANSWER,
    generation: { ...LAVIS_ANSWER, length_penalty: 0 },
    metric: "vqa_accuracy_lavis",
  },
  "lavis-vqa-t5": {
    prompt: SHORT_ANSWER,
    generation: { ...LAVIS_ANSWER, length_penalty: -1 },
    metric: "vqa_accuracy_lavis",
  },
};

/** Settings of the paper that rank given candidates instead of generating. */
export const RANKED = ["paper-iconqa", "paper-visdial", "paper-hatefulmemes", "paper-scienceqa"];
