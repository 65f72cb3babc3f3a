/** `profile`: table, JSON and trace of the embedded checkpoint, and what is refused. Sums and format: instruments/profile.test.ts. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { EXIT } from "../../../src/instructblip/cli/format.ts";
import { profileText } from "../../../src/instructblip/cli/profile/table.ts";
import type { ProfileReport } from "../../../src/instructblip/instruments/profile/report.ts";
import type { TraceEvent } from "../../../src/instructblip/instruments/profile/trace.ts";
import { goldenFolder } from "../../golden_folder.ts";
import { temporaryFolder } from "../../temporary.ts";
import { askShapes, cli, ROOT } from "./cli.ts";

const ASK = askShapes("profile");

// Less memory to measure the limits with.
beforeEach(() => vi.stubEnv("INSTRUCTBLIP_MAX_BINDING", "4MiB"));
afterEach(() => vi.unstubAllEnvs());

it("prints a table of modules, and writes JSON and a trace of the load and the answer", async () => {
  const folder = temporaryFolder();
  const [json, trace] = [join(folder, "profile.json"), join(folder, "trace.json")];
  const { code, stdout, stderr } = await cli([...ASK, "--top", "5", "--json", json, "--trace", trace]);
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  const lines = stdout.split("\n");
  expect(lines.slice(0, 5).map((line) => line.split(" ")[0])).toEqual([
    "adapter",
    "times",
    "limits",
    "load",
    "generate",
  ]);
  expect(lines[6]).toMatch(/^generate: module +launches +time +bytes +GFLOP\/s +GB\/s +of limit +bound$/);
  for (const line of lines.slice(7, 12)) {
    expect(line).toMatch(
      /^(\(outside of modules\)|[\w.*]+) +\d+ +[\d.]+ ms +[\d.]+ % .* (launch|arithmetic|memory|cache)$/,
    );
  }
  expect(lines[12]).toMatch(/^all +\d+ .* 100 % /);
  expect(lines[13]).toMatch(/^\d+ more: --top 0$/);

  const report: ProfileReport & { answer: string[] } = JSON.parse(await readFile(json, "utf8"));
  expect(report.answer).toEqual(["What color is the square? orange"]);
  const [load, generate] = report.phases;
  expect([load.name, generate.name]).toEqual(["load", "generate"]);
  expect(load.uploads.bytes).toBeGreaterThan(6e6); // f16 of 3.3 million parameters
  expect(generate.launches).toBe(Number(/^all +(\d+)/.exec(lines[12])![1]));
  expect(generate.kernels.some(({ kernel }) => /weight_f16/.test(kernel))).toBe(true);
  expect(generate.modules.map(({ module }) => module)).toContain("language_model.model.layers.3.mlp.down_proj");

  const { traceEvents, otherData } = JSON.parse(await readFile(trace, "utf8"));
  expect(otherData).toMatchObject({ adapter: report.adapter, clock: report.clock });
  const spans = (traceEvents as TraceEvent[]).filter((event) => event.ph === "X");
  expect(spans.filter(({ cat }) => cat === "kernel")).toHaveLength(load.launches + generate.launches);
  expect(spans.filter(({ cat }) => cat === "upload")).toHaveLength(load.uploads.count + generate.uploads.count);
  expect(spans.filter(({ cat }) => cat === "phase").map(({ name }) => name)).toEqual(["load", "generate"]);
});

it("by the host's clock, by kernel, as JSON alone", async () => {
  const args = ["--clock", "sync", "--by", "kernel", "--warm-up", "0", "--repeat", "2", "--json", "-"];
  const model = goldenFolder("plain_f32");
  const asked = ["--model", model, "--image", join(model, "image_0.png"), "--prompt", "a", "--max-new-tokens", "3"];
  const { code, stdout, stderr } = await cli(["profile", ...asked, ...args]);
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  const report: ProfileReport & { answer: string[] } = JSON.parse(stdout);
  expect([report.clock, report.answer.length]).toEqual(["sync", 1]);
  const text = profileText(report, { by: "kernel", each: false, top: 0 });
  expect(text).toContain("the host's clock, with a sync at each launch");
  expect(text).toMatch(/^layer_norm\(.*\) +\d+ /m);
  expect(profileText(report, { by: "module", each: true, top: 0 })).toMatch(/^vision_model.encoder.layers.1.mlp.fc1 /m);
});

it("refuses what it cannot do before the model is loaded", async () => {
  expect(await cli([...ASK, "--by", "layer"])).toMatchObject({
    code: EXIT.usage,
    stderr: expect.stringContaining("Allowed choices are module, kernel"),
  });
  expect(await cli(["profile", "--model", "x", "--image", "y"])).toMatchObject({
    code: EXIT.usage,
    stderr: expect.stringContaining("--prompt <text>"),
  });
  expect(await cli([...ASK, "--trace", join(ROOT, "no/such/trace.json")])).toMatchObject({
    code: EXIT.refused,
    stderr: expect.stringContaining("--trace"),
  });
  expect(await cli([...ASK, "--model", "no/such/model"])).toMatchObject({ code: EXIT.usage });
});
