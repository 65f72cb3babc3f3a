/**
 * LoRA adapters of PEFT, merged into the weights while they are read: W + scale · B A, summed in f64, rounded to f32 and from that to the weight's dtype.
 *
 * Source: peft 0.21, tuners/lora/layer.py (get_delta_weight), tuners/lora/model.py (scaling), utils/save_and_load.py (names).
 */
import { DTYPES, type FloatDType, narrow, widen } from "../../../tensor/dtype.ts";
import { WeightError } from "../../../tensor/errors.ts";
import { Checkpoint } from "../../../tensor/files/checkpoint.ts";
import type { DerivedTensor, TensorFile, TensorInfo } from "../../../tensor/files/tensor_file.ts";
import { formatShape } from "../../../tensor/shape.ts";
import { quote, shown } from "../../../tensor/shown.ts";
import type { VisionLanguageConfig } from "../../config/config.ts";
import type { JsonRecord } from "../../config/json_file.ts";
import type { JsonFolder } from "../../config/json_folder.ts";

const CONFIG = "adapter_config.json";
const FILES = ["adapter_model.safetensors", "adapter_model.bin"];
const PREFIX = "base_model.model.";

/** Fields that change what is merged, with the values that do not. */
const UNSUPPORTED: Readonly<Record<string, readonly unknown[]>> = {
  use_dora: [false],
  lora_bias: [false],
  use_qalora: [false],
  layer_replication: [],
  target_parameters: [],
  trainable_token_indices: [],
  alora_invocation_tokens: [],
  arrow_config: [],
  use_bdlora: [false],
};
/** Initializations that leave the base model's weights as they are; others change them. */
const INITIALIZATIONS: readonly unknown[] = [true, false, "gaussian", "eva", "orthogonal"];

/** Tables of a language model that may be one, under each of their names. */
const TABLES = {
  llama: ["model.embed_tokens", "lm_head"],
  opt: ["model.decoder.embed_tokens", "lm_head"],
  t5: ["shared", "encoder.embed_tokens", "decoder.embed_tokens", "lm_head"],
} as const;

/** The two factors of a module's change, by the end of their names. */
const FACTOR = /^(.*)\.lora_(embedding_)?([AB])(?:\.weight)?$/;

interface Change {
  readonly target: string;
  readonly isEmbedding: boolean;
  A?: TensorInfo;
  B?: TensorInfo;
}

/**
 * The checkpoint with an adapter merged into it. Modules that the adapter has whole (`modules_to_save`, biases) replace the
 * checkpoint's. Closes both.
 *
 * @param model_config which says what tables are one: they are changed under each of their names
 * @throws WeightError ADAPTER; as Checkpoint.open
 */
export async function withAdapter(
  checkpoint: Checkpoint,
  folder: JsonFolder,
  model_config: VisionLanguageConfig,
): Promise<Checkpoint> {
  const refuse = (message: string, hint = MERGE): never => {
    throw new WeightError("ADAPTER", `${folder.name}: ${message}`, { hint });
  };
  const config =
    (await folder.json(CONFIG)) ?? refuse(`there is no ${CONFIG}`, "is this the folder of an adapter of PEFT?");
  checkConfig(config, refuse);
  const adapter = await Checkpoint.open(folder, {}, FILES);
  try {
    if (adapter.tensors.size === 0) refuse("it has no tensors", "was it saved before it was trained?");
    const changes = new Map<string, Change>();
    const whole = new Map<string, string>();
    for (const info of adapter.tensors.values()) {
      if (!info.name.startsWith(PREFIX)) refuse(`${quote(info.name)} is no name of PEFT's`);
      const name = info.name.slice(PREFIX.length);
      const [, module, embedding, factor] = FACTOR.exec(name) ?? [];
      if (module === undefined) {
        const target = name.replace(/\.(base_layer|modules_to_save(\.default)?)\./, ".");
        if (/\.(lora|token_adapter)_?/.test(target)) refuse(`${quote(info.name)} is of a kind that is not merged`);
        whole.set(info.name, target);
        continue;
      }
      const target = `${module}.weight`;
      const change = changes.get(target) ?? { target, isEmbedding: embedding !== undefined };
      change[factor as "A" | "B"] = info;
      changes.set(target, change);
    }
    const tied = tiedNames(model_config);
    /** The checkpoint's names of what an adapter calls `target`. */
    const namesOf = (target: string): string[] => {
      const names = tied.includes(target) ? tied : [target];
      const present = names.filter((name) => checkpoint.tensors.has(name));
      if (present.length) return present;
      return refuse(`it is for ${quote(target)}, which the checkpoint has not`, "is it an adapter of this model?");
    };
    const changed = new Map<string, Change>();
    for (const change of changes.values()) {
      for (const name of namesOf(change.target)) {
        if (changed.has(name))
          refuse(`it changes ${quote(name)} twice, as it is one table with ${quote(change.target)}`);
        changed.set(name, change);
      }
    }
    const given = new Map<string, string[]>();
    const replaced = new Set<string>();
    for (const [key, target] of whole) {
      const names = namesOf(target);
      if (tied.includes(target) && isSaved(target, config)) {
        refuse(`modules_to_save has ${quote(target)}, which the model has as one table with others`);
      }
      for (const name of names) {
        if (replaced.has(name)) refuse(`it has ${quote(name)} twice, as it is one table with ${quote(target)}`);
        replaced.add(name);
      }
      given.set(key, names);
    }
    const kept = checkpoint.map((file) =>
      file.with([...file.tensors.values()].filter(({ name }) => !replaced.has(name))),
    );
    const own = adapter.map((file) =>
      file.with(
        [...file.tensors.values()].flatMap((info) => (given.get(info.name) ?? []).map((name) => ({ ...info, name }))),
      ),
    );
    const merged = (file: TensorFile) => mergedFile(file, changed, adapter, config, refuse);
    const isDouble = [...adapter.tensors.values()].some(({ name, dtype }) => dtype === "f64" && !whole.has(name));
    const notes = isDouble ? [`${folder.name}: the adapter's f64 numbers are rounded to f32`] : [];
    return kept.over(own).map(merged, [JSON.stringify(config)], notes);
  } catch (error) {
    await adapter.close();
    throw error;
  }
}

