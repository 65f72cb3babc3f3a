/**
 * Walking into a checkpoint one name at a time. Modules ask for their parameters while they are constructed, which checks
 * every name and shape against the file's header and allocates; `load` then streams the numbers in file order through one
 * small buffer. Strict both ways: what is missing throws, what is left over is listed.
 */
import type { Call } from "../tensor/device/call.ts";
import { type ComputeDType, DTYPES, type FloatDType } from "../tensor/dtype.ts";
import { nearest, WeightError } from "../tensor/errors.ts";
import type { Checkpoint } from "../tensor/files/safetensors.ts";
import type { TensorEntry } from "../tensor/files/safetensors_writer.ts";
import { contiguous } from "../tensor/ops/copy.ts";
import { isQuantized, rowBytes } from "../tensor/quantize.ts";
import { formatShape, type Shape, sameShape } from "../tensor/shape.ts";
import type { Device, Tensor } from "../tensor/tensor.ts";
import { convert, type Stage, Weight } from "../tensor/weight.ts";
import { checkStorage, type StorageDType, storageOf } from "./storage_dtype.ts";
import { Uploads } from "./uploads.ts";
import { type CacheFolder, WeightCache } from "./weight_cache.ts";

export type { StorageDType } from "./storage_dtype.ts";

/** How far a load has come. */
export interface LoadProgress {
  readonly loadedBytes: number;
  readonly totalBytes: number;
  /** The tensor at hand. */
  readonly name: string;
}

export interface LoadOptions {
  on_progress?: (progress: LoadProgress) => void;
  signal?: AbortSignal | undefined;
}

interface WeightsLoadOptions extends LoadOptions {
  readonly cache?: WeightCache | undefined;
  /** Whose failure it is when the GPU has no room. Default: a call of its own. */
  readonly call?: Call | undefined;
  /** From so many bytes to quantize on, the device does it. Default: 64 MiB, which the host quantizes in about a second. */
  readonly quantize_on_device?: number | undefined;
}

/** @param stage given if the device is to quantize; see Weight.write */
type Sink = (byteOffset: number, bytes: Uint8Array, stage?: Stage) => void;

/** What all walkers over one checkpoint share. */
interface Ledger {
  readonly checkpoint: Checkpoint;
  readonly device: Device;
  /** What matrices are multiplied as; see `linear`. */
  readonly compute_dtype: ComputeDType;
  readonly sinks: Map<string, Sink>;
  readonly parameters: Map<string, Weight | Tensor>;
  readonly others: (() => void)[];
  readonly warnings: string[];
  /** The names that are asked for in vain, where that is all one wants to know: then nothing is allocated. */
  readonly missing?: Set<string>;
}

/** The buffer that is read into, and the reads into parts of it that run at a time: Node has four threads for them. */
const READ_BYTES = 16 * 2 ** 20;
const READS = 4;
/** Below this the host is done before a software adapter has compiled the kernel. */
const QUANTIZE_ON_DEVICE = 64 * 2 ** 20;

export class Weights {
  /** Where in the checkpoint this walker stands; `""` at the root. */
  readonly path: string;
  /** What matrices are stored as. */
  readonly dtype: StorageDType;
  readonly #ledger: Ledger;

  private constructor(path: string, dtype: StorageDType, ledger: Ledger) {
    this.path = path;
    this.dtype = dtype;
    this.#ledger = ledger;
  }

