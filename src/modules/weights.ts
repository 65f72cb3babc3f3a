/**
 * The parameters of a checkpoint, by path. Modules ask for their parameters in their constructors: each name and shape is checked
 * against the file's header, and the parameter is allocated. `load` then streams the data in file order through one small
 * buffer. A missing tensor throws; `leftovers` lists tensors that no module has asked for.
 */
import type { Call } from "../tensor/device/call.ts";
import { type ComputeDType, DTYPES, type FloatDType } from "../tensor/dtype.ts";
import { nearest, WeightError } from "../tensor/errors.ts";
import type { Checkpoint } from "../tensor/files/checkpoint.ts";
import type { TensorEntry } from "../tensor/files/safetensors_writer.ts";
import { contiguous } from "../tensor/ops/copy.ts";
import { isQuantized, rowBytes } from "../tensor/quantize.ts";
import { formatShape, type Shape, sameShape } from "../tensor/shape.ts";
import { atSite, type Device, type Tensor } from "../tensor/tensor.ts";
import { convert, type Stage, Weight } from "../tensor/weight.ts";
import { checkStorage, type StorageDType, storageOf } from "./storage_dtype.ts";
import { Uploads } from "./uploads.ts";
import { type CacheFolder, WeightCache } from "./weight_cache.ts";

export type { StorageDType } from "./storage_dtype.ts";

/** Progress of a load. */
export interface LoadProgress {
  readonly loadedBytes: number;
  readonly totalBytes: number;
  /** The tensor that is being read. */
  readonly name: string;
}

export interface LoadOptions {
  on_progress?: (progress: LoadProgress) => void;
  signal?: AbortSignal | undefined;
}

interface WeightsLoadOptions extends LoadOptions {
  readonly cache?: WeightCache | undefined;
  /** The call that fails if the GPU is out of memory. Default: a new one. */
  readonly call?: Call | undefined;
  /** Bytes to quantize from which on the device does it. Default: 64 MiB, which the host quantizes in about a second. */
  readonly quantize_on_device?: number | undefined;
}

/** Writes bytes of a tensor, as they are in the file. @param stage given if the device quantizes; see Weight.write */
type TensorWriter = (byteOffset: number, bytes: Uint8Array, stage?: Stage) => void;

/** Shared by all paths into one checkpoint. */
interface LoadState {
  readonly checkpoint: Checkpoint;
  readonly device: Device;
  /** Dtype of the products; see `linear`. */
  readonly compute_dtype: ComputeDType;
  readonly writers: Map<string, TensorWriter>;
  readonly parameters: Map<string, Weight | Tensor>;
  readonly disposers: (() => void)[];
  readonly warnings: string[];
  /** Set in a dry run, in which nothing is allocated: collects the names that the checkpoint lacks. */
  readonly missing?: Set<string>;
}

/** Size of the read buffer, and number of concurrent reads into it: Node has four threads for file I/O. */
const READING = { chunkBytes: 16 * 2 ** 20, reads: 4 } as const;
/** Below this the host is faster: a software adapter takes longer to compile the kernel. */
const QUANTIZE_ON_DEVICE = 64 * 2 ** 20;

export class Weights {
  /** Prefix of the names of tensors, without the last dot; `""` at the root. */
  readonly path: string;
  /** Storage dtype of matrices. */
  readonly dtype: StorageDType;
  readonly #state: LoadState;

  private constructor(path: string, dtype: StorageDType, state: LoadState) {
    this.path = path;
    this.dtype = dtype;
    this.#state = state;
  }

  /** The root of `checkpoint`; parameters are allocated on `device`. @throws InputError DTYPE, PART */
  static open(
    checkpoint: Checkpoint,
    device: Device,
    dtype: StorageDType = "auto",
    compute_dtype: ComputeDType = "f32",
  ): Weights {
    checkStorage(dtype, checkpoint.tensors.keys());
    return new Weights("", dtype, {
      checkpoint,
      device,
      compute_dtype,
      writers: new Map(),
      parameters: new Map(),
      disposers: [],
      warnings: [],
    });
  }

  get device(): Device {
    return this.#state.device;
  }

