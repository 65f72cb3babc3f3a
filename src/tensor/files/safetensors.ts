/** Reader of a safetensors file. Its header is read and checked on opening (safetensors_header.ts), tensors are read by range. */
import { readHeader } from "./safetensors_header.ts";
import type { ByteSource } from "./source.ts";
import { type HeaderLimits, TensorFile } from "./tensor_file.ts";

/** An open .safetensors file with a valid header. */
export class SafetensorsFile extends TensorFile {
  /**
   * Reads and checks the header. Takes ownership of `source`: closes it if the file is refused.
   *
   * @throws WeightError NOT_SAFETENSORS, HEADER_TOO_SMALL, HEADER_TOO_LARGE, HEADER_LENGTH, BAD_UTF8, BAD_JSON,
   * BAD_HEADER_TYPE, DUPLICATE_KEY, BAD_METADATA, BAD_NAME, TOO_MANY_TENSORS, BAD_ENTRY, BAD_DTYPE, RANK, BAD_INT,
   * OVERFLOW, OFFSETS, SIZE_MISMATCH, HOLE, OVERLAP, TRUNCATED, TRAILING_DATA, and the source's own
   */
  static async open(source: ByteSource, limits: HeaderLimits = {}): Promise<SafetensorsFile> {
    try {
      return new SafetensorsFile(source, await readHeader(source, limits));
    } catch (error) {
      await source.close();
      throw error;
    }
  }
}
