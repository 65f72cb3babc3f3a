/** `npm run report`: every kind of file is understood or refused, and the page has the numbers of the files. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, onTestFinished, test, vi } from "vitest";
import { comparePairs, compareRows } from "../../bench/compare.ts";
import { formatRate } from "../../bench/report.ts";
import { formatRows, parseRows, type Row } from "../../bench/rows.ts";
import { ratioOf } from "../../bench/stats.ts";
import { ticksOf } from "../../scripts/report/drawing.ts";
import { indexOf } from "../../scripts/report/history.ts";
import { parseResults, type Results } from "../../scripts/report/inputs.ts";
import { reportPage, sectionsOf } from "../../scripts/report/page.ts";
import { measuredLimits } from "../../scripts/report/roofline.ts";
import { rooflineSvg } from "../../scripts/report/roofline_image.ts";
import { run } from "../../scripts/report/run.ts";
import { peerRow, row } from "../bench/row.ts";
import { qualityJson } from "../parity/quality_json.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const lines = (rows: readonly unknown[]) => rows.map((each) => JSON.stringify(each)).join("\n");

const GEMM = { kernel: "linear", flops: 4e9, bytes: 2e8, gflops: 812.5, gbs: 40.6, bound: "arithmetic" } as const;
/** 1000 GFLOP/s, 200 and 100 GB/s, 1 µs a launch. */
const LIMITS = [
  limit({ variant: "launch", gpu_ms_min: 0.001 }),
  limit({ variant: "multiply-add", flops: 1e9, gpu_ms_min: 1 }),
  limit({ variant: "read", shape: "4 MiB", bytes: 4e6, gpu_ms_min: 0.02 }),
  limit({ variant: "copy", shape: "128 MiB", bytes: 1e8, gpu_ms_min: 1 }),
];
function limit(changes: Partial<Row>): Row {
  return row({ kernel: "limit", flops: 0, bytes: 0, launches: 1, share: null, bound: null, ...changes });
}
const BENCH = [
  ...LIMITS,
  row({ ...GEMM, variant: "register", shape: "vit <fc1> & M257" }),
  row({ ...GEMM, variant: "naive", planned: false, shape: "vit <fc1> & M257", gflops: 20.25 }),
  row({ ...GEMM, variant: "tile", shape: "wrong one", check: { share: 3 }, gflops: 100 }),
  row({
    ...GEMM,
    variant: "slow",
    shape: "not timed",
    ms: null,
    gpu_ms: null,
    gflops: null,
    gbs: null,
    share: null,
    note: "not timed: 4.0 s",
  }),
  row({
    kernel: "model",
    variant: "first answer",
    shape: "cold",
    bytes: 0,
    gbs: null,
    share: null,
    bound: null,
    ms: 3638,
  }),
  row({ kernel: "softmax", variant: "subgroup", shape: "R7 D1", gbs: 61.7 }),
  row({
    kernel: "model",
    variant: "decode",
    shape: "toy, int4",
    flops: 0,
    bytes: 8e6,
    gbs: 12.3,
    per_token: { launches: 39, submits: 1, bind_groups: 0, buffers: 0 },
  }),
];
const ROUNDS = { wall: [1, 1, 1, 1, 1], cpu: [20, 20.5, 21, 19.5, 20.2] };
const SLOWER = { wall: [2, 2, 2, 2, 2], cpu: [60, 61, 64, 59, 60.5] };
const PEERS = [
  peerRow({ samples: ROUNDS }),
  peerRow({ engine: "jax", version: "2", ms: 30, cpu_ms: 60.5, samples: SLOWER }),
];
const parityRow = (changes: object) => ({
  golden: "random_1",
  stage: "module",
  name: "qformer.encoder.layer.0.output",
  share: 0.25,
  maxAbs: 1e-6,
  nmse: 3e-14,
  ...changes,
});
const PARITY = {
  ...{ seed: "7", adapter: "Some GPU" },
  rows: [
    parityRow({}),
    parityRow({ name: "qformer.encoder.layer.1.output", share: 0.5, nmse: 4e-14 }),
    parityRow({ stage: "tokens", name: "greedy", share: 0, exact: true }),
  ],
};
const tensor = (changes: object) => ({
  name: "vision_model.embeddings",
  module: "vision_model.embeddings",
  at: "output",
  different: null,
  nmse: 2e-12,
  inherited: null,
  added: null,
  max_abs: 1e-6,
  cosine: 1,
  ...changes,
});
const COMPARISON = {
  ...{ a: "torch <f64>", b: "dtype=int8", tolerance: 1e-9, by_itself: false, ordered: true, only_a: [], only_b: [] },
  tensors: [
    tensor({}),
    tensor({ name: "qformer", module: "qformer", nmse: 4.5e-5, different: "error" }),
    tensor({ name: "x", module: "x", nmse: 0 }),
  ],
};
const QUALITY = qualityJson("Some GPU", 12, [
  { dtype: "int8", tokens: 65, meanKl: 3.6e-6, kl99: 2e-4, maxKl: 3e-4, top1: 1, sameAnswers: 1, accuracy: 0.95 },
]);
const CHANGES = compareRows(
  [8, 9, 10, 11, 12].map((gpu_ms) => row({ gpu_ms })),
  [18, 19, 20, 21, 22].map((gpu_ms) => row({ gpu_ms, commit: "fedcba9" })),
);

