/** The comparison of traces that are in memory: findings, inherited errors, and how much is held. */
import { describe, expect, test } from "vitest";
import { type Comparison, compareTraces, inheritedErrors } from "../../../src/instructblip/compare/comparison.ts";
import { comparisonJson } from "../../../src/instructblip/compare/json.ts";
import { differenceOf, indicesOf, statisticsOf } from "../../../src/instructblip/compare/statistics.ts";
import { equalLine, findingLines, findingsOf, tableOf, topRows } from "../../../src/instructblip/compare/summary.ts";
import { readTraceMetadata, type Trace, traceMetadata } from "../../../src/instructblip/compare/trace.ts";

interface Tensors {
  readonly [name: string]: readonly number[];
}

/** A trace of vectors, which hands out one array again and again: whoever holds two tensors reads wrong numbers. */
function traceOf(label: string, tensors: Tensors, inputs: Readonly<Record<string, string>> = {}): Trace {
  const one = new Float32Array(Math.max(...Object.values(tensors).map(({ length }) => length)));
  return {
    label,
    order: Object.keys(tensors),
    isOrdered: true,
    inputs: new Map(Object.entries(inputs)),
    shape: (name) => tensors[name] && [1, tensors[name].length],
    read: async (name) => {
      one.set(tensors[name]);
      return one.subarray(0, tensors[name].length);
    },
  };
}

const rowOf = ({ rows }: Comparison, name: string) => rows.find((row) => row.name === name)!;

describe("statistics", () => {
  test("count what is not finite, and leave it out of sums", () => {
    expect(statisticsOf(Float32Array.of(3, 0, Number.NaN, -4, Number.NEGATIVE_INFINITY, 0))).toEqual({
      min: -4,
      max: 3,
      mean: -0.25,
      rms: 2.5,
      zeros: 2 / 6,
      nan: 1,
      infinite: 1,
      firstNotFinite: 2,
    });
  });

  test.each([[[]], [[Number.NaN]]])("of %j have no numbers", (numbers) => {
    expect(statisticsOf(Float32Array.from(numbers))).toMatchObject({ min: null, max: null, mean: null, rms: null });
  });

  test("of f32's largest numbers are finite", () => {
    expect(statisticsOf(Float32Array.of(3e38, -3e38)).rms).toBeCloseTo(3e38, -33);
  });
});

describe("a difference", () => {
  test("is relative to the first", () => {
    const found = differenceOf(Float32Array.of(3, 4, 0), Float32Array.of(3, 4, -5));
    expect(found).toEqual({
      nmse: 1,
      maxAbs: 5,
      worst: 2,
      cosine: 25 / Math.sqrt(25 * 50),
      broken: 0,
      firstBroken: -1,
    });
  });

  test("is infinite from zeros, and 0 from zeros to zeros", () => {
    expect(differenceOf(Float32Array.of(0), Float32Array.of(1))).toMatchObject({
      nmse: Number.POSITIVE_INFINITY,
      cosine: 0,
    });
    expect(differenceOf(Float32Array.of(0), Float32Array.of(0))).toMatchObject({ nmse: 0, cosine: 1 });
  });

  test("counts NaN in either or both, and infinities that are not the same", () => {
    const [inf, nan] = [Number.POSITIVE_INFINITY, Number.NaN];
    const a = Float32Array.of(inf, inf, nan, 1, nan, 2);
    const b = Float32Array.of(inf, -inf, nan, nan, 1, 2);
    expect(differenceOf(a, b)).toMatchObject({ nmse: 0, broken: 4, firstBroken: 1 });
  });

  test("has its place by indices", () => {
    expect(indicesOf(7, [2, 3, 4])).toEqual([0, 1, 3]);
    expect(indicesOf(23, [2, 3, 4])).toEqual([1, 2, 3]);
    expect(indicesOf(0, [])).toEqual([]);
  });
});

