/** The platform in a browser: checkpoint folders over HTTP ranges, pictures through the browser's own decoders. */
import { InputError } from "../tensor/errors.ts";
import { HttpFolder } from "../tensor/source.ts";
import { decodeImage } from "./image.browser.ts";
import type { Platform } from "./platform.ts";

export const browserPlatform: Platform = {
  openFolder: async (url) => new HttpFolder(new URL(url, globalThis.location?.href).href),

  async createFolder(path) {
    throw new InputError("NO_FILES", `${path}: a browser has no folders to write to by name`, {
      hint: "give a WritableFolder",
    });
  },

  async cacheFolder() {
    throw new InputError("NO_FILES", "cache: a browser has no folders to write to by name");
  },

  async readImage(image, name, options) {
    if (image instanceof Uint8Array) return decodeImage(image, name, options);
    const response = await fetch(image).catch((cause: unknown) => {
      throw new InputError("IMAGE_NOT_FOUND", `${image}: cannot be fetched`, { cause });
    });
    if (!response.ok) throw new InputError("IMAGE_NOT_FOUND", `${image}: HTTP status ${response.status}`);
    return decodeImage(new Uint8Array(await response.arrayBuffer()), String(image), options);
  },
};
