/** Images of a server that does not answer now: exit code 75, and --resume asks again, in every kind of run. */
import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, expect, test, vi } from "vitest";
import { EXIT } from "../../../src/instructblip/cli/format.ts";
import type { Failure, Result } from "../../../src/instructblip/cli/requests/result.ts";
import { Blip2ForImageTextRetrieval } from "../../../src/instructblip/pretrained/blip_2_retrieval.ts";
import { InstructBlipForConditionalGeneration } from "../../../src/instructblip/pretrained/instructblip.ts";
import { goldenFolder } from "../../golden_folder.ts";
import { ALL } from "../../rounds.ts";
import { temporaryFolder } from "../../temporary.ts";
import { cli } from "./cli.ts";

const PLAIN = goldenFolder("plain_f32");
const IMAGE = join(PLAIN, "image_0.png");

let server: Server;
let url: string;
let isDown: boolean;
let folder: string;
beforeAll(async () => {
  server = createServer((_, response) => {
    if (isDown) response.writeHead(503, { "retry-after": "0" }).end();
    else response.end(readFileSync(IMAGE));
  });
  await new Promise<void>((listening) => server.listen(0, "localhost", listening));
  url = `http://localhost:${(server.address() as AddressInfo).port}/a.png`;
});
afterAll(() => server.close());
beforeEach(() => {
  folder = temporaryFolder();
  isDown = true;
});

const write = (name: string, lines: readonly object[]) => {
  const file = join(folder, name);
  writeFileSync(file, lines.map((line) => `${JSON.stringify(line)}\n`).join(""));
  return file;
};
const linesOf = <T>(file: string) =>
  readFileSync(file, "utf8")
    .split("\n")
    .slice(0, -1)
    .map((line) => JSON.parse(line) as T);

test("generate: of one image, before the model is loaded", async () => {
  const ask = ["generate", "--model", PLAIN, "--prompt", "What?", "--image"];
  const { code, stderr } = await cli([...ask, url]);
  expect({ code, stderr }).toEqual({
    code: EXIT.retry,
    stderr: expect.stringMatching(/^error: http:\/\/localhost:\d+\/a\.png: .* 503\n/),
  });
  expect((await cli([...ask, "http://localhost:2/a.png"])).code).toBe(EXIT.retry); // nobody listens
});

test("generate --requests: --resume asks again what may succeed later, and no other request", async () => {
  const generation = { max_new_tokens: 2 };
  const ask = (image: string, prompt: string, id?: string) => ({ id, images: [image], prompts: [prompt], generation });
  const requests = write("requests.jsonl", [
    ask(url, "What?", "by name"),
    ask(IMAGE, "Why?"),
    ask(url, "What?"),
    ask(IMAGE, "a photo of"),
    ask("gone.png", "What?", "gone"),
  ]);
  const out = join(folder, "out.jsonl");
  const generate = ["generate", "--model", PLAIN, "--requests", requests, "--json", "--out", out];
  type Line = Partial<Result> & Partial<Failure> & { run?: object };
  const said = () => linesOf<Line>(out).map(({ timing: _, batch_rows: __, run: ___, ...line }) => line);

  expect(await cli(generate)).toMatchObject({
    code: EXIT.retry,
    stderr: "3 of 5 requests failed; their lines say why; --resume asks 2 again that may succeed later\n",
  });
  const before = said();
  expect(before.map(({ id, error, position }) => [id, error?.code, position])).toEqual([
    ["by name", "HTTP_BUSY", undefined],
    [null, undefined, undefined],
    [null, "HTTP_BUSY", 2],
    [null, undefined, undefined],
    ["gone", "NOT_FOUND", undefined],
  ]);
  const [first] = linesOf<Line>(out);
  // Again without an answer: each still has one line.
  expect((await cli([...generate, "--resume"])).code).toBe(EXIT.retry);
  expect(said()).toEqual([before[1], before[3], before[4], before[0], before[2]]);

  isDown = false;
  const resumed = await cli([...generate, "--resume"]);
  expect(resumed).toMatchObject({ code: EXIT.someFailed, stderr: "1 of 5 requests failed; their lines say why\n" });
  const [one, other] = said().slice(3);
  expect(said().slice(0, 3)).toEqual([before[1], before[3], before[4]]);
  expect(one).toEqual({ id: "by name", sequences: one!.sequences, text: one!.text });
  expect(other).toEqual({ ...one, id: null, position: 2 });
  expect(linesOf<Line>(out)[3]!.run).toEqual(first!.run);

  const load = vi.spyOn(InstructBlipForConditionalGeneration, "from_pretrained");
  expect((await cli([...generate, "--resume"])).code).toBe(EXIT.someFailed);
  expect(load).not.toHaveBeenCalled();
  load.mockRestore();
  expect(existsSync(`${out}.lock`)).toBe(false);
});

