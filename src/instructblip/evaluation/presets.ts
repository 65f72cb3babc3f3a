/**
 * Prompts, decoding and metrics of the InstructBLIP paper and of LAVIS, by Hugging Face's option names.
 *
 * `paper-*`: Dai et al., "InstructBLIP", 2023, table 1 and appendix; templates as other repositories quote them too, and
 * LAVIS's lengths where the paper gives none. `lavis-*`: what the code does, lavis/projects/instructblip/*.yaml and
 * lavis/models/blip2_models at 506965b: VQATask hands no length_penalty on, so that each model's own default holds,
 * 0 for Vicuna and -1 for T5, and repetition_penalty stays 1.5, of captions 1.15.
 *
 * Which tasks rank given candidates, and the verbalisers, are the paper's (section on inference): it ranks by likelihood
 * ScienceQA, IconQA, HatefulMemes, Visual Dialog, MSVD-QA and MSRVTT-QA, and widens yes and no by true and false. LAVIS has
 * the ranking (predict_class), and no settings of these tasks; the area and the reciprocal rank are not in it at all.
 *
 * `lavis` is LAVIS to the token: Vicuna's prompts begin with `</s>`, repetition is penalised of the answer's tokens only, and
 * questions go through its text processor (`{question:blip_question}`). Of its files the data sets of `lavis-okvqa-*`,
 * `lavis-msvd-qa-*`, `lavis-msrvtt-qa-*` and the captions have settings; the others have the paper's prompts, with what its code
 * does by default. Differences that remain: LAVIS's optional lemmatizer and mixed precision are not here; its files for OK-VQA
 * crop images (clip_image_eval), where its models' own transform, which is this one, squeezes them; and how the paper joins
 * verbalisers is not said: here their probabilities add up.
 */
import type { GenerationOptions } from "../generation/options.ts";
import type { MetricName } from "./metrics.ts";

/** Synonyms (verbalisers) of each candidate. */
export type Candidates = readonly (readonly string[])[];

export interface Preset {
  readonly prompt: string;
  readonly metric: MetricName;
  /** Generation options; empty with candidates. */
  readonly generation: GenerationOptions;
  /** Prompts and penalties to LAVIS's token; see {@link Task.lavis}. */
  readonly lavis?: true;
  /** Candidates: the same for all questions, or the name of their field; null if the task must give them. */
  readonly candidates?: Candidates | string | null;
}

const PAPER_CAPTION: GenerationOptions = { num_beams: 5, max_new_tokens: 80, min_new_tokens: 10, length_penalty: 1 };
const PAPER_ANSWER: GenerationOptions = { num_beams: 5, max_new_tokens: 10, length_penalty: -1 };
const LAVIS_ANSWER: GenerationOptions = { num_beams: 5, max_new_tokens: 10, repetition_penalty: 1.5 };
const LAVIS_CAPTION: Preset = {
  prompt: "A short image caption.",
  generation: { ...PAPER_CAPTION, repetition_penalty: 1.15 },
  metric: "cider",
  lavis: true,
};
/** Its start token counts towards LAVIS's min_len of 10. */
const LAVIS_CAPTION_T5: Preset = { ...LAVIS_CAPTION, generation: { ...LAVIS_CAPTION.generation, min_new_tokens: 9 } };
/** Of predict_answers(): data set, prompt, metric, and the most tokens if not 10. */
const LAVIS_QUESTIONS: readonly (readonly [string, string, MetricName, number?])[] = [
  ["vqa", "Question: {question:blip_question} Short answer:", "vqa_accuracy_lavis"],
  ["okvqa", "Question: {question:blip_question} Short Answer:", "vqa_accuracy_lavis"],
  ["gqa", "Question: {question:blip_question} Short answer:", "exact_match_vqa"],
  ["vizwiz", "Question: {question:blip_question} Short answer:", "vqa_accuracy_lavis"],
  ["textvqa", "OCR tokens: {ocr_tokens:30}. Question: {question:blip_question} Short answer:", "vqa_accuracy_lavis"],
  ["ocrvqa", "OCR tokens: {ocr_tokens:30}. Question: {question:blip_question} Short answer:", "exact_match_vqa"],
  ["iconqa", "Question: {question:blip_question} Options: {choices:letters}. Short answer:", "exact_match_vqa"],
  ["ivqa", "Question: {question:blip_question} Short answer:", "vqa_accuracy_lavis"],
  ["msvd-qa", "Question: {question:blip_question} Short Answer:", "exact_match_vqa", 30],
  ["msrvtt-qa", "Question: {question:blip_question} Short Answer:", "exact_match_vqa"],
];
/** predict_answers()' own length penalties. */
const LENGTH_PENALTIES = { vicuna: 0, t5: -1 };
const lavisQuestions = LAVIS_QUESTIONS.flatMap(([name, prompt, metric, max_new_tokens = 10]) =>
  Object.entries(LENGTH_PENALTIES).map(([model, length_penalty]): [string, Preset] => {
    const generation = { ...LAVIS_ANSWER, max_new_tokens, length_penalty };
    return [`lavis-${name}-${model}`, { prompt, generation, metric, lavis: true }];
  }),
);
const SHORT_ANSWER = "Question: {question} Short answer:";
const CAPTION = "A short image description:";
const STATEMENT = 'Based on the image, is this statement true or false? "{statement}" Answer:';

