/** The cases of every op, by the name that its files share. */

import { groups as attention } from "../attention/attention.ts";
import { groups as kvAppend } from "../cache/kv_append.ts";
import { groups as rope } from "../cache/rope.ts";
import { groups as ropeAppend } from "../cache/rope_append.ts";
import { groups as activation } from "../elementwise/activation.ts";
import { groups as add } from "../elementwise/add.ts";
import { groups as editScores } from "../elementwise/edit_scores.ts";
import { groups as gatedActivation } from "../elementwise/gated_activation.ts";
import { groups as increment } from "../elementwise/increment.ts";
import { groups as scale } from "../elementwise/scale.ts";
import { groups as bicubic } from "../gather/bicubic.ts";
import { groups as copy } from "../gather/copy.ts";
import { groups as embedding } from "../gather/embedding.ts";
import { groups as maskedScatter } from "../gather/masked_scatter.ts";
import { groups as relativeBias } from "../gather/relative_bias.ts";
import { groups as takeRows } from "../gather/take_rows.ts";
import { groups as unfold } from "../gather/unfold.ts";
import { groups as linear } from "../matmul/linear.ts";
import { groups as patchEmbedding } from "../matmul/patch_embedding.ts";
import { groups as argmax } from "../rows/argmax.ts";
import { groups as crossEntropy } from "../rows/cross_entropy.ts";
import { groups as f16Scales } from "../rows/f16_scales.ts";
import { groups as layerNorm } from "../rows/layer_norm.ts";
import { groups as logSoftmax } from "../rows/log_softmax.ts";
import { groups as quantize } from "../rows/quantize.ts";
import { groups as rmsNorm } from "../rows/rms_norm.ts";
import { groups as softmax } from "../rows/softmax.ts";
import { groups as topK } from "../rows/top_k.ts";
import type { Groups } from "./group.ts";

export const CASES: Readonly<Record<string, Groups>> = {
  activation,
  add,
  argmax,
  attention,
  bicubic,
  copy,
  cross_entropy: crossEntropy,
  edit_scores: editScores,
  embedding,
  gated_activation: gatedActivation,
  f16_scales: f16Scales,
  increment,
  kv_append: kvAppend,
  layer_norm: layerNorm,
  linear,
  log_softmax: logSoftmax,
  masked_scatter: maskedScatter,
  patch_embedding: patchEmbedding,
  quantize,
  relative_bias: relativeBias,
  rms_norm: rmsNorm,
  rope,
  rope_append: ropeAppend,
  scale,
  softmax,
  take_rows: takeRows,
  top_k: topK,
  unfold,
};
