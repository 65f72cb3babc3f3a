/**
 * Interventions against the same change made by hand: on the host, on numbers that are read back, in f64; by observers; by a
 * pass over the whole answer instead of steps. Live parity has the same by PyTorch's hooks.
 */
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import {
  AutoModelForImageTextToText,
  type Intervention,
  type InterventionContext,
  type InterventionData,
  type Tensor,
  traceOutputs,
  type VisionLanguageModel,
} from "../../../src/index.node.ts";
import { outputObserver } from "../../../src/modules/observer.ts";
import { scale } from "../../../src/tensor/ops/scale.ts";
import { expectClose } from "../../compare.ts";
import { testDevice } from "../../device.ts";
import { goldenFolder } from "../../golden_folder.ts";
import { type GoldenInputs, goldenInputs } from "../../parity/golden.ts";
import { ALL } from "../../rounds.ts";

const device = await testDevice();
const open = async (name: string, options: object = {}): Promise<VisionLanguageModel> =>
  AutoModelForImageTextToText.from_pretrained(goldenFolder(name), { device, ...options });

interface Loaded {
  readonly model: VisionLanguageModel;
  readonly inputs: GoldenInputs & { decoder_input_ids?: number[][] };
}
const loaded: Record<string, Loaded> = {};
const NAMES = ["opt_plain", "t5_flan", "grouped_heads_bf16", "blip2_opt"];
beforeAll(async () => {
  for (const name of NAMES) {
    const model = await open(name);
    const inputs = await goldenInputs(name);
    const start = model.language_model.decoder_start_token_id;
    const decoder = start === undefined ? {} : { decoder_input_ids: inputs.input_ids.map(() => [start, 5, 9]) };
    loaded[name] = { model, inputs: { ...inputs, ...decoder } };
  }
});
afterAll(() => {
  for (const { model } of Object.values(loaded)) model.dispose();
});

const forward = ({ model, inputs }: Loaded, interventions?: readonly Intervention[], more: object = {}) =>
  model.forward({ ...inputs, ...more, ...(interventions && { interventions }) } as Parameters<typeof model.forward>[0]);
/** @param paths which outputs. Default: all */
const traced = async (of: Loaded, interventions?: readonly Intervention[], paths?: string) => {
  const run = async () => void (await forward(of, interventions));
  return (await device.scope(() => traceOutputs(device, run, undefined, paths))).outputs;
};
const generate = async ({ model, inputs }: Loaded, options: object) => {
  const { decoder_input_ids: _, ...given } = inputs;
  return model.generate({ ...given, max_new_tokens: 6, eos_token_id: null, ...options, return_dict_in_generate: true });
};
const layersOf = (name: string) =>
  name === "t5_flan"
    ? "language_model.decoder.block"
    : name === "grouped_heads_bf16"
      ? "language_model.model.layers"
      : "language_model.model.decoder.layers";

/** The numbers of [R, T, C] with an edit, on the host in f64. */
function byHand(
  x: Float32Array,
  [R, T, C]: readonly number[],
  { op, value, index = {} }: InterventionData,
): Float32Array {
  const y = Float32Array.from(x);
  const all = (n: number) => Array.from({ length: n }, (_, i) => i);
  const flat = [value].flat(4) as number[];
  const lists = [index.row ?? all(R), index.token ?? all(T), index.channel ?? all(C)];
  const width = (list: unknown, depth: number): number =>
    Array.isArray(list) ? (depth === 0 ? list.length : width(list[0], depth - 1)) : 1;
  const rank = (list: unknown): number => (Array.isArray(list) ? 1 + rank(list[0]) : 0);
  const lead = 3 - rank(value);
  const shape = [0, 1, 2].map((d) => (d < lead ? 1 : width(value, d - lead)));
  for (const [i, r] of lists[0].entries())
    for (const [j, t] of lists[1].entries())
      for (const [k, c] of lists[2].entries()) {
        const at = (r * T + t) * C + c;
        const [a, b, d] = [i, j, k].map((n, dim) => (shape[dim] === 1 ? 0 : n));
        const v = flat[(a * shape[1] + b) * shape[2] + d];
        const mean = () => all(R).reduce((sum, row) => sum + x[(row * T + t) * C + c], 0) / R;
        y[at] = { zero: () => 0, set: () => v, add: () => x[at] + v, scale: () => x[at] * v, mean }[op]();
      }
  return y;
}

