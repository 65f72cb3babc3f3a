/**
 * The key/value cache: keys and values of earlier tokens, per layer, in buffers of fixed capacity that are written in place.
 * Growing buffers cost other engines up to 70 % of their decode speed (transformers.js #1741).
 */

import { ShapeError } from "../tensor/errors.ts";
import type { AttentionOptions, KeysOrValues } from "../tensor/ops/attention.ts";
import { copy } from "../tensor/ops/copy.ts";
import { increment } from "../tensor/ops/increment.ts";
import { kvAppend } from "../tensor/ops/kv_append.ts";
import { takeRows } from "../tensor/ops/take_rows.ts";
import { type Shape, sizes } from "../tensor/shape.ts";
import type { Device, Tensor } from "../tensor/tensor.ts";
import type { KVCacheDType } from "./storage_dtype.ts";

export interface KVCacheShape {
  readonly layers: number;
  readonly batch: number;
  /** Key/value heads. */
  readonly heads: number;
  readonly head_dim: number;
  /** Tokens the cache can hold, prompt and image included. */
  readonly capacity: number;
  /**
   * Default f32. f16 is half as large, two numbers in a u32, each with 11 significant bits, at most ±65504; head_dim must be
   * a multiple of 4.
   */
  readonly dtype?: KVCacheDType | undefined;
}

/**
 * A row of the batch writes to its own row of the buffers, and reads through a block table, which gives the row of each
 * token. Reordering beams changes the block table only, and beams share the tokens that they have in common: keys and values
 * are never copied.
 */
export class KVCache {
  readonly capacity: number;
  /** Length in tokens, on the GPU: u32[1]. */
  readonly past: Tensor<"u32">;
  /** The block table: u32[R, capacity], n + 1 = the token is in row n of the keys and values, 0 = masked. */
  #blockTable: Tensor<"u32">;
  /** The same on the host. */
  #hostBlockTable: Uint32Array;
  /** Of each layer: f32[rows, Hkv, capacity, d], or f16, two in a u32: u32[rows, Hkv, capacity, d/2] */
  #keys: readonly KeysOrValues[];
  #values: readonly KeysOrValues[];
  #length = 0;

  /** @throws ShapeError */
  constructor(device: Device, { layers, batch, heads, head_dim, capacity, dtype }: KVCacheShape) {
    const isF16 = dtype === "f16";
    if (isF16 && head_dim % 4 !== 0)
      throw new ShapeError(`KVCache: head_dim must be a multiple of 4 for an f16 cache, got ${head_dim}`);
    const shape = [batch, heads, capacity, isF16 ? head_dim / 2 : head_dim];
    const buffer = () => device.persistent(shape, isF16 ? "u32" : "f32", "key/value cache");
    const table = Uint32Array.from({ length: batch * capacity }, (_, i) => Math.floor(i / capacity) + 1);
    const { past, keys, values, blockTable } = device.memory.allOrNothing(() => ({
      past: device.persistent([1], "u32", "cache length"),
      keys: Array.from({ length: layers }, buffer),
      values: Array.from({ length: layers }, buffer),
      blockTable: upload(device, table, [batch, capacity]),
    }));
    this.capacity = capacity;
    this.past = past;
    this.#keys = keys;
    this.#values = values;
    this.#hostBlockTable = table;
    this.#blockTable = blockTable;
  }

  /** Length in tokens. */
  get length(): number {
    return this.#length;
  }

