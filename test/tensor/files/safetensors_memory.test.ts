/**
 * What reading costs: a header's claim is not memory, and a file of any size is read through little of it. Peak resident
 * memory never goes down, so each test measures by how much it raised the peak.
 */
import { mkdtemp, open, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it, vi } from "vitest";
import { WeightError } from "../../../src/tensor/errors.ts";
import { Checkpoint } from "../../../src/tensor/files/checkpoint.ts";
import { SafetensorsFile } from "../../../src/tensor/files/safetensors.ts";
import { FileSource, openCheckpoint } from "../../../src/tensor/files/source.node.ts";
import { MemorySource } from "../../../src/tensor/files/source.ts";
import { expectLinear } from "../../linear_time.ts";
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
  const read = vi.spyOn(FileSource.prototype, "read");
  const peak = await raisesPeakBy(async () => {
    const checkpoint = await openCheckpoint(path);
    expect(await checkpoint.read("far")).toEqual(Uint8Array.of(5, 6, 7, 8));
    expect(await checkpoint.read("hole", [5 * 2 ** 30 - 3, 5 * 2 ** 30])).toEqual(new Uint8Array(3));
    await checkpoint.close();
  });
  const taken = read.mock.calls.reduce((sum, [, into]) => sum + into.length, 0);
  read.mockRestore();
  expect(taken).toBeLessThan(1000); // of the header and 7 bytes
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

/** Headers by the number of things in them. */
const HEADERS: Record<string, (count: number) => Uint8Array> = {
  tensors: (count) => {
    const entries = Array.from({ length: count }, (_, i) =>
      entry(`language_model.model.layers.${i}.self_attn.q_proj.weight`, "BF16", [4, 2], [16 * i, 16 * (i + 1)]),
    );
    return build(`{"__metadata__":{"format":"pt"},${entries.join()}}`, count * 16);
  },
  "words of metadata": (count) => {
    const words = Array.from({ length: count }, (_, i) => `"${i}":"a word"`);
    return build(`{"__metadata__":{${words.join()}},${entry("t", "U8", [1], [0, 1])}}`, 1);
  },
  "dimensions of one tensor": (count) => build(`{${entry("t", "U8", new Array(count).fill(1), [0, 1])}}`, 1),
  "letters of a name": (count) => build(`{${entry("n".repeat(count), "U8", [1], [0, 1])}}`, 1),
  "blanks after the header": (count) => build(`{${entry("t", "U8", [1], [0, 1])}}${" ".repeat(count)}`, 1),
};

it.each(Object.keys(HEADERS))("opens a file, or refuses it, in time that grows with the %s alone", async (what) => {
  const made = new Map<number, Uint8Array>();
  await expectLinear(
    (size) => {
      const bytes = made.get(size) ?? HEADERS[what](size);
      made.set(size, bytes);
      return Checkpoint.open(new MemorySource("m", bytes)).catch((error) => expect(error).toBeInstanceOf(WeightError));
    },
    64_000,
    what,
  );
});