export const PRESETS: Readonly<Record<string, Preset>> = {
  "paper-nocaps": { prompt: CAPTION, generation: PAPER_CAPTION, metric: "cider" },
  "paper-flickr30k": { prompt: CAPTION, generation: PAPER_CAPTION, metric: "cider" },
  "paper-gqa": { prompt: SHORT_ANSWER, generation: PAPER_ANSWER, metric: "exact_match_vqa" },
  "paper-vsr": {
    prompt: STATEMENT,
    generation: PAPER_ANSWER,
    metric: "exact_match_vqa",
  },
  "paper-textvqa": {
    prompt: "OCR tokens: {ocr_tokens:30}. Question: {question} Short answer:",
    generation: PAPER_ANSWER,
    metric: "vqa_accuracy",
  },
  "paper-vizwiz": { prompt: SHORT_ANSWER, generation: PAPER_ANSWER, metric: "vqa_accuracy" },
  "lavis-caption": LAVIS_CAPTION,
  "lavis-nocaps": LAVIS_CAPTION,
  "lavis-flickr30k": LAVIS_CAPTION,
  "lavis-caption-t5": LAVIS_CAPTION_T5,
  "lavis-nocaps-t5": LAVIS_CAPTION_T5,
  "lavis-flickr30k-t5": LAVIS_CAPTION_T5,
  ...Object.fromEntries(lavisQuestions),

  // Ranked. ScienceQA: LAVIS puts "context: …. " in front where there is one, so the field has all of that, or is empty.
  "paper-scienceqa": {
    prompt: "{context}Question: {question} Options: {choices:letters}. Answer:",
    generation: {},
    metric: "exact_match",
    candidates: "choices",
  },
  "paper-iconqa": {
    prompt: "Question: {question} Options: {choices:letters}. Short answer:",
    generation: {},
    metric: "exact_match",
    candidates: "choices",
  },
  "paper-hatefulmemes": {
    prompt: 'This is an image with: "{text}" written on it. Is it hateful? Answer:',
    generation: {},
    metric: "auc",
    candidates: [
      ["yes", "true"],
      ["no", "false"],
    ],
  },
  // LAVIS's way of putting the history in front; options are the 100 of each round.
  "paper-visdial": {
    prompt: "dialog history: {history}\nQuestion: {question} Short answer:",
    generation: {},
    metric: "mrr",
    candidates: "options",
  },
  // The paper does not rank VSR; other repositories do.
  "vsr-ranked": {
    prompt: STATEMENT,
    generation: {},
    metric: "exact_match_vqa",
    candidates: [
      ["true", "yes"],
      ["false", "no"],
    ],
  },
  // Of predict_class(), to LAVIS's token.
  "lavis-scienceqa": {
    prompt: "{context}Question: {question} Options: {choices:letters}. Answer:",
    generation: {},
    metric: "exact_match",
    candidates: "choices",
    lavis: true,
  },
  "lavis-visdial": {
    prompt: "dialog history: {history}\nQuestion: {question} Short answer:",
    generation: {},
    metric: "mrr",
    candidates: "options",
    lavis: true,
  },
  "lavis-hatefulmemes": {
    prompt: 'This is an image with: "{text}" written on it. Is it hateful? Answer:',
    generation: {},
    metric: "auc",
    candidates: [["yes"], ["no"]],
    lavis: true,
  },
  "lavis-vsr": {
    prompt: STATEMENT,
    generation: {},
    metric: "exact_match_vqa",
    candidates: [["true"], ["false"]],
    lavis: true,
  },
  // Four frames spread evenly over the video; the task names a file with all answers. LAVIS's yaml files generate instead.
  "paper-msvd-qa": { prompt: SHORT_ANSWER, generation: {}, metric: "exact_match_vqa", candidates: null },
  "paper-msrvtt-qa": { prompt: SHORT_ANSWER, generation: {}, metric: "exact_match_vqa", candidates: null },
};
