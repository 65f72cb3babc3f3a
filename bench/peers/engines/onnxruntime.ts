/**
 * ONNX Runtime: a model of one node for each job, if there is such a node, with weights as initializers. On WebGPU inputs
 * and outputs stay on the device (IO binding), so that a run has no transfers.
 */
import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { randomNumbers } from "../../../src/tensor/cases/support/data.ts";
import type { Engine, EngineName, Opened, Way } from "../engine.ts";
import { type AttentionJob, copiesOf, EPS, inputsOf, type Job } from "../jobs.ts";
import { type Graph, type Initializer, type Node, writeModel } from "../onnx.ts";
import { packageVersion } from "../packages.ts";

/** The used part of ONNX Runtime's types, as the package is not a dependency of the project. */
interface OrtTensor {
  readonly data: Float32Array;
  dispose(): void;
}
interface Session {
  run(feeds: Readonly<Record<string, OrtTensor>>): Promise<Readonly<Record<string, OrtTensor>>>;
  release(): Promise<void>;
}
interface Ort {
  readonly Tensor: new (type: "float32", data: Float32Array, dims: readonly number[]) => OrtTensor;
  readonly InferenceSession: { create(model: Uint8Array, options: object): Promise<Session> };
}

export async function openEngine(name: EngineName): Promise<Engine> {
  const webgpu = name === "onnxruntime";
  const ort = createRequire(new URL("../", import.meta.url))("onnxruntime-node") as Ort;
  const runtime = new Runtime(ort, webgpu);
  return {
    version: packageVersion("onnxruntime-node"),
    adapter: webgpu ? await adapterOf(runtime) : "CPU",
    ways: (job) => waysOf(runtime, job),
  };
}

/**
 * ONNX Runtime does not report its adapter. A software one is detected by CPU time that grows with the work, and identified
 * by the loaded driver.
 */
async function adapterOf(runtime: Runtime): Promise<string> {
  const more = (await cpuTime(runtime, 2 ** 22)) - (await cpuTime(runtime, 1));
  const drivers = existsSync("/proc/self/maps")
    ? [...new Set(readFileSync("/proc/self/maps", "utf8").match(/libvk_swiftshader|libGLX_nvidia|libvulkan_\w+/g))]
    : [];
  if (more < 20) return `not told, hardware (drivers loaded: ${drivers.join(", ")})`;
  const software = drivers.filter((name) => name === "libvulkan_lvp" || name === "libvk_swiftshader");
  return `not told, software (driver loaded: ${software.join(" and ") || "unknown"})`;
}

/** CPU milliseconds of eight exponentials of n numbers. */
async function cpuTime(runtime: Runtime, n: number): Promise<number> {
  const work = await runtime.session(oneNode("Exp", [n]), true);
  const x = await runtime.input(new Float32Array(n), [n]);
  const once = async () => (await work.run({ x: x.tensor })).y.dispose();
  await once();
  await runtime.sync();
  const before = process.cpuUsage();
  for (let i = 0; i < 8; i++) await once();
  await runtime.sync();
  const { user, system } = process.cpuUsage(before);
  await x.close();
  await work.release();
  return (user + system) / 1000;
}

interface Input {
  readonly tensor: OrtTensor;
  close(): Promise<void>;
}

class Runtime {
  readonly ort: Ort;
  readonly webgpu: boolean;
  #tiny: Session | undefined;

  constructor(ort: Ort, webgpu: boolean) {
    this.ort = ort;
    this.webgpu = webgpu;
  }

  /** `resident`: outputs stay on the device. */
  session(graph: Graph, resident: boolean): Promise<Session> {
    return this.ort.InferenceSession.create(writeModel(graph), {
      executionProviders: [this.webgpu ? "webgpu" : "cpu"],
      ...(this.webgpu && resident && { preferredOutputLocation: "gpu-buffer" }),
      // Spinning threads would be counted as work.
      extra: { session: { intra_op: { allow_spinning: "0" }, inter_op: { allow_spinning: "0" } } },
      logSeverityLevel: 3,
    });
  }

