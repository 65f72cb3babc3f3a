/**
 * What differs between Node and a browser: opening a checkpoint folder and decoding a picture. An entry point
 * (index.node.ts, index.browser.ts) sets the platform; nothing else here or below knows which one it is.
 */

import type { CacheFolder } from "../modules/weight_cache.ts";
import type { WritableFolder } from "../tensor/checkpoint_writer.ts";
import { EngineError } from "../tensor/errors.ts";
import type { Folder } from "../tensor/source.ts";
import type { RgbImage } from "./image_processor.ts";

export interface Platform {
  /** A checkpoint folder by its path or Hugging Face Hub id (Node), or its URL (browser). */
  openFolder(where: string, options?: OpenFolderOptions): Promise<Folder>;
  /** A folder to write to, made if it is not there (Node). */
  createFolder(where: string): Promise<WritableFolder>;
  /** A folder for caches: that of the user (Node) for true. */
  cacheFolder(where: true | string): Promise<CacheFolder>;
  /** A picture by its path or URL, or from its file's bytes. `name` is for messages. */
  readImage(image: string | URL | Uint8Array, name: string, options?: DecodeOptions): Promise<RgbImage>;
}

/** How far one file is. */
export interface DownloadProgress {
  readonly file: string;
  /** What an earlier run had fetched counts. */
  readonly loadedBytes: number;
  readonly totalBytes: number;
}

export interface OpenFolderOptions {
  /** Called while a file of the Hugging Face Hub is downloaded. */
  on_download?: ((progress: DownloadProgress) => void) | undefined;
  /** Stops a download. */
  signal?: AbortSignal | undefined;
}

export interface DecodeOptions {
  /** Turn the picture upright by its EXIF orientation, as Pillow's `ImageOps.exif_transpose`. Default false, as in Hugging Face. */
  exif_transpose?: boolean;
}

let current: Platform | undefined;

/** Sets the platform. The last call wins. */
export function setPlatform(next: Platform): void {
  current = next;
}

/** The platform in force. */
export function platform(): Platform {
  if (!current) {
    throw new EngineError("NO_PLATFORM", "no platform is set", {
      hint: "import from the package's entry point, or call setPlatform first",
    });
  }
  return current;
}
