/**
 * Scaled dot-product attention: compute-bound with many queries, memory-bound with one. As in the models, cached keys and
 * values are views of a cache with free capacity.
 */

import type { Variant } from "../../device/plan.ts";
import { narrow, widen } from "../../dtype.ts";
import { attention, planAttention } from "../../ops/attention.ts";
import { attention as reference } from "../../reference/attention.ts";
import { compare } from "../support/compare.ts";
import { sampleRows, takeSample } from "../support/data.ts";
import { type Groups, once, variantsOf } from "../support/group.ts";
import { Random } from "../support/random.ts";
import { TOLERANCES } from "../support/tolerances.ts";

/** Free capacity of a cache, in tokens. */
const ROOM = 32;

export const groups: Groups = (shapes, caps) =>
  shapes.attention.map(({ name, T, S, H, d, Hkv = H, cached = false, f16 = false, mask, biased = false }) => ({
    kernel: "attention",
    shape: `${name} T${T} S${S} H${H} d${d}`,
    ...variantsOf("attention", { T, S: cached ? S + ROOM : S }, caps, (override) =>
      planAttention({ T, S: cached ? S + ROOM : S, d }, caps, override),
    ),
    open(device) {
      const C = cached ? S + ROOM : S;
      const random = new Random(1);
      const q = random.normal(T * H * d);
      const added = biased ? random.normal(H * T * C) : undefined;
      const seen = mask && Uint32Array.from({ length: C }, (_, s) => (mask === "padded" && s >= S / 3 ? 1 : 0));
      const keysOrValues = () => {
        const x = random.normal(Hkv * C * d);
        return f16 ? widen(new Uint8Array(narrow(x, "f16").buffer), "f16") : x;
      };
      const [k, v] = [keysOrValues(), keysOrValues()];
      const qs = device.tensor(q, [1, T, H, d]);
      const upload = (x: Float32Array) => {
        if (!cached) return device.tensor(x, [1, C, Hkv, d]);
        const order = [0, 2, 1, 3];
        if (!f16) return device.tensor(x, [1, Hkv, C, d]).permute(order);
        return device.tensor(new Uint32Array(narrow(x, "f16").buffer), [1, Hkv, C, d / 2]).permute(order);
      };
      const [ks, vs] = [upload(k), upload(v)];
      const before = S - T;
      const past = cached ? device.tensor(Uint32Array.of(before), [1]) : undefined;
      const scale = d ** -0.5;
      const options = {
        ...{ scale, causal: cached, past, pastLength: () => before },
        mask: seen && device.tensor(seen, [1, C]),
        bias: added && device.tensor(added, [1, H, T, C]),
      };
      const rows = sampleRows(T, 4);
      const expected = once(() => {
        const [keys, values] = cached ? [headsLast(k, Hkv, C, d), headsLast(v, Hkv, C, d)] : [k, v];
        return rows.flatMap((t) => {
          const sizes = { B: 1, T: 1, S: C, H, Hkv, d };
          const bias =
            added && Array.from({ length: H * C }, (_, i) => added[(Math.floor(i / C) * T + t) * C + (i % C)]!);
          const visible = {
            ...(cached && { causal: true, past: before + t }),
            ...(seen && { mask: seen }),
            ...(bias && { bias }),
          };
          return [...reference(takeSample(q, [t], H * d), keys, values, sizes, { scale, ...visible })];
        });
      });
      const pairs = cached ? T * before + (T * (T + 1)) / 2 : T * S;
      return {
        flops: 4 * H * d * pairs,
        bytes: 4 * d * (H * 2 * T + Hkv * (f16 ? 1 : 2) * S),
        run: (variant) => attention(qs, ks, vs, options, { attention: variant as Variant<"attention"> }),
        check: (y) => compare(takeSample(y, rows, H * d), expected(), TOLERANCES.attention, "attention"),
      };
    },
  }));

/** [H, C, d], as a cache holds it, as [C, H, d]. */
function headsLast(x: Float32Array, H: number, C: number, d: number): Float32Array {
  const y = new Float32Array(x.length);
  for (let h = 0; h < H; h++) {
    for (let s = 0; s < C; s++) y.set(x.subarray((h * C + s) * d, (h * C + s + 1) * d), (s * H + h) * d);
  }
  return y;
}
