/**
 * Each command's examples, run as its --help prints them, on the embedded checkpoint: only file names are replaced, and the
 * number of a layer, as the model has four.
 */
import { readFileSync } from "node:fs";
import { mkdir, readFile, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { EXAMPLES } from "../../../src/instructblip/cli/help.ts";
import { temporaryFolder } from "../../temporary.ts";
import { cli, ROOT } from "./cli.ts";

const SHAPES = join(ROOT, "examples/shapes");
const COMMANDS = ["generate", "trace", "attention", "evaluate", "merge", "inspect", "devices"];

/** What stands for the names in the examples, made in a folder of its own for every command. */
async function stage(): Promise<(word: string) => string> {
  const folder = temporaryFolder();
  const questions = readFileSync(join(SHAPES, "eval/requests.jsonl"), "utf8").split("\n").slice(0, 3);
  const rows = questions.map((line) => {
    const { id, images, prompts } = JSON.parse(line);
    return JSON.stringify({ id, image: images[0], question: prompts[0], answers: ["green"] });
  });
  await symlink(join(SHAPES, "checkpoint"), join(folder, "vicuna-7b"));
  await symlink(join(SHAPES, "images/a.png"), join(folder, "cat.jpg"));
  await symlink(join(SHAPES, "eval/images"), join(folder, "images"));
  await mkdir(join(folder, "gqa"));
  await mkdir(join(folder, "gqa/images"));
  await symlink(join(SHAPES, "eval/images"), join(folder, "gqa/images/images"));
  await writeFile(join(folder, "questions.jsonl"), `${questions.join("\n")}\n`);
  await writeFile(join(folder, "gqa.jsonl"), `${rows.join("\n")}\n`);
  await writeFile(join(folder, "gqa.json"), '{"prompt": "{question}", "metric": "exact_match"}');
  const [, interventions] = /echo '(\[.*?\])' > without.json/s.exec(EXAMPLES.generate)!;
  await writeFile(join(folder, "without.json"), interventions);
  return (word) =>
    /\.(jsonl?|jpg|png|svg|safetensors)$|^vicuna-7b$|^gqa\/images$/.test(word) ? join(folder, word) : word;
}

/** The words of a line of shell, quotes taken off, a redirection left out. */
function wordsOf(line: string): string[] {
  return [...line.replace(/ > \S+$/, "").matchAll(/"([^"]*)"|(\S+)/g)].map(([, quoted, bare]) => quoted ?? bare);
}

describe.each(COMMANDS)("%s --help", (command) => {
  let lines: string[];
  beforeAll(async () => {
    const { stdout, code } = await cli([command, "--help"]);
    expect(code).toBe(0);
    lines = [...stdout.matchAll(/^ +\$ instructblip (\S.*)$/gm)].map(([, line]) => line);
  });

  test("has examples, and they run", async () => {
    expect(lines.length).toBeGreaterThan(0);
    const at = await stage();
    if (command === "merge") {
      for (const part of [0, 1, 2]) {
        const out = at(`part-${part}.jsonl`);
        const task = ["--task", at("gqa.json"), "--data", at("gqa.jsonl"), "--images", at("gqa/images")];
        const shard = ["--shard", `${part}/3`, "--out", out];
        expect((await cli(["evaluate", "--model", at("vicuna-7b"), ...task, ...shard])).code).toBe(0);
        // As generate writes them, of which merge reads the ids.
        const ids = (await readFile(at("questions.jsonl"), "utf8"))
          .trim()
          .split("\n")
          .map((line) => JSON.parse(line).id);
        const own = ids.filter((_, i) => i % 3 === part);
        await writeFile(
          at(`out-${part}.jsonl`),
          own.map((id) => `${JSON.stringify({ id, text: [], sequences: [] })}\n`).join(""),
        );
      }
    }
    for (const line of lines.filter(
      (line) => !line.includes("…") && (command === "merge" || !line.startsWith("merge ")),
    )) {
      const words = wordsOf(line).flatMap((word) =>
        word.includes("*.jsonl") ? [0, 1, 2].map((part) => at(word.replace("*", String(part)))) : [at(word)],
      );
      const layer = words.indexOf("--layer") + 1;
      if (layer > 0) words[layer] = "2";
      if (words.includes("gqa.jsonl") && !words.includes("--images")) words.push("--images", at("gqa/images"));
      const { code, stdout, stderr } = await cli(words);
      expect({ line, code, stderr }).toEqual({ line, code: 0, stderr: expect.not.stringContaining("error") });
      expect(stdout + line).not.toBe("");
    }
  }, 120_000);
});
