/** The explorer of the browser page without a browser: what its worker sees in a model, and what the page makes of that. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  arrange,
  changedFrom,
  chosenWeights,
  interventionsOf,
  leastSure,
  mapOf,
  nats,
  percent,
  probability,
  readsOf,
  surestWords,
  visibleText,
} from "../../examples/browser/page/explorer/exploration.ts";
import {
  fragmentOf,
  type LinkState,
  linkedParts,
  linkOf,
  partsOfLink,
} from "../../examples/browser/page/explorer/link.ts";
import { EMBEDDED } from "../../examples/browser/serve.ts";
import { attentions, effects, look, prepareParts } from "../../examples/browser/worker/explore.ts";
import type { Look, Weights } from "../../examples/browser/worker/protocol.ts";
import {
  type AnyProcessor,
  AutoModelForImageTextToText,
  AutoProcessor,
  logitLens,
  type ModelInputs,
  type VisionLanguageModel,
} from "../../src/index.node.ts";
import { answerPass } from "../../src/instructblip/instruments/answer_pass.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { expectClose } from "../compare.ts";
import { testDevice } from "../device.ts";
import { goldenFolder } from "../golden_folder.ts";
import { goldenInputs } from "../parity/golden.ts";
import { TOLERANCES } from "../tolerances.ts";

const device = await testDevice();
const signal = new AbortController().signal;
const QUESTION = "What color is the square?";
const image = new Blob([new Uint8Array(readFileSync(join(EMBEDDED, "../images/a.png")))]);
const asked = { image, text: QUESTION };

describe("what the worker sees", () => {
  let loaded: { model: VisionLanguageModel; processor: AnyProcessor };
  let seen: Look;
  const told: number[] = [];
  beforeAll(async () => {
    const [model, processor] = [
      await AutoModelForImageTextToText.from_pretrained(EMBEDDED, { device }),
      await AutoProcessor.from_pretrained(EMBEDDED),
    ];
    loaded = { model, processor };
    seen = await look({ ...loaded, ...asked, interventions: [] }, { signal, tell: ({ id }) => told.push(id) });
  });
  afterAll(() => loaded.model.dispose());

  test("is the answer of generate, told token by token, with its end", async () => {
    const ids = seen.tokens.map(({ id }) => id);
    expect(told).toEqual(ids);
    expect(seen.tokens.map(({ text, isEnd }) => (isEnd ? "end" : text.trim()))).toEqual(["orange", "end"]);
    expect(seen.tokens.every(({ top, id, logprob }) => top[0]!.id === id && top[0]!.logprob === logprob)).toBe(true);
  });

  test("is where the queries looked, as the lens has it", async () => {
    const inputs = (await loaded.processor({ images: [image], text: [QUESTION] })) as ModelInputs;
    const lens = await logitLens(loaded.model, inputs, { answer: seen.tokens.map(({ id }) => id), top_k: 5 });
    expect(seen.map_layers).toEqual([0, 2]);
    expect(seen.grid).toEqual({ rows: lens.maps.rows, columns: lens.maps.columns });
    const maps = chosenWeights(seen.maps, { layer: undefined, head: undefined });
    expectClose(
      [...maps],
      lens.maps.weights.flatMap((map) => [...map]),
      TOLERANCES.module,
      "maps",
    );
    const words = lens.image.map(({ states }) => states.map(({ top }) => top.map(({ id }) => id)));
    expect(seen.words.map((states) => states.map((top) => top.map(({ id }) => id)))).toEqual(words);
  });

  test("changes with what is taken out, as generate's answer", async () => {
    const { units } = await prepareParts({ ...loaded, ...asked });
    const { queries, grids } = arrange(units);
    expect(queries).toHaveLength(12);
    expect(grids.map(({ group, rows }) => [group, rows.length])).toEqual([
      ["vision_model.heads", 4],
      ["qformer.heads", 6],
      ["language_model.heads", 4],
    ]);
    const interventions = interventionsOf(units, new Set(queries));
    expect(interventions).toEqual([
      { module: "language_projection", at: "output", op: "zero", index: { token: queries.map((_, q) => q) } },
    ]);
    const blind = await look({ ...loaded, ...asked, interventions }, { signal, tell: () => {} });
    const inputs = (await loaded.processor({ images: [image], text: [QUESTION] })) as ModelInputs;
    const [ids] = await loaded.model.generate({
      ...inputs,
      interventions,
      max_new_tokens: 64,
      return_full_text: false,
    });
    expect(blind.tokens.map(({ id }) => id)).toEqual(ids);
    expect(blind.tokens[0]!.id).not.toBe(seen.tokens[0]!.id);
  });

  test("effects are what ablation finds, and stop on request", async () => {
    const answer = seen.tokens.map(({ id }) => id);
    const found: [number, number][] = [];
    const until = new AbortController();
    const tell = ({ part, effect }: { part: number; effect: number }) => {
      found.push([part, effect]);
      if (found.length === 2) until.abort();
    };
    await expect(effects({ ...loaded, ...asked, answer }, { signal: until.signal, tell })).rejects.toThrow(/abort/i);
    const { logprobs, scores } = await prepareParts({ ...loaded, ...asked }, answer);
    const whole = logprobs.reduce((sum, x) => sum + x, 0);
    const wanted: [number, number][] = [];
    for await (const { index, logprob } of scores([0, 1])) wanted.push([index, logprob - whole]);
    expect(found.map(([part]) => part)).toEqual([0, 1]);
    for (const [i, [, effect]] of found.entries()) expect(effect).toBeCloseTo(wanted[i]![1], 5);
  });
});

test.each(["t5_flan", "opt_plain"])(
  "attentions of %s are those of forward, where the answer is chosen",
  async (name) => {
    const { pixel_values, ...ids } = await goldenInputs(name);
    const model = await AutoModelForImageTextToText.from_pretrained(goldenFolder(name), { device });
    try {
      const size = pixel_values.data.length / pixel_values.shape[0];
      const one = { data: pixel_values.data.slice(0, size), shape: pixel_values.shape.with(0, 1) };
      const rows = Object.entries(ids).map(([key, value]) => [key, value && [value[0]]]);
      const inputs = { pixel_values: one, ...Object.fromEntries(rows) } as ModelInputs;
      const answer = [5, 6, 7];
      const { maps, reads } = await attentions(model, inputs, answer, [], signal);
      const pass = await answerPass("test", model, inputs, { answer });
      const output = await model.forward({ ...pass.call, output_attentions: true });
      const { cross_attentions, attentions: own } = output.language_model_outputs;
      await expectPart(maps, output.qformer_outputs.cross_attentions!, [0, 1]);
      const first = pass.ids.indexOf(model.config.image_token!);
      const last = (cross_attentions ?? own)![0]!.shape[2]!;
      await expectPart(reads, (cross_attentions ?? own)!, [last - answer.length, first]);
      expect([reads.rows, reads.columns]).toEqual([answer.length, model.config.num_query_tokens]);
    } finally {
      model.dispose();
    }
  },
);

/** The weights must be those of whole attentions, f32[1, H, M, S] a layer, from a row and a column on. */
async function expectPart(part: Weights, whole: readonly Tensor[], [row, column]: readonly [number, number]) {
  const { heads, rows, columns } = part;
  expect([part.layers, heads]).toEqual([whole.length, whole[0]!.shape[1]]);
  const wanted: number[] = [];
  for (const layer of whole) {
    const [, , M, S] = layer.shape as [number, number, number, number];
    const data = await layer.read();
    for (let h = 0; h < heads; h++) {
      for (let r = 0; r < rows; r++) {
        for (let c = 0; c < columns; c++) wanted.push(data[(h * M + row + r) * S + column + c]!);
      }
    }
  }
  expect([...part.data]).toEqual(wanted);
}

