/**
 * Decodes an LZ4 frame, as which Arrow compresses its buffers. Blocks may go on from what is before them; checksums are skipped.
 *
 * Source: LZ4's lz4_Frame_format.md 1.6.4 and lz4_Block_format.md.
 */
const MAGIC = 0x184d2204;
/** Of the frame's flags. */
const [BLOCK_CHECKSUM, CONTENT_SIZE, CONTENT_CHECKSUM, DICTIONARY] = [1 << 4, 1 << 3, 1 << 2, 1] as const;
/** Of a block's size: it is not compressed. */
const STORED = 0x80000000;
const LEAST_MATCH = 4;

/** @param size bytes of what comes out @throws Error for what is damaged, or has another size */
export function decodeLz4Frame(input: Uint8Array, size: number): Uint8Array {
  const view = new DataView(input.buffer, input.byteOffset, input.byteLength);
  if (input.length < 7 || view.getUint32(0, true) !== MAGIC) throw new Error("it is no LZ4 frame");
  const flags = input[4]!;
  if (flags >> 6 !== 1 || flags & DICTIONARY) throw new Error("an LZ4 frame is of an unknown version");
  const output = new Uint8Array(size);
  let written = 0;
  let at = 6 + (flags & CONTENT_SIZE ? 8 : 0) + 1;
  for (;;) {
    const header = at + 4 <= input.length ? view.getUint32(at, true) : Number.NaN;
    at += 4;
    if (header === 0) break;
    const end = at + (header & ~STORED);
    if (!(header > 0) || end > input.length || end < at) throw new Error("an LZ4 frame ends within a block");
    const block = input.subarray(at, end);
    if (header & STORED) {
      if (block.length > size - written) throw new Error("an LZ4 frame is larger than its buffer");
      output.set(block, written);
      written += block.length;
    } else written = decodeBlock(block, output, written);
    at = end + (flags & BLOCK_CHECKSUM ? 4 : 0);
  }
  if (flags & CONTENT_CHECKSUM) at += 4;
  if (at !== input.length || written !== size) throw new Error("an LZ4 frame has another size than its buffer");
  return output;
}

/** Decodes a block to `output` from `at` on. @returns where it ends there */
function decodeBlock(block: Uint8Array, output: Uint8Array, at: number): number {
  let i = 0;
  const byte = () => {
    if (i >= block.length) throw new Error("an LZ4 block ends too early");
    return block[i++]!;
  };
  /** 15 goes on in further bytes, the last of which is below 255. */
  const length = (first: number) => {
    let sum = first;
    for (let more = first === 15 ? 255 : 0; more === 255; ) sum += more = byte();
    return sum;
  };
  while (i < block.length) {
    const token = byte();
    const literals = length(token >> 4);
    if (literals > block.length - i || literals > output.length - at)
      throw new Error("an LZ4 block has too many bytes");
    output.set(block.subarray(i, i + literals), at);
    i += literals;
    at += literals;
    if (i === block.length) break; // the last sequence has no match
    const offset = byte() | (byte() << 8);
    const match = length(token & 15) + LEAST_MATCH;
    if (offset === 0 || offset > at || match > output.length - at) throw new Error("an LZ4 match lies outside");
    if (match <= offset) output.copyWithin(at, at - offset, at - offset + match);
    else for (let k = 0; k < match; k++) output[at + k] = output[at + k - offset]!; // it repeats itself
    at += match;
  }
  return at;
}
