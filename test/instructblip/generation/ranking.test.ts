/**
 * Likelihoods of candidates of a shared prompt equal PyTorch's, and those of forward() for each alone, independent of batch,
 * segments and padding.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import {
  AutoModelForImageTextToText,
  InstructBlipForConditionalGeneration,
  InstructBlipProcessor,
} from "../../../src/index.node.ts";
import { candidateIds, type RankedAnswers } from "../../../src/instructblip/generation/ranking.ts";
import type { Decoding } from "../../../src/instructblip/model/language_model.ts";
import type { InstructBlipInputs } from "../../../src/instructblip/pretrained/instructblip.ts";
import { Tokenizer } from "../../../src/instructblip/tokenizer/tokenizer.ts";
import { outputObserver, withObserver } from "../../../src/modules/observer.ts";
import { NodeFolder } from "../../../src/tensor/files/source.node.ts";
import { expectClose } from "../../compare.ts";
import { testDevice } from "../../device.ts";
import { COMMITTED, goldenFolder } from "../../golden_folder.ts";
import { goldenInputs } from "../../parity/golden.ts";
import { ALL } from "../../rounds.ts";
import { TOLERANCES } from "../../tolerances.ts";

const device = await testDevice();

interface Ranked {
  readonly candidates: number[][][];
  readonly sums: number[][];
}

/** A golden's model and inputs. */
async function openModel(name: string) {
  const model = (await AutoModelForImageTextToText.from_pretrained(goldenFolder(name), {
    device,
  })) as InstructBlipForConditionalGeneration;
  return { model, inputs: (await goldenInputs(name)) as InstructBlipInputs };
}

async function open(name: string) {
  const expected = JSON.parse(readFileSync(join(COMMITTED, "ranking/data", `${name}.json`), "utf8")) as Ranked;
  return { ...(await openModel(name)), ...expected };
}

/** Row b by itself. */
function rowOf({ pixel_values, ...ids }: InstructBlipInputs, b: number): InstructBlipInputs {
  const [, ...shape] = pixel_values.shape;
  const size = shape.reduce((product, n) => product * n, 1);
  const row: unknown = Object.fromEntries(Object.entries(ids).map(([name, rows]) => [name, [(rows as number[][])[b]]]));
  const data = pixel_values.data.slice(b * size, (b + 1) * size);
  return { ...(row as typeof ids), pixel_values: { data, shape: [1, ...shape] } };
}

/** NLL by the long way: one whole forward() for one candidate, the prompt without padding where there is one decoder. */
async function bruteForce(
  model: InstructBlipForConditionalGeneration,
  inputs: InstructBlipInputs,
  b: number,
  ids: readonly number[],
): Promise<number> {
  const row = rowOf(inputs, b);
  const { language_model } = model;
  let given = row;
  let decoder_input_ids: number[][] | undefined;
  if (language_model.is_encoder_decoder) {
    const start = (language_model as unknown as { decoder_start_token_id: number }).decoder_start_token_id;
    decoder_input_ids = [[start, ...ids.slice(0, -1)]];
  } else {
    const prompt = row.input_ids[0].filter((_, i) => row.attention_mask![0][i] === 1);
    given = { ...row, input_ids: [[...prompt, ...ids]], attention_mask: undefined } as unknown as InstructBlipInputs;
  }
  return device.scope(async () => {
    const { logits } = await model.forward({ ...given, ...(decoder_input_ids ? { decoder_input_ids } : {}) });
    const [, L, V] = logits.shape;
    const first = decoder_input_ids ? 0 : L - ids.length - 1; // the token before the first predicts it
    const all = await logits.read();
    return ids.reduce((sum, id, t) => {
      const scores = Float64Array.from(all.subarray((first + t) * V, (first + t + 1) * V));
      const most = scores.reduce((a, x) => Math.max(a, x));
      return sum + most - scores[id] + Math.log(scores.reduce((a, x) => a + Math.exp(x - most), 0));
    }, 0);
  });
}

const sumsOf = (ranked: readonly RankedAnswers[]) => ranked.flatMap(({ sums }) => sums);

