/** The layout of src/tensor/quantize.ts, written byte by byte. */
import { BLOCK, blocksOf, stored } from "../src/tensor/cases/support/stored.ts";

export { stored };

/** A row's bytes on the device. */
export function rowAsBytes(row: readonly number[], dtype: "int8" | "int4"): number[] {
  const bytes: number[] = [];
  const blocks = blocksOf(row, dtype);
  for (const { codes } of blocks) {
    if (dtype === "int8") bytes.push(...codes.map((code) => code & 0xff));
    else {
      for (let i = 0; i < BLOCK; i += 8) {
        for (let j = i; j < i + 4; j++) bytes.push(codes[j] + 16 * codes[j + 4]);
      }
    }
  }
  for (const { scale, min } of blocks) {
    bytes.push(scale & 0xff, scale >> 8);
    if (dtype === "int4") bytes.push(min & 0xff, min >> 8);
  }
  while (bytes.length % 4) bytes.push(0);
  return bytes;
}
