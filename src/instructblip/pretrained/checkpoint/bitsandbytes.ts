/**
 * Checkpoints that bitsandbytes quantized, as transformers saves them: dequantized while they are read, to the numbers of its own
 * dequantize_4bit and int8_vectorwise_dequant, bit for bit.
 *
 * Source: bitsandbytes 0.50, functional.py (QuantState, get_4bit_type), backends/default/ops.py (dequantize_4bit,
 * dequantize_blockwise), _ops.py (int8_vectorwise_dequant), nn/modules.py (Linear8bitLt._save_to_state_dict).
 */
import { DTYPES, type DType, type FloatDType, narrow, widen } from "../../../tensor/dtype.ts";
import { WeightError } from "../../../tensor/errors.ts";
import type { Checkpoint, CheckpointTensor } from "../../../tensor/files/checkpoint.ts";
import { type DerivedTensor, MAX_RANK, type TensorFile, type TensorInfo } from "../../../tensor/files/tensor_file.ts";
import { formatShape, sizeOf } from "../../../tensor/shape.ts";
import { quote, shown } from "../../../tensor/shown.ts";
import { type JsonRecord, parseRecord } from "../../config/json_file.ts";

/** Numbers of the 4-bit types by their bits: quantiles of the normal distribution; and floats of 2 + 1 bits, by the largest. */
const TABLES = {
  nf4: Float32Array.of(
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
  ),
  fp4: Float32Array.from([0, 0.0625, 8, 12, 4, 6, 2, 3, 0, -0.0625, -8, -12, -4, -6, -2, -3], (number) => number / 12),
} as const;

/** What belongs to a 4-bit matrix, after its name. */
const STATE =
  /^(.*\.weight)\.(absmax|quant_map|nested_absmax|nested_quant_map|quant_state\.bitsandbytes__(?:nf4|fp4))$/;
/** What belongs to an 8-bit matrix, after its module's name. */
const ROWS = /^(.*)\.(SCB|weight_format)$/;
const ABOUT_DTYPE = 'dtype: "int8" or "int4" (--dtype) stores matrices in fewer bits';
const HINT = "save it anew by transformers' save_pretrained(), or load the model's original checkpoint";
/** Of a quant_state, which bitsandbytes writes in some 200 bytes; no map is longer. */
const MAX_SMALL_BYTES = 4096;
/** Concurrent reads of what is small: a server answers each for itself. */
const SMALL_READS = 8;
const BLOCKS: readonly unknown[] = [32, 64, 128, 256, 512, 1024, 2048, 4096];
const DTYPE_OF = new Map<unknown, FloatDType>([
  ["float32", "f32"],
  ["float16", "f16"],
  ["bfloat16", "bf16"],
]);
/** 1 / 127, as bitsandbytes has it. */
const OF_127 = Math.fround(7.874015718698502e-3);

/** A matrix int8[N, K], with a scale of each row. */
interface EightBits {
  readonly kind: "int8";
  readonly weight: CheckpointTensor;
  /** f32[N] */
  readonly scales: CheckpointTensor;
}

/** A matrix of 4-bit codes, with a scale of each block of `block` elements, row after row. */
interface FourBits {
  readonly kind: "nf4" | "fp4";
  readonly weight: CheckpointTensor;
  readonly dtype: FloatDType;
  readonly shape: readonly number[];
  readonly block: number;
  /** f32[blocks], or nested u8[blocks] */
  readonly absmax: CheckpointTensor;
  /** How absmax is quantized itself. */
  readonly nested?: {
    readonly absmax: CheckpointTensor;
    /** f32[256] */
    readonly map: Float32Array;
    readonly block: number;
    readonly offset: number;
  };
}

type Quantized = EightBits | FourBits;

/**
 * The checkpoint with its quantized matrices as f32, f16 or bf16, whichever bitsandbytes says they were; those of 8 bits as f32.
 * Without any, the checkpoint itself.
 *
 * @throws WeightError QUANTIZED_CHECKPOINT; as Checkpoint.stream
 */
export async function dequantized(checkpoint: Checkpoint): Promise<Checkpoint> {
  const found = await quantizedOf(checkpoint);
  if (found.size === 0) return checkpoint;
  const parts = new Set<string>();
  for (const name of checkpoint.tensors.keys()) if (ownerOf(name, found) !== undefined) parts.add(name);
  const change = (file: TensorFile) => {
    const tensors: TensorInfo[] = [];
    const derived: DerivedTensor[] = [];
    for (const info of file.tensors.values()) {
      const quantized = found.get(info.name);
      if (quantized) derived.push(dequantizedTensor(checkpoint, quantized));
      else if (!parts.has(info.name)) tensors.push(info);
    }
    return file.with(tensors, derived);
  };
  return checkpoint.map(change, [MADE_WITH], notesOn([...found.values()]));
}

