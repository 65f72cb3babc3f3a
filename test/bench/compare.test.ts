/** Comparing two sides on invented times, and how often that finds what is not there, or misses what is. */
import { expect, test } from "vitest";
import { comparePairs, compareRows, exitCodeOf, renderComparison } from "../../bench/compare.ts";
import { median, type Row } from "../../bench/rows.ts";
import { Random } from "../../src/tensor/cases/support/random.ts";
import { row } from "./row.ts";

/** Runs of one case, by their CPU milliseconds. */
const runs = (times: readonly number[], changes: Partial<Row> = {}): Row[] =>
  times.map((cpu_ms) => row({ basis: "cpu", cpu_ms, ...changes }));
const OLD = [1, 1.01, 1.02, 1.03, 1.04, 1.05];
const scaled = (by: number) => OLD.map((ms) => ms * by);

test("slower, faster, unchanged: ratios, intervals, the mean, and the exit code", () => {
  const shapes = ["slower", "faster", "same"];
  const base = shapes.flatMap((shape) => runs(OLD, { shape }));
  const fresh = [1.1, 0.8, 1].flatMap((by, i) => runs(scaled(by), { shape: shapes[i] }));
  const comparison = compareRows(base, fresh);
  expect(comparison.rows.map(({ shape, change, unit, clock }) => [shape, change, unit, clock])).toEqual([
    ["slower", "slower", "runs", "cpu"],
    ["faster", "faster", "runs", "cpu"],
    ["same", "none", "runs", "cpu"],
  ]);
  const [slower, , same] = comparison.rows;
  expect(slower.ratio).toBeCloseTo(1.1, 12);
  expect(slower.interval![0]).toBeGreaterThan(1);
  expect(slower.p).toBeCloseTo(2 / 924, 12);
  expect(same.interval![0] < 1 && same.interval![1] > 1).toBe(true);
  expect(comparison.geometric_mean).toBeCloseTo((1.1 * 0.8) ** (1 / 3), 12);
  expect(exitCodeOf(comparison)).toBe(3);
  expect(exitCodeOf(compareRows(fresh.slice(0, 6), base.slice(0, 6)))).toBe(0); // faster is no fault
  const wrong = compareRows(base, [...fresh, row({ shape: "same", check: { share: 2 } })]);
  expect([wrong.wrong, exitCodeOf(wrong)]).toEqual([["layer_norm workgroup same"], 1]);

  const text = renderComparison(comparison);
  expect(text.split("\n\n")[1]).toBe(
    [
      "case                         clock     base      new   change  new/base   98 % interval      p    n  of",
      "layer_norm workgroup slower  cpu    1.02 ms  1.13 ms  +10.0 %    1.100x  1.068 to 1.133  0.002  6+6  runs",
      "layer_norm workgroup faster  cpu    1.02 ms   820 µs  −20.0 %    0.800x  0.777 to 0.824  0.002  6+6  runs",
    ].join("\n"),
  );
  expect(text).toContain("1 slower, 1 faster, 1 unchanged (~); --all shows these\ngeometric mean of 3 rows: 0.958x");
  expect(renderComparison(comparison, { all: true })).toMatch(/^layer_norm workgroup same .* ~ +1\.000x/m);
  expect(renderComparison(comparison, { markdown: true })).toMatch(
    /^\| layer_norm workgroup slower \|.*\n.*\n\n- 1 slower/m,
  );
});