  /** A walker at the root of `checkpoint`, allocating on `device`. @throws InputError DTYPE, PART */
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
      sinks: new Map(),
      parameters: new Map(),
      others: [],
      warnings: [],
    });
  }

  get device(): Device {
    return this.#ledger.device;
  }

  /** One or more names further in: `weights.at("encoder.layer").at(3)`. */
  at(name: string | number): Weights {
    return new Weights(this.#key(name), this.dtype, this.#ledger);
  }

  /** Every name that `build` asks a walker at this place for in vain. */
  missing(build: (weights: Weights) => unknown): string[] {
    const missing = new Set<string>();
    const ledger = { ...this.#ledger, sinks: new Map(), parameters: new Map(), others: [], warnings: [], missing };
    const asked = new Weights(this.path, this.dtype, ledger);
    try {
      build(asked);
    } catch {
      // What a table without rows leads to is of no interest.
    }
    asked.dispose();
    return [...missing];
  }

  /** The same place, where no number loses precision: stored as in the file, or as f32 if another dtype was asked for. */
  lossless(): Weights {
    const { dtype } = this;
    if (typeof dtype === "string") return new Weights(this.path, dtype === "auto" ? "auto" : "f32", this.#ledger);
    return new Weights(this.path, { ...dtype, [this.path]: "f32" }, this.#ledger);
  }

  /** Whether the checkpoint has `name` here. */
  has(name: string): boolean {
    return this.#ledger.checkpoint.tensors.has(this.#key(name));
  }

  /** The shape the file gives for `name`: vocabularies are taken from here, not from the config. */
  shapeOf(name: string): Shape {
    if (this.#notes([name])) return this.has(name) ? this.#info(name).shape : [0];
    return this.#info(name).shape;
  }

  /** A parameter used element by element, widened to f32: norms, biases, learned embeddings added whole. */
  get(name: string, shape: Shape): Tensor {
    if (this.#notes([name])) return { shape } as Tensor;
    const key = this.#key(name);
    const known = this.#ledger.parameters.get(key);
    if (known) return known as Tensor;
    const dtype = this.#expect(name, shape);
    const tensor = this.device.persistent(shape, "f32", key);
    const factor = 4 / DTYPES[dtype].bytes;
    this.#register(key, tensor, (byteOffset, bytes) => {
      this.device.writeBytes(tensor.storage, byteOffset * factor, convert(bytes, dtype, "f32"));
    });
    return tensor;
  }

  /** A matrix [N, K] for `linear` or `embedding`; `stored` is its shape in the file where that has more dimensions. */
  matrix(name: string, shape: readonly [number, number], stored: Shape = shape): Weight {
    if (this.#notes([name])) return { shape } as Weight;
    const key = this.#key(name);
    const known = this.#ledger.parameters.get(key);
    if (known) return known as Weight;
    const dtype = this.#expect(name, stored);
    // Patches are multiplied once an image, by a kernel that reads them where they lie.
    const compute_dtype = stored.length === 2 ? this.#ledger.compute_dtype : "f32";
    const weight = new Weight(this.device, shape, storageOf(this.dtype, key, dtype), { label: key, compute_dtype });
    this.#register(key, weight, (byteOffset, bytes, stage) => weight.write(byteOffset, bytes, dtype, stage));
    return weight;
  }

  /**
   * Matrices [Nᵢ, K] that are multiplied by the same input, one below the other: [ΣNᵢ, K] to `linear`, to the file what they
   * are. All are stored as the one that is to have the most bytes.
   *
   * @param rows Nᵢ of every matrix, in order, by its name; at least one
   * @param paired whether they are two whose products are to meet number by number; see `linear`
   */
  stackedMatrix(rows: Readonly<Record<string, number>>, K: number, { paired = false } = {}): Weight {
    if (this.#notes(Object.keys(rows))) return { shape: [0, K] as const } as Weight;
    const matrices = Object.entries(rows).map(([name, N]) => {
      const loaded = this.#expect(name, [N, K]);
      const key = this.#key(name);
      return { key, N, loaded, dtype: storageOf(this.dtype, key, loaded) };
    });
    const most = matrices.reduce((a, b) => (rowBytes(b.dtype, K) > rowBytes(a.dtype, K) ? b : a)).dtype;
    const N = matrices.reduce((sum, matrix) => sum + matrix.N, 0);
    const { compute_dtype } = this.#ledger;
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

  /** Vectors one behind the other, widened to f32: f32[ΣNᵢ]. @param sizes Nᵢ in order, by name; at least one */
  stackedVector(sizes: Readonly<Record<string, number>>): Tensor {
    if (this.#notes(Object.keys(sizes))) return { shape: [0] as Shape } as Tensor;
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
   * What a module has besides its parameters, or in place of one that its checkpoint lacks: f32[…shape]. The module may
   * dispose it before the weights are.
   */
  computed(shape: Shape, numbers: () => Float32Array, label?: string): Tensor {
    if (this.#notes([])) return { shape } as Tensor;
    const tensor = this.device.persistent(shape, "f32", label);
    this.onDispose(() => tensor.dispose());
    this.device.write(tensor, numbers());
    return tensor;
  }

  /** Names in the checkpoint that no module has asked for. */
  leftovers(ignored: readonly RegExp[] = []): string[] {
    const { checkpoint, sinks } = this.#ledger;
    return [...checkpoint.tensors.keys()].filter(
      (key) => !sinks.has(key) && !ignored.some((pattern) => pattern.test(key)),
    );
  }

  /** Keeps what a module finds odd but harmless, for the user. */
  warn(warning: string): void {
    this.#ledger.warnings.push(warning);
  }

  /** What modules have found odd. */
  get warnings(): readonly string[] {
    return this.#ledger.warnings;
  }

  /** Every parameter asked for, by its full name. */
  get parameters(): ReadonlyMap<string, Weight | Tensor> {
    return this.#ledger.parameters;
  }

  /**
   * Every parameter under its name, in the shape the checkpoint had, read back from the device as it is written: matrices
   * in the dtype they are stored as, all else in the checkpoint's.
   *
   * @throws WeightError QUANTIZED
   */
  stored(): TensorEntry[] {
    return [...this.#ledger.parameters].map(([name, parameter]): TensorEntry => {
      const { shape, dtype: loaded } = this.#ledger.checkpoint.tensors.get(name)!;
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
   * Reads everything that was asked for, quantized matrices from `cache` if it has them.
   *
   * @returns whether it had them
   * @throws WeightError as Checkpoint.stream; DeviceError; the signal's reason
   */
  async load(options: WeightsLoadOptions = {}): Promise<boolean> {
    const { on_progress, signal, cache, call: given, quantize_on_device = QUANTIZE_ON_DEVICE } = options;
    const { checkpoint, sinks, device, parameters } = this.#ledger;
    const call = given ?? device.call();
    const restored = cache !== undefined && (await cache.read(device, signal, call));
    const names = [...sinks.keys()].filter((name) => !(restored && cache.weights.has(name)));
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
      const reading = { chunkBytes: READ_BYTES, reads: READS, ...(signal && { signal }) };
      for await (const { name, byteOffset, bytes } of checkpoint.stream(names, reading)) {
        device.within(call, () => sinks.get(name)!(byteOffset, bytes, stage));
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

  /** Where the matrices that are quantized are kept in `folder`. @throws WeightError as WeightCache.open */
  async cacheIn(folder: CacheFolder): Promise<WeightCache> {
    const { checkpoint, parameters } = this.#ledger;
    const quantized = [...parameters].filter((entry): entry is [string, Weight] => isStoredQuantized(entry[1]));
    return WeightCache.open(folder, checkpoint, new Map(quantized));
  }

  /** Frees every parameter that was asked for. */
  dispose(): void {
    for (const parameter of this.#ledger.parameters.values()) parameter.dispose();
    for (const free of this.#ledger.others) free();
  }

  /** Has `free` called when the parameters are freed: for what a module makes besides them. */
  onDispose(free: () => void): void {
    if (!this.#notes([])) this.#ledger.others.push(free);
  }

  /** Where missing names are all one wants to know, notes those of `names`, and says so. */
  #notes(names: readonly string[]): boolean {
    const { missing } = this.#ledger;
    if (missing) for (const name of names) if (!this.has(name)) missing.add(this.#key(name));
    return missing !== undefined;
  }

  #key(name: string | number): string {
    return this.path ? `${this.path}.${name}` : `${name}`;
  }

  /** @param sink takes numbers of the dtype that #expect gives */
  #register(key: string, parameter: Weight | Tensor, sink: Sink): void {
    const { parameters, sinks, checkpoint } = this.#ledger;
    parameters.set(key, parameter);
    const isDouble = checkpoint.tensors.get(key)!.dtype === "f64";
    sinks.set(key, isDouble ? (byteOffset, bytes, stage) => sink(byteOffset / 2, singles(bytes), stage) : sink);
  }

  #info(name: string) {
    const key = this.#key(name);
    const { checkpoint } = this.#ledger;
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

  /** The dtype of a tensor's numbers as they are handed on: doubles are rounded to f32 first. */
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

function isStoredQuantized(parameter: Weight | Tensor): boolean {
  return parameter instanceof Weight && isQuantized(parameter.dtype);
}

/** Doubles, rounded to nearest. */
function singles(bytes: Uint8Array): Uint8Array {
  const numbers = new Float64Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 8);
  return new Uint8Array(new Float32Array(numbers).buffer);
}
