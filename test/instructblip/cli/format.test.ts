/** Texts, numbers and exit codes of the command line, without a terminal. */
import { describe, expect, it, test } from "vitest";
import { reason } from "../../../src/instructblip/cli/devices.node.ts";
import {
  describeError,
  EXIT,
  endsRun,
  formatCount,
  formatDuration,
  formatTable,
  gravest,
  Interrupted,
  Pace,
  progressText,
} from "../../../src/instructblip/cli/format.ts";
import { Progress, say, type Terminal } from "../../../src/instructblip/cli/terminal.node.ts";
import { Stopwatch } from "../../../src/instructblip/cli/timing.ts";
import { DeviceError, InputError, KernelError, ShapeError, WeightError } from "../../../src/tensor/errors.ts";

describe("numbers", () => {
  it.each([
    [0, "0 ms"],
    [999, "999 ms"],
    [999.6, "1.0 s"],
    [59_949, "59.9 s"],
    [59_960, "1 min 00 s"],
    [245_000, "4 min 05 s"],
    [3_599_600, "1 h 00 min"],
    [3_720_000, "1 h 02 min"],
  ])("%d ms is %s", (ms, text) => expect(formatDuration(ms)).toBe(text));

  it.each([
    [0, "0"],
    [999, "999"],
    [1000, "1.00 k"],
    [97_568, "97.6 k"],
    [999_600, "1.00 M"],
    [7_913_000_000, "7.91 B"],
  ])("%d is %s", (count, text) => expect(formatCount(count)).toBe(text));

  it("aligns tables, and leaves no blanks at line ends", () => {
    expect(
      formatTable(
        [
          ["a", "10", ""],
          ["bcd", "9", "x"],
        ],
        [1],
      ),
    ).toBe("a    10\nbcd   9  x\n");
  });
});

describe("errors", () => {
  it("says a user's mistake in one message with its hint", () => {
    const error = new InputError("PARAM_RANGE", "max_length must be 3", { hint: "try 3" });
    expect(describeError(error)).toEqual({
      message: "error: max_length must be 3\n    hint: try 3",
      code: "PARAM_RANGE",
      exitCode: EXIT.refused,
    });
  });

  it.each([
    [new TypeError("x is not a function"), "INTERNAL"],
    [new KernelError("BINDINGS", "kernels/add.wgsl: binding y is missing"), "BINDINGS"],
    [new ShapeError("layerNorm: weight must be [8]"), "SHAPE"],
    ["thrown text", "INTERNAL"],
  ])("asks to report %s", (error, code) => {
    const description = describeError(error);
    expect(description).toMatchObject({ code, exitCode: EXIT.internal });
    expect(description.message).toContain("please report this");
    expect(description.message).toContain(code);
  });

  it.each([
    [new DeviceError("DEVICE_LOST", "gone"), EXIT.retry],
    [new DeviceError("GPU_OOM", "too much"), EXIT.retry],
    [new WeightError("HUB_BUSY", "later"), EXIT.retry],
    [new WeightError("HTTP_TIMEOUT", "later"), EXIT.retry],
    [new InputError("HTTP_UNREACHABLE", "later"), EXIT.retry],
    [new InputError("OUT_LOCKED", "later"), EXIT.retry],
    [new InputError("IMAGE_NOT_FOUND", "no"), EXIT.refused],
    [new DeviceError("BUDGET", "too much"), EXIT.refused],
    [new DeviceError("NO_ADAPTER", "none"), EXIT.refused],
    [new WeightError("HUB_GATED", "no"), EXIT.refused],
    [new InputError("IO", "no"), EXIT.refused],
  ])("%s: exit code %i", (error, exitCode) => expect(describeError(error).exitCode).toBe(exitCode));

  it("says nothing of an interruption", () => {
    expect(describeError(new Interrupted(EXIT.sigint))).toMatchObject({ message: undefined, exitCode: 130 });
  });

  it.each([
    [new DeviceError("DEVICE_LOST", "gone"), true],
    [new KernelError("GPU_VALIDATION", "refused"), true],
    [new Interrupted(EXIT.sigterm), true],
    [new DeviceError("BUDGET", "too much"), false],
    [new InputError("IMAGE_FORMAT", "a PDF"), false],
    [new WeightError("NOT_FOUND", "no such file"), false],
    [new TypeError("odd"), false],
  ])("%s ends a run of requests: %s", (error, ends) => expect(endsRun(error)).toBe(ends));
});

test("a run has the exit code of the gravest failure", () => {
  const after = (...codes: number[]) => codes.reduce(gravest, EXIT.ok);
  expect(after()).toBe(EXIT.ok);
  expect(after(EXIT.refused)).toBe(EXIT.someFailed);
  expect(after(EXIT.refused, EXIT.retry, EXIT.refused)).toBe(EXIT.retry);
  expect(after(EXIT.internal, EXIT.retry)).toBe(EXIT.internal);
});

