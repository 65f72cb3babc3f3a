/** At most two windows of a load are in flight, and each is released when it is done. */
import { expect, test, vi } from "vitest";
import { Uploads } from "../../src/modules/uploads.ts";
import { testDevice } from "../device.ts";

const device = await testDevice();
const WINDOW = 8 * 2 ** 20;
const BYTES = new Uint8Array(2 ** 20).map((_, i) => i % 251);

/** A device whose syncs end when they are told to. */
function heldSyncs() {
  const held: { resolve(): void; reject(error: Error): void }[] = [];
  const sync = vi
    .spyOn(device, "sync")
    .mockImplementation(() => new Promise((resolve, reject) => held.push({ resolve, reject })));
  return { held, sync };
}

/** Whether a promise has settled yet. */
async function isOver(promise: Promise<unknown>): Promise<boolean> {
  const not = {};
  return (
    (await Promise.race([promise.catch(() => {}), new Promise((resolve) => setTimeout(() => resolve(not), 5))])) !== not
  );
}

test("the second window is uploaded while the first runs, the third waits", async () => {
  const { held, sync } = heldSyncs();
  const { live } = device.memory.use;
  const uploads = new Uploads(device, device.call());
  try {
    const half = async () => {
      uploads.stage(BYTES);
      await uploads.passed(WINDOW / 2);
    };
    await half();
    expect(held.length).toBe(0);
    await half();
    await half();
    expect(held.length).toBe(1);
    const second = half();
    expect(await isOver(second)).toBe(false);
    expect(held.length).toBe(2);
    expect(device.memory.use.live - live).toBe(4 * BYTES.length);
    held[0].resolve();
    await second;
    expect(device.memory.use.live - live).toBe(2 * BYTES.length);
    const end = uploads.finished();
    expect(await isOver(end)).toBe(false);
    held[1].resolve();
    await vi.waitFor(() => expect(held.length).toBe(3));
    held[2].resolve();
    await end;
    expect(device.memory.use.live).toBe(live);
  } finally {
    sync.mockRestore();
    uploads.dispose();
  }
});

test("a failure is thrown once, by the wait for its window, and staged tensors are freed", async () => {
  const { held, sync } = heldSyncs();
  const { live } = device.memory.use;
  const uploads = new Uploads(device, device.call());
  uploads.stage(BYTES);
  await uploads.passed(WINDOW);
  held[0].reject(new Error("the first"));
  await new Promise((resolve) => setTimeout(resolve, 5)); // unhandled, it would end the process
  uploads.stage(BYTES);
  await expect(uploads.passed(WINDOW)).rejects.toThrow("the first");
  uploads.stage(BYTES);
  uploads.dispose();
  expect(device.memory.use.live).toBe(live);
  held[1].reject(new Error("the second"));
  await new Promise((resolve) => setTimeout(resolve, 5));
  sync.mockRestore();
});

test("staged tensors are on the device, in any scope", async () => {
  const uploads = new Uploads(device, device.call());
  const words = device.scope(() => {
    uploads.stage(BYTES);
    return uploads.stage(BYTES.subarray(0, 64));
  });
  expect(new Uint8Array((await words.read()).buffer)).toEqual(BYTES.slice(0, 64));
  await uploads.finished();
  await expect(words.read()).rejects.toMatchObject({ code: "DISPOSED" });
  uploads.dispose();
});
