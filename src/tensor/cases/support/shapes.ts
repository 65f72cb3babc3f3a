/**
 * Named shapes: those of InstructBLIP-Vicuna-7B, and small ones with the same remainders (a head of 22, 33 rows, an odd
 * vocabulary) for a quick run. Sizes only; the files of src/tensor/cases use them.
 */
import type { FloatDType, WeightDType } from "../../dtype.ts";
import type { QuantizedDType } from "../../quantize.ts";

/** ViT-g/14 at 224 pixels: 257 tokens are 16 · 16 patches and the class token. */
export const VIT = { N: 257, D: 1408, F: 6144, H: 16, d: 88, image: 224, patch: 14 } as const;
/** The Q-Former: 32 queries, and an instruction of 32 tokens. */
export const QFORMER = { Q: 32, T: 32, D: 768, F: 3072, H: 12, d: 64, V: 30_523 } as const;
/** Vicuna-7B: a prompt of 64 tokens, 32 of which are the image, and a cache for 512. */
export const VICUNA = { T: 64, D: 4096, F: 11_008, H: 32, d: 128, V: 32_001, C: 512 } as const;

type Epilogue = "none" | "gelu" | "residual" | "gated";

/** M rows of K numbers times a weight [N, K]. */
export interface MatmulShape {
  readonly name: string;
  readonly M: number;
  readonly N: number;
  readonly K: number;
  readonly dtype: WeightDType;
  /** Of a gated product N counts the rows of both matrices. */
  readonly epilogue?: Epilogue;
}

/** R rows of D numbers. */
export interface RowsShape {
  readonly name: string;
  readonly R: number;
  readonly D: number;
}

export interface AttentionShape {
  readonly name: string;
  readonly T: number;
  readonly S: number;
  readonly H: number;
  readonly d: number;
  /** Keys and values are in a cache that holds S - T tokens of earlier calls, and has free capacity. */
  readonly cached?: boolean;
  /** The cache is f16. */
  readonly f16?: boolean;
  /** Key/value heads, if they are fewer (grouped-query attention). */
  readonly Hkv?: number;
  /** The first third of the keys is padding, or all of them are. */
  readonly mask?: "padded" | "none seen";
  /** A bias is added to the scores, as in T5. */
  readonly biased?: boolean;
}

/** T tokens of H heads of d numbers; a cache has room for C tokens. */
export interface HeadsShape {
  readonly name: string;
  readonly T: number;
  readonly H: number;
  readonly d: number;
  readonly C: number;
}

/** T ids looked up in a table [V, D]. */
export interface TableShape {
  readonly name: string;
  readonly T: number;
  readonly V: number;
  readonly D: number;
  readonly dtype: WeightDType;
}

/** A matrix [N, K] of a file, to be quantized. */
export interface StoredShape {
  readonly name: string;
  readonly N: number;
  readonly K: number;
  readonly from: FloatDType;
  readonly to: QuantizedDType;
}

/** A square image cut into square patches, each of which becomes D numbers; sides in pixels. */
export interface ImageShape {
  readonly name: string;
  readonly image: number;
  readonly patch: number;
  readonly D: number;
}

/** One layer of each transformer: tokens, widths, heads. */
export interface LayerShapes {
  readonly vit: { readonly N: number; readonly D: number; readonly F: number; readonly H: number };
  readonly qformer: {
    readonly Q: number;
    readonly T: number;
    readonly D: number;
    readonly F: number;
    readonly H: number;
  };
  readonly llama: { readonly D: number; readonly F: number; readonly H: number };
  /** T tokens behind `past` others. */
  readonly steps: readonly { readonly name: string; readonly T: number; readonly past: number }[];
}

