/**
 * The platform interface, for what differs between Node and a browser: opening a checkpoint folder and decoding an image.
 * Node's entry point (index.node.ts) sets a platform; the default is a browser. No other file here or in lower layers
 * depends on the platform.
 *
 * The functions below are separate exports, and importing this file has no side effect, so that a page that uses configs
 * only is bundled without image decoders.
 */

import type { CacheFolder } from "../../modules/weight_cache.ts";
import { InputError } from "../../tensor/errors.ts";
import type { WritableFolder } from "../../tensor/files/file_set.ts";
import type { Folder } from "../../tensor/files/source.ts";
import { shown } from "../../tensor/shown.ts";
import type { DecodeOptions, RgbImage } from "../processing/image.ts";
import type { OpenFolderOptions } from "./hub/hub.ts";
import * as browser from "./platform.browser.ts";

export interface Platform {
  /** A checkpoint folder by its path or Hugging Face Hub id (Node), or by a URL: of the Hub, or of another server. */
  openFolder(where: string, options?: OpenFolderOptions): Promise<Folder>;
  /** A folder to write to, created if needed (Node). */
  createFolder(where: string): Promise<WritableFolder>;
  /** A cache folder: for true that of the user (Node), or of the page's origin (a browser). */
  cacheFolder(where: true | string): Promise<CacheFolder>;
  /** An image by its path or URL, or from its file's bytes. `name` is for messages. */
  readImage(image: string | URL | Uint8Array, name: string, options?: DecodeOptions): Promise<RgbImage>;
}

let current: Platform | undefined;

/** Sets the platform; undefined: a browser. The last call wins. */
export function setPlatform(next: Platform | undefined): void {
  current = next;
}

/** {@link Platform.openFolder} of the current platform. */
export function openFolder(where: string, options?: OpenFolderOptions): Promise<Folder> {
  return current ? current.openFolder(where, options) : browser.openFolder(where, options);
}

/**
 * {@link Platform.createFolder} of the current platform; a Folder is returned unchanged. @throws InputError BAD_INPUT,
 * NO_FILES
 */
export async function createFolder(where: string | WritableFolder): Promise<WritableFolder> {
  const isPath = typeof where === "string" && where !== "";
  if (isPath) return current ? current.createFolder(where) : browser.createFolder(where);
  if (typeof where === "object" && typeof where?.write === "function" && typeof where.writeText === "function")
    return where;
  throw new InputError("BAD_INPUT", `a folder to save to must be a path or a WritableFolder, got ${shown(where)}`);
}

/** {@link Platform.cacheFolder} of the current platform. */
export function cacheFolder(where: true | string): Promise<CacheFolder> {
  return current ? current.cacheFolder(where) : browser.cacheFolder(where);
}

/** {@link Platform.readImage} of the current platform. */
export function readImage(image: string | URL | Uint8Array, name: string, options?: DecodeOptions): Promise<RgbImage> {
  return current ? current.readImage(image, name, options) : browser.readImage(image, name, options);
}
