/**
 * The type of a fuzz target, and the names of all. The targets import the whole library, which takes a second: `targetOf` does so
 * when the first is asked for.
 */
import type { Random } from "../random.ts";
import type { Json } from "./mutate.ts";

export interface Case {
  readonly files: Readonly<Record<string, Uint8Array>>;
  readonly input: Json;
}

export interface Prepared {
  make(random: Random): Case;
  /** @returns warnings and the like: text that a person would be shown */
  run(given: Case): Promise<readonly string[]>;
}

export interface Target {
  prepare(): Promise<Prepared>;
}

/** What each target damages. */
export const ABOUT = {
  headers: "safetensors files: lengths, headers, entries, data",
  pickles: "PyTorch's files: zip archives, pickles, storages",
  adapters: "PEFT's adapters, merged into a small model's weights",
  bitsandbytes: "checkpoints that bitsandbytes quantized: scales, states, packed matrices",
  indexes: "shard indexes, and the shards they name",
  weights: "config.json against a checkpoint's tensors, on a device that holds none; nothing may stay allocated",
  configs: "config.json",
  jsons: "a processor's files: its configs, the tokenizers', the model's, and the processor's outputs",
  generation: "generation_config.json and generate()'s options",
  tokenizers: "tokenizer files of every kind, and odd texts through them",
  images: "PNG, JPEG, WebP, GIF, TIFF and others, through the processor",
  requests: "lines of --requests, and generate()'s checks of them; task files and data of evaluate",
  tasks: "task files and data lines of evaluate",
  datasets: "data sets: Parquet, Arrow, tar, JSON arrays, and the images in them",
  options: "options of processors, image processors, tokenizers and rank_answers",
} as const;

export type TargetName = keyof typeof ABOUT;

/** Whether an error is one of ours, with a code. */
export function isTyped(error: unknown): error is Error & { code: string; hint?: string } {
  return (
    error instanceof Error &&
    /^[A-Z_0-9]+$/.test(String((error as { code?: unknown }).code)) &&
    error.name.endsWith("Error") &&
    "hint" in error
  );
}

/** What the harness itself is tested with: a case is what its number says. Not run unless it is asked for. */
const selftest: Target = {
  prepare: async () => ({
    make: (random) => ({ files: { bytes: Uint8Array.of(1, 2, 3) }, input: random.int(0, 6) }),
    async run({ input }) {
      if (input === 0) throw new TypeError("not typed");
      if (input === 1) for (;;);
      if (input === 2) process.abort();
      if (input === 3) return ["\u202e"];
      if (input === 4) return ["x".repeat(10_000)];
      return [];
    },
  }),
};

/** @throws Error for a name that is not known */
export function checkTarget(name: string): asserts name is TargetName | "selftest" {
  if (!Object.hasOwn(ABOUT, name) && name !== "selftest")
    throw new Error(`there is no target ${name}; there are ${Object.keys(ABOUT).join(", ")}`);
}

/** A target by its name. @throws Error for a name that is not known */
export async function targetOf(name: string): Promise<Target> {
  checkTarget(name);
  return name === "selftest" ? selftest : (await import("./targets.ts")).TARGETS[name];
}
