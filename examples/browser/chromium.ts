/**
 * A headless Chromium: finding it, and the part of the DevTools protocol that check.ts needs, over a pipe.
 *
 * Source: chromedevtools.github.io/devtools-protocol; --remote-debugging-pipe: JSON messages on file descriptors 3 and 4,
 * each ended by a zero byte.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { accessSync, constants, existsSync, readFileSync } from "node:fs";
import { chmod, mkdir, mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import type { Readable, Writable } from "node:stream";
import { fileURLToPath } from "node:url";
import { brotliDecompressSync } from "node:zlib";
// @ts-expect-error: a script without types
import { untar } from "../../scripts/setup.mjs";
import { machineFolder } from "../../src/tensor/device/gpu.node.ts";

const NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge"];
/** This package is a Chromium for Linux, from which set-up takes SwiftShader. */
const PACKED = fileURLToPath(new URL("../../node_modules/@sparticuz/chromium/", import.meta.url));

/** The executable: $CHROME_PATH, else one on the PATH, else the one that came with npm ci; undefined if there is none. */
export async function findChromium(env: NodeJS.ProcessEnv = process.env): Promise<string | undefined> {
  if (env.CHROME_PATH) return env.CHROME_PATH;
  const folders = (env.PATH ?? "").split(delimiter).filter((folder) => folder !== "");
  for (const file of folders.flatMap((folder) => NAMES.map((name) => join(folder, name)))) {
    try {
      accessSync(file, constants.X_OK);
      return file;
    } catch {}
  }
  return process.platform === "linux" && process.arch === "x64" && existsSync(PACKED) ? unpack() : undefined;
}

