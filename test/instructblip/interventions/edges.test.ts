/**
 * Attention edges that are cut, in whole models: against zeroed heads, values of the one key that is left, a pass over the
 * whole answer, and attention maps. Scores and softmax without edges are in test/kernels/attention.test.ts; the same by
 * PyTorch in test/parity.
 */
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import {
  AutoModelForImageTextToText,
  type Intervention,
  type InterventionIndex,
  type Tensor,
  traceOutputs,
  type VisionLanguageModel,
} from "../../../src/index.node.ts";
import { cutEdges } from "../../../src/instructblip/interventions/edit.ts";
import { mul } from "../../../src/tensor/ops/gated_activation.ts";
import { expectClose } from "../../compare.ts";
import { testDevice } from "../../device.ts";
import { goldenFolder } from "../../golden_folder.ts";
import { type GoldenInputs, goldenInputs } from "../../parity/golden.ts";

const device = await testDevice();
interface Loaded {
  readonly model: VisionLanguageModel;
  readonly inputs: GoldenInputs & { decoder_input_ids?: number[][] };
}
const loaded: Record<string, Loaded> = {};
const NAMES = ["opt_plain", "t5_flan", "grouped_heads_bf16"];
beforeAll(async () => {
  for (const name of NAMES) {
    const model = await AutoModelForImageTextToText.from_pretrained(goldenFolder(name), { device });
    const inputs = await goldenInputs(name);
    const start = model.language_model.decoder_start_token_id;
    const decoder = start === undefined ? {} : { decoder_input_ids: inputs.input_ids.map(() => [start, 5, 9]) };
    loaded[name] = { model, inputs: { ...inputs, ...decoder } };
  }
});
afterAll(() => {
  for (const { model } of Object.values(loaded)) model.dispose();
});

const cut = (module: string, index?: InterventionIndex, more: object = {}): Intervention => ({
  module,
  at: "edges",
  op: "zero",
  ...(index && { index }),
  ...more,
});
const logitsOf = ({ model, inputs }: Loaded, interventions: readonly Intervention[], more: object = {}) =>
  device.scope(async () => {
    const output = await model.forward({ ...inputs, ...more, interventions } as Parameters<typeof model.forward>[0]);
    return output.logits.read();
  });
const generate = ({ model, inputs }: Loaded, options: object) => {
  const { decoder_input_ids: _, ...given } = inputs;
  const fixed = { max_new_tokens: 6, eos_token_id: null, return_dict_in_generate: true } as const;
  return model.generate({ ...given, ...fixed, ...options });
};

/** Every kind of attention: model, path. */
const SELF = {
  opt_plain: "language_model.model.decoder.layers.1.self_attn",
  t5_flan: "language_model.decoder.block.1.layer.0.SelfAttention",
  grouped_heads_bf16: "language_model.model.layers.0.self_attn",
} as const;
const ATTENTIONS: readonly (readonly [keyof typeof SELF, string])[] = [
  ["opt_plain", "vision_model.encoder.layers.0.self_attn"],
  ["opt_plain", "qformer.encoder.layer.0.attention.attention"],
  ["opt_plain", "qformer.encoder.layer.0.crossattention.attention"],
  ["opt_plain", SELF.opt_plain],
  ["grouped_heads_bf16", SELF.grouped_heads_bf16],
  ["t5_flan", "language_model.encoder.block.0.layer.0.SelfAttention"],
  ["t5_flan", SELF.t5_flan],
  ["t5_flan", "language_model.decoder.block.1.layer.1.EncDecAttention"],
];

test.each(ATTENTIONS)("%s: without any edges the heads of %s are zeros", async (name, module) => {
  const of = loaded[name];
  const plain = await logitsOf(of, []);
  for (const index of [undefined, { head: [1, 3], row: [1] }]) {
    const cutOff = await logitsOf(of, [cut(module, index)]);
    const zeroed: Intervention = { module, at: "heads", op: "zero", ...(index && { index }) };
    // Heads that keep their edges are composed too, which rounds otherwise than the planned kernel.
    expectClose(cutOff, await logitsOf(of, [zeroed]), { nmse: 1e-11 }, JSON.stringify(index));
    expect(cutOff).not.toEqual(plain);
  }
});

test("tokens that attend to one key alone take its value, others keep theirs", async () => {
  const module = "qformer.encoder.layer.0.crossattention.attention";
  const { model, inputs } = loaded.opt_plain;
  const trace = async (interventions: readonly Intervention[]) => {
    const run = async () => void (await model.forward({ ...inputs, interventions } as never));
    const { outputs } = await device.scope(() => traceOutputs(device, run, undefined, [module, `${module}.value`]));
    return [outputs.get(module)!, outputs.get(`${module}.value`)!] as const;
  };
  const [plain, values] = await trace([]);
  const [, Q, D] = plain.shape;
  const S = values.shape[1];
  const [d, key] = [D / 4, 7];
  const others = Array.from({ length: S }, (_, s) => s).filter((s) => s !== key);
  const [cutOff] = await trace([cut(module, { from: [2, 0], to: others, head: [1], row: [1] })]);
  const expected = Float32Array.from(plain.data);
  for (const t of [0, 2]) {
    for (let c = d; c < 2 * d; c++) expected[(Q + t) * D + c] = values.data[(S + key) * D + c];
  }
  expectClose(cutOff.data, expected, { nmse: 1e-11 }, "one key");
});

