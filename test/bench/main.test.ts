/** `npm run bench` as a user runs it, on one kernel. */
import { execFile } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, expect, test, vi } from "vitest";
import { formatRows, parseRows } from "../../bench/rows.ts";
import { openDevice } from "../../src/tensor/device/open_device.ts";
import { VARIANTS } from "../../src/tensor/device/plan.ts";
import { parseTunedFile } from "../../src/tensor/device/tuned_plan.ts";
import { compiled, PATIENT } from "../compiled.ts";
import { withoutDawn } from "../dawn.ts";
import { row } from "./row.ts";
import "../../src/tensor/device/adapter.node.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "instructblip-bench-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** What is on stderr besides Dawn's warnings and the line a minute of a slow run. */
const told = (stderr: string) =>
  withoutDawn(stderr).replace(/^(checking|round \d+ of \d+:|loading|warming) .*\n/gm, "");

async function bench(...args: string[]): Promise<{ stdout: string; stderr: string; code: number }> {
  const env = { ...process.env, ...PATIENT, MESA_SHADER_CACHE_DISABLE: "false" }; // no test looks at the time of the first run
  const command = promisify(execFile)(process.execPath, [compiled("bench/main.ts"), ...args], { cwd: root, env });
  return command.then(
    ({ stdout, stderr }) => ({ stdout, stderr: told(stderr), code: 0 }),
    (error: { stdout: string; stderr: string; code: number }) => ({ ...error, stderr: told(error.stderr) }),
  );
}

test("--quick --filter layer_norm: checked, timed, printed, kept; an older row of the same name is replaced", async () => {
  const file = join(folder, "rows.jsonl");
  const old = row({ adapter: "An older machine", shape: "kept" });
  await writeFile(file, formatRows([old]));
  const { stdout, stderr, code } = await bench("--quick", "--rounds", "1", "--filter", "layer_norm", "--json", file);
  expect(stderr).toBe("");
  expect(code).toBe(0);
  expect(stdout).toMatch(/^layer_norm +workgroup\*? +small R33 D352 +\d+ %/m);
  expect(stdout).toMatch(/^limit +multiply-add +in registers/m);
  expect(stdout).toMatch(/^\d+ rows in \d+ s, 0 wrong; kept in .*rows\.jsonl$/m);

  const rows = parseRows(await readFile(file, "utf8"));
  expect(rows[0]).toEqual(old);
  const measured = rows.filter(({ kernel }) => kernel === "layer_norm").slice(1);
  const variants = measured.map(({ variant }) => variant);
  expect(variants).toEqual(
    VARIANTS.row.filter((variant) => !variant.includes("subgroup") || variants.includes(variant)),
  );
  // A busy machine may find a variant that it does not use too slow to be timed.
  const timed = measured.filter(({ note }) => note === undefined);
  for (const { check, ms, cpu_ms, gbs, share, launches, adapter, rounds } of timed) {
    expect(check!.share).toBeGreaterThan(0);
    expect(check!.share).toBeLessThanOrEqual(1);
    for (const number of [ms, cpu_ms, gbs, share]) expect(number).toBeGreaterThan(0);
    expect({ launches, rounds }).toEqual({ launches: 1, rounds: 1 });
    expect(adapter).not.toBe("");
  }
  expect(timed.filter(({ planned }) => planned)).toHaveLength(1);

  // Once more: the rows are replaced, and no other file is left behind.
  await bench("--quick", "--rounds", "1", "--filter", "layer_norm inv", "--json", file);
  expect(parseRows(await readFile(file, "utf8"))).toHaveLength(rows.length);
  expect(readdirSync(folder)).toEqual(["rows.jsonl"]);

  const { stdout: table } = await bench("--table", file, "--markdown");
  expect(table).toContain("| layer_norm | workgroup");
  expect(table).toContain("An older machine");
});

/** One run for two tests. */
let printed: Promise<Awaited<ReturnType<typeof bench>>> | undefined;
async function printedRows() {
  const filter = "layer_norm|^model (reading|loading)";
  printed ??= bench("--quick", "--planned", "--rounds", "1", "--filter", filter, "--json", "-");
  const { stdout, stderr, code } = await printed;
  expect({ stderr, code }).toEqual({ stderr: "", code: 0 });
  return parseRows(stdout);
}

test("--json - prints the rows, and nothing else; --planned of the variants that are used", async () => {
  const measured = (await printedRows()).filter(({ kernel }) => kernel === "layer_norm");
  expect(measured.map(({ planned }) => planned)).toEqual([true]);
  expect(measured[0].adapter).not.toBe("");
});

