import { expect, test } from "vitest";
import { type Device, GpuDevice } from "../../src/tensor/device/device.ts";
import { runnableVariants } from "../../src/tensor/device/plan.ts";
import { widen } from "../../src/tensor/dtype.ts";
import { attention, attentionProbabilities } from "../../src/tensor/ops/attention.ts";
import { kvAppend } from "../../src/tensor/ops/kv_append.ts";
import { type AttentionSizes, attention as reference } from "../../src/tensor/reference/attention.ts";
import { expectClose } from "../compare.ts";
import { otherDevice, testDevice } from "../device.ts";
import { expectAsPyTorch, HardSource } from "../hard.ts";
import { Random } from "../random.ts";
import { TOLERANCES } from "../tolerances.ts";

const device = await testDevice();
const folding = new GpuDevice(
  device.handle,
  { ...device.caps, maxWorkgroupsPerDimension: 30 },
  Number.POSITIVE_INFINITY,
);
const variants = runnableVariants("attention", device.caps);

/** One of everything; partial tiles of queries and keys; grouped heads; the model's heads; many keys; too large to fuse. */
// biome-ignore format: a table
const SIZES: AttentionSizes[] = [
  { B: 1, T: 1, S: 1, H: 1, Hkv: 1, d: 1 },
  { B: 2, T: 3, S: 7, H: 2, Hkv: 2, d: 5 },
  { B: 1, T: 9, S: 9, H: 4, Hkv: 2, d: 5 },
  { B: 2, T: 8, S: 33, H: 6, Hkv: 3, d: 8 },
  { B: 1, T: 17, S: 65, H: 8, Hkv: 1, d: 8 },
  { B: 1, T: 33, S: 31, H: 3, Hkv: 3, d: 12 },
  { B: 1, T: 5, S: 70, H: 2, Hkv: 1, d: 64 },
  { B: 1, T: 19, S: 40, H: 2, Hkv: 2, d: 88 },
  { B: 2, T: 1, S: 67, H: 4, Hkv: 2, d: 128 },
  { B: 2, T: 1, S: 263, H: 2, Hkv: 1, d: 88 },
  { B: 1, T: 1, S: 512, H: 1, Hkv: 1, d: 8 },
  { B: 1, T: 1, S: 1030, H: 2, Hkv: 1, d: 8 },
  { B: 1, T: 3, S: 4, H: 1, Hkv: 1, d: 300 },
];

interface Options {
  scale: number;
  causal?: boolean;
  mask?: Uint32Array;
  past?: number;
  /** [H, T, S] or [B, H, T, S] */
  bias?: Float32Array;
}

const random = (sizes: AttentionSizes) => {
  const { B, T, S, H, Hkv, d } = sizes;
  const source = new Random(T * 1009 + S * 31 + d);
  return [source.normal(B * T * H * d), source.normal(B * S * Hkv * d), source.normal(B * S * Hkv * d)] as const;
};

/** Batch b of B is padded on the left by (B - b) quarters of the keys. */
function leftPadded({ B, S }: AttentionSizes): Uint32Array {
  return Uint32Array.from({ length: B * S }, (_, i) => (i % S >= (B - Math.floor(i / S)) * Math.floor(S / 4) ? 1 : 0));
}

