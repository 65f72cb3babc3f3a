import { expect, test } from "vitest";
import { KernelError } from "../../../src/tensor/errors.ts";
import { add } from "../../../src/tensor/ops/add.ts";
import { copy } from "../../../src/tensor/ops/copy.ts";
import { increment } from "../../../src/tensor/ops/increment.ts";
import { scale } from "../../../src/tensor/ops/scale.ts";
import type { Tensor } from "../../../src/tensor/tensor.ts";
import { testDevice } from "../../device.ts";

const device = await testDevice();

test("a replay does what the capture did, on what the tensors hold by then", async () => {
  const x = device.tensor([1, 2, 3], [3]);
  const steps = device.tensor(Uint32Array.of(0), [1]);
  const captured = device.capture(() => {
    increment(steps, 1);
    const doubled = scale(x, 2);
    copy(add(doubled, x), x); // x becomes 3x
    return doubled;
  });
  expect(captured.launches).toBe(4);
  expect([...(await captured.result.read())]).toEqual([2, 4, 6]);
  captured.replay();
  captured.replay();
  expect([...(await captured.result.read())]).toEqual([18, 36, 54]);
  expect([...(await x.read())]).toEqual([27, 54, 81]);
  expect([...(await steps.read())]).toEqual([3]);
  captured.dispose();
});

test("replays and a read are one submit, without a buffer or a bind group", async () => {
  const x = device.tensor(new Float32Array(64), [64]);
  const one = device.tensor(new Float32Array(64).fill(1), [64]);
  const captured = device.capture(() => {
    for (let i = 0; i < 50; i++) copy(add(x, one), x);
    return x;
  });
  await x.read();
  const before = { ...device.counts, created: device.memory.use.created };
  captured.replay();
  expect((await x.read())[63]).toBe(100);
  expect(device.counts.submits - before.submits).toBe(1);
  expect(device.counts.launches - before.launches).toBe(100);
  expect(device.counts.bindGroups).toBe(before.bindGroups);
  expect(device.memory.use.created).toBe(before.created);
  captured.dispose();
});

test("what lies between captured launches is lent to nobody else", async () => {
  const x = device.tensor([1, 1, 1, 1], [4]);
  const captured = device.capture(() => {
    const between = scale(x, 3);
    return scale(between, 5);
  });
  const others = Array.from({ length: 8 }, () => device.tensor([7, 7, 7, 7], [4]));
  captured.replay();
  for (const other of others) expect([...(await other.read())]).toEqual([7, 7, 7, 7]);
  expect([...(await captured.result.read())]).toEqual([15, 15, 15, 15]);
  for (const other of others) other.dispose();
  captured.dispose();
});

test("params of a capture outlive those of a thousand other launches", async () => {
  const x = device.tensor([1], [1]);
  const captured = device.capture(() => scale(x, 1234.5));
  for (let i = 0; i < 1100; i++) scale(x, i).dispose();
  captured.replay();
  expect([...(await captured.result.read())]).toEqual([1234.5]);
  captured.dispose();
});

test("dispose gives everything back", async () => {
  await device.sync();
  const before = device.memory.use.live;
  const x = device.persistent([1000]);
  const captured = device.capture(() => scale(scale(x, 2), 2));
  captured.replay();
  captured.dispose();
  x.dispose();
  expect(device.memory.use.live).toBe(before);
  const { created } = device.memory.use;
  for (const tensor of [0, 1].map(() => device.empty([1000]))) tensor.dispose();
  expect(device.memory.use.created).toBe(created); // the capture's buffers are lent again
});

test("a capture that writes from the host, or starts another, throws; what it allocated is given back", () => {
  const x = device.tensor([1], [1]);
  const before = device.memory.use.live;
  expect(() => device.capture(() => add(x, device.tensor([2], [1])))).toThrow(KernelError);
  expect(() => device.capture(() => device.capture(() => x))).toThrow(KernelError);
  expect(device.memory.use.live).toBe(before);
  expect(device.capture(() => scale(x, 1)).launches).toBe(1); // the next one is none the worse
});

test("a write waits for launches on the same buffer alone", async () => {
  const x = device.tensor([1], [1]);
  const y = device.tensor([0], [1]);
  await device.sync();
  const { submits } = device.counts;
  const before = scale(x, 10);
  device.write(y, Float32Array.of(5)); // nothing recorded uses it
  expect(device.counts.submits).toBe(submits);
  device.write(x, Float32Array.of(2)); // recorded launches see the old number
  expect(device.counts.submits).toBe(submits + 1);
  const captured = device.capture(() => scale(y, 2));
  await device.sync();
  captured.replay();
  device.write(y, Float32Array.of(6));
  expect([...(await before.read())]).toEqual([10]);
  expect([...(await captured.result.read())]).toEqual([10]);
  captured.replay();
  expect([...(await captured.result.read())]).toEqual([12]);
  captured.dispose();
});

test("what a dry run makes to last is written", async () => {
  const made: Tensor[] = [];
  device.dryRun(() => {
    made.push(device.persistent([2]));
    device.write(made[0], Float32Array.of(3, 4));
  });
  expect([...(await made[0].read())]).toEqual([3, 4]);
  made[0].dispose();
});

test("kernels are foreseen without a launch, a write or a byte kept", async () => {
  const x = device.tensor([3, 4], [2]);
  await device.sync();
  const [counts, live] = [{ ...device.counts }, device.memory.use.live];
  const kernels = device.dryRun(() => {
    device.write(x, Float32Array.of(0, 0));
    copy(scale(scale(x, 2), 3), x);
    increment(device.tensor(Uint32Array.of(1), [1]), 1);
  });
  expect(kernels.map(({ kernel }) => kernel)).toEqual(["scale", "copy", "increment"]);
  await device.prepare(kernels);
  expect(device.counts).toEqual(counts);
  expect(device.memory.use.live).toBe(live);
  expect([...(await x.read())]).toEqual([3, 4]);
  expect(() =>
    device.dryRun(() => {
      throw new Error("half-way");
    }),
  ).toThrow("half-way");
  expect([...(await scale(x, 2).read())]).toEqual([6, 8]); // launches run again
});
