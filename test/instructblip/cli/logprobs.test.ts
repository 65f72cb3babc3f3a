/** `--logprobs` of `generate`: the table, the fields of JSON, batches of requests. */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, it, test } from "vitest";
import { EXIT } from "../../../src/instructblip/cli/format.ts";
import { logprobTable } from "../../../src/instructblip/cli/logprobs.ts";
import type { Result } from "../../../src/instructblip/cli/requests/result.ts";
import { tokenText } from "../../../src/instructblip/tokenizer/token_text.ts";
import { temporaryFolder } from "../../temporary.ts";
import { cli, json, ROOT } from "./cli.ts";

const SHAPES = join(ROOT, "examples/shapes");
const CHECKPOINT = join(SHAPES, "checkpoint");
const image = join(SHAPES, "images/a.png");
const prompt = "What shapes are in the image?";
const ASK = ["generate", "--model", CHECKPOINT, "--image", image, "--prompt", prompt, "--max-new-tokens", "4"];

it("prints a line for each token below the answer, of each answer, and nothing else changes", async () => {
  const plain = await cli(ASK);
  const { code, stdout, stderr } = await cli([...ASK, "--logprobs", "3"]);
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  const [answer, blank, ...table] = stdout.split("\n");
  expect([`${answer}\n`, blank]).toEqual([plain.stdout, ""]);
  expect(table.slice(0, 3).map((line) => line.replace(/ {2,}/g, "  "))).toEqual([
    "token  log p  p  instead",
    '" a"  -0.048  95.3 %  " an" 2.4 %  " four" 2.3 %',
    '" yellow"  -0.104  90.1 %  " red" 9.7 %  " blue" 0.055 %',
  ]);
  expect(table).toHaveLength(7);
  expect(table[5]).toMatch(/^sum +-0.152 +85.9 %$/);

  const beams = await cli([...ASK, "--logprobs", "--num-beams", "2", "--num-return-sequences", "2"]);
  const answers = beams.stdout.split("\n\n");
  expect(answers).toHaveLength(4);
  for (const shown of [answers[1], answers[3]])
    expect(shown).toMatch(/^token +log p +p\n(".*" +-[\d.e-]+ +.* %\n){4}sum/);
});

it("gives them in JSON, the same alone and in a batch of requests", async () => {
  const [one] = await json<Result>([...ASK, "--logprobs", "2", "--json"]);
  expect(Object.keys(one)).toEqual(["id", "sequences", "logprobs", "text", "timing"]);
  const [{ sum, tokens }] = one.logprobs!;
  expect(tokens.map(({ id }) => id)).toEqual(one.sequences[0].slice(-4));
  expect(tokens.map(({ text }) => text).join("")).toBe(` ${one.text[0].slice(prompt.length).trim()}`);
  expect(sum).toBeCloseTo(
    tokens.reduce((total, { logprob }) => total + logprob, 0),
    12,
  );
  for (const { id, top } of tokens) {
    expect(top).toHaveLength(2);
    expect(top[0].id).toBe(id);
  }

  const generation = { max_new_tokens: 4, logprobs: 2 };
  const file = join(temporaryFolder(), "requests.jsonl");
  const requests = ["What color is the square?", prompt].map((text, id) => ({
    id,
    images: [image],
    prompts: [text],
    generation,
  }));
  await writeFile(file, requests.map((line) => JSON.stringify(line)).join("\n"));
  const results = await json<Result>(["generate", "--model", CHECKPOINT, "--requests", file, "--json"]);
  expect(results.map(({ batch_rows }) => batch_rows)).toEqual([2, 2]);
  const [ended, same] = results.map(({ logprobs }) => logprobs![0]);
  expect(ended.tokens.map(({ text }) => text)).toEqual([" orange", "</s>"]); // what follows is padding
  expect(same.tokens.map(({ id, text }) => [id, text])).toEqual(tokens.map(({ id, text }) => [id, text]));
  for (const [t, { logprob }] of same.tokens.entries()) expect(logprob).toBeCloseTo(tokens[t].logprob, 4);
});

it("is refused where it cannot be meant", async () => {
  expect(await cli([...ASK, "--logprobs", "-1"])).toMatchObject({ code: EXIT.usage });
  expect(await cli([...ASK, "--logprobs", "1001"])).toMatchObject({
    code: EXIT.usage,
    stderr: expect.stringContaining("logprobs must be a whole number of at least 0, at most 1000, got 1001"),
  });
});

/** A decoder that drops the space in front, as those of SentencePiece do. */
const WORDS = {
  decode: (ids: Iterable<number | bigint>) =>
    Array.from(ids, (id) => [" one", "two", "", "\ufffd", "<end>"][Number(id)])
      .join("")
      .trimStart(),
  convert_ids_to_tokens: (id: number) => ["▁one", "two", "▁", "<0xE2>"][id],
};

test("a token's text has its space; what has no text is spelled as in the vocabulary", () => {
  expect([0, 1, 2, 3, 4, 9].map((id) => tokenText(WORDS, id))).toEqual([" one", "two", "▁", "<0xE2>", "<end>", "<9>"]);
});

test("the table shows small numbers by their size, and a token that is not the most probable", () => {
  const top = [{ id: 0, logprob: -0.1 }];
  const tokens = [
    { id: 1, logprob: -2e-6, top },
    { id: 0, logprob: 0, top },
    { id: 4, logprob: -16.1, top },
  ];
  expect(
    logprobTable({ sum: -16.100002, tokens }, WORDS)
      .split("\n")
      .map((line) => line.trim()),
  ).toEqual([
    "token      log p        p  instead",
    '"two"      -2e-6  >99.9 %  " one" 90.5 %',
    '" one"     0.000    100 %',
    '"<end>"  -16.100     1e-7  " one" 90.5 %',
    "sum      -16.100     1e-7",
    "",
  ]);
});