for (const variant of variants) {
  const run = (
    inputs: readonly Float32Array[],
    { B, T, S, H, Hkv, d }: AttentionSizes,
    options: Options,
    on = device,
  ) => {
    const [q, k, v] = inputs;
    const { scale, causal, mask, past, bias } = options;
    return attention(
      on.tensor(q, [B, T, H, d]),
      on.tensor(k, [B, S, Hkv, d]),
      on.tensor(v, [B, S, Hkv, d]),
      {
        scale,
        causal,
        mask: mask && on.tensor(mask, [B, S]),
        past: past === undefined ? undefined : on.tensor(Uint32Array.of(past), [1]),
        bias: bias && on.tensor(bias, [bias.length / (H * T * S), H, T, S]),
      },
      { attention: variant },
    ).read();
  };

  for (const sizes of SIZES) {
    const { B, T, S, H, Hkv, d } = sizes;
    const label = `attention ${variant} B${B} T${T} S${S} H${H}/${Hkv} d${d}`;
    test(label, async () => {
      const inputs = random(sizes);
      const past = Math.max(0, S - T);
      const scale = 3 / Math.sqrt(d); // sharper than the model's, so that the largest score matters
      const masked = { scale, causal: true, past, mask: leftPadded(sizes) };
      const ways: [string, Options][] = [
        ["plain", { scale }],
        ["masked", { scale, mask: leftPadded(sizes) }],
        ["causal", { scale, causal: true }],
        ["causal, past, masked", masked],
        ["bias", { scale, bias: new Random(S).normal(H * T * S) }],
        ["bias of each row, causal, past, masked", { ...masked, bias: new Random(S).normal(B * H * T * S) }],
      ];
      for (const [way, options] of ways) {
        expectClose(
          await run(inputs, sizes, options),
          reference(...inputs, sizes, options),
          TOLERANCES.attention,
          `${label} ${way}`,
        );
      }
    });
  }

  test.each([
    { B: 5, T: 1, S: 67, H: 4, Hkv: 2, d: 16 },
    { B: 3, T: 9, S: 33, H: 2, Hkv: 2, d: 5 },
    { B: 2, T: 3, S: 20, H: 2, Hkv: 1, d: 88 },
  ])(`attention ${variant}: a block table, as of beams: %o`, async (sizes) => {
    const { B, T, S, H, Hkv, d } = sizes;
    const [q] = random(sizes);
    const stored = 7; // rows of the cache
    const source = new Random(S);
    const [k, v] = [source.normal(stored * S * Hkv * d), source.normal(stored * S * Hkv * d)];
    // Left-padded, then a row by chance for every key; the last row's keys all lie in the cache's last.
    const rows = Uint32Array.from({ length: B * S }, (_, i) => {
      const [b, s] = [Math.floor(i / S), i % S];
      return s < b ? 0 : b === B - 1 ? stored : 1 + source.int(0, stored);
    });
    const gathered = (x: Float32Array) =>
      Float32Array.from({ length: B * S * Hkv * d }, (_, i) => {
        const key = Math.floor(i / (Hkv * d)); // b * S + s
        return rows[key] === 0 ? Number.NaN : x[((rows[key] - 1) * S + (key % S)) * Hkv * d + (i % (Hkv * d))];
      });
    const past = S - T;
    const y = await attention(
      device.tensor(q, [B, T, H, d]),
      device.tensor(k, [stored, S, Hkv, d]),
      device.tensor(v, [stored, S, Hkv, d]),
      {
        scale: 0.7,
        causal: true,
        blockTable: device.tensor(rows, [B, S]),
        past: device.tensor(Uint32Array.of(past), [1]),
      },
      { attention: variant },
    ).read();
    const options = { scale: 0.7, causal: true, mask: rows.map((row) => Math.min(row, 1)), past };
    const expected = reference(q, gathered(k), gathered(v), sizes, options);
    expectClose(y, expected, TOLERANCES.attention, `${variant} rows ${JSON.stringify(sizes)}`);
  });

  test(`attention ${variant}: a query that sees no key gives zeros, its neighbours what they should`, async () => {
    const sizes = { B: 2, T: 9, S: 9, H: 2, Hkv: 2, d: 8 };
    const inputs = random(sizes);
    const mask = new Uint32Array(18).fill(1, 5); // batch 0: five keys of padding; queries 0 to 4 see none but these
    const options = { scale: 1, causal: true, mask };
    const y = await run(inputs, sizes, options);
    expect(y.subarray(0, 5 * 16)).toEqual(new Float32Array(5 * 16));
    expectClose(y, reference(...inputs, sizes, options), TOLERANCES.attention, `${variant} padded queries`);
    const none = await run(inputs, sizes, { scale: 1, mask: new Uint32Array(18) });
    expect(none).toEqual(new Float32Array(none.length));
  });

  test.each(["sink", "massive_keys", "massive_values", "near_ties"])(
    `attention ${variant}: as exact as PyTorch on %s`,
    async (kind) => {
      for (const [T, S, d] of [
        [9, 257, 88],
        [1, 700, 128],
      ]) {
        const [source, H] = [new HardSource(8), 2];
        const [q, k, v] = [source.bell(T * H * d), source.bell(S * H * d), source.bell(S * H * d)];
        const first = k.slice(0, H * d);
        for (let head = 0; head < S * H; head++) {
          const at = head * d;
          if (kind === "sink") {
            // The first key draws most of the weight and says nothing.
            if (head < T * H) q[at + 3] = 8 + q[at + 3] / 4;
            k[at + 3] = head < H ? 24 : k[at + 3] / 4;
            if (head < H) for (let c = 0; c < d; c++) v[at + c] /= 64;
          } else if (kind === "massive_keys") {
            k[at + 5] = 128 + k[at + 5];
            k[at + 40] = -1024 + k[at + 40];
          } else if (kind === "massive_values") {
            v[at + 5] = 128 * (1.5 + v[at + 5] / 8);
            v[at + 40] = 8192 * (1.5 + v[at + 40] / 8);
          } else {
            for (let c = 0; c < d; c++) k[at + c] = first[(head % H) * d + c] + k[at + c] / 256;
          }
        }
        const inputs = [q, k, v].map((x) => Float32Array.from(x)) as [Float32Array, Float32Array, Float32Array];
        const [sizes, options] = [{ B: 1, T, S, H, Hkv: H, d }, { scale: d ** -0.5 }];
        const [y, exact] = [await run(inputs, sizes, options), reference(...inputs, sizes, options)];
        expectAsPyTorch(`attention ${kind} T${T}`, inputs, y, exact, `attention ${variant} ${kind} T${T}`);
      }
    },
  );

  test(`attention ${variant}: scores far apart, rising from tile to tile, and low ones alone`, async () => {
    const sizes = { B: 1, T: 2, S: 80, H: 1, Hkv: 1, d: 8 };
    const [, , v] = random(sizes);
    // All are sums that f32 holds exactly, so that the scores have no error of their own.
    for (const [from, step] of [
      [0, 1],
      [0, -1],
      [-1e4, 1 / 64],
      [1e30, 0],
    ]) {
      const q = new Float32Array(16).fill(1 / 8);
      const k = Float32Array.from({ length: 80 * 8 }, (_, i) => from + step * Math.floor(i / 8));
      const y = await run([q, k, v], sizes, { scale: 1 });
      expectClose(y, reference(q, k, v, sizes, { scale: 1 }), TOLERANCES.attention, `${variant} ${from} + ${step}s`);
    }
  });

  test(`attention ${variant}: a NaN in a query makes its row NaN, and no other`, async () => {
    const sizes = { B: 1, T: 9, S: 9, H: 2, Hkv: 2, d: 8 };
    const [q, k, v] = random(sizes);
    q[3 * 16 + 8 + 2] = Number.NaN; // query 3, head 1
    const y = await run([q, k, v], sizes, { scale: 1 });
    expect(Array.from(y, Number.isNaN)).toEqual(Array.from(y, (_, i) => Math.floor(i / 8) === 3 * 2 + 1));
  });

  test.each([5, 8])(`attention ${variant}: q, k and v as views of one tensor, d = %d`, async (d) => {
    const sizes = { B: 2, T: 9, S: 9, H: 2, Hkv: 2, d };
    const { B, T, H } = sizes;
    const D = H * d;
    const data = new Random(d).normal(B * T * 3 * D);
    const qkv = device.tensor(data, [B, T, 3 * D]);
    const views = [0, 1, 2].map((i) => qkv.narrow(2, i * D, D).unflatten(2, [H, d]));
    const arrays = [0, 1, 2].map((part) => data.filter((_, i) => Math.floor(i / D) % 3 === part));
    const y = await attention(views[0], views[1], views[2], { scale: 0.4 }, { attention: variant }).read();
    const expected = reference(arrays[0], arrays[1], arrays[2], sizes, { scale: 0.4 });
    expectClose(y, expected, TOLERANCES.attention, `${variant} views`);
  });

  test(`attention ${variant}: a bias that is a view, rows of a table with the heads last`, async () => {
    const sizes = { B: 2, T: 9, S: 11, H: 3, Hkv: 3, d: 8 };
    const { B, T, S, H, d } = sizes;
    const [q, k, v] = random(sizes);
    const table = new Random(5).normal((T + 4) * S * H);
    const bias = Float32Array.from({ length: H * T * S }, (_, i) => {
      const [s, t, h] = [i % S, Math.floor(i / S) % T, Math.floor(i / (S * T))];
      return table[((t + 4) * S + s) * H + h];
    });
    const view = device
      .tensor(table, [1, T + 4, S, H])
      .narrow(1, 4, T)
      .permute([0, 3, 1, 2]);
    const of = (x: Float32Array, length: number) => device.tensor(x, [B, length, H, d]);
    const options = { scale: 1, bias: view };
    const y = await attention(of(q, T), of(k, S), of(v, S), options, { attention: variant }).read();
    const expected = reference(q, k, v, sizes, { scale: 1, bias });
    expectClose(y, expected, TOLERANCES.attention, `${variant} bias view`);
  });

  test.each([1, 3, 9])(`attention ${variant}: a cache with room left, T = %d`, async (T) => {
    const [C, past] = [80, 37];
    const sizes = { B: 2, T, S: past + T, H: 4, Hkv: 2, d: 8 };
    const { B, S, H, Hkv, d } = sizes;
    const [q, k, v] = random(sizes);
    // [B, S, Hkv, d] -> [B, Hkv, C, d], NaN where nothing has been written.
    const cache = (x: Float32Array) => {
      const data = new Float32Array(B * Hkv * C * d).fill(Number.NaN);
      x.forEach((value, i) => {
        const [c, h, s, b] = [
          i % d,
          Math.floor(i / d) % Hkv,
          Math.floor(i / (d * Hkv)) % S,
          Math.floor(i / (d * Hkv * S)),
        ];
        data[((b * Hkv + h) * C + s) * d + c] = value;
      });
      return device.tensor(data, [B, Hkv, C, d]).permute([0, 2, 1, 3]);
    };
    const mask = Uint32Array.from({ length: B * C }, (_, i) => (i >= 4 ? 1 : 0));
    const options = {
      scale: 1,
      causal: true,
      mask: device.tensor(mask, [B, C]),
      past: device.tensor(Uint32Array.of(past), [1]),
    };
    const y = await attention(device.tensor(q, [B, T, H, d]), cache(k), cache(v), options, {
      attention: variant,
    }).read();
    const visible = Uint32Array.from({ length: B * S }, (_, i) => (i >= 4 ? 1 : 0));
    const expected = reference(q, k, v, sizes, { scale: 1, causal: true, mask: visible, past });
    expectClose(y, expected, TOLERANCES.attention, `${variant} cache`);
  });

  test(`attention ${variant}: more workgroups than one dimension holds`, async () => {
    const sizes = { B: 3, T: 9, S: 9, H: 6, Hkv: 6, d: 8 };
    const inputs = random(sizes);
    const y = await run(inputs, sizes, { scale: 1 }, folding);
    expectClose(y, reference(...inputs, sizes, { scale: 1 }), TOLERANCES.attention, `${variant} folded`);
  });
}