test.runIf(ALL)("evaluate: the resumed run has the scores of one whole run", async () => {
  const data = write("data.jsonl", [
    { id: 1, image: IMAGE, question: "What?", answers: ["a"] },
    { id: 2, image: url, question: "What?", answers: ["b"] },
  ]);
  const task = write("task.json", [{ prompt: "{question}", generation: { max_new_tokens: 1 }, metric: "exact_match" }]);
  const evaluate = ["evaluate", "--model", PLAIN, "--task", task, "--data", data, "--json"];
  const resumed = [...evaluate, "--out", join(folder, "out.jsonl"), "--resume"];
  const down = await cli(resumed);
  expect(down.code).toBe(EXIT.retry);
  expect(down.stderr).toMatch(/1 of 2 questions failed .*\n1 of them may be answered later: --resume asks/s);
  isDown = false;
  const { code, stdout } = await cli(resumed);
  expect(code).toBe(EXIT.ok);
  expect(linesOf<{ index: number }>(join(folder, "out.jsonl")).map(({ index }) => index)).toEqual([undefined, 0, 1]);
  expect(JSON.parse(stdout)).toMatchObject({ count: 2, failed: 0 });
});

test("evaluate, merge: --resume is named where there is a file to resume", async () => {
  const data = write("data.jsonl", [{ id: 1, image: url, question: "What?", answers: ["a"] }]);
  const task = write("task.json", [{ prompt: "{question}", generation: { max_new_tokens: 1 }, metric: "exact_match" }]);
  const evaluate = ["evaluate", "--model", PLAIN, "--task", task, "--data", data];
  const without = await cli(evaluate);
  expect(without).toMatchObject({
    code: EXIT.retry,
    stderr: expect.stringMatching(/1 of them may be answered later\n$/),
  });

  const out = join(folder, "out.jsonl");
  expect((await cli([...evaluate, "--out", out])).stderr).toMatch(/answered later: --resume asks them again\n$/);
  const { code, stderr } = await cli(["merge", out]);
  expect(code).toBe(EXIT.someFailed);
  expect(stderr).toMatch(/answered later: evaluate --resume of their files asks them again\n$/);
});

test("features: the resumed run writes the same file as one whole run", async () => {
  const data = write("items.jsonl", [{ image: url }, { text: "a photo of" }]);
  const options = ["features", "--model", goldenFolder("itm"), "--data", data, "--out"];
  const features = (out: string) => cli([...options, join(folder, out), "--resume"]);
  const down = await features("a.safetensors");
  expect(down.code).toBe(EXIT.retry);
  expect(down.stderr).toMatch(/1 of 2 items failed .*\n1 of them may succeed later: .*a\.safetensors\.part is kept/s);
  const without = readFileSync(join(folder, "a.safetensors"));
  const refused = await cli([...options, join(folder, "a.safetensors")]);
  expect(refused).toMatchObject({ code: EXIT.refused, stderr: expect.stringMatching(/exists\n.*--resume asks again/) });
  isDown = false;
  expect((await features("a.safetensors")).code).toBe(EXIT.ok);
  expect(existsSync(join(folder, "a.safetensors.part"))).toBe(false);
  writeFileSync(join(folder, "a.safetensors.part"), ""); // of a run that was stopped before it began
  const load = vi.spyOn(Blip2ForImageTextRetrieval, "from_pretrained");
  expect((await features("a.safetensors")).code).toBe(EXIT.ok);
  expect(load).not.toHaveBeenCalled();
  load.mockRestore();
  expect((await features("b.safetensors")).code).toBe(EXIT.ok);
  const whole = readFileSync(join(folder, "b.safetensors"));
  expect(readFileSync(join(folder, "a.safetensors")).equals(whole)).toBe(true);
  expect(without.length).toBeLessThan(whole.length);
});

test.runIf(ALL)("features: a file that was written during the wait for its lock is not computed again", async () => {
  isDown = false;
  const data = write("items.jsonl", [{ image: url }]);
  const out = join(folder, "a.safetensors");
  const features = ["features", "--model", goldenFolder("itm"), "--data", data, "--out", out, "--resume"];
  expect((await cli(features)).code).toBe(EXIT.ok);
  const elsewhere = join(folder, "b.safetensors");
  renameSync(out, elsewhere);
  write("a.safetensors.part.lock", [{ pid: 7, host: "node7", system: "another", started: "1", token: "a" }]);
  const waiting = cli(features);
  while (!existsSync(`${out}.part`)) await new Promise((resolve) => setTimeout(resolve, 5));
  renameSync(elsewhere, out);
  rmSync(`${out}.part`);
  rmSync(`${out}.part.lock`);
  const message = "a.safetensors: another process has written it in the meantime";
  expect(await waiting).toMatchObject({ code: EXIT.retry, stderr: expect.stringContaining(message) });
  expect((await cli(features)).code).toBe(EXIT.ok);
  expect(existsSync(`${out}.part`)).toBe(false);
});

test("a second process does not write to the same --out", async () => {
  const requests = write("requests.jsonl", [{ id: 1, images: [IMAGE], prompts: ["What?"] }]);
  const out = join(folder, "out.jsonl");
  const generate = ["generate", "--model", PLAIN, "--requests", requests, "--json", "--out", out, "--resume"];
  const outcomes = await Promise.all([cli(generate), cli(generate)]);
  expect(outcomes.map(({ code }) => code).sort()).toEqual([EXIT.ok, EXIT.retry]);
  const refused = outcomes.find(({ code }) => code === EXIT.retry)!;
  expect(refused.stderr).toMatch(/^error: --out .*out\.jsonl: process \d+ on .* is writing it\n/);
  expect(linesOf(out).length).toBe(1);
});
