/**
 * Which modules need more bits than a dtype gives them, so that the logits' error meets a gate: those whose own error moves the
 * logits most, as few of them as will do.
 */
import { type OneDType, type StorageDType, storageOf } from "../../modules/storage_dtype.ts";
import type { FloatDType } from "../../tensor/dtype.ts";

/** Dtypes of weights by their bits. What needs more is tried as those of LADDER, from the first. */
const RANKS: readonly string[] = ["int4", "int8", "bf16", "f16", "f32"] satisfies OneDType[];
const LADDER = ["int8", "f16", "f32"] as const satisfies OneDType[];

/** A module with a matrix of its own. */
export interface MatrixModule {
  readonly path: string;
  /** NMSE of its output, given the reference's input. */
  readonly error: number;
  /** NMSE of the logits if all else is right. */
  readonly effect: number;
}

export interface PrecisionSearch {
  /** The dtype that is too coarse. */
  readonly dtype: StorageDType;
  /** Parts of the model that have matrices: `vision_model`, … */
  readonly parts: readonly string[];
  /** Called if the gate is not met as it is. */
  readonly modules: () => Promise<readonly MatrixModule[]>;
  /** Of every module's matrix in the file. */
  readonly loaded: (path: string) => FloatDType;
  /** Largest NMSE of the logits. */
  readonly gate: number;
  /** Runs the model; the NMSE of its logits. */
  readonly errorOf: (dtype: StorageDType) => Promise<number>;
}

export interface Precision {
  readonly gate: number;
  /** NMSE of the logits with the dtype that was asked about. */
  readonly before: number;
  /** Runs of the model. */
  readonly tries: number;
  /** Absent if the gate is met as it is, or cannot be met. */
  readonly found?: {
    /** What the modules are stored as. */
    readonly more: OneDType;
    readonly modules: readonly MatrixModule[];
    readonly error: number;
    readonly dtype: Readonly<Record<string, OneDType>>;
  };
}

/**
 * Takes the smallest number of modules, those of the largest effect first, found by bisection: a model is loaded for each try, some
 * log2(modules) + 2 times. More modules with more bits are taken to give a smaller error.
 */
export async function findPrecision(search: PrecisionSearch): Promise<Precision> {
  const { dtype, parts, gate, loaded } = search;
  let tries = 0;
  const errorOf = (choice: StorageDType) => {
    tries++;
    return search.errorOf(choice);
  };
  const before = await errorOf(dtype);
  if (before <= gate) return { gate, before, tries };
  const base = typeof dtype === "string" ? Object.fromEntries(parts.map((part) => [part, dtype])) : dtype;
  const modules = [...(await search.modules())].sort((a, b) => b.effect - a.effect);
  const rankOf = (path: string) => RANKS.indexOf(storageOf(dtype, `${path}.weight`, loaded(path)));
  for (const more of LADDER) {
    const candidates = modules.filter(({ path }) => rankOf(path) < RANKS.indexOf(more));
    if (candidates.length === 0) continue;
    const choiceOf = (count: number) => ({
      ...base,
      ...Object.fromEntries(candidates.slice(0, count).map(({ path }) => [path, more])),
    });
    let [enough, error] = [candidates.length, await errorOf(choiceOf(candidates.length))];
    if (!(error <= gate)) continue;
    for (let tooFew = 0; enough - tooFew > 1; ) {
      const middle = Math.floor((tooFew + enough) / 2);
      const tried = await errorOf(choiceOf(middle));
      if (tried <= gate) [enough, error] = [middle, tried];
      else tooFew = middle;
    }
    return {
      gate,
      before,
      tries,
      found: { more, modules: candidates.slice(0, enough), error, dtype: choiceOf(enough) },
    };
  }
  return { gate, before, tries };
}