const MERGE = "merge it in Python: PEFT's merge_and_unload(), then save_pretrained()";

function checkConfig(config: JsonRecord, refuse: (message: string, hint?: string) => never): void {
  const { peft_type, init_lora_weights = true } = config;
  if (peft_type !== "LORA") refuse(`${CONFIG}: peft_type is ${shown(peft_type)}; LORA is merged`);
  for (const [field, values] of Object.entries(UNSUPPORTED)) {
    const value = config[field];
    const isEmpty = value === undefined || value === null || (Array.isArray(value) && value.length === 0);
    if (!isEmpty && !values.includes(value)) refuse(`${CONFIG}: ${field} is ${shown(value)}, which is not merged`);
  }
  if (init_lora_weights !== null && !INITIALIZATIONS.includes(init_lora_weights)) {
    refuse(`${CONFIG}: init_lora_weights is ${shown(init_lora_weights)}, which changes the base model's weights`);
  }
}

/** Names of tables that are one tensor in the model. PyTorch's files have it under each name, safetensors under the first. */
function tiedNames({ text_config }: VisionLanguageConfig): string[] {
  const { model_type, tie_word_embeddings } = text_config as VisionLanguageConfig["text_config"] & {
    readonly tie_word_embeddings?: boolean | null;
  };
  // T5's input tables are one in any case.
  const names = TABLES[model_type].filter((name) => name !== "lm_head" || tie_word_embeddings !== false);
  return names.map((name) => `language_model.${name}.weight`);
}

/** Whether a parameter is of one of modules_to_save. */
function isSaved(target: string, { modules_to_save }: JsonRecord): boolean {
  const module = target.replace(/\.\w+$/, "");
  const names: unknown[] = Array.isArray(modules_to_save) ? modules_to_save : [];
  return names.some((name) => module === name || module.endsWith(`.${name}`));
}

/** A file with its matrices merged. */
function mergedFile(
  file: TensorFile,
  changes: ReadonlyMap<string, Change>,
  adapter: Checkpoint,
  config: JsonRecord,
  refuse: (message: string, hint?: string) => never,
): TensorFile {
  const tensors: TensorInfo[] = [];
  const derived: DerivedTensor[] = [];
  for (const info of file.tensors.values()) {
    const change = changes.get(info.name);
    if (change) derived.push(mergedTensor(file, info, change, adapter, config, refuse));
    else tensors.push(info);
  }
  return file.with(tensors, derived);
}

