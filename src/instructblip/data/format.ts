/** Formats of data sets by a file's first bytes. */
import { InputError } from "../../tensor/errors.ts";

export type KnownFormat = "json" | "parquet" | "arrow" | "tar" | "compressed" | "image";

/** Bytes that tell a format. */
export const HEAD_BYTES = 512;

/** The format that bytes begin as; undefined if they may be JSONL. */
export function formatOfHead(head: Uint8Array): KnownFormat | undefined {
  // Not a TextDecoder of latin1, which is windows-1252.
  const text = String.fromCharCode(...head.subarray(0, HEAD_BYTES));
  if (text.startsWith("PAR1")) return "parquet";
  if (text.startsWith("ARROW1") || text.startsWith("\xff\xff\xff\xff")) return "arrow";
  if (text.slice(257, 262) === "ustar") return "tar";
  if (text.startsWith("\x1f\x8b") || text.startsWith("BZh") || text.startsWith("\x28\xb5\x2f\xfd")) return "compressed";
  if (/^(\x89PNG|\xff\xd8\xff|GIF8|RIFF....WEBP|BM|II\*\0|MM\0\*)/s.test(text)) return "image";
  return /^(\xef\xbb\xbf)?\s*\[/.test(text) ? "json" : undefined;
}

const NAMES: Readonly<Record<KnownFormat, string>> = {
  json: "a JSON array",
  parquet: "Parquet",
  arrow: "Arrow",
  tar: "a tar",
  compressed: "compressed as a whole",
  image: "an image",
};

/**
 * Passes on the bytes of what must be JSONL.
 *
 * @param hint what to give instead
 * @throws InputError BAD_DATA_FILE if the first of them are another format's
 */
export async function* onlyJsonl(
  name: string,
  chunks: AsyncIterable<Uint8Array>,
  hint: string,
): AsyncGenerator<Uint8Array> {
  let isFirst = true;
  for await (const chunk of chunks) {
    const format = isFirst ? formatOfHead(chunk) : undefined;
    if (format !== undefined) {
      throw new InputError("BAD_DATA_FILE", `${name}: this is ${NAMES[format]}, not JSON lines`, { hint });
    }
    isFirst = false;
    yield chunk;
  }
}
