/**
 * The limits of this machine, by kernels that only launch, multiply-add, read or copy (src/tensor/limits.ts). Other cases are
 * compared with these. They have no op; their checks need no tolerance.
 */

import { compare } from "../src/tensor/cases/support/compare.ts";
import { randomNumbers } from "../src/tensor/cases/support/data.ts";
import type { Group, Groups } from "../src/tensor/cases/support/group.ts";
import type { Shapes } from "../src/tensor/cases/support/shapes.ts";
import { TOLERANCES } from "../src/tensor/cases/support/tolerances.ts";
import {
  type Limits,
  limitCopy,
  limitMultiplyAdd,
  limitNoop,
  limitRead,
  MULTIPLY_ADDED,
  READS,
} from "../src/tensor/limits.ts";
import type { Tensor } from "../src/tensor/tensor.ts";
import { basisTime, type Measured } from "./harness.ts";

const KERNEL = "limit";

const one = (variant: string) => ({ kernel: KERNEL, variants: [variant], planned: variant });

/** Launching a kernel that does nothing. */
const noop: Group = {
  ...one("launch"),
  shape: "empty kernel",
  open: (device) => ({
    ...limitNoop(device),
    check: (output) => compare(output, [7], TOLERANCES.exact, "noop"),
  }),
};

/** Arithmetic in registers. */
const multiplyAdd: Group = {
  ...one("multiply-add"),
  shape: "in registers",
  open: (device) => ({
    ...limitMultiplyAdd(device),
    check: (output) =>
      compare(output, new Float32Array(output.length).fill(MULTIPLY_ADDED), { rel: 1e-6 }, "multiply-add"),
  }),
};

function sizeName(bytes: number): string {
  return `${bytes / 2 ** 20} MiB`;
}

/** Reading and writing. */
const copy = (bytes: number): Group => ({
  ...one("copy"),
  shape: sizeName(bytes),
  open(device) {
    const numbers = randomNumbers(bytes / 8);
    return {
      ...limitCopy(device, device.tensor(numbers, [numbers.length])),
      check: (output) => compare(output, numbers, TOLERANCES.exact, "copy"),
    };
  },
});

/** Reading, as in a matrix-vector product. */
const read = (bytes: number): Group => ({
  ...one("read"),
  shape: sizeName(bytes),
  open(device) {
    const numbers = randomNumbers(bytes / 4);
    return {
      ...limitRead(device, device.tensor(numbers, [numbers.length])),
      check(output) {
        const { turns, row } = READS;
        const expected = new Float64Array(output.length);
        numbers.forEach((value, i) => {
          expected[Math.floor(i / (row * turns)) * row + (i % row)] += value;
        });
        return compare(output, expected, { abs: 1e-5 }, "read"); // sums of 64 numbers below 1/32
      },
    };
  },
});

/** The driver's own copy, without a kernel: shows the overhead of software adapters; not a limit. */
const driverCopy = (bytes: number): Group => ({
  ...one("driver's copy"),
  shape: sizeName(bytes),
  open(device) {
    const n = bytes / 8;
    const numbers = randomNumbers(n);
    const x: Tensor = device.tensor(numbers, [n]);
    return {
      flops: 0,
      bytes,
      run() {
        const y = device.empty([n]);
        device.flush();
        const encoder = device.handle.createCommandEncoder();
        encoder.copyBufferToBuffer(x.storage.buffer, 0, y.storage.buffer, 0, x.bytes);
        device.handle.queue.submit([encoder.finish()]);
        return y;
      },
      check: (output) => compare(output, numbers, TOLERANCES.exact, "driver's copy"),
    };
  },
});

export const groups: Groups = ({ memory }, caps) => {
  // x of `read` must fit one binding; a power of two of it, so that it divides evenly.
  const main = Math.min(memory.main, 2 ** Math.floor(Math.log2(caps.maxBindingBytes)));
  return [noop, multiplyAdd, ...[memory.cached, main].flatMap((bytes) => [copy(bytes), read(bytes)]), driverCopy(main)];
};

/** The limits from the rows of `groups`: the best of each kind, by its fastest round. */
export function limitsOf(rows: readonly Measured[], { memory }: Pick<Shapes, "memory">): Limits {
  const least = (of: (row: Measured) => number, wanted: (row: Measured) => boolean) => {
    const times = rows.filter(wanted).map((row) => (basisTime(fastest(row)) ?? Number.NaN) / of(row));
    if (times.length === 0 || !times.every(Number.isFinite))
      throw new Error("a limit of this machine could not be measured");
    return Math.min(...times);
  };
  const moves = (row: Measured) => row.variant === "copy" || row.variant === "read";
  return {
    ms_per_launch: least(
      (row) => row.launches,
      (row) => row.variant === "launch",
    ),
    ms_per_flop: least(
      (row) => row.flops,
      (row) => row.variant === "multiply-add",
    ),
    ms_per_cached_byte: least(
      (row) => row.bytes,
      (row) => moves(row) && row.bytes <= memory.cached,
    ),
    ms_per_byte: least(
      (row) => row.bytes,
      (row) => moves(row) && row.bytes > memory.cached,
    ),
    cached_bytes: memory.cached,
  };
}

/** The better of two measurements of each limit. */
export function betterOf(before: readonly Measured[], after: readonly Measured[]): Measured[] {
  const ms = (row: Measured) => basisTime(fastest(row)) ?? Number.POSITIVE_INFINITY;
  return before.map((row, i) => (ms(after[i]) < ms(row) ? { ...after[i], first_ms: row.first_ms } : row));
}

function fastest(row: Measured): Pick<Measured, "basis" | "ms" | "cpu_ms" | "gpu_ms"> {
  return { basis: row.basis, ms: row.ms_min, cpu_ms: row.cpu_ms_min, gpu_ms: row.gpu_ms_min };
}
