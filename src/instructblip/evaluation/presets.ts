/**
 * Prompts, decoding and metrics of the InstructBLIP paper and of LAVIS, by Hugging Face's option names. Each says where it is
 * from; docs/presets.md has them as a table.
 *
 * `paper-*`: Dai et al., "InstructBLIP", 2023, table 1 and appendix; templates as other repositories quote them too, and
 * LAVIS's lengths where the paper gives none. Which tasks rank given candidates, and the verbalisers, are the paper's (section
 * on inference): it ranks by likelihood ScienceQA, IconQA, HatefulMemes, Visual Dialog, MSVD-QA and MSRVTT-QA, and widens yes
 * and no by true and false; how it joins verbalisers is not said: here their probabilities add up.
 *
 * `lavis-*`: what LAVIS's code does at 506965b with its own files, to the token (see {@link Task.lavis}). Its lengths count the
 * start token of Vicuna's rows and of min_len of T5's; VQATask hands no length_penalty on, so that each model's own default
 * holds, 0 for Vicuna and -1 for T5, and repetition_penalty stays 1.5, of captions 1.15. Some of it is surprising: the files of
 * OK-VQA and MSRVTT-QA give the prompt to the model, which uses it for captions only, not to the task, so that the question is
 * all of the prompt. What LAVIS has no files of has the paper's prompt, in LAVIS's functions.
 *
 * What remains: the optional lemmatizer, mixed precision, and the frames of videos, which the task names (LAVIS draws four at
 * random, half of them from either half, and decord resizes them by ffmpeg). Its video data sets call them `video`, which its
 * InstructBLIP models do not read: here they are where an image would be.
 */
import type { GenerationOptions } from "../generation/options.ts";
import type { ImageTransform } from "../processing/image_transform.ts";
import type { MetricName } from "./metrics.ts";

/** Synonyms (verbalisers) of each candidate. */
export type Candidates = readonly (readonly string[])[];

/** Language models of LAVIS's InstructBLIP. */
export type PresetModel = "vicuna" | "t5";

export interface Preset {
  readonly prompt: string;
  readonly metric: MetricName;
  /** Generation options; empty with candidates. */
  readonly generation: GenerationOptions;
  /** Prompts and penalties to LAVIS's token; see {@link Task.lavis}. */
  readonly lavis?: true;
  /** The only language model that it is for. Default: any. */
  readonly model?: PresetModel;
  /** Default: the model's own, which is blip_image_eval. */
  readonly image_transform?: ImageTransform;
  /** Candidates: the same for all questions, or the name of their field; null if the task must give them. */
  readonly candidates?: Candidates | string | null;
  /** Where it is from: of `lavis-*` a file of LAVIS, run by its own code, or what it has instead. */
  readonly source: string;
}

const PAPER_CAPTION: GenerationOptions = { num_beams: 5, max_new_tokens: 80, min_new_tokens: 10, length_penalty: 1 };
const PAPER_ANSWER: GenerationOptions = { num_beams: 5, max_new_tokens: 10, length_penalty: -1 };
const PAPER = "the paper's appendix";
const FUNCTIONS = "the paper's prompt in LAVIS's functions";

/** Of predict_answers(). */
interface LavisQuestion {
  readonly prompt: string;
  readonly metric: MetricName;
  readonly image_transform?: ImageTransform;
  /** LAVIS's max_len. Default 10. */
  readonly most?: number;
  readonly source: string;
}
const question = (processor: "blip_question" | "blip_caption", form = "Question: {} Short answer:") =>
  form.replace("{}", `{question:${processor}}`);