/** What every bench file picks its shapes from. */
export interface Shapes {
  readonly matmul: readonly MatmulShape[];
  readonly matvec: readonly MatmulShape[];
  readonly attention: readonly AttentionShape[];
  readonly layer_norm: readonly RowsShape[];
  readonly rms_norm: readonly RowsShape[];
  readonly softmax: readonly RowsShape[];
  readonly elementwise: readonly RowsShape[];
  readonly gated: readonly RowsShape[];
  readonly residual: readonly RowsShape[];
  readonly logits: readonly RowsShape[];
  readonly heads: readonly HeadsShape[];
  readonly tables: readonly TableShape[];
  readonly quantized: readonly StoredShape[];
  /** Tokens to join with, or to pick from, others. */
  readonly tokens: readonly RowsShape[];
  readonly images: readonly ImageShape[];
  readonly layers: LayerShapes;
  /** Bytes of a buffer that fits into caches, and of one that does not. */
  readonly memory: { readonly cached: number; readonly main: number };
}

const MiB = 2 ** 20;

export const MODEL_SHAPES: Shapes = {
  matmul: [
    { name: "vit patches", M: VIT.N - 1, K: 3 * VIT.patch ** 2, N: VIT.D, dtype: "f16" },
    { name: "vit qkv", M: VIT.N, K: VIT.D, N: 3 * VIT.D, dtype: "f16" },
    { name: "vit projection", M: VIT.N, K: VIT.D, N: VIT.D, dtype: "f16" },
    { name: "vit fc1", M: VIT.N, K: VIT.D, N: VIT.F, dtype: "f16" },
    { name: "vit fc2", M: VIT.N, K: VIT.F, N: VIT.D, dtype: "f16" },
    { name: "q-former key", M: VIT.N, K: VIT.D, N: QFORMER.D, dtype: "f16" },
    { name: "q-former query", M: QFORMER.Q, K: QFORMER.D, N: QFORMER.D, dtype: "f16" },
    { name: "q-former feed-forward", M: QFORMER.Q, K: QFORMER.D, N: QFORMER.F, dtype: "f16" },
    { name: "q-former feed-forward", M: QFORMER.Q, K: QFORMER.D, N: QFORMER.F, dtype: "f32" },
    { name: "q-former feed-forward", M: QFORMER.Q, K: QFORMER.D, N: QFORMER.F, dtype: "bf16" },
    { name: "vicuna q_proj", M: VICUNA.T, K: VICUNA.D, N: VICUNA.D, dtype: "f16" },
    { name: "vicuna up_proj", M: VICUNA.T, K: VICUNA.D, N: VICUNA.F, dtype: "f16" },
    { name: "vicuna up_proj", M: VICUNA.T, K: VICUNA.D, N: VICUNA.F, dtype: "int8" },
    { name: "vicuna up_proj", M: VICUNA.T, K: VICUNA.D, N: VICUNA.F, dtype: "int4" },
  ],
  matvec: [
    { name: "vicuna q_proj", M: 1, K: VICUNA.D, N: VICUNA.D, dtype: "f16" },
    { name: "vicuna q_proj", M: 1, K: VICUNA.D, N: VICUNA.D, dtype: "f32" },
    { name: "vicuna q_proj", M: 1, K: VICUNA.D, N: VICUNA.D, dtype: "bf16" },
    { name: "vicuna q_proj", M: 1, K: VICUNA.D, N: VICUNA.D, dtype: "int8" },
    { name: "vicuna q_proj", M: 1, K: VICUNA.D, N: VICUNA.D, dtype: "int4" },
    { name: "vicuna q_proj, 4 rows", M: 4, K: VICUNA.D, N: VICUNA.D, dtype: "f16" },
    { name: "vicuna up_proj", M: 1, K: VICUNA.D, N: VICUNA.F, dtype: "f16" },
    { name: "vicuna up_proj", M: 1, K: VICUNA.D, N: VICUNA.F, dtype: "int8" },
    { name: "vicuna up_proj", M: 1, K: VICUNA.D, N: VICUNA.F, dtype: "int4" },
    { name: "vicuna down_proj", M: 1, K: VICUNA.F, N: VICUNA.D, dtype: "f16" },
    { name: "vicuna down_proj", M: 1, K: VICUNA.F, N: VICUNA.D, dtype: "int8" },
    { name: "vicuna down_proj", M: 1, K: VICUNA.F, N: VICUNA.D, dtype: "int4" },
    { name: "vicuna lm_head", M: 1, K: VICUNA.D, N: VICUNA.V, dtype: "f16" },
  ],
  attention: [
    { name: "vit", T: VIT.N, S: VIT.N, H: VIT.H, d: VIT.d },
    { name: "q-former self", T: 64, S: 64, H: QFORMER.H, d: QFORMER.d },
    { name: "q-former cross", T: QFORMER.Q, S: VIT.N, H: QFORMER.H, d: QFORMER.d },
    { name: "vicuna prefill", T: VICUNA.T, S: VICUNA.T, H: VICUNA.H, d: VICUNA.d, cached: true },
    { name: "vicuna decode", T: 1, S: 256, H: VICUNA.H, d: VICUNA.d, cached: true },
    { name: "vicuna decode", T: 1, S: 2048, H: VICUNA.H, d: VICUNA.d, cached: true },
    { name: "vicuna decode, f16 cache", T: 1, S: 256, H: VICUNA.H, d: VICUNA.d, cached: true, f16: true },
    { name: "vicuna decode, f16 cache", T: 1, S: 2048, H: VICUNA.H, d: VICUNA.d, cached: true, f16: true },
  ],
  layer_norm: [
    { name: "vit", R: VIT.N, D: VIT.D },
    { name: "q-former", R: QFORMER.Q + QFORMER.T, D: QFORMER.D },
  ],
  rms_norm: [
    { name: "vicuna prefill", R: VICUNA.T, D: VICUNA.D },
    { name: "vicuna decode", R: 1, D: VICUNA.D },
  ],
  softmax: [
    { name: "vit scores", R: VIT.H * VIT.N, D: VIT.N },
    { name: "vicuna decode scores", R: VICUNA.H, D: VICUNA.C },
  ],
  elementwise: [{ name: "vit fc1", R: VIT.N, D: VIT.F }],
  gated: [
    { name: "vicuna prefill", R: VICUNA.T, D: VICUNA.F },
    { name: "vicuna decode", R: 1, D: VICUNA.F },
  ],
  residual: [
    { name: "vit", R: VIT.N, D: VIT.D },
    { name: "vicuna decode", R: 1, D: VICUNA.D },
  ],
  logits: [
    { name: "vicuna", R: 1, D: VICUNA.V },
    { name: "vicuna, 5 rows", R: 5, D: VICUNA.V },
  ],
  heads: [
    { name: "vicuna prefill", T: VICUNA.T, H: VICUNA.H, d: VICUNA.d, C: VICUNA.C },
    { name: "vicuna decode", T: 1, H: VICUNA.H, d: VICUNA.d, C: VICUNA.C },
  ],
  tables: [
    { name: "vicuna prompt", T: VICUNA.T, V: VICUNA.V, D: VICUNA.D, dtype: "f16" },
    { name: "vicuna prompt", T: VICUNA.T, V: VICUNA.V, D: VICUNA.D, dtype: "int8" },
    { name: "q-former", T: QFORMER.T, V: QFORMER.V, D: QFORMER.D, dtype: "f32" },
  ],
  quantized: [
    { name: "vicuna q_proj", N: VICUNA.D, K: VICUNA.D, from: "f16", to: "int8" },
    { name: "vicuna q_proj", N: VICUNA.D, K: VICUNA.D, from: "f16", to: "int4" },
    { name: "vicuna q_proj", N: VICUNA.D, K: VICUNA.D, from: "bf16", to: "int4" },
    { name: "vicuna q_proj", N: VICUNA.D, K: VICUNA.D, from: "f32", to: "int4" },
  ],
  tokens: [{ name: "vicuna prompt", R: VICUNA.T, D: VICUNA.D }],
  images: [{ name: "vit", image: VIT.image, patch: VIT.patch, D: VIT.D }],
  layers: {
    vit: VIT,
    qformer: QFORMER,
    llama: VICUNA,
    steps: [
      { name: "prefill", T: VICUNA.T, past: 0 },
      { name: "decode", T: 1, past: 256 },
    ],
  },
  memory: { cached: 4 * MiB, main: 256 * MiB },
};