const EDITS: readonly Omit<InterventionData, "module">[] = [
  { op: "zero" },
  { op: "zero", index: { token: [2, 0], channel: [1, 2, 3, 7] } },
  { op: "scale", value: -1.7 },
  { op: "scale", value: [0.5, 3], index: { channel: [6, 2], row: [1] } },
  { op: "add", value: 0.25, index: { token: [1] } },
  {
    op: "add",
    value: [
      [[1], [2]],
      [[3], [4]],
    ],
    index: { token: [0, 3] },
  },
  { op: "set", value: [[1.5], [-2.5]], index: { token: [3, 1], row: [0] } },
  { op: "set", value: [[[1, 2, 3]], [[4, 5, 6]]], index: { channel: [4, 5, 6], row: [1, 0] } },
  { op: "mean" },
  { op: "mean", index: { token: [2], row: [0], channel: [0, 5] } },
];

describe.each(["opt_plain", "t5_flan"])("forward of %s", (name) => {
  const modules = [
    "vision_model.encoder.layers.0.self_attn",
    "qformer.encoder.layer.0.crossattention.attention",
    "language_projection",
    name === "t5_flan" ? "language_model.encoder.block.1" : "language_model.model.decoder.layers.1.fc1",
  ];

  test.each(modules.map((module, i) => [module, i] as const))(
    `${ALL ? "every op" : "a sample of the ops"} at the output of %s is the same by hand`,
    async (module, place) => {
      const { shape, data } = (await traced(loaded[name], undefined, module)).get(module)!;
      // Each edit at one of the four modules of a model, at another of the other's.
      const turn = name === "t5_flan" ? place + 2 : place;
      const edits = EDITS.filter((_, i) => ALL || (i + turn) % modules.length === 0);
      expect(edits.length).toBeGreaterThan(1);
      for (const edit of edits) {
        const label = JSON.stringify(edit);
        const expected = byHand(data as Float32Array, shape, { module, ...edit });
        const outputs = await traced(loaded[name], [{ module, ...edit }], module);
        // One rounding of the f64 result; of a mean over two rows two.
        expectClose(outputs.get(module)!.data, expected, { rel: 2 ** -22, abs: 0 }, label);
        const replaced = outputObserver(() => device.tensor(expected, shape), module);
        const { model, inputs } = loaded[name];
        const [ours, theirs] = await device.scope(async () => [
          await (await forward(loaded[name], [{ module, ...edit }])).logits.read(),
          await (await model.forward(inputs as never, { observer: replaced })).logits.read(),
        ]);
        expectClose(ours, theirs, { nmse: 1e-10 }, label);
      }
    },
  );

  test("a value in the form of a traced output patches another run in", async () => {
    const module = modules[3];
    const of = loaded[name];
    const twice = await traced(of, [{ module: "language_projection", op: "scale", value: 2 }]);
    const { logits } = await device.scope(async () => {
      const output = await forward(of, [{ module: "language_projection", op: "scale", value: 2 }]);
      return { logits: await output.logits.read() };
    });
    const patch: Intervention = { module: "language_projection", op: "set", value: twice.get("language_projection")! };
    expect(await device.scope(async () => (await forward(of, [patch])).logits.read())).toEqual(logits);
    expect(twice.get(module)!.data).not.toEqual((await traced(of)).get(module)!.data);
  });
});

test("without attention and feed-forward a layer gives what it is given", async () => {
  const of = loaded.opt_plain;
  const L = "language_model.model.decoder.layers.1";
  const zero = [`${L}.self_attn`, `${L}.fc2`].map((module): Intervention => ({ module, op: "zero" }));
  const outputs = await traced(of, zero);
  expect(outputs.get(L)!.data).toEqual(outputs.get("language_model.model.decoder.layers.0")!.data);
  const plain = await traced(of);
  expect(plain.get(L)!.data).not.toEqual(plain.get("language_model.model.decoder.layers.0")!.data);
});

