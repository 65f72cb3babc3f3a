/**
 * Checkpoints of LAVIS, the authors' own library: their tensors by Hugging Face's names.
 *
 * Source: transformers, convert_instructblip_original_to_pytorch.py and convert_blip_2_original_to_pytorch.py.
 */
import { WeightError } from "../../../tensor/errors.ts";
import { concatenated } from "../../../tensor/files/derived_tensor.ts";
import type { DerivedTensor, TensorFile, TensorInfo } from "../../../tensor/files/tensor_file.ts";

/** Files as they are published, without the language model; and what training writes. */
export const LAVIS_FILES = [
  "instruct_blip_vicuna7b_trimmed.pth",
  "instruct_blip_vicuna13b_trimmed.pth",
  "instruct_blip_flanxl_trimmed.pth",
  "instruct_blip_flanxxl_trimmed.pth",
  "blip2_pretrained_opt2.7b.pth",
  "blip2_pretrained_opt6.7b.pth",
  "blip2_pretrained_flant5xl.pth",
  "blip2_pretrained_flant5xxl.pth",
  "blip2_caption_opt2.7b.pth",
  "blip2_caption_opt6.7b.pth",
  "blip2_caption_flant5xl.pth",
  "checkpoint_best.pth",
];

/** Beginnings of names, in both. The first that fits is replaced; then Q-Former's, inside a name. */
const NAMES: readonly (readonly [RegExp, string])[] = [
  [/^visual_encoder\.cls_token$/, "vision_model.embeddings.class_embedding"],
  [/^visual_encoder\.pos_embed$/, "vision_model.embeddings.position_embedding"],
  [/^visual_encoder\.patch_embed\.proj\./, "vision_model.embeddings.patch_embedding."],
  [/^visual_encoder\.blocks\.(\d+)\.norm([12])\./, "vision_model.encoder.layers.$1.layer_norm$2."],
  [/^visual_encoder\.blocks\.(\d+)\.attn\.proj\./, "vision_model.encoder.layers.$1.self_attn.projection."],
  [/^visual_encoder\.blocks\.(\d+)\.attn\./, "vision_model.encoder.layers.$1.self_attn."],
  [/^visual_encoder\.blocks\.(\d+)\.mlp\./, "vision_model.encoder.layers.$1.mlp."],
  [/^ln_vision\./, "vision_model.post_layernorm."],
  [/^Qformer\.bert\./, "qformer."],
  [/^(?:llm|t5|opt)_proj\./, "language_projection."],
  [/^(?:llm|t5|opt)_model\./, "language_model."],
];

/** Whether these are names of LAVIS. */
export function isLavis(names: Iterable<string>): boolean {
  for (const name of names)
    if (/^(visual_encoder|Qformer|ln_vision|(llm|t5|opt)_(proj|model))\./.test(name)) return true;
  return false;
}

/** Hugging Face's name of a tensor. @param model_type of the config: BLIP-2 has the Q-Former's first norm outside of its embeddings */
export function fromLavisName(name: string, model_type: string): string {
  const found = NAMES.find(([pattern]) => pattern.test(name));
  if (!found) return name;
  return name
    .replace(...found)
    .replace(
      /^qformer\.embeddings\.LayerNorm\./,
      model_type === "blip-2" ? "qformer.layernorm." : "qformer.embeddings.layernorm.",
    )
    .replace(/^(qformer\..*attention\.)self\./, "$1attention.");
}

/**
 * A file of LAVIS with Hugging Face's names. The image encoder's queries and values have biases, its keys have none: Hugging Face
 * keeps the three as one, with zeros for the keys.
 */
export function fromLavis(file: TensorFile, model_type: string): TensorFile {
  const tensors: TensorInfo[] = [];
  const derived: DerivedTensor[] = [];
  for (const info of file.tensors.values()) {
    const [, block, part] = /^visual_encoder\.blocks\.(\d+)\.attn\.([qv])_bias$/.exec(info.name) ?? [];
    const other = file.tensors.get(`visual_encoder.blocks.${block}.attn.v_bias`);
    const size = info.end - info.begin;
    const isPair = part === "q" && other?.dtype === info.dtype && other.end - other.begin === size;
    if (isPair) {
      const name = `vision_model.encoder.layers.${block}.self_attn.qkv.bias`;
      const tensor = { name, dtype: info.dtype, shape: [3 * info.shape[0]!] };
      derived.push(concatenated(file, tensor, [info, { zeros: size }, other]));
    } else if (part === "q" || (part === "v" && !file.tensors.has(`visual_encoder.blocks.${block}.attn.q_bias`))) {
      const name = `visual_encoder.blocks.${block}.attn`;
      throw new WeightError(
        "MISSING_TENSORS",
        `${file.origin.name}: q_bias and v_bias of ${name} are not of one size and dtype`,
      );
    } else if (part !== "v") {
      tensors.push({ ...info, name: fromLavisName(info.name, model_type) });
    }
  }
  return file.with(tensors, derived);
}
