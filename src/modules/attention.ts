/** What every attention of a model does with its heads: attention itself, and what observers see and change of it. */
import {
  type AttentionOptions,
  attention,
  attentionProbabilities,
  type KeysOrValues,
} from "../tensor/ops/attention.ts";
import { sizes } from "../tensor/shape.ts";
import type { StateKind, Tensor } from "../tensor/tensor.ts";
import { Module } from "./module.ts";

/** The arguments of attention. */
export interface Heads {
  /** f32[B, T, H, d] */
  readonly q: Tensor;
  /** f32[B, S, Hkv, d], or f16 */
  readonly k: KeysOrValues;
  readonly v: KeysOrValues;
}

export abstract class Attention extends Module {
  /**
   * Attention of all heads. Observers see the edges, the probabilities and the result.
   *
   * @param keys that queries may see: S may be a cache's capacity. Default: S
   * @param kind under which the probabilities are observed
   * @returns f32[B, T, H, d]
   */
  protected attend(
    heads: Heads,
    options: AttentionOptions,
    { keys = heads.k.shape[1]!, kind = "attentions" }: { keys?: number; kind?: StateKind } = {},
  ): Tensor {
    const { device } = heads.q;
    const [B, T, H] = sizes(heads.q.shape, 4);
    const all = () => device.tensor([1], [1, 1, 1, 1]).expand([B, H, T, keys]);
    const edges = this.observeIfWanted(device, all, undefined, "edges");
    const [{ q, k, v }, given] = edges ? withEdges(heads, options, edges) : [heads, options];
    this.observeState(kind, q, () => attentionProbabilities(q, k, given).narrow(3, 0, keys));
    const y = attention(q, k, v, given);
    return this.observeIfWanted(device, () => y, undefined, "heads") ?? y;
  }
}

/** Heads and options of the keys that have edges, without the room that a cache has left. @param edges f32[B, H, T, S] */
function withEdges(
  { q, k, v }: Heads,
  { mask, blockTable, bias, ...options }: AttentionOptions,
  edges: Tensor,
): [Heads, AttentionOptions] {
  const S = edges.shape[3]!;
  const parts = { mask: mask?.narrow(1, 0, S), blockTable: blockTable?.narrow(1, 0, S), bias: bias?.narrow(3, 0, S) };
  return [
    { q, k: k.narrow(1, 0, S), v: v.narrow(1, 0, S) },
    { ...options, ...parts, edges },
  ];
}
