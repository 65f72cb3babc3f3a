/**
 * Opens the weights of a model: of its folder, in Hugging Face's layout or LAVIS's, completed by those of a base model.
 */
import { Checkpoint, WEIGHT_FILES } from "../../../tensor/files/checkpoint.ts";
import { concatenated } from "../../../tensor/files/derived_tensor.ts";
import type { DerivedTensor, TensorFile, TensorInfo } from "../../../tensor/files/tensor_file.ts";
import type { VisionLanguageConfig } from "../../config/config.ts";
import type { JsonFolder } from "../../config/json_folder.ts";
import type { ModelFolder } from "../model_folder.ts";
import { refuseUnheeded, WEIGHT_FORMATS } from "../unheeded_files.ts";
import { withAdapter } from "./adapter.ts";
import { dequantized } from "./bitsandbytes.ts";
import { fromLavis, isLavis, LAVIS_FILES } from "./lavis.ts";

/**
 * Opens the weights of a model's folder, completed by those of its base model, with its adapters merged into them.
 *
 * @throws WeightError as Checkpoint.open, ADAPTER, OTHER_WEIGHTS
 */
export async function weightsOf(folder: ModelFolder): Promise<Checkpoint> {
  const config = await folder.config();
  if (folder.base_model) await refuseUnheeded(folder.base_model);
  let checkpoint = await openWeights(folder, config, folder.base_model);
  try {
    for (const adapter of folder.adapters) checkpoint = await withAdapter(checkpoint, adapter, config);
  } catch (error) {
    await checkpoint.close();
    throw error;
  }
  return checkpoint;
}

/**
 * Opens the weights of a folder. Its config may name their file (`transformers_weights`); else it is one of Hugging Face's, or of
 * LAVIS's.
 *
 * @param base another folder, for tensors that the first lacks: a whole model, or a language model alone
 * @throws WeightError as Checkpoint.open
 */
async function openWeights(folder: JsonFolder, config: VisionLanguageConfig, base?: JsonFolder): Promise<Checkpoint> {
  const own = await openOwn(folder, config);
  if (!base) return own;
  try {
    return own.over(inModel(await openOwn(base, config), config));
  } catch (error) {
    await own.close();
    throw error;
  }
}

async function openOwn(folder: JsonFolder, { family }: VisionLanguageConfig): Promise<Checkpoint> {
  const given = (await folder.json("config.json"))?.transformers_weights;
  const names = typeof given === "string" && WEIGHT_FORMATS.test(given) ? [given] : [...WEIGHT_FILES, ...LAVIS_FILES];
  const opened = await Checkpoint.open(folder, {}, names);
  let checkpoint: Checkpoint;
  try {
    checkpoint = await dequantized(opened);
  } catch (error) {
    await opened.close();
    throw error;
  }
  if (!isLavis(checkpoint.tensors.keys())) return checkpoint;
  return checkpoint.map((file) => fromLavis(file, family.model_type));
}

/**
 * The tensors of a base model by their names in the whole model. Those of a language model alone get its prefix. LAVIS adds tokens
 * to Vicuna's vocabulary, such as that for padding. Rows that the tables lack for them are zeros: such a token has a logit of 0, and
 * is picked where all others are below.
 */
function inModel(base: Checkpoint, { text_config }: VisionLanguageConfig): Checkpoint {
  const names = [...base.tensors.keys()];
  if (names.some((name) => /^(vision_model|qformer|language_model)\./.test(name))) return base;
  const isBare = text_config.model_type !== "t5" && !names.some((name) => name.startsWith("model."));
  const nameOf = (name: string) => `language_model.${isBare && !name.startsWith("lm_head.") ? "model." : ""}${name}`;
  return base.map((file) => {
    const tensors: TensorInfo[] = [];
    const derived: DerivedTensor[] = [];
    for (const info of file.tensors.values()) {
      const named = { ...info, name: nameOf(info.name) };
      const [rows, width] = info.shape;
      const missing = TABLE.test(named.name) && rows && width ? text_config.vocab_size - rows : 0;
      if (missing > 0) derived.push(extended(file, named, missing));
      else tensors.push(named);
    }
    const warnings = derived.map(
      ({ name }) =>
        `${name} has fewer rows than text_config.vocab_size ${text_config.vocab_size}: the others are zeros`,
    );
    return file.with(tensors, derived, warnings);
  });
}

const TABLE = /^language_model\.(model\.embed_tokens|lm_head|model\.decoder\.embed_tokens|shared)\.weight$/;

/** A matrix with `more` rows of zeros. */
function extended(file: TensorFile, info: TensorInfo, more: number): DerivedTensor {
  const [rows = 0, width = 0] = info.shape;
  const row = (info.end - info.begin) / rows;
  return concatenated(file, { ...info, shape: [rows + more, width] }, [info, { zeros: more * row }]);
}