describe("inherited errors", () => {
  const errors = (entries: Readonly<Record<string, number>>) => new Map(Object.entries(entries));
  const inherited = (names: Readonly<Record<string, number>>, inputs: Readonly<Record<string, string>>) =>
    Object.fromEntries(inheritedErrors(Object.keys(names), new Map(Object.entries(inputs)), errors(names)));

  test("come through the input, of a module around from outside of it", () => {
    const names = { x: 0.1, "layer.norm": 0.2, "layer.a": 0.3, "layer.b": 0.4, layer: 0.5 };
    const inputs = { "layer.norm": "x", "layer.a": "layer.norm", "layer.b": "layer.a" };
    expect(inherited(names, inputs)).toEqual({ "layer.norm": 0.1, "layer.a": 0.2, "layer.b": 0.3, layer: 0.1 });
  });

  test("are the largest of several inputs", () => {
    const names = { image: 0.7, words: 0.1, "cross.query": 0, "cross.key": 0, cross: 0 };
    const inputs = { "cross.query": "words", "cross.key": "image" };
    expect(inherited(names, inputs)).toMatchObject({ cross: 0.7 });
  });

  test("of what no module returned are those of the modules beside it, and around", () => {
    const names = { x: 0.1, "attn.q": 0.2, "attn.k": 0.6, "input:attn.o": 0.9, "attn.o": 0.3, attn: 0.3 };
    const inputs = { "attn.q": "x", "attn.k": "x", "attn.o": "input:attn.o" };
    expect(inherited(names, inputs)).toMatchObject({ "input:attn.o": 0.6, "attn.o": 0.9, attn: 0.1 });
  });

  test("of what no module returned come through a module that was not called, too", () => {
    const names = { x: 0.1, "lm.model.decoder": 0.5, "input:lm.head": 0.5, "lm.head": 0.5 };
    const inputs = { "lm.model.decoder": "x", "lm.head": "input:lm.head" };
    expect(inherited(names, inputs)).toMatchObject({ "input:lm.head": 0.5 });
  });

  test("of a second run are the second run's", () => {
    const names = { x: 0.1, "l.a": 0, l: 0, "x#2": 0.5, "l.a#2": 0, "l#2": 0 };
    const inputs = { "l.a": "x", "l.a#2": "x#2" };
    expect(inherited(names, inputs)).toEqual({ "l.a": 0.1, l: 0.1, "l.a#2": 0.5, "l#2": 0.5 });
  });
});

const A = traceOf(
  "A",
  { pixels: [1, 2], "block.fc": [1, 1, 1], "input:head": [2, 2], head: [4, 0], only_a: [1] },
  { "block.fc": "pixels", head: "input:head" },
);

test("equal traces are one line", async () => {
  const comparison = await compareTraces(A, A, { tolerance: 0 });
  expect(findingsOf(comparison)).toEqual({ first: undefined, most: undefined, notFinite: undefined });
  expect(equalLine(comparison)).toBe("equal: 5 tensors of A and A, within 0; bit by bit\n");
});

test("the first tensor above the tolerance, and the one that adds most, are named", async () => {
  const b = traceOf(
    "B",
    { pixels: [1, 2], "block.fc": [1, 1, 1.01], "input:head": [2, 2.02], head: [4, 3], only_b: [1] },
    { "block.fc": "pixels", head: "input:head" },
  );
  const comparison = await compareTraces(A, b, { tolerance: 1e-6 });
  expect(comparison).toMatchObject({ onlyA: ["only_a"], onlyB: ["only_b"], isOrdered: true });
  expect(comparison.rows.map(({ name }) => name)).toEqual(["pixels", "block.fc", "input:head", "head"]);
  expect(findingsOf(comparison)).toMatchObject({ first: { name: "block.fc" }, most: { name: "head" } });
  const head = rowOf(comparison, "head");
  expect(head).toMatchObject({ worst: { at: [0, 1], a: 0, b: 3 }, difference: { nmse: 9 / 16 }, wrong: "error" });
  expect(head.inherited).toBeCloseTo(0.0004 / 8, 8);
  expect(head.added).toBeCloseTo(9 / 16 - 0.0004 / 8, 8);
  expect(findingLines(comparison).join("\n")).toContain("first: block.fc, NMSE 3.3e-5, 0 inherited, 3.3e-5 added");
  expect(topRows(comparison, 2).map(({ name }) => name)).toEqual(["block.fc", "head"]);
  expect(topRows(comparison, 3).map(({ name }) => name)).toEqual(["block.fc", "input:head", "head"]); // no equal one
  expect(tableOf(comparison, topRows(comparison, 0))).toHaveLength(5);
  expect(JSON.parse(comparisonJson(comparison))).toMatchObject({
    equal: false,
    first_different: "block.fc",
    most_added: "head",
    tensors: [
      { name: "pixels", nmse: 0 },
      {},
      { module: "head", at: "input" },
      { max_abs_at: [0, 1], a: { zeros: 0.5 } },
    ],
  });
});