/** A matrix in some dtypes, then a product with each epilogue, where rows, columns and sums fill no tile. */
const awkward = (M: number, dtypes: readonly WeightDType[], epilogues: readonly Epilogue[] = []): MatmulShape[] => [
  ...dtypes.map((dtype) => ({ name: "vec4", M, K: 588, N: 67, dtype })),
  ...dtypes.filter((dtype) => !/f16$/.test(dtype)).map((dtype) => ({ name: "scalar", M, K: 131, N: 37, dtype })),
  ...epilogues.map((epilogue) => ({ name: "vec4", M, K: 60, N: 134, dtype: "f16" as const, epilogue })),
];
const ALL_DTYPES = ["f32", "f16", "bf16", "int8", "int4"] as const;
const ALL_ENDS = ["gelu", "residual", "gated"] as const;

const AWKWARD_ROWS = ([[1, 1], [3, 7], [5, 67], [9, 68], [3, 1027], [2, 1028]] as const).map(([R, D]) => ({ name: "rows", R, D })); // biome-ignore format: a table

/** Small sizes that fill no tile: one element, primes, remainders. Most errors of a kernel show here. */
export const AWKWARD_SHAPES: Shapes = {
  matmul: [
    { name: "short", M: 9, K: 3, N: 5, dtype: "f32" },
    ...awkward(9, ALL_DTYPES, ALL_ENDS),
    ...awkward(67, ["f32", "int4"], ["gated"]),
  ],
  matvec: [
    { name: "one", M: 1, K: 1, N: 1, dtype: "f32" },
    ...awkward(1, ALL_DTYPES, ALL_ENDS),
    ...awkward(2, ["int8", "int4"]),
    ...awkward(5, ["f32", "int8"], ["residual", "gated"]),
    ...awkward(8, ["f16", "int4"]),
    { name: "blocks", M: 3, K: 640, N: 37, dtype: "int4" },
  ],
  attention: [
    { name: "one", T: 1, S: 1, H: 1, d: 4 },
    { name: "prime", T: 7, S: 13, H: 3, d: 5 },
    { name: "head of 88", T: 33, S: 33, H: 3, d: 88 },
    { name: "causal", T: 35, S: 35, H: 2, d: 64, cached: true },
    { name: "grouped, cached", T: 5, S: 131, H: 6, Hkv: 2, d: 128, cached: true },
    { name: "decode", T: 1, S: 67, H: 4, d: 128, cached: true },
    { name: "decode, grouped", T: 1, S: 515, H: 4, Hkv: 2, d: 88, cached: true },
    { name: "decode, f16 cache", T: 1, S: 131, H: 4, d: 88, cached: true, f16: true },
    { name: "padded", T: 17, S: 33, H: 3, d: 64, mask: "padded" },
    { name: "padded, causal, f16 cache", T: 9, S: 33, H: 3, d: 128, mask: "padded", cached: true, f16: true },
    { name: "padded decode", T: 1, S: 1027, H: 3, d: 64, mask: "padded", cached: true },
    { name: "no key seen", T: 3, S: 9, H: 2, d: 64, mask: "none seen" },
    { name: "biased", T: 17, S: 33, H: 3, d: 64, biased: true },
    { name: "biased decode", T: 1, S: 131, H: 3, d: 64, biased: true },
    { name: "biased, padded", T: 9, S: 17, H: 2, d: 64, biased: true, mask: "padded" },
  ],
  layer_norm: AWKWARD_ROWS,
  rms_norm: AWKWARD_ROWS,
  softmax: AWKWARD_ROWS,
  elementwise: AWKWARD_ROWS,
  gated: AWKWARD_ROWS,
  residual: AWKWARD_ROWS,
  logits: [
    { name: "short", R: 1, D: 67 },
    { name: "prime", R: 1, D: 1009 },
    { name: "5 rows", R: 5, D: 4099 },
  ],
  heads: [
    { name: "prefill", T: 7, H: 3, d: 12, C: 33 },
    { name: "head of 88", T: 1, H: 3, d: 88, C: 67 },
  ],
  tables: ALL_DTYPES.map((dtype) => ({
    ...{ name: "prime", T: 7, V: 131, D: 67 },
    dtype,
  })),
  quantized: (["f32", "f16", "bf16"] as const).flatMap((from) =>
    (["int8", "int4"] as const).flatMap((to) => [
      { name: "one block", N: 1, K: 32, from, to },
      { name: "odd blocks", N: 67, K: 96, from, to },
      { name: "pairs", N: 131, K: 704, from, to },
    ]),
  ),
  tokens: [
    { name: "prime", R: 7, D: 67 },
    { name: "vec4", R: 33, D: 68 },
  ],
  images: [
    { name: "odd", image: 42, patch: 14, D: 67 },
    { name: "small", image: 24, patch: 8, D: 128 },
  ],
  layers: {
    vit: { N: 10, D: 67, F: 134, H: 1 },
    qformer: { Q: 4, T: 5, D: 64, F: 128, H: 4 },
    llama: { D: 128, F: 172, H: 4 },
    steps: [],
  },
  memory: { cached: MiB, main: 2 * MiB },
};

