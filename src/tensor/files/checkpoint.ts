/**
 * A checkpoint of one or more files of tensors. No file is in memory as a whole: headers are read and checked on opening, and the
 * tensors are streamed through one buffer.
 */
import { WeightError } from "../errors.ts";
import { sameShape } from "../shape.ts";
import { quote } from "../shown.ts";
import { PyTorchFile } from "./pytorch.ts";
import { SafetensorsFile } from "./safetensors.ts";
import { type ByteSource, checkFileName, type Folder } from "./source.ts";
import { describe, type Json, parseStrictJson } from "./strict_json.ts";
import {
  DEFAULT_TENSORS,
  type HeaderLimits,
  listed,
  missing,
  refuser,
  requireDType,
  type TensorFile,
  type TensorInfo,
} from "./tensor_file.ts";
import { type Window, windowsOf } from "./windows.ts";

/** The files that weights are looked for in, in this order: one file, or an index of several. */
export const WEIGHT_FILES = [
  "model.safetensors",
  "model.safetensors.index.json",
  "pytorch_model.bin",
  "pytorch_model.bin.index.json",
] as const;
const [SINGLE, INDEX, PYTORCH, PYTORCH_INDEX] = WEIGHT_FILES;
const MAX_INDEX_BYTES = 16 * 2 ** 20;
/** A bound, because every shard is an open file. */
const MAX_SHARDS = 1000;

/** A tensor of a checkpoint; `file` is the shard that holds it. */
export interface CheckpointTensor extends TensorInfo {
  readonly file: string;
}

/** A piece of a tensor from {@link Checkpoint.stream}. */
export interface TensorChunk {
  readonly name: string;
  /** Offset of the piece in its tensor; a multiple of 8. */
  readonly byteOffset: number;
  /** Aligned to 8 bytes in its buffer. The length is a multiple of 8 except at the tensor's end. */
  readonly bytes: Uint8Array;
}

export interface StreamOptions {
  /** Size of the staging buffer, in bytes. Default 32 MiB. */
  chunkBytes?: number;
  /** Concurrent reads, each into its share of the buffer, while the pieces of one share are processed. Default 1. */
  reads?: number;
  signal?: AbortSignal;
}

/**
 * The weights of a model: `model.safetensors`, or the shards that `model.safetensors.index.json` names; without them
 * `pytorch_model.bin`, or its shards.
 */
export class Checkpoint {
  readonly name: string;
  /** The metadata of all files; of a key in several files, that of the first. */
  readonly metadata: ReadonlyMap<string, string>;
  /** Ordered by shard, then by offset. */
  readonly tensors: ReadonlyMap<string, CheckpointTensor>;
  /** For the user. */
  readonly warnings: readonly string[];
  /** Tensors that the index lists and no file has, with the file that the index names. */
  readonly absent: ReadonlyMap<string, string>;
  readonly #files: ReadonlyMap<string, TensorFile>;
  /** What its tensors were made with beside the files, such as an adapter's scale: a cache of them must have the same. */
  readonly made_with: readonly string[];
  /** Warnings besides the files' own. */
  readonly #notes: readonly string[];

  private constructor(
    name: string,
    files: ReadonlyMap<string, TensorFile>,
    notes: readonly string[] = [],
    absent: ReadonlyMap<string, string> = new Map(),
    made_with: readonly string[] = [],
  ) {
    this.name = name;
    this.made_with = made_with;
    this.#notes = notes;
    this.absent = absent;
    this.#files = files;
    const metadata = new Map<string, string>();
    const tensors = new Map<string, CheckpointTensor>();
    for (const [file, { metadata: more, tensors: infos }] of files) {
      for (const [key, value] of more) if (!metadata.has(key)) metadata.set(key, value);
      for (const info of infos.values()) tensors.set(info.name, { ...info, file });
    }
    this.metadata = metadata;
    this.tensors = tensors;
    this.warnings = [...notes, ...[...files].flatMap(([file, f]) => f.warnings.map((w) => `${file}: ${w}`))];
  }

