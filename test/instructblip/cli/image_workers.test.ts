/** Images read in worker threads against their twin in this thread, and work that is begun ahead. */
import { getEventListeners } from "node:events";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import sharp from "sharp";
import { expect, test } from "vitest";
import { ahead, windows } from "../../../src/instructblip/cli/requests/ahead.ts";
import type * as Readers from "../../../src/instructblip/cli/requests/image_workers.node.ts";
import { parseStats, Stats } from "../../../src/instructblip/cli/requests/stats.ts";
import { EmbeddedImage } from "../../../src/instructblip/data/row.ts";
import type { ImageSource } from "../../../src/instructblip/evaluation/task.ts";
import type { AnyProcessor } from "../../../src/instructblip/pretrained/auto_processor.ts";
import { BlipImageProcessor } from "../../../src/instructblip/processing/image_processor.ts";
import { BusyTime } from "../../../src/tensor/device/busy_time.ts";
import type { EngineError } from "../../../src/tensor/errors.ts";
import { compiled } from "../../compiled.ts";
import { temporaryFolder } from "../../temporary.ts";
import { ROOT } from "./cli.ts";

// As it is in the package, so that threads start without a loader of TypeScript.
const { ImageReader, workersFor } = (await import(
  compiled("src/instructblip/cli/requests/image_workers.node.ts")
)) as typeof Readers;

const SHAPES = join(ROOT, "examples/shapes/images");

test("a thread's pixels and errors are those of this thread, and it ends", async () => {
  const folder = temporaryFolder();
  await writeFile(join(folder, "text.png"), "no image");
  const noise = Buffer.from(Uint8Array.from({ length: 3 * 301 * 97 }, (_, i) => (i * i * 7919) >> 5));
  const raw = { raw: { width: 301, height: 97, channels: 3 } } as const;
  await sharp(noise, raw).jpeg().toFile(join(folder, "noise.jpg"));
  await sharp(noise, raw).tiff().toFile(join(folder, "noise.tiff"));
  const bytes = await readFile(join(folder, "noise.jpg"));
  const images: ImageSource[] = [
    ...["a.png", "b.png"].map((name) => join(SHAPES, name)),
    ...["noise.jpg", "noise.tiff", "noise.jpg", "text.png", "none.png", "none.png"],
    "ftp://example.org/a.png",
    `data:image/jpeg;base64,${bytes.toString("base64")}`,
    new EmbeddedImage("noise", async () => bytes),
    new EmbeddedImage("cut", async () => bytes.subarray(0, 900)),
    new EmbeddedImage("path", async () => "noise.jpg"),
    new EmbeddedImage("empty", async () => null),
  ];
  const seen: object[][] = [];
  const { signal } = new AbortController();
  const processor = { image_processor: new BlipImageProcessor({ size: { height: 90, width: 97 } }) };
  for (const workers of [0, 1]) {
    const reader = new ImageReader(processor as unknown as AnyProcessor, folder, workers, signal);
    try {
      const found = await Promise.allSettled(images.map((image) => reader.read(image)));
      seen.push(
        found.map((one) => {
          if (one.status === "fulfilled") return one.value;
          const { name, message, code, hint } = one.reason as EngineError;
          return { name, message, code, hint };
        }),
      );
    } finally {
      await reader.close();
    }
    if (workers > 0) await expect(reader.read("noise.jpg~")).rejects.toThrow("the run has ended");
  }
  expect(seen[1]).toEqual(seen[0]);
  expect(seen[0]![2]).toMatchObject({ width: 97, height: 90 });
  expect(seen[0]!.filter((one) => "code" in one).map((one) => (one as { code: string }).code)).toEqual([
    ...["IMAGE_FORMAT", "NOT_FOUND", "NOT_FOUND", "IMAGE_SOURCE", "IMAGE_TRUNCATED", "BAD_DATA"],
  ]);
  expect(getEventListeners(signal, "abort")).toEqual([]);
});

