import { expect, test } from "vitest";
import type { Caps } from "../../../src/tensor/device/caps.ts";
import {
  planBlocks,
  planFlash,
  planTiling,
  subgroupSizeOf,
  TILES,
  tilesOf,
} from "../../../src/tensor/device/tiling.ts";

/** The caps that a tiling depends on. */
const GPU = {
  subgroups: true,
  subgroupMinSize: 32,
  subgroupMaxSize: 32,
  subgroupSizeControl: true,
  maxBindingBytes: 2 ** 31,
  maxWorkgroupStorageBytes: 32_768,
} as Caps;
const RDNA = { ...GPU, subgroupMaxSize: 64 };
const SMALL_FILE = { ...GPU, subgroupMinSize: 8 };

/** The layers of a ViT, a Q-Former and a language model, and what is small or odd. */
const SIZES = [
  ...[[257, 4224, 1408], [257, 1408, 1408], [257, 6144, 1408], [257, 1408, 6144], [32, 768, 768], [32, 3072, 768]],
  ...[[64, 12_288, 4096], [64, 4096, 4096], [64, 22_016, 4096], [64, 4096, 11_008], [2056, 4224, 1408], [4096, 4096, 4096]],
  ...[[1, 1, 1], [9, 1, 1], [9, 67, 60], [17, 5, 63], [97, 131, 127], [9, 4096, 128]],
] as [number, number, number][]; // biome-ignore format: a table

const tilingOf = (M: number, N: number, K: number, caps = GPU) => {
  const tiling = planTiling([M, N, K], caps);
  return { ...tiling, workgroups: tilesOf(tiling, M, N) * tiling.SPLITS };
};

test.each([
  ["a GPU", GPU],
  ["a GPU with few registers a thread", SMALL_FILE],
  ["a GPU without subgroups", { ...GPU, subgroups: false }],
])("%s: tiles cover a product, and parts of K are none too short", (_, caps) => {
  for (const [M, N, K] of SIZES) {
    const { TM, WX, WY, SPLITS, workgroups } = tilingOf(M, N, K, caps);
    expect(TILES.some((tile) => tile.TM === TM && tile.WX === WX && tile.WY === WY)).toBe(true);
    if (caps !== GPU) expect(TM).toBeLessThanOrEqual(8);
    expect([1, 2, 4, 8]).toContain(SPLITS);
    if (SPLITS > 1) expect(K / SPLITS).toBeGreaterThanOrEqual(64);
    expect(workgroups * TM * WY * 4 * WX).toBeGreaterThanOrEqual(M * N * SPLITS);
  }
});

test("split-K is used for few tiles, not for many", () => {
  const splits = (...sizes: [number, number, number]) => tilingOf(...sizes).SPLITS;
  expect([splits(257, 4224, 1408), splits(257, 6144, 1408), splits(64, 22_016, 4096)]).toEqual([1, 1, 1]);
  expect([splits(257, 1408, 6144), splits(64, 4096, 4096), splits(64, 4096, 11_008)].every((s) => s > 1)).toBe(true);
  expect([splits(32, 768, 768), splits(9, 67, 63)]).toEqual([8, 1]);
  for (const [M, N, K] of SIZES.filter(([M, N, K]) => M * N * K > 1e8)) {
    expect(tilingOf(M, N, K).workgroups).toBeGreaterThanOrEqual(96);
  }
});

test("257 rows get tiles with few unused rows; a batch gets the largest", () => {
  expect(tilingOf(257, 6144, 1408)).toMatchObject({ TM: 11, WY: 8, SPLITS: 1, workgroups: 144 });
  expect(tilingOf(4096, 4096, 4096)).toMatchObject({ TM: 11, WY: 8, SPLITS: 1 });
  expect(tilingOf(64, 22_016, 4096)).toMatchObject({ TM: 8, WY: 8, workgroups: 172 });
  expect(tilingOf(9, 4096, 4096).TM).toBe(4);
});

test("the partial sums fit one binding", () => {
  const parts = (maxBindingBytes: number) => planTiling([32, 768, 768], { ...GPU, maxBindingBytes }).SPLITS;
  expect([parts(8 * 4 * 32 * 768), parts(8 * 4 * 32 * 768 - 1), parts(1)]).toEqual([8, 4, 1]);
});

test("shared memory and threads are within WebGPU's default limits", () => {
  for (const { TM, WX, WY } of TILES) {
    expect(64 * TM * WY + 320 * WX).toBeLessThanOrEqual(16_384);
    expect(WX * WY).toBeLessThanOrEqual(256);
  }
  for (const maxWorkgroupStorageBytes of [16_384, 32_768, 65_536]) {
    for (let i = 0; i < 16; i++) {
      const [M, isNormed] = [1 + (i >> 1), i % 2 === 1];
      const { LANES, WG } = planBlocks(M, { maxWorkgroupStorageBytes }, isNormed);
      expect(144 * M * LANES + (isNormed ? 4 * WG : 0)).toBeLessThanOrEqual(maxWorkgroupStorageBytes);
      expect(WG).toBeLessThanOrEqual(256);
      expect(LANES).toBeGreaterThanOrEqual(8);
      expect(WG % LANES).toBe(0);
      // Every thread's sums find room where x was, and what it fetches in its registers.
      expect(9 * LANES).toBeGreaterThanOrEqual(WG);
      expect((LANES * 8) % WG).toBe(0);
      expect((M * LANES * 8) / WG).toBeLessThanOrEqual(8);
    }
  }
});

test("a subgroup size is requested if Dawn's default is another", () => {
  expect(subgroupSizeOf(RDNA)).toBe(32);
  expect(subgroupSizeOf(GPU)).toBeUndefined();
  expect(subgroupSizeOf({ ...RDNA, subgroupSizeControl: false })).toBeUndefined();
  expect(subgroupSizeOf({ ...RDNA, subgroupMinSize: 8, subgroupMaxSize: 32 })).toBeUndefined();
});

test("attention's workgroups fit shared memory for every head size, and are smaller for few queries", () => {
  const bytesOf = (WG: number, d: number) => WG * (16 * Math.ceil(d / 16) + 136) + 512;
  for (const maxWorkgroupStorageBytes of [16_384, 32_768, 65_536]) {
    for (const d of [1, 64, 80, 88, 128, 256]) {
      const caps = { isSoftware: false, maxWorkgroupStorageBytes };
      const { WG, BT } = planFlash({ T: 257, d }, caps);
      expect(bytesOf(WG, d)).toBeLessThanOrEqual(maxWorkgroupStorageBytes);
      if (WG === 32) expect(bytesOf(64, d)).toBeGreaterThan(maxWorkgroupStorageBytes);
      expect(BT).toBe(WG / 4);
      expect(planFlash({ T: 8, d }, caps)).toEqual({ WG: 32, IN_FLIGHT: 4, BT: 8 });
    }
  }
  expect(planFlash({ T: 257, d: 88 }, GPU)).toEqual({ WG: 64, IN_FLIGHT: 4, BT: 16 });
  expect(planFlash({ T: 64, d: 128 }, { ...GPU, maxWorkgroupStorageBytes: 16_384 }).WG).toBe(32);
  expect(planFlash({ T: 257, d: 88 }, { ...GPU, isSoftware: true }).IN_FLIGHT).toBe(1);
});
