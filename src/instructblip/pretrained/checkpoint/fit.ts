/** Whether a model's weights fit on the device, known from the headers of its files; and the dtype that would. */
import { checkStorage, type StorageDType, storageOf } from "../../../modules/storage_dtype.ts";
import type { Device } from "../../../tensor/device/device.ts";
import { formatBytes } from "../../../tensor/device/memory.ts";
import type { FloatDType } from "../../../tensor/dtype.ts";
import { DeviceError } from "../../../tensor/errors.ts";
import type { Checkpoint } from "../../../tensor/files/checkpoint.ts";
import { rowBytes } from "../../../tensor/quantize.ts";

/** Dtypes that a refusal proposes, the most precise first. */
const PROPOSED = ["f32", "f16", "int8", "int4"] as const;

/** Bytes that the weights take on the device, to some per cent: matrices in their storage dtype, the rest in f32. */
export function weightBytes({ tensors }: Pick<Checkpoint, "tensors">, dtype: StorageDType): number {
  let bytes = 0;
  for (const { name, shape, dtype: loaded } of tensors.values()) {
    const size = shape.reduce((product, n) => product * n, 1);
    const [N = 0, K = 0] = shape;
    const isFloat = ["f32", "f16", "bf16", "f64"].includes(loaded);
    if (!isFloat) continue; // position ids
    const float = (loaded === "f64" ? "f32" : loaded) as FloatDType;
    bytes += shape.length === 2 ? N * rowBytes(storageOf(dtype, name, float), K) : 4 * size;
  }
  return bytes;
}

/**
 * Refuses weights that are larger than what is left of the device's memory budget.
 *
 * @param isRead whether a tensor of the checkpoint is loaded; default: all are
 * @throws DeviceError BUDGET; InputError as checkStorage
 */
export function expectFits(
  checkpoint: Pick<Checkpoint, "name" | "tensors">,
  device: Device,
  dtype: StorageDType,
  isRead: (name: string) => boolean = () => true,
): void {
  const { name, tensors } = checkpoint;
  checkStorage(dtype, tensors.keys());
  const { left } = device.memory;
  const read = { tensors: new Map([...tensors].filter(([key]) => isRead(key))) };
  const bytes = weightBytes(read, dtype);
  if (bytes <= left) return;
  const message = `${name}: its weights take ${formatBytes(bytes)}, and the memory budget has ${formatBytes(left)} left`;
  const hint = `${proposal(read, left)}; the budget is memory_budget, else INSTRUCTBLIP_MEMORY_BUDGET`;
  throw new DeviceError("BUDGET", message, { hint });
}

/** An out-of-memory error of weights, with what they take. Other errors are returned unchanged. */
export function withSizes(
  error: unknown,
  checkpoint: Pick<Checkpoint, "name" | "tensors">,
  dtype: StorageDType,
): unknown {
  if (!(error instanceof DeviceError && error.code === "GPU_OOM")) return error;
  const bytes = weightBytes(checkpoint, dtype);
  const message = `${checkpoint.name}: the GPU has no room for its weights, which take ${formatBytes(bytes)}`;
  return new DeviceError("GPU_OOM", message, { hint: proposal(checkpoint, bytes - 1), cause: error });
}

/** The most precise dtype whose weights take at most `most` bytes. */
function proposal(checkpoint: Pick<Checkpoint, "tensors">, most: number): string {
  const found = PROPOSED.find((dtype) => weightBytes(checkpoint, dtype) <= most);
  if (found) return `dtype: "${found}" takes ${formatBytes(weightBytes(checkpoint, found))}`;
  return `it is too large in every dtype: int4 takes ${formatBytes(weightBytes(checkpoint, "int4"))}`;
}