describe("a module around another", () => {
  const named = async (inside: number, around: number) => {
    const inputs = { "layer.fc": "x", layer: "x" };
    const a = traceOf("A", { x: [1, 1], "layer.fc": [1, 1], layer: [1, 1] }, inputs);
    const b = traceOf("B", { x: [1, 1], "layer.fc": [1, 1 + inside], layer: [1, 1 + around] }, inputs);
    const comparison = await compareTraces(a, b, { tolerance: 1e-12 });
    return [findingsOf(comparison).most?.name, topRows(comparison, 1).map(({ name }) => name)];
  };

  test("is not named for what is inside of it", async () => {
    expect(await named(0.1, 0.12)).toEqual(["layer.fc", ["layer.fc"]]);
  });

  test("is named for what it does itself", async () => {
    expect(await named(0, 0.1)).toEqual(["layer", ["layer"]]);
    expect(await named(0.01, 0.1)).toEqual(["layer", ["layer.fc"]]); // the first that is different
  });
});

test("a NaN is a difference under any tolerance, in both too, and its first place is told", async () => {
  const b = traceOf("B", { pixels: [1, Number.NaN] });
  for (const [x, y] of [
    [A, b],
    [b, A],
    [b, b],
  ]) {
    const comparison = await compareTraces(x, y, { tolerance: 1e9 });
    expect(findingsOf(comparison)).toMatchObject({ first: { wrong: "not finite" }, notFinite: { name: "pixels" } });
    expect(findingLines(comparison).join("\n")).toMatch(
      /not finite: pixels: .*1 NaN and 0 infinite, the first at \[0, 1\]/,
    );
  }
});

test("another number of elements is a difference", async () => {
  const comparison = await compareTraces(A, traceOf("B", { pixels: [1, 2, 3] }), { tolerance: 1e9 });
  expect(comparison.rows[0]).toMatchObject({ wrong: "shape" });
  expect(findingLines(comparison)[3]).toBe("first: pixels is [1, 2] in A, [1, 3] in B");
});

test("nothing in common, and a filter that matches nothing, are errors", async () => {
  await expect(compareTraces(A, traceOf("B", { y: [1] }), { tolerance: 0 })).rejects.toMatchObject({ code: "TRACE" });
  await expect(compareTraces(A, A, { tolerance: 0, isWanted: () => false })).rejects.toMatchObject({ code: "FILTER" });
});

describe("metadata", () => {
  const read = (order: unknown, inputs: unknown = {}) =>
    readTraceMetadata(
      "t",
      new Map([
        ["trace.order", JSON.stringify(order)],
        ["trace.inputs", JSON.stringify(inputs)],
      ]),
      ["b", "a"],
    );

  test("keeps order and inputs", () => {
    const written = new Map(Object.entries(traceMetadata(A)));
    const { order, inputs, isOrdered } = readTraceMetadata("t", written, [...A.order].sort());
    expect({ order, inputs, isOrdered }).toEqual({ order: A.order, inputs: A.inputs, isOrdered: true });
  });

  test("is not needed", () => {
    expect(readTraceMetadata("t", new Map(), ["b", "a"])).toMatchObject({ order: ["a", "b"], isOrdered: false });
  });

  test.each([[["a"]], [["a", "a"]], [["a", "b", "c"]], ["ab"], [{ a: 1 }], [null]])(
    "with the order %j is refused",
    (order) => {
      expect(() => read(order)).toThrowError(expect.objectContaining({ code: "TRACE" }));
    },
  );

  test("whose inputs are no tensors is refused", () => {
    expect(() => read(["a", "b"], { a: "c" })).toThrowError(expect.objectContaining({ code: "TRACE" }));
    expect(() => readTraceMetadata("t", new Map([["trace.order", "["]]), [])).toThrow(/not JSON/);
  });
});