describe("what the page makes of it", () => {
  const weights = (layers: number, heads: number, rows: number, columns: number): Weights => {
    const data = Float32Array.from({ length: layers * heads * rows * columns }, (_, i) => i + 1);
    return { layers, heads, rows, columns, data };
  };
  const ALL = { layer: undefined, head: undefined };

  test("weights of one layer and head, of one of both, and of all", () => {
    const some = weights(2, 3, 1, 2); // 1 2 | 3 4 | 5 6 || 7 8 | 9 10 | 11 12
    expect([...chosenWeights(some, { layer: 1, head: 2 })]).toEqual([11, 12]);
    expect([...chosenWeights(some, { layer: 1, head: undefined })].map(Math.round)).toEqual([9, 10]);
    expect([...chosenWeights(some, { layer: undefined, head: 0 })]).toEqual([4, 5]);
    expect([...chosenWeights(some, ALL)].map(Math.round)).toEqual([6, 7]);
  });

  test("a token's map is the queries' maps, each as much as it was read", () => {
    const maps = { layers: 1, heads: 1, rows: 2, columns: 2, data: Float32Array.of(1, 0, 0.25, 0.75) };
    const reads = { layers: 1, heads: 1, rows: 2, columns: 2, data: Float32Array.of(0.3, 0.1, 0, 0) };
    const one = { maps, reads } as unknown as Look;
    expect([...readsOf(one, 0)].map((x) => Math.fround(x))).toEqual([0.3, 0.1].map(Math.fround));
    const map = mapOf(one, ALL, 0, undefined);
    expect(map[0]).toBeCloseTo(0.75 + 0.0625);
    expect(map[1]).toBeCloseTo(0.1875);
    expect([...mapOf(one, ALL, 0, 1)]).toEqual([0.25, 0.75]);
    expect([...mapOf(one, ALL, 1, undefined)]).toEqual([0, 0]); // it read nothing: no NaN
  });

  test("parts of one module are one intervention", () => {
    const part = (module: string, index: object, at: "heads" | "output" = "heads") => {
      return { group: "g", row: "0", column: "0", places: [{ module, at, index }] };
    };
    const parts = [
      part("a", { head: [0] }),
      part("a", { head: [1] }),
      part("b", { head: [0] }),
      part("p", { token: [7] }, "output"),
    ];
    expect(interventionsOf(parts, new Set([3, 1, 0]))).toEqual([
      { module: "a", at: "heads", op: "zero", index: { head: [0, 1] } },
      { module: "p", at: "output", op: "zero", index: { token: [7] } },
    ]);
    expect(interventionsOf(parts, new Set())).toEqual([]);
  });

  test.each<[number[], number[], string]>([
    [[1, 2, 3], [1, 2, 3], "..."],
    [[1, 2, 3], [1, 9, 3], ".x."],
    [[1, 2, 3], [2, 3], ".."],
    [[1, 2], [1, 7, 8, 2], ".xx."],
    [[], [1], "x"],
    [[1], [], ""],
    [[1, 1, 2], [2, 1, 1], "x.."],
  ])("%j, then %j", (before, after, wanted) => {
    const said = changedFrom(before, after).map((changed) => (changed ? "x" : "."));
    expect(said.join("")).toBe(wanted);
  });

  test("the least sure token, of words alone", () => {
    const tokens = [-0.1, -2, -0.5, -9].map((logprob, i) => ({ logprob, isEnd: i === 3 }));
    expect(leastSure({ tokens } as never)).toBe(1);
    expect(leastSure({ tokens: [] })).toBe(0);
  });

  test("surest words leave out what comes before the first layer", () => {
    const word = (id: number, logprob: number) => ({ id, text: String(id), logprob });
    const words = [[word(1, -0.1)], [word(2, -3), word(3, -1)], [word(2, -0.5)]];
    const said = surestWords(words, 2).map(({ id, layer, logprob }) => [id, layer, logprob]);
    expect(said).toEqual([
      [2, 1, -0.5],
      [3, 0, -1],
    ]);
  });

  test("differences in nats", () => {
    expect([-67.2, 9.96, -1.53, 0.208, 0.0421, 1.2e-7, 0].map(nats)).toEqual([
      "−67 nats",
      "10 nats",
      "−1.5 nats",
      "0.21 nats",
      "0.042 nats",
      "0 nats",
      "0 nats",
    ]);
  });

  test("probabilities, of which the smallest are all alike", () => {
    const shares = [1, 0.9999, 0.5, 0.0123, 0.001, 0.00099, 1e-9, 0];
    expect(shares.map((share) => probability(Math.log(share)))).toEqual([
      ...["100 %", ">99.9 %", "50.0 %", "1.2 %", "0.10 %", "<0.1 %", "<0.1 %", "<0.1 %"],
    ]);
  });

  test("texts and percentages", () => {
    expect([0, 1e-5, 0.0051, 0.0951, 0.0996, 1].map(percent)).toEqual([
      "0 %",
      "<0.1 %",
      "0.5 %",
      "9.5 %",
      "10 %",
      "100 %",
    ]);
    expect([" yes", "", " ", "\n", "\x18", "a\x07b", "\u0301"].map(visibleText)).toEqual([
      "yes",
      "∅",
      "␣",
      "⏎",
      "U+0018",
      "a·b",
      "U+0301",
    ]);
  });
});

