/** Quantizing a matrix while it is loaded. */
import { DTYPES, type FloatDType, narrow, widen } from "../../dtype.ts";
import { quantize } from "../../ops/quantize.ts";
import { rowBytes } from "../../quantize.ts";
import { quantize as reference } from "../../reference/quantize.ts";
import { compare } from "../support/compare.ts";
import { fillRandom, sampleRows } from "../support/data.ts";
import { type Groups, ONLY } from "../support/group.ts";
import { HARD_NUMBERS } from "../support/hard_numbers.ts";
import { Random } from "../support/random.ts";
import { TOLERANCES } from "../support/tolerances.ts";

/** Above so many numbers the matrix is plain random: hard numbers take long to make. */
const MOST_HARD = 2 ** 20;

export const groups: Groups = ({ quantized }) =>
  quantized.map(({ name, N, K, from, to }) => ({
    kernel: "quantize",
    shape: `${name} N${N} K${K} ${from} to ${to}`,
    ...ONLY,
    open(device) {
      const size = DTYPES[from].bytes;
      const bytes = new Uint8Array(N * K * size);
      if (N * K > MOST_HARD) fillRandom(bytes, 0, from);
      else bytes.set(hardRows(N, K, from));
      const x = device.tensor(new Uint32Array(bytes.buffer), [bytes.length / 4]);
      const words = rowBytes(to, K) / 4;
      return {
        flops: 0,
        bytes: bytes.length + 4 * N * words,
        run: () => quantize(x, device.empty([N, words], "u32"), { from, to, K, rows: N }),
        check(y) {
          const rows = sampleRows(N, 131);
          const actual = rows.flatMap((row) => [...(y as Uint32Array).subarray(row * words, (row + 1) * words)]);
          const numbers = (row: number) => widen(bytes.subarray(row * K * size, (row + 1) * K * size), from);
          const expected = rows.flatMap((row) => [
            ...new Uint32Array(Uint8Array.from(reference(numbers(row), to)).buffer),
          ]);
          return compare(actual, expected, TOLERANCES.exact, "quantize");
        },
      };
    },
  }));

/** Rows of every kind in turn, as bytes of a file. */
function hardRows(N: number, K: number, dtype: FloatDType): Uint8Array {
  const kinds = Object.values(HARD_NUMBERS);
  const numbers = new Float32Array(N * K);
  for (let row = 0; row < N; row++) numbers.set(kinds[row % kinds.length]!(new Random(row), K), row * K);
  return new Uint8Array((dtype === "f32" ? numbers : narrow(numbers, dtype)).buffer);
}
