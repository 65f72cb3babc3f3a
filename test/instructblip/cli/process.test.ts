/** The command line as a process: pipes, signals, a closed stdout. Each child costs a second or more, so they are few. */
import { open } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { EXIT } from "../../../src/instructblip/cli/format.ts";
import type { Result } from "../../../src/instructblip/cli/requests/result.ts";
import { goldenFolder } from "../../golden_folder.ts";
import { ALL } from "../../rounds.ts";
import { ROOT, startCli, startShell } from "./cli.ts";

const PLAIN = goldenFolder("plain_f32");
const IMAGE = join(PLAIN, "image_0.png");
const REQUEST = JSON.stringify({ id: 1, images: [IMAGE], prompts: ["a"], generation: { max_new_tokens: 2 } });
const FROM_STDIN = ["generate", "--model", PLAIN, "--requests", "-", "--json"];

// biome-ignore lint/suspicious/noControlCharactersInRegex: escapes are what is looked for
const ESCAPE = /\x1b|\r/;

describe("requests from stdin", () => {
  it("are answered as they come, and the end of the input is the end", async () => {
    const child = startCli(FROM_STDIN);
    child.process.stdin!.write(`${REQUEST}\n`);
    await child.lines(1); // flushed, although more may come
    child.process.stdin!.write(`{\n${REQUEST}`);
    child.process.stdin!.end();
    const { code, stdout, stderr } = await child.ended;
    const results = stdout
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line) as Result & { error?: object });
    expect(results).toHaveLength(3);
    expect(results[1]).toMatchObject({ id: null, error: { code: "BAD_JSON" } });
    expect(results[2].sequences).toEqual(results[0].sequences);
    expect(code).toBe(EXIT.someFailed);
    expect(stderr).toBe("1 of 3 requests failed; their lines say why\n");
  });

  // SIGINT has a test of its own, in the middle of an answer.
  it.each([["SIGTERM", EXIT.sigterm] as const, ...(ALL ? [["SIGINT", EXIT.sigint] as const] : [])])(
    "stop at %s, while waiting for more",
    async (signal, code) => {
      const child = startCli(FROM_STDIN);
      child.process.stdin!.write(`${REQUEST}\n`);
      await child.lines(1);
      child.process.kill(signal);
      const outcome = await child.ended;
      expect(outcome).toMatchObject({ code, signal: null, stderr: "" });
      expect(outcome.stdout.split("\n")).toHaveLength(2);
    },
  );

  it("stop at SIGINT in the middle of an answer", async () => {
    const child = startCli(FROM_STDIN);
    const long = JSON.stringify({
      images: [IMAGE],
      prompts: ["a"],
      generation: { max_new_tokens: 2000, eos_token_id: null },
    });
    child.process.stdin!.write(`${REQUEST}\n${long}\n`);
    await child.lines(1);
    await new Promise((resolve) => setTimeout(resolve, 200));
    child.process.kill("SIGINT");
    expect(await child.ended).toMatchObject({ code: EXIT.sigint, signal: null, stderr: "" });
  });
});

describe("pipes", () => {
  it("carry results alone: no escapes, nothing on stderr", async () => {
    // A shell's stderr pipe; a Node parent's is a socket, where Dawn cannot be silenced.
    const { stdout, stderr, code } = await startShell(
      `FORCE_COLOR= instructblip generate --model ${PLAIN} --image ${IMAGE} --prompt a --max-new-tokens 3 2> >(cat >&2)`,
    ).ended;
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(stdout).not.toMatch(ESCAPE);
    expect(stdout).toMatch(/^[^\n]+\n$/);
  });

  it("may be closed by their reader", async () => {
    const child = startCli(FROM_STDIN);
    child.process.stdin!.write(`${REQUEST}\n`);
    await child.lines(1);
    child.process.stdout!.destroy();
    child.process.stdin!.write(`${REQUEST}\n${REQUEST}\n`); // and the input stays open
    expect(await child.ended).toMatchObject({ code: EXIT.sigpipe, signal: null, stderr: "" });
  });

  it("may be full", async () => {
    const { stderr, stdout } = await startShell(`instructblip --version > /dev/full; echo $?`).ended;
    expect(stdout).toBe(`${EXIT.refused}\n`);
    expect(stderr).toBe("error: stdout cannot be written: the disk is full\n");
  });

  it("say one thing about a mistake", async () => {
    const child = startCli(["generate", "--model", "none", "--image", "x", "--prompt", "y"]);
    const { stderr, ...rest } = await child.ended;
    expect(rest).toEqual({ code: 1, signal: null, stdout: "" });
    expect(stderr).toMatch(/^error: none: no such folder\n {4}hint: give the folder .*\n$/);
  });
});

it("starts with the line that npx needs", async () => {
  const file = await open(join(ROOT, "src/instructblip/cli/main.ts"));
  const { buffer } = await file.read({ length: 20 });
  await file.close();
  expect(buffer.subarray(0, 20).toString()).toBe("#!/usr/bin/env node\n");
});