/** Which edges are left: all but those that a rule cuts. */
const CUTS: readonly [
  string,
  (b: number, h: number, t: number, s: number) => boolean,
  { rows: boolean; heads: boolean },
][] = [
  ["single edges", (_b, _h, t, s) => t === s || (t * 7 + s) % 5 === 0, { rows: false, heads: false }],
  ["of one row", (b, _h, _t, s) => b === 0 && s % 2 === 1, { rows: true, heads: false }],
  ["of one head", (_b, h, t, s) => h === 1 && s <= t, { rows: false, heads: true }],
  ["of one row and head, all of a query", (b, h, t) => b === 1 && h === 0 && t === 2, { rows: true, heads: true }],
  ["all", () => true, { rows: false, heads: false }],
];
const EDGED = [
  { B: 2, T: 9, S: 9, H: 4, Hkv: 2, d: 5 },
  { B: 3, T: 1, S: 37, H: 2, Hkv: 2, d: 88 },
  { B: 1, T: 1, S: 1, H: 1, Hkv: 1, d: 1 },
];
test.each(EDGED.flatMap((sizes) => CUTS.map(([name, cut, own]) => [name, sizes, cut, own] as const)))(
  "attention with edges cut: %s of %o",
  async (name, sizes, cut, own) => {
    const { B, T, S, H, Hkv, d } = sizes;
    const [q, k, v] = random(sizes);
    const edges = Float32Array.from({ length: B * H * T * S }, (_, i) => {
      const [s, t, h, b] = [i % S, Math.floor(i / S) % T, Math.floor(i / (S * T)) % H, Math.floor(i / (S * T * H))];
      return cut(b, h, t, s) ? 0 : 1;
    });
    const whole = device.tensor(edges, [B, H, T, S]);
    // Cut in all rows or heads alike, one of them is given.
    let view = whole;
    if (!own.rows) view = view.narrow(0, 0, 1);
    if (!own.heads) view = view.narrow(1, 0, 1);
    const past = S - T;
    const options = { scale: 0.7, causal: true, past, mask: leftPadded(sizes), bias: new Random(S).normal(H * T * S) };
    const given = {
      scale: 0.7,
      causal: true,
      past: device.tensor(Uint32Array.of(past), [1]),
      mask: device.tensor(options.mask, [B, S]),
      bias: device.tensor(options.bias, [1, H, T, S]),
    };
    const [Q, K, V] = [
      device.tensor(q, [B, T, H, d]),
      device.tensor(k, [B, S, Hkv, d]),
      device.tensor(v, [B, S, Hkv, d]),
    ];
    const expected = reference(q, k, v, sizes, { ...options, edges });
    for (const cutEdges of [whole, view.expand([B, H, T, S])]) {
      const y = await attention(Q, K, V, { ...given, edges: cutEdges }).read();
      expectClose(y, expected, TOLERANCES.attention, name);
      // A query without edges gives zeros exactly, and a cut edge has no weight.
      expect(Array.from(y, (number) => number === 0)).toEqual(Array.from(expected, (number) => number === 0));
      const p = await attentionProbabilities(Q, K, { ...given, edges: cutEdges }).read();
      expect(edges.every((edge, i) => edge === 1 || p[i] === 0)).toBe(true);
    }
    const ones = device.tensor([1], [1, 1, 1, 1]).expand([B, H, T, S]);
    const uncut = await attention(Q, K, V, { ...given, edges: ones }).read();
    expect(uncut).toEqual(await attention(Q, K, V, given, { attention: "composed" }).read());
    await device.sync();
  },
);

