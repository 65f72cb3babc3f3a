/** `doctor`: passes a correct adapter, and names the faults of an incorrect one. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, describe, expect, test } from "vitest";
import { EXIT, Interrupted } from "../../../src/instructblip/cli/format.ts";
import { type Check, formatCheck, suspects } from "../../../src/instructblip/doctor/check.ts";
import { type Exam, examine, formatSummary, type Report } from "../../../src/instructblip/doctor/doctor.ts";
import { plansOf } from "../../../src/tensor/device/plan.ts";
import { KERNELS } from "../../../src/tensor/kernels.gen.ts";
import { driverDevice, otherDevice, testDevice } from "../../device.ts";
import { temporaryFolder } from "../../temporary.ts";
import { cli } from "../cli/cli.ts";

const SHAPES = fileURLToPath(new URL("../../../examples/shapes/", import.meta.url));
const questions = JSON.parse(readFileSync(join(SHAPES, "images/questions.json"), "utf8"));
const tokens = JSON.parse(readFileSync(join(SHAPES, "images/tokens.json"), "utf8"));
const exam: Exam = {
  checkpoint: join(SHAPES, "checkpoint"),
  images: [
    { name: "a", image: join(SHAPES, questions[0].image), questions: questions[0].questions, tokens: tokens[0] },
  ],
};

const healthy = { ...KERNELS };
afterEach(() => void Object.assign(KERNELS, healthy));

/** Breaks a kernel's text, as a driver's compiler might. A device that has compiled it already does not notice. */
function breakKernel(path: string, right: string, wrong: string, more = ""): void {
  const text = KERNELS[path];
  expect(text).toContain(right);
  Object.assign(KERNELS, { [path]: text.replaceAll(right, wrong) + more });
}

/** The report of checks whose name matches, on a device of its own. */
async function report(filter: RegExp, of = exam): Promise<Report> {
  const device = await otherDevice({});
  try {
    return await examine(device, of, { quick: true, wanted: (name) => filter.test(name) });
  } finally {
    device.destroy();
  }
}

describe("an adapter that computes right", () => {
  test("passes, every variant that it can run, with those it uses marked", async () => {
    const { caps } = await testDevice();
    const { ok, checks, suspects, ended, adapter } = await report(/^rms_norm/);
    expect({ ok, suspects, ended }).toEqual({ ok: true, suspects: [], ended: null });
    expect(checks.map(({ name }) => name).sort()).toEqual(
      plansOf("rms_norm", "row", caps)
        .map(([variant]) => `rms_norm ${variant}`)
        .sort(),
    );
    expect(checks.some(({ used }) => used)).toBe(true);
    for (const { name, count, share } of checks) {
      expect(count, name).toBeGreaterThan(0);
      expect(share, name).toBeLessThan(0.5);
    }
    expect(adapter.software).toBe(caps.isSoftware);
  });

  test("is asked about what it uses, then for PyTorch's tokens, then about other variants", async () => {
    const device = await otherDevice({});
    const controller = new AbortController();
    const found = await examine(device, exam, {
      quick: true,
      wanted: (name) => /^(softmax|argmax|answers int4)/.test(name),
      signal: controller.signal,
      onCheck: ({ used }) => (used ? undefined : controller.abort()),
    });
    device.destroy();
    const { checks } = found;
    const answers = checks.findIndex(({ name }) => name === "answers int4 weights");
    expect(answers).toBeGreaterThan(1);
    expect(checks[answers]).toMatchObject({ count: questions[0].questions.length, wrong: [] });
    expect(checks.map(({ used }) => used)).toEqual(checks.map((_, i) => i <= answers));
    expect(checks).toHaveLength(answers + 2);
    expect(found).toMatchObject({ ok: false, ended: "interrupted", usedChecked: true });
    expect(formatSummary(found)).toMatch(/^verdict +the run did not end; all that this adapter uses computes right$/m);
  });
});