/** Attention, its output projection, and how many heads of which width. */
const ATTENTIONS: Readonly<Record<string, readonly (readonly [string, string, number, number])[]>> = {
  opt_plain: [
    ["vision_model.encoder.layers.0.self_attn", "vision_model.encoder.layers.0.self_attn.projection", 4, 6],
    ["qformer.encoder.layer.0.crossattention.attention", "qformer.encoder.layer.0.crossattention.output.dense", 4, 6],
    [
      "language_model.model.decoder.layers.1.self_attn",
      "language_model.model.decoder.layers.1.self_attn.out_proj",
      4,
      8,
    ],
  ],
  t5_flan: [
    [
      "language_model.decoder.block.1.layer.1.EncDecAttention",
      "language_model.decoder.block.1.layer.1.EncDecAttention.o",
      4,
      8,
    ],
    [
      "language_model.encoder.block.0.layer.0.SelfAttention",
      "language_model.encoder.block.0.layer.0.SelfAttention.o",
      4,
      8,
    ],
  ],
  grouped_heads_bf16: [
    ["language_model.model.layers.0.self_attn", "language_model.model.layers.0.self_attn.o_proj", 0, 0],
  ],
};

test.each(Object.entries(ATTENTIONS).flatMap(([name, list]) => list.map((one) => [name, ...one] as const)))(
  "%s: a head of %s is its part of the input of %s",
  async (name, attention, projection, heads, width) => {
    const of = loaded[name];
    let [H, d] = [heads, width];
    const look = {
      module: attention,
      at: "heads" as const,
      apply: (x: Tensor): undefined => {
        [, , H, d] = x.shape;
      },
    };
    await device.scope(() => forward(of, [look]));
    if (heads > 0) expect([H, d]).toEqual([heads, width]);
    const head = H - 2;
    const channel = Array.from({ length: d }, (_, i) => head * d + i);
    const value = [channel.map((c) => c / 7)];
    const logits = async (one: Intervention) => device.scope(async () => (await forward(of, [one])).logits.read());
    for (const edit of [{ op: "zero" }, { op: "set", value }, { op: "mean" }] as const) {
      const there = await logits({ module: attention, at: "heads", index: { head: [head] }, ...edit });
      const here = await logits({ module: projection, at: "input", index: { channel }, ...edit });
      expect(there).toEqual(here);
      if (inputsOf(of) > 1 || edit.op !== "mean")
        expect(there).not.toEqual(await logits({ ...look, apply: () => undefined }));
    }
  },
);
const inputsOf = ({ inputs }: Loaded) => inputs.input_ids.length;

test("the input of a stacked or gated layer is that of one part", async () => {
  const of = loaded.grouped_heads_bf16;
  for (const [part, others] of [
    ["self_attn.q_proj", ["self_attn.k_proj", "self_attn.v_proj"]],
    ["mlp.up_proj", ["mlp.gate_proj"]],
  ] as const) {
    const L = "language_model.model.layers.0";
    const edited = await traced(of, [{ module: `${L}.${part}`, at: "input", op: "scale", value: 0.5 }]);
    const plain = await traced(of);
    const half = plain.get(`${L}.${part}`)!.data.map((x) => x / 2); // they have no bias
    expectClose(edited.get(`${L}.${part}`)!.data, half, { nmse: 1e-12 }, part);
    for (const other of others) expect(edited.get(`${L}.${other}`)).toEqual(plain.get(`${L}.${other}`));
  }
});

test("the input of a layer is the output of the one before", async () => {
  for (const [name, layers] of [
    ["opt_plain", "language_model.model.decoder.layers"],
    ["grouped_heads_bf16", "language_model.model.layers"],
    ["t5_flan", "language_model.encoder.block"],
    ["opt_plain", "qformer.encoder.layer"],
  ] as const) {
    const logits = (one: Intervention) => device.scope(async () => (await forward(loaded[name], [one])).logits.read());
    const edit = { op: "scale", value: 0.25, index: { token: [1, 2] } } as const;
    const before = await logits({ module: `${layers}.0`, ...edit });
    expect(await logits({ module: `${layers}.1`, at: "input", ...edit })).toEqual(before);
  }
});

