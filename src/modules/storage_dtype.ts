/**
 * Storage dtype of matrices on the GPU: one dtype for all, or one for each submodule. Arithmetic is f32 in
 * every case, and other parameters (norms, biases, learned queries) are always f32.
 */
import type { FloatDType, WeightDType } from "../tensor/dtype.ts";
import { InputError, nearest } from "../tensor/errors.ts";
import { isQuantized } from "../tensor/quantize.ts";
import { quote, shown } from "../tensor/shown.ts";

/** `"auto"`: as in the file. */
export const STORAGE_DTYPES = ["auto", "f32", "f16", "bf16", "int8", "int4"] as const satisfies (
  | "auto"
  | WeightDType
)[];
export type OneDType = (typeof STORAGE_DTYPES)[number];

/** Number types of the key/value cache; see kv_cache.ts. */
export const KV_CACHE_DTYPES = ["f32", "f16"] as const satisfies WeightDType[];
export type KVCacheDType = (typeof KV_CACHE_DTYPES)[number];

/**
 * One for all, or by module: `{ language_model: "int4", vision_model: "f16" }`, the longest matching name decides, as in `{
 * language_model: "int4", "language_model.lm_head": "f16" }`. Other matrices are stored as in the file.
 */
export type StorageDType = OneDType | Readonly<Record<string, OneDType>>;

/**
 * Embedding tables and the head, which are int8 where int4 is requested, unless they are named themselves. A precaution as
 * in llama.cpp, whose 4-bit mixes keep them at 6 bits; the embedded checkpoint shows no difference, mean KL 6e-6 and 5e-6
 * (npm run quality). Of Vicuna-7B it costs 0.1 GB of 4.2.
 */
const TABLES = /(^|\.)(lm_head|shared|embed_tokens|embed_positions|word_embeddings|position_embeddings)\.weight$/;
/** Biases of attention scores: a matrix only by its shape. */
const SCORES = /\.relative_attention_bias\.weight$/;

/** PyTorch's and Hugging Face's names, also as `torch.float16`. */
const ALIASES = {
  float32: "f32",
  float: "f32",
  fp32: "f32",
  float16: "f16",
  half: "f16",
  fp16: "f16",
  bfloat16: "bf16",
} as const satisfies Record<string, OneDType>;
type Alias = keyof typeof ALIASES;
/** A dtype by any of its names. */
export type NamedDType = OneDType | Alias | `torch.${Alias}`;

/** Replaces PyTorch's names of dtypes by ours. An unknown name is left for {@link checkStorage} to refuse. */
export function readStorage(choice: NamedDType | Readonly<Record<string, NamedDType>>): StorageDType {
  const read = (name: unknown): OneDType => {
    if (typeof name !== "string") return name as OneDType;
    const bare = name.replace(/^torch\./, "");
    return Object.hasOwn(ALIASES, bare) ? ALIASES[bare as Alias] : (name as OneDType);
  };
  if (typeof choice !== "object" || choice === null) return read(choice);
  return Object.fromEntries(Object.entries(choice).map(([name, dtype]) => [name, read(dtype)]));
}

/** The storage dtype of the matrix `name`, whose dtype in the file is `loaded`. */
export function storageOf(choice: StorageDType, name: string, loaded: FloatDType): WeightDType {
  let dtype: OneDType = "auto";
  let module = "";
  if (typeof choice === "string") dtype = choice;
  else {
    for (const [part, stored] of Object.entries(choice)) {
      if (part.length > module.length && name.startsWith(`${part}.`)) [module, dtype] = [part, stored];
    }
  }
  if (dtype === "auto" || (isQuantized(dtype) && SCORES.test(name))) return loaded;
  return dtype === "int4" && TABLES.test(name) && name !== `${module}.weight` ? "int8" : dtype;
}

/** @throws InputError DTYPE, PART: a dtype, or a module, that does not exist; `names` are the checkpoint's */
export function checkStorage(choice: StorageDType, names: Iterable<string>): void {
  const dtypes: readonly string[] = STORAGE_DTYPES;
  const given = typeof choice === "object" && choice !== null ? Object.values(choice) : [choice];
  for (const dtype of given) {
    if (!dtypes.includes(dtype)) {
      const meant = typeof dtype === "string" && nearest(dtype, dtypes);
      throw new InputError("DTYPE", `dtype: unknown dtype ${shown(dtype)}`, {
        hint: meant ? `did you mean ${meant}?` : `dtypes: ${dtypes.join(", ")}`,
      });
    }
  }
  if (typeof choice === "string") return;
  const modules = new Set<string>();
  for (const name of names) {
    for (let end = name.lastIndexOf("."); end > 0; end = name.lastIndexOf(".", end - 1))
      modules.add(name.slice(0, end));
  }
  for (const key of Object.keys(choice)) {
    if (modules.has(key)) continue;
    const outermost = [...modules].filter((module) => !module.includes("."));
    const meant = nearest(key, outermost) ?? nearest(key, modules);
    throw new InputError("DTYPE_PATH", `dtype: the model has no module ${quote(key)}`, {
      hint: meant === undefined ? `modules: ${outermost.join(", ")}` : `did you mean ${meant}?`,
    });
  }
}

/** Reads `int8`, or `language_model=int4,vision_model=f16`. @throws InputError DTYPE */
export function parseStorage(text: string): StorageDType {
  const pairs = text.split(",").map((pair) => pair.split("=").map((word) => word.trim()));
  const all = !/[,=]/.test(text);
  if (!all && pairs.some((pair) => pair.length !== 2 || pair.includes(""))) {
    throw new InputError("DTYPE", `dtype: ${quote(text)} is neither a dtype nor a list of module=dtype`);
  }
  const names = pairs.map(([name]) => name);
  const twice = names.find((name, i) => names.indexOf(name) < i);
  if (twice !== undefined) throw new InputError("DTYPE", `dtype: "${twice}" is given twice`);
  const choice = readStorage(all ? text.trim() : Object.fromEntries(pairs));
  checkStorage(
    choice,
    names.map((name) => `${name}.weight`), // the modules are checked against the checkpoint
  );
  return choice;
}

/** The inverse of {@link parseStorage}. */
export function formatStorage(choice: StorageDType): string {
  if (typeof choice === "string") return choice;
  return Object.entries(choice)
    .map(([module, dtype]) => `${module}=${dtype}`)
    .join(",");
}
