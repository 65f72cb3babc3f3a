/** gpu.node.ts: the choice of the adapter, keeping GPU objects alive, and machines without a driver. */

import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test, vi } from "vitest";
// @ts-expect-error: plain JavaScript.
import { unpackSwiftShader } from "../../scripts/setup.mjs";
import { SUBGROUP_MATRIX } from "../../src/tensor/device/caps.ts";
import { createGPU, requestBestAdapter, swiftShaderFolder } from "../../src/tensor/device/gpu.node.ts";
import { compiled } from "../compiled.ts";
import { withoutDawn } from "../dawn.ts";

const ROOT = join(import.meta.dirname, "../..");

/** `code` as a module of its own, run by Node in the repository, after `engine` was imported. */
const script = (code: string) => `import * as engine from "${compiled("src/tensor/device/gpu.node.ts")}";\n${code}`;

const COMPUTE = script(`
import { globals } from "webgpu";
const { GPUBufferUsage, GPUMapMode } = globals;
const adapter = await engine.requestBestAdapter(engine.createGPU());
if (!adapter) throw new Error("no adapter");
globalThis.gc?.();
const device = await adapter.requestDevice();
const size = 4 * 1000;
const y = device.createBuffer({ size, usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC });
const out = device.createBuffer({ size, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
const module = device.createShaderModule({ code: \`
  @group(0) @binding(0) var<storage, read_write> y: array<u32>;
  @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
    if (id.x < arrayLength(&y)) { y[id.x] = id.x * id.x; }
  }\` });
const pipeline = device.createComputePipeline({ layout: "auto", compute: { module } });
const encoder = device.createCommandEncoder();
const pass = encoder.beginComputePass();
pass.setPipeline(pipeline);
const entries = [{ binding: 0, resource: { buffer: y } }];
pass.setBindGroup(0, device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }));
pass.dispatchWorkgroups(16);
pass.end();
encoder.copyBufferToBuffer(y, 0, out, 0, size);
device.queue.submit([encoder.finish()]);
globalThis.gc?.();
await out.mapAsync(GPUMapMode.READ);
const wrong = [...new Uint32Array(out.getMappedRange())].findIndex((value, i) => value !== i * i);
console.log(JSON.stringify({ wrong, architecture: adapter.info.architecture, drivers: process.env.VK_DRIVER_FILES }));
`);

/** A child that hangs instead of crashing must fail its test, which vitest's own limit cannot end. */
const OPTIONS = { cwd: ROOT, encoding: "utf8", timeout: 60_000, killSignal: "SIGKILL" } as const;

/** Arguments to Node for running a module given as text. */
const MODULE = ["--input-type=module", "-e"];

test.each<[NodeJS.ProcessEnv, string]>([
  [{}, "/home/me/.cache/instructblip-webgpu/swiftshader-147.0.0"],
  [{ XDG_CACHE_HOME: "/x" }, "/x/instructblip-webgpu/swiftshader-147.0.0"],
  [{ XDG_CACHE_HOME: "relative" }, "/home/me/.cache/instructblip-webgpu/swiftshader-147.0.0"],
  [{ XDG_CACHE_HOME: "" }, "/home/me/.cache/instructblip-webgpu/swiftshader-147.0.0"],
  [{ XDG_CACHE_HOME: "/x", INSTRUCTBLIP_CACHE: "/own" }, "/own/swiftshader-147.0.0"],
])("with %j SwiftShader's folder is %s", (env, folder) => {
  expect(swiftShaderFolder(env, "/home/me")).toBe(folder);
});

describe("requestBestAdapter", () => {
  const hardware = { info: { isFallbackAdapter: false } } as GPUAdapter;
  const software = { info: { isFallbackAdapter: true } } as GPUAdapter;

  /** A GPU that answers each power preference with an adapter. */
  const fakeGPU = (preferred: GPUAdapter, first: GPUAdapter) =>
    ({
      requestAdapter: async (options?: GPURequestAdapterOptions) =>
        options?.powerPreference === "high-performance" ? preferred : first,
    }) as GPU;

  test("takes hardware wherever Dawn ranks it", async () => {
    expect(await requestBestAdapter(fakeGPU(hardware, software))).toBe(hardware);
    // A virtual GPU: ranked after llvmpipe, yet first in the driver's order.
    expect(await requestBestAdapter(fakeGPU(software, hardware))).toBe(hardware);
    expect(await requestBestAdapter(fakeGPU(software, software))).toBe(software);
  });

  test("names the adapters there are when none has the name asked for", async () => {
    const found = await requestBestAdapter(createGPU());
    const named = requestBestAdapter(createGPU({ adapter: "no such adapter" }));
    // Without a driver of the system's there are none to name; SwiftShader from the cache is for when none is asked for.
    if (/swiftshader/i.test(found!.info.description)) return expect(await named).toBeNull();
    await expect(named).rejects.toMatchObject({
      code: "NO_ADAPTER",
      message: expect.stringMatching(/"no such adapter".*there are: \w/),
    });
    expect(found).not.toBeNull();
  });

  test("gives the null back end, which validates WGSL without a driver", async () => {
    const adapter = await requestBestAdapter(createGPU({ backend: "null", toggles: ["allow_unsafe_apis"] }));
    const device = await adapter!.requestDevice();
    const compile = async (code: string) => (await device.createShaderModule({ code }).getCompilationInfo()).messages;
    expect(await compile("const a: u32 = 1u;")).toEqual([]);
    device.pushErrorScope("validation");
    expect((await compile("const a: u32 = 1.5;")).map((message) => message.type)).toEqual(["error"]);
    expect(await device.popErrorScope()).not.toBeNull();
    device.destroy();
  });
});

