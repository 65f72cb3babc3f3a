/** Tensors that are computed of a file's. */
import type { DerivedTensor, TensorFile, TensorInfo } from "./tensor_file.ts";

/** Bytes of a file, or as many zeros. */
export type Part = Pick<TensorInfo, "begin" | "end"> | { readonly zeros: number };

/** A tensor of parts, one after the other. */
export function concatenated(
  file: Pick<TensorFile, "readRaw">,
  tensor: Pick<TensorInfo, "name" | "dtype" | "shape">,
  parts: readonly Part[],
): DerivedTensor {
  const sizeOf = (part: Part) => ("zeros" in part ? part.zeros : part.end - part.begin);
  return {
    ...tensor,
    size: parts.reduce((sum, part) => sum + sizeOf(part), 0),
    async read(byteOffset, into) {
      let begin = 0; // of the part
      for (const part of parts) {
        const end = begin + sizeOf(part);
        const [from, to] = [Math.max(begin, byteOffset), Math.min(end, byteOffset + into.length)];
        if (from < to) {
          const piece = into.subarray(from - byteOffset, to - byteOffset);
          if ("zeros" in part) piece.fill(0);
          else await file.readRaw(part.begin + from - begin, piece);
        }
        begin = end;
      }
    },
  };
}
