/** How long the thread sleeps while something waits for a software adapter, on a clock that moves with the sleeps alone. */
import { expect, test, vi } from "vitest";
import { Backoff, threadSleep } from "../../../src/tensor/device/backoff.ts";
import { GpuDevice } from "../../../src/tensor/device/device.ts";
import { openDevice } from "../../../src/tensor/device/open_device.ts";
import "../../../src/tensor/device/adapter.node.ts";

const turn = () => new Promise((resolve) => setImmediate(resolve));

/** A clock that a turn moves by `step`, and sleeps by themselves. */
function clocked(step: number) {
  const slept: number[] = [];
  let [now, readings] = [0, 0];
  const sleep = (ms: number) => {
    slept.push(ms);
    now += ms;
  };
  const backoff = new Backoff(sleep, () => {
    if (readings++ > 0) now += step;
    return now;
  });
  return { backoff, slept, elapsed: () => now };
}

test("sleeps are a tenth of the wait so far, up to half a millisecond, and none in its first three", async () => {
  const { backoff, slept } = clocked(0.1);
  const wake = backoff.begin();
  for (let i = 0; i < 60; i++) await turn();
  wake();
  expect(slept[0]).toBeGreaterThanOrEqual(0.3);
  expect(slept[0]).toBeLessThan(0.32);
  expect(slept.length).toBeLessThanOrEqual(31); // 29 turns passed before
  expect(slept.at(-1)).toBe(0.5);
  expect(slept.every((ms, i) => i === 0 || ms >= slept[i - 1])).toBe(true);
  const count = slept.length;
  for (let i = 0; i < 5; i++) await turn();
  expect(slept.length).toBe(count);
});

test("several waits have one series of sleeps, which the last one starts anew and the last end ends", async () => {
  const { backoff, slept } = clocked(10);
  const ends = [backoff.begin(), backoff.begin()];
  await turn();
  await turn();
  expect(slept).toEqual([0.5, 0.5]); // one a turn
  ends[0]();
  ends[0](); // a wait that was given up may end again
  await turn();
  expect(slept.length).toBe(3);
  ends[1]();
  // Ended and begun again within a turn, it goes on as one.
  backoff.begin()();
  const last = backoff.begin();
  await turn();
  expect(slept.length).toBe(4);
  last();
  await turn();
  expect(slept.length).toBe(4);
});

test("a device waits with sleeps on a software adapter in Node alone", async () => {
  const device = await openDevice();
  const sleeps = vi.spyOn(Atomics, "wait");
  const ahead = new GpuDevice(device.handle, { ...device.caps, isSoftware: false }, Number.POSITIVE_INFINITY);
  expect(sleeps).not.toHaveBeenCalled(); // it does not even try whether it may
  const soft = new GpuDevice(device.handle, { ...device.caps, isSoftware: true }, Number.POSITIVE_INFINITY);
  expect(sleeps).toHaveBeenCalledTimes(1);
  await Promise.all([ahead.ready(), soft.ready()]);
  sleeps.mockRestore();
  device.destroy();
});

test("where a thread may not sleep, or nothing polls, it does not", () => {
  expect(threadSleep()).toBeTypeOf("function");
  const refuses = vi.spyOn(Atomics, "wait").mockImplementation(() => {
    throw new TypeError("Atomics.wait cannot be called in this context");
  });
  expect(threadSleep()).toBeUndefined();
  refuses.mockRestore();
  vi.stubGlobal("process", { ...process, versions: {} });
  expect(threadSleep()).toBeUndefined();
  vi.unstubAllGlobals();
  const end = new Backoff(undefined).begin();
  end();
});
