/** The image of a page, which loads nothing. */
import sharp from "sharp";
import type { RgbImage } from "../processing/image.ts";

/** Longer side of the image in a page, in pixels. */
const IMAGE_SIZE = 640;

/** The image, at most so large, as a `data:` URL. */
export async function dataUrl({ data, width, height }: RgbImage): Promise<string> {
  const raw = sharp(data, { raw: { width, height, channels: 3 } });
  const small = raw.resize(IMAGE_SIZE, IMAGE_SIZE, { fit: "inside", withoutEnlargement: true });
  return `data:image/jpeg;base64,${(await small.jpeg({ quality: 85 }).toBuffer()).toString("base64")}`;
}
