/** Runs that go on when the device is lost. The reference is a run that loses none. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { EXIT, Interrupted } from "../../../src/instructblip/cli/format.ts";
import { MOST_LOSSES, reopening } from "../../../src/instructblip/cli/requests/reopening.node.ts";
import type { Run } from "../../../src/instructblip/cli/session.node.ts";
import { InstructBlipForConditionalGeneration } from "../../../src/instructblip/pretrained/instructblip.ts";
import { DeviceError } from "../../../src/tensor/errors.ts";
import { goldenFolder } from "../../golden_folder.ts";
import { ALL } from "../../rounds.ts";
import { temporaryFolder } from "../../temporary.ts";
import { cli } from "./cli.ts";

const lost = () => new DeviceError("DEVICE_LOST", "the GPU device was lost: odd", { hint: "open a new device" });
const WARNING = "warning: the GPU device was lost: odd; loading the model again on a new device";

describe("reopening", () => {
  let said: string[] = [];
  const interruption = new AbortController();
  const terminal = { err: (text: string) => said.push(text), color: false };
  const run = { terminal, signal: interruption.signal } as unknown as Run;
  const release = vi.fn();
  beforeEach(() => {
    vi.useFakeTimers();
    said = [];
    release.mockClear();
  });
  afterEach(() => vi.useRealTimers());

  /** Does a work that fails with these errors, one after another; `null` is an answer, with which the work goes on. */
  async function outcome(errors: readonly (Error | null)[]): Promise<unknown> {
    const left = [...errors];
    const work = async (progressed: () => void) => {
      for (let next = left.shift(); next !== undefined; next = left.shift()) {
        if (next) throw next;
        progressed();
      }
      return "done";
    };
    const end = reopening(run, work, release).catch((error: unknown) => error);
    await vi.runAllTimersAsync();
    return end;
  }

  it("goes on, a number of times in a row", async () => {
    expect(await outcome([lost(), lost(), lost()])).toBe("done");
    expect(said).toEqual([1, 2, 3].map((i) => `${WARNING} (${i} of ${MOST_LOSSES})\n`));
    expect(release).toHaveBeenCalledTimes(3);
    expect(await outcome([lost(), lost(), lost(), lost()])).toMatchObject({ code: "DEVICE_LOST" });
    expect(await outcome([lost(), lost(), lost(), null, lost(), lost(), lost(), null])).toBe("done");
  });

  it("takes the lack of another device for the same loss, and at first for what it is", async () => {
    const none = new DeviceError("NO_ADAPTER", "no adapter");
    expect(await outcome([lost(), none])).toBe("done");
    expect(await outcome([lost(), none, none, none])).toMatchObject({ code: "DEVICE_LOST" });
    expect(await outcome([none])).toBe(none);
    expect(await outcome([lost(), null, none])).toBe(none);
  });

  it("leaves other errors alone", async () => {
    for (const error of [new DeviceError("GPU_OOM", "too much"), new TypeError("odd"), new Interrupted(130)]) {
      expect(await outcome([error])).toBe(error);
    }
    expect(said).toEqual([]);
  });
});

describe("a lost device", () => {
  const PLAIN = goldenFolder("plain_f32");
  const IMAGE = join(PLAIN, "image_0.png");
  const question = (id: string) => ({ id, image: IMAGE, question: `What ${id}?`, answers: ["a"] });
  let folder: string;
  beforeEach(() => {
    folder = temporaryFolder();
  });

  /** Destroys the device of the model, as a driver that fails, before the k-th call of `method`, counted from 0. */
  function loseAt(method: "generate" | "forward", k: number) {
    const { prototype } = InstructBlipForConditionalGeneration;
    const real = prototype[method] as (...args: unknown[]) => never;
    let calls = 0;
    const spy = vi.spyOn(prototype, method);
    spy.mockImplementation(function (this: InstructBlipForConditionalGeneration, ...args: unknown[]) {
      if (calls++ === k) this.device.handle.destroy();
      return real.apply(this, args);
    });
    const load = vi.spyOn(InstructBlipForConditionalGeneration, "from_pretrained");
    return () => {
      const loads = load.mock.calls.length;
      spy.mockRestore();
      load.mockRestore();
      return loads;
    };
  }

  it("costs requests and questions nothing", async () => {
    const ids = ["a", "b"];
    const requests = join(folder, "requests.jsonl");
    const lines = ids.map((id) => ({ id, images: [IMAGE], prompts: ["What?"], generation: { max_new_tokens: 2 } }));
    writeFileSync(requests, lines.map((line) => `${JSON.stringify(line)}\n`).join(""));
    const generate = ["generate", "--model", PLAIN, "--requests", requests, "--json", "--batch-size", "1"];
    writeFileSync(join(folder, "data.jsonl"), ids.map((id) => `${JSON.stringify(question(id))}\n`).join(""));
    const task = '{"prompt": "{question}", "metric": "exact_match_vqa", "generation": {"max_new_tokens": 2}}';
    writeFileSync(join(folder, "task.json"), task);
    const files = ["--task", join(folder, "task.json"), "--data", join(folder, "data.jsonl")];
    const evaluate = ["evaluate", "--model", PLAIN, ...files, "--batch-size", "1", "--json"];
    for (const command of [generate, evaluate]) {
      const plain = await cli([...command, "--out", join(folder, "plain.jsonl")]);
      const restore = loseAt("generate", 1);
      const { code, stdout, stderr } = await cli([...command, "--out", join(folder, "lost.jsonl")]);
      expect(restore()).toBe(2);
      expect({ code, stdout }).toEqual({ code: EXIT.ok, stdout: plain.stdout });
      expect(stderr).toMatch(/^warning: the GPU device was lost: .*; loading the model again .*\(1 of 3\)\n$/);
      const read = (name: string) => readFileSync(join(folder, name), "utf8").replaceAll(/"timing":\{[^}]*\}/g, "");
      expect(read("lost.jsonl")).toBe(read("plain.jsonl"));
      for (const name of ["plain.jsonl", "lost.jsonl"]) writeFileSync(join(folder, name), "");
    }
  });

  it("costs a sweep nothing, while it is prepared or swept", async () => {
    const asked = ["--model", PLAIN, "--image", IMAGE, "--prompt", "What?", "--answer", "a"];
    const ablate = ["ablate", ...asked, "--targets", "qformer.layers", "--batch-size", "1", "--top", "0"];
    const plain = await cli(ablate);
    expect(plain).toMatchObject({ code: EXIT.ok, stderr: "" });
    for (const k of ALL ? [0, 1, 2, 3] : [2]) {
      const restore = loseAt("forward", k);
      const { code, stdout, stderr } = await cli(ablate);
      expect(restore()).toBe(2);
      expect({ code, stdout }).toEqual({ code: EXIT.ok, stdout: plain.stdout });
      expect(stderr).toMatch(/^warning: the GPU device was lost: .*\(1 of 3\)\n$/);
    }
  });
});