test("attention refuses edges of another shape", () => {
  const x = device.tensor(new Float32Array(8), [1, 2, 1, 4]);
  expect(() => attention(x, x, x, { scale: 1, edges: device.tensor([1], [1, 1, 1, 1]) })).toThrow("edges");
});

/** Caches of f16: one of everything, partial tiles of grouped heads, a decoding step in three parts, too large to fuse. */
const CACHES = [
  { B: 1, T: 1, S: 1, H: 1, Hkv: 1, d: 4, C: 3 },
  { B: 2, T: 9, S: 33, H: 6, Hkv: 3, d: 12, C: 40 },
  { B: 3, T: 1, S: 133, H: 4, Hkv: 2, d: 128, C: 141 },
  { B: 1, T: 2, S: 5, H: 1, Hkv: 1, d: 304, C: 8 },
];

test.each(CACHES)(
  "keys and values appended to an f16 cache: every variant agrees with what it holds: %o",
  async (sizes) => {
    const { B, T, S, H, Hkv, d, C } = sizes;
    const source = new Random(S * d);
    const stored = B + 2; // rows of the cache
    // Keys of every row in a prompt and a last token, as generation appends them; beyond S lies what must not be read.
    const cache = () =>
      device.tensor(new Uint32Array(stored * Hkv * C * (d / 2)).fill(0x7c007c00), [stored, Hkv, C, d / 2]);
    const [keys, values] = [cache(), cache()];
    for (const [kept, sharp] of [
      [keys, 1],
      [values, 3],
    ] as const) {
      for (const [from, length] of [
        [0, S - 1],
        [S - 1, 1],
      ]) {
        const x = source.normal(stored * length * Hkv * d).map((number) => number * sharp);
        if (length > 0)
          kvAppend(device.tensor(x, [stored, length, Hkv, d]), kept, device.tensor(Uint32Array.of(from), [1]));
      }
    }
    const held = await Promise.all(
      [keys, values].map(async (x) => widen(new Uint8Array((await x.read()).buffer), "f16")),
    );
    const q = source.normal(B * T * H * d);
    const bias = source.normal(H * T * C);
    // Left-padded, then a row by chance for every key.
    const rows = Uint32Array.from({ length: B * C }, (_, i) =>
      i % C < Math.floor(i / C) ? 0 : 1 + source.int(0, stored),
    );
    const past = S - T;
    const gathered = (x: Float32Array) =>
      Float32Array.from({ length: B * C * Hkv * d }, (_, i) => {
        const [key, h, c] = [Math.floor(i / (Hkv * d)), Math.floor(i / d) % Hkv, i % d]; // key: b * C + s
        return x[((Math.max(rows[key], 1) - 1) * Hkv * C + h * C + (key % C)) * d + c];
      });
    const given = { scale: 2 / Math.sqrt(d), causal: true, past, mask: rows.map((row) => Math.min(row, 1)), bias };
    const expected = reference(q, gathered(held[0]), gathered(held[1]), { B, T, S: C, H, Hkv, d }, given);
    const options = {
      scale: given.scale,
      causal: true,
      blockTable: device.tensor(rows, [B, C]),
      past: device.tensor(Uint32Array.of(past), [1]),
      bias: device.tensor(bias, [1, H, T, C]),
    };
    const [k, v] = [keys.permute([0, 2, 1, 3]), values.permute([0, 2, 1, 3])];
    // A view that does not lie in fours, as after a fused projection of odd width.
    const wide = Float32Array.from({ length: B * T * (H * d + 1) }, (_, i) => {
      const [row, c] = [Math.floor(i / (H * d + 1)), i % (H * d + 1)];
      return c === 0 ? Number.NaN : q[row * H * d + c - 1];
    });
    const odd = device
      .tensor(wide, [B, T, H * d + 1])
      .narrow(2, 1, H * d)
      .unflatten(2, [H, d]);
    for (const variant of variants) {
      for (const queries of [device.tensor(q, [B, T, H, d]), odd]) {
        const y = await attention(queries, k, v, options, { attention: variant }).read();
        expectClose(y, expected, TOLERANCES.attention, `${variant} over f16`);
      }
    }
    const p = await attentionProbabilities(odd, k, options).read(); // f32[B, H, T, C]
    const values64 = gathered(held[1]);
    const weighed = Float64Array.from({ length: B * T * H * d }, (_, i) => {
      const [c, h, t, b] = [i % d, Math.floor(i / d) % H, Math.floor(i / (d * H)) % T, Math.floor(i / (d * H * T))];
      let sum = 0;
      for (let s = 0; s < S; s++) {
        const weight = p[((b * H + h) * T + t) * C + s];
        if (weight > 0) sum += weight * values64[((b * C + s) * Hkv + Math.floor(h / (H / Hkv))) * d + c];
      }
      return sum;
    });
    expectClose(weighed, expected, TOLERANCES.attention, "probabilities over f16");
    for (const tensor of [keys, values]) tensor.dispose();
  },
);