test("single runs are compared by their rounds, with a note; runs by their medians", () => {
  const single = (by: number) => [row({ basis: "cpu", samples: { wall: [], cpu: scaled(by), gpu: [] } })];
  const rounds = compareRows(single(1), single(1.1));
  expect(rounds.rows[0]).toMatchObject({ unit: "rounds", change: "slower", base: { n: 6 } });
  expect(rounds.notes.join()).toContain("each side is one run");
  // Rounds of a run agree, and runs do not: as many rounds as one likes show nothing.
  const noisy = (times: readonly number[]) =>
    times.map((ms) => row({ basis: "cpu", cpu_ms: ms, samples: { wall: [], cpu: [ms, ms, ms, ms, ms], gpu: [] } }));
  const several = compareRows(noisy([1, 1.3, 1.1, 1.2, 1.25]), noisy([1.05, 1.35, 1.15, 1.22, 1.26]));
  expect(several.rows[0]).toMatchObject({ unit: "runs", change: "none", new: { n: 5 } });
  expect(several.notes).toEqual([]);
});

test("too few runs, or an old file without samples, show nothing, and say so", () => {
  const few = compareRows(runs([1, 1.1, 1.2, 1.3]), runs([2, 2.1, 2.2, 2.3]));
  expect(few.rows[0]).toMatchObject({ change: "unknown", unit: "runs" });
  expect(renderComparison(few, { all: true })).toMatch(/ \? +1\.8/);
  expect(renderComparison(few)).toContain("; 1 with too few times");
  expect(compareRows([row({ samples: undefined })], [row()]).rows[0].change).toBe("unknown");
});

test("the clock: the rows' basis, wall time if they differ, or the one asked for", () => {
  const clockOf = (...args: Parameters<typeof compareRows>) => compareRows(...args).rows[0];
  expect(clockOf([row({ basis: "gpu" })], [row({ basis: "gpu" })]).clock).toBe("gpu");
  expect(clockOf([row({ basis: "gpu" })], [row({ basis: "cpu" })])).toMatchObject({
    clock: "wall",
    base: { ms: 0.0345 },
  });
  const cold = clockOf(runs(OLD, { first_ms: 100 }), runs(OLD, { first_ms: 50 }), "first");
  expect(cold).toMatchObject({ clock: "first", base: { ms: 100, n: 6 }, ratio: 0.5, change: "faster" });
});

test("what only one side has, was not timed, and the machine's limits are kept apart", () => {
  const [limit, untimed] = [{ kernel: "limit" }, { shape: "untimed", ms: null, cpu_ms: null }];
  const base = [...runs(OLD), ...runs(OLD, limit), ...runs([1], { shape: "gone" }), row({ ...untimed, basis: "cpu" })];
  const comparison = compareRows(base, [...runs(OLD), ...runs(scaled(2), limit), ...runs([1], { shape: "fresh" })]);
  expect(comparison.only).toEqual({ base: ["layer_norm workgroup gone"], new: ["layer_norm workgroup fresh"] });
  expect([comparison.rows.length, comparison.limits.length, comparison.geometric_mean]).toEqual([1, 1, 1]);
  expect(exitCodeOf(comparison)).toBe(0);
  expect(renderComparison(comparison)).toContain("this machine's limits, not counted: 2.000x");
  expect(() => compareRows(runs(OLD), runs(OLD, { shape: "b" }))).toThrow("no timed case in common");
});

test("two machines may be compared; several are told apart", () => {
  const other = { adapter: "Another GPU" };
  expect(compareRows(runs(OLD), runs(OLD, other)).notes).toEqual(["the sides are of different machines"]);
  const both = [...runs(OLD), ...runs(scaled(3), other)];
  expect(compareRows(both, both).rows.map(({ base, change }) => [base.ms > 2, change])).toEqual([
    [false, "none"],
    [true, "none"],
  ]);
  expect(compareRows(both, runs(OLD)).rows).toHaveLength(1);
  expect(() => compareRows(both, runs(OLD, { adapter: "A third" }))).toThrow("different machines");
});