test("loading: as stored, as int8 and as int4, beside a plain read of the files, and every bit is looked at", async () => {
  const measured = (await printedRows()).filter(({ kernel }) => kernel === "model");
  expect(measured.map(({ variant }) => variant)).toEqual(["reading", "loading", "loading int8", "loading int4"]);
  expect(measured.map(({ check }) => check?.share)).toEqual([undefined, 0, 0, 0]);
  for (const { ms, gbs, bytes } of measured) {
    expect(bytes).toBe(measured[0].bytes);
    expect(gbs).toBeCloseTo(bytes / ms! / 1e6, 10);
  }
});

test("--compare: a table and the exit code", async () => {
  const files = [1, 1.5].map((by) => {
    const path = join(folder, `${by}.jsonl`);
    const times = [1, 1.01, 1.02, 1.03, 1.04].map((ms) => by * ms);
    writeFileSync(path, formatRows(times.map((cpu_ms) => row({ basis: "cpu", cpu_ms }))));
    return path;
  });
  const { stdout, stderr, code } = await bench("--compare", ...files);
  expect({ stderr, code }).toEqual({ stderr: "", code: 3 });
  expect(stdout).toMatch(/^layer_norm workgroup vit R257 D1408 .* \+50\.0 % /m);
  const [base] = files;
  const same = await bench("--compare", `${base},${base}`, base, "--json", "-");
  expect(same.code).toBe(0);
  expect(JSON.parse(same.stdout)).toMatchObject({ geometric_mean: 1, rows: [{ base: { n: 10 }, change: "none" }] });
});

test("--list names every case and measures nothing", async () => {
  const { stdout, code } = await bench("--quick", "--list", "--filter", "layer_norm|decode");
  expect(code).toBe(0);
  const lines = stdout.trimEnd().split("\n");
  expect(lines).toContain("layer_norm invocation small R33 D352");
  expect(lines.at(-1)).toMatch(/^model decode /);
});

test("--tune --quick: the variants of one op are compared, and what is chosen is used", async () => {
  const path = join(folder, "plan.json");
  const { stdout, stderr, code } = await bench(..."--tune --quick --rounds 1 --filter rms_norm --out".split(" "), path);
  expect(stderr).toBe("");
  expect(code).toBe(0);
  expect(stdout).toMatch(/^op +sizes +by rule +chosen +gain\nrow +M <= 64 +\w+ +[\w ]+ +\d+\.\d\d x\n\nkept in /);
  const [[key, { choices }], ...others] = parseTunedFile(path, await readFile(path, "utf8"));
  expect(others).toEqual([]);
  expect(key).toContain("webgpu ");
  expect(Object.keys(choices)).toEqual(["row"]);
  expect(VARIANTS.row).toContain(choices.row!["M <= 64"]);

  vi.stubEnv("INSTRUCTBLIP_PLAN", `@${path}`);
  const device = await openDevice();
  expect(device.caps.tuned).toEqual(choices);
  device.destroy();
  vi.unstubAllEnvs();
});

test.each([
  [["--out", "x"], "--out goes with --tune", 2],
  [["--tune", "--json", "x"], "--json does not go with --tune", 2],
  [["--tune", "--filter", "rope_append"], "--filter: no op with several variants matches /rope_append/", 2],
  [["--rounds", "0"], '--rounds must be a whole number from 1 to 9999, got "0"', 2],
  [["--filter", "("], "--filter: Invalid regular expression", 2],
  [["--filter", "layernorm"], "--filter: no case matches /layernorm/", 2],
  [["--shape", "M=1"], '--shape "M=1": no op has these sizes', 2],
  [["--compare", "a"], "--compare takes two files, BASE and NEW", 2],
  [["--compare", "a", "b", "--quick"], "--quick does not go with --compare", 2],
  [["--compare", "a", "b", "--clock", "sun"], '--clock: "sun" is not one of cpu, gpu, wall, first', 2],
  [["--against", "HEAD", "--tune"], "--tune does not go with --against", 2],
  [["--runs", "3"], "--runs goes with --against or --self-test", 2],
  [["--fast"], "Unknown option '--fast'", 2],
  [["--table", join(folder, "absent.jsonl")], "absent.jsonl: no such file or folder", 1],
])("%s is refused", async (args, message, expected) => {
  const { stdout, stderr, code } = await bench(...args);
  expect(stderr).toContain(`error: `);
  expect(stderr).toContain(message);
  expect(stderr).not.toContain("    at ");
  expect({ stdout, code }).toEqual({ stdout: "", code: expected });
});
