/** Splits the tensors of a checkpoint into reads. A read covers pieces of one or several tensors. */
import type { TensorInfo } from "./tensor_file.ts";

/** A range of a file that one read covers. */
export interface Window {
  readonly file: string;
  readonly begin: number;
  readonly end: number;
  readonly pieces: readonly {
    readonly name: string;
    /** Offset of the piece in its tensor; a multiple of 8. */
    readonly byteOffset: number;
    /** Offset of the piece in the window; a multiple of 8. */
    readonly from: number;
    readonly length: number;
  }[];
}

type Placed = Pick<TensorInfo, "name" | "begin" | "end"> & { readonly file: string };

/** Windows of at most `size` bytes over tensors in file order. Each byte is in exactly one. Adjacent tensors share windows. */
export function* windowsOf(tensors: readonly Placed[], size: number): Generator<Window, void, undefined> {
  let done = 0; // bytes of tensors[i] in earlier windows, a multiple of 8
  for (let i = 0; i < tensors.length; ) {
    const { file } = tensors[i]!;
    const begin = tensors[i]!.begin + done;
    const end = endOfRun(tensors, i, begin, begin + size);
    const pieces: Window["pieces"][number][] = [];
    for (; i < tensors.length && tensors[i]!.file === file; i++, done = 0) {
      const { name, begin: first, end: last } = tensors[i]!;
      const from = first + done;
      if (from < begin || from > end || (from - begin) % 8 !== 0) break;
      const rest = last - from;
      const length = rest <= end - from ? rest : end - from - ((end - from) % 8);
      if (length === 0 && rest > 0) break;
      pieces.push({ name, byteOffset: done, from: from - begin, length });
      done += length;
      if (length < rest) break;
    }
    yield { file, begin, end, pieces };
  }
}

/** The end of a read from `begin`, in tensor `i`: at `limit`, a gap, or a tensor that would not be aligned to 8 bytes. */
function endOfRun(tensors: readonly Placed[], i: number, begin: number, limit: number): number {
  const first = tensors[i]!;
  let { end } = first;
  for (let j = i + 1; j < tensors.length && end < limit; j++) {
    const next = tensors[j]!;
    if (next.file !== first.file || next.begin !== end || (next.begin - begin) % 8 !== 0) break;
    end = next.end;
  }
  return Math.min(end, limit);
}