const MADE_WITH = "bitsandbytes";

/** Whether a checkpoint's matrices were dequantized. */
export function isDequantized({ made_with }: Pick<Checkpoint, "made_with">): boolean {
  return made_with.includes(MADE_WITH);
}

function notesOn(matrices: readonly Quantized[]): string[] {
  const counts = new Map<string, number>();
  for (const matrix of matrices) {
    const key = `bitsandbytes quantized (${matrix.kind}) are dequantized to ${dtypeOf(matrix)}`;
    counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  return [...counts].map(([what, count]) => `${count} matrices that ${what} while they are read; ${ABOUT_DTYPE}`);
}

const dtypeOf = (matrix: Quantized): FloatDType => (matrix.kind === "int8" ? "f32" : matrix.dtype);
const shapeOf = (matrix: Quantized) => (matrix.kind === "int8" ? matrix.weight.shape : matrix.shape);

/** The matrix that a tensor describes, if it is quantized. */
function ownerOf(name: string, found: ReadonlyMap<string, unknown>): string | undefined {
  const [, weight] = STATE.exec(name) ?? [];
  const [, module] = ROWS.exec(name) ?? [];
  const owner = weight ?? (module === undefined ? undefined : `${module}.weight`);
  return owner !== undefined && found.has(owner) ? owner : undefined;
}

/** All quantized matrices by name, with all that is small about them read and checked. */
async function quantizedOf(checkpoint: Checkpoint): Promise<Map<string, Quantized>> {
  const { tensors } = checkpoint;
  const names4 = new Set<string>();
  const names8 = new Set<string>();
  const small: CheckpointTensor[] = [];
  for (const info of tensors.values()) {
    const [, weight, part] = STATE.exec(info.name) ?? [];
    const [, module, row] = ROWS.exec(info.name) ?? [];
    if (weight !== undefined) names4.add(weight);
    else if (module !== undefined && tensors.get(`${module}.weight`)?.dtype === "i8") names8.add(`${module}.weight`);
    if (row === "weight_format" || (part !== undefined && !part.endsWith("absmax"))) small.push(info);
  }
  for (const { name, dtype } of tensors.values()) {
    if (dtype !== "i8" || !name.endsWith(".weight") || names4.has(name) || names8.has(name)) continue;
    refuse(checkpoint, name, "it is int8, without the scales of its rows (SCB)");
  }
  const read = await readSmall(checkpoint, small);
  const found = new Map<string, Quantized>();
  for (const name of names4) found.set(name, fourBits(checkpoint, name, read));
  for (const name of names8) found.set(name, eightBits(checkpoint, name, read));
  return found;
}

function refuse(checkpoint: Checkpoint, name: string, message: string, cause?: unknown): never {
  const what = `${checkpoint.name}: ${quote(name)} is quantized by bitsandbytes, but ${message}`;
  throw new WeightError("QUANTIZED_CHECKPOINT", what, { hint: HINT, cause });
}

async function readSmall(
  checkpoint: Checkpoint,
  infos: readonly CheckpointTensor[],
): Promise<ReadonlyMap<string, Uint8Array<ArrayBuffer>>> {
  const read = new Map<string, Uint8Array<ArrayBuffer>>();
  for (const { name, begin, end } of infos) {
    if (end - begin > MAX_SMALL_BYTES) refuse(checkpoint, name, `has ${end - begin} bytes; at most ${MAX_SMALL_BYTES}`);
    read.set(name, new Uint8Array(end - begin));
  }
  const options = { chunkBytes: 2 ** 20, reads: SMALL_READS };
  for await (const { name, byteOffset, bytes } of checkpoint.stream(read.keys(), options)) {
    read.get(name)!.set(bytes, byteOffset);
  }
  return read;
}

function eightBits(
  checkpoint: Checkpoint,
  name: string,
  read: ReadonlyMap<string, Uint8Array<ArrayBuffer>>,
): Quantized {
  const fail = (message: string) => refuse(checkpoint, name, message);
  const module = name.slice(0, -".weight".length);
  const weight = checkpoint.tensors.get(name)!;
  const scales = checkpoint.tensors.get(`${module}.SCB`) ?? fail("the scales of its rows (SCB) are missing");
  const format = read.get(`${module}.weight_format`);
  if (format && (format.length !== 1 || format[0] !== 0)) fail(`its weight_format is ${shown(format[0])}, not by rows`);
  if (weight.shape.length !== 2) fail(`its shape is ${formatShape(weight.shape)}`);
  if (scales.dtype !== "f32" || sizeOf(scales.shape) !== weight.shape[0]) {
    fail(`SCB is ${scales.dtype}${formatShape(scales.shape)} for a matrix of ${formatShape(weight.shape)}`);
  }
  return { kind: "int8", weight, scales };
}

function fourBits(checkpoint: Checkpoint, name: string, read: ReadonlyMap<string, Uint8Array<ArrayBuffer>>): Quantized {
  const fail = (message: string, cause?: unknown) => refuse(checkpoint, name, message, cause);
  const { tensors } = checkpoint;
  const weight = tensors.get(name) ?? fail("it is missing itself");
  /** A tensor of f32 numbers or bytes of the matrix's state. */
  const part = (field: string, dtype: "f32" | "u8", size: number): CheckpointTensor => {
    const info = tensors.get(`${name}.${field}`) ?? fail(`its ${field} is missing`);
    if (info.dtype === dtype && sizeOf(info.shape) === size) return info;
    return fail(`its ${field} is ${info.dtype}${formatShape(info.shape)}, not ${size} of ${dtype}`);
  };
  const numbersOf = (field: string, size: number) => widen(read.get(part(field, "f32", size).name)!, "f32");
  const kinds = (["nf4", "fp4"] as const).filter((kind) => tensors.has(`${name}.quant_state.bitsandbytes__${kind}`));
  const kind = kinds[0];
  if (kinds.length !== 1 || !kind) return fail(`it has ${kinds.length ? "two quant_states" : "no quant_state"}`);
  let state: JsonRecord;
  try {
    state = parseRecord(new TextDecoder().decode(read.get(`${name}.quant_state.bitsandbytes__${kind}`)), "quant_state");
  } catch (cause) {
    return fail(`its quant_state is no JSON object: ${(cause as Error).message}`, cause);
  }
  const { quant_type, blocksize, dtype: type, shape } = state;
  const dtype = DTYPE_OF.get(type);
  if (quant_type !== kind) return fail(`its quant_type is ${shown(quant_type)}`);
  if (!dtype) return fail(`its dtype is ${shown(type)}`);
  if (!isShape(shape)) return fail(`its shape is ${shown(shape)}`);
  const size = sizeOf(shape);
  const bytes = weight.end - weight.begin;
  if (Math.ceil(size / 2) !== bytes) return fail(`${bytes} bytes are not ${formatShape(shape)} of 4 bits`);
  if (weight.shape[0] === 1 && bytes > 1) return fail(`it is transposed: ${formatShape(weight.shape)}`);
  const block = blockOf(blocksize, fail);
  const blocks = Math.ceil(size / block);
  // bitsandbytes takes the table of the type: another in the file would be one that it does not dequantize by.
  const table = numbersOf("quant_map", TABLES[kind].length);
  if (!table.every((number, i) => Math.abs(number - TABLES[kind][i]!) < 1e-6))
    fail(`its quant_map is not that of ${kind}`);
  const { nested_blocksize, nested_dtype, nested_offset } = state;
  const given = [nested_blocksize, nested_dtype, nested_offset, tensors.get(`${name}.nested_absmax`)];
  const common = { kind, weight, dtype, shape, block } as const;
  if (given.every((value) => value === undefined)) return { ...common, absmax: part("absmax", "f32", blocks) };
  if (nested_dtype !== "float32") return fail(`its nested_dtype is ${shown(nested_dtype)}`);
  if (typeof nested_offset !== "number") return fail(`its nested_offset is ${shown(nested_offset)}`);
  const nestedBlock = blockOf(nested_blocksize, fail);
  const nested = {
    absmax: part("nested_absmax", "f32", Math.ceil(blocks / nestedBlock)),
    map: numbersOf("nested_quant_map", 256),
    block: nestedBlock,
    offset: Math.fround(nested_offset),
  };
  return { ...common, absmax: part("absmax", "u8", blocks), nested };
}

function blockOf(value: unknown, fail: (message: string) => never): number {
  return typeof value === "number" && BLOCKS.includes(value) ? value : fail(`its blocksize is ${shown(value)}`);
}

function isShape(value: unknown): value is number[] {
  const isSize = (size: unknown) => typeof size === "number" && Number.isSafeInteger(size) && size >= 0;
  return Array.isArray(value) && value.length <= MAX_RANK && value.every(isSize);
}

function dequantizedTensor(checkpoint: Checkpoint, matrix: Quantized): DerivedTensor {
  const dtype = dtypeOf(matrix);
  const shape = shapeOf(matrix);
  const { bytes } = DTYPES[dtype];
  return {
    ...{ name: matrix.weight.name, dtype, shape, size: sizeOf(shape) * bytes },
    async read(byteOffset, into) {
      if (into.length === 0) return;
      const range = { first: byteOffset / bytes, count: into.length / bytes };
      const numbers = await (matrix.kind === "int8"
        ? dequantizeRows(checkpoint, matrix, range)
        : dequantizeBlocks(checkpoint, matrix, range));
      into.set(new Uint8Array(numbers.buffer, numbers.byteOffset, into.length));
    },
  };
}

interface Range {
  readonly first: number;
  /** At least 1. */
  readonly count: number;
}

/** Elements of a tensor, of its file. */
async function elements(checkpoint: Checkpoint, { name, dtype }: CheckpointTensor, { first, count }: Range) {
  const { bytes } = DTYPES[dtype as DType];
  const into = new Uint8Array(count * bytes);
  await checkpoint.readInto(name, first * bytes, into);
  return into;
}

/** Rows that are int8[K] with a scale each: number · scale · (1 / 127), each product rounded to f32. */
async function dequantizeRows(
  checkpoint: Checkpoint,
  { weight, scales }: EightBits,
  range: Range,
): Promise<Float32Array> {
  const K = weight.shape[1]!;
  const { first, count } = range;
  const row = Math.floor(first / K);
  const rows = Math.floor((first + count - 1) / K) + 1 - row;
  const [bytes, scaleBytes] = await Promise.all([
    elements(checkpoint, weight, range),
    elements(checkpoint, scales, { first: row, count: rows }),
  ]);
  const scaleOf = widen(scaleBytes, "f32");
  const numbers = new Float32Array(new Int8Array(bytes.buffer));
  for (let r = 0; r < rows; r++) {
    const end = Math.min(count, (row + r + 1) * K - first);
    const scale = scaleOf[r]!;
    for (let i = Math.max(0, (row + r) * K - first); i < end; i++)
      numbers[i] = Math.fround(numbers[i]! * scale) * OF_127;
  }
  return numbers;
}

/**
 * Blocks of 4-bit codes, two to a byte, the first in its upper half: the type's number · the block's scale, rounded to f32, and
 * from that to the dtype.
 */
async function dequantizeBlocks(
  checkpoint: Checkpoint,
  matrix: FourBits,
  { first, count }: Range,
): Promise<Float32Array | Uint16Array> {
  const { kind, weight, dtype, block } = matrix;
  const end = first + count;
  const from = Math.floor(first / block);
  const firstByte = Math.floor(first / 2);
  const packed = new Uint8Array(Math.ceil(end / 2) - firstByte);
  const [scales] = await Promise.all([
    scalesOf(checkpoint, matrix, { first: from, count: Math.ceil(end / block) - from }),
    checkpoint.readInto(weight.name, firstByte, packed),
  ]);
  const skipped = first % 2; // the first byte's upper half, if a row begins with its lower
  const numbers = dtype === "f32" ? new Float32Array(count) : new Uint16Array(count);
  // All numbers that a block can have are made once for it.
  const scaled = new Float32Array(16);
  const bits = new Uint16Array(16);
  for (let b = 0; b < scales.length; b++) {
    for (let code = 0; code < 16; code++) scaled[code] = TABLES[kind][code]! * scales[b]!;
    const values = dtype === "f32" ? scaled : narrow(scaled, dtype, bits);
    // From here on by the piece's own indices; `at + skipped` is that of a code in `packed`.
    const stop = Math.min(end, (from + b + 1) * block) - first;
    let at = Math.max(first, (from + b) * block) - first;
    if ((at + skipped) & 1) {
      numbers[at] = values[packed[(at + skipped) >>> 1]! & 15]!;
      at++;
    }
    for (let i = (at + skipped) >>> 1; at < stop - 1; i++) {
      const byte = packed[i]!;
      numbers[at++] = values[byte >>> 4]!;
      numbers[at++] = values[byte & 15]!;
    }
    if (at < stop) numbers[at] = values[packed[(at + skipped) >>> 1]! >>> 4]!;
  }
  return numbers;
}

/** The scales of blocks; of a nested absmax: its map's number · the scale of its own block, rounded to f32, + offset. */
async function scalesOf(checkpoint: Checkpoint, { absmax, nested }: FourBits, range: Range): Promise<Float32Array> {
  const bytes = await elements(checkpoint, absmax, range);
  if (!nested) return widen(bytes, "f32");
  const { map, block, offset } = nested;
  const from = Math.floor(range.first / block);
  const count = Math.ceil((range.first + range.count) / block) - from;
  const outer = widen(await elements(checkpoint, nested.absmax, { first: from, count }), "f32");
  return Float32Array.from(bytes, (code, i) => {
    const scale = outer[Math.floor((range.first + i) / block) - from]!;
    return Math.fround(map[code]! * scale) + offset;
  });
}
