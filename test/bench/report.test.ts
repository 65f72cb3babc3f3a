import { expect, test } from "vitest";
import { formatRate, formatTime, renderReport, replaceInDocs } from "../../bench/report.ts";
import { row } from "./row.ts";

test.each([
  [null, ""],
  [0.00087, "870 ns"],
  [0.0009996, "1.00 µs"],
  [0.0345, "34.5 µs"],
  [0.99949, "999 µs"],
  [0.9996, "1.00 ms"],
  [1.254, "1.25 ms"],
  [99.96, "100 ms"],
  [2340, "2.34 s"],
])("%d ms is %s", (ms, text) => {
  expect(formatTime(ms)).toBe(text);
});

test.each([
  [null, ""],
  [0.004, "0.00"],
  [9.994, "9.99"],
  [9.996, "10.0"],
  [1234.5, "1235"],
])("a rate of %d is %s", (rate, text) => {
  expect(formatRate(rate)).toBe(text);
});

const ROWS = [
  row(),
  row({ variant: "invocation", planned: false, gbs: 1234, share: 0.004, bound: "memory", check: { share: 0 } }),
  row({
    ...{ kernel: "linear", variant: "naive", planned: false, shape: "vit fc1", check: null, first_ms: null, ms: null },
    ...{ ms_min: null, cpu_ms: null, gpu_ms: null, gbs: null, share: null, bound: null, note: "not run: about 4.0 s" },
  }),
];

test("a table: aligned, without the columns that nobody fills", () => {
  const [header, table, legend] = renderReport(ROWS).split("\n\n");
  expect(header).toBe(
    "Some GPU · Some CPU, 4 cores · Linux 6.1 · Node v20.0.0 · webgpu 0.6.2 · commit abc1234 · 2026-01-02",
  );
  expect(table).toBe(
    [
      "kernel      variant     shape           check   first   median      min      cpu      gpu  GB/s  of limit",
      "layer_norm  workgroup*  vit R257 D1408   25 %  120 ms  34.5 µs  30.0 µs  10.0 µs  20.0 µs   145   46 % cache",
      "layer_norm  invocation  vit R257 D1408  exact  120 ms  34.5 µs  30.0 µs  10.0 µs  20.0 µs  1234   <1 % memory",
      "linear      naive       vit fc1                                                                  not run: about 4.0 s",
    ].join("\n"),
  );
  expect(legend).toContain("by the median GPU time");
});

test("on a software adapter rates are of CPU time, and timestamps are not shown", () => {
  const text = renderReport([row({ basis: "cpu" })]);
  expect(text).toContain("by the median CPU time");
  expect(text.split("\n\n")[1]).not.toContain("gpu");
});

test("the spread of the rounds on the row's clock, and what caches held", () => {
  const samples = { wall: [1, 2, 9], cpu: [9, 10, 11], gpu: [] };
  const text = renderReport([
    row({ basis: "cpu", samples, caches: "hot" }),
    row({ basis: "cpu", shape: "large", samples: { ...samples, cpu: [10] }, caches: "cold" }),
  ]);
  expect(text).toMatch(/^layer_norm .* 10 % +hot /m); // a standard deviation of 1 in 10
  expect(text).toMatch(/^layer_norm +workgroup\* +large .* 10\.0 µs +cold /m);
});

test("Markdown: a table with alignment, bars escaped", () => {
  const [, table, legend] = renderReport([row({ shape: "a|b" })], true).split("\n\n");
  expect(table).toBe(
    [
      "| kernel     | variant    | shape | check |  first |  median |     min |     cpu |     gpu | GB/s | of limit    |",
      "| ---------- | ---------- | ----- | ----: | -----: | ------: | ------: | ------: | ------: | ---: | ----------- |",
      "| layer_norm | workgroup* | a\\|b  |  25 % | 120 ms | 34.5 µs | 30.0 µs | 10.0 µs | 20.0 µs |  145 |  46 % cache |",
    ].join("\n"),
  );
  expect(legend).toMatch(/^- variant: /);
});

test("the model has a table of its own, and counts by the token", () => {
  const step = { kernel: "model", shape: "shapes, 12.3 M parameters", gbs: null, share: null, bound: null };
  const per_token = { launches: 39, submits: 5, bind_groups: 15.25, buffers: 0 };
  const rows = [
    row({ ...step, variant: "prefill", tokens_per_second: 4659.2 }),
    row({ ...step, variant: "decode", first_ms: null, tokens_per_second: 106, per_token }),
  ];
  expect(renderReport(rows).split("\n\n")[1]).toBe(
    [
      "model                      step     check   first   median      min      cpu  tokens/s  launches  submits  bind groups  buffers",
      "shapes, 12.3 M parameters  prefill   25 %  120 ms  34.5 µs  30.0 µs  10.0 µs      4659",
      "shapes, 12.3 M parameters  decode    25 %          34.5 µs  30.0 µs  10.0 µs       106        39        5         15.3        0",
    ].join("\n"),
  );
});

test("what is wrong is said, and why", () => {
  const text = renderReport([
    row({ check: { share: 3.2 }, ms: null }),
    row({ shape: "b", check: { share: null, note: "element 3 is NaN" } }),
  ]);
  expect(text).toContain("WRONG: layer_norm workgroup vit R257 D1408: 320 % of the tolerance\n");
  expect(text).toMatch(/WRONG: layer_norm workgroup b: element 3 is NaN$/);
});

test("machines are told apart; commits and days are listed", () => {
  const text = renderReport([
    row(),
    row({ adapter: "Another" }),
    row({ commit: "def5678+", date: "2026-02-03T00:00:00Z" }),
  ]);
  expect(text).toContain("commit abc1234, def5678+ · 2026-01-02 to 2026-02-03");
  expect(text.match(/^Another · /gm)).toHaveLength(1);
});

test("the page's part between the markers is replaced, the rest is not touched", () => {
  const page = "# Title\n\n<!-- bench:begin -->\nold\n<!-- bench:end -->\n\nMore.\n";
  const once = replaceInDocs(page, [row(), row({ variant: "unplanned", planned: false })]);
  expect(once).toMatch(/^# Title\n\n<!-- bench:begin -->\n\nSome GPU/);
  expect(once).toMatch(/limit that applies\.\n\n<!-- bench:end -->\n\nMore\.\n$/);
  expect(once).not.toMatch(/\bold\b|unplanned/);
  expect(replaceInDocs(once, [row()])).toBe(once);
});

test.each([
  ["no markers", "text"],
  ["no end", "<!-- bench:begin -->"],
  ["the end first", "<!-- bench:end --> <!-- bench:begin -->"],
  ["two of them", "<!-- bench:begin --><!-- bench:begin --><!-- bench:end -->"],
])("a page with %s is refused", (_, text) => {
  expect(() => replaceInDocs(text, [row()])).toThrow("must have one line <!-- bench:begin -->");
});
