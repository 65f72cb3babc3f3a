/**
 * The cases of live parity about other models than the composite's own, which lie in its folder: base/, the model without
 * generation as transformers saves it, and retrieval/, BLIP-2's first stage with an image encoder and a Q-Former of the same
 * sizes. The drawing is test/golden/base_models.py and retrieval_models.py.
 */
import { join } from "node:path";
import {
  AutoModel,
  AutoProcessor,
  Blip2ForImageTextRetrieval,
  Blip2Model,
  Blip2QFormerModel,
  Blip2TextModelWithProjection,
  Blip2VisionModelWithProjection,
  type Device,
  type InstructBlipModel,
  type Tensor,
} from "../../src/index.node.ts";
import { contiguous } from "../../src/tensor/ops/copy.ts";
import { TOLERANCES } from "../tolerances.ts";
import type { Comparisons, Golden, GoldenInputs } from "./golden.ts";

type Compare = (name: string, tensor: Tensor | undefined) => Promise<void>;

/** Compares tensors with those that are recorded as `prefix.name`. */
function comparing(golden: Golden, found: Comparisons, stage: "base" | "retrieval", prefix: string = stage): Compare {
  return async (name, tensor) => {
    const { data, shape } = await golden.floats(`${prefix}.${name}`);
    const label = prefix === stage ? name : `${prefix}.${name}`;
    if (String(tensor?.shape) !== String(shape)) {
      found.fail(stage, label, `has the shape [${tensor?.shape}], expected [${shape}]`);
    } else found.numbers(stage, label, await tensor!.read(), data, TOLERANCES.free_running);
  };
}

/** Compares the model without generation. `inputs` are PyTorch's own. */
export async function compareBase(
  golden: Golden,
  found: Comparisons,
  device: Device,
  inputs: GoldenInputs & { readonly decoder_input_ids?: number[][]; readonly interpolate_pos_encoding?: boolean },
): Promise<void> {
  if (golden.names("base.").length === 0) return;
  const compare = comparing(golden, found, "base");
  const model = await AutoModel.from_pretrained(join(golden.folder, "base"), { device });
  found.equal("base", "warnings", model.warnings, []);
  await device.scope(async () => {
    if (!(model instanceof Blip2Model)) {
      if (!golden.has("base.last_hidden_state")) return; // a legacy checkpoint
      const states = { output_hidden_states: true };
      const { language_model_outputs } = await (model as InstructBlipModel).forward(inputs, states);
      const { last_hidden_state, encoder_last_hidden_state, ...layers } = language_model_outputs;
      await compare("last_hidden_state", last_hidden_state);
      if (encoder_last_hidden_state) await compare("encoder_last_hidden_state", encoder_last_hidden_state);
      await compare("first_hidden_state", (layers.decoder_hidden_states ?? layers.hidden_states)?.[0]);
      return;
    }
    if (golden.has("base.logits")) await compare("logits", (await model.forward(inputs)).logits);
    const { pixel_values, input_ids, attention_mask, interpolate_pos_encoding = false } = inputs;
    const text = await model.get_text_features({ input_ids, attention_mask }, { output_hidden_states: true });
    await compare("text", text.last_hidden_state);
    await compare("text.hidden_states.0", text.hidden_states?.[0]);
    const images = { pixel_values, interpolate_pos_encoding };
    await compare("image.pooler_output", (await model.get_image_features(images)).pooler_output);
    await compare("qformer", await model.get_qformer_features(images));
  });
  model.dispose();
}

/** Compares the retrieval model and both halves of it, and its processor. */
export async function compareRetrieval(golden: Golden, found: Comparisons, device: Device): Promise<void> {
  const texts = golden.json.asked?.retrieval;
  if (!texts) return;
  const folder = join(golden.folder, "retrieval");
  const compare = comparing(golden, found, "retrieval");
  const pixel_values = await golden.floats("retrieval.pixel_values");
  const [input_ids, attention_mask] = [
    await golden.rows("retrieval.input_ids"),
    await golden.rows("retrieval.attention_mask"),
  ];
  const model = await Blip2ForImageTextRetrieval.from_pretrained(folder, { device });
  found.equal("retrieval", "warnings", model.warnings, []);
  const { image_token, num_query_tokens } = model.config;
  const inFront = image_token === null ? 0 : num_query_tokens;
  const images = texts.map((_, i) => join(golden.folder, golden.json.images[i]));
  const processor = await AutoProcessor.from_pretrained(folder);
  const made = await processor({ text: [...texts], padding: true, ...(image_token !== null && { images }) });
  found.equal("retrieval", "input_ids", made.input_ids, input_ids);
  found.equal("retrieval", "attention_mask", made.attention_mask, attention_mask);
  const { pixel_values: pixels } = await processor({ images });
  found.numbers("retrieval", "pixel_values", pixels!.data, pixel_values.data, TOLERANCES.pixels);
  const inputs = { pixel_values, input_ids, attention_mask };
  await device.scope(async () => {
    for (const [name, use_image_text_matching_head] of [
      ["itc", false],
      ["itm", true],
    ] as const) {
      const output = await model.forward({ ...inputs, use_image_text_matching_head });
      for (const key of ["logits_per_image", "logits_per_text", "image_embeds", "text_embeds"] as const) {
        if (golden.has(`retrieval.${name}.${key}`)) await compare(`${name}.${key}`, output[key]);
      }
    }
  });
  model.dispose();
  const text = {
    input_ids: input_ids.map((row) => row.slice(inFront)),
    attention_mask: attention_mask.map((row) => row.slice(inFront)),
  };
  const texter = await Blip2TextModelWithProjection.from_pretrained(folder, { device });
  const seer = await Blip2VisionModelWithProjection.from_pretrained(folder, { device });
  await device.scope(async () => {
    const output = await texter.forward(text, { output_hidden_states: true });
    await compare("text.text_embeds", output.text_embeds);
    await compare("text.hidden_states.1", firstRow(output.hidden_states?.[1]));
    const { image_embeds, last_hidden_state } = await seer.forward({ pixel_values });
    await compare("itc.image_embeds", image_embeds);
    await compare("vision.last_hidden_state", firstRow(last_hidden_state));
  });
  texter.dispose();
  seer.dispose();
}

/** Compares the Q-Former alone. */
export async function compareQFormer(golden: Golden, found: Comparisons, device: Device): Promise<void> {
  if (!golden.has("qformer.query_embeds")) return;
  const model = await Blip2QFormerModel.from_pretrained(join(golden.folder, "retrieval/qformer"), { device });
  found.equal("base", "qformer.warnings", model.warnings, []);
  const [[query_length]] = await golden.rows("qformer.query_length");
  const inputs = {
    query_embeds: await golden.floats("qformer.query_embeds"),
    encoder_hidden_states: await golden.floats("qformer.encoder_hidden_states"),
    attention_mask: await golden.rows("qformer.attention_mask"),
    query_length,
  };
  const { last_hidden_state } = await model.forward(inputs);
  await comparing(golden, found, "base", "qformer")("last_hidden_state", last_hidden_state);
  last_hidden_state.dispose();
  model.dispose();
}

/** f32[B, M, D] -> f32[M, D] */
function firstRow(x: Tensor | undefined): Tensor | undefined {
  return x && contiguous(x.narrow(0, 0, 1)).reshape(x.shape.slice(1));
}