export const QUICK_SHAPES: Shapes = {
  matmul: [
    { name: "small", M: 33, K: 352, N: 260, dtype: "f16" },
    { name: "small", M: 33, K: 352, N: 260, dtype: "int8" },
  ],
  matvec: [
    { name: "small", M: 1, K: 512, N: 1001, dtype: "f16" },
    { name: "small", M: 1, K: 512, N: 1001, dtype: "int8" },
    { name: "small", M: 1, K: 512, N: 1001, dtype: "int4" },
  ],
  attention: [
    { name: "small", T: 33, S: 33, H: 4, d: 88 },
    { name: "small decode", T: 1, S: 65, H: 4, d: 32, cached: true },
    { name: "small decode, f16 cache", T: 1, S: 65, H: 4, d: 32, cached: true, f16: true },
  ],
  layer_norm: [{ name: "small", R: 33, D: 352 }],
  rms_norm: [{ name: "small", R: 33, D: 512 }],
  softmax: [{ name: "small", R: 132, D: 33 }],
  elementwise: [{ name: "small", R: 33, D: 704 }],
  gated: [{ name: "small", R: 33, D: 704 }],
  residual: [{ name: "small", R: 33, D: 352 }],
  logits: [{ name: "small", R: 1, D: 1001 }],
  heads: [{ name: "small", T: 33, H: 4, d: 32, C: 64 }],
  tables: [{ name: "small", T: 33, V: 1001, D: 352, dtype: "f16" }],
  quantized: [
    { name: "small", N: 257, K: 352, from: "f16", to: "int8" },
    { name: "small", N: 257, K: 352, from: "f16", to: "int4" },
  ],
  tokens: [{ name: "small", R: 33, D: 352 }],
  images: [{ name: "small", image: 42, patch: 14, D: 352 }],
  layers: {
    vit: { N: 17, D: 176, F: 352, H: 2 },
    qformer: { Q: 4, T: 5, D: 64, F: 128, H: 4 },
    llama: { D: 128, F: 172, H: 4 },
    steps: [
      { name: "prefill", T: 9, past: 0 },
      { name: "decode", T: 1, past: 33 },
    ],
  },
  memory: { cached: 2 * MiB, main: 16 * MiB },
};