test("several at one place apply in order, and a pattern names several places", async () => {
  const of = loaded.opt_plain;
  const module = "language_projection";
  const both = await traced(of, [
    { module, op: "set", value: 3 },
    { module: "language_projectio*", op: "add", value: 1 },
    { module: "vision_model.encoder.layers.*", op: "zero" },
  ]);
  expect(new Set(both.get(module)!.data)).toEqual(new Set([4]));
  for (const [path, { data }] of both)
    if (/^vision_model.encoder.layers.\d+$/.test(path)) expect(new Set(data)).toEqual(new Set([0]));
});

test("a convolution's output has its patches as tokens", async () => {
  const module = "vision_model.embeddings.patch_embedding";
  const { shape, data } = (
    await traced(loaded.opt_plain, [{ module, op: "set", value: 9, index: { token: [4], channel: [2], row: [1] } }])
  ).get(module)!;
  const [, C, h, w] = shape;
  const nines = [...data].flatMap((x, i) => (x === 9 ? [i] : []));
  expect(nines).toEqual([(C + 2) * h * w + 4]);
});

describe.each(["opt_plain", "t5_flan", "grouped_heads_bf16"])("generate of %s", (name) => {
  const layer = () => `${layersOf(name)}.0`;
  const scores = { output_logits: true };

  test("tokens count on through the steps, as in one pass over the whole answer", async () => {
    // One prompt: forward() counts positions of padding.
    const of = { ...loaded[name], inputs: { ...loaded[name].inputs, ...(await goldenInputs(name, 1)) } };
    const isT5 = name === "t5_flan";
    const L = isT5 ? 1 : of.inputs.input_ids[0].length;
    const interventions: Intervention[] = [
      { module: layer(), op: "scale", value: -0.5, index: { token: [L - 1, L + 2] } },
      { module: `${layersOf(name)}.1`, op: "add", value: 0.3, steps: [2, 4] },
    ];
    const { sequences, logits } = await generate(of, { interventions, ...scores });
    const plain = await generate(of, scores);
    expect(sequences).not.toEqual(plain.sequences);
    const ids = sequences.map((row) => row.slice(0, -1));
    const whole = isT5
      ? { decoder_input_ids: ids }
      : { input_ids: ids, attention_mask: of.inputs.attention_mask.map((row) => [...row, 1, 1, 1, 1, 1]) };
    expect(of.inputs.attention_mask.flat()).not.toContain(0);
    const later = { ...interventions[1], index: { token: [L + 1, L + 3] }, steps: "all" } as Intervention;
    const output = await device.scope(async () => {
      const { logits } = await forward(of, [interventions[0], later], whole);
      return { data: await logits.read(), shape: logits.shape };
    });
    const [B, T, V] = output.shape;
    for (const [step, { data }] of logits!.entries()) {
      const expected = Array.from({ length: B }, (_, b) => {
        const at = (b * T + L - 1 + step) * V;
        return [...output.data.subarray(at, at + V)];
      }).flat();
      expectClose(data, expected, { nmse: 1e-9 }, `step ${step}`);
    }
  });

  test("steps without interventions are replayed, with the same result", async () => {
    const steps = [0, 1, 3];
    const edit: Intervention = { module: layer(), op: "scale", value: -0.5, steps };
    const seen: number[] = [];
    const nothing: Intervention = { module: layer(), apply: (_, { step }) => void seen.push(step) };
    const launches = async (interventions: readonly Intervention[]) => {
      const launch = vi.spyOn(device, "launch"); // a replay is none
      try {
        const { sequences, logits } = await generate(loaded[name], { interventions, max_new_tokens: 9, ...scores });
        return { count: launch.mock.calls.length, sequences, logits };
      } finally {
        launch.mockRestore();
      }
    };
    const replayed = await launches([edit]);
    const not = await launches([edit, nothing]);
    expect(replayed.sequences).toEqual(not.sequences);
    expect(replayed.logits!.map(({ data }) => data)).toEqual(not.logits!.map(({ data }) => data));
    expect(seen).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8]);
    expect(replayed.count).toBeLessThan(not.count);
  });

  test("under beams a row is all beams of its prompt", async () => {
    const of = loaded[name];
    const rows = of.inputs.input_ids.length;
    const edit: Intervention = { module: layer(), op: "scale", value: -1, index: { row: [rows - 1] } };
    for (const search of [{ num_beams: 3 }, { do_sample: true, seed: 1, num_return_sequences: 2 }]) {
      const plain = await generate(of, search);
      const all = await generate(of, { ...search, interventions: [{ ...edit, index: {} }] });
      const last = await generate(of, { ...search, interventions: [edit] });
      const each = plain.sequences.length / rows;
      expect(last.sequences.slice(0, -each)).toEqual(plain.sequences.slice(0, -each));
      expect(last.sequences.slice(-each)).toEqual(all.sequences.slice(-each));
      expect(last.sequences.slice(-each)).not.toEqual(plain.sequences.slice(-each));
    }
  });

  test("nothing stays allocated, and no observer stays", async () => {
    const before = device.memory.use.live;
    const edit: Intervention = { module: layer(), op: "mean" };
    await generate(loaded[name], { interventions: [edit] });
    await device.scope(async () => void (await forward(loaded[name], [edit])));
    await expect(generate(loaded[name], { interventions: [{ module: "no", op: "zero" }] })).rejects.toThrow(
      "no module",
    );
    expect(device.memory.use.live).toBe(before);
    expect(device.observers).toEqual([]);
  });
});

