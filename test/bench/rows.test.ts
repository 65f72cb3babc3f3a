import { readdirSync, readFileSync } from "node:fs";
import { expect, test } from "vitest";
import {
  basisSamples,
  cachesOf,
  formatRows,
  isWrong,
  median,
  mergeRows,
  parseRows,
  roofline,
  slug,
  spreadOf,
  timesOf,
} from "../../bench/rows.ts";
import type { Limits } from "../../src/tensor/limits.ts";
import { row } from "./row.ts";

test("median", () => {
  expect(median([3])).toBe(3);
  expect(median([10, 2, 4])).toBe(4);
  expect(median([4, 1, 3, 2])).toBe(2.5);
});

test("times of samples; a clock that was not read has none", () => {
  expect(timesOf({ wall: [3, 1, 2], cpu: [4, 2], gpu: [] })).toEqual({
    ...{ ms: 2, ms_min: 1, cpu_ms: 3, cpu_ms_min: 2, gpu_ms: null, gpu_ms_min: null },
  });
  const samples = { wall: [1], cpu: [2], gpu: [3] };
  const on = (basis: "gpu" | "cpu" | "wall", gpu = [3]) => basisSamples({ basis, samples: { ...samples, gpu } });
  expect([on("gpu"), on("cpu"), on("wall"), on("gpu", [])]).toEqual([[3], [2], [1], [1]]);
  expect(basisSamples({ basis: "gpu" })).toBeUndefined();
});

test("spread: the standard deviation over the mean", () => {
  expect(spreadOf([5])).toBeNull();
  expect(spreadOf([2, 4, 4, 4, 5, 5, 7, 9])).toBeCloseTo(Math.sqrt(32 / 7) / 5, 12);
  expect(spreadOf([3, 3])).toBe(0);
});

test("data is hot, cold, or in between", () => {
  const memory = { cached: 100, main: 1000 };
  expect([0, 100, 101, 999, 1000].map((bytes) => cachesOf(bytes, memory))).toEqual(["hot", "hot", null, null, "cold"]);
});

test("the limit that binds is the one that takes longest, and memory counts as cached up to a size", () => {
  const limits: Limits = {
    ms_per_launch: 0.01,
    ms_per_flop: 1e-9,
    ms_per_cached_byte: 1e-8,
    ms_per_byte: 1e-7,
    cached_bytes: 1000,
  };
  const work = (launches: number, flops: number, bytes: number, footprint = bytes) =>
    roofline({ launches, flops, bytes, footprint }, limits);
  expect(work(2, 10, 10)).toEqual({ ms: 0.02, bound: "launch" });
  expect(work(1, 1e9, 1e6)).toEqual({ ms: 1, bound: "arithmetic" });
  expect(work(0, 0, 1000)).toEqual({ ms: 1e-5, bound: "cache" });
  expect(work(0, 0, 1001).bound).toBe("memory");
  // Little is read at a time, but from all over a large place.
  const wide = work(0, 0, 1000, 3000);
  expect(wide.bound).toBe("memory");
  expect(wide.ms).toBeCloseTo(1e-4, 10);
});

test("what is wrong: beyond its tolerance or not a number; not what was never run", () => {
  expect(isWrong(row({ check: { share: 1 } }))).toBe(false);
  expect(isWrong(row({ check: { share: 1.01 } }))).toBe(true);
  expect(isWrong(row({ check: { share: null, note: "not a number" } }))).toBe(true);
  expect(isWrong(row({ check: null }))).toBe(false);
});

test("no committed row is wrong", () => {
  const folder = new URL("../../bench/results/", import.meta.url);
  const files = readdirSync(folder).filter((name) => /^(?!peers-|dataset-).*\.jsonl$/.test(name));
  const rows = files.flatMap((name) => parseRows(readFileSync(new URL(name, folder), "utf8")));
  expect(rows.length).toBeGreaterThan(100);
  expect(rows.filter(isWrong)).toEqual([]);
});

test("an adapter's file name", () => {
  expect(slug("llvmpipe: Mesa 25.0.7-2~bpo12+1 (LLVM 15.0.6) 0.0.1")).toBe("llvmpipe-mesa-25.0.7-2-bpo12-1-0.0.1");
  expect(slug("NVIDIA H100 80GB HBM3")).toBe("nvidia-h100-80gb-hbm3");
  expect(slug("(…)")).toBe("adapter");
});

test("rows survive being written and read; a damaged line is named", () => {
  const rows = [row({ shape: "a" }), row({ shape: "b", check: { share: null, note: "element 3 is NaN" } })];
  expect(parseRows(formatRows(rows))).toEqual(rows);
  expect(parseRows("\n")).toEqual([]);
  expect(() => parseRows(`${formatRows(rows)}{"kernel": "x"`)).toThrow("line 3: ");
  expect(() => parseRows('{"kernel": "x"}')).toThrow("line 1: not a benchmark row");
});

test("a row measured again takes its older self's place; other machines' rows stay", () => {
  const old = [row({ shape: "a", ms: 1 }), row({ shape: "b", ms: 2 }), row({ shape: "a", ms: 3, adapter: "another" })];
  const fresh = [row({ shape: "c", ms: 5 }), row({ shape: "a", ms: 4 })];
  expect(mergeRows(old, fresh).map(({ shape, ms }) => [shape, ms])).toEqual([
    ["a", 4],
    ["b", 2],
    ["a", 3],
    ["c", 5],
  ]);
});
