/**
 * The language-modelling loss (cross-entropy) of forward() with `labels`. There is no training; the loss measures how likely
 * a text is, as perplexity does.
 *
 * B rows, T tokens of the logits, n tokens of the labels, V vocabulary.
 * Source: transformers 5.18, loss/loss_utils.py (ForCausalLMLoss), T5's forward() and _shift_right.
 */
import { InputError } from "../../tensor/errors.ts";
import { crossEntropy } from "../../tensor/ops/cross_entropy.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { Ids } from "./language_model.ts";

/** The label of ignored tokens: image, prompt, padding. */
export const IGNORE_INDEX = -100;

/**
 * The targets of a decoder-only model's T tokens: for each token the next label. Labels are those of the last n tokens;
 * Hugging Face's InstructBLIP takes n = T only, its BLIP-2 also less.
 *
 * @param labels [B][n]
 * @returns [B][T]
 * @throws InputError LABELS
 */
export function nextTokens(labels: Ids, T: number): Ids {
  const n = labels[0]!.length;
  if (n > T) {
    throw new InputError("LABELS", `labels have ${n} tokens; image and prompt have ${T}`, {
      hint: "one for every token of input_ids, image tokens included: -100 for ignored ones",
    });
  }
  return labels.map((row) => [...new Array<number>(T - n).fill(IGNORE_INDEX), ...row.slice(1), IGNORE_INDEX]);
}

/**
 * Decoder input ids of an encoder-decoder for given labels: the labels shifted right, with a start token in front. [B][n]
 */
export function shiftRight(labels: Ids, start: number, pad: number): Ids {
  return labels.map((row) => [start, ...row.slice(0, -1).map((id) => (id === IGNORE_INDEX ? pad : id))]);
}

/**
 * @param logits f32[B, T, V]
 * @param targets [B][T]
 * @returns f32[B·T]: -log p of each target, in nats; 0 where it is -100
 */
export function tokenLosses(logits: Tensor, targets: Ids): Tensor {
  const ids = Uint32Array.from(targets.flat()); // -100 becomes IGNORED_LABEL
  return crossEntropy(logits.reshape([ids.length, -1]), logits.device.tensor(ids, [ids.length]));
}

/** Mean over the targets that are not ignored; NaN if there is none, as in PyTorch. */
export function meanLoss(losses: Float32Array, targets: Ids): number {
  const counted = targets.flat().reduce((n, id) => n + Number(id !== IGNORE_INDEX), 0);
  return losses.reduce((sum, loss) => sum + loss, 0) / counted;
}
