/**
 * The jobs of all engines: operations at the shapes of the model, their inputs, and the check of their results against f64
 * references. Each engine's process generates the same numbers, so that none are transferred.
 */

import { compare } from "../../src/tensor/cases/support/compare.ts";
import { randomNumbers, sampleRows, storedRow, takeSample } from "../../src/tensor/cases/support/data.ts";
import { Random } from "../../src/tensor/cases/support/random.ts";
import { QFORMER, VICUNA, VIT } from "../../src/tensor/cases/support/shapes.ts";
import { TOLERANCES, type Tolerance } from "../../src/tensor/cases/support/tolerances.ts";
import type { WeightDType } from "../../src/tensor/dtype.ts";
import { rowBytes } from "../../src/tensor/quantize.ts";
import { activation } from "../../src/tensor/reference/activation.ts";
import { attention } from "../../src/tensor/reference/attention.ts";
import { layerNorm } from "../../src/tensor/reference/layer_norm.ts";
import { linear } from "../../src/tensor/reference/linear.ts";
import { rmsNorm } from "../../src/tensor/reference/rms_norm.ts";
import { softmax } from "../../src/tensor/reference/softmax.ts";

/** M rows of K numbers times a weight for N: a GEMM, or with one row a GEMV. */
export interface LinearJob {
  readonly op: "linear";
  readonly name: string;
  readonly M: number;
  readonly K: number;
  readonly N: number;
  /** How the weight is stored. Engines other than ours take part where it is f32. */
  readonly weight: WeightDType;
}

/** R rows of D numbers. */
export interface RowsJob {
  readonly op: "layer_norm" | "rms_norm" | "softmax" | "gelu";
  readonly name: string;
  readonly R: number;
  readonly D: number;
}

/** L tokens of H heads of d numbers, each attending to all or, with `causal`, to itself and earlier ones. */
export interface AttentionJob {
  readonly op: "attention";
  readonly name: string;
  readonly L: number;
  readonly H: number;
  readonly d: number;
  readonly causal: boolean;
}

export type Job = LinearJob | RowsJob | AttentionJob;

const gemm = (name: string, M: number, K: number, N: number): LinearJob => {
  return { op: "linear", name, M, K, N, weight: "f32" };
};
const gemv = (name: string, K: number, N: number): LinearJob[] =>
  (["f32", "f16", "int8", "int4"] as const).map((weight) => ({ op: "linear", name, M: 1, K, N, weight }));

export const MODEL_JOBS: readonly Job[] = [
  gemm("vit qkv", VIT.N, VIT.D, 3 * VIT.D),
  gemm("vit projection", VIT.N, VIT.D, VIT.D),
  gemm("vit fc1", VIT.N, VIT.D, VIT.F),
  gemm("vit fc2", VIT.N, VIT.F, VIT.D),
  gemm("q-former key", VIT.N, VIT.D, QFORMER.D),
  gemm("q-former query", QFORMER.Q, QFORMER.D, QFORMER.D),
  gemm("q-former feed-forward", QFORMER.Q, QFORMER.D, QFORMER.F),
  gemm("vicuna q_proj", VICUNA.T, VICUNA.D, VICUNA.D),
  gemm("vicuna up_proj", VICUNA.T, VICUNA.D, VICUNA.F),
  gemm("vicuna down_proj", VICUNA.T, VICUNA.F, VICUNA.D),
  gemm("flan-t5 wi", 128, 2048, 5120),
  ...gemv("vicuna q_proj", VICUNA.D, VICUNA.D),
  ...gemv("vicuna up_proj", VICUNA.D, VICUNA.F),
  ...gemv("vicuna down_proj", VICUNA.F, VICUNA.D),
  ...gemv("vicuna lm_head", VICUNA.D, VICUNA.V),
  { op: "layer_norm", name: "vit", R: VIT.N, D: VIT.D },
  { op: "rms_norm", name: "vicuna", R: VICUNA.T, D: VICUNA.D },
  { op: "softmax", name: "vit scores", R: VIT.H * VIT.N, D: VIT.N },
  { op: "gelu", name: "vit fc1", R: VIT.N, D: VIT.F },
  { op: "attention", name: "vit", L: VIT.N, H: VIT.H, d: VIT.d, causal: false },
  { op: "attention", name: "vicuna", L: 64, H: VICUNA.H, d: VICUNA.d, causal: true },
  { op: "attention", name: "vicuna", L: 256, H: VICUNA.H, d: VICUNA.d, causal: true },
];

/** One short job of each kind. */
export const QUICK_JOBS: readonly Job[] = MODEL_JOBS.filter((job) =>
  [
    "gemm vit projection M257 K1408 N1408 f32",
    "gemm q-former feed-forward M32 K768 N3072 f32",
    "gemv vicuna q_proj M1 K4096 N4096 f32",
    "gemv vicuna q_proj M1 K4096 N4096 f16",
    "gemv vicuna q_proj M1 K4096 N4096 int8",
    "gemv vicuna q_proj M1 K4096 N4096 int4",
    "layer_norm vit R257 D1408",
    "rms_norm vicuna R64 D4096",
    "softmax vit scores R4112 D257",
    "gelu vit fc1 R257 D6144",
    "attention vit L257 H16 d88",
    "attention vicuna L64 H32 d128 causal",
  ].includes(jobName(job)),
);

/** A kind of job, by which bars and means are grouped. */
export type Kind = "gemm" | "gemv" | RowsJob["op"] | "attention";