const OF_TEXT = question("blip_question", "OCR tokens: {ocr_tokens:30}. Question: {} Short answer:");
const LAVIS_QUESTIONS: Readonly<Record<string, LavisQuestion>> = {
  vqa: {
    prompt: question("blip_question"),
    metric: "vqa_accuracy_lavis",
    image_transform: "blip_image_eval",
    source: "projects/blip2/eval/vqav2_zeroshot_flant5xl_eval.yaml",
  },
  okvqa: {
    prompt: question("blip_caption", "{}"),
    metric: "vqa_accuracy_lavis",
    image_transform: "clip_image_eval",
    source: "projects/instructblip/qa_okvqa_*_eval.yaml",
  },
  gqa: {
    prompt: question("blip_question"),
    metric: "exact_match_vqa",
    image_transform: "blip_image_eval",
    source: "projects/blip2/eval/gqa_zeroshot_flant5xl_eval.yaml",
  },
  vizwiz: {
    prompt: question("blip_question"),
    metric: "vqa_accuracy_lavis",
    image_transform: "clip_image_eval",
    source: `configs/datasets/vizwiz/defaults.yaml; ${FUNCTIONS}`,
  },
  textvqa: { prompt: OF_TEXT, metric: "vqa_accuracy_lavis", source: FUNCTIONS },
  ocrvqa: {
    prompt: OF_TEXT,
    metric: "exact_match_vqa",
    source: `configs/datasets/ocrvqa/defaults.yaml; ${FUNCTIONS}`,
  },
  iconqa: {
    prompt: question("blip_question", "Question: {} Options: {choices:letters}. Short answer:"),
    metric: "exact_match_vqa",
    image_transform: "clip_image_eval",
    source: `configs/datasets/iconqa/defaults.yaml; ${FUNCTIONS}`,
  },
  ivqa: { prompt: question("blip_question"), metric: "vqa_accuracy_lavis", source: FUNCTIONS },
  "msvd-qa": {
    prompt: question("blip_caption", "Question: {} Short Answer:"),
    metric: "exact_match_vqa",
    most: 30,
    source: "projects/instructblip/qa_msvd_*_eval.yaml",
  },
  "msrvtt-qa": {
    prompt: question("blip_caption", "{}"),
    metric: "exact_match_vqa",
    source: "projects/instructblip/qa_msrvtt_*_eval_test.yaml",
  },
};
/** predict_answers()' own length penalties, and the start token that max_len counts. */
const MODELS = { vicuna: { length_penalty: 0, start: 1 }, t5: { length_penalty: -1, start: 0 } };
const EACH_MODEL = Object.entries(MODELS) as [PresetModel, (typeof MODELS)[PresetModel]][];
const lavisQuestions = Object.entries(LAVIS_QUESTIONS).flatMap(([name, { most = 10, ...preset }]) =>
  EACH_MODEL.map(([model, { length_penalty, start }]): [string, Preset] => {
    const generation = { num_beams: 5, max_new_tokens: most - start, repetition_penalty: 1.5, length_penalty };
    return [`lavis-${name}-${model}`, { ...preset, generation, lavis: true, model }];
  }),
);

/** Of generate(), by name: prompt, image transform and file. */
const LAVIS_CAPTIONS: Readonly<Record<string, Pick<Preset, "prompt" | "image_transform" | "source">>> = {
  caption: {
    prompt: "A short image caption.",
    image_transform: "clip_image_eval",
    source: "projects/instructblip/caption_coco_*_eval_test.yaml",
  },
  nocaps: {
    prompt: "A short image caption.",
    image_transform: "blip_image_eval",
    source: "projects/instructblip/caption_nocaps_out_domain_*_eval.yaml",
  },
  flickr30k: {
    prompt: "A short image caption.",
    image_transform: "clip_image_eval",
    source: "configs/datasets/flickr30k/defaults_cap.yaml, with the settings of COCO's",
  },
  "msvd-caption": { prompt: "a short description", source: "projects/instructblip/caption_msvd_*_eval.yaml" },
  "msrvtt-caption": { prompt: "a short description", source: "projects/instructblip/caption_msrvtt_*_eval_test.yaml" },
  "vatex-caption": {
    prompt: "a short description",
    source: "projects/instructblip/caption_vatex_*_eval.yaml, but of Vicuna-13B",
  },
};
const lavisCaptions = Object.entries(LAVIS_CAPTIONS).flatMap(([name, preset]) =>
  EACH_MODEL.map(([model, { start }]): [string, Preset] => {
    const generation: GenerationOptions = {
      ...{ num_beams: 5, max_new_tokens: 80 - start, min_new_tokens: 9, length_penalty: 1, repetition_penalty: 1.15 },
    };
    const full = `lavis-${name}${model === "t5" ? "-t5" : ""}`;
    return [full, { ...preset, generation, metric: "cider", lavis: true, model }];
  }),
);
const SHORT_ANSWER = "Question: {question} Short answer:";
const CAPTION = "A short image description:";
const MEME = 'This is an image with: "{text}" written on it. Is it hateful? Answer:';
const TRUE_OR_FALSE: Candidates = [
  ["true", "yes"],
  ["false", "no"],
];
const STATEMENT = 'Based on the image, is this statement true or false? "{statement}" Answer:';

