/** scripts/setup.mjs: its decisions, on simulated machines. */

import { execFileSync, spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { brotliCompressSync } from "node:zlib";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
// @ts-expect-error: plain JavaScript, as it runs before TypeScript is installed.
import * as setup from "../../scripts/setup.mjs";
import { dawnFolder } from "../../src/tensor/device/gpu.node.ts";

const ROOT = join(import.meta.dirname, "../..");
let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "setup-test-"));
});

afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

test.each([
  ["v18.20.4", false],
  ["v20.18.3", false],
  ["v20.19.0", true],
  ["v20.20.2", true],
  ["v22.0.0", true],
])("Node %s is new enough: %s", (version, enough) => {
  expect(setup.nodeProblem(version) === undefined).toBe(enough);
});

describe("packagesProblem", () => {
  const lock = {
    packages: {
      "": { name: "root" },
      "node_modules/a": { version: "1.0.0", integrity: "sha512-a" },
      "node_modules/a-linux": { version: "1.0.0", integrity: "sha512-l", optional: true, os: ["linux"], cpu: ["x64"] },
      "node_modules/a-darwin": { version: "1.0.0", integrity: "sha512-d", optional: true, os: ["darwin"] },
    },
  };
  const { "": _root, "node_modules/a-darwin": _darwin, ...here } = lock.packages;
  const problem = (installed: unknown, exists: (path: string) => boolean = () => true): string | undefined =>
    setup.packagesProblem(lock, installed, exists, "linux", "x64");

  test("is undefined for what npm ci leaves, without the other platforms' packages", () => {
    expect(problem({ packages: here })).toBeUndefined();
  });

  test("names what differs", () => {
    const a = here["node_modules/a"];
    expect(problem(undefined)).toBe("no complete node_modules");
    expect(problem({ packages: {} })).toBe("node_modules/a is missing");
    expect(problem({ packages: { ...here, "node_modules/a": { ...a, version: "1.0.1" } } })).toContain(
      "another version",
    );
    expect(problem({ packages: { ...here, "node_modules/a": { ...a, integrity: "x" } } })).toContain("another version");
    expect(problem({ packages: { ...here, "node_modules/b": a } })).toContain("node_modules/b is not in");
    expect(problem({ packages: here }, (path) => path !== "node_modules/a/package.json")).toBe(
      "node_modules/a is missing",
    );
  });

  test("sees packages of another machine", () => {
    expect(setup.packagesProblem(lock, { packages: here }, () => true, "linux", "arm64")).toContain("another platform");
    expect(setup.packagesProblem(lock, { packages: here }, () => true, "darwin", "x64")).toContain("another platform");
  });
});

describe("a repository whose npm ci fails", () => {
  /** setup.mjs in a repository of one package, with `npm` in place of npm. PATH is empty: no apt-get can be run. */
  function run(args: string[], npm = "") {
    const npmPath = join(folder, "npm-cli.js");
    writeFileSync(npmPath, npm);
    const env = { PATH: "", npm_execpath: npmPath };
    return spawnSync(process.execPath, ["scripts/setup.mjs", ...args], {
      cwd: folder,
      env,
      encoding: "utf8",
      timeout: 60_000,
    });
  }

  beforeEach(() => {
    mkdirSync(join(folder, "scripts"));
    for (const part of ["setup.mjs", "setup"]) {
      cpSync(join(ROOT, "scripts", part), join(folder, "scripts", part), { recursive: true });
    }
    writeFileSync(join(folder, "package.json"), `{ "type": "commonjs" }`);
    writeFileSync(join(folder, "package-lock.json"), `{ "packages": { "node_modules/a": { "version": "2.0.0" } } }`);
  });

  test("shows npm's output and a remedy, and is not taken for done", () => {
    const half = `require("fs").mkdirSync("node_modules/a", { recursive: true }); console.log("no network"); process.exit(1)`;
    const first = run([], half);
    expect(first.status).toBe(1);
    expect(first.stderr).toContain("no network");
    expect(first.stderr).toContain("remedy:");
    const check = run(["--check"]);
    expect(check.status).toBe(1);
    expect(check.stderr).toContain("npm ci would be run");
  });

  test("does not let the record of an earlier installation stand", () => {
    // npm dies before it touches anything; afterwards package-lock.json goes back to what that record says.
    mkdirSync(join(folder, "node_modules/a"), { recursive: true });
    writeFileSync(join(folder, "node_modules/a/package.json"), "{}");
    writeFileSync(
      join(folder, "node_modules/.package-lock.json"),
      `{ "packages": { "node_modules/a": { "version": "1.0.0" } } }`,
    );
    expect(run([], `process.kill(process.pid, "SIGKILL")`).status).toBe(1);
    writeFileSync(join(folder, "package-lock.json"), `{ "packages": { "node_modules/a": { "version": "1.0.0" } } }`);
    expect(run(["--check"]).stderr).toContain("npm ci would be run");
  });
});

