/**
 * A headless Firefox: finding it, and the part of Marionette's protocol that the checks need.
 *
 * Source: firefox-source-docs.mozilla.org/testing/marionette: messages `LENGTH:[kind, id, name, parameters]` over TCP. WebGPU is
 * switched on by preferences, since on Linux it is off by default; on a machine without a GPU it takes Mesa's lavapipe.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { accessSync, constants } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";

const PREFERENCES = {
  "dom.webgpu.enabled": true,
  "dom.webgpu.workers.enabled": true,
  "gfx.webgpu.ignore-blocklist": true,
  "marionette.port": 0,
};

/** The executable: $FIREFOX_PATH, else one on the PATH; undefined if there is none. */
export function findFirefox(env: NodeJS.ProcessEnv = process.env): string | undefined {
  if (env.FIREFOX_PATH) return env.FIREFOX_PATH;
  const folders = (env.PATH ?? "").split(delimiter).filter((folder) => folder !== "");
  for (const file of folders.flatMap((folder) => ["firefox", "firefox-esr"].map((name) => join(folder, name)))) {
    try {
      accessSync(file, constants.X_OK);
      return file;
    } catch {}
  }
  return undefined;
}

type Answer = [kind: 1, id: number, error: { readonly message: string } | null, result: { readonly value: unknown }];

export class Firefox {
  readonly #child: ChildProcess;
  readonly #profile: string;
  readonly #socket: Socket;
  readonly #waiting = new Map<number, (answer: Answer) => void>();
  #received = Buffer.alloc(0);
  #next = 1;

  private constructor(child: ChildProcess, profile: string, socket: Socket) {
    this.#child = child;
    this.#profile = profile;
    this.#socket = socket;
    socket.on("data", (bytes: Buffer) => {
      this.#received = Buffer.concat([this.#received, bytes]);
      for (;;) {
        const colon = this.#received.indexOf(":");
        const end = colon + 1 + Number(this.#received.subarray(0, Math.max(0, colon)));
        if (colon < 0 || this.#received.length < end) return;
        const message = JSON.parse(this.#received.subarray(colon + 1, end).toString()) as Answer;
        this.#received = this.#received.subarray(end);
        if (Array.isArray(message)) this.#waiting.get(message[1])?.(message); // the first is a greeting
      }
    });
    socket.on("error", () => {}); // it has ended: what waits is rejected below
    child.on("close", () => {
      for (const [id, answer] of this.#waiting) answer([1, id, { message: "Firefox has ended" }, { value: null }]);
    });
  }

  /** Starts it. @throws Error */
  static async start(program: string, seconds = 60): Promise<Firefox> {
    const profile = await mkdtemp(join(tmpdir(), "instructblip-firefox-"));
    const lines = Object.entries(PREFERENCES).map(
      ([name, value]) => `user_pref(${JSON.stringify(name)}, ${JSON.stringify(value)});`,
    );
    await writeFile(join(profile, "user.js"), lines.join("\n"));
    // A profile's owner must be the home's: Firefox refuses others.
    const env = { ...process.env, HOME: profile, MOZ_DISABLE_CONTENT_SANDBOX: "1" };
    const args = ["--headless", "--no-remote", "--marionette", "--profile", profile];
    const child = spawn(program, args, { env, stdio: "ignore" });
    const end = performance.now() + 1000 * seconds;
    for (;;) {
      const port = Number(await readFile(join(profile, "MarionetteActivePort"), "utf8").catch(() => ""));
      const socket = port > 0 ? await open(port) : undefined;
      if (socket) {
        const firefox = new Firefox(child, profile, socket);
        await firefox.send("WebDriver:NewSession", {});
        await firefox.send("WebDriver:SetTimeouts", { script: 300_000, pageLoad: 60_000 });
        return firefox;
      }
      if (performance.now() > end || child.exitCode !== null) {
        child.kill("SIGKILL");
        await rm(profile, { recursive: true, force: true, maxRetries: 10 });
        throw new Error("Firefox cannot be started");
      }
      await new Promise((wake) => setTimeout(wake, 100));
    }
  }

  async send(name: string, parameters: object): Promise<unknown> {
    const id = this.#next++;
    const text = JSON.stringify([0, id, name, parameters]);
    const answer = await new Promise<Answer>((resolve) => {
      this.#waiting.set(id, resolve);
      this.#socket.write(`${Buffer.byteLength(text)}:${text}`);
    });
    this.#waiting.delete(id);
    if (answer[2]) throw new Error(`Firefox: ${answer[2].message}`);
    return answer[3].value;
  }

  async navigate(url: string): Promise<void> {
    await this.send("WebDriver:Navigate", { url });
  }

  /** The value of an expression in the page. @throws Error what it threw */
  async evaluate<T>(expression: string): Promise<T> {
    const script = `const done = arguments[0];
      (async () => (${expression}))().then((value) => done({ value }), (error) => done({ error: String(error) }));`;
    const settled = (await this.send("WebDriver:ExecuteAsyncScript", { script, args: [] })) as {
      value: T;
      error?: string;
    };
    if (settled.error !== undefined) throw new Error(settled.error);
    return settled.value;
  }

  async close(): Promise<void> {
    this.#socket.destroy();
    if (this.#child.exitCode === null) {
      const closed = new Promise((done) => this.#child.once("close", done));
      this.#child.kill("SIGKILL");
      await closed;
    }
    await rm(this.#profile, { recursive: true, force: true, maxRetries: 10 });
  }
}

function open(port: number): Promise<Socket | undefined> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    socket.once("connect", () => resolve(socket));
    socket.once("error", () => resolve(undefined));
  });
}
