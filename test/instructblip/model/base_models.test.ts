/** The models without generation against transformers' (test/golden/base_models.py), and against those that generate. */
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import {
  AutoModel,
  AutoModelForImageTextToText,
  Blip2ForConditionalGeneration,
  Blip2ForImageTextRetrieval,
  Blip2Model,
  Blip2QFormerModel,
  InstructBlipModel,
  InstructBlipVideoModel,
  type Tensor,
  traceOutputs,
} from "../../../src/index.node.ts";
import { upload } from "../../../src/instructblip/model/language_model.ts";
import { VisionLanguage } from "../../../src/instructblip/model/vision_language.ts";
import { SafetensorsFile } from "../../../src/tensor/files/safetensors.ts";
import { FileSource, NodeFolder } from "../../../src/tensor/files/source.node.ts";
import { expectClose } from "../../compare.ts";
import { testDevice } from "../../device.ts";
import { COMMITTED, goldenFolder } from "../../golden_folder.ts";
import { Golden } from "../../parity/golden.ts";
import { ALL } from "../../rounds.ts";
import { temporaryFolder } from "../../temporary.ts";
import { TOLERANCES } from "../../tolerances.ts";

const device = await testDevice();
const quiet = { device, compile: false } as const;
const file = await SafetensorsFile.open(await FileSource.open(join(COMMITTED, "base_models.safetensors")));
afterAll(() => file.close());

/** Compares with the golden's: of the last row every fourth token, of logits the last one. */
async function expectGolden(golden: string, name: string, tensor: Tensor | undefined): Promise<void> {
  const key = `${golden}:${name}`;
  const expected = new Float32Array((await file.read(key)).slice().buffer);
  const [T, D] = tensor!.shape.length === 3 ? tensor!.shape.slice(1) : [1, tensor!.shape[1]];
  const row = (await tensor!.read()).slice(-T * D);
  const tokens = Array.from({ length: T }, (_, t) => t).filter((t) => (name === "logits" ? t === T - 1 : t % 4 === 0));
  const part = tokens.flatMap((t) => [...row.slice(t * D, (t + 1) * D)]);
  expect([1, ...(tensor!.shape.length === 3 ? [tokens.length] : []), D], key).toEqual(file.tensors.get(key)!.shape);
  expectClose(part, expected, TOLERANCES.free_running, key);
}

/** What PyTorch was given. */
async function inputsOf(name: string) {
  const golden = await Golden.open(goldenFolder(name));
  const start = golden.has("decoder_input_ids") ? { decoder_input_ids: await golden.rows("decoder_input_ids") } : {};
  const inputs = { ...(await golden.inputs()), ...golden.json.options };
  await golden.close();
  return { inputs, start };
}

const HEADLESS = [
  ["opt_post_norm_f16", InstructBlipModel],
  ["video_3_frames_t5", InstructBlipVideoModel],
  ["grouped_heads_bf16", InstructBlipModel],
  ["t5_odd_f16", InstructBlipModel],
] as const;