test("an unknown argument is refused, --help is not", () => {
  const run = (arg: string) => spawnSync(process.execPath, ["scripts/setup.mjs", arg], { cwd: ROOT, encoding: "utf8" });
  expect(run("--chekc")).toMatchObject({ status: 2, stderr: expect.stringContaining("--chekc") });
  expect(run("--help")).toMatchObject({ status: 0, stdout: expect.stringContaining("--check") });
});

test("probeReason takes the first line that matters", () => {
  const harmless =
    "Warning: maxDynamicUniformBuffersPerPipelineLayout artificially reduced from 1000000 to 16 to fit.\n";
  const old = "Warning: Vulkan shaderUniform*ArrayDynamicIndexing required.\n    at PhysicalDeviceVk.cpp:312\n";
  expect(setup.probeReason({ signal: null, output: harmless + old })).toBe(
    "Vulkan shaderUniform*ArrayDynamicIndexing required.",
  );
  expect(setup.probeReason({ signal: null, output: harmless })).toBe("no Vulkan device");
  expect(setup.probeReason({ signal: "SIGSEGV", output: "" })).toContain("SIGSEGV");
});

describe("apt", () => {
  const deb822 = `Types: deb
# http://snapshot.example/archive/20250520T000000Z
URIs: http://archive.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://archive.example/debian-security
Suites: bookworm-security
Components: main

Types: deb-src
URIs: http://archive.example/debian
Suites: bookworm-backports
Components: main

Enabled: no
Types: deb
URIs: http://archive.example/debian
Suites: bookworm-backports
Components: main
`;
  const oneLine = `# deb http://commented.example/debian bookworm-backports main
deb-src http://archive.example/debian bookworm main
deb [ signed-by=/a.gpg,/b.gpg arch=amd64 ] http://archive.example/debian bookworm main contrib # the archive
deb http://archive.example/debian-security bookworm-security main
`;
  const bookworm = { ID: "debian", VERSION_CODENAME: "bookworm" };

  test("os-release is read, quoted or not", () => {
    const text = `PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nVERSION_ID='12'\nID=debian\nVERSION_CODENAME=bookworm\n`;
    expect(setup.parseOsRelease(text)).toEqual({
      PRETTY_NAME: "Debian GNU/Linux 12 (bookworm)",
      VERSION_ID: "12",
      ID: "debian",
      VERSION_CODENAME: "bookworm",
    });
  });

  test("deb822 sources are read; deb-src and disabled ones are not", () => {
    expect(setup.parseAptSources(deb822, "debian.sources")).toEqual([
      {
        uris: ["http://archive.example/debian"],
        suites: ["bookworm", "bookworm-updates"],
        components: ["main", "contrib"],
        fields: { "Signed-By": "/usr/share/keyrings/debian-archive-keyring.gpg" },
      },
      {
        uris: ["http://archive.example/debian-security"],
        suites: ["bookworm-security"],
        components: ["main"],
        fields: {},
      },
    ]);
  });

  test("one-line sources are read with their options", () => {
    expect(setup.parseAptSources(oneLine, "sources.list")).toEqual([
      {
        uris: ["http://archive.example/debian"],
        suites: ["bookworm"],
        components: ["main", "contrib"],
        fields: { "Signed-By": "/a.gpg /b.gpg", Architectures: "amd64" },
      },
      {
        uris: ["http://archive.example/debian-security"],
        suites: ["bookworm-security"],
        components: ["main"],
        fields: {},
      },
    ]);
  });

  test("Debian 12 gets backports from the archive in use, with the same key", () => {
    const plan = setup.lavapipePlan(bookworm, setup.parseAptSources(deb822, "debian.sources"));
    expect(plan.release).toBe("bookworm-backports");
    expect(plan.addSource).toBe(`Types: deb
URIs: http://archive.example/debian
Suites: bookworm-backports
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
`);
    // What is written can be read, and is then found.
    const after = setup.parseAptSources(deb822 + "\n" + plan.addSource, "debian.sources");
    expect(setup.lavapipePlan(bookworm, after)).toEqual({ packages: plan.packages, release: "bookworm-backports" });
  });

  test("a key written out in Signed-By is copied whole", () => {
    const key = "Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQINBF\n -----END PGP PUBLIC KEY BLOCK-----";
    const text = `Types: deb\nURIs: http://archive.example/debian\nSuites: bookworm\nComponents: main\n${key}\n`;
    const plan = setup.lavapipePlan(bookworm, setup.parseAptSources(text, "x.sources"));
    expect(plan.addSource).toContain(".\n mQINBF\n -----END");
    expect(setup.parseAptSources(plan.addSource, "y.sources")[0].fields).toEqual(
      setup.parseAptSources(text, "x.sources")[0].fields,
    );
  });

  test("later releases install plainly, and an archive that is not Debian 12's is not guessed at", () => {
    for (const release of [
      { ID: "debian", VERSION_CODENAME: "trixie" },
      { ID: "ubuntu", ID_LIKE: "debian", VERSION_CODENAME: "noble" },
    ]) {
      expect(setup.lavapipePlan(release, [])).toEqual({ packages: ["mesa-vulkan-drivers", "libvulkan1"] });
    }
    expect(() => setup.lavapipePlan(bookworm, [])).toThrow("no archive of Debian 12");
  });

  test("its first error is the one shown", () => {
    const output =
      "Hit:1 http://a.example\nErr:2 http://archive.example/debian bookworm\nE: Unable to locate package\n";
    expect(setup.aptFailure(output)).toBe("apt-get failed (Err:2 http://archive.example/debian bookworm)");
    expect(setup.aptFailure("E: dpkg was interrupted\n")).toBe("apt-get failed (dpkg was interrupted)");
    expect(setup.aptFailure("")).toBe("apt-get failed (no error message)");
  });
});

