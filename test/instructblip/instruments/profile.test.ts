/** Profiles of every kind of language model: nothing runs otherwise than without, and all sums agree; traces by their format. */
import { afterAll, describe, expect, test } from "vitest";
import { AutoModelForImageTextToText } from "../../../src/index.node.ts";
import { type ModelProfile, profile } from "../../../src/instructblip/instruments/profile/profile.ts";
import {
  layersTogether,
  type PhaseReport,
  type ProfileSums,
  profileReport,
} from "../../../src/instructblip/instruments/profile/report.ts";
import { chromeTrace, type TraceEvent } from "../../../src/instructblip/instruments/profile/trace.ts";
import { modulesOf } from "../../../src/modules/module_calls.ts";
import type { Limits } from "../../../src/tensor/limits.ts";
import type { LaunchTime } from "../../../src/tensor/tensor.ts";
import { testDevice } from "../../device.ts";
import { goldenFolder } from "../../golden_folder.ts";
import { goldenInputs } from "../../parity/golden.ts";
import { ALL } from "../../rounds.ts";

const device = await testDevice();
const LIMITS: Limits = {
  ms_per_launch: 0.01,
  ms_per_flop: 1e-8,
  ms_per_cached_byte: 1e-7,
  ms_per_byte: 1e-6,
  cached_bytes: 4096,
};
const NAMES = ALL ? ["plain_f32", "t5_flan", "opt_plain", "cross_frequency_1"] : ["plain_f32", "t5_flan", "opt_plain"];

/** What every reader of the format relies on. @throws for the first event that breaks it */
function checkTrace(text: string): void {
  const { traceEvents } = JSON.parse(text) as { traceEvents: TraceEvent[] };
  const rows = new Map<number, { last: number; open: { name: string; end: number }[] }>();
  const named = new Set<number>();
  let counted = Number.NEGATIVE_INFINITY;
  for (const event of traceEvents) {
    if (event.pid !== 1) throw new Error(`another process: ${JSON.stringify(event)}`);
    if (event.ph === "M") {
      if (event.name === "thread_name") named.add(event.tid!);
      continue;
    }
    if (!Number.isFinite(event.ts) || event.ts < 0) throw new Error(`no time: ${JSON.stringify(event)}`);
    if (event.ph === "C") {
      if (event.ts < counted) throw new Error(`a counter goes back: ${JSON.stringify(event)}`);
      counted = event.ts;
      continue;
    }
    if (event.ph !== "X") throw new Error(`neither M, C nor X: ${JSON.stringify(event)}`);
    if (!named.has(event.tid)) throw new Error(`a row without a name: ${JSON.stringify(event)}`);
    if (!(event.dur >= 0)) throw new Error(`no duration: ${JSON.stringify(event)}`);
    const row = rows.get(event.tid) ?? { last: 0, open: [] };
    rows.set(event.tid, row);
    if (event.ts < row.last) throw new Error(`goes back: ${JSON.stringify(event)}`);
    row.last = event.ts;
    const nanoseconds = (us: number) => Math.round(1000 * us);
    const [start, end] = [nanoseconds(event.ts), nanoseconds(event.ts) + nanoseconds(event.dur)];
    while (row.open.length > 0 && row.open.at(-1)!.end <= start) row.open.pop();
    const around = row.open.at(-1);
    if (around && end > around.end) throw new Error(`sticks out of ${around.name}: ${JSON.stringify(event)}`);
    row.open.push({ name: event.name, end });
  }
  if (rows.size !== 2) throw new Error(`${rows.size} rows, not GPU and host`);
}

function expectSums(rows: readonly ProfileSums[], whole: ProfileSums): void {
  for (const name of ["launches", "ms", "flops", "bytes", "limit_ms"] as const) {
    expect(rows.reduce((sum, row) => sum + row[name], 0)).toBeCloseTo(whole[name], 6);
  }
  expect(rows.reduce((sum, { share }) => sum + share, 0)).toBeCloseTo(1, 9);
}

