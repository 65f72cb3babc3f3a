/**
 * jax-js: one jitted function for each job, its arguments on the device. Its own compiler generates the kernels; norms and
 * attention are those of `jax.nn` and `jax.numpy`, fused by the compiler.
 */
import { randomNumbers } from "../../../src/tensor/cases/support/data.ts";
import type { Engine, Opened, Way } from "../engine.ts";
import { copiesOf, EPS, inputsOf, type Job } from "../jobs.ts";
import { packageVersion } from "../packages.ts";
import { addIteratorHelpers, becomeBrowser, throwDeviceError } from "../shim.ts";

/** The used part of jax-js's types, as the package is not a dependency of the project. */
interface Value {
  /** The value with another reference: functions consume their arguments. */
  readonly ref: Value;
  add(other: Value | number): Value;
  mul(other: Value | number): Value;
  data(): Promise<Float32Array>;
  blockUntilReady(): Promise<Value>;
  dispose(): void;
}
interface Jax {
  init(...devices: string[]): Promise<string[]>;
  defaultDevice(device: string): string;
  jit(f: (...args: Value[]) => Value): ((...args: Value[]) => Value) & { dispose?(): void };
  readonly numpy: {
    array(data: Float32Array, options: { shape: readonly number[] }): Value;
    matmul(x: Value, y: Value): Value;
    transpose(x: Value): Value;
    square(x: Value): Value;
    sqrt(x: Value): Value;
    reciprocal(x: Value): Value;
    mean(x: Value, axis: number, options: { keepdims: boolean }): Value;
  };
  readonly nn: {
    gelu(x: Value, options: { approximate: boolean }): Value;
    softmax(x: Value, axis: number): Value;
    standardize(x: Value, axis: number, options: { epsilon: number }): Value;
    dotProductAttention(q: Value, k: Value, v: Value, options: { isCausal: boolean }): Value;
  };
}

export async function openEngine(): Promise<Engine> {
  const adapter = await becomeBrowser();
  addIteratorHelpers();
  const name: string = "@jax-js/jax";
  const jax = (await import(name)) as Jax;
  if (!(await jax.init("webgpu")).includes("webgpu")) throw new Error("jax-js does not find WebGPU");
  jax.defaultDevice("webgpu");
  return { version: packageVersion(name), adapter: adapter.info.description, ways: (job) => waysOf(jax, job) };
}

function waysOf(jax: Jax, job: Job): Way[] {
  const { numpy: np, nn } = jax;
  const way = (name: string, shapes: readonly (readonly number[])[], f: (...args: Value[]) => Value): Way => {
    return {
      name,
      open: async () =>
        openJob(
          jax,
          f,
          inputsOf(job).map((data, i) => np.array(data, { shape: shapes[i] })),
        ),
    };
  };
  if (job.op === "linear") {
    if (job.weight !== "f32") return [];
    const { M, K, N } = job;
    const product = (name: string, order: "nk" | "kn", f: (x: Value, w: Value) => Value): Way => ({
      name,
      order,
      async open() {
        const shape = order === "nk" ? [N, K] : [K, N];
        const x = np.array(inputsOf(job)[0], { shape: [M, K] });
        const weights = Array.from({ length: copiesOf(job) }, () => np.array(randomNumbers(N * K), { shape }));
        return openJob(jax, f, [x], weights);
      },
    });
    return [
      product("matmul", "kn", (x, w) => np.matmul(x, w)),
      product("matmul, transposed", "nk", (x, w) => np.matmul(x, np.transpose(w))),
    ];
  }
  if (job.op === "attention") {
    const shape = [1, job.L, job.H, job.d];
    return [
      way("dotProductAttention", [shape, shape, shape], (q, k, v) =>
        nn.dotProductAttention(q, k, v, { isCausal: job.causal }),
      ),
    ];
  }
  const { R, D } = job;
  const shapes = [[R, D], [D], [D]];
  switch (job.op) {
    case "layer_norm":
      return [way("standardize", shapes, (x, g, b) => nn.standardize(x, -1, { epsilon: EPS }).mul(g).add(b))];
    case "rms_norm":
      return [
        way("composed", shapes, (x, g) => {
          const meanSquare = np.mean(np.square(x.ref), -1, { keepdims: true });
          return x.mul(np.reciprocal(np.sqrt(meanSquare.add(EPS)))).mul(g);
        }),
      ];
    case "softmax":
      return [way("softmax", shapes, (x) => nn.softmax(x, -1))];
    case "gelu":
      return [way("gelu", shapes, (x) => nn.gelu(x, { approximate: false }))];
  }
}

/** `weights`: each run takes the next of them as its last argument. */
function openJob(
  jax: Jax,
  f: (...args: Value[]) => Value,
  args: readonly Value[],
  weights: readonly Value[] = [],
): Opened {
  const jitted = jax.jit(f);
  let turn = 0;
  // Results are kept until they have been awaited: jax-js is lazy, and a disposed result is never computed.
  let results: Value[] = [];
  const run = () => {
    const more = weights.length ? [weights[turn++ % weights.length].ref] : [];
    results.push(jitted(...args.map((arg) => arg.ref), ...more));
  };
  const sync = async () => {
    for (const result of results) await result.blockUntilReady();
    for (const result of results) result.dispose();
    results = [];
  };
  return {
    run,
    sync,
    async output() {
      await sync();
      run();
      const y = await results.pop()!.data();
      throwDeviceError();
      return y;
    },
    async close() {
      await sync();
      for (const value of [...args, ...weights]) value.dispose();
      jitted.dispose?.();
    },
  };
}