const NAMES = ["grouped_heads_bf16", "bias_variants", "opt_plain", "t5_flan", "t5_plain_tied_bf16"];
describe.each(NAMES)("%s", async (name) => {
  const { model, inputs, candidates, sums } = await open(name);
  afterAll(() => model.dispose());
  const B = candidates.length;

  test("sums are PyTorch's, means are theirs by token, ranks are their order; nothing stays allocated", async () => {
    await model.rank_answers({ ...inputs, candidates }); // what the device keeps for all its life is there now
    const before = device.memory.use.live;
    const ranked = await model.rank_answers({ ...inputs, candidates });
    expect(device.memory.use.live).toBe(before);
    expectClose(sumsOf(ranked), sums.flat(), TOLERANCES.ranking, name);
    ranked.forEach(({ sums, means, ranks }, b) => {
      expect(means).toEqual(sums.map((sum, c) => sum / candidates[b][c].length));
      expect(ranks.map((c) => sums[c])).toEqual([...sums].sort((x, y) => x - y));
      expect([...ranks].sort((x, y) => x - y)).toEqual(sums.map((_, c) => c));
    });
    const byMean = await model.rank_answers({ ...inputs, candidates, reduction: "mean" });
    byMean.forEach(({ means, ranks }) => {
      expect(ranks.map((c) => means[c])).toEqual([...means].sort((x, y) => x - y));
    });
  });

  test("each costs what forward() says of it alone", async () => {
    const ranked = await model.rank_answers({ ...inputs, candidates });
    for (const [b, list] of candidates.entries()) {
      for (const [c, ids] of list.entries()) {
        if (!ALL && (b + c) % B !== 0) continue; // each place in the lists, in one of them
        const alone = await bruteForce(model, inputs, b, ids);
        expectClose([ranked[b].sums[c]], [alone], TOLERANCES.ranking_twin, `${name} row ${b} candidate ${c}`);
      }
    }
  });

  test("no matter how many at once, in which order, with which others, or on which side the padding is", async () => {
    const expected = sumsOf(await model.rank_answers({ ...inputs, candidates }));
    const same = (ranked: readonly RankedAnswers[], what: string) =>
      expectClose(sumsOf(ranked), expected, TOLERANCES.ranking_twin, `${name}: ${what}`);
    for (const segment_size of ALL ? [1, 2, 3, 5, 1000] : [1, 3, 1000]) {
      same(await model.rank_answers({ ...inputs, candidates, segment_size }), `segments of ${segment_size}`);
    }
    const backwards = await model.rank_answers({
      ...inputs,
      candidates: candidates.map((list) => [...list].reverse()),
    });
    same(
      backwards.map((row) => ({ ...row, sums: [...row.sums].reverse() })),
      "backwards",
    );
    const alone = await Promise.all(
      candidates.map((list, b) => model.rank_answers({ ...rowOf(inputs, b), candidates: list })),
    );
    same(alone.flat(), "prompts alone, candidates for all prompts");
    const few = await model.rank_answers({ ...inputs, candidates: candidates.map((list, b) => list.slice(0, b + 1)) });
    few.forEach(({ sums }, b) => {
      expect(sums.length).toBe(b + 1);
      expectClose(sums, expected.slice(b * 7, b * 7 + b + 1), TOLERANCES.ranking_twin, "not as many for each");
    });
    if (model.language_model.is_encoder_decoder) return; // there, padding before the text shifts its positions, as in HF
    const turned = (rows: readonly (readonly number[])[]) =>
      rows.map((row, b) => {
        const text = row.filter((_, i) => inputs.attention_mask![b][i] === 1);
        return { text, pads: row.filter((_, i) => inputs.attention_mask![b][i] === 0) };
      });
    for (const side of ["left", "right"]) {
      const padded = (rows: readonly (readonly number[])[]) =>
        turned(rows).map(({ text, pads }) => (side === "left" ? [...pads, ...text] : [...text, ...pads]));
      const moved = { ...inputs, input_ids: padded(inputs.input_ids), attention_mask: padded(inputs.attention_mask!) };
      same(await model.rank_answers({ ...moved, candidates }), `padding on the ${side}`);
    }
  });

  test("image and prompt are read once, whatever the number of segments", async () => {
    const finished: string[] = [];
    const observer = outputObserver((path) => void finished.push(path));
    await withObserver(device, observer, () => model.rank_answers({ ...inputs, candidates, segment_size: 2 }));
    const runs = (path: string) => finished.filter((other) => other === path).length;
    const segments = Math.ceil((B * 7) / 2);
    expect(runs("vision_model")).toBe(1);
    expect(runs("qformer")).toBe(1);
    const path = name.startsWith("opt") ? "model.decoder" : name.startsWith("t5") ? "decoder" : "model";
    expect(runs("language_model.encoder")).toBe(path === "decoder" ? 1 : 0);
    // One pass over the prompt, or T5's start token, and one for each segment with a candidate of two tokens or more.
    const longer = Array.from({ length: segments }, (_, s) => candidates.flat().slice(2 * s, 2 * s + 2)).filter(
      (some) => some.some((ids) => ids.length > 1),
    );
    expect(runs(`language_model.${path}.${path === "decoder" ? "final_layer_norm" : "layers.0"}`)).toBe(
      1 + longer.length,
    );
  });
});