describe.each(NAMES)("%s", async (name) => {
  const model = await AutoModelForImageTextToText.from_pretrained(goldenFolder(name), { device, image_cache: 0 });
  afterAll(() => model.dispose());
  const inputs = (await goldenInputs(name)) as never;
  const answer = () => model.generate(inputs, { max_new_tokens: 4, min_new_tokens: 4 });
  const plain: LaunchTime[] = [];
  let [tokens, seen]: [unknown, unknown] = [undefined, undefined];
  let profiled: ModelProfile;

  test("runs the same launches and gives the same tokens", async () => {
    tokens = await answer();
    const before = device.counts.launches;
    plain.push(...(await device.profile(answer)).launches);
    const launches = device.counts.launches - before;
    profiled = await profile(model, async () => {
      seen = await answer();
    });
    expect(seen).toEqual(tokens);
    expect(profiled.launches).toHaveLength(launches);
    const kernels = (of: readonly LaunchTime[]) => of.map(({ kernel, bytes, flops }) => [kernel, bytes, flops]);
    expect(kernels(profiled.launches)).toEqual(kernels(plain));
    for (const module of modulesOf(model.model)) expect(Object.hasOwn(module, "forward")).toBe(false);
  });

  test("every launch belongs to a module of the checkpoint's path", () => {
    const paths = new Set(modulesOf(model.model).map(({ path }) => path));
    const unknown = profiled.launches.filter(({ site }) => !paths.has(site));
    expect(unknown).toEqual([]);
    const outside = profiled.launches.filter(({ site }) => site === "").map(({ kernel }) => kernel.replace(/\(.*/, ""));
    for (const kernel of outside)
      expect(["masked_scatter", "argmax", "increment", "copy", "edit_scores"]).toContain(kernel);
    for (const part of ["vision_model", "qformer", "language_model"]) {
      const inLayer = new RegExp(`^${part}\\..*\\.\\d+\\.`);
      expect(
        profiled.launches.some(({ site }) => inLayer.test(site)),
        part,
      ).toBe(true);
    }
  });

  test("sums over modules, over kernels and over both are those of the whole", () => {
    const [phase] = profileReport("test", [{ name: "generate", profile: profiled }], LIMITS).phases as [PhaseReport];
    const ms = profiled.launches.reduce((sum, one) => sum + one.ms, 0);
    expect(phase).toMatchObject({ launches: profiled.launches.length, ms: expect.closeTo(ms, 9), share: 1 });
    for (const rows of [phase.modules, phase.kernels, phase.rows, layersTogether(phase.modules)])
      expectSums(rows, phase);
    expect(phase.modules.length).toBeGreaterThan(layersTogether(phase.modules).length);
    expect(layersTogether(phase.modules).some(({ module }) => /\.\*\./.test(module))).toBe(true);
  });

  test("its trace keeps the format", () => {
    const trace = chromeTrace([{ name: "generate", profile: profiled }], { adapter: "test" });
    checkTrace(JSON.stringify(trace));
    const kernels = trace.traceEvents.filter((event) => event.ph === "X" && event.cat === "kernel");
    expect(kernels).toHaveLength(profiled.launches.length);
    expect(trace.traceEvents.some((event) => event.ph === "C")).toBe(true);
  });
});

const launch = (
  kernel: string,
  site: string,
  start: number,
  ms: number,
  work: Partial<LaunchTime> = {},
): LaunchTime => ({
  ...{ kernel, site, start, ms, flops: 0, bytes: 0, persistent: 0 },
  ...work,
});
const made = (launches: readonly LaunchTime[], more: Partial<ModelProfile> = {}): ModelProfile => ({
  ...{ clock: "timestamps", step: 0, launches, uploads: [], memory: [], start: 0, ms: 10, calls: [] },
  ...more,
});
const reportOf = (profile: ModelProfile) => profileReport("test", [{ name: "generate", profile }], LIMITS).phases[0];

test("rates and shares of the limit", () => {
  const memory = [{ at: 0, live: 5000, pooled: 0 }]; // more than caches hold
  const phase = reportOf(
    made(
      [
        launch("matmul", "a", 0, 3, { flops: 1e8, bytes: 2000 }), // 1 ms of arithmetic
        launch("matvec", "a", 3, 1, { flops: 10, bytes: 1e6, persistent: 9e5 }), // 0.9 ms, and 0.1 not in caches
        launch("add", "b", 4, 0, { bytes: 3000 }), // less than the clock sees; 0.01 ms of launching
      ],
      { memory },
    ),
  );
  const of = (kernel: string) => phase.kernels.find((row) => row.kernel === kernel)!;
  expect(of("matmul")).toMatchObject({ share: 0.75, bound: "arithmetic", of_limit: expect.closeTo(1 / 3, 9) });
  expect(of("matmul").gflops).toBeCloseTo(1e8 / 3 / 1e6, 9);
  expect(of("matvec")).toMatchObject({ bound: "memory", gbs: 1, of_limit: expect.closeTo(1, 9) });
  expect(of("add")).toMatchObject({ ms: 0, of_limit: null, gbs: null, limit_ms: 0.01, bound: "launch" });
  expect(phase.modules.map(({ module, bound }) => [module, bound])).toEqual([
    ["a", "arithmetic"],
    ["b", "launch"],
  ]);
  expect(phase.memory_bytes).toBe(5000);
});

test("where all memory fits in caches, weights are found there", () => {
  const work = { bytes: 1e6, persistent: 1e6 };
  const small = reportOf(made([launch("matvec", "a", 0, 1, work)], { memory: [{ at: 0, live: 1000, pooled: 0 }] }));
  expect(small.kernels[0]).toMatchObject({ bound: "cache", limit_ms: expect.closeTo(0.1, 9) });
});

test("a phase without launches has no shares", () => {
  const phase = reportOf(made([], { uploads: [{ site: "a", bytes: 8, start: 1, ms: 2 }] }));
  expect(phase).toMatchObject({ launches: 0, ms: 0, of_limit: null, uploads: { count: 1, bytes: 8, ms: 2 } });
});

test("spans of modules go from the first to the last of their launches in sequence", () => {
  const trace = chromeTrace(
    [
      {
        name: "generate",
        profile: made([
          launch("a", "m.layers.0.fc", 1, 2),
          launch("b", "m.layers.0", 2.5, 2), // begins before the first has ended
          launch("c", "m.layers.1", 5, 1),
          launch("d", "", 7, 1),
          launch("e", "m.layers.1", 8, 1),
        ]),
      },
    ],
    {},
  );
  checkTrace(JSON.stringify(trace));
  const spans = trace.traceEvents.flatMap((event) =>
    event.ph === "X" && event.tid === 1 ? [[event.name, event.ts / 1000, (event.ts + event.dur) / 1000]] : [],
  );
  expect(spans).toEqual([
    ["m", 1, 6],
    ["layers.0", 1, 5],
    ["fc", 1, 3],
    ["a", 1, 3],
    ["b", 3, 5],
    ["layers.1", 5, 6],
    ["c", 5, 6],
    ["d", 7, 8],
    ["m", 8, 9],
    ["layers.1", 8, 9],
    ["e", 8, 9],
  ]);
});

test("the check of the format finds what is wrong", () => {
  const good = chromeTrace([{ name: "x", profile: made([launch("a", "m", 1, 2), launch("b", "m", 4, 1)]) }], {});
  const broken = (change: (events: TraceEvent[]) => void) => {
    const events = structuredClone(good.traceEvents) as TraceEvent[];
    change(events);
    return () => checkTrace(JSON.stringify({ traceEvents: events }));
  };
  const span = (events: TraceEvent[], name: string) =>
    events.find((event) => event.ph === "X" && event.name === name) as Extract<TraceEvent, { ph: "X" }>;
  expect(broken(() => {})).not.toThrow();
  expect(
    broken((events) => {
      span(events, "b").dur = 5000;
    }),
  ).toThrow("sticks out of m");
  expect(
    broken((events) => {
      span(events, "a").dur = -1;
    }),
  ).toThrow("no duration");
  expect(
    broken((events) => {
      span(events, "b").ts = 0;
    }),
  ).toThrow("goes back");
  expect(
    broken((events) => {
      events.splice(
        events.findIndex(({ name }) => name === "thread_name"),
        1,
      );
    }),
  ).toThrow("without a name");
});
