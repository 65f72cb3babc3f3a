/**
 * What an adapter can do at most, measured by kernels that only launch, multiply-add, copy or read (kernels/bench), and the
 * least time of some work by that (roofline; Williams et al. 2009).
 */
import type { Device, LaunchTime, ProfileClock, Tensor } from "./tensor.ts";

/** The measured limits of an adapter; milliseconds. */
export interface Limits {
  readonly ms_per_launch: number;
  readonly ms_per_flop: number;
  /** Of memory within caches, up to `cached_bytes`, and beyond. */
  readonly ms_per_cached_byte: number;
  readonly ms_per_byte: number;
  readonly cached_bytes: number;
}

/** The bound of some work: the limit with the longest time. */
export type Bound = "launch" | "arithmetic" | "memory" | "cache";

/** Work, whose `cached` bytes are found in caches, and whose other bytes are not. */
export interface BoundedWork {
  readonly launches: number;
  readonly flops: number;
  readonly bytes: number;
  readonly cached: number;
}

/** The least time of some work by the limits, and which of them bounds it. Limits overlap, so the slowest counts. */
export function roofline(
  { launches, flops, bytes, cached }: BoundedWork,
  limits: Limits,
): { ms: number; bound: Bound } {
  const [near, far] = [cached * limits.ms_per_cached_byte, (bytes - cached) * limits.ms_per_byte];
  const times: [Bound, number][] = [
    ["launch", launches * limits.ms_per_launch],
    ["arithmetic", flops * limits.ms_per_flop],
    [near > far ? "cache" : "memory", near + far],
  ];
  const [bound, ms] = times.reduce((longest, time) => (time[1] > longest[1] ? time : longest));
  return { ms, bound };
}

const WG = 64;
/** As kernels/bench/limit_multiply_add.wgsl has them. */
const CHAINS = 4;
const UNROLL = 4;
/** As kernels/bench/limit_read.wgsl and limit_copy.wgsl have them. */
const READ_TURNS = 64;
const COPY_TURNS = 16;

/** A kernel that measures a limit. */
export interface LimitLaunch {
  readonly flops: number;
  readonly bytes: number;
  run(): Tensor;
}

/** Launches a kernel that does nothing. */
export function limitNoop(device: Device): LimitLaunch {
  const y = device.tensor([7], [1]);
  return {
    flops: 0,
    bytes: 0,
    run() {
      device.launch({ kernel: "limit_noop", bindings: { y }, params: { write: 0 }, workgroups: 1 });
      return y;
    },
  };
}

/** The result of every element of `limitMultiplyAdd`. */
export const MULTIPLY_ADDED = 4 * CHAINS;

/** Arithmetic in registers. */
export function limitMultiplyAdd(device: Device): LimitLaunch {
  // Enough invocations to fill a large GPU many times; few for a CPU, where they run in sequence.
  const [workgroups, turns] = device.caps.isSoftware ? [256, 128] : [8192, 256];
  // b is 0.25 and a 0.75: s ends at b / (1 - a) = 1 wherever it began, which f32 reaches in some hundred steps.
  const x = device.tensor([0.75, 0.25, 2, 0.5], [4]);
  return {
    flops: 2 * 4 * CHAINS * UNROLL * turns * WG * workgroups,
    bytes: 0,
    run() {
      const y = device.empty([WG * workgroups]);
      device.launch({ kernel: "limit_multiply_add", bindings: { x, y }, params: { turns }, workgroups });
      return y;
    },
  };
}

/** Copies x, f32[n], n a multiple of 4096. */
export function limitCopy(device: Device, x: Tensor): LimitLaunch {
  const groups = x.size / 4;
  return {
    flops: 0,
    bytes: 2 * x.bytes,
    run() {
      const y = device.empty([x.size]);
      const workgroups = Math.ceil(groups / COPY_TURNS / WG);
      device.launch({ kernel: "limit_copy", bindings: { x, y }, params: { groups }, workgroups });
      return y;
    },
  };
}

/** Reads x, f32[n], n a multiple of 16384, as in a matrix-vector product. */
export function limitRead(device: Device, x: Tensor): LimitLaunch {
  const groups = x.size / 4 / READ_TURNS;
  return {
    flops: 0,
    bytes: x.bytes,
    run() {
      const y = device.empty([x.size / READ_TURNS]);
      device.launch({ kernel: "limit_read", bindings: { x, y }, params: { groups }, workgroups: groups / WG });
      return y;
    },
  };
}

/** Numbers that each invocation of `limitRead` adds up, in turns of `4 * WG` numbers of its workgroup. */
export const READS = { turns: READ_TURNS, row: 4 * WG } as const;

const MiB = 2 ** 20;
/** Bytes that caches hold, and that they do not: of a CPU and of a GPU. */
const MEMORY = { software: [4 * MiB, 32 * MiB], gpu: [4 * MiB, 256 * MiB] } as const;
/** Runs of each kernel, of which the fastest counts; the first compiles it. The empty one is run in sequence. */
const RUNS = 8;
const EMPTY_RUNS = 64;

function filled(n: number): Float32Array {
  const numbers = new Float32Array(n);
  numbers.set(Float32Array.from({ length: 1021 }, (_, i) => i));
  for (let known = 1021; known < n; known *= 2) numbers.copyWithin(known, 0, known);
  return numbers;
}

/**
 * Measures the limits by the clock of a profile, so that times of that clock can be compared with them.
 *
 * @throws DeviceError; the signal's reason
 */
export async function measureLimits(
  device: Device,
  { clock, signal }: { clock?: ProfileClock | undefined; signal?: AbortSignal | undefined } = {},
): Promise<Limits> {
  const { caps } = device;
  const [cached, wanted] = MEMORY[caps.isSoftware ? "software" : "gpu"];
  const main = Math.min(wanted, 2 ** Math.floor(Math.log2(caps.maxBindingBytes)));
  /** The least time of a launch, over its `amount` of work. */
  const least = async (open: () => LimitLaunch, amountOf: (launch: LimitLaunch) => number) =>
    device.scope(async () => {
      signal?.throwIfAborted();
      const launch = open();
      let best: LaunchTime | undefined;
      const { launches } = await device.profile(
        async () => {
          const isEmpty = launch.bytes + launch.flops === 0;
          for (let i = 0; i < (isEmpty ? EMPTY_RUNS : RUNS); i++) {
            device.scope(() => void launch.run());
            if (!isEmpty) await device.sync();
          }
        },
        { clock },
      );
      for (const one of launches) if (one.ms > 0 && one.ms < (best?.ms ?? Number.POSITIVE_INFINITY)) best = one;
      return (best?.ms ?? 0) / amountOf(launch);
    });
  const bytesOf = ({ bytes }: LimitLaunch) => bytes;
  const ofBytes = async (bytes: number) => {
    // Not zeros, which a GPU may compress, and a CPU may not even allocate.
    const numbers = () => device.tensor(filled(bytes / 4), [bytes / 4]);
    const read = await least(() => limitRead(device, numbers()), bytesOf);
    return Math.min(read, await least(() => limitCopy(device, numbers().narrow(0, 0, bytes / 8)), bytesOf));
  };
  const [near, far] = [await ofBytes(cached), await ofBytes(main)];
  const limits = {
    ms_per_launch: await least(
      () => limitNoop(device),
      () => 1,
    ),
    ms_per_flop: await least(
      () => limitMultiplyAdd(device),
      (launch) => launch.flops,
    ),
    ms_per_cached_byte: Math.min(near, far),
    ms_per_byte: far,
    cached_bytes: cached,
  };
  device.memory.trim(); // the model needs the room
  return limits;
}
