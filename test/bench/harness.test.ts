import { expect, onTestFinished, test, vi } from "vitest";
import { measure, withShare } from "../../bench/harness.ts";
import { betterOf, groups as limitGroups, limitsOf } from "../../bench/limits.bench.ts";
import { median } from "../../bench/rows.ts";
import type { Settings } from "../../bench/settings.ts";
import { groups as attentionGroups } from "../../src/tensor/cases/attention/attention.ts";
import { groups as linearGroups } from "../../src/tensor/cases/matmul/linear.ts";
import { groups as layerNormGroups } from "../../src/tensor/cases/rows/layer_norm.ts";
import { groups as logSoftmaxGroups } from "../../src/tensor/cases/rows/log_softmax.ts";
import { groups as rmsNormGroups } from "../../src/tensor/cases/rows/rms_norm.ts";
import { groups as softmaxGroups } from "../../src/tensor/cases/rows/softmax.ts";
import { type Case, caseName, type Group, variantsOf, withCases } from "../../src/tensor/cases/support/group.ts";
import { QUICK_SHAPES, type Shapes } from "../../src/tensor/cases/support/shapes.ts";
import { GpuDevice } from "../../src/tensor/device/device.ts";
import type { OwnOp } from "../../src/tensor/device/own_kernels.ts";
import { type PlanOverride, plan, plansOf } from "../../src/tensor/device/plan.ts";
import { DeviceError } from "../../src/tensor/errors.ts";
import { KERNELS } from "../../src/tensor/kernels.gen.ts";
import { add } from "../../src/tensor/ops/add.ts";
import { rmsNorm } from "../../src/tensor/ops/rms_norm.ts";
import type { Comparison } from "../compare.ts";
import { testDevice } from "../device.ts";

const device = await testDevice();
/** No case is slow, however busy the machine. */
const SETTINGS: Settings = { rounds: 3, turnMs: 2, slowMs: 1e9 };
const right: Comparison = { maxAbs: 0, nmse: 0, share: 0.5, worstIndex: 0 };

/** A case that computes nothing and lasts `ms`, on whatever clock; it notes its runs in `log`. */
function fake(variant: string, log: string[], changes: Partial<Case> & { ms?: number } = {}): Case {
  const { ms = 0, ...rest } = changes;
  const launch = () => {
    log.push(variant);
    for (const end = performance.now() + ms; performance.now() < end; );
  };
  return {
    ...{ kernel: "fake", shape: "any", variant, planned: false, flops: 0, bytes: 8, footprint: 8, launch, ...rest },
    async check(ran) {
      launch();
      ran?.();
      return rest.check ? rest.check() : right;
    },
  };
}

test("a variant that gives way to another at these sizes is no case: the other's time would stand under its name", () => {
  const groupsOf = (changes: Partial<Shapes>) => {
    const shapes = { ...QUICK_SHAPES, ...changes };
    return [layerNormGroups, rmsNormGroups, softmaxGroups, attentionGroups].map((groups) =>
      groups(shapes, device.caps).map(({ variants, planned }) => ({ variants, planned })),
    );
  };
  // Rows that are not whole groups of four; one that softmax cannot give to an invocation; heads too large for one pass.
  const odd = [{ name: "odd", R: 5, D: 35 }];
  const [layer_norm, rms_norm, softmax, attention] = groupsOf({
    ...{ layer_norm: odd, rms_norm: odd, softmax: [{ name: "long", R: 5, D: 5000 }] },
    attention: [{ name: "large", T: 3, S: 4, H: 1, d: 300 }],
  });
  const all = (op: OwnOp) => plansOf(op, "row", device.caps).map(([name]) => name);
  for (const [op, [group]] of Object.entries({ layer_norm, rms_norm })) {
    expect(group.variants).toEqual(all(op as OwnOp)); // norms take rows of any length
    expect(group.variants).toContain(group.planned);
  }
  expect(softmax[0].variants).toEqual(all("softmax").filter((name) => name !== "invocation"));
  expect(attention[0].variants).not.toContain("flash");
  expect(attention[0].variants).toContain("composed");
  for (const [group] of groupsOf({})) expect(group.variants).toContain(group.planned);
});

