/** The cases of every op, by the name that its files share. */
import { groups as activation } from "../activation.ts";
import { groups as add } from "../add.ts";
import { groups as argmax } from "../argmax.ts";
import { groups as attention } from "../attention.ts";
import { groups as bicubic } from "../bicubic.ts";
import { groups as copy } from "../copy.ts";
import { groups as crossEntropy } from "../cross_entropy.ts";
import { groups as editScores } from "../edit_scores.ts";
import { groups as embedding } from "../embedding.ts";
import { groups as gatedActivation } from "../gated_activation.ts";
import { groups as increment } from "../increment.ts";
import { groups as kvAppend } from "../kv_append.ts";
import { groups as layerNorm } from "../layer_norm.ts";
import { groups as linear } from "../linear.ts";
import { groups as logSoftmax } from "../log_softmax.ts";
import { groups as maskedScatter } from "../masked_scatter.ts";
import { groups as patchEmbedding } from "../patch_embedding.ts";
import { groups as relativeBias } from "../relative_bias.ts";
import { groups as rmsNorm } from "../rms_norm.ts";
import { groups as rope } from "../rope.ts";
import { groups as ropeAppend } from "../rope_append.ts";
import { groups as scale } from "../scale.ts";
import { groups as softmax } from "../softmax.ts";
import { groups as takeRows } from "../take_rows.ts";
import { groups as topK } from "../top_k.ts";
import { groups as unfold } from "../unfold.ts";
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
  increment,
  kv_append: kvAppend,
  layer_norm: layerNorm,
  linear,
  log_softmax: logSoftmax,
  masked_scatter: maskedScatter,
  patch_embedding: patchEmbedding,
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