test.each([
  ["opt_plain", "language_model.model.decoder.embed_tokens"],
  ["grouped_heads_bf16", "language_model.model.layers.1"],
  ["t5_flan", "language_model.decoder.block.0"],
])("where rows of %s depend on each other, a row that has ended is fed the filler", async (name, module) => {
  const of = loaded[name];
  const interventions: Intervention[] = [{ module, op: "mean", index: { row: [1] } }];
  const unending = await generate(of, { interventions, max_new_tokens: 12 });
  const [ends, other] = unending.sequences.map((row) => row.slice(-12));
  const eos_token_id = ends.find((id, step) => step < 6 && !other.slice(0, step + 3).includes(id))!;
  expect(eos_token_id).toBeDefined();
  const answers = new Set<string>();
  for (const pad_token_id of [3, 20, 40, 50, 77]) {
    const call = { interventions, max_new_tokens: 12, eos_token_id, pad_token_id };
    const { sequences } = await generate(of, call);
    answers.add(String(sequences[1]));
    // Scores that are read back are chosen from on the host, which feeds what is in the row.
    expect((await generate(of, { ...call, output_logits: true })).sequences).toEqual(sequences);
  }
  expect(answers.size).toBeGreaterThan(1);
});

test("a function sees where it is, and its tensor is what the model goes on with", async () => {
  const seen: InterventionContext[] = [];
  const half: Intervention = {
    module: "language_model.model.decoder.layers.0",
    steps: [0, 2],
    apply: (x, context) => {
      seen.push(context);
      return scale(x, 0.5);
    },
  };
  const of = loaded.opt_plain;
  const { sequences } = await generate(of, { interventions: [half] });
  const data: Intervention = { module: half.module, op: "scale", value: 0.5, steps: [0, 2] };
  expect(sequences).toEqual((await generate(of, { interventions: [data] })).sequences);
  const L = of.inputs.input_ids[0].length;
  const place = { module: half.module, at: "output" };
  expect(seen).toEqual([
    { ...place, step: 0, start: 0 },
    { ...place, step: 2, start: L + 1 },
  ]);
});

test.each(["opt_plain", "blip2_opt"])("the image cache of %s neither keeps nor serves edited states", async (name) => {
  const { inputs } = loaded[name];
  const [cached, bare] = [await open(name), await open(name, { image_cache: 0 })];
  const call = { ...inputs, max_new_tokens: 5, eos_token_id: null };
  const edit = (module: string) => ({ ...call, interventions: [{ module, op: "scale", value: -1 }] as Intervention[] });
  const places = ["vision_model.encoder.layers.0", "qformer.encoder.layer.0", "language_projection"];
  const plain = await bare.generate(call);
  for (const module of places) {
    const expected = await bare.generate(edit(module));
    expect(expected).not.toEqual(plain);
    expect(await cached.generate(edit(module))).toEqual(expected); // nothing is kept yet, or what is kept is not served
    expect(await cached.generate(call)).toEqual(plain);
    expect(await cached.generate(edit(module))).toEqual(expected);
    expect(await cached.generate(call)).toEqual(plain);
  }
  // An edit behind the image encoder uses what is kept.
  const launches = async (model: VisionLanguageModel, given: typeof call) => {
    const before = device.counts.launches;
    await model.generate(given);
    return device.counts.launches - before;
  };
  const later = edit("language_model.model.decoder.layers.0");
  expect(await launches(cached, later)).toBeLessThan(await launches(bare, later));
  cached.dispose();
  bare.dispose();
});