  /** Reads a number that is computed after everything else. */
  async sync(): Promise<void> {
    if (!this.webgpu && this.#tiny) return; // A run on the CPU is done when it returns.
    this.#tiny ??= await this.session(oneNode("Neg", [1]), false);
    const { y } = await this.#tiny.run({ x: new this.ort.Tensor("float32", Float32Array.of(1), [1]) });
    if (y.data[0] !== -1) throw new Error("-1 is not what ONNX Runtime says it is");
  }

  /** An input where runs expect it. */
  async input(data: Float32Array, dims: readonly number[]): Promise<Input> {
    const x = new this.ort.Tensor("float32", data, dims);
    if (!this.webgpu) return { tensor: x, close: async () => {} };
    const copy = await this.session(oneNode("Identity", dims), true);
    const { y } = await copy.run({ x });
    const close = async () => {
      y.dispose();
      await copy.release(); // Not before: the tensor's memory is the session's.
    };
    return { tensor: y, close };
  }

  /** An output's numbers. */
  async read(x: OrtTensor, dims: readonly number[]): Promise<Float32Array> {
    if (!this.webgpu) return x.data;
    const copy = await this.session(oneNode("Identity", dims), false);
    const { y } = await copy.run({ x });
    await copy.release();
    return y.data;
  }
}

function oneNode(op: string, dims: readonly number[]): Graph {
  return {
    inputs: [{ name: "x", dims }],
    outputs: [{ name: "y", dims }],
    nodes: [{ op, inputs: ["x"], outputs: ["y"] }],
  };
}

/** A graph that computes `y`, with the job's inputs in order, and initializers. */
interface Model {
  readonly inputs: readonly { readonly name: string; readonly dims: readonly number[] }[];
  /** Of each copy of the weight. */
  readonly initializers: () => readonly Initializer[];
  readonly copies?: number;
  readonly nodes: readonly Node[];
  /** Besides `y`. */
  readonly outputs?: readonly { readonly name: string; readonly dims: readonly number[] }[];
  readonly dims: readonly number[];
}

function waysOf(runtime: Runtime, job: Job): Way[] {
  const way = (name: string, model: Model, order?: Way["order"]): Way => {
    return { name, ...(order && { order }), open: () => openModel(runtime, job, model) };
  };
  if (job.op === "linear") {
    if (job.weight !== "f32") return [];
    const { M, K, N } = job;
    const common = { inputs: [{ name: "x", dims: [M, K] }], copies: copiesOf(job), dims: [M, N] };
    return [
      way(
        "MatMul",
        {
          ...common,
          initializers: () => [{ name: "w", dims: [K, N], data: randomNumbers(N * K) }],
          nodes: [{ op: "MatMul", inputs: ["x", "w"], outputs: ["y"] }],
        },
        "kn",
      ),
      way(
        "Gemm, transposed",
        {
          ...common,
          initializers: () => [{ name: "w", dims: [N, K], data: randomNumbers(N * K) }],
          nodes: [{ op: "Gemm", inputs: ["x", "w"], outputs: ["y"], ints: { transB: 1 } }],
        },
        "nk",
      ),
    ];
  }
  if (job.op === "attention") return attentionWays(runtime, job);
  const { R, D } = job;
  const [, ...vectors] = inputsOf(job);
  const names = ["weight", "bias"].slice(0, vectors.length);
  const common = {
    inputs: [{ name: "x", dims: [R, D] }],
    initializers: () => vectors.map((data, i) => ({ name: names[i], dims: [D], data })),
    dims: [R, D],
  };
  const ops: Record<typeof job.op, Omit<Node, "inputs" | "outputs">> = {
    layer_norm: { op: "LayerNormalization", ints: { axis: -1 }, floats: { epsilon: EPS } },
    rms_norm: { op: "SimplifiedLayerNormalization", ints: { axis: -1 }, floats: { epsilon: EPS } },
    softmax: { op: "Softmax", ints: { axis: -1 } },
    gelu: { op: "Gelu" },
  };
  const node = ops[job.op];
  return [way(node.op, { ...common, nodes: [{ ...node, inputs: ["x", ...names], outputs: ["y"] }] })];
}

/** The fused operators, and the nodes that an exporter writes without them. */
function attentionWays(runtime: Runtime, job: AttentionJob): Way[] {
  const { L, H, d, causal } = job;
  const domain = "com.microsoft";
  const fused = {
    inputs: ["q", "k", "v"].map((name) => ({ name, dims: [1, L, H * d] })),
    dims: [1, L, H * d],
    initializers: () => [],
  };
  const multiHead: Model = {
    ...fused,
    nodes: [
      {
        op: "MultiHeadAttention",
        domain,
        inputs: ["q", "k", "v"],
        outputs: ["y"],
        ints: { num_heads: H, unidirectional: causal ? 1 : 0 },
      },
    ],
  };
  const grouped: Model = {
    ...fused,
    initializers: () => [
      { name: "last", dims: [1], element: "int32", data: Int32Array.of(L - 1) },
      { name: "total", dims: [1], element: "int32", data: Int32Array.of(L) },
    ],
    nodes: [
      {
        op: "GroupQueryAttention",
        domain,
        inputs: ["q", "k", "v", "", "", "last", "total"],
        outputs: ["y", "present_key", "present_value"],
        ints: { num_heads: H, kv_num_heads: H },
      },
    ],
    outputs: ["present_key", "present_value"].map((name) => ({ name, dims: [1, H, L, d] })),
  };
  const unseen = () => Float32Array.from({ length: L * L }, (_, i) => (i % L > Math.floor(i / L) ? -1e9 : 0));
  const composed: Model = {
    inputs: ["q", "k", "v"].map((name) => ({ name, dims: [1, L, H, d] })),
    dims: [1, L, H, d],
    initializers: () => [
      { name: "scale", dims: [1], data: Float32Array.of(d ** -0.5) },
      ...(causal ? [{ name: "mask", dims: [1, 1, L, L], data: unseen() }] : []),
    ],
    nodes: [
      { op: "Transpose", inputs: ["q"], outputs: ["qh"], lists: { perm: [0, 2, 1, 3] } },
      { op: "Transpose", inputs: ["k"], outputs: ["kh"], lists: { perm: [0, 2, 3, 1] } },
      { op: "Transpose", inputs: ["v"], outputs: ["vh"], lists: { perm: [0, 2, 1, 3] } },
      { op: "Mul", inputs: ["qh", "scale"], outputs: ["qs"] },
      { op: "MatMul", inputs: ["qs", "kh"], outputs: ["scores"] },
      ...(causal ? [{ op: "Add", inputs: ["scores", "mask"], outputs: ["seen"] }] : []),
      { op: "Softmax", inputs: [causal ? "seen" : "scores"], outputs: ["p"], ints: { axis: -1 } },
      { op: "MatMul", inputs: ["p", "vh"], outputs: ["yh"] },
      { op: "Transpose", inputs: ["yh"], outputs: ["y"], lists: { perm: [0, 2, 1, 3] } },
    ],
  };
  const models = { MultiHeadAttention: multiHead, ...(causal && { GroupQueryAttention: grouped }), composed };
  return Object.entries(models).map(([name, model]) => ({ name, open: () => openModel(runtime, job, model) }));
}

async function openModel(runtime: Runtime, job: Job, model: Model): Promise<Opened> {
  const { inputs, initializers, copies = 1, nodes, outputs = [], dims } = model;
  const graph = {
    inputs,
    outputs: [{ name: "y", dims }, ...outputs],
    initializers: initializers(),
    nodes,
  };
  const sessions: Session[] = [];
  for (let i = 0; i < copies; i++) sessions.push(await runtime.session(graph, true));
  const data = inputsOf(job);
  const held = await Promise.all(inputs.map(({ dims }, i) => runtime.input(data[i], dims)));
  const feeds = Object.fromEntries(inputs.map(({ name }, i) => [name, held[i].tensor]));
  let turn = 0;
  let last: Readonly<Record<string, OrtTensor>> = {};
  const forget = () => {
    for (const tensor of Object.values(last)) tensor.dispose();
    last = {};
  };
  const run = async () => {
    forget();
    last = await sessions[turn++ % copies].run(feeds);
  };
  return {
    run,
    sync: () => runtime.sync(),
    async output() {
      await run();
      return runtime.read(last.y, dims);
    },
    async close() {
      forget();
      for (const input of held) await input.close();
      for (const session of sessions) await session.release();
    },
  };
}