describe("untar", () => {
  const contents: Record<string, Buffer> = {
    empty: Buffer.alloc(0),
    block: Buffer.alloc(512, 7),
    "folder/odd": Buffer.from(Array.from({ length: 1234 }, (_, i) => i % 251)),
  };
  let archive: Buffer;

  beforeEach(() => {
    mkdirSync(join(folder, "folder"));
    for (const [name, data] of Object.entries(contents)) writeFileSync(join(folder, name), data);
    archive = execFileSync("tar", ["-C", folder, "-cf", "-", "empty", "block", "folder"]);
  });

  test("reads what tar wrote, folders left out", () => {
    const files: { name: string; data: Buffer }[] = setup.untar(archive);
    expect(Object.fromEntries(files.map(({ name, data }) => [name, Buffer.from(data)]))).toEqual(contents);
  });

  test("throws on an archive cut anywhere before its end mark", () => {
    // Headers: empty, block + 1 block of data, folder/, folder/odd + 3 blocks; then zero blocks.
    for (let length = 0; length < 8 * 512; length += 100) {
      expect(() => setup.untar(archive.subarray(0, length)), `${length} bytes`).toThrow("ends too early");
    }
  });

  test("throws on a damaged header", () => {
    archive[124 + 512] ^= 1;
    expect(() => setup.untar(archive)).toThrow("damaged tar header at byte 512");
  });
});

describe("unpackSwiftShader", () => {
  const archive = readFileSync(join(ROOT, "node_modules/@sparticuz/chromium/bin/swiftshader.tar.br"));

  test("leaves the driver, its loader and a manifest that names the driver, in place of what was there", () => {
    const target = join(folder, "new/cache/swiftshader");
    mkdirSync(target, { recursive: true });
    writeFileSync(join(target, "left-over"), "");
    setup.unpackSwiftShader(archive, target);
    const [dawn, ...others] = readdirSync(target).sort();
    expect(others).toEqual(["libvk_swiftshader.so", "libvulkan.so.1", "vk_swiftshader_icd.json"]);
    expect(join(target, dawn)).toBe(dawnFolder(target));
    expect(readdirSync(join(target, dawn)).sort()).toEqual(["dawn.node", "libvulkan.so.1"]);
    expect(readdirSync(join(folder, "new/cache"))).toEqual(["swiftshader"]);
    const manifest = JSON.parse(readFileSync(join(target, "vk_swiftshader_icd.json"), "utf8"));
    expect(existsSync(join(target, manifest.ICD.library_path))).toBe(true);
    expect(readFileSync(join(target, "libvk_swiftshader.so")).subarray(0, 4).toString("latin1")).toBe("\x7fELF");
  });

  test("leaves nothing when it fails", () => {
    writeFileSync(join(folder, "libvulkan.so.1"), "");
    const other = brotliCompressSync(execFileSync("tar", ["-C", folder, "-cf", "-", "libvulkan.so.1"]));
    expect(() => setup.unpackSwiftShader(other, join(folder, "cache/swiftshader"))).toThrow(
      "lacks libvk_swiftshader.so",
    );
    expect(readdirSync(join(folder, "cache"))).toEqual([]);
  });

  test("of the installed package is the one that the lock has", () => {
    const { packages } = JSON.parse(readFileSync(join(ROOT, "package-lock.json"), "utf8"));
    const { version, integrity } = packages["node_modules/@sparticuz/chromium"];
    expect(setup.SWIFTSHADER).toEqual({ package: `@sparticuz/chromium@${version}`, integrity });
  });

  test("names the remedy when the folder cannot be made", () => {
    writeFileSync(join(folder, "file"), "");
    const empty = brotliCompressSync(Buffer.alloc(1024));
    expect(() => setup.unpackSwiftShader(empty, join(folder, "file/swiftshader"))).toThrow("INSTRUCTBLIP_CACHE");
  });
});
