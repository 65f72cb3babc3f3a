/**
 * A file of tensors: the interface that all formats have. A format gives a header, the place of each tensor's bytes in the file;
 * tensors are then read by range, so that no file is in memory as a whole.
 */
import { DTYPES, type DType } from "../dtype.ts";
import { nearest, WeightError } from "../errors.ts";
import { formatShape } from "../shape.ts";
import { quote } from "../shown.ts";
import type { ByteSource } from "./source.ts";

/** Dtypes of the formats that the engine does not support, and their bits; safetensors has no C128. Such a tensor is an error only when it is read. */
export const UNSUPPORTED_DTYPES = {
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  F8_E4M3FNUZ: 8,
  F8_E5M2FNUZ: 8,
  C64: 64,
  C128: 128,
} as const;
export type UnsupportedDType = keyof typeof UNSUPPORTED_DTYPES;

/** An entry of the header; `begin` and `end` are byte offsets in the file, or beyond its end for a {@link DerivedTensor}. */
export interface TensorInfo {
  readonly name: string;
  readonly dtype: DType | UnsupportedDType;
  readonly shape: readonly number[];
  readonly begin: number;
  readonly end: number;
}

/** A tensor whose bytes are not in the file as they are, but are computed of it. */
export interface DerivedTensor extends Pick<TensorInfo, "name" | "dtype" | "shape"> {
  /** In bytes. */
  readonly size: number;
  /** Fills `into` with its bytes from `byteOffset`, a multiple of 8. */
  read(byteOffset: number, into: Uint8Array): Promise<void>;
}

/** Bounds of what a reader allocates before it has checked the file. */
export interface HeaderLimits {
  /** Of a header, pickle or directory. Default 16 MiB, which is 100,000 tensors; never above safetensors' 100,000,000. */
  maxHeaderBytes?: number;
  /** Default 100,000. */
  maxTensors?: number;
}

export const DEFAULT_HEADER_BYTES = 16 * 2 ** 20;
export const DEFAULT_TENSORS = 100_000;
/** PyTorch models use up to 5. The bound rejects hostile shapes with millions of dimensions. */
export const MAX_RANK = 8;
const MAX_NAME_BYTES = 1024;
/** Throws an error about the file that is being read. */
export type Refuse = (code: string, message: string, hint?: string) => never;

export function refuser(name: string): Refuse {
  return (code, message, hint) => {
    throw new WeightError(code, `${name}: ${message}`, { hint });
  };
}

export interface Header {
  readonly metadata: ReadonlyMap<string, string>;
  /** In file order. */
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  readonly warnings: readonly string[];
}

/** The tensor's dtype, if the engine supports it. @throws WeightError UNSUPPORTED_DTYPE */
export function requireDType(info: TensorInfo, file: string): DType {
  if (info.dtype in DTYPES) return info.dtype as DType;
  throw new WeightError("UNSUPPORTED_DTYPE", `${file}: ${quote(info.name)}: dtype ${info.dtype} is not supported`, {
    hint: "convert the checkpoint to F32, F16 or BF16",
  });
}

/** An open file with a valid header. */
export class TensorFile implements Header {
  readonly name: string;
  readonly metadata: ReadonlyMap<string, string>;
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  readonly warnings: readonly string[];
  /** Identifies the file and its version. */
  readonly origin: Pick<ByteSource, "name" | "size" | "version">;
  readonly #source: ByteSource;
  readonly #derived: (DerivedTensor & { readonly begin: number })[] = [];
  /** Beyond the last derived tensor. */
  readonly #end: number;

  /** @param derived these get offsets beyond the end of the file, with gaps, so that no read covers two of them */
  protected constructor(
    source: ByteSource,
    header: Header,
    derived: readonly DerivedTensor[] = [],
    { name, size, version }: TensorFile["origin"] = source,
  ) {
    this.name = name;
    this.origin = { name, size, ...(version !== undefined && { version }) };
    this.#source = source;
    this.metadata = header.metadata;
    this.warnings = header.warnings;
    const tensors = derived.length ? new Map(header.tensors) : header.tensors;
    let at = source.size;
    for (const tensor of derived) {
      const begin = Math.ceil(at / 8) * 8 + 8;
      at = begin + tensor.size;
      this.#derived.push({ ...tensor, begin });
      const { name, dtype, shape } = tensor;
      (tensors as Map<string, TensorInfo>).set(name, { name, dtype, shape, begin, end: at });
    }
    this.tensors = tensors;
    this.#end = at;
  }

  /**
   * The same file with other tensors: renamed, left out, or computed of it. It is closed with this one.
   *
   * @param warnings besides the file's
   */
  with(
    tensors: Iterable<TensorInfo>,
    derived: readonly DerivedTensor[] = [],
    warnings: readonly string[] = [],
  ): TensorFile {
    const whole: ByteSource = {
      name: this.name,
      size: this.#end,
      read: (offset, into) => this.readRaw(offset, into),
      close: () => this.close(),
    };
    const header = {
      metadata: this.metadata,
      tensors: new Map([...tensors].map((info) => [info.name, info])),
      warnings: [...this.warnings, ...warnings],
    };
    return new TensorFile(whole, header, derived, this.origin);
  }

