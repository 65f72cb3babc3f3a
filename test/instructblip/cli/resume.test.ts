/** `generate --requests` in shards, to a file, and resumed. */
import { appendFile, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeEach, describe, expect, it, vi } from "vitest";
import { EXIT, Interrupted } from "../../../src/instructblip/cli/format.ts";
import type { Failure, Result } from "../../../src/instructblip/cli/requests/result.ts";
import { InstructBlipForConditionalGeneration } from "../../../src/instructblip/pretrained/instructblip.ts";
import { DeviceError } from "../../../src/tensor/errors.ts";
import { goldenFolder } from "../../golden_folder.ts";
import { temporaryFolder } from "../../temporary.ts";
import { cli, SHAPES } from "./cli.ts";

const PLAIN = goldenFolder("plain_f32");
const IMAGE = join(PLAIN, "image_0.png");

const good = (id?: string | number) =>
  JSON.stringify({ id, images: [IMAGE], prompts: ["What?"], generation: { max_new_tokens: 2 } });
/** Some without an id, two with the same one, two that cannot be understood. */
const REQUESTS = [good("a"), good(7), "{", good(), "", good("7"), good("a"), good(), "[]", good("z")];
const IDS = ["a", 7, null, null, "7", "a", null, null, "z"];

type Line = Result & Partial<Failure>;
const parse = (text: string) =>
  text
    .split("\n")
    .slice(0, -1)
    .map((line) => JSON.parse(line) as Line);
/** What a line says besides its timing. */
const said = ({ id, sequences, error }: Line) => ({ id, sequences, error });

let folder: string;
let generate: string[];
let out: string;
beforeEach(async () => {
  folder = temporaryFolder();
  out = join(folder, "out.jsonl");
  const requests = join(folder, "requests.jsonl");
  await writeFile(requests, REQUESTS.join("\n"));
  generate = ["generate", "--model", PLAIN, "--requests", requests, "--json", "--batch-size", "1"];
});

const linesOf = async (file: string) => parse(await readFile(file, "utf8"));

describe("--shard", () => {
  it("takes every n-th request: parts are disjoint and together the whole", async () => {
    const whole = parse((await cli(generate)).stdout);
    expect(whole.map(({ id }) => id)).toEqual(IDS);
    const parts = [];
    for (const i of [0, 1, 2, 3]) parts.push(parse((await cli([...generate, "--shard", `${i}/4`])).stdout));
    expect(parts.map((part) => part.length)).toEqual([3, 2, 2, 2]);
    for (const [k, line] of whole.entries()) expect(said(parts[k % 4][Math.floor(k / 4)])).toEqual(said(line));
  });
});

