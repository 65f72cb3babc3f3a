/** bench/peers: results from rows, their tables, and the ONNX files. The engines are not needed. */
import { expect, test } from "vitest";
import { check, copiesOf, inputsOf, jobName, type LinearJob, MODEL_JOBS, QUICK_JOBS } from "../../bench/peers/jobs.ts";
import { writeModel } from "../../bench/peers/onnx.ts";
import {
  compareRows,
  geometricMean,
  meanOf,
  mergePeerRows,
  parsePeerRows,
  timesOf,
} from "../../bench/peers/results.ts";
import { renderPeers, replacePeersInDocs } from "../../bench/peers/table.ts";
import { randomNumbers } from "../../src/tensor/cases/support/data.ts";
import { softmax } from "../../src/tensor/reference/softmax.ts";
import { peerRow } from "./row.ts";

const GEMM = [
  peerRow({}),
  peerRow({ engine: "onnxruntime", ms: 30, cpu_ms: 60 }),
  peerRow({ engine: "jax", ms: 25, cpu_ms: 70 }),
  peerRow({ engine: "tfjs", ms: null, cpu_ms: null, check: null, way: "", note: "matMul: no such kernel" }),
  peerRow({ engine: "onnxruntime_cpu", ms: 1, cpu_ms: 2 }),
];

test("on a software adapter the best WebGPU peer is the one with the least CPU time", () => {
  const [comparison] = compareRows(GEMM);
  expect(comparison).toMatchObject({ rival: { engine: "onnxruntime" }, wall: 3, cpu: 3, bar: 1.5, met: true });
});

test("on a GPU it is the one with the least wall time, and so is the bar", () => {
  const [comparison] = compareRows(GEMM.map((each) => ({ ...each, software: false })));
  expect(comparison).toMatchObject({ rival: { engine: "jax" }, wall: 2.5, cpu: 3.5, met: true });
});

test("a bar is missed by little, and met exactly", () => {
  const against = (cpu_ms: number) =>
    compareRows([peerRow({}), peerRow({ engine: "jax", cpu_ms })]).map(({ met }) => met);
  expect(against(29.9)).toEqual([false]);
  expect(against(30)).toEqual([true]);
});

test("attention is compared with ONNX Runtime only", () => {
  const attention = { job: "attention a", kind: "attention" } as const;
  const [comparison] = compareRows([
    peerRow(attention),
    peerRow({ ...attention, engine: "jax", cpu_ms: 1 }),
    peerRow({ ...attention, engine: "onnxruntime", cpu_ms: 25 }),
  ]);
  expect(comparison).toMatchObject({ rival: { engine: "onnxruntime" }, cpu: 1.25, bar: 1.2, met: true });
});

test("narrow weights are compared with our own f32; f16 has no bar", () => {
  const gemv = { kind: "gemv", cpu_ms: 8 } as const;
  const rows = [
    peerRow({ ...gemv, job: "gemv a M1 K4 N8 f32" }),
    peerRow({ ...gemv, job: "gemv a M1 K4 N8 f32", engine: "jax", cpu_ms: 1 }),
    peerRow({ ...gemv, job: "gemv a M1 K4 N8 f16", weight: "f16", cpu_ms: 5 }),
    peerRow({ ...gemv, job: "gemv a M1 K4 N8 int8", weight: "int8", cpu_ms: 7 }),
  ];
  expect(compareRows(rows)).toMatchObject([
    { rival: { engine: "jax" }, cpu: 1 / 8, met: false },
    { rival: { engine: "ours" }, cpu: 8 / 5, bar: null, met: null },
    { rival: { engine: "ours" }, cpu: 8 / 7, bar: 1.3, met: false },
  ]);
});

test("without a peer there is nothing to meet", () => {
  expect(compareRows(GEMM.filter(({ engine }) => engine === "ours"))).toMatchObject([
    { wall: null, cpu: null, met: null },
  ]);
  expect(compareRows(GEMM.filter(({ engine }) => engine !== "ours"))).toMatchObject([
    { wall: null, cpu: null, met: null },
  ]);
});

test("geometric means", () => {
  expect(geometricMean([])).toBeNull();
  expect(geometricMean([2, 8])).toBeCloseTo(4, 12);
  const twice = [...GEMM, ...GEMM.map((each) => ({ ...each, job: "gemm b", cpu_ms: each.cpu_ms && each.cpu_ms ** 2 }))];
  expect(meanOf(compareRows(twice), "gemm").cpu).toBeCloseTo(Math.sqrt(3 * 9), 12);
  expect(meanOf(compareRows(twice), "gemv").cpu).toBeNull();
});

