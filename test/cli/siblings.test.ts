/** The commands on models that are not InstructBLIP's own, and the ids of Vicuna's tokenizer. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test, vi } from "vitest";
import { EXIT } from "../../src/instructblip/cli/format.ts";
import type { Result } from "../../src/instructblip/cli/generate.node.ts";
import { InstructBlipForConditionalGeneration } from "../../src/instructblip/instructblip.ts";
import { cli, GOLDENS, json } from "./cli.ts";

const SIBLINGS = join(GOLDENS, "../siblings");
const about = (name: string) =>
  JSON.parse(readFileSync(join(SIBLINGS, name, "golden.json"), "utf8")) as {
    prompts: string[];
    generations: { name: string; answers: string[] }[];
  };
const question = (folder: string, prompt: string) => [
  "--model",
  folder,
  "--image",
  join(folder, "picture_0.png"),
  "--prompt",
  prompt,
];

test.each(["blip2_opt", "blip2_t5_f16"])("generate answers with %s as transformers does", async (name) => {
  const { prompts, generations } = about(name);
  const args = question(join(SIBLINGS, name), prompts[0]);
  const [result] = await json<Result>(["generate", ...args, "--max-new-tokens", "12", "--json"]);
  expect(result.text).toEqual([generations.find(({ name }) => name === "greedy")!.answers[0]]);
});

test("--fix-vicuna-token-ids reaches the model, and is refused by any but Vicuna's", async () => {
  const load = vi.spyOn(InstructBlipForConditionalGeneration, "from_pretrained");
  const args = ["generate", ...question(join(GOLDENS, "plain_f32"), "a photo of"), "--max-new-tokens", "1"];
  expect(await cli([...args, "--fix-vicuna-token-ids"])).toMatchObject({ code: 0, stderr: "" });
  expect(await cli(args)).toMatchObject({ code: 0, stderr: "" });
  expect(load.mock.calls.map(([, options]) => options?.fix_vicuna_token_ids)).toEqual([true, false]);
  const other = ["generate", ...question(join(GOLDENS, "t5_flan"), "a photo of"), "--fix-vicuna-token-ids"];
  const { code, stdout, stderr } = await cli(other);
  expect({ code, stdout }).toEqual({ code: EXIT.refused, stdout: "" });
  expect(stderr).toContain("error: fix_vicuna_token_ids is for Vicuna; this is a t5 model");
});
