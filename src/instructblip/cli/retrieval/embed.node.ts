/** Features of images and texts on the host, by the model that a checkpoint has. */
import { InputError } from "../../../tensor/errors.ts";
import { contiguous } from "../../../tensor/ops/copy.ts";
import type { Tensor } from "../../../tensor/tensor.ts";
import { type modelWithFeatures, retrievalClass } from "../../pretrained/auto_model.ts";
import type { AnyProcessor } from "../../pretrained/auto_processor.ts";
import type { Blip2ForConditionalGeneration } from "../../pretrained/blip_2.ts";
import { Blip2ForImageTextRetrieval } from "../../pretrained/blip_2_retrieval.ts";
import type { InstructBlipInputs } from "../../pretrained/instructblip.ts";
import { InstructBlipVideoForConditionalGeneration } from "../../pretrained/instructblip_video.ts";
import type { ModelFolder } from "../../pretrained/model_folder.ts";
import { VisionLanguageModel } from "../../pretrained/vision_language_model.ts";
import type { RgbImage } from "../../processing/image.ts";
import { joinInputs } from "../requests/batches.ts";
import { prepareInputs } from "../session.node.ts";
import type { Item } from "./items.node.ts";

/** Numbers of one item. */
export interface Feature {
  readonly shape: readonly number[];
  readonly data: Float32Array;
}

/** By name: image_embeds, query_outputs and text_embeds of a retrieval model; image_features and query_outputs of others. */
export type Features = Readonly<Record<string, Feature>>;

export type LoadedModel = Awaited<ReturnType<typeof modelWithFeatures>>;

/** An item, and its image if it has one. */
export interface ReadItem extends Item {
  readonly pixels: RgbImage | undefined;
}

/** What a model needs of an item; a retrieval model has features of either. */
export interface Needed {
  readonly image: boolean;
  readonly text: boolean;
}

export async function neededBy(folder: ModelFolder): Promise<Needed> {
  if (await retrievalClass(folder)) return { image: false, text: false };
  const { family } = await folder.config();
  return { image: true, text: family.model_type !== "blip-2" };
}

/** The item's part that is needed and not there, in words. */
export function missingIn(item: Item, needed: Needed): string | undefined {
  if (needed.image && item.image === undefined) return "an image: this model has no features of texts alone";
  return needed.text && item.text === undefined ? "a text: the Q-Former reads an instruction" : undefined;
}

/**
 * The features of items, together; those of each are the same bits as alone.
 *
 * @throws InputError UNSUPPORTED_OPTION for half of a retrieval model; those of processor and model
 */
export async function embed(
  model: LoadedModel,
  processor: AnyProcessor,
  items: readonly ReadItem[],
): Promise<Features[]> {
  if (model instanceof Blip2ForImageTextRetrieval) {
    const found: Record<string, Feature>[] = items.map(() => ({}));
    const seen = [...items.keys()].filter((i) => items[i]!.pixels);
    const read = [...items.keys()].filter((i) => items[i]!.text !== undefined);
    const images = await embedImages(
      model,
      processor,
      seen.map((i) => items[i]!.pixels!),
    );
    const texts = await embedTexts(
      model,
      processor,
      read.map((i) => items[i]!.text!),
    );
    for (const [k, i] of seen.entries()) Object.assign(found[i]!, images[k]);
    for (const [k, i] of read.entries()) Object.assign(found[i]!, { text_embeds: texts[k] });
    return found;
  }
  if (!(model instanceof VisionLanguageModel)) {
    throw new InputError("UNSUPPORTED_OPTION", `config.json names half of a retrieval model, ${model.architecture}`, {
      hint: 'write "architectures": ["Blip2ForImageTextRetrieval"] there if the weights are those of both halves',
    });
  }
  const { device, config } = model;
  return device.scope(async () => {
    const each: InstructBlipInputs[] = []; // the processor would pad the Q-Former's text on the left, which moves its positions
    for (const { pixels, text = "" } of items) each.push(await prepareInputs(processor, config, [pixels!], [text]));
    const inputs = each.length === 1 ? each[0]! : joinInputs(each, 0);
    const isVideo = model instanceof InstructBlipVideoForConditionalGeneration;
    const { image_features, qformer_outputs } = isVideo
      ? await model.get_video_features(inputs)
      : await (model as unknown as Blip2ForConditionalGeneration).get_image_features(inputs);
    const queries = qformer_outputs.last_hidden_state.narrow(1, 0, config.num_query_tokens);
    const [projected, outputs] = [await rowsOf(image_features), await rowsOf(queries)];
    return items.map((_, i) => ({ image_features: projected[i]!, query_outputs: outputs[i]! }));
  });
}

