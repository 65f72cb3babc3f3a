/** Lazy fusion: one launch for several calls, the same bits, and no fusion across observed outputs. */
import { expect, test } from "vitest";
import { activation } from "../../src/tensor/ops/activation.ts";
import { add } from "../../src/tensor/ops/add.ts";
import { contiguous } from "../../src/tensor/ops/copy.ts";
import { gatedActivation, mul } from "../../src/tensor/ops/gated_activation.ts";
import { linear } from "../../src/tensor/ops/linear.ts";
import { scale } from "../../src/tensor/ops/scale.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { Weight } from "../../src/tensor/weight.ts";
import { testDevice } from "../device.ts";
import { Random } from "../random.ts";

const device = await testDevice();
const [M, K, N] = [3, 20, 12];
const weight = matrix(1, [N, K]);
const paired = matrix(2, [N, K], true);
const x = device.tensor(new Random(3).normal(M * K), [1, M, K]);
const residual = device.tensor(new Random(4).normal(M * N), [1, M, N]);

function matrix(seed: number, shape: [number, number], isPaired = false): Weight {
  return Weight.from(device, new Random(seed).normal(shape[0] * shape[1]), shape, "f32", { paired: isPaired });
}

/** What `fn` launches. */
function launchesOf<T>(fn: () => T): { result: T; launches: number } {
  const before = device.counts.launches;
  const result = fn();
  device.settle();
  return { result, launches: device.counts.launches - before };
}

/** A product that has been launched as it is. */
function launched(w: Weight): Tensor {
  const y = linear(x, w);
  device.settle();
  return y;
}

test("a product is launched when its numbers are asked for, once", async () => {
  const { result: y, launches } = launchesOf(() => linear(x, weight).reshape([M, N]).reshape([1, M, N]));
  expect(launches).toBe(1);
  const before = device.counts.launches;
  expect(await y.read()).toEqual(await launched(weight).read());
  expect(device.counts.launches - before).toBe(1);
});

test.each(["gelu", "relu", "silu"] as const)("%s becomes the product's epilogue", async (kind) => {
  const { result, launches } = launchesOf(() => activation(linear(x, weight), kind));
  expect(launches).toBe(1);
  expect(await result.read()).toEqual(await activation(launched(weight), kind).read());
});

test("a residual becomes the product's epilogue, also of a product under another shape", async () => {
  for (const shape of [[1, M, N], [M * N]]) {
    const { result, launches } = launchesOf(() => add(residual.reshape(shape), linear(x, weight).reshape(shape)));
    expect(launches).toBe(1);
    expect(result.shape).toEqual(shape);
    expect(await result.read()).toEqual(await add(residual, launched(weight)).read());
  }
});

test("an activated gate times its other half is one product", async () => {
  const glu = (both: Tensor) => mul(activation(both.narrow(2, 0, N / 2), "silu"), both.narrow(2, N / 2, N / 2));
  const { result, launches } = launchesOf(() => glu(linear(x, paired)));
  expect(launches).toBe(1);
  const apart = launched(paired);
  expect(await result.read()).toEqual(await glu(apart).read());
  const [gate, up] = [0, N / 2].map((start) => contiguous(apart.narrow(2, start, N / 2)));
  expect(await result.read()).toEqual(await gatedActivation(gate, up, "silu").read());
});

test("halves that are not a gate and its other half are multiplied as they are", async () => {
  const both = launched(paired);
  const [low, high] = [0, N / 2].map((start) => contiguous(both.narrow(2, start, N / 2)));
  const swapped = (y: Tensor) => mul(activation(y.narrow(2, N / 2, N / 2), "silu"), y.narrow(2, 0, N / 2));
  expect(await swapped(linear(x, paired)).read()).toEqual(await gatedActivation(high, low, "silu").read());
  const twice = (y: Tensor) => mul(activation(y.narrow(2, 0, N / 2), "silu"), y.narrow(2, 0, N / 2));
  expect(await twice(linear(x, paired)).read()).toEqual(await gatedActivation(low, low, "silu").read());
  const unpaired = (y: Tensor) => mul(activation(y.narrow(2, 0, N / 2), "silu"), y.narrow(2, N / 2, N / 2));
  const plain = launched(weight);
  expect(await unpaired(linear(x, weight)).read()).toEqual(await unpaired(plain).read());
});

test("what is looked at is launched as it is, and what follows by itself", async () => {
  const { launches } = launchesOf(() => {
    const y = linear(x, weight);
    contiguous(y.narrow(2, 0, 4)); // asks for the numbers
    return add(residual, y);
  });
  expect(launches).toBe(3);
});

test("a product that went into an epilogue can still be read", async () => {
  const y = linear(x, weight);
  const sum = add(residual, y);
  expect(await y.read()).toEqual(await launched(weight).read());
  expect(await sum.read()).toEqual(await add(residual, launched(weight)).read());
});

test("nothing overtakes a product: its input may be written, given back or scaled right after", async () => {
  const numbers = new Random(5).normal(M * K);
  const expected = await linear(device.tensor(numbers, [M, K]), weight).read();
  const written = device.tensor(numbers, [M, K]);
  const first = linear(written, weight);
  device.write(written, new Float32Array(M * K));
  expect(await first.read()).toEqual(expected);
  const disposed = device.tensor(numbers, [M, K]);
  const second = linear(disposed, weight);
  disposed.dispose();
  const other = scale(device.tensor(new Float32Array(M * K).fill(7), [M, K]), 2); // may get the same buffer
  expect(await second.read()).toEqual(expected);
  other.dispose();
});

test("scopes free what a product leaves, and keep what they return, whenever it is launched", async () => {
  const live = () => device.memory.use.live;
  const before = live();
  device.scope(() => {
    const outside = linear(x, weight);
    const inside = device.scope(() => add(outside, linear(x, weight)));
    device.scope(() => void linear(x, weight)); // nobody asks
    expect(inside.storage.alive && outside.storage.alive).toBe(true);
  });
  expect(live()).toBe(before);
  const kept = device.scope(() => linear(x, weight));
  expect(await kept.read()).toEqual(await launched(weight).read());
  kept.dispose();
});

test("a captured product is replayed with its epilogue", async () => {
  const input = device.persistent([M, K]);
  device.write(input, new Float32Array(M * K));
  const captured = device.capture(() => add(residual.reshape([M, N]), linear(input, weight)));
  expect(captured.launches).toBe(1);
  device.write(input, new Random(3).normal(M * K));
  captured.replay();
  expect(await captured.result.read()).toEqual(await add(residual, launched(weight)).read());
  captured.dispose();
  input.dispose();
});

test("an empty product, and an activation that is none", async () => {
  expect((await add(device.empty([0, N]), linear(device.empty([0, K]), weight)).read()).length).toBe(0);
  const { launches } = launchesOf(() => activation(linear(x, weight), "none"));
  expect(launches).toBe(1);
});
