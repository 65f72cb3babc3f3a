/** A run closes every file that it has opened, also after an error. */
import { readdirSync, readFileSync, readlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { EXIT, Interrupted } from "../../../src/instructblip/cli/format.ts";
import { cli, copyOfGolden } from "./cli.ts";

/** The files in a folder that this process has open. */
function openFiles(folder: string): string[] {
  return readdirSync("/proc/self/fd").flatMap((fd) => {
    try {
      const file = readlinkSync(join("/proc/self/fd", fd));
      return file.startsWith(folder) ? [file] : [];
    } catch {
      return []; // the handle by which the folder was read, closed again
    }
  });
}

const stop = () => new Interrupted(EXIT.sigint);
const SHARD = "model-00004-of-00004.safetensors";
const NOTHING = () => {};

test.runIf(process.platform === "linux").each([
  { how: "well", codes: [EXIT.ok, EXIT.someFailed, EXIT.someFailed, EXIT.ok], change: NOTHING, onOut: undefined },
  { how: "interrupted", codes: [EXIT.sigint, EXIT.someFailed, EXIT.sigint, EXIT.ok], change: NOTHING, onOut: stop },
  {
    how: "at a file of other lines, and at a shard that is cut short",
    codes: [EXIT.refused, EXIT.refused, EXIT.refused, EXIT.refused],
    change: (folder: string) => {
      writeFileSync(join(folder, "out.jsonl"), "no line of ours");
      writeFileSync(join(folder, SHARD), readFileSync(join(folder, SHARD)).subarray(0, -4));
    },
    onOut: undefined,
  },
])("ends $how", async ({ codes, change, onOut }) => {
  const folder = await copyOfGolden("cross_frequency_3_sharded");
  const file = (name: string) => join(folder, name);
  const images = [file("image_0.png")];
  const good = { images, prompts: ["a"], generation: { max_new_tokens: 1 } };
  const requests = [good, { ...good, images: [file("config.json")] }, { ...good, images: [file("none.png")] }];
  writeFileSync(file("requests.jsonl"), requests.map((request) => JSON.stringify(request)).join("\n"));
  change(folder);
  const question = ["--image", images[0], "--prompt", "a"];
  const many = ["--requests", file("requests.jsonl"), "--json"];
  const ended = [];
  for (const [command, ...options] of [
    ["generate", ...question, "--max-new-tokens", "4"],
    ["generate", ...many, "--out", file("out.jsonl")],
    ["generate", ...many],
    ["trace", ...question, "--out", file("trace.safetensors")],
  ]) {
    const { code } = await cli([command, "--model", folder, ...options], onOut && { onOut });
    ended.push(code);
    expect(openFiles(folder), `${command} ${options.join(" ")}`).toEqual([]);
  }
  expect(ended).toEqual(codes);
});