test("times are medians and minima; none if there was no round", () => {
  const rounds = [5, 1, 3].map((ms) => ({ wall: ms, cpu: 2 * ms }));
  expect(timesOf(rounds)).toEqual({
    ...{ ms: 3, ms_min: 1, cpu_ms: 6, cpu_ms_min: 2 },
    samples: { wall: rounds.map(({ wall }) => wall), cpu: rounds.map(({ cpu }) => cpu) },
  });
  expect(timesOf([])).toEqual({
    ...{ ms: null, ms_min: null, cpu_ms: null, cpu_ms_min: null },
    samples: { wall: [], cpu: [] },
  });
});

test("rows are read back, and measured anew in their places", () => {
  const text = GEMM.map((each) => `${JSON.stringify(each)}\n`).join("");
  expect(parsePeerRows(text)).toEqual(GEMM);
  expect(() => parsePeerRows(`${text}{"kernel":"linear","shape":"a"}`)).toThrow("line 6: not a row of bench:peers");
  const fresh = [peerRow({ engine: "jax", ms: 1 }), peerRow({ job: "gemm b" })];
  const merged = mergePeerRows(GEMM, fresh);
  expect(merged.map(({ engine, job, ms }) => [engine, job.slice(0, 6), ms])).toEqual([
    ["ours", "gemm a", 10],
    ["onnxruntime", "gemm a", 30],
    ["jax", "gemm a", 1],
    ["tfjs", "gemm a", null],
    ["onnxruntime_cpu", "gemm a", 1],
    ["ours", "gemm b", 10],
  ]);
});

test("the table says who was best, what was missed and what did not run", () => {
  const [, engines, table, , summary, complaints] = renderPeers(GEMM).split("\n\n");
  expect(engines.split("\n")[1]).toBe("ONNX Runtime 1.0 on Some GPU");
  expect(table).toBe(
    [
      "job                  this project  ONNX Runtime   jax-js  TensorFlow.js  ONNX Runtime CPU         rival   wall    CPU   bar",
      "gemm a M2 K4 N8 f32       20.0 ms       60.0 ms  70.0 ms              -           2.00 ms  ONNX Runtime  3.00x  3.00x  1.5x  met",
    ].join("\n"),
  );
  expect(summary).toBe("GEMM, geometric mean: 3.00x wall, 3.00x CPU; bar 2x: met\n1 of 1 bars met");
  expect(complaints).toBe("TensorFlow.js: matMul: no such kernel (gemm a M2 K4 N8 f32)");
  const slow = renderPeers(GEMM.map((each) => (each.engine === "ours" ? { ...each, cpu_ms: 50 } : each)));
  expect(slow).toContain("GEMM, geometric mean: 3.00x wall, 1.20x CPU; bar 2x: missed\n0 of 1 bars met\n");
  expect(slow).toContain("missed: gemm a M2 K4 N8 f32: 3.00x wall, 1.20x CPU, bar 1.5x");
});

