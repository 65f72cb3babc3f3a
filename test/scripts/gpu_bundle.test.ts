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

/** A bundle whose programs end as told. */
function fake(exits: { readonly [P in keyof typeof PROGRAMS]: number }): string {
  const folder = temporary();
  for (const name of ["run.sh", "run.mjs", "torch_times.py"])
    cpSync(join(ROOT, "scripts/gpu", name), join(folder, name));
  writeFileSync(join(folder, "bundle.json"), '{"bundle":"0.0.0","commit":"abc","node":"v0"}\n');
  mkdirSync(join(folder, "bin"));
  writeFileSync(join(folder, "bin/node"), `#!/bin/sh\nexec ${process.execPath} "$@"\n`, { mode: 0o755 });
  for (const [name, path] of Object.entries(PROGRAMS)) {
    mkdirSync(dirname(join(folder, "app", path)), { recursive: true });
    const text = `console.log("${name} runs"); console.error("to the log"); process.exit(${exits[name as keyof typeof PROGRAMS]})`;
    writeFileSync(join(folder, "app", path), text);
  }
  return folder;
}

function runIn(folder: string, ...args: string[]) {
  const env = { ...process.env, PYTHON: "no-such-python" };
  const { status, stdout, stderr } = spawnSync(join(folder, "run.sh"), args, { encoding: "utf8", env });
  return { status, stdout, stderr };
}

const resultOf = (folder: string) => JSON.parse(readFileSync(join(folder, "results/run.json"), "utf8"));

test("every step runs and leaves a log", () => {
  const folder = fake({ doctor: 0, bench: 0, peers: 0 });
  const { status, stdout, stderr } = runIn(folder);
  expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
  for (const name of Object.keys(PROGRAMS)) expect(stdout).toContain(`\n${name} runs\n`);
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
  expect(stdout).toMatch(/== doctor: exit code 1 after/);
  expect(resultOf(folder).steps.map(({ exit }: { exit?: number }) => exit)).toEqual([1, 0, 7, undefined]);
});

test("a step alone, help, and a step that there is not", () => {
  const folder = fake({ doctor: 0, bench: 1, peers: 1 });
  expect(runIn(folder, "doctor").status).toBe(0);
  expect(resultOf(folder).steps).toHaveLength(1);
  expect(runIn(folder, "--help")).toMatchObject({ status: 0, stdout: expect.stringContaining("usage: ./run.sh") });
  expect(runIn(folder, "docter")).toMatchObject({ status: 2, stdout: "", stderr: expect.stringContaining("docter") });
});

test("all steps together may take less than 8 minutes", () => {
  const text = readFileSync(join(ROOT, "scripts/gpu/run.mjs"), "utf8");
  const seconds = [...text.matchAll(/seconds: (\d+),\s+command/g)].map(([, n]) => Number(n));
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