  /** A path below this one: `weights.at("encoder.layer").at(3)`. */
  at(name: string | number): Weights {
    return new Weights(this.#key(name), this.dtype, this.#state);
  }

  /** A dry run of `build`: the names it asks for that the checkpoint lacks. */
  missing(build: (weights: Weights) => unknown): string[] {
    const missing = new Set<string>();
    const state = { ...this.#state, writers: new Map(), parameters: new Map(), disposers: [], warnings: [], missing };
    const dryRun = new Weights(this.path, this.dtype, state);
    try {
      build(dryRun);
    } catch {
      // A missing table has shape [0], which may throw later.
    }
    dryRun.dispose();
    return [...missing];
  }

  /** The same path without loss of precision: dtype auto stays auto, any other becomes f32. */
  lossless(): Weights {
    const { dtype } = this;
    if (typeof dtype === "string") return new Weights(this.path, dtype === "auto" ? "auto" : "f32", this.#state);
    return new Weights(this.path, { ...dtype, [this.path]: "f32" }, this.#state);
  }

  /** Whether the checkpoint has the tensor `name`. */
  has(name: string): boolean {
    return this.#state.checkpoint.tensors.has(this.#key(name));
  }

  /** The shape of `name` in the file. The vocabulary size is taken from it, not from the config. */
  shapeOf(name: string): Shape {
    if (this.#isDryRun([name])) return this.has(name) ? this.#info(name).shape : [0];
    return this.#info(name).shape;
  }

  /** A parameter that no product reads, widened to f32: norm weights, biases, position embeddings. f32[…shape] */
  get(name: string, shape: Shape): Tensor {
    if (this.#isDryRun([name])) return { shape } as Tensor;
    const key = this.#key(name);
    const known = this.#state.parameters.get(key);
    if (known) return known as Tensor;
    const dtype = this.#expect(name, shape);
    const tensor = this.device.persistent(shape, "f32", key);
    const factor = 4 / DTYPES[dtype].bytes;
    this.#register(key, tensor, (byteOffset, bytes) => {
      this.device.writeBytes(tensor.storage, byteOffset * factor, convert(bytes, dtype, "f32"));
    });
    return tensor;
  }

  /** A matrix [N, K] for `linear` or `embedding`. @param stored its shape in the file, if it has more dimensions there */
  matrix(name: string, shape: readonly [number, number], stored: Shape = shape): Weight {
    if (this.#isDryRun([name])) return { shape } as Weight;
    const key = this.#key(name);
    const known = this.#state.parameters.get(key);
    if (known) return known as Weight;
    const dtype = this.#expect(name, stored);
    // Patch embedding stays f32: it runs once for each image, by a kernel that reads patches in place.
    const compute_dtype = stored.length === 2 ? this.#state.compute_dtype : "f32";
    const weight = new Weight(this.device, shape, storageOf(this.dtype, key, dtype), { label: key, compute_dtype });
    this.#register(key, weight, (byteOffset, bytes, stage) => weight.write(byteOffset, bytes, dtype, stage));
    return weight;
  }

  /**
   * Fuses matrices [Nᵢ, K] with a common input, such as the projections of queries, keys and values, into one weight
   * [ΣNᵢ, K]. All are stored in the widest of their storage dtypes. The file keeps them separate.
   *
   * @param rows Nᵢ of each matrix, in order, by its name; at least one
   * @param paired of two matrices, gate and up projection of a gated linear unit; see `linear`
   */
  stackedMatrix(rows: Readonly<Record<string, number>>, K: number, { paired = false } = {}): Weight {
    if (this.#isDryRun(Object.keys(rows))) return { shape: [0, K] as const } as Weight;
    const matrices = Object.entries(rows).map(([name, N]) => {
      const loaded = this.#expect(name, [N, K]);
      const key = this.#key(name);
      return { key, N, loaded, dtype: storageOf(this.dtype, key, loaded) };
    });
    const most = matrices.reduce((a, b) => (rowBytes(b.dtype, K) > rowBytes(a.dtype, K) ? b : a)).dtype;
    const N = matrices.reduce((sum, matrix) => sum + matrix.N, 0);
    const { compute_dtype } = this.#state;
    const whole = new Weight(this.device, [N, K], most, { label: matrices[0]!.key, compute_dtype, paired });
    this.onDispose(() => whole.dispose());
    let firstRow = 0;
    for (const { key, N, loaded } of matrices) {
      const part = whole.part(firstRow, N);
      this.#register(key, part, (byteOffset, piece, stage) => part.write(byteOffset, piece, loaded, stage));
      firstRow += N;
    }
    return whole;
  }

  /** Concatenates vectors, widened to f32: f32[ΣNᵢ]. @param sizes Nᵢ in order, by name; at least one */
  stackedVector(sizes: Readonly<Record<string, number>>): Tensor {
    if (this.#isDryRun(Object.keys(sizes))) return { shape: [0] as Shape } as Tensor;
    const vectors = Object.entries(sizes).map(([name, N]) => ({
      ...{ key: this.#key(name), N },
      dtype: this.#expect(name, [N]),
    }));
    const N = vectors.reduce((sum, vector) => sum + vector.N, 0);
    const whole = this.device.persistent([N], "f32", vectors[0]!.key);
    this.onDispose(() => whole.dispose());
    let first = 0;
    for (const { key, N, dtype } of vectors) {
      const [start, factor] = [4 * first, 4 / DTYPES[dtype].bytes];
      this.#register(key, whole.narrow(0, first, N), (byteOffset, bytes) => {
        this.device.writeBytes(whole.storage, start + byteOffset * factor, convert(bytes, dtype, "f32"));
      });
      first += N;
    }
    return whole;
  }

  /**
   * A tensor that is not in the checkpoint: computed, or in place of a parameter that the checkpoint lacks. f32[…shape]. It is
   * disposed with the weights, or earlier by its module.
   */
  computed(shape: Shape, numbers: () => Float32Array, label?: string): Tensor {
    if (this.#isDryRun([])) return { shape } as Tensor;
    const tensor = this.device.persistent(shape, "f32", label);
    this.onDispose(() => tensor.dispose());
    this.device.write(tensor, numbers());
    return tensor;
  }

  /** Names of the checkpoint's tensors that no module has asked for, under any name: PyTorch's files have tied tensors under each. */
  leftovers(ignored: readonly RegExp[] = []): string[] {
    const { checkpoint, writers } = this.#state;
    const placeOf = (key: string) => {
      const { file, begin, end } = checkpoint.tensors.get(key)!;
      return `${file} ${begin} ${end}`;
    };
    const used = new Set([...writers.keys()].map(placeOf));
    return [...checkpoint.tensors.keys()].filter(
      (key) => !used.has(placeOf(key)) && !ignored.some((pattern) => pattern.test(key)),
    );
  }

  /** Adds a warning for the user. */
  warn(warning: string): void {
    this.#state.warnings.push(warning);
  }

  get warnings(): readonly string[] {
    return this.#state.warnings;
  }

  /** All parameters that modules have asked for, by full name. */
  get parameters(): ReadonlyMap<string, Weight | Tensor> {
    return this.#state.parameters;
  }

  /**
   * All parameters as tensors of a safetensors file, with the names and shapes of the checkpoint: matrices in their storage dtype,
   * disposers in the checkpoint's dtype. Data is read back from the device when it is written.
   *
   * @throws WeightError QUANTIZED
   */
  stored(): TensorEntry[] {
    return [...this.#state.parameters].map(([name, parameter]): TensorEntry => {
      const { shape, dtype: loaded } = this.#state.checkpoint.tensors.get(name)!;
      if (parameter instanceof Weight) {
        const { dtype } = parameter;
        if (isQuantized(dtype)) {
          throw new WeightError("QUANTIZED", `${name}: ${dtype} numbers cannot be saved in Hugging Face's format`, {
            hint: "load the model with dtype f32, f16, bf16 or auto to save it",
          });
        }
        return { name, dtype, shape, data: () => parameter.read() };
      }
      const dtype = loaded === "f64" ? "f32" : (loaded as FloatDType);
      const read = async function* () {
        const { device } = parameter;
        const { buffer, byteOffset, byteLength } = await device.scope(() => contiguous(parameter).read());
        yield convert(new Uint8Array(buffer, byteOffset, byteLength), "f32", dtype);
      };
      return { name, dtype, shape, data: read };
    });
  }

  /**
   * Loads all parameters that modules have asked for. Quantized matrices come from `cache`, if it is valid.
   *
   * @returns whether it was valid
   * @throws WeightError as Checkpoint.stream; DeviceError; the signal's reason
   */
  async load(options: WeightsLoadOptions = {}): Promise<boolean> {
    const { on_progress, signal, cache, call: given, quantize_on_device = QUANTIZE_ON_DEVICE } = options;
    const { checkpoint, writers, device, parameters } = this.#state;
    const call = given ?? device.call();
    const restored = cache !== undefined && (await cache.read(device, signal, call));
    const names = restored ? this.#besides(cache) : [...writers.keys()];
    const bytesOf = (names: readonly string[]) =>
      names.reduce((sum, name) => {
        const info = checkpoint.tensors.get(name)!;
        return sum + info.end - info.begin;
      }, 0);
    const totalBytes = bytesOf(names);
    const quantized = names.filter((name) => isStoredQuantized(parameters.get(name)!));
    const uploads = new Uploads(device, call);
    const stage = bytesOf(quantized) >= quantize_on_device ? uploads.stage : undefined;
    let loadedBytes = 0;
    try {
      const reading = { ...READING, ...(signal && { signal }) };
      for await (const { name, byteOffset, bytes } of checkpoint.stream(names, reading)) {
        const write = () => writers.get(name)!(byteOffset, bytes, stage);
        device.within(call, () => atSite(device, moduleOf(name), write));
        loadedBytes += bytes.byteLength;
        await uploads.passed(bytes.byteLength);
        await on_progress?.({ loadedBytes, totalBytes, name });
      }
      await uploads.finished();
    } finally {
      uploads.dispose();
    }
    return restored;
  }

  /** Names of what is read where a valid cache has the quantized matrices. */
  #besides(cache: WeightCache): string[] {
    return [...this.#state.writers.keys()].filter((name) => !cache.weights.has(name));
  }

  /** Reads from the same checkpoint, opened once more, what load() reads where `cache` is valid. @throws as load */
  async readBesides(cache: WeightCache, checkpoint: Checkpoint, signal?: AbortSignal): Promise<void> {
    const reading = { ...READING, ...(signal && { signal }) };
    for await (const _ of checkpoint.stream(this.#besides(cache), reading));
  }

  /** Opens the cache of the quantized matrices in `folder`. @throws WeightError as WeightCache.open */
  async openCache(folder: CacheFolder): Promise<WeightCache> {
    const { checkpoint, parameters } = this.#state;
    const quantized = [...parameters].filter((entry): entry is [string, Weight] => isStoredQuantized(entry[1]));
    return WeightCache.open(folder, checkpoint, new Map(quantized));
  }

  /** Disposes all parameters, and calls the functions given to `onDispose`. */
  dispose(): void {
    for (const parameter of this.#state.parameters.values()) parameter.dispose();
    for (const free of this.#state.disposers) free();
  }

  /** Calls `free` when the weights are disposed: for other resources of a module. */
  onDispose(free: () => void): void {
    if (!this.#isDryRun([])) this.#state.disposers.push(free);
  }

  /** In a dry run, adds those of `names` that the checkpoint lacks to `missing`, and returns true. */
  #isDryRun(names: readonly string[]): boolean {
    const { missing } = this.#state;
    if (missing) for (const name of names) if (!this.has(name)) missing.add(this.#key(name));
    return missing !== undefined;
  }

  #key(name: string | number): string {
    return this.path ? `${this.path}.${name}` : `${name}`;
  }

  /** @param write takes data of the dtype that #expect returns */
  #register(key: string, parameter: Weight | Tensor, write: TensorWriter): void {
    const { parameters, writers, checkpoint } = this.#state;
    parameters.set(key, parameter);
    const isDouble = checkpoint.tensors.get(key)!.dtype === "f64";
    writers.set(key, isDouble ? (byteOffset, bytes, stage) => write(byteOffset / 2, toF32(bytes), stage) : write);
  }

  #info(name: string) {
    const key = this.#key(name);
    const { checkpoint } = this.#state;
    const info = checkpoint.tensors.get(key);
    if (info) return info;
    const close = nearest(key, checkpoint.tensors.keys());
    const shard = checkpoint.absent.get(key);
    throw new WeightError("MISSING_TENSORS", `${key}: the checkpoint has no such tensor`, {
      hint: shard
        ? `its index puts it into ${shard}, which lacks it: an old or incomplete download?`
        : close
          ? `it has ${close}`
          : "is this an InstructBLIP checkpoint?",
    });
  }

  #expect(name: string, shape: Shape): FloatDType {
    const { shape: found } = this.#info(name);
    if (!sameShape(found, shape)) {
      const transposed = found.length === 2 && shape.length === 2 && found[0] === shape[1] && found[1] === shape[0];
      throw new WeightError(
        "SHAPE_EXPECTED",
        `${this.#key(name)}: expected ${formatShape(shape)}, the checkpoint has ${formatShape(found)}`,
        { hint: transposed ? "this looks transposed; PyTorch Linear weights are [out, in]" : undefined },
      );
    }
    return this.#floating(name);
  }

  /** The dtype of a tensor's data as writers get it: f64 is rounded to f32 first. */
  #floating(name: string): FloatDType {
    const { dtype } = this.#info(name);
    if (dtype === "f64") return "f32";
    if (dtype !== "f32" && dtype !== "f16" && dtype !== "bf16") {
      throw new WeightError(
        "DTYPE_EXPECTED",
        `${this.#key(name)}: expected F32, F16, BF16 or F64, the checkpoint has ${dtype}`,
      );
    }
    return dtype;
  }
}

/** The path of the module that has a parameter. */
function moduleOf(parameter: string): string {
  return parameter.slice(0, Math.max(0, parameter.lastIndexOf(".")));
}

function isStoredQuantized(parameter: Weight | Tensor): boolean {
  return parameter instanceof Weight && isQuantized(parameter.dtype);
}

/** f64, rounded to the nearest f32. */
function toF32(bytes: Uint8Array): Uint8Array {
  const numbers = new Float64Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 8);
  return new Uint8Array(new Float32Array(numbers).buffer);
}
