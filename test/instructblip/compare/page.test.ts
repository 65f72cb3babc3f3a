/** The page of a comparison: one file, whose text is escaped, with a bar and a row for each tensor. */
import { expect, test } from "vitest";
import { axisOf } from "../../../src/instructblip/compare/chart.ts";
import type { Comparison, Row } from "../../../src/instructblip/compare/comparison.ts";
import { comparisonPage } from "../../../src/instructblip/compare/page.ts";
import { differenceOf, statisticsOf } from "../../../src/instructblip/compare/statistics.ts";

function row(name: string, a: readonly number[], b: readonly number[], more: Partial<Row> = {}): Row {
  const [x, y] = [Float32Array.from(a), Float32Array.from(b)];
  const difference = differenceOf(x, y);
  const side = (numbers: Float32Array) => ({ shape: [numbers.length], statistics: statisticsOf(numbers) });
  return { name, a: side(x), b: side(y), difference, worst: { at: [difference.worst], a: 0, b: 1 }, ...more };
}

const comparison = (rows: readonly Row[], tolerance = 1e-6): Comparison => {
  return { a: "<a>&.safetensors", b: 'dtype="int8"', tolerance, isOrdered: true, rows, onlyA: ["x<y"], onlyB: [] };
};

test("has a row and a bar for each tensor, and loads nothing", () => {
  const rows = [
    row("vision_model.fc", [1, 2], [1, 2]),
    row("input:head", [1, 1], [1, 1.1], { inherited: 1e-4, added: 4.9e-3, wrong: "error" }),
    row("head", [1, 1], [1, Number.NaN], { wrong: "not finite" }),
  ];
  const html = comparisonPage(comparison(rows));
  expect(html).not.toMatch(/(src|href)=|@import|url\(/);
  expect([...html.matchAll(/<tr id="t(\d)"/g)].map(([, i]) => i)).toEqual(["0", "1", "2"]);
  expect(html).toContain('data-told="head (input): NMSE 5.0e-3, inherited 1.0e-4, added 4.9e-3"');
  expect(html).toMatch(/heat: 0.00">not finite<\/td>/);
  expect([...html.matchAll(/<rect class="([a-z ]+)"/g)].map(([, kind]) => kind)).toEqual([
    "inherited",
    "added wrong",
    "whole wrong",
  ]);
  expect(html).toContain('<li class="first">first: head (input), NMSE 5.0e-3');
});

test("escapes what files and people wrote", () => {
  const html = comparisonPage(comparison([row('"><script>alert(1)</script>', [1], [2], { wrong: "error" })]));
  expect(html).not.toContain("<script>alert");
  expect(html).not.toContain("<a>&.");
  expect(html).toContain("<title>dtype=&quot;int8&quot; against &lt;a&gt;&amp;.safetensors</title>");
});

test("has what a bisection has found, and nothing inherited then", () => {
  const modules = [{ path: "qformer.fc", error: 1e-3, effect: 2e-4 }];
  const found = { more: "int8", modules, error: 9e-5, dtype: { qformer: "int4", "qformer.fc": "int8" } } as const;
  const precision = { gate: 1e-4, before: 3e-4, tries: 4, found };
  const html = comparisonPage({ ...comparison([row("a", [1], [2], { wrong: "error" })]), byItself: true }, precision);
  expect(html).toContain("is 3.0e-4; the gate is 1.0e-4. 1 module as int8 give 9.0e-5.");
  expect(html).toContain("--dtype qformer=int4,<wbr>qformer.fc=int8</code>");
  expect(html).not.toContain(">inherited<");
});

test("of equal traces says so", () => {
  expect(comparisonPage(comparison([row("a", [1], [1])], 0))).toContain("<li>equal: 1 tensors of ");
});

test("the axis holds all errors and the tolerance; zero is below it, infinity at its end", () => {
  const { low, high, share } = axisOf(comparison([row("a", [1, 0], [1, 1e-3])]));
  expect([low, high]).toEqual([-7, -5]);
  expect([share(0), share(1e-30), share(1e-7), share(1e-5), share(Number.POSITIVE_INFINITY)]).toEqual([0, 0, 0, 1, 1]);
});