/** Shares of rows that are reported, of `count` with invented noise: of every process, and of every round. */
function reported(count: number, by: number, seed: number, ofRuns: boolean): number {
  const random = new Random(seed);
  const side = (factor: number) =>
    Array.from({ length: ofRuns ? 6 : 1 }, () => {
      const process = 0.02 * random.normal(1)[0];
      const cpu = [...random.normal(6)].map((z) => factor * Math.exp(process + 0.01 * z));
      return row({ basis: "cpu", cpu_ms: median(cpu), samples: { wall: [], cpu, gpu: [] } });
    });
  let found = 0;
  for (let i = 0; i < count; i++) found += Number(compareRows(side(1), side(by)).rows[0].change !== "none");
  return found / count;
}

test("equal code raises few alarms if runs are compared, many if rounds are; 10 % are found", () => {
  // Noise of 2 % between processes and 1 % between rounds.
  const alarms = reported(400, 1, 1, true);
  expect(alarms).toBeGreaterThan(0);
  expect(alarms).toBeLessThan(0.05);
  expect(reported(400, 1, 2, false)).toBeGreaterThan(0.3);
  expect(reported(200, 1.1, 3, true)).toBeGreaterThan(0.95);
});

/** A run of both sides: in every round the machine is as fast as it likes, for both. */
function runOfBoth(random: Random, by: number, { drift = 0.2, process = 0.01, round = 0.02 } = {}): [Row[], Row[]] {
  const shared = [...random.normal(9)].map((z) => drift * z);
  const side = (factor: number) => {
    const own = process * random.normal(1)[0];
    const cpu = [...random.normal(9)].map((z, i) => factor * Math.exp(shared[i] + own + round * z));
    return [row({ basis: "cpu", cpu_ms: median(cpu), samples: { wall: [], cpu, gpu: [] } })];
  };
  return [side(1), side(by)];
}

test("pairs: a machine that is 20 % faster in one round and slower in another hides nothing", () => {
  const random = new Random(7);
  const both = (by: number) => Array.from({ length: 8 }, () => runOfBoth(random, by));
  const share = (by: number, count: number) => {
    let changed = 0;
    for (let i = 0; i < count; i++) changed += Number(comparePairs(both(by)).rows[0].change !== "none");
    return changed / count;
  };
  expect(share(1, 400)).toBeLessThan(0.05);
  expect(share(1.1, 100)).toBeGreaterThan(0.95);
  // Without pairs it does: the same runs, by their medians.
  const alone = Array.from({ length: 50 }, () => both(1.1)).filter((runs) => {
    const [base, fresh] = [0, 1].map((i) => runs.flatMap((sides) => sides[i]));
    return compareRows(base, fresh).rows[0].change !== "none";
  });
  expect(alone.length).toBeLessThan(40);
});

test("pairs: the table, too few runs, and what one side lacks", () => {
  const of = (shape: string, times: readonly number[]) =>
    row({ shape, basis: "cpu", cpu_ms: times[0], samples: { wall: [], cpu: times, gpu: [] } });
  const runs = OLD.concat(1.06, 1.07).map((ms, i): [Row[], Row[]] => [
    [of("x", [ms, 2 * ms]), of("gone", [1])],
    [...(i === 0 ? [] : [of("x", [1.2 * ms, 2.4 * ms])]), of("new", [1])],
  ]);
  const comparison = comparePairs(runs);
  expect(comparison.only).toEqual({ base: ["layer_norm workgroup gone"], new: ["layer_norm workgroup new"] });
  expect(comparison.rows).toEqual([
    expect.objectContaining({ shape: "x", unit: "pairs", change: "slower", p: 1 / 64, ratio: expect.closeTo(1.2, 12) }),
  ]);
  expect(comparison.rows[0].base.n).toBe(7);
  expect(renderComparison(comparison)).toMatch(/ \+20\.0 % +1\.200x .* 0\.016 {2}7 {2}pairs$/m);
  const few = comparePairs(runs.slice(0, 6));
  expect(few.rows[0].change).toBe("unknown");
  expect(renderComparison(few)).toContain("too few times to see any change (?): 7 runs are enough");
  expect(() => comparePairs(runs, "wall")).toThrow("no timed case in common");
});