describe("a kernel broken on purpose is named, with where it showed", () => {
  test("one that computes wrong numbers", async () => {
    breakKernel("rows/rms_norm", "params.eps);", "params.eps) * 1.001;");
    const found = await report(/^(rms_norm|scale)/);
    expect({ ok: found.ok, suspects: found.suspects }).toEqual({ ok: false, suspects: ["kernels/rows/rms_norm.wgsl"] });
    const wrong = found.checks.filter((check) => check.wrong.length > 0).map(({ name }) => name);
    expect(wrong).toContain("rms_norm workgroup");
    expect(wrong).not.toContain("scale");
    const summary = formatSummary(found);
    expect(summary).toMatch(/^WRONG +rms_norm workgroup: 6 of 6$/m);
    expect(summary).toMatch(/^kernel +kernels\/rows\/rms_norm\.wgsl$/m);
    expect(summary).not.toContain("computes right");
  });

  test("one that gives no numbers", async () => {
    breakKernel("elementwise/scale", "params.factor * x[i]", "(x[i] - x[i]) / (x[i] - x[i])");
    const found = await report(/^scale/);
    expect(found.suspects).toEqual(["kernels/elementwise/scale.wgsl"]);
  });

  test("one in a part of the kernels that are right without it", async () => {
    breakKernel(
      "lib/weight_int8",
      "unpack4xI8(",
      "off_by_one(",
      "fn off_by_one(word: u32) -> vec4<i32> { return unpack4xI8(word) + 1; }\n",
    );
    const { suspects, checks } = await report(/^embedding/);
    expect(suspects).toEqual(["kernels/gather/embedding.wgsl"]);
    expect(checks[0].wrong).toEqual([
      {
        what: expect.stringMatching(/ int8$/),
        why: expect.stringContaining("the tolerance"),
        kernels: ["kernels/gather/embedding.wgsl (weight_int8)"],
      },
    ]);
  });

  test("one that another op launches too: the op by itself decides", async () => {
    breakKernel("rows/softmax", "] / sum", "] / (1.001 * sum)");
    const found = await report(/^(softmax workgroup$|attention composed|copy)/);
    expect(found.suspects).toContain("kernels/rows/softmax.wgsl");
  });

  test("one that is no WGSL; the run goes on", async () => {
    breakKernel("elementwise/scale", "params.factor", "params.no_factor");
    const { checks, suspects } = await report(/^(scale|softmax workgroup$)/);
    expect(checks.map(({ name, wrong }) => [name, wrong.length > 0])).toEqual([
      ["scale", true],
      ["softmax workgroup", false],
    ]);
    expect(checks[0].wrong[0].why).toContain("scale.wgsl");
    expect(suspects).toEqual(["kernels/elementwise/scale.wgsl"]);
  });

  test("another token than PyTorch's, with both", async () => {
    const of = { ...exam, images: [{ ...exam.images[0], tokens: [[7, 2], ...tokens[0].slice(1)] }] };
    const { ok, checks } = await report(/^answers f32/, of);
    expect(ok).toBe(false);
    expect(checks[0].wrong).toEqual([
      { what: expect.stringContaining("What color is the square?"), why: "tokens 402 2, PyTorch's 7 2", kernels: [] },
    ]);
  });
});

test("a device that is lost ends the run, which does not pass", async () => {
  const device = await driverDevice({});
  const found = await examine(device, exam, {
    quick: true,
    wanted: (name) => /^(add|argmax)/.test(name),
    onCheck: () => device.handle.destroy(),
  });
  expect(found.ok).toBe(false);
  expect(found.ended).toMatch(/lost|destroyed/);
  expect(formatSummary(found)).toMatch(/^verdict +the run did not end/m);
  device.destroy();
});

describe("what is said", () => {
  const check: Check = { name: "linear tile", used: true, count: 3, share: 0.25, wrong: [], skipped: [], ms: 1 };
  const wrongs = (n: number, kernels = ["kernels/matmul/matmul_tile.wgsl (weight_f16)"]) =>
    Array.from({ length: n }, (_, i) => ({ what: `shape ${i}`, why: "2.0 times the tolerance", kernels }));

  test("one line of what is right", () => {
    expect(formatCheck(check)).toMatch(/^ok {5}linear tile \* +3 right, at most 25 % of the tolerance\n$/);
    const skipped = [{ what: "vit", why: "not used here, and would take 9 s" }];
    expect(formatCheck({ ...check, used: false, count: 0, share: null, skipped })).toMatch(
      /^- {6}linear tile +0 right, 1 skipped: not used here, and would take 9 s\n$/,
    );
  });

  test("a few shapes of what is wrong, and the kernel", () => {
    const lines = formatCheck({ ...check, count: 9, wrong: wrongs(5) }).split("\n");
    expect(lines[0]).toMatch(/^WRONG {2}linear tile \* +5 of 9$/);
    expect(lines.slice(1).map((line) => line.trim())).toEqual([
      ...[0, 1, 2].map((i) => `shape ${i}: 2.0 times the tolerance`),
      "and 2 more",
      "kernels/matmul/matmul_tile.wgsl",
      "",
    ]);
  });

  test("a kernel whose own op is right is no suspect, unless there is no other", () => {
    const kernels = ["kernels/rows/softmax.wgsl", "kernels/attention/attention_scores.wgsl"];
    const attention = { name: "attention composed", wrong: wrongs(1, kernels) };
    expect(suspects([attention, { name: "softmax workgroup", wrong: [] }])).toEqual([kernels[1]]);
    const softmax = { name: "softmax workgroup", wrong: wrongs(1, [kernels[0]]) };
    expect(suspects([attention, softmax])).toEqual(kernels);
    expect(
      suspects([
        { name: "a", wrong: wrongs(1, [kernels[0]]) },
        { name: "softmax", wrong: [] },
      ]),
    ).toEqual([kernels[0]]);
  });
});

