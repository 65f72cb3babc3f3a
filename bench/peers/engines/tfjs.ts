/**
 * TensorFlow.js with its WebGPU back end, whose operations run one by one. It has no row norms, GELU or attention: these are
 * composed of its operations, as its own layers do.
 */
import { randomNumbers } from "../../../src/tensor/cases/support/data.ts";
import type { Engine, Opened, Way } from "../engine.ts";
import { copiesOf, EPS, inputsOf, type Job } from "../jobs.ts";
import { packageVersion } from "../packages.ts";
import { becomeBrowser, throwDeviceError } from "../shim.ts";

/** The used part of TensorFlow.js's types, as the package is not a dependency of the project. */
interface Value {
  data(): Promise<Float32Array>;
  dispose(): void;
}
interface TensorFlow {
  env(): { set(flag: string, value: boolean): void };
  setBackend(name: string): Promise<boolean>;
  ready(): Promise<void>;
  tidy(f: () => Value): Value;
  tensor(data: Float32Array, shape: readonly number[]): Value;
  scalar(value: number): Value;
  matMul(a: Value, b: Value, transposeA?: boolean, transposeB?: boolean): Value;
  transpose(x: Value, order: readonly number[]): Value;
  reshape(x: Value, shape: readonly number[]): Value;
  softmax(x: Value): Value;
  moments(x: Value, axis: number, keepDims: boolean): { readonly mean: Value; readonly variance: Value };
  mean(x: Value, axis: number, keepDims: boolean): Value;
  square(x: Value): Value;
  rsqrt(x: Value): Value;
  erf(x: Value): Value;
  neg(x: Value): Value;
  add(a: Value, b: Value): Value;
  sub(a: Value, b: Value): Value;
  mul(a: Value, b: Value): Value;
}

export async function openEngine(): Promise<Engine> {
  const adapter = await becomeBrowser();
  const [core, backend]: string[] = ["@tensorflow/tfjs-core", "@tensorflow/tfjs-backend-webgpu"];
  const tf = (await import(core)) as TensorFlow;
  await import(backend);
  if (!(await tf.setBackend("webgpu"))) throw new Error("TensorFlow.js does not find WebGPU");
  await tf.ready();
  // Otherwise small tensors are computed in JavaScript, and reading one would not wait for the device.
  tf.env().set("WEBGPU_CPU_FORWARD", false);
  return { version: packageVersion(backend), adapter: adapter.info.description, ways: (job) => waysOf(tf, job) };
}

function waysOf(tf: TensorFlow, job: Job): Way[] {
  const way = (name: string, shapes: readonly (readonly number[])[], f: (...args: Value[]) => Value): Way => {
    return {
      name,
      open: async () =>
        openJob(
          tf,
          f,
          inputsOf(job).map((data, i) => tf.tensor(data, shapes[i])),
        ),
    };
  };
  const number = (value: number) => tf.scalar(value);
  if (job.op === "linear") {
    if (job.weight !== "f32") return [];
    const { M, K, N } = job;
    const product = (name: string, order: "nk" | "kn"): Way => ({
      name,
      order,
      async open() {
        const shape = order === "nk" ? [N, K] : [K, N];
        const x = tf.tensor(inputsOf(job)[0], [M, K]);
        const weights = Array.from({ length: copiesOf(job) }, () => tf.tensor(randomNumbers(N * K), shape));
        return openJob(tf, (x, w) => tf.matMul(x, w, false, order === "nk"), [x], weights);
      },
    });
    return [product("matMul", "kn"), product("matMul, transposed", "nk")];
  }
  if (job.op === "attention") {
    const { L, H, d, causal } = job;
    const shape = [L, H, d];
    const unseen = Float32Array.from({ length: L * L }, (_, i) => (i % L > Math.floor(i / L) ? -1e9 : 0));
    const mask = causal ? tf.tensor(unseen, [1, L, L]) : undefined;
    return [
      way("composed", [shape, shape, shape], (...qkv) => {
        const [q, k, v] = qkv.map((x) => tf.transpose(x, [1, 0, 2]));
        const scores = tf.mul(tf.matMul(q, k, false, true), number(d ** -0.5));
        const p = tf.softmax(mask ? tf.add(scores, mask) : scores);
        return tf.transpose(tf.matMul(p, v), [1, 0, 2]);
      }),
    ];
  }
  const { R, D } = job;
  const shapes = [[R, D], [D], [D]];
  switch (job.op) {
    case "layer_norm":
      return [
        way("composed", shapes, (x, g, b) => {
          const { mean, variance } = tf.moments(x, -1, true);
          return tf.add(tf.mul(tf.mul(tf.sub(x, mean), tf.rsqrt(tf.add(variance, number(EPS)))), g), b);
        }),
      ];
    case "rms_norm":
      return [
        way("composed", shapes, (x, g) => {
          return tf.mul(tf.mul(x, tf.rsqrt(tf.add(tf.mean(tf.square(x), -1, true), number(EPS)))), g);
        }),
      ];
    case "softmax":
      return [way("softmax", shapes, (x) => tf.softmax(x))];
    case "gelu":
      return [
        way("composed", shapes, (x) => {
          return tf.mul(tf.mul(x, number(0.5)), tf.add(tf.erf(tf.mul(x, number(Math.SQRT1_2))), number(1)));
        }),
      ];
  }
}

/** `weights`: each run takes the next of them as its last argument. */
function openJob(
  tf: TensorFlow,
  f: (...args: Value[]) => Value,
  args: readonly Value[],
  weights: readonly Value[] = [],
): Opened {
  let turn = 0;
  let last: Value | undefined;
  const one = tf.scalar(1);
  const run = () => {
    last?.dispose();
    const more = weights.length ? [weights[turn++ % weights.length]] : [];
    last = tf.tidy(() => f(...args, ...more));
  };
  return {
    run,
    // Reading a number that is computed after everything else is the public way to wait.
    async sync() {
      const behind = tf.neg(one);
      await behind.data();
      behind.dispose();
    },
    async output() {
      run();
      const y = await last!.data();
      throwDeviceError();
      return y;
    },
    close() {
      for (const value of [...args, ...weights, one]) value.dispose();
      last?.dispose();
    },
  };
}
