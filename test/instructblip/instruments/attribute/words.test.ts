/** Words of instructions, and instructions without them, in the tokenizers of every family. */
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { AutoProcessor, type OccludedWord, occludedWords } from "../../../../src/index.node.ts";
import { COMMITTED, goldenFolder } from "../../../golden_folder.ts";

const SHAPES = join(COMMITTED, "../../examples/shapes/checkpoint");
const FAMILIES = [
  ["llama", SHAPES],
  ["opt", goldenFolder("opt_plain")],
  ["t5", goldenFolder("t5_flan")],
  ["blip2", goldenFolder("blip2_opt")],
] as const;

describe.each(FAMILIES)("%s", async (_, folder) => {
  const processor = await AutoProcessor.from_pretrained(folder);
  /** As the model gets them: image tokens in front. */
  const inputsOf = async (text: string) => {
    const { input_ids, attention_mask, ...words } = await processor({ text: [text] });
    const front = [processor.tokenizer.convert_tokens_to_ids("<image>")!, 3];
    return { ...words, input_ids: [[...front, ...input_ids![0]!]] } as never;
  };
  const rowsOf = (words: readonly OccludedWord[]) =>
    words.map(({ text, input_ids, qformer_input_ids }) => [text, input_ids, qformer_input_ids]);

  test.each(["Is it a red star, or two?", "  What   is this?", "é 你好!"])("%j", async (text) => {
    const whole = (await inputsOf(text)) as { input_ids: number[][]; qformer_input_ids?: number[][] };
    const words = await occludedWords(processor, text, whole as never);
    for (const { text: word, start, end } of words) expect(text.slice(start, end)).toBe(word);
    expect(words.map((word) => word.text).join("")).toBe(text.replaceAll(/\s/g, ""));
    const wanted = await Promise.all(
      words.map(async ({ text: word, start, end }) => {
        const before = text.slice(0, start);
        const rest = text.slice(end);
        const shorter = before.trim() === "" ? before + rest.trimStart() : before.trimEnd() + rest;
        const { input_ids, qformer_input_ids } = (await inputsOf(shorter)) as typeof whole;
        return [word, input_ids[0], qformer_input_ids?.[0]];
      }),
    );
    expect(rowsOf(words)).toEqual(wanted);
    // Spans: what is there without the word, and its tokens, are the whole.
    for (const { tokens, qformer_tokens, input_ids, qformer_input_ids } of words) {
      const check = ({ from, to }: { from: number; to: number }, short: readonly number[], long: readonly number[]) => {
        expect(from).toBeLessThanOrEqual(to);
        expect(long.slice(0, from)).toEqual(short.slice(0, from));
        const after = long.length - to;
        expect(long.slice(to)).toEqual(after > 0 ? short.slice(-after) : []);
      };
      check(tokens, input_ids, whole.input_ids[0]!);
      if (qformer_tokens) check(qformer_tokens, qformer_input_ids!, whole.qformer_input_ids![0]!);
    }
  });
});

test("a word has its tokens, and hidden it leaves the others in their places", async () => {
  const processor = await AutoProcessor.from_pretrained(SHAPES);
  const prompt = "What color is the square?";
  const inputs = (await processor({ text: [prompt] })) as { input_ids: number[][]; qformer_input_ids: number[][] };
  const words = await occludedWords(processor, prompt, inputs, { word: "pad" });
  expect(words.map(({ text }) => text)).toEqual(["What", "color", "is", "the", "square", "?"]);
  const { tokens, qformer_tokens, input_ids, attention_mask, qformer_attention_mask } = words[4]!;
  expect(processor.tokenizer.decode(input_ids.slice(tokens.from, tokens.to)).trim()).toBe("square");
  expect(input_ids).toEqual(inputs.input_ids[0]);
  const hidden = (mask: readonly number[]) => mask.flatMap((visible, i) => (visible ? [] : [i]));
  expect(hidden(attention_mask)).toEqual([tokens.from]);
  expect(hidden(qformer_attention_mask!)).toEqual([qformer_tokens!.from]);
});

test("inputs of another text are refused", async () => {
  const processor = await AutoProcessor.from_pretrained(SHAPES);
  const inputs = (await processor({ text: ["What is red?"] })) as never;
  const other = occludedWords(processor, "What is blue?", inputs);
  await expect(other).rejects.toMatchObject({ code: "BAD_INPUT", message: expect.stringContaining("What is blue?") });
  const wrong = occludedWords(processor, "What is red?", inputs, { word: "mask" as never });
  await expect(wrong).rejects.toMatchObject({ code: "PARAM_RANGE" });
});