describe.each(HEADLESS.slice(0, ALL ? undefined : 2))("%s without its head", async (name, Model) => {
  const { inputs, start } = await inputsOf(name);
  const from = goldenFolder(name);
  const isT5 = name.includes("t5");

  test("gives the states that transformers gives", async () => {
    const model = await (Model as typeof InstructBlipModel).from_pretrained(from, quiet);
    expect(model.warnings).toEqual([]);
    const output = await model.forward(inputs, { ...start, output_hidden_states: true });
    const { language_model_outputs: found } = output;
    await expectGolden(name, "last_hidden_state", found.last_hidden_state);
    if (isT5) await expectGolden(name, "encoder_last_hidden_state", found.encoder_last_hidden_state);
    const states = isT5 ? found.decoder_hidden_states : found.hidden_states;
    expect(await states!.at(-1)!.read()).toEqual(await found.last_hidden_state.read());
    expect(output).not.toHaveProperty("logits");
    if (isT5) await expect(model.forward(inputs)).rejects.toMatchObject({ code: "NO_DECODER_IDS" });
    await expect(model.forward({ ...inputs, labels: [[1]] } as never)).rejects.toMatchObject({
      code: "UNKNOWN_OPTION",
    });
    await expect(model.forward({ ...inputs, pixel_value: 1 } as never)).rejects.toMatchObject({
      hint: "did you mean pixel_values?",
    });
    // What would change nothing is refused; what Hugging Face's word for it is here anyway is taken.
    const unheeded = [{ return_dict: false }, { use_cache: true }, ...(isT5 ? [] : [{ decoder_input_ids: [[1]] }])];
    for (const option of unheeded) {
      const refused = { code: "UNSUPPORTED_OPTION", hint: expect.stringContaining("leave it out") };
      await expect(model.forward({ ...inputs, ...start, ...option } as never)).rejects.toMatchObject(refused);
    }
    const taken = { labels: [[1]], return_dict: true, use_cache: false };
    await expect(model.forward({ ...inputs, ...taken } as never)).rejects.toThrow('no option "labels"');

    // Saved it has transformers' names, which are read again.
    const to = temporaryFolder();
    await model.save_pretrained(to);
    model.dispose();
    const saved = await SafetensorsFile.open(await FileSource.open(join(to, "model.safetensors")));
    const names = [...saved.tensors.keys()].filter((key) => key.startsWith("language_model."));
    await saved.close();
    const first = { opt: "decoder.", llama: "layers.", t5: "encoder." }[model.config.text_config.model_type];
    expect(names.some((key) => key.startsWith(`language_model.${first}`))).toBe(true);
    expect(names.filter((key) => /\.(model|lm_head)\./.test(key))).toEqual([]);
    if (isT5 && !ALL) return; // a traced pass runs other kernels, which take long to compile
    const again = await AutoModel.from_pretrained(to, quiet);
    expect(again).toBeInstanceOf(Model as typeof InstructBlipModel);
    const { result, outputs } = await device.scope(() =>
      traceOutputs(device, () => (again as typeof model).forward(inputs, start)),
    );
    await expectGolden(name, "last_hidden_state", result.language_model_outputs.last_hidden_state);
    const traced = await result.language_model_outputs.last_hidden_state.read();
    expect(outputs.get("language_model")!.data).toEqual(traced); // under PyTorch's names of modules
    again.dispose();
    await expect(AutoModelForImageTextToText.from_pretrained(to, quiet)).rejects.toMatchObject({
      code: "UNSUPPORTED_MODEL",
      message: expect.stringContaining(`the model is an ${Model.name}, which has no head`),
    });
  });
});

const BLIP_2 = ["blip2_opt", "blip2_t5_f16", "blip2_llama_wide"];

describe.each(BLIP_2.slice(0, ALL ? undefined : 2))("Blip2Model of %s", async (name) => {
  const { inputs, start } = await inputsOf(name);
  const { pixel_values, input_ids, attention_mask, ...options } = inputs as typeof inputs & object;
  const from = goldenFolder(name);

  test("has the logits of the model that generates, and features of images and texts", async () => {
    const model = (await AutoModel.from_pretrained(from, quiet)) as Blip2Model;
    expect(model).toBeInstanceOf(Blip2Model);
    expect(model.warnings).toEqual([]);
    await expectGolden(name, "logits", (await model.forward(inputs, start)).logits);
    const text = await model.get_text_features({ input_ids, attention_mask }, { output_hidden_states: true });
    await expectGolden(name, "text", text.last_hidden_state);
    expect(await text.hidden_states!.at(-1)!.read()).toEqual(await text.last_hidden_state.read());
    const image = await model.get_image_features({ pixel_values, ...options });
    await expectGolden(name, "image.pooler_output", image.pooler_output);
    const queries = await model.get_qformer_features({ pixel_values, ...options });
    await expectGolden(name, "qformer", queries);
    await expect(model.get_text_features({ input_ids: [[9999]] })).rejects.toMatchObject({ code: "TOKEN_ID" });
    const decoder = { input_ids, decoder_input_ids: [[0]] };
    await expect(model.get_text_features(decoder as never)).rejects.toMatchObject({ code: "UNKNOWN_OPTION" });

    const to = temporaryFolder();
    if (ALL || name === "blip2_opt") await model.save_pretrained(to);
    model.dispose();
    if (!ALL && name !== "blip2_opt") return;
    expect(await new NodeFolder(to).text("config.json")).toContain('"Blip2Model"');
    const generates = await AutoModelForImageTextToText.from_pretrained(to, quiet); // the head is there
    expect(generates).toBeInstanceOf(Blip2ForConditionalGeneration);
    generates.dispose();
  });
});