test("the reference of a shape is computed once, for all variants", async () => {
  const exp = vi.spyOn(Math, "exp"); // which these references call, and no comparison
  onTestFinished(() => exp.mockRestore());
  for (const groups of [attentionGroups, softmaxGroups, logSoftmaxGroups]) {
    const [{ kernel, planned, open }] = groups(QUICK_SHAPES, device.caps);
    const calls = await device.scope(async () => {
      const opened = await open(device);
      const output = await opened.run(planned).read();
      exp.mockClear();
      const first = await opened.check(output);
      const once = exp.mock.calls.length;
      expect(first.share, kernel).toBeLessThan(1);
      expect(await opened.check(output), kernel).toEqual(first);
      return { once, more: exp.mock.calls.length - once };
    });
    expect(calls.once, kernel).toBeGreaterThan(0);
    expect(calls.more, kernel).toBe(0);
  }
});

test("a variant that no op has is refused, not timed as another", async () => {
  const x = device.tensor([1, 2, 3, 4], [1, 4]);
  for (const row of ["fused", "workgroups", "toString"]) {
    const override = { row } as unknown as PlanOverride;
    expect(() => rmsNorm(x, x.reshape([4]), 1e-6, override)).toThrow(`row has no variant "${row}"`);
    expect(() =>
      variantsOf("row", {}, { ...device.caps, isSoftware: true }, () => plan("row", device.caps, override)),
    ).toThrow("no variant");
  }
});

test("cases take turns, round after round, after all have been checked", async () => {
  const log: string[] = [];
  const rows = await measure(device, [fake("a", log, { ms: 3 }), fake("b", log, { ms: 3 })], SETTINGS);
  // A check and two warm runs of each, then three rounds of one run; timestamps add a run in the first or in all of them.
  const turns = log.join("").replace(/(.)\1+/g, "$1");
  expect(log.slice(0, 6).join("")).toBe("aaabbb");
  expect(turns).toBe("abababab");
  for (const row of rows) {
    expect(row).toMatchObject({ check: { share: 0.5 }, rounds: 3, repetitions: 1, launches: 0, gflops: null });
    expect(row.first_ms).toBeGreaterThanOrEqual(3);
    expect(row.ms_min).toBeGreaterThanOrEqual(2.9);
    expect(row.ms).toBeGreaterThanOrEqual(row.ms_min!);
    expect(row.cpu_ms).toBeGreaterThan(0);
    const { wall, cpu } = row.samples!;
    expect([wall.length, cpu.length]).toEqual([3, 3]);
    expect([row.ms, row.ms_min]).toEqual([median(wall), Math.min(...wall)]);
  }
});

test("a short case is repeated until its turn is over", async () => {
  // On a clock that moves with the case alone, so that a busy machine changes nothing.
  let now = 0;
  const clock = vi.spyOn(performance, "now").mockImplementation(() => now);
  const short = {
    ...fake("a", []),
    launch: () => {
      now += 0.125;
    },
  };
  const [row] = await measure(device, [short], { ...SETTINGS, turnMs: 100 });
  clock.mockRestore();
  expect(row.repetitions).toBeGreaterThanOrEqual(800);
  expect(row.repetitions).toBeLessThanOrEqual(881); // a tenth more than it takes
  expect(row.ms).toBeCloseTo(0.125, 9);
});

test("a case with a handicap does a tenth more work than is counted", async () => {
  let now = 0;
  const clock = vi.spyOn(performance, "now").mockImplementation(() => now);
  const item = (variant: string) => ({
    ...fake(variant, []),
    launch: () => {
      now += 0.125;
    },
  });
  const settings = { ...SETTINGS, turnMs: 3, handicap: /slowed/ };
  const [plain, slowed] = await measure(device, [item("plain"), item("slowed")], settings);
  clock.mockRestore();
  expect(plain.ms).toBeCloseTo(0.125, 9);
  expect(slowed.ms).toBeCloseTo(1.1 * 0.125, 9);
});

test.each([
  ["beyond its tolerance", async () => ({ ...right, share: 1.5 }), { share: 1.5 }],
  ["not a number", async () => ({ ...right, share: Number.NaN }), { share: null, note: "not a number" }],
  [
    "an infinity",
    () => Promise.reject(new Error("element 3 is Infinity, expected 1")),
    { share: null, note: "element 3 is Infinity, expected 1" },
  ],
])("a result that is %s is not timed", async (_, check, expected) => {
  const log: string[] = [];
  const [row, other] = await measure(device, [fake("a", log, { check }), fake("b", log)], SETTINGS);
  expect(row).toMatchObject({ check: expected, ms: null, cpu_ms: null, repetitions: 0, note: "not timed" });
  expect(log.filter((variant) => variant === "a")).toHaveLength(1);
  expect(other.ms).not.toBeNull();
});

