/**
 * Outputs besides logits, against PyTorch's (test/golden/outputs): states, attention maps and losses of forward(), states
 * and maps of every step of generate(); and that requesting them does not change results.
 */
import { afterAll, describe, expect, test } from "vitest";
import { AutoModelForImageTextToText, type InstructBlipForConditionalGeneration } from "../../src/index.node.ts";
import { expectClose } from "../compare.ts";
import { testDevice } from "../device.ts";
import { goldenFolder } from "../golden_folder.ts";
import { TOLERANCES } from "../tolerances.ts";
import { Golden } from "./golden.ts";
import { type Numbers, numbersIn } from "./numbers_in.ts";
import { openOutputs } from "./outputs.ts";

const device = await testDevice();
const ASKED = { output_hidden_states: true, output_attentions: true } as const;
const CALLS = {
  greedy: { max_new_tokens: 3 },
  beams: { max_new_tokens: 3, num_beams: 2 },
  samples: { max_new_tokens: 2, do_sample: true, top_k: 1, num_return_sequences: 2 },
};

const GOLDENS = ["grouped_heads_bf16", "t5_flan", "opt_plain", "opt_post_norm_f16", "blip2_opt"];

describe.each(GOLDENS)("%s", async (name) => {
  const golden = await Golden.open(goldenFolder(name));
  const file = await openOutputs(name);
  const inputs = await golden.inputs();
  // BLIP-2 has the same methods, and takes no text for its Q-Former.
  const Model = AutoModelForImageTextToText;
  const model = (await Model.from_pretrained(golden.folder, { device })) as InstructBlipForConditionalGeneration;
  const isT5 = model.language_model.is_encoder_decoder;
  afterAll(async () => {
    model.dispose();
    await golden.close();
    await file.close();
  });

  const floats = async (key: string) => new Float32Array((await file.read(key)).slice().buffer);
  const labels = async () => {
    const flat = [...new BigInt64Array((await file.read("labels")).slice().buffer)].map(Number);
    const [B, T] = file.tensors.get("labels")!.shape;
    return Array.from({ length: B }, (_, b) => flat.slice(b * T, (b + 1) * T));
  };

  /** Everything of PyTorch's under `prefix` is there, with its shape and numbers, and nothing else layer by layer. */
  async function expectSame(ours: Map<string, Numbers>, prefix: string): Promise<void> {
    const theirs = [...file.tensors.keys()].filter(
      (key) => key.startsWith(`${prefix}.`) && file.tensors.get(key)!.dtype === "f32",
    );
    expect(theirs.length).toBeGreaterThan(0);
    for (const key of theirs) {
      expect(ours.get(key)?.shape, key).toEqual([...file.tensors.get(key)!.shape]);
      expectClose(ours.get(key)!.data, await floats(key), TOLERANCES.free_running, key);
    }
    const layers = [...ours.keys()].filter((key) => key.startsWith(`${prefix}.`) && /\.\d+$/.test(key));
    expect(layers.filter((key) => !theirs.includes(key))).toEqual([]);
  }

  test("forward gives the states and attention maps of all parts", async () => {
    const output = await model.forward({ ...inputs, labels: await labels(), ...ASKED });
    const ours = await numbersIn(output, "");
    const named = new Map([...ours].map(([key, value]) => [key.slice(1), value]));
    for (const part of ["vision_outputs", "qformer_outputs", "language_model_outputs"]) await expectSame(named, part);
    expect(output.language_model_outputs.logits).toBe(output.logits);
  });

  test("forward gives the loss of labels, and of the last ones alone", async () => {
    const given = await labels();
    const { loss } = await model.forward({ ...inputs, labels: given });
    expectClose([loss!], await floats("loss"), TOLERANCES.loss, "loss");
    if (isT5) return;
    const last = await model.forward({ ...inputs, labels: given.map((row) => row.slice(-3)) });
    expectClose([last.loss!], await floats("loss_of_last"), TOLERANCES.loss, "loss of the last labels");
    const none = await model.forward({ ...inputs, labels: given.map((row) => row.map(() => -100)) });
    expect(none.loss).toBeNaN();
  });

  test("labels and logits_to_keep that cannot be meant are refused", async () => {
    const given = await labels();
    const refused = async (more: object, message: string) =>
      expect(model.forward({ ...inputs, ...more })).rejects.toThrow(message);
    const V = model.language_model.vocabulary;
    await refused({ labels: given.slice(1) }, `labels have ${given.length - 1} rows for ${given.length} prompts`);
    await refused({ labels: given.with(0, given[0].with(0, -1)) }, `-1 is neither a token id below ${V} nor -100`);
    await refused({ labels: given.with(0, given[0].with(0, V)) }, `${V} is neither`);
    await refused({ labels: given, logits_to_keep: 1 }, "labels need all logits");
    await refused({ logits_to_keep: -1 }, "logits_to_keep must be a whole number");
    const n = given[0].length;
    if (isT5) {
      const decoder_input_ids = given.map(() => [0]);
      await refused({ labels: given, decoder_input_ids }, `labels have ${n} tokens, decoder_input_ids 1`);
    } else {
      const longer = given.map((row) => [...row, 1]);
      await refused({ labels: longer }, `labels have ${n + 1} tokens; image and prompt have ${n}`);
    }
  });

  test("logits_to_keep gives the last tokens' logits, and all where there are no more", async () => {
    const decoder_input_ids = isT5 ? await golden.rows("decoder_input_ids") : undefined;
    const { logits } = await model.forward({ ...inputs, decoder_input_ids });
    const [B, T, V] = logits.shape;
    const all = await logits.read();
    const kept = (await model.forward({ ...inputs, decoder_input_ids, logits_to_keep: 2 })).logits;
    expect(kept.shape).toEqual([B, 2, V]);
    const expected = all.filter((_, i) => Math.floor(i / V) % T >= T - 2);
    expectClose(await kept.read(), expected, TOLERANCES.free_running, "the last two");
    expect((await model.forward({ ...inputs, decoder_input_ids, logits_to_keep: T + 1 })).logits.shape).toEqual([
      B,
      T,
      V,
    ]);
  });

  const calls = Object.entries(CALLS).filter(([call]) => file.tensors.has(`${call}.sequences`));
  test.each(calls)("generate by %s gives the states and attention maps of every step", async (call, kwargs) => {
    const output = await model.generate({ ...inputs, ...kwargs, ...ASKED, return_dict_in_generate: true });
    await expectSame(await numbersIn(output, call), call);
    // Looking does not change what is seen.
    const { sequences } = await model.generate({ ...inputs, ...kwargs, return_dict_in_generate: true });
    expect(output.sequences).toEqual(sequences);
  });

  test("nothing is given that was not asked for, and one kind without the other", async () => {
    const decoder_input_ids = isT5 ? await golden.rows("decoder_input_ids") : undefined;
    const layered = async (asked: { output_hidden_states?: boolean; output_attentions?: boolean }) => {
      const forward = await numbersIn(await model.forward({ ...inputs, decoder_input_ids, ...asked }), "");
      const call = { ...inputs, max_new_tokens: 2, ...asked, return_dict_in_generate: true } as const;
      const generated = await numbersIn(await model.generate(call), "");
      return [...forward.keys(), ...generated.keys()].filter((key) => /\.\d+$/.test(key)).sort();
    };
    expect(await layered({})).toEqual([]);
    const states = await layered({ output_hidden_states: true });
    const maps = await layered({ output_attentions: true });
    expect(states.filter((key) => !/hidden_states/.test(key))).toEqual([]);
    expect(maps.filter((key) => !/attentions/.test(key))).toEqual([]);
    expect([...states, ...maps].sort()).toEqual(await layered(ASKED));
    expect(await model.generate({ ...inputs, max_new_tokens: 2, ...ASKED })).toEqual(
      await model.generate({ ...inputs, max_new_tokens: 2 }),
    );
  });

  test("the features on their own are those of forward", async () => {
    const decoder_input_ids = isT5 ? await golden.rows("decoder_input_ids") : undefined;
    const { image_features } = await model.forward({ ...inputs, decoder_input_ids });
    const { input_ids: _, attention_mask: __, ...given } = { ...inputs, ...ASKED };
    const features = await model.get_image_features(given);
    await expectSame(await numbersIn(features.vision_outputs, "vision_outputs"), "vision_outputs");
    expect(await features.image_features.read()).toEqual(await image_features.read());
    await expectSame(await numbersIn(await model.get_qformer_features(given), "qformer_outputs"), "qformer_outputs");
  });

  test("what a scope ends with is what it began with", async () => {
    const decoder_input_ids = isT5 ? await golden.rows("decoder_input_ids") : undefined;
    const before = device.memory.use.live;
    await device.scope(async () => {
      await model.forward({ ...inputs, decoder_input_ids, ...ASKED });
    });
    await model.generate({ ...inputs, max_new_tokens: 3, ...ASKED, return_dict_in_generate: true });
    expect(device.memory.use.live).toBe(before);
  });
});