const sums = (changes: object) => ({
  ...{ launches: 2, ms: 3, share: 0.375, flops: 4e9, bytes: 2e8, gflops: 1333, gbs: 67, limit_ms: 1, of_limit: 0.333 },
  ...{ bound: "arithmetic", ...changes },
});
const PROFILE = {
  ...{ adapter: "Some GPU", clock: "sync", model: "toy <1>", prompt: "Who?" },
  limits: { ms_per_launch: 0.01, ms_per_flop: 1e-10, ms_per_cached_byte: 1e-8, ms_per_byte: 2e-8, cached_bytes: 4e6 },
  phases: [
    { name: "load", total_ms: 2344, launches: 0, ms: 0, modules: [], kernels: [] },
    {
      ...{ name: "generate", total_ms: 381, launches: 7, ms: 8 },
      modules: [
        sums({ module: "vision_model.encoder.layers.0.mlp.fc1" }),
        sums({ module: "", ms: 2, launches: 3 }),
        sums({ module: "vision_model.encoder.layers.1.mlp.fc1" }),
      ],
      kernels: [
        sums({ kernel: "matmul_tile(weight_f16)", launches: 4, ms: 6 }),
        sums({ kernel: "copy", launches: 3, ms: 2, flops: 0, gflops: null }),
      ],
    },
  ],
};

const { kernel: _, variant: __, ...MACHINE } = row();
const runRow = (setting: string, part: number, per_second: number, busy: number) => ({
  ...{ ...MACHINE, kind: "run", setting, command: "evaluate", part, questions: 48 },
  ...{ workers: setting.includes("threads") ? 3 : 0, per_second, busy },
});
const DATASET = [
  { ...MACHINE, kind: "images", images: 96, bytes: 33e6, workers: 0, main_ms: 19.44, ms: 30.9 },
  ...[1, 2, 3].map((n, part) => runRow("one by one", part, 3 + n / 10, 0.6)),
  ...[1, 2, 3].map((n, part) => runRow("batches, threads", part, 6 + n / 5, 0.95)),
];

const FILES: Readonly<Record<Results["kind"], string>> = {
  bench: formatRows(BENCH),
  peers: lines(PEERS),
  dataset: lines(DATASET),
  parity: JSON.stringify(PARITY, null, 1),
  comparison: `${JSON.stringify(COMPARISON)}\n`,
  quality: QUALITY,
  changes: JSON.stringify(CHANGES),
  profile: JSON.stringify(PROFILE),
};
const KINDS = Object.keys(FILES) as Results["kind"][];
const ALL = KINDS.map((kind) => parseResults(kind, FILES[kind]));
const PAGE = reportPage(ALL);

test.each(KINDS)("a file of %s is told by what is in it", (kind) => {
  expect(parseResults("a file", FILES[kind]).kind).toBe(kind);
});

test("a file of one row is one of rows", () => {
  expect(parseResults("f", lines([row()]))).toMatchObject({ kind: "bench", rows: [row()] });
  expect(parseResults("f", lines([peerRow()]))).toMatchObject({ kind: "peers", rows: [peerRow()] });
});

