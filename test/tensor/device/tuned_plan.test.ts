/** The tuned plan's file: content, refusals, matching of adapters, and its use by a device. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, expect, test, vi } from "vitest";
import { createGPU } from "../../../src/tensor/device/gpu.node.ts";
import { openDevice } from "../../../src/tensor/device/open_device.ts";
import type { TunedPlan } from "../../../src/tensor/device/plan.ts";
import { readTunedPlan, tunedPlanFile, webgpuVersion } from "../../../src/tensor/device/tuned_plan.node.ts";
import { adapterKey, formatTunedFile, parseTunedFile, withTuned } from "../../../src/tensor/device/tuned_plan.ts";
import "../../../src/tensor/device/adapter.node.ts";

const INFO = { vendor: "v", architecture: "a", device: "d", description: "driver 1" } as GPUAdapterInfo;
const KEY = adapterKey(INFO, webgpuVersion());
const CHOICES: TunedPlan = { matvec: { "M <= 1": "register" }, attention: { "T = 1, S > 512": "split" } };
const date = "2026-01-02T03:04:05.000Z";

const folder = mkdtempSync(join(tmpdir(), "instructblip-plan-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
afterEach(() => {
  vi.unstubAllEnvs();
  vi.restoreAllMocks();
});

test("the key is another if adapter, driver or webgpu is another", () => {
  const changes = [{}, { vendor: "w" }, { architecture: "b" }, { device: "e" }, { description: "driver 2" }];
  const keys = changes.map((change) => adapterKey({ ...INFO, ...change }, "1.0.0"));
  expect(new Set([...keys, adapterKey(INFO, "1.0.1")]).size).toBe(6);
  expect(keys[0]).toBe("v | a | d | driver 1 | webgpu 1.0.0");
  expect(adapterKey({ ...INFO, device: "" }, "1.0.0")).toBe("v | a | driver 1 | webgpu 1.0.0");
  expect(webgpuVersion()).toMatch(/^\d+\.\d+\.\d+/);
});

test("what is written is read again", () => {
  const file = new Map([["one", { date, choices: CHOICES }]]);
  expect(parseTunedFile("f", formatTunedFile(file))).toEqual(file);
});

test("fresh choices replace older ones of their class, and nothing else", () => {
  const old = new Map([
    ["other", { date, choices: CHOICES }],
    [KEY, { date, choices: { ...CHOICES, row: { "M > 64": "workgroup" } } as TunedPlan }],
  ]);
  const fresh = {
    date: "later",
    choices: { matvec: { "M > 1": "workgroup" }, row: { "M > 64": "subgroup" } },
  } as const;
  const merged = withTuned(old, KEY, fresh);
  expect(merged.get("other")).toEqual(old.get("other"));
  expect(merged.get(KEY)).toEqual({
    date: "later",
    choices: { ...CHOICES, matvec: { "M <= 1": "register", "M > 1": "workgroup" }, row: { "M > 64": "subgroup" } },
  });
  expect(withTuned(new Map(), KEY, fresh).get(KEY)).toEqual(fresh);
});

const file = (choices: unknown, rest: object = {}) =>
  JSON.stringify({ version: 1, adapters: { k: { date, choices } }, ...rest });

test.each([
  ["half a file", file({}).slice(0, -5), "f: "],
  ["a list", "[]", "f: the file must be an object"],
  ["a later version", file({}, { version: 2 }), "f: version must be 1"],
  ["no adapters", '{"version":1}', "f: adapters must be an object"],
  ["an adapter that is none", '{"version":1,"adapters":{"k":1}}', 'f: adapter "k" must be an object'],
  ["no choices", '{"version":1,"adapters":{"k":{"date":"d"}}}', 'f: choices of "k" must be an object'],
  ["no date", '{"version":1,"adapters":{"k":{"choices":{}}}}', 'f: date of "k" must be a string'],
  ["an op", file({ conv: {} }), 'f: there is no op "conv"'],
  ["an op of Object's", file({ toString: {} }), 'f: there is no op "toString"'],
  ["an op twice", file({ row: {} }).replace('"row":{}', '"row":{},"row":{}'), "f: "],
  ["a class", file({ row: { "M <= 2": "workgroup" } }), 'f: row has no sizes "M <= 2"'],
  ["a variant of another op", file({ row: { "M <= 1": "tile" } }), 'f: row has no variant "tile"'],
  ["a number for a variant", file({ row: { "M <= 1": 1 } }), "f: row M <= 1 must be a string"],
])("refused: %s", (_name, text, message) => {
  expect(() => parseTunedFile("f", text)).toThrow(
    expect.objectContaining({ name: "InputError", code: "PLAN_FILE", message: expect.stringContaining(message) }),
  );
});

/** Sets INSTRUCTBLIP_PLAN=@FILE to a new file that holds `choices` under `key`. */
function keep(name: string, key: string, choices: TunedPlan): string {
  const path = join(folder, name);
  writeFileSync(path, formatTunedFile(new Map([[key, { date, choices }]])));
  vi.stubEnv("INSTRUCTBLIP_PLAN", `@${path}`);
  return path;
}