test("a lost device ends the run", async () => {
  const check = () => Promise.reject(new DeviceError("DEVICE_LOST", "the GPU device was lost"));
  await expect(measure(device, [fake("a", [], { check })], SETTINGS)).rejects.toThrow("was lost");
});

test("a kernel that does not compile fails its row, when it runs or as inputs are made; others are timed", async () => {
  const kernels = KERNELS as Record<string, string>;
  onTestFinished(() => void delete kernels.broken);
  kernels.broken =
    "@group(0) @binding(0) var<storage, read_write> y: array<f32>;\n@compute @workgroup_size(1)\nfn main() { y[0] = one; }\n";
  const broken = () => {
    const y = device.empty([4]);
    device.launch({ kernel: "broken", bindings: { y }, workgroups: 1 });
    return y;
  };
  const group = (shape: string, opens: () => Promise<void>): Group => ({
    ...{ kernel: "k", shape, variants: ["bad", "good"], planned: "good" },
    async open() {
      await opens();
      const x = device.tensor([1, 2], [2]);
      return { flops: 0, bytes: 4, run: (variant) => (variant === "bad" ? broken() : add(x, x)), check: () => right };
    },
  });
  const groups = [
    group("runs", async () => {}),
    group("opens", async () => {
      broken();
      await device.sync();
    }),
    group("last", async () => {}),
  ];
  const rows = await withCases(
    device,
    groups,
    (name) => name !== "k bad last",
    (cases) => measure(device, cases, { ...SETTINGS, rounds: 1 }),
  );
  expect(rows.map(({ shape, variant, ms }) => [shape, variant, ms !== null])).toEqual([
    ["runs", "bad", false],
    ["runs", "good", true],
    ["opens", "bad", false],
    ["opens", "good", false],
    ["last", "good", true],
  ]);
  for (const { check } of [rows[0], rows[2], rows[3]]) {
    expect(check).toEqual({ share: null, note: expect.stringMatching(/^kernels\/broken\.wgsl:3:\d+: /) });
  }
});

test("variants that run the same kernels are timed once, under the planned one's name", async () => {
  const log: string[] = [];
  const kernels = (name: string) => ({ kernels: () => name });
  const rows = await measure(
    device,
    [
      fake("first", log, kernels("same")),
      fake("other", log, kernels("other")),
      fake("second", log, { ...kernels("same"), planned: true }),
      fake("none", log, kernels("")),
      fake("elsewhere", log, { ...kernels("same"), shape: "another" }),
    ],
    { ...SETTINGS, rounds: 1 },
  );
  expect(log).not.toContain("first");
  expect(rows.map(({ variant, ms, same_as }) => [variant, ms !== null, same_as])).toEqual([
    ["first", false, "second"],
    ["other", true, undefined],
    ["second", true, undefined],
    ["none", true, undefined],
    ["elsewhere", true, undefined],
  ]);
  expect(rows[0]).toMatchObject({ check: null, note: "not timed: runs the kernels of second" });

  // Of the real ops, int8 rows are multiplied by one kernel with a workgroup, whatever its reductions are.
  const [int8] = linearGroups(QUICK_SHAPES, device.caps).filter(({ shape }) => /M1 .* int8$/.test(shape));
  const notes = await withCases(
    device,
    [int8],
    (name) => !name.includes("register"),
    async (cases) => cases.map((item) => [item.variant, item.kernels!()]),
  );
  const { workgroup, workgroup_subgroups } = Object.fromEntries(notes);
  expect(workgroup).toContain("matvec_blocks");
  expect(workgroup_subgroups ?? workgroup).toBe(workgroup); // an adapter may lack subgroups
});

