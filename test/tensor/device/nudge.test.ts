/** Empty submits while a program waits; `npm run browser:check` measures what they bring in Firefox. */
import { expect, test, vi } from "vitest";
import { Nudge } from "../../../src/tensor/device/nudge.ts";

test("a wait is accompanied by empty submits until it ends, several by one series", async () => {
  vi.useFakeTimers();
  try {
    const submit = vi.fn();
    const nudge = new Nudge({ submit } as unknown as GPUQueue, true);
    const [first, second] = [deferred(), deferred()];
    const waits = [nudge.during(first.promise), nudge.during(second.promise)];
    expect(submit.mock.calls).toEqual([[[]]]); // at once, and of nothing
    vi.advanceTimersByTime(10);
    expect(submit).toHaveBeenCalledTimes(11);
    first.resolve(1);
    expect(await waits[0]).toBe(1);
    vi.advanceTimersByTime(5);
    expect(submit).toHaveBeenCalledTimes(16);
    second.reject(new Error("lost"));
    await expect(waits[1]).rejects.toThrow("lost");
    vi.advanceTimersByTime(50);
    expect(submit).toHaveBeenCalledTimes(16);
    expect(vi.getTimerCount()).toBe(0);
  } finally {
    vi.useRealTimers();
  }
});

test("only where it is needed", async () => {
  const submit = vi.fn();
  const queue = { submit } as unknown as GPUQueue;
  expect(await new Nudge(queue).during(Promise.resolve(1))).toBe(1);
  expect(submit).not.toHaveBeenCalled();
  vi.stubGlobal("navigator", { userAgent: "Mozilla/5.0 (X11; Linux x86_64; rv:153.0) Gecko/20100101 Firefox/153.0" });
  await new Nudge(queue).during(Promise.resolve(1));
  vi.unstubAllGlobals();
  expect(submit).toHaveBeenCalledTimes(1);
});

function deferred() {
  let resolve!: (value: number) => void;
  let reject!: (error: Error) => void;
  const promise = new Promise<number>((yes, no) => {
    [resolve, reject] = [yes, no];
  });
  return { promise, resolve, reject };
}
