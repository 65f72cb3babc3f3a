/**
 * Writes a checkpoint: model.safetensors, or, if that would be too large, shards and their index. Data is requested while it is
 * written, one tensor after the other, so that only a piece of one tensor is in memory. safetensors_writer.ts writes one file.
 *
 * Source: huggingface_hub 1.x, serialization/_base.py (split_state_dict_into_shards_factory).
 */
import { DTYPES } from "../dtype.ts";
import { WeightError } from "../errors.ts";
import { sizeOf } from "../shape.ts";
import { shown } from "../shown.ts";
import { type NewFile, textFile, type WritableFolder, writeTogether } from "./file_set.ts";
import { type TensorEntry, writeSafetensors } from "./safetensors_writer.ts";

export interface WriteCheckpointOptions {
  /** Bytes, or a text such as "5GB" (5·10^9). Default "50GB", as in transformers. */
  max_shard_size?: number | string;
  /** Number of parameters, for the index. */
  total_parameters?: number;
  signal?: AbortSignal | undefined;
  /** Files that are written in the same transaction, such as the config. */
  beside?: readonly NewFile[];
}

const UNITS: Readonly<Record<string, number>> = { "": 1, TB: 1e12, GB: 1e9, MB: 1e6, KB: 1e3 };
const SINGLE = "model.safetensors";
const INDEX = "model.safetensors.index.json";
const SHARD = /^model-\d{5}-of-\d{5}\.safetensors$/;

/**
 * Writes the tensors in the given order. Each shard is filled before the next; a tensor larger than a shard gets a shard of its
 * own. Replaces the checkpoint of an earlier save; see {@link writeTogether}.
 *
 * @returns the names of the files
 * @throws WeightError SHARD_SIZE and those of {@link writeSafetensors} and {@link writeTogether}; the folder's own; the
 * signal's reason
 */
export async function writeCheckpoint(
  folder: WritableFolder,
  tensors: readonly TensorEntry[],
  { max_shard_size = "50GB", total_parameters, signal, beside = [] }: WriteCheckpointOptions = {},
): Promise<string[]> {
  const shards = split(tensors, bytesOf(max_shard_size));
  const nameOf = (i: number) =>
    shards.length === 1 ? SINGLE : `model-${fiveDigits(i + 1)}-of-${fiveDigits(shards.length)}.safetensors`;
  const weights = shards.map((shard, i): NewFile => {
    const write: NewFile["write"] = async (sink) => {
      signal?.throwIfAborted();
      await writeSafetensors(sink, shard, { format: "pt" });
    };
    return { name: nameOf(i), write };
  });
  const files = [...beside, ...weights]; // the head last: here a single file
  if (shards.length > 1) {
    const weight_map = Object.fromEntries(
      shards.flatMap((shard, i) => shard.map(({ name }) => [name, nameOf(i)])).sort(),
    );
    const total_size = tensors.reduce((sum, tensor) => sum + sizeInBytes(tensor), 0);
    const metadata = { ...(total_parameters !== undefined && { total_parameters }), total_size };
    files.push(textFile(INDEX, `${JSON.stringify({ metadata, weight_map }, null, 2)}\n`));
  }
  // The heads: loaders look for model.safetensors first, then for the index.
  const old = [SINGLE, INDEX, ...(await folder.list()).filter((file) => SHARD.test(file))];
  await writeTogether(folder, files, old);
  return weights.map(({ name }) => name);
}

function split(tensors: readonly TensorEntry[], most: number): TensorEntry[][] {
  const shards: TensorEntry[][] = [];
  let current: TensorEntry[] = [];
  let size = 0;
  for (const tensor of tensors) {
    const bytes = sizeInBytes(tensor);
    if (bytes > most) {
      shards.push([tensor]);
      continue;
    }
    if (size + bytes > most) {
      shards.push(current);
      [current, size] = [[], 0];
    }
    current.push(tensor);
    size += bytes;
  }
  if (current.length || shards.length === 0) shards.push(current);
  return shards;
}

function sizeInBytes({ dtype, shape }: TensorEntry): number {
  return sizeOf(shape) * DTYPES[dtype].bytes;
}

/** `"5GB"` -> 5e9. */
function bytesOf(size: number | string): number {
  const [, digits = "", unit = ""] = /^(\d+(?:\.\d+)?)(TB|GB|MB|KB)?$/i.exec(String(size)) ?? [];
  const bytes = Number(digits || Number.NaN) * UNITS[unit.toUpperCase()]!;
  if (!(bytes >= 1)) {
    throw new WeightError("SHARD_SIZE", `max_shard_size must be bytes or text like "5GB", got ${shown(size)}`);
  }
  return bytes;
}

const fiveDigits = (n: number) => String(n).padStart(5, "0");
