/** Several matrices of a file that are one to the kernels. */
import { expect, test } from "vitest";
import type { WeightDType } from "../../src/tensor/dtype.ts";
import { linear } from "../../src/tensor/ops/linear.ts";
import { rowBytes } from "../../src/tensor/quantize.ts";
import { Weight } from "../../src/tensor/weight.ts";
import { otherDevice, testDevice } from "../device.ts";
import { Random } from "../random.ts";

const device = await testDevice();
const bytesOf = (x: Float32Array) => new Uint8Array(x.buffer, x.byteOffset, x.byteLength);

async function numbersOf(weight: Weight, pieceBytes?: number): Promise<Uint8Array> {
  const pieces: number[] = [];
  for await (const piece of weight.read(pieceBytes)) pieces.push(...piece);
  return Uint8Array.from(pieces);
}

test.each([
  ["f32", 12],
  ["f16", 7],
  ["bf16", 64],
  ["int8", 40],
  ["int4", 33],
] as [WeightDType, number][])(
  "%s, rows of %i: parts written in any order are the whole, and read back apart",
  async (dtype, K) => {
    const rows = [5, 1, 9];
    // The whole in several shards, cut inside of parts; input and output of two rows fit one.
    const small = await otherDevice({ max_binding: 16 * Math.ceil(Math.max(4 * rowBytes(dtype, K), 8 * K, 120) / 16) });
    const data = rows.map((n, i) => new Random(i + 1).normal(n * K));
    const whole = new Weight(small, [15, K], dtype);
    const parts = [whole.part(0, 5), whole.part(5, 1), whole.part(6, 9)];
    for (const i of [2, 0, 1]) {
      const bytes = bytesOf(data[i]);
      const cut = Math.floor(bytes.length / 8) * 4;
      parts[i].write(0, bytes.subarray(0, cut), "f32");
      parts[i].write(cut, bytes.subarray(cut), "f32");
    }
    const joined = Float32Array.from(data.flatMap((part) => [...part]));
    const twin = Weight.from(small, joined, [15, K], dtype);
    expect(whole.shards.length).toBeGreaterThan(1);
    expect(await numbersOf(whole)).toEqual(await numbersOf(twin));
    for (const [i, part] of parts.entries()) {
      const alone = Weight.from(device, data[i], [rows[i], K], dtype);
      expect(await numbersOf(part, 100)).toEqual(await numbersOf(alone));
      expect(part.bytes).toBe(alone.bytes);
      alone.dispose();
    }
    const x = small.tensor(new Random(9).normal(2 * K), [2, K]);
    expect(await linear(x, whole).read()).toEqual(await linear(x, twin).read());
    for (const part of parts) part.dispose(); // the whole owns the memory
    expect((await linear(x, whole).read()).length).toBe(30);
    small.destroy();
  },
);