export const PRESETS: Readonly<Record<string, Preset>> = {
  "paper-nocaps": { prompt: CAPTION, generation: PAPER_CAPTION, metric: "cider", source: PAPER },
  "paper-flickr30k": { prompt: CAPTION, generation: PAPER_CAPTION, metric: "cider", source: PAPER },
  "paper-gqa": { prompt: SHORT_ANSWER, generation: PAPER_ANSWER, metric: "exact_match_vqa", source: PAPER },
  "paper-vsr": {
    prompt: STATEMENT,
    generation: PAPER_ANSWER,
    metric: "exact_match_vqa",
    source: PAPER,
  },
  "paper-textvqa": {
    prompt: "OCR tokens: {ocr_tokens:30}. Question: {question} Short answer:",
    generation: PAPER_ANSWER,
    metric: "vqa_accuracy",
    source: PAPER,
  },
  "paper-vizwiz": { prompt: SHORT_ANSWER, generation: PAPER_ANSWER, metric: "vqa_accuracy", source: PAPER },
  ...Object.fromEntries(lavisCaptions),
  ...Object.fromEntries(lavisQuestions),

  // Ranked. ScienceQA: LAVIS puts "context: …. " in front where there is one, so the field has all of that, or is empty.
  "paper-scienceqa": {
    prompt: "{context}Question: {question} Options: {choices:letters}. Answer:",
    generation: {},
    metric: "exact_match",
    candidates: "choices",
    source: PAPER,
  },
  "paper-iconqa": {
    prompt: "Question: {question} Options: {choices:letters}. Short answer:",
    generation: {},
    metric: "exact_match",
    candidates: "choices",
    source: PAPER,
  },
  "paper-hatefulmemes": {
    prompt: MEME,
    generation: {},
    metric: "auc",
    candidates: [
      ["yes", "true"],
      ["no", "false"],
    ],
    source: `${PAPER}; verbalisers of its section on inference`,
  },
  // LAVIS's way of putting the history in front; options are the 100 of each round.
  "paper-visdial": {
    prompt: "dialog history: {history}\nQuestion: {question} Short answer:",
    generation: {},
    metric: "mrr",
    candidates: "options",
    source: PAPER,
  },
  // The paper does not rank VSR; other repositories do.
  "vsr-ranked": {
    prompt: STATEMENT,
    generation: {},
    metric: "exact_match_vqa",
    candidates: TRUE_OR_FALSE,
    source: `${PAPER}, ranked as other repositories do`,
  },
  // Of predict_class(), to LAVIS's token.
  "lavis-scienceqa": {
    prompt: `{context}${question("blip_question", "Question: {} Options: {choices:letters}. Answer:")}`,
    generation: {},
    metric: "exact_match",
    candidates: "choices",
    lavis: true,
    image_transform: "clip_image_eval",
    source: `configs/datasets/scienceqa/defaults_instruct.yaml; ${FUNCTIONS}`,
  },
  "lavis-visdial": {
    prompt: `dialog history: {history}\n${question("blip_caption")}`,
    generation: {},
    metric: "mrr",
    candidates: "options",
    lavis: true,
    image_transform: "clip_image_eval",
    source: `configs/datasets/visdial/defaults_dial.yaml; ${FUNCTIONS}`,
  },
  "lavis-hatefulmemes": {
    prompt: MEME,
    generation: {},
    metric: "auc",
    candidates: [["yes"], ["no"]],
    lavis: true,
    source: FUNCTIONS,
  },
  // The verbalisers of LAVIS's data set, VSRClassificationInstructDataset.
  "lavis-vsr": {
    prompt: STATEMENT,
    generation: {},
    metric: "exact_match_vqa",
    candidates: TRUE_OR_FALSE,
    lavis: true,
    image_transform: "clip_image_eval",
    source: `configs/datasets/vsr/defaults_classification_instruct.yaml; ${FUNCTIONS}`,
  },
  // Four frames spread evenly over the video; the task names a file with all answers. LAVIS's yaml files generate instead.
  "paper-msvd-qa": {
    prompt: SHORT_ANSWER,
    generation: {},
    metric: "exact_match_vqa",
    candidates: null,
    source: PAPER,
  },
  "paper-msrvtt-qa": {
    prompt: SHORT_ANSWER,
    generation: {},
    metric: "exact_match_vqa",
    candidates: null,
    source: PAPER,
  },
};
