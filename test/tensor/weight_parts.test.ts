/** Several matrices of a file that are one weight for the kernels. */
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

test.each([
  ["f32", 12],
  ["f16", 7],
  ["bf16", 64],
  ["int8", 40],
  ["int4", 33],
] as [WeightDType, number][])(
  "%s, rows of %i: a pair keeps the same rows of both in every buffer",
  async (dtype, K) => {
    const small = await otherDevice({ max_binding: 16 * Math.ceil(Math.max(4 * rowBytes(dtype, K), 120) / 16) });
    const F = 7;
    const data = [1, 2].map((seed) => new Random(seed).normal(F * K));
    const pair = new Weight(small, [2 * F, K], dtype, { paired: true });
    const halves = [pair.part(0, F), pair.part(F, F)];
    for (const i of [1, 0]) {
      const bytes = bytesOf(data[i]);
      const cut = Math.floor(bytes.length / 12) * 4;
      halves[i].write(0, bytes.subarray(0, cut), "f32");
      halves[i].write(cut, bytes.subarray(cut), "f32");
    }
    const alone = data.map((half) => Weight.from(device, half, [F, K], dtype));
    const rows: number[][] = [];
    for (const [i, half] of halves.entries()) {
      const numbers = await numbersOf(half, 100);
      expect(numbers).toEqual(await numbersOf(alone[i]));
      rows.push([...new Uint8Array((await alone[i].shards[0].bits.read()).buffer)]);
    }
    expect(await numbersOf(pair)).toEqual(
      Uint8Array.from([...(await numbersOf(alone[0])), ...(await numbersOf(alone[1]))]),
    );
    expect(pair.shards.length).toBeGreaterThan(1);
    for (const { bits, firstRow, rows: count } of pair.shards) {
      const [from, to] = [firstRow, firstRow + count].map((row) => row * pair.rowBytes);
      expect(bits.shape[0]).toBe(2 * count);
      const found = [...new Uint8Array((await bits.read()).buffer)];
      expect(found).toEqual([...rows[0].slice(from, to), ...rows[1].slice(from, to)]);
    }
    for (const weight of alone) weight.dispose();
    small.destroy();
  },
);

test("a pair whose two rows exceed a binding is refused by name", async () => {
  const small = await otherDevice({ max_binding: 112 });
  expect(new Weight(small, [2, 28], "f32").shards.length).toBe(2);
  expect(() => new Weight(small, [2, 28], "f32", { label: "mlp.gate_proj.weight", paired: true })).toThrow(
    "mlp.gate_proj.weight: two rows take 224 B, more than a binding may span",
  );
  small.destroy();
});
