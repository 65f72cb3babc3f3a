/**
 * `instructblip-webgpu/tensor`: the ops that take and return tensors, for functions of interventions and of observers. Tensors
 * are made by a device: `device.tensor(numbers, shape)`.
 */
export type { Activation } from "./activation.ts";
export { activation } from "./ops/activation.ts";
export { add } from "./ops/add.ts";
export { argmax } from "./ops/argmax.ts";
export { type AttentionOptions, attention, attentionProbabilities } from "./ops/attention.ts";
export { cat, contiguous, copy } from "./ops/copy.ts";
export { gatedActivation, mul } from "./ops/gated_activation.ts";
export { layerNorm } from "./ops/layer_norm.ts";
export { logSoftmax } from "./ops/log_softmax.ts";
export { rmsNorm } from "./ops/rms_norm.ts";
export { scale } from "./ops/scale.ts";
export { softmax } from "./ops/softmax.ts";
export { takeRows } from "./ops/take_rows.ts";
export { topK } from "./ops/top_k.ts";
export { Tensor } from "./tensor.ts";