test("attention flash: what is in flight on a GPU, and sizes of subgroups, change no bit", async () => {
  const sizes = { B: 2, T: 19, S: 70, H: 2, Hkv: 1, d: 20 };
  const { B, T, S, H, Hkv, d } = sizes;
  const [q, k, v] = random(sizes);
  const on = async (device: Device) => {
    const [keys, values] = [k, v].map((x) => device.tensor(x, [B, S, Hkv, d]));
    return attention(device.tensor(q, [B, T, H, d]), keys, values, { scale: 1 }, { attention: "flash" }).read();
  };
  const y = await on(device);
  expectClose(y, reference(q, k, v, sizes, { scale: 1 }), TOLERANCES.attention, "flash");
  const caps = { ...device.caps, isSoftware: !device.caps.isSoftware };
  const other = new GpuDevice(device.handle, caps, Number.POSITIVE_INFINITY);
  if (caps.subgroupSizeControl) {
    const SG = Math.max(caps.subgroupMinSize, Math.min(32, caps.subgroupMaxSize)); // one that the adapter has
    other.launch = (launch) => {
      const overrides = { ...launch.overrides, SG };
      GpuDevice.prototype.launch.call(other, { ...launch, kernel: "attention_flash_sized", overrides });
    };
  }
  expect(await on(other)).toEqual(y);
});

