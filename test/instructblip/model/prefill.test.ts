/** Prefill in chunks: the same keys, logits and answer as in one pass, for any chunk size. */
import { afterAll, describe, expect, test } from "vitest";
import { InstructBlipForConditionalGeneration } from "../../../src/index.node.ts";
import { CausalLanguageModel } from "../../../src/instructblip/model/language_model.ts";
import { outputObserver, withObserver } from "../../../src/modules/observer.ts";
import { expectClose } from "../../compare.ts";
import { testDevice } from "../../device.ts";
import { goldenFolder } from "../../golden_folder.ts";
import { TOLERANCES } from "../../tolerances.ts";

const device = await testDevice();

describe.each(["grouped_heads_bf16", "opt_plain"])("%s", async (name) => {
  const model = await InstructBlipForConditionalGeneration.from_pretrained(goldenFolder(name), { device });
  const language = model.language_model as CausalLanguageModel;
  afterAll(() => model.dispose());
  const whole = language.prefill_chunk;
  const [B, L] = [2, 13];
  /** The first row begins with padding that reaches into the second part. */
  const attention_mask = [0, 6].map((_, b) => Array.from({ length: L }, (_, s) => Number(b === 1 || s >= 6)));
  const ids = Array.from({ length: B * L }, (_, i) => (7 * i + 3) % 50);

  /** Logits after the prompt and after two more tokens, and the lengths of the parts that were read. */
  async function answer(chunk: number) {
    language.prefill_chunk = chunk;
    const parts: number[] = [];
    const states = language.hiddenStates;
    language.hiddenStates = function (embeds, step) {
      parts.push(embeds.shape[1]);
      return states.call(this, embeds, step);
    };
    const before = device.memory.use.live;
    const read = await device.scope(async () => {
      const inputs_embeds = language.embed(device.tensor(Uint32Array.from(ids), [B, L]));
      const decoding = language.begin(B, L + 2);
      const logits = [await decoding.prefill({ inputs_embeds, attention_mask }).read()];
      for (const token of [4, 9]) logits.push(await decoding.step(device.tensor(Uint32Array.of(token, 5), [B])).read());
      decoding.dispose();
      return logits;
    });
    language.hiddenStates = states;
    language.prefill_chunk = whole;
    expect(device.memory.use.live).toBe(before);
    return { read, parts };
  }

  test("parts of any length give what the whole gives", async () => {
    expect(language).toBeInstanceOf(CausalLanguageModel);
    const expected = await answer(whole);
    expect(expected.parts.slice(0, 1)).toEqual([L]);
    for (const [chunk, lengths] of [
      [5, [5, 5, 3]],
      [6, [6, 6, 1]],
      [12, [12, 1]],
      [13, [13]],
    ] as const) {
      const { read, parts } = await answer(chunk);
      expect(parts.slice(0, lengths.length)).toEqual(lengths);
      expect(parts.slice(lengths.length)).toEqual([1, 1]); // the steps after
      for (const [i, logits] of read.entries()) {
        expectClose(logits, expected.read[i], TOLERANCES.free_running, `${chunk}: ${i} tokens after the prompt`);
      }
    }
  });

  test("an observer is shown the prompt whole", async () => {
    const { parts } = await withObserver(
      device,
      outputObserver(() => undefined),
      () => answer(5),
    );
    expect(parts).toEqual([L, 1, 1]);
  });
});
