/**
 * Decodes pictures in a browser to the bytes of image.node.ts: no colour conversion, alpha dropped without compositing, EXIF
 * orientation ignored unless asked for. Pixels are read through WebGL 2, because a 2D canvas multiplies colour by alpha and
 * cannot give it back; where there is no WebGL, or the picture is too large for it, the canvas serves, with that loss.
 * In Chromium 147 and 156 all kinds of files come out as from Pillow but for image.node.ts's two, and CMYK, which differs by 1.
 */
import { InputError } from "../tensor/errors.ts";
import { endsEarly, opaqueGif, readImageHeader, withoutExif } from "./image_format.ts";
import type { RgbImage } from "./image_processor.ts";
import type { DecodeOptions } from "./platform.ts";

/**
 * Decodes PNG, JPEG, WebP or the first frame of a GIF to u8[H, W, 3].
 *
 * @param name for messages
 * @throws InputError IMAGE_TRUNCATED, IMAGE_FORMAT, UNSUPPORTED_JPEG, IMAGE_TOO_LARGE, IMAGE_CORRUPT
 */
export async function decodeImage(bytes: Uint8Array, name: string, options: DecodeOptions = {}): Promise<RgbImage> {
  const { format } = readImageHeader(bytes, name);
  // Browsers turn the picture whatever imageOrientation says, so what they go by is taken out.
  const stored = options.exif_transpose ? bytes : withoutExif(bytes, format);
  const input = format === "gif" ? opaqueGif(stored) : stored;
  const bitmap = await createImageBitmap(new Blob([input as BlobPart]), {
    colorSpaceConversion: "none",
    premultiplyAlpha: "none",
  }).catch(() => {
    const what = format.toUpperCase();
    if (endsEarly(bytes, format)) {
      throw new InputError("IMAGE_TRUNCATED", `${name}: the ${what} ends before its picture does`);
    }
    throw new InputError("IMAGE_CORRUPT", `${name}: the ${what} is damaged and cannot be decoded`);
  });
  const { width, height } = bitmap;
  const rgba = readByWebGL(bitmap) ?? readByCanvas(bitmap);
  bitmap.close();
  if (!rgba) throw new InputError("IMAGE_TOO_LARGE", `${name}: this browser cannot read ${width} x ${height} pixels`);
  const data = new Uint8Array(width * height * 3);
  for (let from = 0, to = 0; to < data.length; from += 4) {
    data[to++] = rgba[from];
    data[to++] = rgba[from + 1];
    data[to++] = rgba[from + 2];
  }
  return { width, height, data };
}

function readByWebGL(bitmap: ImageBitmap): Uint8Array | undefined {
  const { width, height } = bitmap;
  const gl = new OffscreenCanvas(1, 1).getContext("webgl2");
  if (!gl || Math.max(width, height) > gl.getParameter(gl.MAX_TEXTURE_SIZE)) return undefined;
  gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA8, gl.RGBA, gl.UNSIGNED_BYTE, bitmap);
  gl.bindFramebuffer(gl.FRAMEBUFFER, gl.createFramebuffer());
  gl.framebufferTexture2D(
    gl.FRAMEBUFFER,
    gl.COLOR_ATTACHMENT0,
    gl.TEXTURE_2D,
    gl.getParameter(gl.TEXTURE_BINDING_2D),
    0,
  );
  const rgba = new Uint8Array(width * height * 4);
  gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, rgba);
  const failed = gl.getError() !== gl.NO_ERROR;
  // A page has only a few contexts at a time.
  gl.getExtension("WEBGL_lose_context")?.loseContext();
  return failed ? undefined : rgba;
}

function readByCanvas(bitmap: ImageBitmap): Uint8ClampedArray | undefined {
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context?.drawImage(bitmap, 0, 0);
  try {
    return context?.getImageData(0, 0, width, height).data;
  } catch {
    return undefined; // a canvas has a largest size too
  }
}