test.each([
  ["", "f: is empty"],
  ["\n \n", "f: is empty"],
  ["{}", "f: is not a file of results (bench, "],
  ['{"model_type": "blip"}', "it has model_type"],
  ["[1, 2]", "f: line 1: is not a row of results"],
  ["kernel,ms\nlinear,3", "f: line 1: is not a row of results"],
  [`${lines([row()])}\n\n{"kernel": "linear"`, "f: line 3: is not a row of results"],
  [lines([row(), { ...row(), ms: "fast" }]), 'f: line 2: ms must be a number or null, got "fast"'],
  [lines([row(), { ...row(), adapter: undefined }]), "f: line 2: adapter must be a string, there is none"],
  [lines([{ ...row(), basis: "sun" }, row()]), 'f: line 1: basis must be "cpu" or "gpu" or "wall", got "sun"'],
  [lines([{ ...row(), bytes: -1 }, row()]), "f: line 1: bytes must be a number from 0, got -1"],
  [lines([{ ...row(), date: "yesterday" }, row()]), 'f: line 1: date must be a date, got "yesterday"'],
  [lines([row(), peerRow()]), "f: line 2: rows of bench and of bench:peers in one file"],
  [lines([...DATASET, peerRow()]), "f: line 8: rows of bench:dataset and of bench:peers in one file"],
  [lines([{ ...DATASET[1], setting: "by hand" }, DATASET[0]]), 'f: line 1: setting must be "one by one" or '],
  [lines([{ ...DATASET[0], main_ms: null }, DATASET[1]]), "f: line 1: main_ms must be a number from 0, got null"],
  [lines([peerRow(), { ...peerRow(), engine: "abacus" }]), "f: line 2: engine must be "],
  [
    JSON.stringify({ ...PARITY, rows: [parityRow({ share: "all" })] }),
    'f: rows[0]: share must be a number or null, got "all"',
  ],
  [JSON.stringify({ ...PARITY, rows: 3 }), "f: rows must be a list, got 3"],
  [JSON.stringify({ ...COMPARISON, tolerance: null }), "f: tolerance must be a number, got null"],
  [
    JSON.stringify({ ...PROFILE, phases: [{ ...PROFILE.phases[0], modules: [{}] }] }),
    "f: phases[0]: modules must be a list",
  ],
  [JSON.stringify({ ...COMPARISON, tensors: [null] }), "f: tensors[0]: must be an object, got null"],
] as const)("%#: is refused by its place", (text, message) => {
  expect(() => parseResults("f", text)).toThrow(message);
});

const EMPTY: readonly [string, object][] = [
  ["no comparisons", { ...PARITY, rows: [] }],
  ["no tensors", { ...COMPARISON, tensors: [] }],
  ["no dtypes", { ...JSON.parse(QUALITY), modes: [] }],
  ["no cases", { ...CHANGES, rows: [] }],
  ["no launches", { ...PROFILE, phases: [PROFILE.phases[0]] }],
];
test.each(EMPTY)("a result with %s says so", (words, value) => {
  const page = reportPage([parseResults("f", JSON.stringify(value))]);
  expect(page).toContain(`The file has ${words}.`);
  expect(page).not.toContain("<svg");
});

test("a comparison of pairs is drawn like one of runs", () => {
  const ratios = [1.1, 1.2, 1.15, 1.12, 1.18, 1.16, 1.14];
  const side = (ms: number) => [row({ basis: "cpu", cpu_ms: ms, samples: { wall: [], cpu: [ms, ms], gpu: [] } })];
  const pairs = comparePairs(ratios.map((ratio) => [side(8), side(8 * ratio)]));
  const title = `${row().commit} against`;
  const { table } = figureOf([parseResults("f", JSON.stringify(pairs))], title);
  expect(table.rows[0].slice(2)).toEqual(["9.20 ms", "1.150x", "1.100 to 1.200", "0.016", "slower"]);
});

