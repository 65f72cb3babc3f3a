/** Token embeddings: a table of vectors. */
import { embedding } from "../tensor/ops/embedding.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { Weight } from "../tensor/weight.ts";
import { Module } from "./module.ts";
import type { Weights } from "./weights.ts";

/**
 * A tied table [rows, D] that has several names in a model, any of which a file may have: under its own name, else under the
 * first found, as transformers ties weights.
 *
 * @param names of modules, its own first
 */
export function tiedTable(weights: Weights, names: readonly [string, ...string[]], D: number): Weight {
  const found = weights.at(names.find((name) => weights.has(`${name}.weight`)) ?? names[0]);
  return found.matrix("weight", [found.shapeOf("weight")[0]!, D]);
}

/** u32[...] -> f32[..., D]. The number of rows is the file's, which may exceed the config's vocab_size. */
export class Embedding extends Module {
  readonly weight: Weight;

  /** `weight` is given if the table has another name in the checkpoint, or another shape than [any, D]. */
  constructor(weights: Weights, D: number, { weight }: { weight?: Weight } = {}) {
    super(weights);
    this.weight = weight ?? weights.matrix("weight", [weights.shapeOf("weight")[0]!, D]);
  }

  get num_embeddings(): number {
    return this.weight.shape[0];
  }

  forward(ids: Tensor<"u32">): Tensor {
    return this.observe(this.rows(ids));
  }

  /** The same, without observers. */
  rows(ids: Tensor<"u32">): Tensor {
    return embedding(ids, this.weight);
  }
}
