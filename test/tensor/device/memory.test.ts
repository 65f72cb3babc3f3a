/** The pool, scopes, arenas and the budget, with fake buffers. */
import { expect, test } from "vitest";
import { Arena, formatBytes, Memory } from "../../../src/tensor/device/memory.ts";

const MIB = 2 ** 20;

function open({ budget = Number.POSITIVE_INFINITY, maxBindingBytes = 128 * MIB, maxBufferBytes = 256 * MIB } = {}) {
  const sizes: number[] = [];
  const refusals: (() => void)[] = [];
  let destroyed = 0;
  const memory = new Memory(
    ({ size }, onRefused) => {
      sizes.push(size);
      refusals.push(onRefused);
      return { size, destroy: () => destroyed++ } as unknown as GPUBuffer;
    },
    { maxBindingBytes, maxBufferBytes, budget },
    () => undefined,
    () => undefined,
  );
  return { memory, sizes, refusals, destroyed: () => destroyed };
}

test("a buffer that comes back is lent again to what needs as much, up to a quarter less; a weight has its own size", () => {
  const { memory, sizes } = open();
  const first = memory.allocate(5000, "a");
  expect(first.bytes).toBe(5008); // in whole vec4
  memory.release(first);
  memory.release(first); // once is enough
  const second = memory.allocate(4200, "b");
  expect([second.buffer === first.buffer, second.id === first.id]).toEqual([true, true]);
  memory.allocate(4200, "c"); // the first is in use
  expect(sizes).toEqual([5120, 5120]);
  const other = memory.allocate(2000, "d");
  expect([other.buffer.size, memory.allocate(1, "e").buffer.size]).toEqual([2048, 256]);
  expect(memory.allocate(5000, "weight", true).buffer.size).toBe(5008);
  for (let bytes = 16; bytes < 10 * MIB; bytes = Math.ceil(bytes * 1.07)) {
    const { buffer } = memory.allocate(bytes, "any");
    expect(buffer.size).toBeGreaterThanOrEqual(bytes);
    if (bytes > 1024) expect(buffer.size).toBeLessThan(1.26 * bytes);
  }
});

test("use counts what is lent, kept and made; persistent buffers are destroyed, not kept", () => {
  const { memory, destroyed } = open();
  const [a, weight] = [memory.allocate(1024, "a"), memory.allocate(4096, "weight", true)];
  expect(memory.use).toEqual({ live: 5120, pooled: 0, peak: 5120, created: 2, buffers: 2 });
  memory.release(a);
  memory.release(weight);
  expect(memory.use).toEqual({ live: 0, pooled: 1024, peak: 5120, created: 2, buffers: 1 });
  expect([a.alive, weight.alive, destroyed()]).toEqual([false, false, 1]);
  memory.trim();
  expect(memory.use).toEqual({ live: 0, pooled: 0, peak: 5120, created: 2, buffers: 0 });
});

test("a scope releases what was made in it, but for what is kept, which the scope around it then has", () => {
  const { memory } = open();
  const outer = memory.enter();
  const inner = memory.enter();
  const [gone, result, kept] = ["gone", "result", "kept"].map((what) => memory.allocate(1000, what));
  const weight = memory.allocate(1000, "weight", true);
  memory.keep(kept);
  memory.leave(inner, new Set([result]));
  expect([gone, result, kept, weight].map(({ alive }) => alive)).toEqual([false, true, true, true]);
  memory.leave(outer, new Set());
  expect([result, kept, weight].map(({ alive }) => alive)).toEqual([false, true, true]);
  const last = memory.enter();
  memory.adopt(kept);
  memory.adopt(weight);
  memory.leave(last, new Set());
  expect([kept.alive, weight.alive]).toEqual([false, true]);
});

test("what throws half-way leaves nothing behind, whoever it is inside of", () => {
  const { memory } = open();
  const before = memory.allocate(100, "before", true);
  expect(() =>
    memory.allOrNothing(() => {
      memory.allocate(100, "weight", true);
      memory.allOrNothing(() => memory.allocate(100, "inner weight", true));
      memory.keep(memory.allocate(100, "kept"));
      throw new Error("half-way");
    }),
  ).toThrow("half-way");
  expect([memory.use.live, before.alive]).toEqual([112, true]);
  memory.allOrNothing(() => memory.allocate(100, "weight", true));
  expect(memory.use.live).toBe(224);
});

test("an arena takes what the pool has, keeps what it got from others, and gives all of it back in the end", () => {
  const { memory, sizes } = open();
  memory.release(memory.allocate(1000, "before"));
  const arena = new Arena();
  const [a, b] = memory.useArena(arena, () => [memory.allocate(1000, "a"), memory.allocate(1000, "b")]);
  expect(sizes).toEqual([1024, 1024]); // one of the pool's, one of its own
  memory.release(a);
  memory.release(b);
  expect([a.buffer, b.buffer]).not.toContain(memory.allocate(1000, "another's").buffer);
  expect([a.buffer, b.buffer]).toContain(memory.useArena(arena, () => memory.allocate(1000, "its own")).buffer);
  memory.releaseArena(arena);
  expect([a.buffer, b.buffer]).toContain(memory.allocate(1000, "of the pool").buffer);
  expect(sizes.length).toBe(3);
});

test("the budget is kept by giving up what is kept for reuse, and then by refusing", () => {
  const { memory, destroyed } = open({ budget: 3 * MIB, maxBindingBytes: 2 * MIB, maxBufferBytes: 2 * MIB });
  const a = memory.allocate(2 * MIB, "a");
  memory.release(a);
  const b = memory.allocate(1.5 * MIB, "b"); // not of a's size: a has to go
  expect([destroyed(), memory.use.live, memory.use.pooled]).toEqual([1, 1.5 * MIB, 0]);
  const refusal = expect.objectContaining({
    code: "BUDGET",
    message: expect.stringMatching(/c needs 2\.0 MiB, .*1\.5 MiB/),
  });
  expect(() => memory.allocate(2 * MIB, "c")).toThrow(refusal);
  memory.release(b);
  expect(memory.allocate(2 * MIB, "c").alive).toBe(true);
  expect(() => memory.allocate(3 * MIB, "d")).toThrow(expect.objectContaining({ code: "LIMIT" }));
  expect(() => memory.allocate(Number.NaN, "e")).toThrow(expect.objectContaining({ code: "LIMIT" }));
  expect(formatBytes(1536)).toBe("1.5 KiB");
});

test("a buffer that the GPU refused is never lent again, wherever it is when that is known", () => {
  const { memory, refusals, destroyed } = open();
  const [used, kept] = [memory.allocate(1000, "used"), memory.allocate(1000, "kept")];
  memory.release(kept);
  for (const refuse of refusals) refuse();
  expect([memory.isRefused(used), destroyed(), memory.use.pooled]).toEqual([true, 1, 0]);
  memory.release(used);
  expect([destroyed(), memory.use.buffers, memory.use.pooled]).toEqual([2, 0, 0]);
  expect(memory.allocate(1000, "new").buffer).not.toBe(used.buffer);
});

test("prompts of every length leave no more in the pool than twice what was lent at once, or 64 MiB", () => {
  const { memory } = open();
  for (let i = 0; i < 200; i++) memory.release(memory.allocate((1 + (i % 40) / 8) * 4 * MIB, `prompt ${i}`));
  expect(memory.use.pooled).toBeLessThanOrEqual(64 * MIB);
  expect(memory.use.pooled).toBeGreaterThan(32 * MIB);
});
