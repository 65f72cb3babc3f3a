/**
 * Model inputs and their checks. A check reads host data only; its error names the input, the requirement and the given
 * value.
 */

import { InputError } from "../../tensor/errors.ts";
import { formatShape, sizeOf, sizes } from "../../tensor/shape.ts";
import { shown } from "../../tensor/shown.ts";
import type { VisionLanguageConfig } from "../config/config.ts";
import type { Ids } from "../model/language_model.ts";
import { IGNORE_INDEX } from "../model/loss.ts";
import type { InstructBlipQFormerEmbeddings } from "../model/qformer.ts";
import type { PixelValues } from "../processing/image.ts";

/** Numbers on the host with their shape, as the processor gives them. */
export interface HostTensor {
  readonly data: Float32Array;
  readonly shape: readonly number[];
}

/** Images or videos. */
export interface VisionInputs {
  /** f32[B, 3, H, W], normalised; of a video f32[B, F, 3, H, W] */
  pixel_values: HostTensor;
  /** Allows images of other sizes than the model was trained with, square or not. Default false. */
  interpolate_pos_encoding?: boolean;
}

/** The inputs of every model; some need more. */
export interface ModelInputs extends VisionInputs {
  /** [B][L], with placeholders where image features go. Default: the placeholders and the language model's BOS. */
  input_ids?: Ids;
  /** [B][L], 1 = not padding */
  attention_mask?: Ids;
}

/** The instruction in the Q-Former's vocabulary. */
export interface QFormerInputs {
  /** [B][T] */
  qformer_input_ids: Ids;
  qformer_attention_mask?: Ids;
}

/** Single images: f32[B, 3, H, W] unchanged, of videos f32[B, F, 3, H, W] -> f32[B·F, 3, H, W]. */
export function framesOf({ data, shape }: HostTensor): PixelValues {
  const image = sizes(shape.slice(-3), 3);
  return { data, shape: [sizeOf(shape.slice(0, -3)), ...image] };
}

/** The rows' common length. @throws InputError BAD_INPUT, RAGGED */
export function expectRectangle(name: string, rows: Ids | undefined): number {
  if (!Array.isArray(rows) || rows.length === 0 || !rows.every(Array.isArray)) {
    throw new InputError("BAD_INPUT", `${name} must be a list of rows of token ids, got ${shown(rows)}`);
  }
  const { length } = rows[0]!;
  if (length === 0) throw new InputError("BAD_INPUT", `${name} must have at least one token`);
  if (rows.some((row) => row.length !== length)) {
    throw new InputError("RAGGED", `${name}: rows have ${shown(rows.map((row) => row.length))} tokens`, {
      hint: "pass padding: true to the processor",
    });
  }
  return length;
}

/** @throws InputError TOKEN_ID */
export function expectIds(name: string, rows: Ids, vocabulary: number): void {
  for (const row of rows) {
    for (const id of row) {
      if (!Number.isInteger(id) || id < 0 || id >= vocabulary) {
        throw new InputError("TOKEN_ID", `${name}: ${shown(id)} is not a token id below ${vocabulary}`);
      }
    }
  }
}

/** The labels' common length. @throws InputError BAD_INPUT, RAGGED, TOKEN_ID unless they are B rows of ids below V, or -100 */
export function expectLabels(labels: Ids, B: number, V: number): number {
  const T = expectRectangle("labels", labels);
  if (labels.length !== B) throw new InputError("BATCH_MISMATCH", `labels have ${labels.length} rows for ${B} prompts`);
  const wrong = labels.flat().find((id) => id !== IGNORE_INDEX && !(Number.isInteger(id) && id >= 0 && id < V));
  if (wrong !== undefined)
    throw new InputError("TOKEN_ID", `labels: ${wrong} is neither a token id below ${V} nor -100`);
  return T;
}

/** The mask of `rows`; ones by default. @throws InputError BAD_MASK */
export function maskOf(name: string, mask: Ids | undefined, rows: Ids): Ids {
  if (mask === undefined) return rows.map((row) => row.map(() => 1));
  const fits =
    Array.isArray(mask) &&
    mask.length === rows.length &&
    mask.every((row, b) => Array.isArray(row) && row.length === rows[b]?.length);
  if (!fits || mask.some((row: readonly number[]) => row.some((visible) => visible !== 0 && visible !== 1))) {
    throw new InputError("BAD_MASK", `${name} must have a 0 or 1 for every token`);
  }
  return mask;
}

/**
 * Checks that pixels have as many numbers as their shape.
 *
 * @param layout names of the shape's dimensions, `[B, 3, H, W]`
 * @throws InputError BAD_PIXELS
 */
export function expectPixelShape(pixels: HostTensor | undefined, layout: readonly string[]): void {
  const shape: unknown = pixels?.shape;
  const fits =
    Array.isArray(shape) &&
    shape.length === layout.length &&
    shape.every((n) => Number.isSafeInteger(n) && n >= 1) &&
    shape[layout.indexOf("3")] === 3;
  if (!pixels || !fits || !(pixels.data instanceof Float32Array)) {
    const given = Array.isArray(shape) ? shown(shape) : pixels ? `the shape ${shown(shape)}` : "none";
    throw new InputError(
      "BAD_PIXELS",
      `pixel_values must be { data, shape }, a Float32Array of shape [${layout.join(", ")}], got ${given}`,
    );
  }
  if (pixels.data.length !== shape.reduce((size, n) => size * n, 1)) {
    throw new InputError(
      "BAD_PIXELS",
      `pixel_values has ${pixels.data.length} numbers for shape ${formatShape(shape)}`,
    );
  }
}