test("every variant errs at most twice as much as composed attention", async () => {
  const sizes = { B: 1, T: 19, S: 40, H: 2, Hkv: 2, d: 88 };
  const [q, k, v] = random(sizes);
  const expected = reference(q, k, v, sizes, { scale: 0.1 });
  const errors: Record<string, number> = {};
  for (const variant of variants) {
    const of = (x: Float32Array, length: number) => device.tensor(x, [1, length, 2, 88]);
    const y = await attention(of(q, 19), of(k, 40), of(v, 40), { scale: 0.1 }, { attention: variant }).read();
    errors[variant] = Math.sqrt(expectClose(y, expected, TOLERANCES.attention, variant).nmse);
  }
  for (const variant of variants) expect(errors[variant]).toBeLessThanOrEqual(2 * errors.composed);
});

test("probabilities are what the values are weighed with, and 0 at keys that a query does not see", async () => {
  const sizes = { B: 2, T: 4, S: 11, H: 4, Hkv: 2, d: 11 };
  const { B, T, S, H, Hkv, d } = sizes;
  const [q, k] = random(sizes);
  // Value s is the s-th unit vector, so that what comes out of attention are its weights.
  const v = Float32Array.from({ length: B * S * Hkv * d }, (_, i) => (Math.floor(i / (Hkv * d)) % S === i % d ? 1 : 0));
  const given = { scale: 0.4, causal: true, past: S - T, mask: leftPadded(sizes) };
  const bias = new Random(3).normal(H * T * S);
  const y = reference(q, k, v, sizes, { ...given, bias }); // [B, T, H, S]
  const expected = Float64Array.from({ length: B * H * T * S }, (_, i) => {
    const [s, t, h, b] = [i % S, Math.floor(i / S) % T, Math.floor(i / (S * T)) % H, Math.floor(i / (S * T * H))];
    return y[((b * T + t) * H + h) * S + s];
  });
  const p = attentionProbabilities(device.tensor(q, [B, T, H, d]), device.tensor(k, [B, S, Hkv, d]), {
    ...given,
    mask: device.tensor(given.mask, [B, S]),
    past: device.tensor(Uint32Array.of(given.past), [1]),
    bias: device.tensor(bias, [1, H, T, S]),
  });
  expect(p.shape).toEqual([B, H, T, S]);
  const actual = await p.read();
  expectClose(actual, expected, TOLERANCES.attention, "probabilities");
  expect(actual.filter((_, i) => expected[i] === 0).every((weight) => weight === 0)).toBe(true);
  expect(expected.filter((weight) => weight === 0).length).toBeGreaterThan(0);
});