describe("a link", () => {
  const whole: LinkState = {
    ...{ checkpoint: "The embedded checkpoint", dtype: "int4", image: "a", question: "What’s 1 & 2 = #3?" },
    ...{ token: 3, layer: 0, head: 2, query: 5, words: 1, map: "rests" },
    out: [
      { group: "qformer.queries", row: "output", columns: ["0", "3"] },
      { group: "language_model.heads", row: "1 cross", columns: ["2"] },
    ],
  };
  const least: LinkState = { checkpoint: "c", image: "a", question: "q", out: [] };

  test.each([whole, least])("restores what it was made of", (state) => {
    const fragment = fragmentOf(state);
    expect(fragment).toMatch(/^#[\x21-\x7e]+$/);
    expect(linkOf(fragment)).toEqual(state);
    expect(linkOf(new URL(fragment, "http://localhost/").hash)).toEqual(state);
  });

  test.each<[string, string | RegExp | undefined]>([
    ["", undefined],
    ["#top", undefined],
    ["#checkpoint=c&image=a", /^This link is not whole/],
    ["#checkpoint=c&image=a&question=q&colour=red", /not known here: colour\.$/],
    ["#checkpoint=c&image=a&question=q&token=-1", /token is not a number/],
    ["#checkpoint=c&image=a&question=q&token=1e9", /token is not a number/],
    ["#checkpoint=c&image=a&question=q&map=treasure", /no map/],
    ["#checkpoint=c&image=a&question=q&out=qformer.queries", /which parts are out/],
    ["#checkpoint=c&image=a&question=q&out=<b>/x/1", /which parts are out/],
  ])("%s is refused or none", (fragment, said) => {
    const found = linkOf(fragment);
    if (said === undefined) expect(found).toBeUndefined();
    else expect(found).toMatch(said);
  });

  test("has parts by their names, and says how many a model does not have", () => {
    const parts = ["0", "1", "2"].flatMap((column) => [
      { group: "qformer.queries", row: "output", column, places: [] },
      { group: "vision_model.heads", row: "1", column, places: [] },
    ]);
    const numbers = new Set([4, 0, 3]);
    const linked = linkedParts(parts, numbers);
    expect(linked).toEqual([
      { group: "qformer.queries", row: "output", columns: ["0", "2"] },
      { group: "vision_model.heads", row: "1", columns: ["1"] },
    ]);
    expect(partsOfLink(parts, linked)).toEqual({ numbers, missing: 0 });
    const other = [...linked, { group: "vision_model.heads", row: "7", columns: ["0", "1"] }];
    expect(partsOfLink(parts, other)).toEqual({ numbers, missing: 2 });
  });
});