describe("what cannot be meant is refused", () => {
  const REFUSED: readonly (readonly [string, RegExp, unknown])[] = [
    ["INTERVENTION", /must be a list/, { module: "qformer", op: "zero" }],
    ["INTERVENTION", /interventions\[0\]: must be an object, got 3/, [3]],
    [
      "UNKNOWN_FIELD",
      /interventions\[0\] has no field "modul".*did you mean module/s,
      [{ modul: "qformer", op: "zero" }],
    ],
    [
      "UNKNOWN_FIELD",
      /index has no field "tokens".*did you mean token/s,
      [{ module: "qformer", op: "zero", index: { tokens: [0] } }],
    ],
    ["INTERVENTION", /module must be a path/, [{ op: "zero" }]],
    [
      "INTERVENTION",
      /at must be "output", "input", "heads", "edges", got "outputs"/,
      [{ module: "qformer", at: "outputs", op: "zero" }],
    ],
    ["INTERVENTION", /op must be .* got "ablate"/, [{ module: "qformer", op: "ablate" }]],
    ["INTERVENTION", /add needs a value/, [{ module: "qformer", op: "add" }]],
    ["INTERVENTION", /mean takes no value/, [{ module: "qformer", op: "mean", value: 1 }]],
    ["INTERVENTION", /steps must be/, [{ module: "qformer", op: "zero", steps: [] }]],
    ["INTERVENTION", /steps must be/, [{ module: "qformer", op: "zero", steps: "first" }]],
    ["INTERVENTION", /apply must be a function/, [{ module: "qformer", apply: 3 }]],
    ["INTERVENTION", /leave op out/, [{ module: "qformer", apply: () => undefined, op: "zero" }]],
    ["INTERVENTION", /index must be an object, got null/, [{ module: "qformer", op: "zero", index: null }]],
    ["INTERVENTION_INDEX", /index.token must be/, [{ module: "qformer", op: "zero", index: { token: 3 } }]],
    ["INTERVENTION_INDEX", /index.token must be/, [{ module: "qformer", op: "zero", index: { token: [1, 1] } }]],
    ["INTERVENTION_INDEX", /index.row must be/, [{ module: "qformer", op: "zero", index: { row: [-1] } }]],
    [
      "INTERVENTION_INDEX",
      /index.head needs "at": "heads" or "edges"/,
      [{ module: "qformer", op: "zero", index: { head: [0] } }],
    ],
    ["INTERVENTION_VALUE", /finite f32 numbers only, has "1"/, [{ module: "qformer", op: "add", value: "1" }]],
    ["INTERVENTION_VALUE", /finite f32 numbers only, has NaN/, [{ module: "qformer", op: "add", value: [Number.NaN] }]],
    ["INTERVENTION_VALUE", /finite f32 numbers only/, [{ module: "qformer", op: "add", value: 1e39 }]],
    ["INTERVENTION_VALUE", /number or an array/, [{ module: "qformer", op: "add", value: [[1], [2, 3]] }]],
    ["INTERVENTION_VALUE", /5 dimensions|4 dimensions/, [{ module: "qformer", op: "add", value: [[[[1]]]] }]],
    [
      "INTERVENTION_PATH",
      /no module matches.*did you mean language_projection\?/s,
      [{ module: "language_projektion", op: "zero" }],
    ],
    [
      "INTERVENTION_PATH",
      /has no "at": "heads".*it has "at": "output", "at": "input"|it has "at": "input", "at": "output"/s,
      [{ module: "language_projection", at: "heads", op: "zero" }],
    ],
    [
      "INTERVENTION_PATH",
      /no module matches/,
      [{ module: "", op: "zero" }].map(() => ({ module: "nothing.*", op: "zero" })),
    ],
    [
      "INTERVENTION_STEP",
      /there is no step 9; this call has the steps 0 to 5/,
      [{ module: "language_projection", op: "zero", steps: [9] }],
    ],
    [
      "INTERVENTION_STEP",
      /does not run in the steps \[1, ?2\].*step 0/s,
      [{ module: "vision_model.encoder", op: "zero", steps: [1, 2] }],
    ],
    [
      "INTERVENTION_INDEX",
      /has 2 rows, no row 2/,
      [{ module: "language_projection", op: "zero", index: { row: [2] } }],
    ],
    [
      "INTERVENTION_INDEX",
      /has 32 channels, no channel 32/,
      [{ module: "language_projection", op: "zero", index: { channel: [32] } }],
    ],
    [
      "INTERVENTION_INDEX",
      /has 4 heads, no head 4/,
      [{ module: "vision_model.encoder.layers.0.self_attn", at: "heads", op: "zero", index: { head: [4] } }],
    ],
    [
      "INTERVENTION_INDEX",
      /does not compute token 5 .* 0 to 4/,
      [{ module: "language_projection", op: "zero", index: { token: [5] } }],
    ],
    [
      "INTERVENTION_INDEX",
      /does not compute token 999/,
      [{ module: "language_model.model.decoder.layers.0", op: "zero", index: { token: [999] } }],
    ],
    [
      "INTERVENTION_INDEX",
      /does not compute token 0 in these steps/,
      [{ module: "language_model.model.decoder.layers.0", op: "zero", index: { token: [0] }, steps: [1] }],
    ],
    [
      "INTERVENTION_VALUE",
      /the value has 3 channels, 32 are selected/,
      [{ module: "language_projection", op: "add", value: [1, 2, 3] }],
    ],
    [
      "INTERVENTION_VALUE",
      /the value has 2 tokens, 1 is selected/,
      [{ module: "language_projection", op: "add", value: [[1], [2]], index: { token: [0] } }],
    ],
  ];

  test.each(REFUSED)("%s: %s", async (code, message, interventions) => {
    await expect(generate(loaded.opt_plain, { interventions })).rejects.toMatchObject({
      code,
      message: expect.stringMatching(message),
    });
    expect(device.observers).toEqual([]);
  });

  test("a value for every token of the prompt fits the prompt's pass alone", async () => {
    const L = loaded.opt_plain.inputs.input_ids[0].length;
    const value = Array.from({ length: L }, () => [1]);
    const edit = { module: "language_model.model.decoder.layers.0", op: "add", value } as const;
    const failure = { code: "INTERVENTION_VALUE", message: expect.stringMatching(/"steps": "prompt"/) };
    await expect(generate(loaded.opt_plain, { interventions: [edit] })).rejects.toMatchObject(failure);
    const { sequences } = await generate(loaded.opt_plain, { interventions: [{ ...edit, steps: "prompt" }] });
    expect(sequences).toHaveLength(2);
  });

  test("a function that returns something else", async () => {
    const of = loaded.opt_plain;
    const wrong = (apply: unknown) => forward(of, [{ module: "language_projection", apply } as Intervention]);
    const failure = (message: RegExp) => ({ code: "INTERVENTION_VALUE", message: expect.stringMatching(message) });
    await expect(wrong(() => 3)).rejects.toMatchObject(failure(/must return a tensor f32\[2, 5, 32\].*got 3/));
    const other = () => device.tensor([1], [1]);
    await expect(wrong(other)).rejects.toMatchObject(failure(/got f32\[1\]/));
  });

  test("guidance, whose second pass is another prompt's", async () => {
    const given = { interventions: [{ module: "language_projection", op: "zero" }], guidance_scale: 2 };
    await expect(generate(loaded.opt_plain, given)).rejects.toMatchObject({ code: "UNSUPPORTED_OPTION" });
  });

  test("scores that are no numbers are said to come from interventions", async () => {
    const given = { interventions: [{ module: "language_model.lm_head", op: "scale", value: 3e38 }] };
    const failure = { code: "NUMERIC", message: expect.stringMatching(/interventions were applied/) };
    await expect(generate(loaded.opt_plain, given)).rejects.toMatchObject(failure);
  });
});
