/** What dawn-node looks at after it has settled it is held until then (see `held` in driver.ts); all by a device of ours. */
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { expect, test } from "vitest";
import { Backoff } from "../../../src/tensor/device/backoff.ts";
import { Driver } from "../../../src/tensor/device/driver.ts";

setFlagsFromString("--expose-gc");
const gc = runInNewContext("gc") as () => void;

/** A task later, when nothing on a stack or in a queue refers to what has settled. */
const collect = async () => {
  for (let i = 0; i < 3; i++) {
    await new Promise((resolve) => setTimeout(resolve, 0));
    gc();
  }
};

function deferred<T>() {
  let resolve!: (value: T) => void;
  let reject!: (error: unknown) => void;
  const promise = new Promise<T>((yes, no) => {
    resolve = yes;
    reject = no;
  });
  return { promise, resolve, reject };
}

/** A driver of a device that makes its callbacks when told to. */
function fake() {
  const done = deferred<undefined>();
  const handle = {
    ...losable(),
    addEventListener: () => {},
    removeEventListener: () => {},
    queue: { onSubmittedWorkDone: () => done.promise },
  };
  const driver = new Driver(handle as unknown as GPUDevice, 1, new Backoff(undefined), () => {});
  return { driver, loss: new WeakRef(handle.lost), callBack: () => done.resolve(undefined) };
}

/** Apart, so that no function but these refers to the promise. */
function losable() {
  const { promise, resolve } = deferred<object>();
  return { lost: promise, destroy: () => resolve({ reason: "destroyed", message: "" }) };
}

test("a map given up is held, with its buffer, until Dawn has called back", async () => {
  const { driver, callBack } = fake();
  const giveUp = () => {
    const map = deferred<undefined>();
    const buffer = { mapAsync: () => map.promise } as unknown as GPUBuffer;
    const mapped = driver.map(buffer, 4);
    map.reject(new Error("destroyed"));
    mapped.catch(() => {});
    return [new WeakRef<object>(mapped), new WeakRef<object>(buffer)];
  };
  const held = giveUp();
  await collect();
  expect(held.map((ref) => ref.deref())).not.toContain(undefined);
  callBack();
  await collect();
  expect(held.map((ref) => ref.deref())).toEqual([undefined, undefined]);
});

test("a map that succeeded is not held", async () => {
  const { driver } = fake();
  const map = () => new WeakRef(driver.map({ mapAsync: () => Promise.resolve() } as unknown as GPUBuffer, 4));
  const held = map();
  await collect();
  expect(held.deref()).toBeUndefined();
});

test("the promise of the loss is held until Dawn has called back", async () => {
  const open = () => {
    const { driver, loss, callBack } = fake();
    driver.destroy();
    return { loss, callBack };
  };
  const { loss, callBack } = open();
  await collect();
  expect(loss.deref()).toBeDefined();
  callBack();
  await collect();
  expect(loss.deref()).toBeUndefined();
});
