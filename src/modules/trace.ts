/** Collecting every module's output of one call, under its checkpoint path, as PyTorch's forward hooks would. */
import { type Device, storagesIn, type Tracer } from "../tensor/device.ts";
import type { ActivationDType } from "../tensor/dtype.ts";
import type { Storage } from "../tensor/memory.ts";
import { argmax } from "../tensor/ops/argmax.ts";
import { contiguous } from "../tensor/ops/copy.ts";
import { scale } from "../tensor/ops/scale.ts";
import type { Shape } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";

/** One module's output. */
export interface TracedOutput {
  readonly shape: Shape;
  readonly data: Float32Array | Uint32Array;
}

/**
 * Runs `fn` with a tracer and gives the outputs in call order. A module that runs twice appears a second time as
 * `path#2`. Outputs stay on the GPU until `fn` is done.
 *
 * @param also sees each output as well, and may put another in its place
 */
export async function traceOutputs<T>(
  device: Device,
  fn: () => T | Promise<T>,
  also?: Tracer,
): Promise<{ result: T; outputs: Map<string, TracedOutput> }> {
  const kept = new Map<string, Tensor<ActivationDType>>();
  const results = new Set<Storage>();
  const before = device.tracer;
  device.tracer = (path, output) => {
    let key = path;
    for (let n = 2; kept.has(key); n++) key = `${path}#${n}`;
    const copy = contiguous(output);
    device.memory.keep(copy.storage);
    kept.set(key, copy);
    return also?.(key, output);
  };
  try {
    const result = await fn();
    for (const storage of storagesIn(result)) results.add(storage);
    const outputs = new Map<string, TracedOutput>();
    for (const [path, tensor] of kept) outputs.set(path, { shape: tensor.shape, data: await tensor.read() });
    return { result, outputs };
  } finally {
    device.tracer = before;
    for (const tensor of kept.values()) if (!results.has(tensor.storage)) tensor.dispose();
  }
}

/**
 * Runs `fn` and says whose output, in call order, is the first to have a NaN or an infinity; undefined if none has. A tracer
 * that is set sees the outputs too, and may put others in their place. Only a few numbers of each are kept.
 */
export async function firstNotFinite(device: Device, fn: () => unknown): Promise<string | undefined> {
  const before = device.tracer;
  const seen: { readonly path: string; readonly ends: Tensor<"u32">[] }[] = [];
  device.tracer = (path, output) => {
    const replaced = before?.(path, output);
    const x = replaced ?? output;
    if (x.dtype === "f32" && x.size > 0) {
      const rows = contiguous(x as Tensor).reshape([-1, x.shape[x.rank - 1] ?? 1]);
      const ends = [argmax(rows), argmax(scale(rows, -1))]; // the largest number, and the least
      for (const { storage } of ends) device.memory.keep(storage);
      seen.push({ path, ends });
    }
    return replaced;
  };
  try {
    await device.scope(fn);
    for (const { path, ends } of seen) {
      for (const end of ends) {
        const found = await end.read();
        if (found.subarray(found.length / 2).includes(1)) return path;
      }
    }
    return undefined;
  } finally {
    device.tracer = before;
    for (const { ends } of seen) for (const end of ends) end.dispose();
  }
}