// Other inputs, several images a prompt, and features in front of a prompt that keeps no places for them.
test.each(["blip2_opt", "video_4_frames", "video_3_frames_t5", "legacy_llama"])(
  "%s ranks as it goes forward",
  async (name) => {
    const { model, inputs } = await openModel(name);
    const candidates = [[[5], [17, 9, 30], [11, 4]], [[8, 8], [12]], [[40, 3]]].slice(0, inputs.input_ids.length);
    const ranked = await model.rank_answers({ ...inputs, candidates, segment_size: 4 });
    for (const [b, list] of candidates.entries()) {
      const alone: number[] = [];
      for (const ids of list) alone.push(await bruteForce(model, inputs, b, ids));
      expectClose(ranked[b].sums, alone, TOLERANCES.ranking_twin, `${name} row ${b}`);
    }
    model.dispose();
  },
);

test.each(["plain_f32", "opt_bare", "t5_flan"])("%s looks ahead without going there", async (name) => {
  const { model, inputs } = await openModel(name);
  const { language_model } = model;
  const upload = (rows: readonly (readonly number[])[]) =>
    device.tensor(Uint32Array.from(rows.flat()), [rows.length, rows[0].length]);
  const step = (decoding: Decoding, tokens: readonly number[]) =>
    decoding.step(device.tensor(Uint32Array.from(tokens), [tokens.length])).read();
  const begin = () => {
    const decoding = language_model.begin(inputs.input_ids.length, inputs.input_ids[0].length + 8);
    const inputs_embeds = language_model.embed(upload(inputs.input_ids));
    decoding.prefill({ inputs_embeds, attention_mask: inputs.attention_mask! });
    return decoding;
  };
  const rows = [0, 0, inputs.input_ids.length - 1];
  const next = [
    [3, 20, 21],
    [4, 22, 23],
    [5, 24, 25],
  ];
  const answer = async (looks: boolean) => {
    const decoding = begin();
    const ahead: Float32Array[] = [];
    const steps: Float32Array[] = [];
    for (const token of [7, 8, 9]) {
      if (looks) ahead.push(await decoding.continuationLogits(rows, upload(next)).read());
      steps.push(
        await step(
          decoding,
          inputs.input_ids.map((_, b) => token + b),
        ),
      );
    }
    decoding.dispose();
    return { ahead, steps };
  };
  const { ahead, steps } = await answer(true);
  expect(steps).toEqual((await answer(false)).steps);
  // What follows token t of continuation r is what the steps to there say.
  const decoding = begin();
  decoding.reorder(rows);
  for (let t = 0; t < 3; t++) {
    const logits = await step(
      decoding,
      next.map((tokens) => tokens[t]),
    );
    const V = logits.length / 3;
    const expected = rows.flatMap((_, r) => [...ahead[0].subarray((r * 3 + t) * V, (r * 3 + t + 1) * V)]);
    expectClose(logits, expected, TOLERANCES.free_running, `${name} token ${t}`);
  }
  decoding.dispose();
  model.dispose();
});

test("groups add up the probabilities of their candidates", async () => {
  const { model, inputs, candidates } = await open("t5_flan");
  const plain = await model.rank_answers({ ...inputs, candidates });
  const groups = [0, 1, 0, 2, 1, 2, 0];
  const joined = await model.rank_answers({ ...inputs, candidates, groups });
  joined.forEach(({ sums, ranks }, b) => {
    const expected = [0, 1, 2].map(
      (g) => -Math.log(plain[b].sums.reduce((p, nll, c) => p + (groups[c] === g ? Math.exp(-nll) : 0), 0)),
    );
    expectClose(sums, expected, TOLERANCES.ranking_twin, "groups");
    expect(ranks.map((g) => sums[g])).toEqual([...sums].sort((x, y) => x - y));
  });
  const single = await model.rank_answers({ ...inputs, candidates, groups: [6, 5, 4, 3, 2, 1, 0] });
  expectClose(single[0].sums, [...plain[0].sums].reverse(), TOLERANCES.ranking_twin, "groups of one");
  model.dispose();
});

