/**
 * What reading costs: a header's claim is not memory, and a file of any size is read through little of it. Peak resident
 * memory never goes down, so each test measures by how much it raised the peak.
 */
import { mkdtemp, open, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { Checkpoint, SafetensorsFile } from "../../../src/tensor/files/safetensors.ts";
import { FileSource, openCheckpoint } from "../../../src/tensor/files/source.node.ts";
import { MemorySource } from "../../../src/tensor/files/source.ts";
import { build, entry, FILES } from "./corpus/files.ts";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "safetensors-"));
});
afterAll(() => rm(folder, { recursive: true }));

const MIB = 2 ** 20;
/** The bound that a refused file must keep; the fault list's number. */
const REFUSAL_BYTES = 64 * MIB;

async function raisesPeakBy(work: () => Promise<unknown>): Promise<number> {
  const before = process.resourceUsage().maxRSS;
  await work();
  return (process.resourceUsage().maxRSS - before) * 1024;
}

it.each(["A05", "A06a", "A06b", "A07"])("%s: a header that claims too much is refused without it", async (id) => {
  const { bytes, size } = FILES[id];
  const path = join(folder, id);
  await writeFile(path, bytes());
  if (size) await truncate(path, size);
  const peak = await raisesPeakBy(() =>
    expect(FileSource.open(path).then((source) => SafetensorsFile.open(source))).rejects.toMatchObject({
      code: expect.stringMatching(/HEADER_(TOO_LARGE|LENGTH)/),
    }),
  );
  expect(peak).toBeLessThan(REFUSAL_BYTES);
});

/** 5 GiB with a hole in the middle: `far` is its last 4 bytes. */
async function sparseFile(): Promise<string> {
  const gap = 5 * 2 ** 30;
  const header = build(
    `{${entry("near", "F32", [1], [0, 4])},${entry("hole", "U8", [gap], [4, gap + 4])},${entry("far", "F32", [1], [gap + 4, gap + 8])}}`,
    4,
  );
  const path = join(folder, "sparse.safetensors");
  const handle = await open(path, "w");
  await handle.write(header, 0, header.length, 0);
  await handle.write(Uint8Array.of(5, 6, 7, 8), 0, 4, header.length + gap);
  await handle.close();
  return path;
}

it("reads one tensor behind 5 GiB at once, in little memory", async () => {
  const path = await sparseFile();
  const peak = await raisesPeakBy(async () => {
    const begun = performance.now();
    const checkpoint = await openCheckpoint(path);
    expect(await checkpoint.read("far")).toEqual(Uint8Array.of(5, 6, 7, 8));
    expect(await checkpoint.read("hole", [5 * 2 ** 30 - 3, 5 * 2 ** 30])).toEqual(new Uint8Array(3));
    // Without reading 5 GiB: that takes seconds.
    expect(performance.now() - begun).toBeLessThan(1500);
    await checkpoint.close();
  });
  expect(peak).toBeLessThan(16 * MIB);
});

it("streams a large tensor through one buffer", { timeout: 30_000 }, async () => {
  const checkpoint = await openCheckpoint(await sparseFile());
  const peak = await raisesPeakBy(async () => {
    let seen = 0;
    for await (const { bytes, byteOffset } of checkpoint.stream(["hole"], { chunkBytes: 8 * MIB })) {
      expect(byteOffset).toBe(seen);
      seen += bytes.length;
      if (seen >= 512 * MIB) break;
    }
  });
  await checkpoint.close();
  // The buffer, and slack for the allocator; 512 MiB have gone through.
  expect(peak).toBeLessThan(32 * MIB);
});

it("opens a model of 1,400 tensors in milliseconds", async () => {
  const entries = Array.from({ length: 1400 }, (_, i) =>
    entry(`language_model.model.layers.${i}.self_attn.q_proj.weight`, "BF16", [4, 2], [16 * i, 16 * (i + 1)]),
  );
  const bytes = build(`{"__metadata__":{"format":"pt"},${entries.join()}}`, 1400 * 16);
  const times: number[] = [];
  for (let i = 0; i < 10; i++) {
    const begun = performance.now();
    const { tensors } = await Checkpoint.open(new MemorySource("m", bytes));
    times.push(performance.now() - begun);
    expect(tensors.size).toBe(1400);
  }
  // Measured 3 ms on two slow cores; the bound leaves room for a busy machine and still fails for anything quadratic.
  expect(Math.min(...times)).toBeLessThan(50);
});