describe("the command", () => {
  const only = ["--quick", "--filter", "^(scale|softmax workgroup$)"];

  test("prints a line a check, then what to paste into an issue", async () => {
    const { code, stdout, stderr } = await cli(["doctor", ...only]);
    expect({ code, stderr }).toEqual({ code: EXIT.ok, stderr: "" });
    const lines = stdout.split("\n");
    expect(lines[0]).toMatch(/^ok {5}scale \* /);
    expect(lines[1]).toMatch(/^ok {5}softmax workgroup /);
    for (const name of ["adapter", "features", "versions", "verdict"]) {
      expect(stdout).toMatch(new RegExp(`^${name} +\\S`, "m"));
    }
    expect(stdout).toMatch(/^verdict +this adapter computes right$/m);
  });

  test("has exit code 1 and names the kernel if one is wrong", async () => {
    breakKernel("elementwise/scale", "params.factor * x[i]", "1.001 * params.factor * x[i]");
    const { code, stdout } = await cli(["doctor", ...only]);
    expect(code).toBe(1);
    expect(stdout).toMatch(/^WRONG {2}scale /);
    expect(stdout).toMatch(/^kernel +kernels\/elementwise\/scale\.wgsl$/m);
    expect(stdout).toMatch(/^verdict +1 check is wrong$/m);
  });

  test("--json - prints one object and nothing else; --json FILE writes it", async () => {
    const { code, stdout, stderr } = await cli(["doctor", ...only, "--json", "-"]);
    expect({ code, stderr }).toEqual({ code: EXIT.ok, stderr: "" });
    const report = JSON.parse(stdout) as Report;
    expect(stdout.split("\n")).toHaveLength(2);
    expect(report).toMatchObject({ ok: true, quick: true, suspects: [], versions: { node: process.versions.node } });
    expect(report.checks.map(({ name }) => name)).toEqual(["scale", "softmax workgroup"]);

    const file = join(temporaryFolder(), "report.json");
    const written = await cli(["doctor", ...only, "--json", file]);
    expect(written.stdout).toMatch(/^ok {5}scale/);
    expect(JSON.parse(readFileSync(file, "utf8"))).toMatchObject({ ok: true });
  });

  test("refuses at once what cannot be", async () => {
    const refused = await cli(["doctor", "--json", "no/such/folder/report.json"]);
    expect(refused).toMatchObject({ code: EXIT.refused, stdout: "" });
    expect(refused.stderr).toContain("--json no/such/folder/report.json: there is no folder");
    expect(await cli(["doctor", "--filter", "("])).toMatchObject({ code: EXIT.usage, stdout: "" });
    const none = await cli(["doctor", "--filter", "^no such check"]);
    expect(none).toMatchObject({ code: EXIT.refused, stdout: "" });
    expect(none.stderr).toContain("no check matches");
  });

  test("ends when it is interrupted, and reports what it has checked", async () => {
    const file = join(temporaryFolder(), "report.json");
    const onOut = () => new Interrupted(EXIT.sigterm);
    const { code, stdout } = await cli(["doctor", "--quick", "--json", file], { onOut });
    expect(code).toBe(EXIT.sigterm);
    expect(stdout.match(/^ok /gm)).toHaveLength(1);
    expect(stdout).toMatch(/^ENDED +interrupted\nverdict +the run did not end; so far no checks are wrong$/m);
    const { ok, ended, checks } = JSON.parse(readFileSync(file, "utf8"));
    expect({ ok, ended, checks: checks.length }).toEqual({ ok: false, ended: "interrupted", checks: 1 });
  });
});
