/**
 * The key/value cache: the tokens that each row attends to after append, reorder, growth and copy, and that nothing is
 * moved.
 */
import { expect, test, vi } from "vitest";
import { KVCache } from "../../src/modules/kv_cache.ts";
import { f16ToNumber } from "../../src/tensor/dtype.ts";
import type { KeysOrValues } from "../../src/tensor/ops/attention.ts";
import { testDevice } from "../device.ts";

const device = await testDevice();
const SHAPE = { layers: 2, batch: 2, heads: 2, head_dim: 4, capacity: 6 };

/** f32[R, T, Hkv, d] of which every number says its row and token: `first` + 10 * row + token, + 1/2 for head 1. */
function tokens(R: number, T: number, first: number) {
  const { heads, head_dim } = SHAPE;
  const numbers = Float32Array.from({ length: R * T * heads * head_dim }, (_, i) => {
    const [h, token] = [Math.floor(i / head_dim) % heads, Math.floor(i / head_dim / heads)];
    return first + 10 * Math.floor(token / T) + (token % T) + h / 2;
  });
  return device.tensor(numbers, [R, T, heads, head_dim]);
}

function append(cache: KVCache, R: number, T: number, first: number): void {
  device.scope(() => {
    for (let layer = 0; layer < SHAPE.layers; layer++) {
      cache.append(layer, tokens(R, T, first + 1000 * layer), tokens(R, T, -first - 1000 * layer - 500));
    }
    cache.advance(T);
  });
}

async function numbersOf(tensor: KeysOrValues): Promise<ArrayLike<number>> {
  const data = await tensor.read();
  if (data instanceof Float32Array) return data;
  return Array.from(new Uint16Array(data.buffer, data.byteOffset, data.length * 2), f16ToNumber);
}

/** Of each row the first number of head `h` of every key it may attend to; null for those it may not. */
async function seen(cache: KVCache, layer = 0, h = 0): Promise<(number | null)[][]> {
  const { keys } = cache.layer(layer);
  const numbers = await numbersOf(keys);
  const { blockTable } = cache.attentionView;
  const table = await blockTable.read();
  const [C, d] = [cache.capacity, SHAPE.head_dim];
  return Array.from({ length: blockTable.shape[0] }, (_, i) =>
    Array.from({ length: cache.length }, (_, s) => {
      const row = table[i * C + s] - 1;
      return row < 0 ? null : numbers[((row * SHAPE.heads + h) * C + s) * d];
    }),
  );
}

test("append stores tokens after the earlier ones, in each layer and head, with length on host and device", async () => {
  const cache = new KVCache(device, SHAPE);
  append(cache, 2, 3, 100);
  append(cache, 2, 1, 200);
  expect([cache.length, ...(await cache.past.read())]).toEqual([4, 4]);
  expect(await seen(cache)).toEqual([
    [100, 101, 102, 200],
    [110, 111, 112, 210],
  ]);
  expect((await seen(cache, 1, 1))[1]).toEqual([1110.5, 1111.5, 1112.5, 1210.5]);
  const values = await numbersOf(cache.layer(1).values);
  expect(Array.from({ length: 4 }, (_, s) => values[s * 4])).toEqual([-1600, -1599, -1598, -1700]);
  const [k] = cache.append(0, tokens(2, 1, 300), tokens(2, 1, 300));
  expect(k.shape).toEqual([2, 6, 2, 4]); // as attention takes it, whole
  cache.dispose();
});

test("tokens beyond the capacity are not written", async () => {
  const cache = new KVCache(device, SHAPE);
  append(cache, 2, 5, 100);
  append(cache, 2, 3, 200); // one more than there is room for, and one more
  const numbers = await numbersOf(cache.layer(0).keys);
  const first = (row: number, h: number) =>
    Array.from({ length: 6 }, (_, s) => numbers[((row * SHAPE.heads + h) * 6 + s) * SHAPE.head_dim]);
  expect(first(0, 0)).toEqual([100, 101, 102, 103, 104, 200]);
  expect(first(0, 1)).toEqual([100.5, 101.5, 102.5, 103.5, 104.5, 200.5]);
  expect(first(1, 0)).toEqual([110, 111, 112, 113, 114, 210]);
  cache.dispose();
});

test("padding of the prompt is masked, appended tokens are not", async () => {
  const cache = new KVCache(device, SHAPE);
  cache.setPromptMask([
    [0, 1, 1],
    [1, 0, 1],
  ]);
  append(cache, 2, 3, 100);
  append(cache, 2, 1, 200);
  expect(await seen(cache)).toEqual([
    [null, 101, 102, 200],
    [110, null, 112, 210],
  ]);
  cache.dispose();
});