  /**
   * Opens a folder or one file, and checks all headers. The name of a file tells its format: .bin, .pt, .pth and .ckpt are
   * PyTorch's.
   *
   * @param names of a folder's files that are tried, in order; .json is an index
   * @throws WeightError MISSING_MODEL, MISSING_SHARD, BAD_SHARD_PATH, BAD_INDEX, INDEX_MISMATCH, TOO_MANY_SHARDS, those
   * of {@link SafetensorsFile.open} or {@link PyTorchFile.open}, and the folder's own
   */
  static async open(
    from: Folder | ByteSource,
    limits: HeaderLimits = {},
    names: readonly string[] = WEIGHT_FILES,
  ): Promise<Checkpoint> {
    if ("read" in from) {
      const file = await openTensorFile(from, limits);
      return new Checkpoint(from.name, new Map([[from.name, file]]));
    }
    for (const name of names) {
      if (!(await from.has(name))) continue;
      if (name.endsWith(".json")) return Checkpoint.#openShards(from, name, limits);
      const file = await openTensorFile(await from.open(name), limits);
      return new Checkpoint(from.name, new Map([[name, file]]));
    }
    const message = names.includes(SINGLE)
      ? `${from.name}: neither ${SINGLE} nor ${PYTORCH}, nor an index of either, is there`
      : `${from.name}: ${listed(names)} is not there`;
    throw new WeightError("MISSING_MODEL", message, { hint: await hintOfOtherFiles(from) });
  }

  static async #openShards(folder: Folder, indexFile: string, limits: HeaderLimits): Promise<Checkpoint> {
    const index = parseIndex(indexFile, await folder.text(indexFile, MAX_INDEX_BYTES), limits);
    const shards = [...new Set(index.fileOf.values())].sort();
    if (shards.length > MAX_SHARDS)
      refuser(indexFile)("TOO_MANY_SHARDS", `${shards.length} files; at most ${MAX_SHARDS}`);
    for (const shard of shards) checkFileName(shard);
    const absent: string[] = [];
    for (const shard of shards) if (!(await folder.has(shard))) absent.push(shard);
    if (absent.length) {
      const message = `${folder.name}: ${absent.length} of ${shards.length} files are missing: ${listed(absent)}`;
      throw new WeightError("MISSING_SHARD", message, { hint: "incomplete download?" });
    }