test("a slow variant is not timed unless it is the planned one, and not run once that is foreseen", async () => {
  const log: string[] = [];
  const cases = [
    fake("slow", log, { ms: 60, flops: 1000 }),
    fake("slow", log, { ms: 60, flops: 10_000, shape: "ten times as large" }),
    fake("best", log, { ms: 60, flops: 1000, planned: true }),
  ];
  const [small, large, planned] = await measure(device, cases, { ...SETTINGS, rounds: 1, slowMs: 50 });
  expect(small).toMatchObject({
    check: { share: 0.5 },
    ms: null,
    note: expect.stringMatching(/^not timed: \d\.\d s$/),
  });
  expect(large).toMatchObject({
    check: null,
    first_ms: null,
    ms: null,
    note: expect.stringMatching(/^not run: about \d+\.\d s$/),
  });
  expect(planned.ms).toBeGreaterThanOrEqual(59);
  expect(log.filter((variant) => variant === "slow")).toHaveLength(2);
});

test("groups open only for wanted variants, and are disposed of though a run fails", async () => {
  const opened: string[] = [];
  const group = (kernel: string): Group => ({
    ...{ kernel, shape: "s", variants: ["x", "y"], planned: "x" },
    open: (on) => {
      opened.push(kernel);
      return {
        ...{ flops: 0, bytes: 4 },
        run: () => on.tensor([1, 2], [2]),
        check: (output) => ({ ...right, share: output[1] === 2 ? 0.25 : 9 }),
        dispose: () => opened.push(`${kernel} disposed`),
      };
    },
  });
  const before = device.memory.use.live;
  const failed = withCases(
    device,
    [group("one"), group("two")],
    (name) => name === "two y s",
    async (cases) => {
      expect(cases.map(caseName)).toEqual(["two y s"]);
      expect(cases[0].planned).toBe(false);
      cases[0].launch();
      expect((await cases[0].check()).share).toBe(0.25);
      throw new Error("stop");
    },
  );
  await expect(failed).rejects.toThrow("stop");
  expect(opened).toEqual(["two", "two disposed"]);
  expect(device.memory.use.live).toBe(before);
});

test.runIf(device.caps.timestamps)("on hardware every round has timestamps, and rates are of GPU time", async () => {
  const hardware = new GpuDevice(device.handle, { ...device.caps, isSoftware: false }, Number.POSITIVE_INFINITY);
  const copy = limitGroups(QUICK_SHAPES, hardware.caps)
    .filter(({ variants }) => variants.includes("copy"))
    .slice(0, 1);
  const [row] = await withCases(
    hardware,
    copy,
    () => true,
    (cases) => measure(hardware, cases, SETTINGS),
  );
  expect(row.basis).toBe("gpu");
  expect(row.gpu_ms).toBeGreaterThan(0);
  expect(row.gpu_ms_min).toBeLessThanOrEqual(row.gpu_ms!);
  expect(row.gbs).toBeCloseTo(row.bytes / row.gpu_ms! / 1e6, 6);
});

test("this machine's limits are right, finite and positive; a share is the limit's time by the time taken", async () => {
  const shapes = { ...QUICK_SHAPES, memory: { cached: 2 ** 17, main: 2 ** 18 } };
  const rows = await withCases(
    device,
    limitGroups(shapes, device.caps),
    () => true,
    (cases) => measure(device, cases, { rounds: 1, turnMs: 1, slowMs: 1e9 }),
  );
  expect(rows.map(({ variant, check }) => [variant, check!.share! <= 1])).toEqual(
    ["launch", "multiply-add", "copy", "read", "copy", "read", "driver's copy"].map((variant) => [variant, true]),
  );
  expect(rows[0].launches).toBe(1);
  const limits = limitsOf(rows, shapes);
  for (const value of Object.values(limits)) expect(value > 0 && Number.isFinite(value)).toBe(true);

  const row = { ...rows[1], ms: 8, cpu_ms: 8, gpu_ms: 8 };
  const twice = withShare(row, { ...limits, ms_per_flop: 4 / row.flops, ms_per_launch: 1 });
  expect(twice).toMatchObject({ share: 0.5, bound: "arithmetic" });
  expect(() => limitsOf(rows.slice(1), shapes)).toThrow("could not be measured");

  const [slower, faster] = [5, 1].map((ms) => ({ ...rows[0], ms_min: ms, cpu_ms_min: ms, gpu_ms_min: ms }));
  expect(betterOf([slower], [faster])[0].cpu_ms_min).toBe(faster.cpu_ms_min);
  expect(betterOf([faster], [slower])[0].cpu_ms_min).toBe(faster.cpu_ms_min);
});