test("attention maps show edges that are cut", async () => {
  const { model, inputs } = loaded.grouped_heads_bf16;
  const { attentions, shape } = await device.scope(async () => {
    const interventions = [cut("language_model.model.layers.0.self_attn", { from: [5], to: [1, 2, 3], head: [0] })];
    const output = await model.forward({ ...inputs, output_attentions: true, interventions } as never);
    const [first] = output.language_model_outputs.attentions!;
    return { attentions: await first.read(), shape: first.shape };
  });
  const [, , T, S] = shape;
  const row = (h: number) => attentions.subarray((h * T + 5) * S, (h * T + 6) * S);
  expect([...row(0).subarray(1, 4)]).toEqual([0, 0, 0]);
  expect(row(0).reduce((sum, p) => sum + p)).toBeCloseTo(1, 5);
  expect([...row(1).subarray(1, 4)].every((p) => p > 0)).toBe(true);
});

describe.each(NAMES as (keyof typeof SELF)[])("generate of %s", (name) => {
  const module = SELF[name];

  test("edges of an answer's tokens are cut as in one pass over the whole answer", async () => {
    const of = { ...loaded[name], inputs: { ...loaded[name].inputs, ...(await goldenInputs(name, 1)) } };
    const isT5 = name === "t5_flan";
    const L = isT5 ? 1 : of.inputs.input_ids[0].length;
    const interventions = [
      cut(module, { from: [L - 1, L + 1, L + 3], to: [0, L, L + 2] }),
      cut(module, { to: [L - 1], head: [0] }, { steps: [2, 4] }),
      ...(isT5 ? [cut("language_model.decoder.block.0.layer.1.EncDecAttention", { from: [2, 3], to: [0, 1, 2] })] : []),
    ];
    const { sequences, logits } = await generate(of, { interventions, output_logits: true });
    const ids = sequences.map((row) => row.slice(0, -1));
    const mask = of.inputs.attention_mask.map((row) => [...row, 1, 1, 1, 1, 1]);
    const whole = isT5 ? { decoder_input_ids: ids } : { input_ids: ids, attention_mask: mask };
    const later = cut(module, { from: [L + 1, L + 3], to: [L - 1], head: [0] });
    const expected = await logitsOf(of, interventions.with(1, later), whole);
    const plain = await logitsOf(of, [], whole);
    const V = logits![0].data.length;
    for (const [step, { data }] of logits!.entries()) {
      const at = (L - 1 + step) * V;
      expectClose(data, expected.subarray(at, at + V), { nmse: 1e-9 }, `step ${step}`);
      if (step > 1) expect(data).not.toEqual(plain.subarray(at, at + V));
    }
  });

  test("steps whose edges are left are replayed, with f16 caches too, and nothing stays allocated", async () => {
    const { model } = loaded[name];
    const edit = cut(module, { to: [0] }, { steps: [0, 2] });
    const nothing: Intervention = { module, at: "edges", apply: () => undefined };
    await generate(loaded[name], {}); // the image cache keeps its states
    const before = device.memory.use.live;
    const launches = async (interventions: readonly Intervention[]) => {
      const launch = vi.spyOn(device, "launch"); // a replay is none
      try {
        const { sequences } = await generate(loaded[name], { interventions, max_new_tokens: 8 });
        return { count: launch.mock.calls.length, sequences };
      } finally {
        launch.mockRestore();
      }
    };
    // An f16 cache needs heads of a multiple of 4.
    for (const dtype of name === "grouped_heads_bf16" ? (["f32"] as const) : (["f32", "f16"] as const)) {
      model.language_model.kvCacheDtype = dtype;
      const replayed = await launches([edit]);
      const not = await launches([edit, nothing]);
      expect(replayed.sequences).toEqual(not.sequences);
      expect(replayed.count).toBeLessThan(not.count);
    }
    model.language_model.kvCacheDtype = "f32";
    expect(device.memory.use.live).toBe(before);
    expect(device.observers).toEqual([]);
  });

  test("under beams a row is all beams of its prompt", async () => {
    const of = loaded[name];
    const last = of.inputs.input_ids.length - 1;
    // The images are seen by the answer's tokens alone, if at all.
    const all = cut("qformer.encoder.layer.*.crossattention.attention");
    for (const search of [{ num_beams: 3 }, { do_sample: true, seed: 1, num_return_sequences: 2 }]) {
      const scores = { ...search, return_dict_in_generate: true, output_logits: true };
      const whole = await generate(of, { ...scores, interventions: [cut(module), all] });
      const one = await generate(of, {
        ...scores,
        interventions: [cut(module, { row: [last] }), { ...all, index: { row: [last] } }],
      });
      const plain = await generate(of, scores);
      const each = plain.sequences.length / (last + 1);
      expect(one.sequences.slice(0, -each)).toEqual(plain.sequences.slice(0, -each));
      expect(one.sequences.slice(-each)).toEqual(whole.sequences.slice(-each));
      expect(one.logits!.at(-1)).not.toEqual(plain.logits!.at(-1));
    }
  });
});

