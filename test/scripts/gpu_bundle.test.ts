/** The runner in the bundle of `npm run gpu:bundle`, with fake programs; with INSTRUCTBLIP_TEST_ALL the bundle itself. */
import { execFileSync, spawnSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, onTestFinished, test } from "vitest";
// @ts-expect-error: plain JavaScript, without types
import { unpackSwiftShader } from "../../scripts/setup.mjs";
import { ALL } from "../rounds.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));

function temporary(): string {
  const folder = mkdtempSync(join(tmpdir(), "instructblip-bundle-"));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

const PROGRAMS = { doctor: "src/instructblip/cli/main.js", bench: "bench/main.js", peers: "bench/peers/main.js" };

/** A bundle whose programs end as told, or run the text that is given instead of an exit code. */
function fake(exits: { readonly [P in keyof typeof PROGRAMS]: number | string }): string {
  const folder = temporary();
  for (const name of ["run.sh", "run.mjs", "torch_times.py"])
    cpSync(join(ROOT, "scripts/gpu", name), join(folder, name));
  writeFileSync(join(folder, "bundle.json"), '{"bundle":"0.0.0","commit":"abc","node":"v0"}\n');
  mkdirSync(join(folder, "bin"));
  writeFileSync(join(folder, "bin/node"), `#!/bin/sh\nexec ${process.execPath} "$@"\n`, { mode: 0o755 });
  for (const [name, path] of Object.entries(PROGRAMS)) {
    mkdirSync(dirname(join(folder, "app", path)), { recursive: true });
    const exit = exits[name as keyof typeof PROGRAMS];
    const end = typeof exit === "string" ? exit : `process.exit(${exit})`;
    const text = `console.log("${name} runs", ...process.argv.slice(2)); console.error("to the log"); ${end}`;
    writeFileSync(join(folder, "app", path), text);
  }
  return folder;
}

function runIn(folder: string, ...args: string[]) {
  return runWith({}, folder, ...args);
}

function runWith(more: Readonly<Record<string, string>>, folder: string, ...args: string[]) {
  const env = { ...process.env, PYTHON: "no-such-python", ...more };
  const { status, stdout, stderr } = spawnSync(join(folder, "run.sh"), args, { encoding: "utf8", env });
  return { status, stdout, stderr };
}

const resultOf = (folder: string) => JSON.parse(readFileSync(join(folder, "results/run.json"), "utf8"));

test("every step runs and leaves a log", () => {
  const folder = fake({ doctor: 0, bench: 0, peers: 0 });
  const { status, stdout, stderr } = runIn(folder);
  expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
  for (const name of Object.keys(PROGRAMS)) expect(stdout).toContain(`\n${name} runs `);
  const filters = [...stdout.matchAll(/^bench runs (?:--planned --filter (\S+) )?--rounds/gm)].map(
    ([, filter]) => filter,
  );
  expect(filters).toEqual([expect.stringContaining("linear"), expect.stringContaining("?!linear"), undefined]);
  expect(readFileSync(join(folder, "results/bench.log"), "utf8")).toMatch(/to the log/);
  const { commit, steps } = resultOf(folder);
  expect(commit).toBe("abc");
  expect(steps).toEqual([
    ...Object.keys(PROGRAMS).map((step) => ({ step, seconds: expect.any(Number), exit: 0 })),
    { step: "torch", skipped: "there is no no-such-python" },
  ]);
});

test("a step that finds something wrong keeps no other from running, and is the exit code", () => {
  const folder = fake({ doctor: 1, bench: 0, peers: 7 });
  const { status, stdout } = runIn(folder);
  expect(status).toBe(1);
  expect(stdout).toMatch(/\nto the log\n== doctor: exit code 1 after .* s; see results\/doctor\.log\n/);
  expect(resultOf(folder).steps.map(({ exit }: { exit?: number }) => exit)).toEqual([1, 0, 7, undefined]);
});

/** Writes doctor's report. */
const reportText = (usedChecked: boolean, wrong: number, software = false) =>
  `require("node:fs").writeFileSync(process.argv.at(-1), ${JSON.stringify(
    JSON.stringify({
      usedChecked,
      checks: [{ wrong: Array(wrong).fill({}) }],
      adapter: { description: "G", software },
    }),
  )});`;
const FOREVER = "setInterval(() => {}, 1000);";
/** 3.4 s for doctor. */
const SHORT = { TIMES: "0.02" };

test("a step that runs out of time is no failure if nothing is wrong so far", () => {
  const folder = fake({ doctor: reportText(true, 0) + FOREVER, bench: 0, peers: 0 });
  const { status, stdout } = runWith(SHORT, folder, "doctor");
  expect(status).toBe(0);
  expect(stdout).toMatch(/\n== doctor: ended, out of time after .* s; results\/doctor\.json has what was done\n/);
  const { steps, adapter } = resultOf(folder);
  expect(steps).toMatchObject([{ step: "doctor", timedOut: true }]);
  expect(adapter).toEqual({ description: "G", software: false });
});

test.runIf(ALL)("but if doctor had not seen everything that is used, or something is wrong; and rows are shown", () => {
  for (const report of [reportText(false, 0), reportText(true, 1)]) {
    expect(runWith(SHORT, fake({ doctor: report + FOREVER, bench: 0, peers: 0 }), "doctor").status).toBe(1);
  }
  const rows = `process.argv.includes("--table") ? process.exit() : require("node:fs").writeFileSync(process.argv.at(-1), "");`;
  const { stdout } = runWith(SHORT, fake({ doctor: 0, bench: rows + FOREVER, peers: FOREVER }), "bench", "peers");
  expect(stdout).toMatch(/\nbench runs --table .*bench\.jsonl\n== bench: ended, out of time/);
  expect(stdout).not.toMatch(/peers runs --table/); // which wrote none
  expect(stdout).toMatch(/== peers: ended, out of time after .* s; no result was there yet\n/);
});

test("says what to do where there is no GPU", () => {
  const none = `console.error("error: no WebGPU adapter: …"); process.exit(1);`;
  const { status, stdout } = runIn(fake({ doctor: none, bench: 0, peers: 0 }));
  expect(status).toBe(1);
  expect(stdout).toMatch(
    /error: no WebGPU adapter: …\n== doctor: exit code 1 .*\n== no GPU was found.*\n.*VK_DRIVER_FILES=/,
  );
  expect(stdout).toContain("== bench: skipped: there is no adapter\n");
  const software = fake({ doctor: `${reportText(true, 0, true)}process.exit(0);`, bench: 0, peers: 0 });
  expect(runIn(software, "doctor")).toMatchObject({ status: 0, stdout: expect.stringContaining("no GPU was found") });
});

test("a step alone, help, a step that there is not, and a time that is no number", () => {
  const folder = fake({ doctor: 0, bench: 1, peers: 1 });
  expect(runIn(folder, "doctor").status).toBe(0);
  expect(resultOf(folder).steps).toHaveLength(1);
  expect(runIn(folder, "--help")).toMatchObject({ status: 0, stdout: expect.stringContaining("usage: ./run.sh") });
  expect(runWith({ TIMES: "two" }, folder)).toMatchObject({ status: 2, stderr: expect.stringContaining("got two") });
  expect(runIn(folder, "docter")).toMatchObject({ status: 2, stdout: "", stderr: expect.stringContaining("docter") });
});

test("all steps together may take less than 8 minutes", () => {
  const text = readFileSync(join(ROOT, "scripts/gpu/run.mjs"), "utf8");
  const seconds = [...text.matchAll(/seconds: (\d+),\s+commands/g)].map(([, n]) => Number(n));
  expect(seconds).toHaveLength(4);
  expect(seconds.reduce((a, b) => a + b)).toBeLessThanOrEqual(480 - 4 * 5); // each may take 5 more to end
});

/** The libraries that files need, by the loader's own word. */
function librariesOf(files: readonly string[]): string[] {
  const listed = files.map((file) => execFileSync("ldd", [file], { encoding: "utf8" })).join("");
  return [...new Set([...listed.matchAll(/(?:=> |^\s+)(\/\S+)/gm)].map(([, path]) => path))];
}

const CAN_CHROOT = process.platform === "linux" && process.arch === "x64" && process.getuid?.() === 0;

test.runIf(ALL && CAN_CHROOT)(
  "the bundle checks an adapter in a root with libc and a driver alone",
  { timeout: 900_000 },
  async () => {
    const root = temporary();
    const file = join(root, "bundle.tar.gz");
    execFileSync(process.execPath, ["scripts/gpu_bundle.mjs", file], { cwd: ROOT });
    expect(statSync(file).size).toBeLessThan(60 * 2 ** 20);
    execFileSync("tar", ["-C", root, "-xzf", file]);
    rmSync(file);

    unpackSwiftShader(
      readFileSync(join(ROOT, "node_modules/@sparticuz/chromium/bin/swiftshader.tar.br")),
      join(root, "driver"),
    );
    const driver = join(root, "driver/libvk_swiftshader.so");
    for (const name of ["dev", "tmp", "bin"]) mkdirSync(join(root, name));
    execFileSync("mknod", [join(root, "dev/null"), "c", "1", "3"]);
    execFileSync("mknod", [join(root, "dev/urandom"), "c", "1", "9"]);
    cpSync("/bin/sh", join(root, "bin/sh"), { dereference: true });
    const app = join(root, "instructblip-gpu/app/node_modules");
    const vips = join(app, "@img/sharp-libvips-linux-x64/lib");
    const programs = [
      ...["/bin/sh", process.execPath, driver, join(app, "webgpu/dist/linux-x64/dawn.node")],
      ...readdirSync(vips).flatMap((name) => (name.includes(".so") ? [join(vips, name)] : [])),
    ];
    for (const library of librariesOf(programs)) cpSync(library, join(root, library), { dereference: true });

    const doctor = "/instructblip-gpu/app/src/instructblip/cli/main.js doctor --quick --filter 'scale|answers int4'";
    const command = `LD_LIBRARY_PATH=/instructblip-gpu/lib /instructblip-gpu/bin/node ${doctor}`;
    const { status, stdout } = spawnSync("chroot", [root, "/bin/sh", "-c", command], {
      encoding: "utf8",
      env: { PATH: process.env.PATH, VK_DRIVER_FILES: "/driver/vk_swiftshader_icd.json" },
    });
    expect({ status, stdout }).toEqual({
      status: 0,
      stdout: expect.stringMatching(/SwiftShader[\s\S]*computes right\n$/),
    });
  },
);