/** Embeds f32[Q, P] of images, and the query outputs f32[Q, Dq] that they are projections of. */
export async function embedImages(
  model: Blip2ForImageTextRetrieval,
  processor: AnyProcessor,
  images: readonly RgbImage[],
): Promise<{ image_embeds: Feature; query_outputs: Feature }[]> {
  if (images.length === 0) return [];
  return model.device.scope(async () => {
    const { pixel_values } = await processor({ images: [...images] });
    const { image_embeds, qformer_outputs } = await model.get_image_features({ pixel_values: pixel_values! });
    const [embeds, queries] = [await rowsOf(image_embeds), await rowsOf(qformer_outputs.last_hidden_state)];
    return images.map((_, i) => ({ image_embeds: embeds[i]!, query_outputs: queries[i]! }));
  });
}

/** Embeds f32[P] of texts. */
export async function embedTexts(
  model: Blip2ForImageTextRetrieval,
  processor: AnyProcessor,
  texts: readonly string[],
): Promise<Feature[]> {
  if (texts.length === 0) return [];
  return model.device.scope(async () => {
    const { input_ids, attention_mask } = await processor({ text: [...texts], padding: true });
    const { text_embeds } = await model.get_text_features({ input_ids: input_ids!, attention_mask: attention_mask! });
    return rowsOf(text_embeds);
  });
}

/** ITM's logit that each text is about its image, and the probability. */
export async function matchPairs(
  model: Blip2ForImageTextRetrieval,
  processor: AnyProcessor,
  pairs: readonly { readonly pixels: RgbImage; readonly text: string }[],
): Promise<{ logit: number; probability: number }[]> {
  return model.device.scope(async () => {
    const { pixel_values } = await processor({ images: pairs.map(({ pixels }) => pixels) });
    const { input_ids, attention_mask } = await processor({ text: pairs.map(({ text }) => text), padding: true });
    const { logits_per_image } = await model.forward({
      pixel_values: pixel_values!,
      input_ids: input_ids!,
      attention_mask: attention_mask!,
      use_image_text_matching_head: true,
    });
    const logits = await logits_per_image.read();
    return pairs.map((_, i) => {
      const [no, yes] = [logits[2 * i]!, logits[2 * i + 1]!];
      return { logit: yes, probability: 1 / (1 + Math.exp(no - yes)) };
    });
  });
}

/** ITC: the largest product of the queries' embeds, f32[Q, P], with a text's, f32[P]. */
export function cosine({ shape: [Q = 0, P = 0], data }: Feature, text: Feature): number {
  let most = Number.NEGATIVE_INFINITY;
  for (let q = 0; q < Q; q++) {
    let sum = 0;
    for (let p = 0; p < P; p++) sum += data[q * P + p]! * text.data[p]!;
    if (!(sum <= most)) most = sum; // NaN too
  }
  return most;
}

/** Its rows on the host. f32[B, …] -> B of f32[…] */
async function rowsOf(x: Tensor): Promise<Feature[]> {
  const numbers = await contiguous(x).read();
  const [B, ...shape] = x.shape;
  const size = numbers.length / B!;
  return Array.from({ length: B! }, (_, i) => ({ shape, data: numbers.slice(i * size, (i + 1) * size) }));
}