test("an interruption ends what threads are asked", async () => {
  const stop = new AbortController();
  const processor = { image_processor: new BlipImageProcessor() } as unknown as AnyProcessor;
  const reader = new ImageReader(processor, SHAPES, 1, stop.signal);
  const found = Promise.allSettled(["a.png", "b.png", "c.png", "d.png"].map((name) => reader.read(name)));
  stop.abort(new Error("interrupted"));
  for (const one of await found) expect(one).toMatchObject({ status: "rejected", reason: stop.signal.reason });
  expect(reader.failure?.error).toBe(stop.signal.reason);
  await reader.close();
});

test("threads are started for many images only, and where they are asked for", () => {
  expect([workersFor(undefined, undefined), workersFor(63, undefined), workersFor(1, 3), workersFor(1000, 0)]).toEqual([
    0, 0, 3, 0,
  ]);
  expect(workersFor(64, undefined)).toBeLessThanOrEqual(8);
});

test.each([0, 1, 3, 100])("work is begun %i ahead, and given in order", async (depth) => {
  const begun: number[] = [];
  const given: number[] = [];
  const items = Array.from({ length: 10 }, (_, i) => i);
  const work = ahead(items, depth, async (i) => {
    begun.push(i);
    await new Promise((resolve) => setTimeout(resolve, (i * 7) % 4));
    return i;
  });
  for await (const window of windows(work, 4)) {
    given.push(...window);
    expect(begun.length).toBe(Math.min(10, given.length + depth));
  }
  expect(given).toEqual(items);
});

test("the first window is small, and each next one twice as large", async () => {
  const sizes = async (count: number, size: number, first?: number) => {
    const found: number[] = [];
    const given: number[] = [];
    const items = Array.from({ length: count }, (_, i) => i);
    for await (const window of windows(
      ahead(items, 0, async (i) => i),
      size,
      first,
    )) {
      found.push(window.length);
      given.push(...window);
    }
    expect(given).toEqual(items);
    return found;
  };
  expect(await sizes(21, 8, 2)).toEqual([2, 4, 8, 7]);
  expect(await sizes(7, 8, 3)).toEqual([3, 4]);
  expect(await sizes(3, 1, 1)).toEqual([1, 1, 1]);
  expect(await sizes(9, 8)).toEqual([8, 1]);
  expect(await sizes(0, 8, 2)).toEqual([]);
});

test("busy is from a submit to the end of the last", async () => {
  let now = 0;
  const ends: (() => void)[] = [];
  const busy = new BusyTime(
    { onSubmittedWorkDone: () => new Promise((resolve) => ends.push(() => resolve(undefined))) },
    () => now,
  );
  const at = async (time: number, what: () => void) => {
    now = time;
    what();
    await Promise.resolve();
  };
  await at(100, () => busy.submitted());
  const stats = new Stats(busy, () => now);
  await at(110, () => busy.submitted());
  await at(120, () => ends[0]!());
  expect(busy.read()).toBe(20);
  await at(150, () => ends[1]!());
  await at(180, () => {});
  expect(busy.read()).toBe(50);
  await at(200, () => busy.submitted());
  now = 300;
  expect(busy.read()).toBe(150);
  expect(stats.text(4)).toBe("4 answered in 200 ms, 20.0 a second; the device was busy for 75.0 % of it");
  expect(parseStats(`a warning\n${stats.text(4)}\n`)).toEqual({ answered: 4, perSecond: 20, busy: 0.75 });
  expect(parseStats("a warning")).toBeUndefined();
  // The device is lost: its time stays, and another's is added.
  const others: (() => void)[] = [];
  const other = new BusyTime(
    { onSubmittedWorkDone: () => new Promise((resolve) => others.push(() => resolve(undefined))) },
    () => now,
  );
  stats.watch(other);
  await at(400, () => other.submitted());
  now = 500;
  expect(stats.text(8)).toBe("8 answered in 400 ms, 20.0 a second; the device was busy for 62.5 % of it");
});
