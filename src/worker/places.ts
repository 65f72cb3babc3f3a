/** Where a page has a checkpoint and its parts, in the worker: folders to load from. */
import type { PretrainedFrom } from "../instructblip/pretrained/from_pretrained.ts";
import type { OpenFolderOptions } from "../instructblip/pretrained/hub/hub.ts";
import { ModelFolder } from "../instructblip/pretrained/model_folder.ts";
import { OpfsCache } from "../instructblip/pretrained/opfs/opfs_cache.ts";
import { InputError } from "../tensor/errors.ts";
import { HandleFolder } from "../tensor/files/handle_folder.ts";
import { FileListFolder, type Folder, HttpFolder } from "../tensor/files/source.ts";
import type { Place } from "./messages.ts";

/** Options of from_pretrained() of which some are places. */
interface Placed extends OpenFolderOptions {
  readonly base_model?: Place | undefined;
  readonly adapter?: readonly Place[] | undefined;
}

/** The arguments of from_pretrained() for a place. Options of where files come from are of a URL with its files, too. */
export async function placed(from: Place, options: object): Promise<[PretrainedFrom, object]> {
  const { base_model, adapter, ...rest } = options as Placed;
  const part = async (place: Place): Promise<PretrainedFrom> => {
    if (typeof place !== "string") return folderOf(place, rest);
    // The options are the checkpoint's, which opens its parts with them, unless it is a folder.
    return typeof from === "string" ? place : ModelFolder.open(place, openingOf(rest));
  };
  const parts = {
    ...(adapter && { adapter: await Promise.all(adapter.map(part)) }),
    ...(base_model !== undefined && { base_model: await part(base_model) }),
  };
  if (typeof from === "string") return [from, { ...rest, ...parts }];
  const { cache, on_download, local_files_only, ...others } = rest;
  const isServed = "url" in from;
  return [await folderOf(from, rest), { ...(isServed ? others : rest), ...parts }];
}

function openingOf({ token, local_files_only, cache, endpoint, on_download, signal }: Placed): OpenFolderOptions {
  return { token, local_files_only, cache, endpoint, on_download, signal };
}

async function folderOf(from: Exclude<Place, string>, options: OpenFolderOptions): Promise<Folder> {
  if (!("url" in from || "chosen" in from)) return new HandleFolder(from);
  if ("chosen" in from) {
    const files = from.chosen.map(({ path, file }) => {
      // Not every browser posts it with the file.
      return Object.defineProperty(file, "webkitRelativePath", { value: `folder/${path}` });
    });
    return new FileListFolder(files);
  }
  const { cache, on_download, local_files_only, signal } = options;
  const http = {
    ...(from.files && { files: from.files }),
    ...(from.headers && { headers: from.headers }),
    ...(signal && { signal }),
  };
  if (cache === undefined || cache === null) return new HttpFolder(from.url, http);
  if (cache !== "opfs") throw new InputError("BAD_INPUT", 'from_pretrained: cache must be "opfs"');
  try {
    return await (await OpfsCache.open()).folder(from.url, { ...http, on_download, local_files_only });
  } catch (error) {
    return new HttpFolder(from.url, http, [`files are not kept: ${(error as Error).message}`]);
  }
}
