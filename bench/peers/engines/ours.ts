/** This project's engine, through the ops that the model calls, with the kernels that plan() picks. */

import { randomWeight } from "../../../src/tensor/cases/support/data.ts";
import type { Device } from "../../../src/tensor/device/device.ts";
import { activation } from "../../../src/tensor/ops/activation.ts";
import { attention } from "../../../src/tensor/ops/attention.ts";
import { layerNorm } from "../../../src/tensor/ops/layer_norm.ts";
import { linear } from "../../../src/tensor/ops/linear.ts";
import { rmsNorm } from "../../../src/tensor/ops/rms_norm.ts";
import { softmax } from "../../../src/tensor/ops/softmax.ts";
import type { Tensor } from "../../../src/tensor/tensor.ts";
import { describeMachine, openBenchDevice } from "../../machine.ts";
import type { Engine, Opened } from "../engine.ts";
import { copiesOf, EPS, inputsOf, type Job } from "../jobs.ts";

export async function openEngine(): Promise<Engine> {
  const device = await openBenchDevice();
  const machine = describeMachine(device);
  return {
    version: machine.commit,
    adapter: machine.adapter,
    machine,
    ways: (job) => [{ name: "ops", open: async () => openJob(device, job) }],
  };
}

function openJob(device: Device, job: Job): Opened {
  const { run, close } = prepare(device, job);
  const once = () => {
    device.scope(() => {
      run();
    });
  };
  return {
    run: once,
    sync: () => device.sync(),
    output: () => device.scope(async () => Float32Array.from(await run().read())),
    async gpuTime(repetitions) {
      if (!device.caps.timestamps) return null;
      const { launches } = await device.profile(() => {
        for (let i = 0; i < repetitions; i++) once();
      });
      return launches.reduce((sum, { ms }) => sum + ms, 0) / repetitions;
    },
    close() {
      close();
      device.memory.trim();
    },
  };
}

function prepare(device: Device, job: Job): { run(): Tensor; close(): void } {
  const inputs = inputsOf(job);
  const kept: { dispose(): void }[] = [];
  const keep = (data: Float32Array, shape: readonly number[]) => {
    const tensor = device.tensor(data, shape);
    kept.push(tensor);
    return tensor;
  };
  const close = () => {
    for (const each of kept) each.dispose();
  };
  if (job.op === "linear") {
    const x = keep(inputs[0], [job.M, job.K]);
    const weights = Array.from({ length: copiesOf(job) }, () => randomWeight(device, [job.N, job.K], job.weight));
    kept.push(...weights);
    let turn = 0;
    return { run: () => linear(x, weights[turn++ % weights.length]), close };
  }
  if (job.op === "attention") {
    const { L, H, d, causal } = job;
    const [q, k, v] = inputs.map((data) => keep(data, [1, L, H, d]));
    return { run: () => attention(q, k, v, { scale: d ** -0.5, causal }), close };
  }
  const x = keep(inputs[0], [job.R, job.D]);
  const [weight, bias] = inputs.slice(1).map((data) => keep(data, [job.D]));
  const run = {
    layer_norm: () => layerNorm(x, weight, bias, EPS),
    rms_norm: () => rmsNorm(x, weight, EPS),
    softmax: () => softmax(x),
    gelu: () => activation(x, "gelu"),
  }[job.op];
  return { run, close };
}