/**
 * @param layout as in {@link expectPixelShape}
 * @param B default: any
 * @throws InputError BAD_PIXELS, BATCH_MISMATCH
 */
export function expectPixels(pixels: HostTensor, layout: readonly string[], B?: number): void {
  expectPixelShape(pixels, layout);
  const { data, shape } = pixels;
  if (B !== undefined && shape[0] !== B) {
    const what = layout.includes("F") ? "video" : "image";
    throw new InputError("BATCH_MISMATCH", `${shape[0]} ${what}s for ${B} prompts; give one ${what} for each prompt`);
  }
  if (!data.every(Number.isFinite)) throw new InputError("BAD_PIXELS", "pixel_values has a NaN or an infinity");
}

/**
 * The instruction for the Q-Former: a row for every row of the prompt.
 *
 * @param B rows of the prompt, if there is one
 * @throws InputError BATCH_MISMATCH, BAD_INPUT, RAGGED, TOKEN_ID, BAD_MASK, PROMPT_TOO_LONG
 */
export function expectWords(
  { qformer_input_ids, qformer_attention_mask }: QFormerInputs,
  embeddings: InstructBlipQFormerEmbeddings,
  B: number | undefined,
): void {
  if (B !== undefined && qformer_input_ids?.length !== B) {
    const given = Array.isArray(qformer_input_ids) ? qformer_input_ids.length : "none";
    throw new InputError("BATCH_MISMATCH", `input_ids has ${B} rows, qformer_input_ids ${given}`);
  }
  const T = expectRectangle("qformer_input_ids", qformer_input_ids);
  expectIds("qformer_input_ids", qformer_input_ids, embeddings.word_embeddings.num_embeddings);
  maskOf("qformer_attention_mask", qformer_attention_mask, qformer_input_ids);
  embeddings.checkLength(T);
}

/**
 * Refuses prompts with placeholders for a legacy checkpoint, whose language model would read their embeddings as text. They
 * are recognised at the front of a row: no text begins with the same token `count` times.
 *
 * @throws InputError IMAGE_TOKENS
 */
export function refusePlaceholders(rows: Ids, mask: Ids, count: number): void {
  rows.forEach((row, b) => {
    const [id] = row;
    const isRun = row.length >= count && row.slice(0, count).every((other, i) => other === id && mask[b]?.[i] === 1);
    if (count === 1 || !isRun) return;
    throw new InputError(
      "IMAGE_TOKENS",
      `input_ids row ${b} begins with ${count} times ${id}, as if for image features`,
      {
        hint: `config.json has no image_token_index: set it to ${id} if the embedding has that row, or give the text alone`,
      },
    );
  });
}

/**
 * The images of a batch: one for each row, or as many as the placeholders of every row are for, in order.
 *
 * @param given images
 * @param count placeholders of an image
 */
export function imagesOf(rows: Ids, placeholder: number, count: number, given: number): number {
  const counts = rows.map((row) => row.reduce((sum, id) => sum + Number(id === placeholder), 0));
  const fit = counts.every((n) => n > 0 && n % count === 0);
  return fit && counts.reduce((sum, n) => sum + n, 0) === given * count ? given : rows.length;
}

/** `count` placeholders in every row. @throws InputError IMAGE_TOKENS */
export function expectPlaceholders(rows: Ids, placeholder: number, count: number, modality: "image" | "video"): void {
  rows.forEach((row, b) => {
    const found = row.reduce((sum, id) => sum + Number(id === placeholder), 0);
    if (found === count) return;
    throw new InputError(
      "IMAGE_TOKENS",
      `input_ids row ${b} has ${found} ${modality} tokens (id ${placeholder}); it must have ${count}`,
      { hint: found === 0 ? `the processor puts them there when it is given ${modality}s` : undefined },
    );
  });
}

/** Length of a text of ids that every vocabulary has; more rows than matvec kernels take. */
export const EXAMPLE_TEXT: readonly number[] = new Array<number>(9).fill(0);

/** An image's placeholders, if there are any, and a text. */
export function examplePrompt({ num_query_tokens, image_token }: ExampleSizes): number[] {
  const word = image_token === 0 ? 1 : 0;
  const placeholders = image_token === null ? [] : new Array<number>(num_query_tokens).fill(image_token);
  return [...placeholders, ...EXAMPLE_TEXT.map(() => word)];
}

/** Black images of the model's own size. f32[n, 3, H, W] */
export function blankImages({ vision_config: { image_size } }: ExampleSizes, n: number): HostTensor {
  const shape = [n, 3, image_size, image_size];
  return { data: new Float32Array(sizeOf(shape)), shape };
}

interface ExampleSizes {
  readonly num_query_tokens: number;
  readonly image_token: number | null;
  readonly vision_config: { readonly image_size: number };
}

/** The default prompt: placeholders, and the beginning-of-sequence token. @throws InputError BAD_INPUT without such a token */
export function emptyPrompt({ image_token, text_config }: VisionLanguageConfig, B: number, features: number): Ids {
  const { bos_token_id } = text_config;
  if (bos_token_id === null) throw new InputError("BAD_INPUT", "input_ids are needed: text_config has no bos_token_id");
  const placeholders = image_token === null ? [] : new Array<number>(features).fill(image_token);
  return Array.from({ length: B }, () => [...placeholders, bos_token_id]);
}
