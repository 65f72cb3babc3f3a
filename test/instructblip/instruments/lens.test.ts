/** The logit lens against PyTorch's by hooks (test/golden/lens), of every language model, and what it refuses. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { AutoModelForImageTextToText } from "../../../src/index.node.ts";
import { type LogitLens, logitLens } from "../../../src/instructblip/instruments/lens.ts";
import { expectClose } from "../../compare.ts";
import { testDevice } from "../../device.ts";
import { COMMITTED, goldenFolder } from "../../golden_folder.ts";
import { goldenRow } from "../../parity/golden.ts";
import { TOLERANCES } from "../../tolerances.ts";

const device = await testDevice();
const FOLDER = join(COMMITTED, "lens/data");
const NAMES = readdirSync(FOLDER).map((file) => file.replace(".json", ""));

interface Expected {
  readonly row: number;
  readonly answer: number[];
  readonly positions: number[];
  readonly states: readonly {
    /** [position][3] */
    readonly ids: number[][];
    readonly logprobs: number[][];
    /** [token of the answer] */
    readonly answer: number[];
  }[];
  readonly maps: number[][];
}

test("there are goldens of every language model", () => {
  for (const part of ["plain", "opt_plain", "opt_post_norm", "opt_bare", "t5_flan", "t5_plain_tied", "video"]) {
    expect(NAMES.some((name) => name.startsWith(part))).toBe(true);
  }
});

describe.each(NAMES)("%s", async (name) => {
  const expected: Expected = JSON.parse(readFileSync(join(FOLDER, `${name}.json`), "utf8"));
  const model = await AutoModelForImageTextToText.from_pretrained(goldenFolder(name), { device });
  const inputs = await goldenRow(name, expected.row);
  const isT5 = model.language_model.is_encoder_decoder;
  afterAll(() => model.dispose());
  const look = (options: object = {}) => logitLens(model, inputs as never, options);

  test("words of every state, the answer's log-probabilities, and maps are PyTorch's", async () => {
    const before = device.memory.use.live;
    const lens = await look({ answer: expected.answer, top_k: 3 });
    expect(device.memory.use.live).toBe(before);
    expect(lens.states).toBe(expected.states.length);
    const tokens = [...lens.image, ...lens.answer];
    expect(tokens.map(({ position }) => position)).toEqual(expected.positions);
    expect(lens.answer.map(({ id }) => id)).toEqual(expected.answer);
    expect(lens.image.every(({ id, states }) => id === null && states.every(({ logprob }) => logprob === null))).toBe(
      true,
    );
    expect(lens.image).toHaveLength(isT5 ? 0 : expected.maps.length);
    for (const [i, { ids, logprobs, answer }] of expected.states.entries()) {
      const ours = tokens.map(({ states }) => states[i].top);
      expectClose(
        ours.flat().map(({ logprob }) => logprob),
        logprobs.flat(),
        TOLERANCES.beam_scores,
        `state ${i}`,
      );
      const clear = (r: number) => logprobs[r].every((x, k) => k === 0 || logprobs[r][k - 1] - x > 1e-3);
      for (const [r, top] of ours.entries()) if (clear(r)) expect(top.map(({ id }) => id)).toEqual(ids[r]);
      expectClose(
        lens.answer.map(({ states }) => states[i].logprob!),
        answer,
        TOLERANCES.beam_scores,
        `answer, state ${i}`,
      );
    }
    expect(lens.maps.weights).toHaveLength(expected.maps.length);
    expect(lens.maps.rows * lens.maps.columns).toBe(expected.maps[0].length);
    expectClose(
      lens.maps.weights.flatMap((map) => [...map]),
      expected.maps.flat(),
      TOLERANCES.free_running,
      "maps",
    );
  });

  test("without an answer it is generate()'s, and the last state is what that was chosen by", async () => {
    const lens = await look({ generation: { max_new_tokens: 3 } });
    const call = {
      ...inputs,
      max_new_tokens: 3,
      return_full_text: false,
      return_dict_in_generate: true,
      logprobs: 5,
    } as const;
    const { sequences, logprobs } = await model.generate(call as never);
    expect(lens.answer.map(({ id }) => id)).toEqual(sequences[0]);
    for (const [t, { states }] of lens.answer.entries()) {
      const { logprob, top } = logprobs![0].tokens[t];
      expectClose([states.at(-1)!.logprob!], [logprob], TOLERANCES.beam_scores, "chosen");
      expect(states.at(-1)!.top[0].id).toBe(top[0].id);
      expect(states[0].top).toHaveLength(5);
    }
  });
});

describe("of one LLaMA", async () => {
  const name = "plain_f32";
  const model = await AutoModelForImageTextToText.from_pretrained(goldenFolder(name), { device });
  const inputs = await goldenRow(name, 0);
  afterAll(() => model.dispose());
  const look = (options: object = {}, more: object = {}) => logitLens(model, { ...inputs, ...more } as never, options);
  const firstWords = ({ answer }: LogitLens) => answer.map(({ states }) => states.map(({ top }) => top[0]));

  test("padding is no part of the prompt", async () => {
    const { input_ids, attention_mask } = inputs;
    const padded = { input_ids: [[7, 7, ...input_ids[0]]], attention_mask: [[0, 0, ...attention_mask[0]]] };
    const options = { answer: [5, 9] };
    expect(await look(options, padded)).toEqual(await look(options));
  });

  test("an intervention shows from its layer on", async () => {
    const options = { answer: [5, 9] };
    const cut = { module: "language_model.model.layers.1", op: "zero" };
    const [plain, changed] = [await look(options), await look({ ...options, interventions: [cut] })];
    const [a, b] = [firstWords(plain), firstWords(changed)];
    for (const t of [0, 1]) {
      expect(b[t].slice(0, 2)).toEqual(a[t].slice(0, 2));
      expect(b[t][2]).not.toEqual(a[t][2]);
    }
  });

  test("what cannot be looked at is refused, before anything is computed", async () => {
    const { input_ids } = inputs;
    await expect(look({ top_k: 0 })).rejects.toMatchObject({ code: "PARAM_RANGE" });
    await expect(look({ top_k: 101 })).rejects.toMatchObject({ code: "PARAM_RANGE" });
    await expect(look({ answer: [] })).rejects.toMatchObject({ code: "BAD_INPUT" });
    await expect(look({ answer: [1e6] })).rejects.toMatchObject({ code: "TOKEN_ID" });
    await expect(look({ answer: [1e6, 3] })).rejects.toMatchObject({ code: "TOKEN_ID" });
    await expect(look({}, { input_ids: [...input_ids, ...input_ids] })).rejects.toMatchObject({
      code: "BATCH_MISMATCH",
    });
    await expect(look({ signal: AbortSignal.abort(new Error("enough")) })).rejects.toThrow("enough");
    await expect(look({ layers: 3 })).rejects.toMatchObject({ code: "UNKNOWN_OPTION" });
  });
});