test("the largest head of one pass fits WebGPU's default limits", async () => {
  const small = await otherDevice({ default_limits: true });
  const sizes = { B: 1, T: 9, S: 5, H: 1, Hkv: 1, d: 256 };
  const [q, k, v] = random(sizes);
  const of = (x: Float32Array, length: number) => small.tensor(x, [1, length, 1, 256]);
  const y = await attention(of(q, 9), of(k, 5), of(v, 5), { scale: 0.1 }, { attention: "flash" }).read();
  expectClose(y, reference(q, k, v, sizes, { scale: 0.1 }), TOLERANCES.attention, "d = 256");
  small.destroy();
});

test("wrong shapes are refused by name", () => {
  const of = (...shape: number[]) => device.empty(shape);
  const q = of(1, 3, 4, 8);
  const k = of(1, 5, 2, 8);
  expect(() => attention(q, k, of(1, 5, 2, 7), { scale: 1 })).toThrow(
    "attention: v must be [1, 5, 2, 8], got [1, 5, 2, 7]",
  );
  expect(() => attention(q, of(1, 5, 3, 8), of(1, 5, 3, 8), { scale: 1 })).toThrow(
    "4 query heads are no multiple of 3 key heads",
  );
  expect(() => attention(q.permute([0, 1, 3, 2]), k, k, { scale: 1 })).toThrow("the last of stride 1");
  const mask = device.empty([1, 4], "u32");
  expect(() => attention(q, k, k, { scale: 1, mask })).toThrow("attention: mask must be [1, 5], got [1, 4]");
  const f16 = (...shape: number[]) => device.empty(shape, "u32");
  expect(() => attention(q, f16(1, 5, 2, 8), f16(1, 5, 2, 8), { scale: 1 })).toThrow("k must be [1, 5, 2, 4]");
  expect(() => attention(q, f16(1, 5, 2, 4), of(1, 5, 2, 4), { scale: 1 })).toThrow("k is u32, so v must be, got f32");
  expect(() => attention(of(1, 3, 4, 6), f16(1, 5, 2, 3), f16(1, 5, 2, 3), { scale: 1 })).toThrow(
    "d must be a multiple of 4 for f16 keys, got 6",
  );
  const shifted = f16(1, 5, 2, 6).narrow(3, 1, 4);
  expect(() => attention(q, shifted, shifted, { scale: 1 }, { attention: "flash" })).toThrow(
    "f16 keys and values need offsets and strides",
  );
  const bias = of(2, 4, 3, 5);
  expect(() => attention(q, k, k, { scale: 1, bias })).toThrow("bias must be [1, 4, 3, 5], got [2, 4, 3, 5]");
});
