/** Scales of the rows of matrices whose `compute_dtype` is f16: rows are multiplied by them before they are rounded. */
import { copy } from "../tensor/ops/copy.ts";
import { shardRows } from "../tensor/ops/embedding.ts";
import { f16Scales } from "../tensor/ops/f16_scales.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { type Shard, Weight } from "../tensor/weight.ts";

/** Numbers looked at in one go. */
const AT_ONCE = 4 * 2 ** 20;

/**
 * Scales rows so that they keep all digits that f16 has: to be called once matrices are loaded. Those stored as f16 stay as they
 * are.
 *
 * @throws DeviceError; the signal's reason
 */
export async function setF16Scales(
  parameters: Iterable<Weight | Tensor>,
  signal?: AbortSignal | undefined,
): Promise<void> {
  const wholes = [...parameters].flatMap((parameter) => (parameter instanceof Weight ? [parameter.whole] : []));
  for (const weight of new Set(wholes)) {
    if (weight.compute_dtype !== "f16" || weight.dtype === "f16") continue;
    for (const shard of weight.shards) {
      await weight.device.exclusive(() => scaleRows(weight, shard, signal), { signal });
    }
  }
}

async function scaleRows(weight: Weight, shard: Shard, signal: AbortSignal | undefined): Promise<void> {
  const { device, K4 } = weight;
  const N = shard.bits.shape[0]!;
  const most = Math.max(1, Math.floor(Math.min(AT_ONCE, device.caps.maxBindingBytes / 4) / (4 * K4)));
  for (let first = 0; first < N; first += most) {
    signal?.throwIfAborted();
    const ids = Uint32Array.from({ length: Math.min(most, N - first) }, (_, i) => first + i);
    device.scope(() => {
      const rows = shardRows(device.tensor(ids, [ids.length]), weight, shard);
      copy(f16Scales(rows), shard.f16_scales!.narrow(0, first, ids.length));
    });
    device.flush();
  }
  await device.sync();
}