export function kindOf(job: Job): Kind {
  if (job.op !== "linear") return job.op;
  return job.M === 1 ? "gemv" : "gemm";
}

/** The kind, the name and the shape: what `--filter` is matched against, and what tells rows apart. */
export function jobName(job: Job): string {
  return `${kindOf(job)} ${job.name} ${shapeOf(job)}`;
}

function shapeOf(job: Job): string {
  if (job.op === "linear") return `M${job.M} K${job.K} N${job.N} ${job.weight}`;
  if (job.op === "attention") return `L${job.L} H${job.H} d${job.d}${job.causal ? " causal" : ""}`;
  return `R${job.R} D${job.D}`;
}

/** Multiplications and additions; 0 for memory-bound jobs. */
export function flopsOf(job: Job): number {
  if (job.op === "linear") return 2 * job.M * job.K * job.N;
  if (job.op !== "attention") return 0;
  const pairs = job.causal ? (job.L * (job.L + 1)) / 2 : job.L ** 2;
  return 4 * job.H * job.d * pairs;
}

/** Bytes read and written at least. */
export function bytesOf(job: Job): number {
  if (job.op === "linear") {
    return job.N * rowBytes(job.weight, job.K) + 4 * job.M * (job.K + job.N);
  }
  if (job.op === "attention") return 4 * 4 * job.L * job.H * job.d;
  return 4 * 2 * job.R * job.D;
}

/** More than caches hold: a GEMV alternates between copies of its weight that together have at least this size. */
const BEYOND_CACHES = 128 * 2 ** 20;

/** Number of copies of the weight of a job. A GEMM is compute-bound, and has one. */
export function copiesOf(job: LinearJob): number {
  return job.M > 1 ? 1 : Math.ceil(BEYOND_CACHES / (job.N * rowBytes(job.weight, job.K)));
}

export const EPS = 1e-6;

/** A job's activations, and the vectors of norms, in order. Weights of linear jobs are not among them. */
export function inputsOf(job: Job): Float32Array[] {
  const random = new Random(1);
  if (job.op === "linear") return [random.normal(job.M * job.K)];
  if (job.op === "attention") return ["q", "k", "v"].map(() => random.normal(job.L * job.H * job.d));
  const x = random.normal(job.R * job.D, 0, job.op === "softmax" ? 3 : 1);
  if (job.op === "layer_norm") return [x, random.normal(job.D, 1, 0.1), random.normal(job.D, 0, 0.1)];
  if (job.op === "rms_norm") return [x, random.normal(job.D, 1, 0.1)];
  return [x];
}

/**
 * The layout of a weight: [N, K], as in PyTorch, or [K, N]. Both are filled from the same sequence, so the products differ,
 * but not the work.
 */
export type Order = "nk" | "kn";

/**
 * Checks an engine's result. Ours must meet our tolerances; another must only do the same work: 1e-6 allows f32 sums in any
 * order and erf by a polynomial (1.5e-7), but no error.
 */
export const PEER_TOLERANCE: Tolerance = { nmse: 1e-6 };

/** Compares a sample of a result with the reference: the fraction of the tolerance that was used. */
export function check(job: Job, y: Float32Array, order: Order, ours: boolean): number {
  const size = job.op === "linear" ? job.M * job.N : job.op === "attention" ? job.L * job.H * job.d : job.R * job.D;
  if (y.length !== size) throw new Error(`${y.length} numbers where ${size} are expected`);
  const [actual, expected] = sampleOf(job, y, order);
  const tolerance = job.op === "gelu" ? TOLERANCES.activation : TOLERANCES[job.op];
  return compare(actual, expected, ours ? tolerance : PEER_TOLERANCE, jobName(job)).share;
}

/** A sample of a result, and the expected values. */
function sampleOf(job: Job, y: Float32Array, order: Order): [ArrayLike<number>, ArrayLike<number>] {
  const [x, ...more] = inputsOf(job);
  if (job.op === "linear") {
    const { M, K, N } = job;
    const [rows, columns] = [sampleRows(M, 8), sampleRows(N, 64)];
    const weight = new Float32Array(columns.length * K);
    columns.forEach((n, i) => {
      if (order === "nk") weight.set(storedRow(n, K, job.weight), i * K);
      else for (let k = 0; k < K; k++) weight[i * K + k] = randomNumbers(1, k * N + n)[0];
    });
    const expected = linear(takeSample(x, rows, K), weight, undefined, [rows.length, columns.length, K]);
    return [rows.flatMap((m) => columns.map((n) => y[m * N + n])), expected];
  }
  if (job.op === "attention") {
    const { L, H, d, causal } = job;
    const rows = sampleRows(L, 4);
    const [k, v] = more;
    const expected = rows.flatMap((t) => {
      const sizes = { B: 1, T: 1, S: L, H, Hkv: H, d };
      return [...attention(takeSample(x, [t], H * d), k, v, sizes, { scale: d ** -0.5, causal, past: t })];
    });
    return [takeSample(y, rows, H * d), expected];
  }
  const { R, D } = job;
  const rows = sampleRows(R, 16);
  const sample = takeSample(x, rows, D);
  const expected = {
    layer_norm: () => layerNorm(sample, more[0], more[1], EPS),
    rms_norm: () => rmsNorm(sample, more[0], EPS),
    softmax: () => softmax(sample, D),
    gelu: () => Float64Array.from(sample, activation.gelu),
  }[job.op]();
  return [takeSample(y, rows, D), expected];
}
