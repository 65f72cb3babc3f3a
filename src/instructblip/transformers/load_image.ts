/** Hugging Face's load_image. Source: transformers 5.18, image_utils.py. */
import type { RgbImage } from "../processing/image.ts";
import { type ImageInput, readImageInput } from "../processing/processor_input.ts";

/**
 * Reads an image, turned upright by its EXIF orientation, which a processor that is given the file ignores.
 *
 * @param image a path (Node), a URL (`https:`, `data:`, `blob:`), the bytes of a file, or pixels in bytes; see
 *   {@link ImageInput}. Base64 alone is no path: write `data:image/png;base64,` in front
 * @returns u8[H, W, 3], RGB, alpha dropped
 * @throws InputError BAD_PIXELS, IMAGE_…, HTTP_…; WeightError NOT_FOUND, IO
 */
export function load_image(image: ImageInput): Promise<RgbImage> {
  return readImageInput(image, "image", { exif_transpose: true });
}
