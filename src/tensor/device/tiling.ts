/** How work is shared out among the workgroups of matmul_tile, matvec_blocks and attention_flash. Pure, as plan.ts is. */
import type { Caps } from "./caps.ts";

/**
 * The size of subgroups to ask for, where there is a choice: RDNA has 32 threads or 64. Dawn would take 64, but two
 * multiply-adds are issued at a time with 32 only.
 */
export function subgroupSizeOf(caps: Caps): number | undefined {
  return caps.subgroupSizeControl && caps.subgroupMinSize === 32 && caps.subgroupMaxSize > 32 ? 32 : undefined;
}

/** The names are the kernel's overrides. */
export interface Tiling {
  /** Rows of a thread. */
  readonly TM: number;
  /** Threads across a workgroup, and down. */
  readonly WX: number;
  readonly WY: number;
  /** Parts of K, each with workgroups of its own. */
  readonly SPLITS: number;
}

/** Columns of a thread. */
const TN = 4;
const WX = 32;
/** Tiles, and what a multiply-add costs in them: shared memory is read the less, the more rows a thread has. */
export const TILES = [
  { TM: 4, WX, WY: 4, cost: 1.59 },
  { TM: 8, WX, WY: 4, cost: 1.14 },
  { TM: 8, WX, WY: 8, cost: 1.09 },
  { TM: 11, WX, WY: 4, cost: 1.03 },
  { TM: 11, WX, WY: 8, cost: 1 },
] as const;
/** As many threads keep a GPU busy: fewer take as long. */
const ENOUGH_THREADS = 128 * 256;
/** Few, for each is a kernel to compile. */
const SPLITS = [1, 2, 4, 8] as const;
/** Numbers of K in a part, at least. */
const LEAST_OF_PART = 64;

/**
 * The tile for M rows of K numbers times a weight of N, and the parts that K is split in, chosen together: a large tile reads
 * shared memory less, but there are few of them; parts make more, but must be added up. Whether the weight is sharded or
 * gated changes nothing, so that no bit of the result depends on it.
 */
export function planTiling([M, N, K]: readonly [number, number, number], caps: Caps): Tiling {
  // 11 rows take 170 registers of a thread: too many where subgroups may have fewer than 32 threads, which have fewer of them,
  // and where they have 64, of which two or more are to be in flight.
  const hasRegisters = caps.subgroups && caps.subgroupMinSize === 32;
  // The parts are bound as one tensor.
  const fitting = Math.floor(caps.maxBindingBytes / (4 * M * N));
  const mostSplits = Math.max(1, Math.min(Math.floor(K / LEAST_OF_PART), fitting));
  let best: { readonly tiling: Tiling; readonly time: number } | undefined;
  for (const { cost, ...tile } of TILES) {
    if (tile.TM > 8 && !hasRegisters) continue;
    const threads = tilesOf(tile, M, N) * tile.WX * tile.WY;
    for (const splits of SPLITS) {
      if (splits > mostSplits) break;
      // In multiply-adds of 256 threads: a number written and read takes as long as one, a launch as long as 600,000.
      const adding = splits > 1 ? (splits + 1) * M * N + 600_000 : 0;
      const turns = Math.max(1, (threads * splits) / ENOUGH_THREADS);
      const time = turns * 256 * tile.TM * TN * (K / splits) * cost + adding;
      if (!best || time < best.time) best = { tiling: { ...tile, SPLITS: splits }, time };
    }
  }
  return best!.tiling;
}

/** Tiles of M rows by N sums. */
export function tilesOf({ TM, WX, WY }: Pick<Tiling, "TM" | "WX" | "WY">, M: number, N: number): number {
  return Math.ceil(M / (TM * WY)) * Math.ceil(N / (TN * WX));
}

/** Bytes of shared memory that a block of x takes in matvec_blocks. */
const BYTES_OF_BLOCK = 144;

/** Threads of a workgroup of matvec_blocks, and how many of them lie along K, for M rows of x: as many as shared memory allows. */
export function planBlocks(M: number, { maxWorkgroupStorageBytes }: Pick<Caps, "maxWorkgroupStorageBytes">) {
  const most = Math.min(maxWorkgroupStorageBytes, 128 * BYTES_OF_BLOCK) / (BYTES_OF_BLOCK * M); // more leaves room for few workgroups
  const LANES = Math.min(64, 2 ** Math.floor(Math.log2(most)));
  return { LANES, WG: M === 1 || LANES < 16 ? 64 : 128 };
}

/** WG and IN_FLIGHT are overrides of attention_flash; BT is the queries of a workgroup. */
export interface FlashTiling {
  readonly WG: number;
  readonly IN_FLIGHT: number;
  readonly BT: number;
}

/** Workgroups of attention_flash: half as large for few queries, and for heads that would not fit shared memory. */
export function planFlash(
  { T, d }: { readonly T: number; readonly d: number },
  { isSoftware, maxWorkgroupStorageBytes }: Pick<Caps, "isSoftware" | "maxWorkgroupStorageBytes">,
): FlashTiling {
  const bytesOf = (WG: number) => WG * (16 * Math.ceil(d / 16) + 136) + 512;
  const WG = T <= 8 || bytesOf(64) > maxWorkgroupStorageBytes ? 32 : 64;
  // GPUs need several loads in flight; on software drivers they are only more code to compile.
  return { WG, IN_FLIGHT: isSoftware ? 1 : 4, BT: WG / 4 };
}
