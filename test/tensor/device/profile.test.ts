/** Device.profile by both clocks: every launch in order, with its time, work and module, and results as without. */
import { describe, expect, test } from "vitest";
import { measureLimits } from "../../../src/tensor/limits.ts";
import { activation } from "../../../src/tensor/ops/activation.ts";
import { add } from "../../../src/tensor/ops/add.ts";
import { layerNorm } from "../../../src/tensor/ops/layer_norm.ts";
import { linear } from "../../../src/tensor/ops/linear.ts";
import { scale } from "../../../src/tensor/ops/scale.ts";
import { atSite, type Device, type ProfileClock } from "../../../src/tensor/tensor.ts";
import { Weight } from "../../../src/tensor/weight.ts";
import { driverDevice, otherDevice, testDevice } from "../../device.ts";

const device = await testDevice();
const CLOCKS: readonly ProfileClock[] = device.caps.timestamps ? ["timestamps", "sync"] : ["sync"];

describe.each(CLOCKS)("by %s", (clock) => {
  test("every launch is timed, in order, with its work", async () => {
    const x = device.tensor(new Float32Array(4096).fill(1), [64, 64]);
    const ones = device.persistent([64]);
    const before = { ...device.counts };
    const profiled = await device.profile(
      async () => {
        for (let i = 0; i < 40; i++) atSite(device, "a.b", () => add(x, x));
        await layerNorm(x, ones, ones, 1e-6, { row: "workgroup" }).read();
      },
      { clock },
    );
    ones.dispose();
    expect(profiled.clock).toBe(clock);
    const { launches } = profiled;
    expect(launches.map(({ kernel }) => kernel)).toEqual([...new Array(40).fill("add"), "layer_norm"]);
    expect(launches.map(({ site }) => site)).toEqual([...new Array(40).fill("a.b"), ""]);
    expect(launches[0]).toMatchObject({ flops: 0, bytes: 3 * 4 * 4096, persistent: 0 });
    expect(launches[40]).toMatchObject({ flops: 0, bytes: 4 * (2 * 4096 + 2 * 64), persistent: 2 * 4 * 64 });
    for (const [i, { ms, start }] of launches.entries()) {
      expect(ms).toBeGreaterThanOrEqual(0);
      expect(start).toBeGreaterThanOrEqual(i === 0 ? profiled.start : launches[i - 1].start);
    }
    expect(launches.some(({ ms }) => ms > 0)).toBe(true);
    expect(device.counts.launches - before.launches).toBe(41);
    expect(profiled.memory.at(-1)!.live).toBe(device.memory.use.live + 256);
  });

  test("uploads, reads, replays and buffers that are freed keep their order", async () => {
    const work = async (): Promise<number[][]> => {
      const seen: Promise<Float32Array>[] = [];
      const x = device.persistent([4]);
      device.write(x, Float32Array.of(1, 2, 3, 4));
      const y = add(x, x);
      const numbers = Float32Array.of(10, 20, 30, 40);
      device.write(x, numbers); // after the launch that reads the old ones
      numbers.fill(0); // the caller's array may change at once
      seen.push(add(x, y).read());
      const captured = device.capture(() => scale(add(x, x), 2));
      seen.push(captured.result.read());
      device.write(x, Float32Array.of(1, 1, 1, 1));
      captured.replay();
      seen.push(captured.result.read());
      const z = activation(x, "relu");
      captured.dispose();
      x.dispose();
      seen.push(z.read());
      return (await Promise.all(seen)).map((numbers) => [...numbers]);
    };
    const run = () => device.exclusive(() => device.scope(work));
    const expected = await run();
    expect(expected).toEqual([
      [12, 24, 36, 48],
      [40, 80, 120, 160],
      [4, 4, 4, 4],
      [1, 1, 1, 1],
    ]);
    let got: number[][] = [];
    const { launches, uploads } = await device.profile(
      async () => {
        got = await run();
      },
      { clock },
    );
    expect(got).toEqual(expected);
    const kernels = ["add", "add", "add", "scale", "add", "scale", "activation"];
    expect(launches.map(({ kernel }) => kernel.replace(/\(.*/, ""))).toEqual(kernels);
    expect(uploads.map(({ bytes }) => bytes)).toEqual([16, 16, 16]);
  });

  test("an error of what runs is thrown, and profiling is over then", async () => {
    const failing = () => device.profile(() => Promise.reject(new Error("as asked")), { clock });
    await expect(failing()).rejects.toThrow("as asked");
    await device.profile(
      async () => {
        await expect(device.profile(() => {}, { clock })).rejects.toMatchObject({ code: "PROFILE" });
      },
      { clock },
    );
    const one = device.tensor([1], [1]);
    expect([...(await add(one, one).read())]).toEqual([2]);
  });

  test("a GPU error of a launch is that of the call", async () => {
    const own = await driverDevice({}); // what it is asked after its loss is an error of a shared one
    const x = own.tensor([1], [1]);
    const lost = own.profile(
      async () => {
        add(x, x);
        own.handle.destroy();
        await own.sync();
      },
      { clock },
    );
    await expect(lost).rejects.toMatchObject({ code: "DEVICE_LOST" });
    own.destroy();
  });
});

test("limits are positive and finite, and within caches no less than beyond", async () => {
  const own = await otherDevice({ max_binding: 2 ** 22 });
  const { cached_bytes, ...limits } = await measureLimits(own);
  own.destroy();
  for (const [name, ms] of Object.entries(limits)) {
    expect(ms, name).toBeGreaterThan(0);
    expect(ms, name).toBeLessThan(1000);
  }
  expect(limits.ms_per_cached_byte).toBeLessThanOrEqual(limits.ms_per_byte);
  expect(cached_bytes).toBeGreaterThan(0);
});

test("a fused product is its own module's, wherever it is launched", async () => {
  const weight = new Weight(device, [8, 8], "f32", { label: "w" });
  const x = device.tensor(new Float32Array(8).fill(1), [1, 8]);
  const { launches } = await device.profile(async () => {
    const y = atSite(device, "mlp.fc1", () => linear(x, weight));
    const z = atSite(device, "mlp", () => activation(y, "gelu"));
    const sum = atSite(device, "layer", () => add(x, z));
    await sum.read();
  });
  weight.dispose();
  expect(launches.map(({ site }) => site)).toEqual(["mlp.fc1", "layer"]);
  expect(launches[0].flops).toBe(2 * 8 * 8);
});

test("without timestamps the clock is sync, and timestamps are refused", async () => {
  const own = await otherDevice({});
  const without: Device = Object.assign(own, { caps: { ...own.caps, timestamps: false } });
  const x = without.tensor([1], [1]);
  expect((await without.profile(() => add(x, x))).clock).toBe("sync");
  await expect(without.profile(() => {}, { clock: "timestamps" })).rejects.toMatchObject({ code: "FEATURE" });
  own.destroy();
});
