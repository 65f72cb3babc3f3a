/** Tile sizes and workgroups of matmul_tile, matvec_blocks and attention_flash. Pure, as plan.ts. */
import type { Caps } from "./caps.ts";

/**
 * The subgroup size to ask for, if the adapter has 32 and 64 (RDNA): Dawn's default is 64, but RDNA dual-issues multiply-adds only
 * with 32.
 */
export function subgroupSizeOf(caps: Caps): number | undefined {
  return caps.subgroupSizeControl && caps.subgroupMinSize === 32 && caps.subgroupMaxSize > 32 ? 32 : undefined;
}

/** Overrides of matmul_tile. */
export interface Tiling {
  /** Rows of a thread. */
  readonly TM: number;
  /** Threads of a workgroup, along columns and along rows. */
  readonly WX: number;
  readonly WY: number;
  /** Split-K: ranges of K, each with its own workgroups. */
  readonly SPLITS: number;
}

/** Sums of a row of a thread. */
const TN = 4;
const WX = 32;
/** Tiles, with the relative cost of a multiply-add: the more rows a thread has, the fewer reads of shared memory it needs. */
export const TILES = [
  { TM: 4, WX, WY: 4, cost: 1.59 },
  { TM: 8, WX, WY: 4, cost: 1.14 },
  { TM: 8, WX, WY: 8, cost: 1.09 },
  { TM: 11, WX, WY: 4, cost: 1.03 },
  { TM: 11, WX, WY: 8, cost: 1 },
] as const;
/** Threads that fill a GPU: fewer take as long. */
const ENOUGH_THREADS = 128 * 256;
/** Few, because each is compiled separately. */
const SPLITS = [1, 2, 4, 8] as const;
/** Least numbers of K in a split. */
const LEAST_OF_SPLIT = 64;

/**
 * The tile and the splits of K for a product of x [M, K] and a weight [N, K], chosen together by estimated time. Larger tiles read
 * shared memory less, but are fewer; splits give more workgroups, but their partial sums must be added. The choice does not depend
 * on shards or on a gate, so that neither changes a bit of the result.
 */
export function planTiling([M, N, K]: readonly [number, number, number], caps: Caps): Tiling {
  // 11 rows take 170 registers a thread: too many for GPUs with subgroups below 32 threads, which have fewer registers, and with 64,
  // where they would leave too few subgroups in flight.
  const hasRegisters = caps.subgroups && caps.subgroupMinSize === 32;
  // The partial sums are one binding.
  const fitting = Math.floor(caps.maxBindingBytes / (4 * M * N));
  const mostSplits = Math.max(1, Math.min(Math.floor(K / LEAST_OF_SPLIT), fitting));
  let best: { readonly tiling: Tiling; readonly time: number } | undefined;
  for (const { cost, ...tile } of TILES) {
    if (tile.TM > 8 && !hasRegisters) continue;
    const threads = tilesOf(tile, M, N) * tile.WX * tile.WY;
    for (const splits of SPLITS) {
      if (splits > mostSplits) break;
      // Unit: a multiply-add of 256 threads. A number written and read costs 1, a launch 600,000.
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

/** Bytes of shared memory for a block of x in matvec_blocks. */
const BYTES_OF_BLOCK = 144;

/**
 * WG and LANES of matvec_blocks for M rows of x: as many lanes along K as shared memory allows.
 *
 * @param isNormed whether the product computes the norm of x: larger workgroups, which load x and the norm's weight less often
 */
export function planBlocks(
  M: number,
  { maxWorkgroupStorageBytes }: Pick<Caps, "maxWorkgroupStorageBytes">,
  isNormed = false,
) {
  const bytes = maxWorkgroupStorageBytes - (isNormed ? 4 * 256 : 0);
  const most = Math.min(bytes, 128 * BYTES_OF_BLOCK) / (BYTES_OF_BLOCK * M); // above this, too few workgroups fit on a core
  const LANES = Math.min(64, 2 ** Math.floor(Math.log2(most)));
  if (M === 1) return { LANES, WG: isNormed ? 256 : 64 };
  return { LANES, WG: LANES < 16 ? 64 : 128 };
}

/** WG and IN_FLIGHT are overrides of attention_flash; BT is the queries of a workgroup. */
export interface FlashTiling {
  readonly WG: number;
  readonly IN_FLIGHT: number;
  readonly BT: number;
}

/** The tiling of attention_flash: half the threads for few queries, or if a head would exceed shared memory. */
export function planFlash(
  { T, d }: { readonly T: number; readonly d: number },
  { isSoftware, maxWorkgroupStorageBytes }: Pick<Caps, "isSoftware" | "maxWorkgroupStorageBytes">,
): FlashTiling {
  const bytesOf = (WG: number) => WG * (16 * Math.ceil(d / 16) + 136) + 512;
  const WG = T <= 8 || bytesOf(64) > maxWorkgroupStorageBytes ? 32 : 64;
  // GPUs hide latency by loads in flight; on software adapters they only add code.
  return { WG, IN_FLIGHT: isSoftware ? 1 : 4, BT: WG / 4 };
}
