/** The commands on InstructBLIP's siblings, and the ids of Vicuna's tokenizer. */
import { readFileSync, writeFileSync } from "node:fs";
import { cp } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test, vi } from "vitest";
import { EXIT } from "../../../src/instructblip/cli/format.ts";
import type { Result } from "../../../src/instructblip/cli/requests/result.ts";
import { InstructBlipForConditionalGeneration } from "../../../src/instructblip/pretrained/instructblip.ts";
import { committedFolder, goldenFolder } from "../../golden_folder.ts";
import { temporaryFolder } from "../../temporary.ts";
import { cli, json, PADDED_RIGHT } from "./cli.ts";

const about = (name: string) =>
  JSON.parse(readFileSync(join(committedFolder(name), "golden.json"), "utf8")) as {
    prompts: string[];
    generations: { name: string; answers: string[] }[];
  };
/** Whether its tokenizer_config.json puts padding behind a shorter prompt; Llama's and GPT-2's tokenizers say which without. */
const isPaddedRight = (name: string) =>
  JSON.parse(readFileSync(join(committedFolder(name), "tokenizer_config.json"), "utf8")).padding_side === "right";
const question = (folder: string, prompt: string) => [
  "--model",
  folder,
  "--image",
  join(folder, "image_0.png"),
  "--prompt",
  prompt,
];

test.each(["blip2_opt", "blip2_t5_f16"])("generate answers with %s as transformers does", async (name) => {
  const { prompts, generations } = about(name);
  const args = question(goldenFolder(name), prompts[0]);
  const [result] = await json<Result>(["generate", ...args, "--max-new-tokens", "12", "--json"]);
  expect(result.text).toEqual([generations.find(({ name }) => name === "greedy")!.answers[0]]);
});

/** A copy of a sibling, its processor from before transformers 4.45: it does not count queries. */
async function withoutCount(name: string): Promise<string> {
  const folder = join(temporaryFolder(), name);
  await cp(goldenFolder(name), folder, { recursive: true });
  const file = join(folder, "processor_config.json");
  const { num_query_tokens, ...config } = JSON.parse(readFileSync(file, "utf8")) as Record<string, unknown>;
  expect(num_query_tokens).toBeDefined();
  writeFileSync(file, JSON.stringify(config));
  return folder;
}

describe.each(["legacy_llama", "legacy_blip2_opt", "blip2_opt"])("%s, whose processor", (name) => {
  const { prompts, generations } = about(name);
  const expected = generations.find(({ name }) => name === "greedy")!.answers[0];
  const more = ["--max-new-tokens", "12"];

  test.each([
    ["counts queries", async () => goldenFolder(name)],
    ["is older than that", () => withoutCount(name)],
  ])("%s, is answered, streamed, traced and asked many things with", async (_, make) => {
    const folder = await make();
    const args = question(folder, prompts[0]);
    const [result] = await json<Result>(["generate", ...args, ...more, "--json"]);
    expect(result.text).toEqual([expected]);
    const streamed = await cli(["generate", ...args, ...more]);
    expect(streamed).toMatchObject({ code: 0, stderr: "" });
    expect(expected).toContain(streamed.stdout.trim());
    expect(streamed.stdout.trim()).not.toBe("");

    const requests = join(temporaryFolder(), "requests.jsonl");
    const images = [0, 1].map((i) => join(folder, `image_${i}.png`));
    writeFileSync(requests, JSON.stringify({ id: 1, images, prompts, generation: { max_new_tokens: 12 } }));
    const [both] = await json<Result>(
      ["generate", "--model", folder, "--requests", requests, "--json"],
      isPaddedRight(name) ? [`request 1: ${PADDED_RIGHT}`] : [],
    );
    // The other row is padded for the Q-Former on the side that tokenizer_config.json says, which the golden's maker did not.
    expect(both.text).toEqual([expected, expect.any(String)]);

    const out = join(temporaryFolder(), "trace.safetensors");
    expect(await cli(["trace", ...args, "--out", out])).toMatchObject({ code: 0, stderr: "" });
  });
});

test("--fix-vicuna-token-ids reaches the model, and is refused by any but Vicuna's", async () => {
  const load = vi.spyOn(InstructBlipForConditionalGeneration, "from_pretrained");
  const args = ["generate", ...question(goldenFolder("plain_f32"), "a photo of"), "--max-new-tokens", "1"];
  expect(await cli([...args, "--fix-vicuna-token-ids"])).toMatchObject({ code: 0, stderr: "" });
  expect(await cli(args)).toMatchObject({ code: 0, stderr: "" });
  expect(load.mock.calls.map(([, options]) => options?.fix_vicuna_token_ids)).toEqual([true, false]);
  const other = ["generate", ...question(goldenFolder("t5_flan"), "a photo of"), "--fix-vicuna-token-ids"];
  const { code, stdout, stderr } = await cli(other);
  expect({ code, stdout }).toEqual({ code: EXIT.refused, stdout: "" });
  expect(stderr).toContain("error: fix_vicuna_token_ids is for Vicuna; this is a t5 model");
});