/** Unpacks the package's Chromium, some 200 MB, into the cache folder, if it is not there. */
async function unpack(): Promise<string> {
  const { version } = JSON.parse(readFileSync(join(PACKED, "package.json"), "utf8")) as { version: string };
  const folder = join(machineFolder(), `chromium-${version}`);
  const program = join(folder, "chromium");
  if (existsSync(program)) return program;
  console.log(`unpacking Chromium ${version} into ${folder} …`);
  await mkdir(dirname(folder), { recursive: true });
  const temporary = await mkdtemp(`${folder}.`);
  try {
    const read = (name: string) => brotliDecompressSync(readFileSync(join(PACKED, "bin", name)));
    for (const { name, data } of untar(read("swiftshader.tar.br")) as { name: string; data: Uint8Array }[]) {
      await writeFile(join(temporary, name), data);
    }
    await writeFile(join(temporary, "chromium"), read("chromium.br"));
    await chmod(join(temporary, "chromium"), 0o755);
    await rm(folder, { recursive: true, force: true });
    await rename(temporary, folder);
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
  return program;
}

/** Errors that a page has logged. */
export type Complaint = string;

interface Message {
  readonly id?: number;
  readonly method?: string;
  // biome-ignore lint/suspicious/noExplicitAny: as the protocol has it, for each method another
  readonly params?: any;
  // biome-ignore lint/suspicious/noExplicitAny: the same
  readonly result?: any;
  readonly error?: { readonly message: string };
}

/** The longest of the tasks that a page's main thread has run. */
export interface LongestTask {
  /** Of the processor: what other programs take does not count. */
  readonly cpuMs: number;
  readonly wallMs: number;
  readonly tasks: number;
}

/** An event of a trace. Source: Trace Event Format: complete events, metadata events; times in microseconds. */
interface TraceEvent {
  readonly name: string;
  readonly pid: number;
  readonly tid: number;
  readonly dur?: number;
  readonly tdur?: number;
  readonly args: { readonly name?: string };
}

/** A running Chromium with one page. */
export class Chromium {
  readonly complaints: Complaint[] = [];
  readonly #child: ChildProcess;
  readonly #profile: string;
  readonly #waiting = new Map<number, { resolve: (result: unknown) => void; reject: (error: Error) => void }>();
  #next = 1;
  /** Of the trace that is being recorded. */
  #events: TraceEvent[] = [];
  #traced: (() => void) | undefined;
  #session: string | undefined;
  #stderr = "";
  #ended = false;

  private constructor(child: ChildProcess, profile: string) {
    this.#child = child;
    this.#profile = profile;
    child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-4000);
    });
    const end = (reason: string) => {
      this.#ended = true;
      const error = new Error(`Chromium ${reason}\n${this.#stderr.trim()}`);
      for (const { reject } of this.#waiting.values()) reject(error);
      this.#waiting.clear();
    };
    child.on("error", (error) => end(`cannot be started: ${error.message}`));
    child.on("close", (code, signal) => end(`has ended (${signal ?? code})`));
    let text = "";
    (child.stdio[3] as Writable).on("error", () => {}); // it has ended, which is reported above
    (child.stdio[4] as Readable).setEncoding("utf8").on("data", (more: string) => {
      const messages = (text + more).split("\0");
      text = messages.pop()!;
      for (const message of messages) this.#receive(JSON.parse(message) as Message);
    });
  }

  /** Starts it with an empty page. @throws Error */
  static async start(program: string): Promise<Chromium> {
    const profile = await mkdtemp(join(tmpdir(), "instructblip-chromium-"));
    const flags = [
      "--headless=new",
      "--remote-debugging-pipe",
      `--user-data-dir=${profile}`,
      "--no-first-run",
      // On Linux WebGPU needs this flag; a software adapter is used without a GPU.
      "--enable-unsafe-webgpu",
      "--enable-unsafe-swiftshader",
      // A camera that shows a test image, and is allowed: a headless Chromium cannot ask.
      "--use-fake-device-for-media-stream",
      "--use-fake-ui-for-media-stream",
      // Chromium refuses to run as root without it, as in a container.
      ...(process.getuid?.() === 0 ? ["--no-sandbox"] : []),
    ];
    const child = spawn(program, flags, { stdio: ["ignore", "ignore", "pipe", "pipe", "pipe"] });
    const chromium = new Chromium(child, profile);
    try {
      const { targetId } = await chromium.send<{ targetId: string }>("Target.createTarget", { url: "about:blank" });
      const attached = await chromium.send<{ sessionId: string }>("Target.attachToTarget", { targetId, flatten: true });
      chromium.#session = attached.sessionId;
      for (const domain of ["Page", "Runtime", "Log"]) await chromium.send(`${domain}.enable`);
      return chromium;
    } catch (error) {
      await chromium.close();
      throw error;
    }
  }

  send<T>(method: string, params: object = {}): Promise<T> {
    if (this.#ended) return Promise.reject(new Error(`Chromium is not running\n${this.#stderr.trim()}`));
    const id = this.#next++;
    (this.#child.stdio[3] as Writable).write(`${JSON.stringify({ id, method, params, sessionId: this.#session })}\0`);
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve: resolve as (result: unknown) => void, reject });
    });
  }

  /** The value of an expression in the page. @throws Error what it threw */
  async evaluate<T>(expression: string): Promise<T> {
    const given = { expression, awaitPromise: true, returnByValue: true, userGesture: true };
    const { result, exceptionDetails } = await this.send<{
      result: { value: T };
      exceptionDetails?: { text: string; exception?: { description?: string } };
    }>("Runtime.evaluate", given);
    if (!exceptionDetails) return result.value;
    throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
  }

  /** Waits until an expression is true in the page. @throws Error after `seconds` */
  async until(expression: string, seconds = 60): Promise<void> {
    const end = performance.now() + 1000 * seconds;
    while (!(await this.evaluate<boolean>(`Boolean(${expression})`))) {
      if (performance.now() > end) throw new Error(`after ${seconds} s the page has not reached: ${expression}`);
      await new Promise((wake) => setTimeout(wake, 20));
    }
  }

  /** Runs a script in front of those of pages that `fn` opens. */
  async beforePage(source: string, fn: () => Promise<void>): Promise<void> {
    const { identifier } = await this.send<{ identifier: string }>("Page.addScriptToEvaluateOnNewDocument", { source });
    await fn();
    await this.send("Page.removeScriptToEvaluateOnNewDocument", { identifier });
  }

  /** Presses a key by its name: `Tab`, `Enter`, `ArrowDown`, ` `. */
  async press(key: string): Promise<void> {
    const text = { Enter: "\r", " ": " " }[key];
    const code = key === " " ? "Space" : key;
    const windowsVirtualKeyCode = { Tab: 9, Enter: 13, Escape: 27, " ": 32 }[key];
    await this.send("Input.dispatchKeyEvent", { type: "keyDown", key, code, text, windowsVirtualKeyCode });
    await this.send("Input.dispatchKeyEvent", { type: "keyUp", key, code, windowsVirtualKeyCode });
  }

  /** The middle of an element, which is scrolled into view. */
  async middleOf(selector: string): Promise<{ x: number; y: number }> {
    return this.evaluate(`(() => {
      const found = document.querySelector(${JSON.stringify(selector)});
      found.scrollIntoView({ block: "nearest", behavior: "instant" });
      const { left, top, width, height } = found.getBoundingClientRect();
      return { x: left + width / 2, y: top + height / 2 };
    })()`);
  }

  /** Moves the pointer to the middle of an element. */
  async point(selector: string): Promise<void> {
    await this.send("Input.dispatchMouseEvent", { type: "mouseMoved", ...(await this.middleOf(selector)) });
  }

  /** Presses the mouse's button on an element, moves over others, and lets go on the last. */
  async drag(selectors: readonly string[]): Promise<void> {
    const mouse = (type: string, at: { x: number; y: number }) =>
      this.send("Input.dispatchMouseEvent", { type, ...at, button: "left", buttons: 1, clickCount: 1 });
    let at = await this.middleOf(selectors[0]!);
    await this.send("Input.dispatchMouseEvent", { type: "mouseMoved", ...at });
    await mouse("mousePressed", at);
    for (const selector of selectors.slice(1)) {
      at = await this.middleOf(selector);
      await mouse("mouseMoved", at);
    }
    await mouse("mouseReleased", at);
  }

  async click(selector: string): Promise<void> {
    await this.drag([selector]);
  }

  /** Chooses files, or a folder, for an input. */
  async setFiles(selector: string, files: readonly string[]): Promise<void> {
    const { root } = await this.send<{ root: { nodeId: number } }>("DOM.getDocument");
    const { nodeId } = await this.send<{ nodeId: number }>("DOM.querySelector", { nodeId: root.nodeId, selector });
    await this.send("DOM.setFileInputFiles", { nodeId, files });
  }

  /** Drops files on an element. */
  async drop(selector: string, files: readonly string[]): Promise<void> {
    const at = await this.middleOf(selector);
    const data = { items: [], files, dragOperationsMask: 1 };
    for (const type of ["dragEnter", "dragOver", "drop"])
      await this.send("Input.dispatchDragEvent", { type, ...at, data });
  }

  /** Runs `fn`, and returns the longest task of the page's main thread meanwhile. */
  async longestTask(fn: () => Promise<void>): Promise<LongestTask> {
    this.#events = [];
    const complete = new Promise<void>((resolve) => {
      this.#traced = resolve;
    });
    const includedCategories = ["toplevel", "disabled-by-default-devtools.timeline"];
    await this.send("Tracing.start", { traceConfig: { includedCategories }, transferMode: "ReportEvents" });
    await fn();
    await this.send("Tracing.end");
    await complete;
    const key = ({ pid, tid }: TraceEvent) => `${pid} ${tid}`;
    const mains = this.#events.filter(({ name, args }) => name === "thread_name" && args.name === "CrRendererMain");
    const threads = new Set(mains.map(key));
    const tasks = this.#events.filter((event) => /RunTask$/.test(event.name) && threads.has(key(event)));
    const most = (of: "dur" | "tdur") => tasks.reduce((longest, task) => Math.max(longest, task[of] ?? 0), 0) / 1000;
    return { cpuMs: most("tdur"), wallMs: most("dur"), tasks: tasks.length };
  }

  /** A PNG of the page. */
  async screenshot(width: number, height: number, scheme: "light" | "dark"): Promise<Buffer> {
    await this.send("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: 1, mobile: false });
    const features = [{ name: "prefers-color-scheme", value: scheme }];
    await this.send("Emulation.setEmulatedMedia", { features });
    const { data } = await this.send<{ data: string }>("Page.captureScreenshot", { format: "png" });
    return Buffer.from(data, "base64");
  }

  async close(): Promise<void> {
    if (!this.#ended) {
      const closed = new Promise((done) => this.#child.once("close", done));
      this.#child.kill("SIGKILL");
      await closed;
    }
    // Its child processes may still be writing.
    await rm(this.#profile, { recursive: true, force: true, maxRetries: 10 });
  }

  #receive({ id, method, params, result, error }: Message): void {
    if (id !== undefined) {
      const waiting = this.#waiting.get(id);
      this.#waiting.delete(id);
      if (error) waiting?.reject(new Error(error.message));
      else waiting?.resolve(result);
    } else if (method === "Tracing.dataCollected") {
      this.#events.push(...(params.value as TraceEvent[]));
    } else if (method === "Tracing.tracingComplete") {
      this.#traced?.();
    } else if (method === "Runtime.exceptionThrown") {
      this.complaints.push(params.exceptionDetails.exception?.description ?? params.exceptionDetails.text);
    } else if (method === "Runtime.consoleAPICalled" && (params.type === "error" || params.type === "warning")) {
      this.complaints.push(
        params.args.map((arg: { value?: unknown; description?: string }) => arg.value ?? arg.description).join(" "),
      );
    } else if (method === "Log.entryAdded" && params.entry.level === "error") {
      this.complaints.push(`${params.entry.text} ${params.entry.url ?? ""}`.trim());
    }
  }
}
