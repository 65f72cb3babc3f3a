/** Lazy fusion: one launch for several calls, the same bits, and no fusion across observed outputs. */
import { describe, expect, test } from "vitest";
import { GpuDevice } from "../../src/tensor/device/device.ts";
import { activation } from "../../src/tensor/ops/activation.ts";
import { add } from "../../src/tensor/ops/add.ts";
import { contiguous } from "../../src/tensor/ops/copy.ts";
import { gatedActivation, mul } from "../../src/tensor/ops/gated_activation.ts";
import { linear } from "../../src/tensor/ops/linear.ts";
import { rmsNorm } from "../../src/tensor/ops/rms_norm.ts";
import { scale } from "../../src/tensor/ops/scale.ts";
import type { Device, Tensor } from "../../src/tensor/tensor.ts";
import { Weight } from "../../src/tensor/weight.ts";
import { expectClose } from "../compare.ts";
import { testDevice } from "../device.ts";
import { Random } from "../random.ts";
import { TOLERANCES } from "../tolerances.ts";

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
function launchesOf<T>(fn: () => T, on: Device = device): { result: T; launches: number } {
  const before = on.counts.launches;
  const result = fn();
  on.settle();
  return { result, launches: on.counts.launches - before };
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

describe("a norm of few rows, on a GPU", () => {
  const gpu = new GpuDevice(device.handle, { ...device.caps, isSoftware: false }, Number.POSITIVE_INFINITY);
  const numbers = new Random(3).normal(M * K);
  const input = gpu.tensor(numbers, [1, M, K]);
  const gain = gpu.tensor(new Random(6).normal(K), [K]);
  const projection = Weight.from(gpu, new Random(1).normal(N * K), [N, K]);
  const gates = Weight.from(gpu, new Random(2).normal(N * K), [N, K], "f32", { paired: true });
  const norm = (x: Tensor, norm: "fused" | "composed" = "fused") => rmsNorm(x, gain, 1e-6, { norm });
  const composed = (y: (normed: Tensor) => Tensor) => y(norm(input, "composed")).read();
  const expectAs = async (y: Tensor, expected: Float32Array) =>
    expectClose(await y.read(), expected, TOLERANCES.linear, "as composed");

  test("is computed by the product that follows, under another shape too, and by each of two", async () => {
    const product = (normed: Tensor) => linear(normed, projection);
    const y = launchesOf(() => product(norm(input).reshape([M, K])), gpu);
    expect(y.launches).toBe(1);
    await expectAs(y.result, await composed(product));
    const glu = (normed: Tensor) => {
      const both = linear(normed, gates);
      return mul(activation(both.narrow(2, 0, N / 2), "silu"), both.narrow(2, N / 2, N / 2));
    };
    const gated = launchesOf(() => glu(norm(input)), gpu);
    expect(gated.launches).toBe(1);
    await expectAs(gated.result, await composed(glu));
    const activated = (normed: Tensor) => linear(normed, projection, undefined, "relu");
    const twice = launchesOf(() => {
      const normed = norm(input);
      return [product(normed), activated(normed)] as const;
    }, gpu);
    expect(twice.launches).toBe(2);
    await expectAs(twice.result[0], await composed(product));
    await expectAs(twice.result[1], await composed(activated));
  });

  test("is launched where it is read, also after a product has computed it", async () => {
    const expected = await norm(input, "composed").read();
    const { result, launches } = launchesOf(() => norm(input), gpu);
    expect([launches, await result.read()]).toEqual([1, expected]);
    const later = norm(input);
    linear(later, projection);
    expect(await later.read()).toEqual(expected);
    const sum = launchesOf(() => add(input, norm(input)), gpu);
    expect([sum.launches, await sum.result.read()]).toEqual([2, await add(input, norm(input, "composed")).read()]);
    const part = launchesOf(() => linear(contiguous(norm(input).narrow(1, 1, 2)), projection), gpu);
    expect(part.launches).toBe(3);
    const whole = await composed((normed) => linear(normed, projection));
    expect(await part.result.read()).toEqual(whole.subarray(N));
  });

  test("is not overtaken: what it is of may be written or given back right after", async () => {
    const expected = await norm(input, "composed").read();
    for (const end of [(x: Tensor) => gpu.write(x, new Float32Array(M * K)), (x: Tensor) => x.dispose()]) {
      const x = gpu.tensor(numbers, [1, M, K]);
      const normed = norm(x);
      end(x);
      expect(await normed.read()).toEqual(expected);
    }
  });

  test("is launched by itself for many rows, rows of no whole fours, another kernel, and on software", () => {
    const launches = (M: number, K: number, on: Device = gpu, matvec?: "register") => {
      const [x, ones] = [on.tensor(new Float32Array(M * K), [M, K]), on.tensor(new Float32Array(K), [K])];
      const weight = Weight.from(on, new Float32Array(4 * K), [4, K]);
      const override = matvec && { matvec };
      return launchesOf(() => linear(rmsNorm(x, ones, 1e-6, override), weight, undefined, undefined, override), on)
        .launches;
    };
    expect([launches(8, 8), launches(9, 8), launches(1, 6)]).toEqual([1, 2, 2]);
    expect([launches(1, 8, gpu, "register"), launches(1, 8, device)]).toEqual([2, 2]);
  });
});
