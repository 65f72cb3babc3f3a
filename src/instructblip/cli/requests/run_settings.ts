/**
 * The settings of a run of `generate --requests --out`, under "run" in the first line that it writes: all that its answers
 * depend on besides requests and hardware, so that a resumed run is known to be the same one.
 */
import { InputError } from "../../../tensor/errors.ts";
import type { Shard } from "../../evaluation/shards.ts";
import { isObject } from "../../evaluation/task.ts";
import type { GenerationOptions } from "../../generation/options.ts";
import type { DataOptions } from "./data_rows.ts";

type Given<T> = { readonly [K in keyof T]?: T[K] | undefined };

export interface RunSettings extends Given<DataOptions> {
  readonly version: string;
  readonly model_sha256: string;
  readonly dtype: string;
  readonly fix_vicuna_token_ids: boolean;
  readonly compute_dtype: string;
  readonly kv_cache_dtype: string;
  /** The folder's name. */
  readonly assistant?: string | undefined;
  /** The file's name; absent of a pipe. */
  readonly requests?: string | undefined;
  readonly prompt?: string | undefined;
  readonly generation: GenerationOptions;
  readonly shard: Shard;
}

/**
 * Compares a run with those that wrote a file's lines before.
 *
 * @param name of the file, for the message
 * @throws InputError RESUME_MISMATCH, with the first setting in which they differ
 */
export function checkSameRun(name: string, earlier: readonly unknown[], settings: RunSettings): void {
  const now = JSON.parse(JSON.stringify(settings)) as Record<string, unknown>;
  for (const run of earlier) {
    const before = isObject(run) ? run : {};
    const other = [...new Set([...Object.keys(now), ...Object.keys(before)])].find(
      (key) => JSON.stringify(now[key]) !== JSON.stringify(before[key]),
    );
    if (other === undefined) continue;
    const hint = "--resume continues the same run only; give another --out";
    throw new InputError("RESUME_MISMATCH", `${name} is of another run: they differ in ${other}`, { hint });
  }
}