test("@FILE is read, and `tuned` is plan.json in the cache's folder; without either no file is", () => {
  keep("plan.json", KEY, CHOICES);
  expect(readTunedPlan(INFO)).toEqual(CHOICES);
  vi.stubEnv("INSTRUCTBLIP_CACHE", folder);
  expect(tunedPlanFile()).toBe(join(folder, "plan.json"));
  vi.stubEnv("INSTRUCTBLIP_PLAN", "tuned");
  expect(readTunedPlan(INFO)).toEqual(CHOICES);
  vi.stubEnv("INSTRUCTBLIP_PLAN", "row=workgroup");
  expect(readTunedPlan(INFO)).toBeUndefined();
  vi.stubEnv("INSTRUCTBLIP_PLAN", "");
  expect(readTunedPlan(INFO)).toBeUndefined();
});

test("the file of another driver is passed over with one warning that names both", () => {
  const warn = vi.spyOn(process, "emitWarning").mockImplementation(() => {});
  const path = keep("other.json", adapterKey({ ...INFO, description: "driver 0" }, webgpuVersion()), CHOICES);
  expect([readTunedPlan(INFO), readTunedPlan(INFO)]).toEqual([undefined, undefined]);
  expect(warn).toHaveBeenCalledTimes(1);
  const [message, options] = warn.mock.calls[0] as unknown as [string, { type: string }];
  for (const part of [path, "driver 0", "driver 1"]) expect(message).toContain(part);
  expect(options.type).toBe("TunedPlanWarning");
});

test("a file that is missing or damaged is an error, and no device is opened", async () => {
  const gpu = createGPU({ backend: "null" });
  vi.stubEnv("INSTRUCTBLIP_PLAN", `@${join(folder, "absent.json")}`);
  const adapter = (await gpu.requestAdapter())!;
  await expect(openDevice({ adapter })).rejects.toMatchObject({
    code: "PLAN_FILE",
    message: expect.stringContaining("absent.json: cannot be read (ENOENT)"),
  });
  writeFileSync(join(folder, "damaged.json"), "{");
  vi.stubEnv("INSTRUCTBLIP_PLAN", `@${join(folder, "damaged.json")}`);
  await expect(openDevice({ adapter })).rejects.toMatchObject({ code: "PLAN_FILE" });
});

test("a device gets its adapter's choices", async () => {
  const adapter = (await createGPU({ backend: "null" }).requestAdapter())!;
  keep("mine.json", adapterKey(adapter.info, webgpuVersion()), CHOICES);
  const device = await openDevice({ adapter });
  expect(device.caps.tuned).toEqual(CHOICES);
  device.destroy();
});