describe("timing", () => {
  /** A clock that gives these readings, one a call. */
  const clock =
    (...readings: number[]) =>
    () =>
      readings.shift()!;

  it("counts preprocessing, but not the loading behind it", () => {
    // start, preprocessed, generating, 3 tokens, end
    const watch = new Stopwatch(2, clock(100, 110, 5000, 5030, 5130, 5230, 5240));
    watch.preprocessed();
    watch.generating();
    for (let i = 0; i < 3; i++) watch.token();
    expect(watch.read(4890.123)).toEqual({
      load_ms: 4890.12,
      preprocess_ms: 10,
      time_to_first_token_ms: 40,
      tokens_per_second: 20, // 2 rows, 2 tokens each in 200 ms
      total_ms: 250,
      new_tokens: 3,
    });
  });

  it("gives no speed from a single token", () => {
    const watch = new Stopwatch(1, clock(0, 1, 2, 3, 4));
    watch.preprocessed();
    watch.generating();
    watch.token();
    expect(watch.read(0)).toMatchObject({ time_to_first_token_ms: 2, tokens_per_second: null, new_tokens: 1 });
  });
});

describe("progress", () => {
  const fake = (overrides: Partial<Terminal>) => {
    const written: string[] = [];
    const terminal: Terminal = {
      out: async () => {},
      err: (text) => written.push(text),
      outIsTerminal: false,
      errIsTerminal: true,
      columns: 12,
      color: false,
      ...overrides,
    };
    return { written, terminal };
  };

  it("writes a line a minute where stderr is no terminal", () => {
    const { written, terminal } = fake({ errIsTerminal: false });
    let now = 0;
    const progress = new Progress(terminal, () => now);
    for (now = 0; now <= 130_000; now += 10_000) progress.show(`${now / 1000} s, longer than a line of 12`);
    progress.clear();
    expect(written).toEqual(["60 s, longer than a line of 12\n", "120 s, longer than a line of 12\n"]);
  });

  it("foretells by what came after the first part, once there is enough of it", () => {
    let now = 0;
    const pace = new Pace(() => now);
    now = 50_000; // the first tenth took long
    expect(pace.left(10, 100)).toBeUndefined();
    now = 51_000;
    expect(pace.left(20, 100)).toBeUndefined();
    now = 54_000; // 10 a second since
    expect(pace.left(50, 100)).toBe(5000);
    const resumed = new Pace(() => now);
    expect(resumed.left(90, 100)).toBeUndefined();
    now += 10_000;
    expect(resumed.left(90, 100)).toBeUndefined();
    expect(resumed.left(95, 100)).toBe(10_000);
  });

  it("shows the end of a text that is longer than the line", () => {
    const { written, terminal } = fake({});
    let now = 0;
    const progress = new Progress(terminal, () => now);
    progress.showEnd(" a short\none ");
    now = 200;
    progress.showEnd("a longer 😀 text: 😀");
    expect(written).toEqual(["\ra short one", "\r… text: 😀 "]);
  });

  it("rewrites one line, wipes it, and never fills the terminal's width", () => {
    const { written, terminal } = fake({});
    let now = 0;
    const progress = new Progress(terminal, () => now);
    progress.show("a long line of progress");
    progress.show("too soon");
    now = 200;
    progress.show("short");
    progress.clear();
    progress.clear();
    expect(written).toEqual(["\ra long line", "\rshort      ", "\r     \r"]);
  });

  it("colours only where asked to", () => {
    const plain = fake({});
    say(plain.terminal, "error: no\x1b[2J");
    expect(plain.written).toEqual(["error: no\\u{1b}[2J\n"]);
    const colored = fake({ color: true });
    say(colored.terminal, "error: no");
    say(colored.terminal, "note: yes");
    expect(colored.written).toEqual(["\x1b[31merror:\x1b[0m no\n", "note: yes\n"]);
  });

  it("says how many, how fast and how long", () => {
    expect(progressText({ done: 12, failed: 2 }, 100, 8000, 58_667)).toBe("12 of 100  1.5/s  58.7 s left  2 failed");
    expect(progressText({ done: 2, failed: 0 }, undefined, 60_000, undefined)).toBe("2 done  30.0 s each");
  });
});

describe("the choice of an adapter", () => {
  const [gpu, cpu] = [{ software: false }, { software: true }];
  it.each<[Parameters<typeof reason>[0], RegExp]>([
    [[cpu], /no GPU/],
    [[gpu], /only one/],
    [[gpu, cpu], /only GPU/],
    [[gpu, gpu, cpu], /most powerful/],
  ])("%j", (adapters, why) => expect(reason(adapters)).toMatch(why));
});
