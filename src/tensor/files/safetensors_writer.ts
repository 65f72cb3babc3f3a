/** Writes a safetensors file, byte for byte as the reference implementation. */
import { DTYPES, type DType } from "../dtype.ts";
import { quote } from "../shown.ts";
import { MAX_HEADER_BYTES, PREFIX } from "./safetensors_header.ts";
import { type ByteSink, MemorySink } from "./source.ts";
import { byteSize, checkName, isWellFormed, MAX_RANK, refuser } from "./tensor_file.ts";

/** A tensor to write: little-endian bytes, in memory or streamed. */
export interface TensorEntry {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly data: ArrayBufferView | (() => AsyncIterable<Uint8Array>);
}

/** The reference's order: wider dtypes first, so that each tensor is aligned. */
const WRITE_ORDER: Readonly<Record<DType, number>> = {
  u64: 0,
  i64: 1,
  f64: 2,
  f32: 3,
  u32: 4,
  i32: 5,
  bf16: 6,
  f16: 7,
  u16: 8,
  i16: 9,
  i8: 10,
  u8: 11,
  bool: 12,
};

/**
 * Writes a .safetensors file, byte for byte as the reference: tensors sorted by dtype, then name; the header padded with spaces to
 * a multiple of 8 bytes. All but the length of streamed data is checked before the first byte is written.
 *
 * @throws WeightError BAD_NAME, DUPLICATE_KEY, RANK, BAD_INT, OVERFLOW, SIZE_MISMATCH, BAD_METADATA, HEADER_TOO_LARGE,
 * and the sink's own
 */
export async function writeSafetensors(
  sink: ByteSink,
  tensors: readonly TensorEntry[],
  metadata?: Readonly<Record<string, string>>,
): Promise<void> {
  const sorted = [...tensors].sort(
    (a, b) => WRITE_ORDER[a.dtype] - WRITE_ORDER[b.dtype] || (a.name < b.name ? -1 : Number(a.name > b.name)),
  );
  const sized = sorted.map((entry) => ({ entry, size: sizeOfEntry(entry) }));
  const header = headerOf(sized, metadata);
  const prefix = new Uint8Array(PREFIX);
  new DataView(prefix.buffer).setBigUint64(0, BigInt(header.length), true);
  await sink.write(prefix);
  await sink.write(header);
  for (const { entry, size } of sized) {
    const { name, data } = entry;
    if (typeof data !== "function") {
      await sink.write(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
      continue;
    }
    let written = 0;
    for await (const bytes of data()) {
      written += bytes.length;
      if (written > size) break;
      await sink.write(bytes);
    }
    if (written !== size) {
      const got = written > size ? "more" : String(written);
      refuser(quote(name))("SIZE_MISMATCH", `its shape takes ${size} bytes, got ${got}`);
    }
  }
}

/** A .safetensors file in memory. @throws WeightError as {@link writeSafetensors} */
export async function serializeSafetensors(
  tensors: readonly TensorEntry[],
  metadata?: Readonly<Record<string, string>>,
): Promise<Uint8Array> {
  const sink = new MemorySink();
  await writeSafetensors(sink, tensors, metadata);
  return sink.bytes();
}

/** Checks an entry by the rules of the reader. @returns its size in bytes */
function sizeOfEntry({ name, dtype, shape, data }: TensorEntry): number {
  const refuse = refuser(quote(name));
  checkName(name, refuse);
  if (name === "__metadata__") refuse("BAD_NAME", "this name is reserved");
  if (shape.length > MAX_RANK) refuse("RANK", `${shape.length} dimensions; the limit is ${MAX_RANK}`);
  for (const dim of shape) {
    if (!Number.isSafeInteger(dim) || dim < 0) refuse("BAD_INT", `a dimension must be an integer ≥ 0, got ${dim}`);
  }
  const size = byteSize(shape, 8 * DTYPES[dtype].bytes, refuse);
  if (typeof data !== "function" && data.byteLength !== size) {
    refuse("SIZE_MISMATCH", `its shape takes ${size} bytes, got ${data.byteLength}`);
  }
  return size;
}

/** The header as bytes, padded. */
function headerOf(
  sized: readonly { readonly entry: TensorEntry; readonly size: number }[],
  metadata: Readonly<Record<string, string>> | undefined,
): Uint8Array {
  const refuse = refuser("safetensors writer");
  const members: string[] = [];
  if (metadata) {
    for (const [key, value] of Object.entries(metadata)) {
      const fits = typeof value === "string" && isWellFormed(key) && isWellFormed(value);
      if (!fits) refuse("BAD_METADATA", `__metadata__ must map strings to strings; ${quote(key)} does not`);
    }
    members.push(`"__metadata__":${JSON.stringify(metadata)}`);
  }
  const names = new Set<string>();
  let offset = 0;
  for (const { entry, size } of sized) {
    const { name, dtype, shape } = entry;
    if (names.has(name)) refuse("DUPLICATE_KEY", `two tensors are named ${quote(name)}`);
    names.add(name);
    const member = { dtype: DTYPES[dtype].safetensors, shape, data_offsets: [offset, offset + size] };
    members.push(`${JSON.stringify(name)}:${JSON.stringify(member)}`);
    offset += size;
  }
  if (!Number.isSafeInteger(offset)) refuse("OVERFLOW", "the tensors take more than 2^53 bytes");
  const bytes = new TextEncoder().encode(`{${members.join(",")}}`);
  const header = new Uint8Array(Math.ceil(bytes.length / 8) * 8).fill(0x20);
  header.set(bytes);
  if (header.length > MAX_HEADER_BYTES) refuse("HEADER_TOO_LARGE", `${header.length} bytes of header`);
  return header;
}