test("reordered rows share earlier tokens, and append to rows of their own", async () => {
  const cache = new KVCache(device, SHAPE);
  append(cache, 2, 2, 100);
  const before = await numbersOf(cache.layer(0).keys);
  cache.reorder([1, 0]);
  append(cache, 2, 1, 200);
  cache.reorder([1, 1]);
  append(cache, 2, 1, 300);
  expect(await seen(cache)).toEqual([
    [100, 101, 210, 300],
    [100, 101, 210, 310],
  ]);
  const after = await numbersOf(cache.layer(0).keys);
  for (const row of [0, 1]) {
    const at = row * SHAPE.heads * cache.capacity * SHAPE.head_dim;
    expect(Array.from(after).slice(at, at + 8)).toEqual(Array.from(before).slice(at, at + 8)); // never moved
  }
  cache.dispose();
});

test("reorder may increase or decrease the rows, and frees replaced buffers", async () => {
  const start = device.memory.use.live;
  const cache = new KVCache(device, SHAPE);
  const { live } = device.memory.use;
  append(cache, 2, 2, 100);
  cache.setPromptMask([
    [0, 1],
    [1, 1],
  ]);
  cache.reorder([0, 0, 1]);
  append(cache, 3, 1, 200);
  expect(await seen(cache)).toEqual([
    [null, 101, 200],
    [null, 101, 210],
    [110, 111, 220],
  ]);
  const grown = device.memory.use.live;
  // A row more of every layer's keys and values, 2 * 2 * 6 * 4 numbers; and of the table, in whole 16 bytes.
  expect(grown - live).toBe(2 * 2 * (2 * 6 * 4 * 4) + (80 - 48));
  cache.reorder([2]);
  append(cache, 1, 1, 300);
  expect(await seen(cache)).toEqual([[110, 111, 220, 300]]);
  expect(device.memory.use.live).toBeLessThan(grown);
  cache.dispose();
  expect(device.memory.use.live).toBe(start);
});

test("copyRows copies rows, and neither cache writes to the other", async () => {
  const start = device.memory.use.live;
  const cache = new KVCache(device, SHAPE);
  cache.setPromptMask([
    [0, 1],
    [1, 1],
  ]);
  append(cache, 2, 2, 100);
  cache.reorder([1, 0]);
  const fork = cache.copyRows([1, 0, 1]);
  append(fork, 3, 1, 200);
  append(cache, 2, 1, 300);
  expect([cache.length, fork.length, ...(await fork.past.read())]).toEqual([3, 3, 3]);
  expect(await seen(fork)).toEqual([
    [null, 101, 200],
    [110, 111, 210],
    [null, 101, 220],
  ]);
  expect(await seen(cache, 1)).toEqual([
    [1110, 1111, 1300],
    [null, 1101, 1310],
  ]);
  fork.dispose();
  cache.dispose();
  expect(device.memory.use.live).toBe(start);
});

test("f16 takes half of the bytes, rounds to 11 bits, and works with reorder and copyRows", async () => {
  expect(() => new KVCache(device, { ...SHAPE, head_dim: 6, dtype: "f16" })).toThrow(/head_dim .* f16 cache, got 6/);
  const [whole, half] = [new KVCache(device, SHAPE), new KVCache(device, { ...SHAPE, dtype: "f16" })];
  expect(half.layer(0).keys.size * 2).toBe(whole.layer(0).keys.size);
  append(half, 2, 1, 2049); // between 2048 and 2050: to even
  half.reorder([1, 0, 1]);
  append(half, 3, 1, 100_000); // beyond f16: its largest
  const fork = half.copyRows([0]);
  expect(await seen(half)).toEqual([
    [2060, 65504],
    [2048, 65504],
    [2060, 65504],
  ]);
  expect(await seen(fork)).toEqual([[2060, 65504]]);
  for (const cache of [whole, half, fork]) cache.dispose();
});

test("if its buffers do not all fit, a cache allocates nothing", () => {
  const before = device.memory.use.live;
  expect(() => new KVCache(device, { ...SHAPE, head_dim: 4 * 2 ** 30 })).toThrow(/key\/value cache/);
  expect(device.memory.use.live).toBe(before);
});

test("a block table that cannot be written when rows increase is freed", () => {
  const before = device.memory.use.live;
  const cache = new KVCache(device, SHAPE);
  cache.reorder([0, 1, 1]); // grows keys and values
  const grown = device.memory.use.live;
  const write = vi.spyOn(device, "write").mockImplementation(() => {
    throw new Error("refused");
  });
  expect(() => cache.reorder([0, 1])).toThrow("refused");
  write.mockRestore();
  expect(device.memory.use.live).toBe(grown);
  cache.dispose();
  expect(device.memory.use.live).toBe(before);
});