test("the page's part between the markers is replaced, the rest is not touched", () => {
  const page = "# Title\n\n<!-- peers:begin -->\nold\n<!-- peers:end -->\n\nMore.\n";
  const once = replacePeersInDocs(page, GEMM);
  expect(once).toMatch(/^# Title\n\n<!-- peers:begin -->\n\nSome GPU/);
  expect(once).toMatch(/\n\n<!-- peers:end -->\n\nMore\.\n$/);
  expect(once).toContain("| gemm a M2 K4 N8 f32 |");
  expect(once).not.toContain("old");
  expect(replacePeersInDocs(once, GEMM)).toBe(once);
  expect(() => replacePeersInDocs("text", GEMM)).toThrow("must have one line <!-- peers:begin -->");
});

test("jobs have names of their own, and the quick ones are among them", () => {
  const names = MODEL_JOBS.map(jobName);
  expect(new Set(names).size).toBe(names.length);
  expect(new Set(QUICK_JOBS.map(({ op }) => op)).size).toBe(new Set(MODEL_JOBS.map(({ op }) => op)).size);
});

test("a GEMV reads more than caches hold before the same weight comes again", () => {
  const gemv: LinearJob = { op: "linear", name: "a", M: 1, K: 4096, N: 4096, weight: "f32" };
  expect(copiesOf(gemv)).toBe(2);
  expect(copiesOf({ ...gemv, weight: "f16" })).toBe(4);
  expect(copiesOf({ ...gemv, weight: "int4" })).toBe(13);
  expect(copiesOf({ ...gemv, M: 2 })).toBe(1);
});

test("a right result passes, a wrong one does not", () => {
  const job = { op: "softmax", name: "a", R: 3, D: 5 } as const;
  const y = Float32Array.from(softmax(inputsOf(job)[0], 5));
  expect(check(job, y, "nk", true)).toBeLessThan(0.2);
  y[4] += 0.01;
  expect(check(job, y, "nk", false)).toBeGreaterThan(1);
  expect(() => check(job, y.subarray(1), "nk", false)).toThrow("14 numbers where 15 are expected");
});

test("the order of a weight decides what a product is", () => {
  const job: LinearJob = { op: "linear", name: "a", M: 1, K: 4, N: 2, weight: "f32" };
  const [x] = inputsOf(job);
  const sequence = randomNumbers(8);
  const product = (at: (n: number, k: number) => number) =>
    Float32Array.from([0, 1], (n) => x.reduce((sum, value, k) => sum + value * sequence[at(n, k)], 0));
  expect(
    check(
      job,
      product((n, k) => n * 4 + k),
      "nk",
      false,
    ),
  ).toBeLessThan(1);
  expect(
    check(
      job,
      product((n, k) => k * 2 + n),
      "kn",
      false,
    ),
  ).toBeLessThan(1);
  expect(
    check(
      job,
      product((n, k) => k * 2 + n),
      "nk",
      false,
    ),
  ).toBeGreaterThan(1);
});

test("an ONNX model, byte by byte", () => {
  const model = writeModel({
    inputs: [{ name: "x", dims: [300] }],
    outputs: [{ name: "y", dims: [300] }],
    initializers: [{ name: "w", dims: [1], data: Float32Array.of(1) }],
    nodes: [
      {
        op: "Op",
        domain: "d",
        inputs: ["x", "w"],
        outputs: ["y"],
        ints: { axis: -1 },
        floats: { e: 1 },
        lists: { p: [2] },
      },
    ],
  });
  // By hand from onnx.proto: a field is its number times 8 plus the wire type (0 varint, 2 length and bytes, 5 four bytes).
  const value = (name: string) => {
    return [0x0a, 1, name.charCodeAt(0), 0x12, 11, 0x0a, 9, 8, 1, 0x12, 5, 0x0a, 3, 8, 0xac, 2]; // FLOAT, [300]
  };
  // biome-ignore format: a field a line
  const node = [
    0x0a, 1, 0x78, // input x
    0x0a, 1, 0x77, // input w
    0x12, 1, 0x79, // output y
    0x22, 2, 0x4f, 0x70, // op_type Op
    0x2a, 11, 0x0a, 1, 0x65, 0x15, 0, 0, 0x80, 0x3f, 0xa0, 1, 1, // e = 1.0, FLOAT
    0x2a, 20, 0x0a, 4, 0x61, 0x78, 0x69, 0x73, 0x18, ...Array(9).fill(0xff), 1, 0xa0, 1, 2, // axis = -1, INT
    0x2a, 8, 0x0a, 1, 0x70, 0x40, 2, 0xa0, 1, 7, // p = [2], INTS
    0x3a, 1, 0x64, // domain d
  ];
  const weight = [8, 1, 0x10, 1, 0x42, 1, 0x77, 0x4a, 4, 0, 0, 0x80, 0x3f];
  // biome-ignore format: a field a line
  const graph = [
    0x0a, node.length, ...node,
    0x12, 5, ...Buffer.from("graph"),
    0x2a, weight.length, ...weight,
    0x5a, value("x").length, ...value("x"),
    0x62, value("y").length, ...value("y"),
  ];
  // biome-ignore format: a field a line
  expect([...model]).toEqual([
    8, 9, // ir_version
    0x3a, graph.length, ...graph,
    0x42, 4, 0x0a, 0, 0x10, 20, // opset 20 of ONNX
    0x42, 17, 0x0a, 13, ...Buffer.from("com.microsoft"), 0x10, 1,
  ]);
});