function mergedTensor(
  file: TensorFile,
  info: TensorInfo,
  { target, isEmbedding, A, B }: Change,
  adapter: Checkpoint,
  config: JsonRecord,
  refuse: (message: string, hint?: string) => never,
): DerivedTensor {
  if (!A || !B) return refuse(`${quote(target)}: one of its two factors is missing`);
  const { dtype, shape } = info;
  const [N = 0, ...inner] = shape;
  const K = inner.reduce((a, b) => a * b, 1);
  const rank = A.shape[0] ?? 0;
  const sizeOf = ({ shape }: TensorInfo) => shape.reduce((a, b) => a * b, 1);
  const fits =
    B.shape[0] === (isEmbedding ? K : N) &&
    sizeOf(A) === rank * (isEmbedding ? N : K) &&
    sizeOf(B) === rank * B.shape[0];
  if (!fits || rank === 0) {
    return refuse(
      `${quote(target)}: ${formatShape(B.shape)} by ${formatShape(A.shape)} is no change of ${formatShape(shape)}`,
    );
  }
  for (const { name, dtype } of [info, A, B]) {
    const isFactor = name !== info.name;
    if (dtype !== "f32" && dtype !== "f16" && dtype !== "bf16" && !(isFactor && dtype === "f64")) {
      refuse(`${quote(name)}: its dtype is ${dtype}`);
    }
  }
  const scale = scaleOf(target.slice(0, -".weight".length), rank, config, refuse);
  /** The change is U V: f32[N, rank] and f32[rank, K], row by row. */
  const load = async () => {
    const [a, b] = [await floats(adapter, A), await floats(adapter, B)];
    return isEmbedding ? { U: transposed(a, rank, N), V: transposed(b, K, rank) } : { U: b, V: a };
  };
  let factors: ReturnType<typeof load> | undefined;
  const element = DTYPES[dtype as FloatDType].bytes;
  const size = info.end - info.begin;
  return {
    ...{ name: info.name, dtype, shape, size },
    async read(byteOffset, into) {
      factors ??= load();
      const [{ U, V }] = await Promise.all([factors, file.readRaw(info.begin + byteOffset, into)]);
      if (byteOffset + into.length === size) factors = undefined; // the last piece
      const numbers = widen(into, dtype as FloatDType);
      addProduct(numbers, byteOffset / element, K, rank, U, V, scale);
      const rounded = dtype === "f32" ? numbers : narrow(numbers, dtype as "f16" | "bf16");
      into.set(new Uint8Array(rounded.buffer, rounded.byteOffset, into.length));
    },
  };
}

/** Adds `scale` U V to the numbers of a matrix [N, K] from its element `first`. Sums are f64. */
function addProduct(
  numbers: Float32Array,
  first: number,
  K: number,
  rank: number,
  U: Float32Array,
  V: Float32Array,
  scale: number,
): void {
  const sums = new Float64Array(K);
  for (let at = 0; at < numbers.length; ) {
    const [n, from] = [Math.floor((first + at) / K), (first + at) % K];
    const count = Math.min(K - from, numbers.length - at);
    sums.fill(0, 0, count);
    for (let j = 0; j < rank; j++) {
      const u = U[n * rank + j]!;
      const row = j * K + from;
      for (let k = 0; k < count; k++) sums[k]! += u * V[row + k]!;
    }
    for (let k = 0; k < count; k++, at++) numbers[at] = numbers[at]! + scale * sums[k]!;
  }
}

async function floats(adapter: Checkpoint, { name, dtype }: TensorInfo): Promise<Float32Array> {
  const bytes = await adapter.read(name);
  return dtype === "f64" ? Float32Array.from(new Float64Array(bytes.buffer)) : widen(bytes, dtype as FloatDType);
}

function transposed(numbers: Float32Array, N: number, K: number): Float32Array {
  const out = new Float32Array(numbers.length);
  for (let n = 0; n < N; n++) for (let k = 0; k < K; k++) out[k * N + n] = numbers[n * K + k]!;
  return out;
}

/** `lora_alpha` / rank, or by its root with rsLoRA; both may be given by module. */
function scaleOf(module: string, rank: number, config: JsonRecord, refuse: (message: string) => never): number {
  const given = (field: string, pattern: string): number => {
    const value = byModule(config[pattern], module, pattern, refuse) ?? config[field];
    if (typeof value === "number" && Number.isFinite(value)) return value;
    return refuse(`${CONFIG}: ${field} must be a number, got ${shown(value)}`);
  };
  const r = given("r", "rank_pattern");
  if (r !== rank) refuse(`${CONFIG}: the rank of ${quote(module)} is ${r}, its matrices have ${rank}`);
  return given("lora_alpha", "alpha_pattern") / (config.use_rslora === true ? Math.sqrt(r) : r);
}

/** The value of the first name in a pattern that a module ends with. Regular expressions are not run: they may take for ever. */
function byModule(pattern: unknown, module: string, field: string, refuse: (message: string) => never): unknown {
  if (pattern === undefined || pattern === null) return undefined;
  if (typeof pattern !== "object" || Array.isArray(pattern)) {
    return refuse(`${CONFIG}: ${field} must be an object, got ${shown(pattern)}`);
  }
  for (const [key, value] of Object.entries(pattern)) {
    const [, start, name] = /^(\^?)((?:[\w-]|\\?\.)+)$/.exec(key) ?? [];
    if (name === undefined) return refuse(`${CONFIG}: ${field}: ${quote(key)} is a regular expression; names are read`);
    const plain = name.replaceAll("\\.", ".");
    if (module === plain || (start === "" && module.endsWith(`.${plain}`))) return value;
  }
  return undefined;
}