describe("--out and --resume", () => {
  it("write to the file what stdout would have got", async () => {
    const written = await cli([...generate, "--out", out]);
    expect(written).toEqual({
      code: EXIT.someFailed,
      stdout: "",
      stderr: "2 of 9 requests failed; their lines say why\n",
    });
    const { stdout } = await cli(generate);
    expect((await linesOf(out)).map(said)).toEqual(parse(stdout).map(said));
  });

  it("go on behind the last whole line, writing none twice", async () => {
    await cli([...generate, "--out", out]);
    const text = await readFile(out, "utf8");
    const whole = parse(text).map(said);
    const ends = [...text.matchAll(/\n/g)].map(({ index }) => index + 1);
    const spy = vi.spyOn(InstructBlipForConditionalGeneration.prototype, "generate");
    const load = vi.spyOn(InstructBlipForConditionalGeneration, "from_pretrained");
    // Whole lines of the nine, then bytes of the next; 3 and 8 are lines that need no model.
    for (const [kept, torn, left] of [
      [0, 0, 7],
      [0, 5, 7],
      [1, 1, 6],
      [4, 0, 4],
      [5, 30, 3],
      [8, -1, 1], // all but the last newline
      [9, 0, 0],
    ]) {
      const end = torn < 0 ? text.length - 1 : (ends[kept - 1] ?? 0) + torn;
      await writeFile(out, text.slice(0, end));
      spy.mockClear();
      load.mockClear();
      const { code, stdout, stderr } = await cli([...generate, "--out", out, "--resume"]);
      expect((await linesOf(out)).map(said)).toEqual(whole);
      expect({ code, stdout, stderr }).toEqual({
        code: EXIT.someFailed,
        stdout: "",
        stderr: "2 of 9 requests failed; their lines say why\n",
      });
      expect(spy).toHaveBeenCalledTimes(left);
      expect(load).toHaveBeenCalledTimes(left ? 1 : 0);
    }
    spy.mockRestore();
    load.mockRestore();
  });

  it("begin where there is no file, and take an interrupted part up again", async () => {
    const part = [...generate, "--shard", "1/2", "--out", out, "--resume"];
    const spy = vi.spyOn(InstructBlipForConditionalGeneration.prototype, "generate");
    spy.mockResolvedValueOnce([[1]] as never).mockRejectedValueOnce(new Interrupted(EXIT.sigterm));
    const stopped = await cli(part);
    spy.mockRestore();
    expect(stopped).toMatchObject({ code: EXIT.sigterm, stdout: "", stderr: "" });
    expect((await linesOf(out)).map(({ id }) => id)).toEqual([7]);
    expect((await cli(part)).code).toBe(EXIT.someFailed); // the one that is no request
    expect((await linesOf(out)).map(({ id }) => id)).toEqual(IDS.filter((_, k) => k % 2 === 1));
  });

  it("leave a request that took the device with it to the next run", async () => {
    const spy = vi.spyOn(InstructBlipForConditionalGeneration.prototype, "generate");
    spy.mockRejectedValueOnce(new DeviceError("GPU_OOM", "the GPU ran out of memory"));
    const lost = await cli([...generate, "--out", out]);
    spy.mockRestore();
    expect(lost).toEqual({ code: EXIT.retry, stdout: "", stderr: "error: the GPU ran out of memory\n" });
    expect(await readFile(out, "utf8")).toBe("");
    await cli([...generate, "--out", out]); // an empty file is no work to be lost
    expect((await linesOf(out)).map(({ id }) => id)).toEqual(IDS);
  });

  it("refuse the file of another run, by what they differ in", async () => {
    await cli([...generate, "--shard", "1/2", "--out", out]);
    const before = await readFile(out, "utf8");
    const [first, ...others] = await linesOf(out);
    expect(first).toMatchObject({ run: { shard: { i: 1, n: 2 }, requests: "requests.jsonl", dtype: "auto" } });
    expect(others.filter((line) => "run" in line)).toEqual([]);
    for (const [more, other, model = PLAIN] of [
      [["--shard", "0/2"], "shard"],
      [[], "shard"],
      [["--shard", "1/2", "--dtype", "int8"], "dtype"],
      [["--shard", "1/2"], "model_sha256", join(SHAPES, "checkpoint")],
    ] as const) {
      const args = generate.map((arg) => (arg === PLAIN ? model : arg));
      const { code, stderr } = await cli([...args, ...more, "--out", out, "--resume"]);
      expect(code, stderr).toBe(EXIT.refused);
      expect(stderr).toContain(`is of another run: they differ in ${other}\n`);
    }
    expect(await readFile(out, "utf8")).toBe(before);
    // A line may be removed to repeat its request; of a file that no line tells anything of, that is said.
    await writeFile(out, before.slice(before.indexOf("\n") + 1));
    const { stderr } = await cli([...generate, "--shard", "1/2", "--out", out, "--resume"]);
    expect(stderr).toMatch(/^warning: --out .* does not say of which run it is/);
    expect((await linesOf(out)).at(-1)).toMatchObject({ id: 7, run: { shard: { i: 1, n: 2 } } });
  });

  it("leave alone what is not theirs", async () => {
    await writeFile(out, "my notes\n");
    const refused = async (args: readonly string[]) => {
      const outcome = await cli(args);
      expect(outcome).toMatchObject({ code: EXIT.refused, stdout: "" });
      return outcome.stderr;
    };
    expect(await refused([...generate, "--out", out])).toMatch(/the file is not empty\n.*--resume/);
    expect(await refused([...generate, "--out", out, "--resume"])).toMatch(/line 1 is not an answer/);
    await appendFile(out, "torn");
    expect(await refused([...generate, "--out", out, "--resume"])).toMatch(/line 1 is not an answer/);
    expect(await readFile(out, "utf8")).toBe("my notes\ntorn");
    await mkdir(join(folder, "sub"));
    expect(await refused([...generate, "--out", join(folder, "sub")])).toMatch(/sub: this is a folder/);
    expect(await refused([...generate, "--out", join(folder, "none/x")])).toMatch(/none\/x: there is no such folder/);
    expect(await refused([...generate, "--out", "/dev/null"])).toMatch(/not a regular file/);
  });
});