test("many edits are one, in any order, and a function may cut too", async () => {
  const of = loaded.opt_plain;
  const module = SELF.opt_plain;
  const [from, to] = [
    [4, 9, 6],
    [3, 0, 2],
  ];
  const one = await logitsOf(of, [cut(module, { from, to })]);
  const each = from.flatMap((t) => to.map((s) => cut(module, { from: [t], to: [s] })));
  expect(await logitsOf(of, each)).toEqual(one);
  expect(await logitsOf(of, [...each.reverse(), cut(module, { from: [9], to: [0] })])).toEqual(one);
  let shape: readonly number[] = [];
  const apply = (edges: Tensor): Tensor => {
    shape = edges.shape;
    return mul(edges, cutEdges(device, edges, [{ from, to }], edges.shape, { rows: 2, start: 0 })!);
  };
  expect(await logitsOf(of, [each[0], { module, at: "edges", apply }, each[1]])).toEqual(one);
  const L = of.inputs.input_ids[0].length;
  expect(shape).toEqual([2, 4, L, L]);
});

test("an edge that causality hides stays hidden, and the pattern names many attentions", async () => {
  const of = loaded.opt_plain;
  const plain = await logitsOf(of, []);
  expectClose(await logitsOf(of, [cut(SELF.opt_plain, { from: [2], to: [5] })]), plain, { nmse: 1e-11 }, "hidden");
  const modules = [0, 1].map((i) => `language_model.model.decoder.layers.${i}.self_attn`);
  const index = { from: [7], to: [1] };
  const both = await logitsOf(
    of,
    modules.map((module) => cut(module, index)),
  );
  expect(await logitsOf(of, [cut("language_model.**.self_attn", index)])).toEqual(both);
});

describe("what cannot be meant is refused", () => {
  const module = SELF.opt_plain;
  test.each<readonly [string, RegExp, unknown]>([
    ["INTERVENTION", /edges can be cut only: op must be "zero", got "mean"/, { module, at: "edges", op: "mean" }],
    ["INTERVENTION_INDEX", /index.token needs another place, this is at "edges"/, cut(module, { token: [1] })],
    [
      "INTERVENTION_INDEX",
      /index.from needs "at": "edges", this is at "heads"/,
      { ...cut(module, { from: [0] }), at: "heads" },
    ],
    ["UNKNOWN_FIELD", /no field "form".*did you mean from/s, cut(module, { form: [0] } as never)],
    ["INTERVENTION_INDEX", /index.to must be a list of different numbers/, cut(module, { to: [1, 1] })],
    ["INTERVENTION_INDEX", /has 4 heads, no head 4/, cut(module, { head: [4] })],
    ["INTERVENTION_INDEX", /has 2 rows, no row 2/, cut(module, { row: [2] })],
    ["INTERVENTION_INDEX", /does not compute token 999/, cut(module, { from: [999] })],
    ["INTERVENTION_INDEX", /does not compute token 3 in these steps/, cut(module, { from: [3] }, { steps: [1] })],
    ["INTERVENTION_INDEX", /attends to tokens 0 to \d+ in these steps, not to 999/, cut(module, { to: [999] })],
    [
      "INTERVENTION_INDEX",
      /attends to tokens 0 to 9 in these steps, not to 10/,
      cut("vision_model.encoder.layers.0.self_attn", { to: [3, 10] }),
    ],
    ["INTERVENTION_PATH", /no "at": "edges"/, cut("language_projection")],
    ["INTERVENTION_PATH", /no module matches.*did you mean/s, cut("vision_model.encoder.layers.0.self_atn")],
    [
      "INTERVENTION_STEP",
      /does not run in the steps/,
      cut("vision_model.encoder.layers.0.self_attn", {}, { steps: [1] }),
    ],
  ])("%s: %s", async (code, message, one) => {
    await expect(generate(loaded.opt_plain, { interventions: [one] })).rejects.toMatchObject({
      code,
      message: expect.stringMatching(message),
    });
  });

  test("a token of the answer that no step reads", async () => {
    const of = loaded.opt_plain;
    const L = of.inputs.input_ids[0].length;
    // Six passes: the last reads the answer's fifth token.
    const read = cut(module, { from: [L + 4], to: [L + 4] });
    expect((await generate(of, { interventions: [read] })).sequences).toHaveLength(2);
    for (const index of [{ from: [L + 5] }, { to: [L + 5] }]) {
      await expect(generate(of, { interventions: [cut(module, index)] })).rejects.toThrow(/token.* \d+/);
    }
    const early = cut(module, { to: [L + 1] }, { steps: [0, 1] });
    await expect(generate(of, { interventions: [early] })).rejects.toThrow(
      `attends to tokens 0 to ${L} in these steps`,
    );
  });
});