test("the page is well-formed, loads nothing, and every reference in it leads somewhere", () => {
  const open: string[] = [];
  const text = PAGE.replace(/<(style|script)[^>]*>.*?<\/\1>/gs, "");
  for (const [, close, name, , own] of text.matchAll(/<(\/?)([a-z][\w-]*)((?:[^>"]|"[^"]*")*?)(\/?)>/gi)) {
    if (close) expect(open.pop()).toBe(name);
    else if (!own && !["meta", "input", "br", "wbr"].includes(name)) open.push(name);
  }
  expect(open).toEqual([]);
  const ids = [...text.matchAll(/ id="([^"]+)"/g)].map(([, id]) => id);
  expect(new Set(ids).size).toBe(ids.length);
  const named = [...text.matchAll(/(?:aria-labelledby|aria-describedby|href)="#?([^"]+)"/g)].map(([, id]) => id);
  expect(named.length).toBeGreaterThan(10);
  expect(named.filter((id) => !ids.includes(id))).toEqual([]);
  expect(text).not.toMatch(/NaN|undefined|Infinity/);
  expect(PAGE).not.toMatch(/https?:|@import|url\(/);
});

test("every case, engine, module and dtype is on the page, as text", () => {
  for (const words of ["vit &lt;fc1&gt; &amp; M257", "wrong one", "not timed: 4.0 s", "softmax", "toy, int4"]) {
    expect(PAGE).toContain(words);
  }
  for (const words of ["jax-js", "qformer.encoder.layer.*.output", "torch &lt;f64&gt;", "3.6e-6", "fedcba9"]) {
    expect(PAGE).toContain(words);
  }
  expect(PAGE).toContain("WRONG results: linear tile wrong one.");
});

/** The figure of a title, its drawings as text. */
function figureOf(results: readonly Results[], title: string) {
  const figure = sectionsOf(results)
    .flatMap(({ figures }) => figures)
    .find((each) => each.title.startsWith(title))!;
  return { ...figure, svg: figure.draw?.(700) ?? "", table: figure.tables[0] };
}

/** Where the marks of rows are, by row. */
function marksOf(svg: string): Map<number, readonly [number, number]> {
  const marks = [...svg.matchAll(/<(?:path|circle) [^>]*data-row="(\d+)"[^>]*>/g)].map(([mark, at]) => {
    const [, x, y] = /translate\(([-\d.]+),([-\d.]+)\)/.exec(mark) ?? []; // a symbol; a circle has cx and cy
    const of = (name: string) => new RegExp(` ${name}="([^"]+)`).exec(mark)?.[1];
    return [Number(at), [Number(x ?? of("cx")), Number(y ?? of("cy"))]] as const;
  });
  return new Map(marks);
}

/** What a place on a logarithmic axis is, from the places of its numbers. */
function axisOf(svg: string, axis: "x" | "y"): (place: number) => number {
  const groups = [...svg.matchAll(/<g [^>]*tabular-nums[^>]*>(.*?)<\/g>/g)].map(([, labels]) => labels);
  const ticks = [...groups[axis === "x" ? 0 : 1].matchAll(/translate\(([-\d.]+),([-\d.]+)\)"[^>]*>([-\d.e]+)</g)].map(
    ([, x, y, label]) => ({ place: Number(axis === "x" ? x : y), power: Math.log10(Number(label)) }),
  );
  const [a, b] = [ticks[0], ticks.at(-1)!];
  return (place) => 10 ** (a.power + ((place - a.place) / (b.place - a.place)) * (b.power - a.power));
}

describe("the roofline", () => {
  const { svg, table, summary } = figureOf(ALL, "Roofline");

  test("has each timed kernel at its operations a byte and its GFLOP/s", () => {
    const timed = BENCH.filter(({ flops, kernel }) => flops > 0 && kernel !== "limit");
    const marks = marksOf(svg);
    const [x, y] = [axisOf(svg, "x"), axisOf(svg, "y")];
    expect([...marks.keys()].sort()).toEqual([0, 1, 2]);
    for (const [at, place] of marks) {
      expect(x(place[0]) / (timed[at].flops / timed[at].bytes)).toBeCloseTo(1, 2);
      expect(y(place[1]) / timed[at].gflops!).toBeCloseTo(1, 2);
    }
  });

  test("has the numbers of the rows in its table, and the machine's limits", () => {
    const rates = table.head.findIndex(({ title }) => title === "GFLOP/s");
    expect(table.rows.map((cells) => cells[rates])).toEqual(["813", "20.3", "100", ""]);
    expect(formatRate(812.5)).toBe("813");
    expect(summary).toContain("Limits: 1000 GFLOP/s, 200 GB/s within caches, 100 GB/s of memory.");
    for (const label of ["caches 200 GB/s", "memory 100 GB/s", "multiply-add 1000 GFLOP/s"])
      expect(svg).toContain(label);
    expect(measuredLimits(BENCH)!.ms_per_launch).toBe(0.001);
  });

  test("takes the newest row of a case, and the newest limits", () => {
    const date = "2027-01-01T00:00:00.000Z";
    const newer = [
      ...LIMITS.map((each) => ({ ...each, date, gpu_ms_min: each.gpu_ms_min! / 2 })),
      { ...BENCH[4], date, gflops: 1625 },
    ];
    const again = figureOf([{ kind: "bench", path: "f", rows: [...newer, ...BENCH] }], "Roofline");
    expect(again.table.rows[0]).toContain("1625");
    expect(again.summary[1]).toBe("Limits: 2000 GFLOP/s, 400 GB/s within caches, 200 GB/s of memory.");
  });

  test("has no roof without limits, and says so", () => {
    const rows = BENCH.filter(({ kernel }) => kernel !== "limit");
    const bare = figureOf([{ kind: "bench", path: "f", rows }], "Roofline");
    expect(bare.svg).not.toContain("multiply-add");
    expect(bare.summary.join(" ")).toContain("there is no roof");
  });
});

test("settings of a data set have their medians, in words, drawn and as tables", () => {
  const { summary, svg, table } = figureOf(ALL, "Questions of a data set");
  expect(summary).toEqual([
    "144 questions by evaluate, medians of 3 parts; 96 images, 344 KB each.",
    "one by one: 3.20 questions a second, the device busy 60.0 % of the time.",
    "batches, threads (3): 6.40 questions a second, the device busy 95.0 % of the time.",
  ]);
  expect(table.rows).toEqual([
    ["one by one", "3.20", "1.00x", "60.0 %"],
    ["batches, threads (3)", "6.40", "2.00x", "95.0 %"],
  ]);
  expect(svg).toContain(">6.40<");
  expect(PAGE).toContain("19.44 ms"); // the images' table
  // Without the first setting there is nothing to compare with.
  const rest = figureOf([parseResults("f", lines(DATASET.slice(4)))], "Questions of a data set");
  expect(rest.table.head.map(({ title }) => title)).not.toContain("of the first");
  const images = figureOf([parseResults("f", lines([DATASET[0]]))], "Questions of a data set");
  expect(images.summary).toEqual(["96 images, 344 KB each."]);
});

test("what has neither arithmetic nor bytes is told by its time", () => {
  expect(figureOf(ALL, "Other times").summary).toContain("model first answer cold: 3.64 s.");
});

test("launches a token are those of the rows", () => {
  const { table, svg } = figureOf(ALL, "Launches");
  expect(table.rows).toEqual([["toy, int4", "abc1234", "39", "1", "0", "0"]]);
  expect(svg).toContain(">39<");
});

test("an engine's ratio has the interval of its rounds", () => {
  const { table } = figureOf(ALL, "Other engines");
  const { interval } = ratioOf(ROUNDS.cpu, SLOWER.cpu, 0.05);
  const cell = (title: string) => table.rows[0][table.head.findIndex((column) => column.title === title)];
  expect(cell("ratio")).toBe(`${(60.5 / 20).toFixed(2)}x`);
  expect(cell("95 % interval")).toBe(`${interval![0].toFixed(2)} to ${interval![1].toFixed(2)}`);
  const without = figureOf([parseResults("f", lines([peerRow(), peerRow({ engine: "jax" })]))], "Other engines");
  expect(without.summary.join(" ")).toContain("there are no intervals");
  const few = { wall: [1, 2, 3], cpu: [1, 2, 3] };
  const quick = [peerRow({ samples: few }), peerRow({ engine: "jax", samples: few })];
  expect(figureOf([parseResults("f", lines(quick))], "Other engines").summary.join(" ")).toContain("too few rounds");
});

test("modules' errors are a share of the tolerance, the worst of each kind in the table; a failed one is red", () => {
  const { table, summary } = figureOf(ALL, "Error against PyTorch");
  expect(table.rows.map(([part, , count, nmse, , share]) => [part, count, nmse, share])).toEqual([
    ["qformer", "2", "4.0e-14", "50 %"],
    ["tokens", "1", "equal", "equal"],
  ]);
  expect(summary[0]).toContain("none failed");
  // JSON has null for an infinite share.
  const broken = { ...PARITY, rows: [...PARITY.rows, parityRow({ share: null, nmse: null })] };
  const failed = figureOf([parseResults("f", JSON.stringify(broken))], "Error against PyTorch");
  expect(failed.summary[0]).toContain("1 FAILED");
  expect(failed.svg).toMatch(/<circle [^>]*fill="var\(--wrong\)"/);
  expect(failed.table.rows[0]).toContain("FAILED ");
  // One above its tolerance lies where it is.
  const above = { ...PARITY, rows: [parityRow({ share: 0.1 }), parityRow({ stage: "loss", name: "loss", share: 10 })] };
  const { svg } = figureOf([parseResults("f", JSON.stringify(above))], "Error against PyTorch");
  const [[, [tenth]], [, [ten]]] = [...marksOf(svg)];
  const [, right] = /<line [^>]*x2="([^"]+)"[^>]*\/><\/g><g>/.exec(svg) ?? [];
  expect(Number(right) - tenth).toBeCloseTo(ten - Number(right), 0);
});

test("tensors of two runs are those of the file", () => {
  const { table, summary } = figureOf(ALL, "dtype=int8");
  expect(table.rows.map(([name, nmse]) => [name, nmse])).toEqual([
    ["vision_model.embeddings", "2.0e-12"],
    ["qformer", "4.5e-5"],
    ["x", "0"],
  ]);
  expect(summary).toContain("1 are above the tolerance of 1.0e-9, the first: qformer.");
});

test("a profile's time is that of the file, layers together", () => {
  const modules = figureOf(ALL, "generate by module");
  expect(modules.table.rows).toEqual([
    ["vision_model.encoder.layers.*.mlp.fc1", "4", "6.00 ms", "75.0 %"],
    ["(outside of modules)", "3", "2.00 ms", "37.5 %"],
  ]);
  expect(modules.svg).toContain(">6.00 ms<");
  expect(modules.summary).toContain("load took 2.34 s, without launches.");
  const kernels = figureOf(ALL, "generate by kernel");
  expect(kernels.table.rows.map((cells) => cells.slice(0, 4))).toEqual([
    ["matmul_tile(weight_f16)", "4", "6.00 ms", "37.5 %"],
    ["copy", "3", "2.00 ms", "37.5 %"],
  ]);
  const [[at, [x]]] = marksOf(kernels.svg);
  expect(at).toBe(0);
  expect(axisOf(kernels.svg, "x")(x)).toBeCloseTo(20, 0);
});

test("adapters are kept apart", () => {
  const other = { adapter: "Another GPU", cpu: "Some CPU" };
  const sections = sectionsOf([
    ...ALL,
    parseResults("g", lines([row({ ...other, kernel: "linear", flops: 5, shape: "mine" })])),
  ]);
  expect(sections.map(({ title }) => title).slice(0, 2)).toEqual(["Some GPU", "Another GPU"]);
  const texts = sections.slice(0, 2).map(({ figures }) => JSON.stringify(figures.map(({ tables }) => tables)));
  expect(texts.map((text) => text.includes('"mine"'))).toEqual([false, true]);
  expect(texts.map((text) => text.includes('"wrong one"'))).toEqual([true, false]);
});

describe("history", () => {
  const at = (commit: string, day: number, gpu_ms: number, kernel = "linear") =>
    row({ kernel, commit, gpu_ms, date: `2026-01-0${day}T00:00:00.000Z` });
  const history = (rows: readonly Row[]) => figureOf([{ kind: "bench", path: "f", rows }], "History");

  test("goes from commit to commit in order of time, whatever the files' order", () => {
    const { tables } = history([at("c", 3, 4), at("a", 1, 8), at("b", 2, 6), at("b", 2, 4), at("a", 1, 1, "softmax")]);
    expect(tables[0].rows).toEqual([
      ["a", "2026-01-01", "100.0 %"],
      ["b", "2026-01-02", "62.5 %"],
      ["c", "2026-01-03", "50.0 %"],
    ]);
    expect(tables[1].rows).toEqual([["linear workgroup vit R257 D1408", "8.00 ms", "5.00 ms", "4.00 ms", "0.500x"]]);
  });

  test("counts what was not measured as unchanged, and new cases from where they begin", () => {
    const index = indexOf([
      { times: [8, 4, undefined, 2] },
      { times: [1, undefined, 1, 1] },
      { times: [undefined, undefined, 9, 9] },
    ]);
    const [half, third] = [Math.sqrt(1 / 2), Math.cbrt(1 / 2)];
    expect(index.map((each) => each!.toFixed(9))).toEqual([1, half, half, half * third].map((each) => each.toFixed(9)));
    expect(indexOf([])).toEqual([]);
    expect(indexOf([{ times: [undefined, 3] }])).toEqual([null, 1]);
  });

  test("of one commit is none, and says so", () => {
    expect(history([at("a", 1, 8)])).toMatchObject({ svg: "", summary: [expect.stringContaining("(a)")] });
  });
});

test.each([
  [[0.3, 30], 9, [0.5, 1, 2, 5, 10, 20]],
  [[0.9, 1.1], 9, [0.9, 1]],
  [[1e-9, 1], 5, [1e-9, 1e-7, 1e-5, 1e-3, 0.1]],
] as const)("ticks from %j, at most %d", (range, most, ticks) => {
  expect(ticksOf(range, most)).toEqual(ticks);
});

describe("the command", () => {
  const folder = mkdtempSync(join(tmpdir(), "instructblip-report-"));
  afterAll(() => rmSync(folder, { recursive: true }));
  const [results, out] = ["rows.jsonl", "page.html"].map((name) => join(folder, name));
  writeFileSync(results, FILES.bench);

  test("writes the page and says where", () => {
    writeFileSync(results, `\ufeff${FILES.bench}`); // as some editors begin a file
    onTestFinished(() => writeFileSync(results, FILES.bench));
    const log = vi.spyOn(console, "log").mockImplementation(() => {});
    expect(run([results], { out, history: false })).toBe(0);
    expect(log.mock.lastCall![0]).toMatch(/^wrote .*page\.html, \d+ kB$/);
    log.mockRestore();
    expect(readFileSync(out, "utf8")).toBe(reportPage([parseResults(results, FILES.bench)]));
  });

  test("writes over no results, and takes no --history without rows of bench", () => {
    const [given, parity] = [{ out: results, history: false }, join(folder, "parity.json")];
    expect(() => run([results], given)).toThrow("is a file of results, and would be written over");
    expect(() => run([results], { out: join(folder, "page.png"), history: false })).toThrow("end in .html or .htm");
    expect(() => run([results], { out, history: false, svg: out })).toThrow("end in .svg");
    writeFileSync(parity, FILES.parity);
    expect(() => run([parity], { out, history: true })).toThrow("--history is about files of npm run bench");
    expect(readFileSync(results, "utf8")).toBe(FILES.bench);
  });

  test("names a file that is not there, or has no history", () => {
    const missing = join(folder, "none.jsonl");
    expect(() => run([missing], { out, history: false })).toThrow(`${missing}: there is no such file`);
    expect(() => run([results], { out, history: true })).toThrow(`--history: ${results} is not in a git repository`);
  });
});

test("the README's roofline is drawn from the committed rows", () => {
  const rows = parseRows(readFileSync(join(ROOT, "bench/results/llvmpipe-mesa-25.0.7-2-bpo12-1-0.0.1.jsonl"), "utf8"));
  const svg = rooflineSvg(rows);
  expect(readFileSync(join(ROOT, "docs/roofline.svg"), "utf8"), "see docs/benchmarks.md for the command").toBe(svg);
  expect(() => rooflineSvg([row()])).toThrow("no row of npm run bench with arithmetic");
});