describe("Blip2QFormerModel", () => {
  const from = goldenFolder("itm");

  test("reads queries and a text, from a whole checkpoint and from one of its own", async () => {
    const whole = await Blip2ForImageTextRetrieval.from_pretrained(from, quiet);
    const [input_ids, mask] = [
      [
        [5, 9, 7, 4],
        [5, 9, 0, 0],
      ],
      [
        [1, 1, 1, 1],
        [1, 1, 0, 0],
      ],
    ];
    const data = Float32Array.from({ length: 2 * 3 * 21 * 21 }, (_, i) => Math.sin(i));
    const pixel_values = { data, shape: [2, 3, 21, 21] };
    // Compared with transformers in blip_2_retrieval.test.ts.
    const asked = { pixel_values, input_ids, attention_mask: mask, use_image_text_matching_head: true };
    const { text_model_output, vision_model_output } = await whole.forward(asked, { output_hidden_states: true });
    const Q = whole.config.num_query_tokens;
    const embeds = whole.model.embeddings.forward(upload(device, input_ids), VisionLanguage.queries(whole.model, 2));
    const inputs = {
      query_embeds: embeds,
      query_length: Q,
      attention_mask: mask.map((row) => [...new Array<number>(Q).fill(1), ...row]),
      encoder_hidden_states: vision_model_output.last_hidden_state,
    };
    const model = await Blip2QFormerModel.from_pretrained(from, quiet);
    expect(model.warnings).toEqual([]);
    expect(model.config).toMatchObject({ hidden_size: 24, encoder_hidden_size: 24, num_hidden_layers: 2 });
    const output = await model.forward(inputs, { output_hidden_states: true });
    const expected = await text_model_output.last_hidden_state.read();
    expect(await output.last_hidden_state.read()).toEqual(expected);
    expect(await output.hidden_states![1].read()).toEqual(await text_model_output.hidden_states![1].read());

    const to = temporaryFolder();
    await model.save_pretrained(to);
    model.dispose();
    const json = JSON.parse(await new NodeFolder(to).text("config.json"));
    expect(json).toMatchObject({ model_type: "blip_2_qformer", architectures: ["Blip2QFormerModel"] });
    const again = (await AutoModel.from_pretrained(to, { device })) as Blip2QFormerModel;
    expect(again).toBeInstanceOf(Blip2QFormerModel);
    const host = { data: await embeds.read(), shape: embeds.shape };
    expect(await (await again.forward({ ...inputs, query_embeds: host })).last_hidden_state.read()).toEqual(expected);
    const ones = new Array<number>(inputs.encoder_hidden_states.shape[1]!).fill(1);
    const seen = await again.forward({ ...inputs, encoder_attention_mask: [ones, ones] });
    expect(await seen.last_hidden_state.read()).toEqual(expected);
    const doubles = { data: Float64Array.from(host.data), shape: host.shape };
    await expect(again.forward({ ...inputs, query_embeds: doubles } as never)).rejects.toThrow(
      `a Float32Array of shape [B, T, 24], or a tensor of it, got Float64Array of shape ${JSON.stringify(host.shape)}`,
    );
    const refused: [object, string][] = [
      [{ query_embeds: { data: new Float32Array(24), shape: [1, 1, 23] } }, "BAD_INPUT"],
      [{ query_length: 99 }, "PARAM_RANGE"],
      [{ encoder_hidden_states: null }, "BAD_INPUT"],
      [{ attention_mask: [[1]] }, "BAD_MASK"],
      [{ attention_mask: false }, "BAD_INPUT"],
      ...[5, false, [1, 1], [[1]], [ones, [1]], [ones, ones, ones], [ones, ones.with(1, 2)]].map(
        (mask): [object, string] => [{ encoder_attention_mask: mask }, "BAD_MASK"],
      ),
      [{ encoder_attention_mask: [ones, ones.with(3, 0)] }, "UNSUPPORTED_OPTION"],
      [{ query_length: 0, encoder_hidden_states: null, encoder_attention_mask: [ones, ones] }, "BAD_INPUT"],
    ];
    for (const [change, code] of refused) {
      await expect(again.forward({ ...inputs, ...change } as never), code).rejects.toMatchObject({ code });
    }
    await expect(Blip2Model.from_pretrained(to, quiet)).rejects.toMatchObject({
      code: "UNSUPPORTED_MODEL",
      hint: expect.stringMatching(/^AutoModel takes /),
    });
    again.dispose();
    whole.dispose();
    for (const call of ["forward", "save_pretrained"] as const) {
      await expect(again[call](inputs as never)).rejects.toMatchObject({
        code: "DISPOSED",
        message: `${call}: the model has been disposed`,
      });
    }
    expect(() => again.state_dict()).toThrow("state_dict: the model has been disposed");
  });
});
