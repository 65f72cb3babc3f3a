/** max_time ends an answer even if the device hangs. */
import { afterEach, expect, test, vi } from "vitest";
import { decodingConfig } from "../../../src/instructblip/generation/configuration.ts";
import { search } from "../../../src/instructblip/generation/search.ts";
import { GOLDENS, type SearchCase, settingOf, TableDecoder } from "./golden.ts";

afterEach(() => vi.useRealTimers());

/** A decoder that does not answer from its step number `n` on, until it is interrupted. */
function stuckAfter(n: number, { prompt }: SearchCase, inFlight: number) {
  const decoder = new TableDecoder(prompt, true);
  const waits: ((reason: unknown) => void)[] = [];
  const hang = () => new Promise<never>((_, reject) => waits.push(reject));
  const { argmax, topK } = decoder;
  return Object.assign(decoder, {
    inFlight,
    argmax(...args: Parameters<typeof argmax>) {
      const result = argmax.apply(decoder, args);
      return decoder.steps < n ? result : { ...result, read: hang };
    },
    topK: (...args: Parameters<NonNullable<typeof topK>>) => (decoder.steps < n ? topK!.apply(decoder, args) : hang()),
    interrupt: (reason: unknown) => {
      for (const reject of waits) reject(reason);
    },
  });
}

const one = GOLDENS.searches.find(({ prompt }) => prompt.length === 2)!;
const start = one.prompt[0].length;

test.each([
  ["greedy search", {}, 0],
  ["greedy search ahead", {}, 2],
  ["beam search", { num_beams: 3 }, 0],
])("%s gives the tokens that there are", async (_, options, inFlight) => {
  const asked = { ...options, max_new_tokens: 8, eos_token_id: null };
  const setting = settingOf(one);
  const whole = decodingConfig({ ...asked, max_new_tokens: 3 }, setting);
  const right = await search(new TableDecoder(one.prompt, true), one.prompt, whole);
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  const decoder = stuckAfter(3, one, inFlight);
  const found = search(decoder, one.prompt, decodingConfig({ ...asked, max_time: 3600 }, setting));
  await vi.advanceTimersByTimeAsync(3_600_000 - 1); // a token begun in time may take a little longer
  let ended = false;
  void found.finally(() => {
    ended = true;
  });
  await vi.advanceTimersByTimeAsync(5000);
  expect(ended).toBe(false);
  await vi.advanceTimersByTimeAsync(20_000);
  expect((await found).sequences).toEqual(right.sequences);
  expect(right.sequences[0]).toHaveLength(start + 3);
});

test("without a first token it is the device that must end it", async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  const decoder = stuckAfter(0, one, 0);
  const config = decodingConfig({ max_new_tokens: 8, max_time: 1 }, settingOf(one));
  const found = search(decoder, one.prompt, config);
  await vi.advanceTimersByTimeAsync(60_000);
  const lost = new Error("lost");
  decoder.interrupt(lost);
  await expect(found).rejects.toBe(lost);
});
