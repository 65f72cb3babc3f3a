/**
 * Keys and values of the tokens seen so far, per layer, in buffers of fixed capacity that are written in place: growing
 * buffers cost other engines up to 70 % of their decode speed (transformers.js #1741).
 */
import type { Device } from "../tensor/device.ts";
import { increment } from "../tensor/ops/increment.ts";
import { kvAppend } from "../tensor/ops/kv_append.ts";
import { takeRows } from "../tensor/ops/take_rows.ts";
import type { Tensor } from "../tensor/tensor.ts";

export interface KVCacheShape {
  readonly layers: number;
  readonly batch: number;
  /** Key/value heads. */
  readonly heads: number;
  readonly head_dim: number;
  /** Tokens the cache can hold, prompt and image included. */
  readonly capacity: number;
}

export class KVCache {
  readonly capacity: number;
  /** Tokens held, on the GPU where kernels read it: u32[1]. */
  readonly past: Tensor<"u32">;
  /** 1 where a token may be attended to: u32[B, capacity]. */
  mask: Tensor<"u32">;
  #keys: readonly Tensor[];
  #values: readonly Tensor[];
  #length = 0;

  constructor(device: Device, { layers, batch, heads, head_dim, capacity }: KVCacheShape) {
    const buffer = () => device.persistent([batch, heads, capacity, head_dim], "f32", "key/value cache");
    this.capacity = capacity;
    this.past = device.persistent([1], "u32", "cache length");
    this.mask = device.persistent([batch, capacity], "u32", "cache mask");
    this.#keys = Array.from({ length: layers }, buffer);
    this.#values = Array.from({ length: layers }, buffer);
    device.write(this.mask, new Uint32Array(batch * capacity).fill(1));
  }

  /** Tokens held. */
  get length(): number {
    return this.#length;
  }

  /**
   * Stores the keys and values of layer `layer` behind those it holds, and gives views of all of them.
   *
   * @param k f32[B, T, Hkv, d]
   * @param v f32[B, T, Hkv, d]
   * @returns views f32[B, capacity, Hkv, d]; positions from `length + T` on hold nothing yet
   */
  append(layer: number, k: Tensor, v: Tensor): [Tensor, Tensor] {
    kvAppend(k, this.#keys[layer], this.past);
    kvAppend(v, this.#values[layer], this.past);
    return [this.#keys[layer].permute([0, 2, 1, 3]), this.#values[layer].permute([0, 2, 1, 3])];
  }

  /** Counts `tokens` as held, once every layer has appended them. */
  advance(tokens: number): void {
    this.advanceOnDevice(tokens);
    this.advanceOnHost(tokens);
  }

  /** The launch in `advance`, which a replayed step repeats by itself. */
  advanceOnDevice(tokens: number): void {
    increment(this.past, tokens);
  }

  advanceOnHost(tokens: number): void {
    this.#length += tokens;
  }

  /** Says which of the prompt's tokens may be attended to; tokens appended later always may. */
  setPromptMask(mask: readonly (readonly number[])[]): void {
    const all = new Uint32Array(mask.length * this.capacity).fill(1);
    mask.forEach((row, b) => {
      all.set(row, b * this.capacity);
    });
    this.mask.device.write(this.mask, all);
  }

  /** Row i goes on from what row `rows[i]` holds. There may be more rows than before. */
  reorder(rows: readonly number[]): void {
    const { device } = this.past;
    const index = device.tensor(Uint32Array.from(rows), [rows.length]);
    const move = <D extends "f32" | "u32">(old: Tensor<D>): Tensor<D> => {
      const moved = takeRows(old.reshape([old.shape[0], -1]), index).reshape([rows.length, ...old.shape.slice(1)]);
      device.memory.keep(moved.storage);
      old.dispose();
      return moved;
    };
    this.#keys = this.#keys.map(move);
    this.#values = this.#values.map(move);
    this.mask = move(this.mask);
    index.dispose();
  }

  /** A cache of its own whose row i holds what row `rows[i]` of this one does. */
  fork(rows: readonly number[]): KVCache {
    const { device } = this.past;
    const { capacity } = this;
    const fork = new KVCache(device, { layers: 0, batch: rows.length, heads: 0, head_dim: 0, capacity });
    const index = device.tensor(Uint32Array.from(rows), [rows.length]);
    const copied = <D extends "f32" | "u32">(old: Tensor<D>): Tensor<D> => {
      const copy = takeRows(old.reshape([old.shape[0], -1]), index).reshape([rows.length, ...old.shape.slice(1)]);
      device.memory.keep(copy.storage);
      return copy;
    };
    fork.mask.dispose();
    fork.mask = copied(this.mask);
    fork.#keys = this.#keys.map(copied);
    fork.#values = this.#values.map(copied);
    fork.advance(this.#length);
    index.dispose();
    return fork;
  }

  dispose(): void {
    for (const tensor of [this.past, this.mask, ...this.#keys, ...this.#values]) tensor.dispose();
  }
}
