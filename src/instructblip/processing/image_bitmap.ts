/**
 * Pixels of an image that a browser has decoded: no colour conversion, alpha dropped without compositing. They are read with
 * WebGL 2, because a 2D canvas premultiplies colours by alpha; without WebGL, or for an image that is too large for it, a
 * canvas is used, with that loss.
 */
import { InputError } from "../../tensor/errors.ts";
import { type RgbImage, withoutAlpha } from "./image.ts";

/** Decodes an image without colour conversion and premultiplication. */
const AS_STORED = { colorSpaceConversion: "none", premultiplyAlpha: "none" } as const;

/** @throws the browser's error: the image is damaged, or has no pixels */
export function bitmapOf(source: ImageBitmapSource): Promise<ImageBitmap> {
  return createImageBitmap(source, AS_STORED);
}

/** u8[H, W, 3] of a bitmap. @throws InputError IMAGE_TOO_LARGE; a SecurityError */
export function rgbOf(bitmap: ImageBitmap, name: string): RgbImage {
  const { width, height } = bitmap;
  return { width, height, data: withoutAlpha(rgbaOf(bitmap, name)) };
}

/** u8[H, W, 4] of a bitmap. @throws InputError IMAGE_TOO_LARGE; a SecurityError */
export function rgbaOf(bitmap: ImageBitmap, name: string): Uint8Array | Uint8ClampedArray {
  const rgba = readByWebGL(bitmap) ?? readByCanvas(bitmap);
  if (rgba) return rgba;
  const { width, height } = bitmap;
  throw new InputError("IMAGE_TOO_LARGE", `${name}: this browser cannot read ${width} x ${height} pixels`);
}

function readByWebGL(bitmap: ImageBitmap): Uint8Array | undefined {
  const { width, height } = bitmap;
  const gl = new OffscreenCanvas(1, 1).getContext("webgl2");
  if (!gl) return undefined;
  try {
    if (Math.max(width, height) > gl.getParameter(gl.MAX_TEXTURE_SIZE)) return undefined;
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
    return gl.getError() === gl.NO_ERROR ? rgba : undefined;
  } finally {
    // A page has only a few contexts at a time.
    gl.getExtension("WEBGL_lose_context")?.loseContext();
  }
}

function readByCanvas(bitmap: ImageBitmap): Uint8ClampedArray | undefined {
  const { width, height } = bitmap;
  try {
    const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
    context?.drawImage(bitmap, 0, 0);
    return context?.getImageData(0, 0, width, height).data;
  } catch (cause) {
    if (cause instanceof DOMException && cause.name === "SecurityError") throw cause;
    return undefined; // a canvas has a largest size too
  }
}