test("INSTRUCTBLIP_DAWN_TOGGLES switches on what Dawn keeps behind toggles", async () => {
  const matrices = async () =>
    (await requestBestAdapter(createGPU({ backend: "null" })))!.features.has(SUBGROUP_MATRIX);
  expect(await matrices()).toBe(false);
  vi.stubEnv("INSTRUCTBLIP_DAWN_TOGGLES", "allow_unsafe_apis");
  expect(await matrices()).toBe(true);
  vi.unstubAllEnvs();
});

test("a GPU leaves the globals and the environment as they were", async () => {
  const before = { globals: Object.getOwnPropertyNames(globalThis).sort(), env: { ...process.env } };
  await requestBestAdapter(createGPU());
  expect({ globals: Object.getOwnPropertyNames(globalThis).sort(), env: { ...process.env } }).toEqual(before);
});

test("the GPU object outlives every garbage collection, and the process ends by itself", () => {
  const output = execFileSync(process.execPath, ["--expose-gc", ...MODULE, COMPUTE], OPTIONS);
  expect(JSON.parse(output).wrong).toBe(-1);
});

describe.skipIf(process.platform === "win32")("while devices are opened, nothing of the process changes hands", () => {
  /** Runs code with stderr in a shell's pipe, as Node's own are sockets; what it wrote, without Dawn's own lines. */
  const throughPipe = (code: string) => {
    const folder = mkdtempSync(join(tmpdir(), "stderr-test-"));
    try {
      const env = { ...process.env, FOLDER: folder };
      const command = `("$0" "$@"; echo "status $?" >&2) 2>&1 >"$FOLDER/stdout" | cat`;
      const { stdout } = spawnSync("sh", ["-c", command, process.execPath, ...MODULE, code], { ...OPTIONS, env });
      return { stdout: readFileSync(join(folder, "stdout"), "utf8"), stderr: withoutDawn(stdout) };
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  };

  test("files that are opened meanwhile hold what was written to them, and stderr all that was said", () => {
    const child = throughPipe(`
      import { open, readFile } from "node:fs/promises";
      import { join } from "node:path";
      import { openDevice } from "${compiled("src/tensor/device/open_device.ts")}";
      import "${compiled("src/tensor/device/adapter.node.ts")}";
      const path = (i) => join(process.env.FOLDER, String(i));
      const files = Array.from({ length: 300 }, (_, i) => open(path(i), "w"));
      const devices = Array.from({ length: 3 }, () => openDevice());
      console.error("one");
      const more = Array.from({ length: 100 }, (_, i) => open(path(300 + i), "w"));
      await Promise.all(devices);
      console.error("two");
      for (const [i, opening] of [...files, ...more].entries()) {
        const file = await opening;
        await file.writeFile("file " + i);
        await file.close();
      }
      const wrong = [];
      for (let i = 0; i < 400; i++) if ((await readFile(path(i), "utf8")) !== "file " + i) wrong.push(i);
      console.log(JSON.stringify(wrong));
      process.exit();
    `);
    expect(child).toEqual({ stdout: "[]\n", stderr: "one\ntwo\nstatus 0\n" });
  });

  test("several worker threads open devices at once, compute and end; stderr is there still", () => {
    const child = throughPipe(`
      import { fstatSync } from "node:fs";
      import { Worker } from "node:worker_threads";
      const worker = \`
        import { parentPort } from "node:worker_threads";
        const { openDevice } = await import("${compiled("src/tensor/device/open_device.ts")}");
        await import("${compiled("src/tensor/device/adapter.node.ts")}");
        const { add } = await import("${compiled("src/tensor/ops/add.ts")}");
        const device = await openDevice();
        const x = device.tensor([1, 2], [2]);
        parentPort.postMessage([...(await add(x, x).read())]);
      \`;
      const before = fstatSync(2).ino;
      const run = () => new Promise((resolve, reject) => {
        const thread = new Worker(worker, { eval: true, execArgv: ["--input-type=module"] });
        let answer;
        thread.on("message", (message) => { answer = message; });
        thread.on("error", reject);
        thread.on("exit", (code) => resolve([code, ...answer]));
      });
      const answers = [...(await Promise.all([run(), run(), run()])), ...(await Promise.all([run(), run()]))];
      console.error("still here");
      console.log(JSON.stringify([answers, fstatSync(2).ino === before]));
    `);
    const answers = new Array(5).fill([0, 2, 4]);
    expect(child.stderr).toBe("still here\nstatus 0\n");
    expect(JSON.parse(child.stdout)).toEqual([answers, true]);
  });
});

// SwiftShader's build is for this platform alone.
describe.runIf(process.platform === "linux" && process.arch === "x64")("without a driver", () => {
  const run = (cache: string) => {
    const env = { ...process.env, INSTRUCTBLIP_CACHE: cache, VK_DRIVER_FILES: "/nonexistent" };
    return spawnSync(process.execPath, [...MODULE, COMPUTE], { ...OPTIONS, env });
  };

  test("SwiftShader is loaded from the cache folder and computes; children still look for a driver first", () => {
    const cache = mkdtempSync(join(tmpdir(), "swiftshader-test-"));
    try {
      expect(run(cache)).toMatchObject({ status: 1, stderr: expect.stringContaining("no adapter") });
      unpackSwiftShader(
        readFileSync(join(ROOT, "node_modules/@sparticuz/chromium/bin/swiftshader.tar.br")),
        swiftShaderFolder({ INSTRUCTBLIP_CACHE: cache }),
      );
      expect(JSON.parse(run(cache).stdout)).toEqual({
        wrong: -1,
        architecture: "swiftshader",
        drivers: "/nonexistent",
      });
    } finally {
      rmSync(cache, { recursive: true, force: true });
    }
  });
});