test("wrong candidates are refused by name, and an aborted ranking stops", async () => {
  const { model, inputs } = await open("t5_flan");
  const refused = (options: object) => expect(model.rank_answers({ ...inputs, candidates: [[5]], ...options })).rejects;
  await refused({ candidates: [] }).toMatchObject({ code: "BAD_CANDIDATES" });
  await refused({ candidates: [5] }).toMatchObject({ code: "BAD_CANDIDATES" });
  await refused({ candidates: [[5], []] }).toThrow("candidate 1 of prompt 0 has no tokens");
  await refused({ candidates: [[[5]]] }).toThrow("candidates has 1 lists for 2 prompts");
  await refused({ candidates: [[[5]], []] }).toThrow("prompt 1 has no candidates");
  await refused({ candidates: [[5, 1e6]] }).toMatchObject({ code: "TOKEN_ID" });
  await refused({ candidates: [[5], [0.5]] }).toMatchObject({ code: "TOKEN_ID" });
  await refused({ groups: [1] }).toMatchObject({ code: "BAD_CANDIDATES" });
  await refused({ groups: [0, 0] }).toMatchObject({ code: "BAD_CANDIDATES" });
  await refused({ reduction: "max" }).toMatchObject({ code: "PARAM_RANGE" });
  await refused({ segment_size: 0 }).toMatchObject({ code: "PARAM_RANGE" });
  await refused({ segment: 3 }).toThrow('rank_answers has no option "segment"');
  const reason = new Error("enough");
  await refused({ signal: AbortSignal.abort(reason) }).toBe(reason);
  model.dispose();
});

test("a likelihood that is not a number is refused, not ranked", async () => {
  const { model, inputs } = await open("t5_flan");
  const observer = outputObserver(
    (_, output) => device.tensor(new Float32Array(output.size).fill(Number.NaN), output.shape),
    "language_model.lm_head",
  );
  const ranked = withObserver(device, observer, () => model.rank_answers({ ...inputs, candidates: [[5], [6, 7]] }));
  await expect(ranked).rejects.toMatchObject({ code: "NUMERIC" });
  model.dispose();
});

test("texts become what the tokenizer makes of them, without a first token of its own", async () => {
  const llama = await Tokenizer.from_pretrained(new NodeFolder(goldenFolder("plain_f32")));
  const t5 = await Tokenizer.from_pretrained(new NodeFolder(goldenFolder("t5_flan")));
  const bare = (tokenizer: Tokenizer, text: string) => tokenizer.encode(text, { add_special_tokens: false });
  const [a, b] = candidateIds(llama, ["a dog", "colour"]);
  expect([a, b]).toEqual([bare(llama, "a dog"), bare(llama, "colour")]);
  expect(candidateIds(llama, ["a dog"], true)).toEqual([[...a, llama.eos_token_id]]);
  expect(candidateIds(llama, ["a dog"], false)).toEqual([a]);
  const [c] = candidateIds(t5, ["a dog"]);
  expect(c).toEqual([...bare(t5, "a dog"), t5.eos_token_id]);
  expect(candidateIds(t5, ["a dog"], true)).toEqual([c]);
  expect(candidateIds(t5, ["a dog"], false)).toEqual([c.slice(0, -1)]);
});

test("the embedded checkpoint ranks the right colour first", async () => {
  const folder = new URL("../../../examples/shapes/", import.meta.url);
  const checkpoint = new URL("checkpoint/", folder).pathname;
  const processor = await InstructBlipProcessor.from_pretrained(checkpoint);
  const model = await InstructBlipForConditionalGeneration.from_pretrained(checkpoint, { device });
  const lines = readFileSync(new URL("eval/expected.jsonl", folder), "utf8").trimEnd().split("\n");
  const colours = lines
    .map((line) => JSON.parse(line) as { id: string; kind: string; answer: string })
    .filter(({ kind }) => kind === "color")
    .slice(0, 8);
  const requests = new Map(
    readFileSync(new URL("eval/requests.jsonl", folder), "utf8")
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line) as { id: string; images: string[]; prompts: string[] })
      .map((request) => [request.id, request]),
  );
  const texts = ["red", "green", "blue", "yellow", "purple", "orange"];
  const asked = colours.map(({ id }) => requests.get(id)!);
  const inputs = await processor({
    images: asked.map(({ images }) => new URL(`eval/${images[0]}`, folder).pathname),
    text: asked.map(({ prompts }) => prompts[0]),
    padding: true,
  });
  const ranked = await model.rank_answers({ ...inputs, candidates: candidateIds(processor.tokenizer, texts, true) });
  expect(ranked.map(({ ranks }) => texts[ranks[0]])).toEqual(colours.map(({ answer }) => answer));
  model.dispose();
});