  /** The options of attention over the cache: block table and length. */
  get attentionView(): Required<Pick<AttentionOptions, "blockTable" | "past" | "pastLength">> {
    return { blockTable: this.#blockTable, past: this.past, pastLength: () => this.#length };
  }

  /**
   * Appends keys and values of layer `layer`, and returns views of all of them.
   *
   * @param k f32[R, T, Hkv, d]
   * @param v f32[R, T, Hkv, d]
   * @returns views f32[rows, capacity, Hkv, d], or f16; positions from `length + T` on are not initialized
   */
  append(layer: number, k: Tensor, v: Tensor): [KeysOrValues, KeysOrValues] {
    const { keys, values } = this.layer(layer);
    kvAppend(k, keys.narrow(0, 0, k.shape[0]!), this.past);
    kvAppend(v, values.narrow(0, 0, v.shape[0]!), this.past);
    const heads = this.heads(layer);
    return [heads.k, heads.v];
  }

  /** The buffers of a layer, for an op that appends to them at `past`: f32[rows, Hkv, capacity, d], or f16. */
  layer(layer: number): { readonly keys: KeysOrValues; readonly values: KeysOrValues; readonly past: Tensor<"u32"> } {
    return { keys: this.#keys[layer]!, values: this.#values[layer]!, past: this.past };
  }

  /** Keys and values of a layer for attention: views f32[rows, capacity, Hkv, d], or f16. */
  heads(layer: number): { readonly k: KeysOrValues; readonly v: KeysOrValues } {
    const { keys, values } = this.layer(layer);
    return { k: keys.permute([0, 2, 1, 3]), v: values.permute([0, 2, 1, 3]) };
  }

  /** Adds `tokens` to the length, after every layer has appended them. */
  advance(tokens: number): void {
    this.launchAdvance(tokens);
    this.commitAdvance(tokens);
  }

  /** The launch of `advance`, which a replayed step repeats. */
  launchAdvance(tokens: number): void {
    increment(this.past, tokens);
  }

  commitAdvance(tokens: number): void {
    this.#length += tokens;
  }

  /** Forgets the last `tokens` tokens: the next ones are written in their place. */
  crop(tokens: number): void {
    increment(this.past, -tokens >>> 0);
    this.#length -= tokens;
  }

  /** Masks tokens of the prompt; tokens appended later are always visible. */
  setPromptMask(mask: readonly (readonly number[])[]): void {
    mask.forEach((row, b) => {
      row.forEach((visible, s) => {
        this.#hostBlockTable[b * this.capacity + s] = visible ? b + 1 : 0;
      });
    });
    this.past.device.write(this.#blockTable, this.#hostBlockTable);
  }

  /** Reorders rows: row i continues row `rows[i]`. There may be more rows than before. */
  reorder(rows: readonly number[]): void {
    const before = this.#blockTable.shape[0];
    this.#hostBlockTable = this.#reorderedTable(rows);
    if (rows.length === before) {
      this.past.device.write(this.#blockTable, this.#hostBlockTable);
      return;
    }
    const places = this.#keys[0]?.shape[0] ?? rows.length;
    if (rows.length > places) {
      const grow = (old: KeysOrValues): KeysOrValues => {
        const more = this.past.device.persistent([rows.length, ...old.shape.slice(1)], old.dtype, "key/value cache");
        copy(old, more.narrow(0, 0, places));
        old.dispose();
        return more;
      };
      [this.#keys, this.#values] = this.past.device.memory.allOrNothing(
        () => [this.#keys.map(grow), this.#values.map(grow)] as const,
      );
    }
    const { device } = this.past;
    const table = device.memory.allOrNothing(() => upload(device, this.#hostBlockTable, [rows.length, this.capacity]));
    this.#blockTable.dispose();
    this.#blockTable = table;
  }

  /** A copy: a cache whose row i has the tokens of row `rows[i]` of this one. */
  copyRows(rows: readonly number[]): KVCache {
    return this.past.device.memory.allOrNothing(() => this.#copyRows(rows));
  }

  #copyRows(rows: readonly number[]): KVCache {
    const { device } = this.past;
    const { capacity } = this;
    const copy = new KVCache(device, { layers: 0, batch: rows.length, heads: 0, head_dim: 0, capacity });
    const table = this.#reorderedTable(rows);
    const [, heads, , width] = sizes(this.#keys[0]!.shape, 4);
    // The source of every key of the copy; for a masked token any.
    const sources = new Uint32Array(rows.length * heads * capacity);
    for (let i = 0, at = 0; i < rows.length; i++) {
      for (let h = 0; h < heads; h++) {
        for (let s = 0; s < capacity; s++) {
          const row = s < this.#length ? Math.max(table[i * capacity + s]!, 1) - 1 : 0;
          sources[at++] = (row * heads + h) * capacity + s;
        }
      }
    }
    const index = device.tensor(sources, [sources.length]);
    const copied = (old: KeysOrValues): KeysOrValues => {
      const gathered = takeRows(old.reshape([-1, width]), index).reshape([rows.length, heads, capacity, width]);
      device.memory.keep(gathered.storage);
      return gathered;
    };
    copy.#keys = this.#keys.map(copied);
    copy.#values = this.#values.map(copied);
    copy.#hostBlockTable = table.map((row, i) => (row === 0 ? 0 : Math.floor(i / capacity) + 1));
    device.write(copy.#blockTable, copy.#hostBlockTable);
    copy.advance(this.#length);
    index.dispose();
    return copy;
  }

  dispose(): void {
    for (const tensor of [this.past, this.#blockTable, ...this.#keys, ...this.#values]) tensor.dispose();
  }

  /** The block table after reordering: rows share earlier tokens, and write later ones to their own row. */
  #reorderedTable(rows: readonly number[]): Uint32Array {
    const { capacity } = this;
    const table = new Uint32Array(rows.length * capacity);
    rows.forEach((row, i) => {
      table.fill(i + 1, i * capacity + this.#length, (i + 1) * capacity);
      table.set(this.#hostBlockTable.subarray(row * capacity, row * capacity + this.#length), i * capacity);
    });
    return table;
  }
}

function upload(device: Device, table: Uint32Array, shape: Shape): Tensor<"u32"> {
  const tensor = device.persistent(shape, "u32", "block table");
  device.write(tensor, table);
  return tensor;
}

/** Keys or values as f16x2, for cross-attention. f32[B, S, Hkv, d] -> u32[B, S, Hkv, d/2] */
export function toF16(x: Tensor): Tensor<"u32"> {
  const [B, S, H, d] = sizes(x.shape, 4);
  const none = x.device.tensor(Uint32Array.of(0), [1]);
  const packed = x.device.empty([B, 1, S * H, d / 2], "u32");
  kvAppend(x.reshape([B, S * H, 1, d]), packed, none);
  return packed.reshape([B, S, H, d / 2]);
}