  /**
   * Reads the bytes of a tensor, or of its rows `[begin, end)` along the first dimension, into a new array.
   *
   * @throws WeightError MISSING_TENSORS, UNSUPPORTED_DTYPE, BAD_RANGE, TENSOR_TOO_LARGE, and the source's own
   */
  async read(name: string, rows?: readonly [begin: number, end: number]): Promise<Uint8Array> {
    const info = this.tensors.get(name) ?? missing(this.name, [name], this.tensors);
    const [begin, end] = rows ? this.#rowBytes(info, rows) : [0, info.end - info.begin];
    let bytes: Uint8Array;
    try {
      bytes = new Uint8Array(end - begin);
    } catch (cause) {
      const message = `${this.name}: ${quote(name)}: ${end - begin} bytes do not fit in one array`;
      throw new WeightError("TENSOR_TOO_LARGE", message, { hint: "read it in rows, or stream it", cause });
    }
    await this.readInto(info, begin, bytes);
    return bytes;
  }

  /** Fills `into` with the tensor's bytes from `byteOffset`. @throws WeightError UNSUPPORTED_DTYPE, BAD_RANGE, … */
  async readInto(info: TensorInfo, byteOffset: number, into: Uint8Array): Promise<void> {
    requireDType(info, this.name);
    const size = info.end - info.begin;
    if (!Number.isSafeInteger(byteOffset) || byteOffset < 0 || byteOffset + into.length > size) {
      const range = `[${byteOffset}, ${byteOffset + into.length})`;
      refuser(this.name)("BAD_RANGE", `${quote(info.name)}: bytes ${range} of ${size}`);
    }
    await this.readRaw(info.begin + byteOffset, into);
  }

  async close(): Promise<void> {
    await this.#source.close();
  }

  /** Fills `into` from a file offset: for reads that cover several tensors. */
  async readRaw(fileOffset: number, into: Uint8Array): Promise<void> {
    if (fileOffset <= this.#source.size) return this.#source.read(fileOffset, into);
    const derived = this.#derived.findLast(({ begin }) => begin <= fileOffset);
    if (derived && fileOffset + into.length <= derived.begin + derived.size) {
      return derived.read(fileOffset - derived.begin, into);
    }
    refuser(this.name)("BAD_RANGE", `bytes from ${fileOffset} lie beyond the file`);
  }

  #rowBytes(info: TensorInfo, [begin, end]: readonly [number, number]): [number, number] {
    const rows = info.shape[0] ?? 0;
    if (!Number.isInteger(begin) || !Number.isInteger(end) || begin < 0 || begin > end || end > rows) {
      const rowRange = `rows [${begin}, ${end}) of the shape ${formatShape(info.shape)}`;
      refuser(this.name)("BAD_RANGE", `${quote(info.name)}: ${rowRange}`);
    }
    const stride = rows === 0 ? 0 : (info.end - info.begin) / rows;
    return [begin * stride, end * stride];
  }
}

/** Refuses names that would be displayed or compared wrongly: control characters, lone surrogates, too long. */
export function checkName(name: string, refuse: Refuse): void {
  const bad = (what: string): never => refuse("BAD_NAME", `the tensor name ${quote(name)} ${what}`);
  if (name === "") bad("is empty");
  // biome-ignore lint/suspicious/noControlCharactersInRegex: a NUL ends the name for readers in C
  if (/[\x00-\x1f\x7f-\x9f]/.test(name)) bad("contains a control character");
  if (!isWellFormed(name)) bad("contains half of a surrogate pair");
  if (name.length > MAX_NAME_BYTES || new TextEncoder().encode(name).length > MAX_NAME_BYTES) {
    bad(`is longer than ${MAX_NAME_BYTES} bytes`);
  }
}

/** Whether all surrogates are paired: String.isWellFormed, which ES2023 lacks. */
export function isWellFormed(text: string): boolean {
  return !/\p{Surrogate}/u.test(text);
}

/** Size of a tensor in bytes, with all steps checked. An odd number of F4 elements is a fraction, which equals no size. */
export function byteSize(shape: readonly number[], bits: number, refuse: Refuse): number {
  // Multiplied in order, as in the reference: an overflow is an error even if a later dimension is 0.
  const elements = shape.reduce((product, dim) => {
    const next = product * dim;
    return Number.isSafeInteger(next)
      ? next
      : refuse("OVERFLOW", `the shape ${formatShape(shape)} has more than 2^53 elements`);
  }, 1);
  const total = elements * bits;
  if (!Number.isSafeInteger(total)) refuse("OVERFLOW", `the shape ${formatShape(shape)} has more than 2^53 bits`);
  return total / 8;
}

/** Names for a message: as many as fit, then the number of others. */
export function listed(names: readonly string[]): string {
  const shown: string[] = [];
  for (const name of names) {
    if (shown.length && shown.join().length + Math.min(name.length, 80) > 120) break;
    shown.push(quote(name));
  }
  const rest = names.length - shown.length;
  return shown.join(", ") + (rest ? ` and ${rest} more` : "");
}

/** Throws for missing tensors. @param names at least one */
export function missing(where: string, names: readonly string[], present: ReadonlyMap<string, unknown>): never {
  const near = nearest(names[0]!, present.keys());
  const hint = near && `the closest name there is ${quote(near)}`;
  throw new WeightError("MISSING_TENSORS", `${where}: no tensor ${listed(names)}`, { hint });
}