    const files = new Map<string, TensorFile>();
    try {
      for (const shard of shards) files.set(shard, await openTensorFile(await folder.open(shard), limits));
      const { warnings, absent } = await compareWithIndex(index, files);
      return new Checkpoint(folder.name, files, warnings, absent);
    } catch (error) {
      for (const file of files.values()) await file.close();
      throw error;
    }
  }

  /** As {@link TensorFile.read}, from the file that has the tensor. */
  async read(name: string, rows?: readonly [begin: number, end: number]): Promise<Uint8Array> {
    const info = this.tensors.get(name) ?? missing(this.name, [name], this.tensors);
    return this.#fileOf(info).read(name, rows);
  }

  /** As {@link TensorFile.readInto}, from the file that has the tensor. */
  async readInto(name: string, byteOffset: number, into: Uint8Array): Promise<void> {
    const info = this.tensors.get(name) ?? missing(this.name, [name], this.tensors);
    await this.#fileOf(info).readInto(info, byteOffset, into);
  }

  /**
   * Reads the named tensors in file order, as pieces in one reused buffer: `bytes` is valid until the next step. A name that is
   * given twice is read once; an empty tensor yields one empty piece. Adjacent tensors share reads.
   *
   * @throws WeightError MISSING_TENSORS, UNSUPPORTED_DTYPE, both before the first read, and the source's own; the
   * signal's reason
   */
  async *stream(names: Iterable<string>, options: StreamOptions = {}): AsyncGenerator<TensorChunk, void, undefined> {
    const { chunkBytes = 32 * 2 ** 20, reads = 1, signal } = options;
    if (!Number.isSafeInteger(chunkBytes) || !Number.isSafeInteger(reads) || reads < 1 || chunkBytes < 8 * reads) {
      const message = `chunkBytes must be an integer of at least 8 a read, got ${chunkBytes} for ${reads}`;
      throw new WeightError("BAD_RANGE", message);
    }
    const wanted = new Set(names);
    const absent = [...wanted].filter((name) => !this.tensors.has(name));
    if (absent.length) missing(this.name, absent, this.tensors);
    const infos = [...this.tensors.values()].filter(({ name }) => wanted.has(name));
    for (const info of infos) requireDType(info, info.file);

    const total = infos.reduce((sum, { begin, end }) => sum + end - begin, 0);
    const share = Math.min(Math.floor(chunkBytes / reads / 8) * 8, total);
    const shares = Math.min(reads, Math.ceil(total / Math.max(1, share))) || 1;
    const staging = new Uint8Array(shares * share);
    const windows = windowsOf(infos, share);
    const underWay: { window: Window; bytes: Uint8Array; read: Promise<void> }[] = [];
    for (let started = 0; ; ) {
      signal?.throwIfAborted();
      for (; underWay.length < shares; started++) {
        const { value: window } = windows.next();
        if (!window) break;
        const bytes = staging.subarray((started % shares) * share);
        const read = this.#fileOf(window).readRaw(window.begin, bytes.subarray(0, window.end - window.begin));
        read.catch(() => {}); // no unhandled rejection if it is never awaited
        underWay.push({ window, bytes, read });
      }
      const next = underWay.shift();
      if (!next) return;
      await next.read;
      for (const { name, byteOffset, from, length } of next.window.pieces) {
        signal?.throwIfAborted();
        yield { name, byteOffset, bytes: next.bytes.subarray(from, from + length) };
      }
    }
  }

  /**
   * The checkpoint with each file changed, such as its tensors renamed.
   *
   * @param made_with what it is changed by, if that is not in the files
   * @param notes warnings besides the checkpoint's
   */
  map(
    change: (file: TensorFile) => TensorFile,
    made_with: readonly string[] = [],
    notes: readonly string[] = [],
  ): Checkpoint {
    const files = new Map([...this.#files].map(([name, file]) => [name, change(file)]));
    const allNotes = [...this.#notes, ...notes];
    return new Checkpoint(this.name, files, allNotes, this.absent, [...this.made_with, ...made_with]);
  }

  /** The checkpoint, completed by the tensors of `base` that it lacks. Closes both. */
  over(base: Checkpoint): Checkpoint {
    const files = new Map(this.#files);
    for (const [name, file] of base.#files) {
      const lacked = [...file.tensors.values()].filter((info) => !this.tensors.has(info.name));
      let key = `${base.name}/${name}`;
      for (let n = 2; files.has(key); n++) key = `${base.name} (${n})/${name}`; // folders of one name
      files.set(key, file.with(lacked));
    }
    return new Checkpoint(
      this.name,
      files,
      [...this.#notes, ...base.#notes],
      new Map([...base.absent, ...this.absent]),
      [...this.made_with, ...base.made_with],
    );
  }

  /** Name, size and version of each file. */
  get files(): Pick<ByteSource, "name" | "size" | "version">[] {
    return [...this.#files.values()].map(({ origin }) => origin);
  }

  async close(): Promise<void> {
    for (const file of this.#files.values()) await file.close();
  }

  #fileOf({ file }: { readonly file: string }): TensorFile {
    return this.#files.get(file)!;
  }
}

/** Opens a file by the format of its name. @throws as {@link SafetensorsFile.open} and {@link PyTorchFile.open} */
function openTensorFile(source: ByteSource, limits: HeaderLimits): Promise<TensorFile> {
  return /\.(bin|pt|pth|ckpt)$/i.test(source.name)
    ? PyTorchFile.open(source, limits)
    : SafetensorsFile.open(source, limits);
}

const VARIANT = /\.(fp16|bf16|fp32|fp8|int8|non_ema)/;

/** A hint for a folder without a checkpoint, by the files it has instead. A folder cannot be listed, so likely names are tried. */
async function hintOfOtherFiles(folder: Folder): Promise<string | undefined> {
  const first = async (names: readonly string[]) => {
    for (const name of names) if (await folder.has(name)) return name;
    return undefined;
  };
  const variants = ["fp16", "bf16", "fp32", "fp8", "int8", "non_ema"];
  const variant = await first(
    variants.flatMap((v) => [
      ...[`model.${v}.safetensors`, `model.safetensors.index.${v}.json`],
      ...[`pytorch_model.${v}.bin`, `pytorch_model.bin.index.${v}.json`],
    ]),
  );
  if (variant) return `there is ${variant}: rename it to ${variant.replace(VARIANT, "")}`;
  if (await first(["adapter_model.safetensors", "adapter_model.bin", "adapter_config.json"])) {
    return "there is an adapter, not a model: load its base, and give this folder as adapter (--adapter)";
  }
  const other = await first(["consolidated.safetensors", "pytorch_model.safetensors"]);
  if (other) return `there is ${other}; transformers' own file is ${SINGLE}`;
  const counts = Array.from({ length: 16 }, (_, i) => `00001-of-000${String(i + 2).padStart(2, "0")}`);
  const shard = await first(counts.flatMap((n) => [`model-${n}.safetensors`, `pytorch_model-${n}.bin`]));
  if (shard) {
    const index = shard.endsWith(".bin") ? PYTORCH_INDEX : INDEX;
    return `there is ${shard}, but not the index that says what is in which file: download ${index} too`;
  }
  return undefined;
}

interface ShardIndex {
  /** Its name. */
  readonly file: string;
  /** Tensor name -> shard. */
  readonly fileOf: ReadonlyMap<string, string>;
  readonly totalSize: Json | undefined;
}

function parseIndex(file: string, text: string, limits: HeaderLimits): ShardIndex {
  const refuse = refuser(file);
  const maxTensors = limits.maxTensors ?? DEFAULT_TENSORS;
  const root = parseStrictJson(text, { members: maxTensors, values: 2 * maxTensors }, (code, message, hint) =>
    code === "TOO_MANY_MEMBERS"
      ? refuse("TOO_MANY_TENSORS", `more than ${maxTensors} tensors`)
      : refuse(code, message, hint),
  );
  const map = root instanceof Map ? root.get("weight_map") : undefined;
  if (!(root instanceof Map && map instanceof Map && map.size)) {
    return refuse("BAD_INDEX", "must be an object with a weight_map that names files");
  }
  const fileOf = new Map<string, string>();
  for (const [name, shard] of map) {
    if (typeof shard !== "string")
      return refuse("BAD_INDEX", `${quote(name)}: must name a file, got ${describe(shard)}`);
    fileOf.set(name, shard);
  }
  const metadata = root.get("metadata");
  return { file, fileOf, totalSize: metadata instanceof Map ? metadata.get("total_size") : undefined };
}

/**
 * Compares the index with the files. As in transformers, the files are right: if the index names a wrong file or a tensor that
 * no file has, or if two files have a tensor with the same bytes, that is a warning.
 *
 * @returns warnings, and the absent tensors with the file that the index names
 * @throws WeightError INDEX_MISMATCH if two files have a tensor with different bytes
 */
async function compareWithIndex(
  { file: index, fileOf, totalSize }: ShardIndex,
  files: ReadonlyMap<string, TensorFile>,
): Promise<{ warnings: string[]; absent: Map<string, string> }> {
  const found = new Map<string, string>();
  const [unmapped, misplaced, twice] = [new Set<string>(), new Set<string>(), new Set<string>()];
  let bytes = 0;
  // Views of PyTorch's files may repeat bytes, so that tensors take more than their files: those are not compared for ever.
  let comparable = [...files.values()].reduce((sum, { origin }) => sum + origin.size, 0);
  for (const [file, { tensors }] of files) {
    const counted = new Set<string>(); // of several names of the same bytes, one
    for (const { name, begin, end } of tensors.values()) {
      const other = found.get(name);
      if (other !== undefined) {
        comparable -= end - begin;
        if (comparable < 0) {
          const where = `${quote(other)} and ${quote(file)} hold the same tensors`;
          refuser(index)("INDEX_MISMATCH", `${where}, of more bytes than the files have`, "save the model anew");
        }
        if (!(await isSame(name, files.get(other)!, files.get(file)!))) {
          const where = `${quote(other)} and in ${quote(file)}, with different numbers`;
          refuser(index)("INDEX_MISMATCH", `${quote(name)} is in ${where}`, "files of two saves? download them again");
        }
        twice.add(name);
      }
      found.set(name, file);
      if (!fileOf.has(name)) unmapped.add(name);
      else if (!files.get(fileOf.get(name)!)!.tensors.has(name)) misplaced.add(name);
      if (!counted.has(`${begin} ${end}`)) bytes += end - begin;
      counted.add(`${begin} ${end}`);
    }
  }
  const absent = new Map([...fileOf].filter(([name]) => !found.has(name)));
  const warnings: string[] = [];
  const warn = (what: string, names: Iterable<string>) => {
    const list = [...names];
    if (list.length) warnings.push(`${index}: ${what} ${listed(list)}`);
  };
  warn("does not list", unmapped);
  warn("names another file for", misplaced);
  warn("lists what no file holds,", absent.keys());
  warn("two files hold", twice);
  if (totalSize !== undefined && totalSize !== bytes) {
    warnings.push(`${index}: total_size is ${describe(totalSize)}, the tensors take ${bytes} bytes`);
  }
  return { warnings, absent };
}

/** Whether the tensor `name` is the same in two files, byte for byte. */
async function isSame(name: string, one: TensorFile, other: TensorFile): Promise<boolean> {
  const [a, b] = [one.tensors.get(name)!, other.tensors.get(name)!];
  const size = a.end - a.begin;
  if (a.dtype !== b.dtype || !sameShape(a.shape, b.shape)) return false;
  const most = Math.min(size, COMPARED);
  const buffers = [new Uint8Array(most), new Uint8Array(most)] as const;
  for (let at = 0; at < size; at += COMPARED) {
    const [mine, theirs] = [buffers[0].subarray(0, size - at), buffers[1].subarray(0, size - at)];
    await one.readRaw(a.begin + at, mine);
    await other.readRaw(b.begin + at, theirs);
    if (mine.some((byte, i) => byte !== theirs[i])) return false;
  }
  return true;
}

/** Bytes of each read of a comparison. */
const COMPARED = 4 * 2 ** 20;
