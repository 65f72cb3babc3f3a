/** The work that launches state for a profile is that of the cases, which count it from the shapes of their op. */
import { afterEach, describe, expect, test, vi } from "vitest";
import { CASES } from "../../src/tensor/cases/support/all.ts";
import { AWKWARD_SHAPES, QUICK_SHAPES } from "../../src/tensor/cases/support/shapes.ts";
import { workOf } from "../../src/tensor/device/profile.ts";
import type { Launch, LaunchWork } from "../../src/tensor/tensor.ts";
import { testDevice } from "../device.ts";
import { ALL } from "../rounds.ts";

const device = await testDevice();
afterEach(() => vi.restoreAllMocks());

/** Nothing is launched. */
async function worksOf(run: () => unknown): Promise<LaunchWork[]> {
  const works: LaunchWork[] = [];
  vi.spyOn(device, "launch").mockImplementation((launch: Launch) => {
    works.push(workOf(launch));
  });
  await device.scope(run);
  vi.restoreAllMocks();
  return works;
}

/**
 * Bytes of one launch, as part of the case's. Cases leave out what is small beside the rest (ids, labels, a residual), count
 * what is changed in place twice, and a gated product's result as if it were not halved.
 */
const ONE_LAUNCH = [0.7, 1.25] as const;
/** Of several: what they write for each other is in it. */
const SEVERAL = [0.95, 4] as const;
/** So few bytes that what cases leave out is as much. */
const FEW = 1024;
const EXEMPT = ["increment"];

describe.each(Object.keys(CASES))("%s", (stem) => {
  test.each(ALL ? [AWKWARD_SHAPES, QUICK_SHAPES] : [AWKWARD_SHAPES])("its launches", async (shapes) => {
    for (const group of CASES[stem](shapes, device.caps)) {
      await device.scope(async () => {
        const opened = await group.open(device);
        for (const variant of group.variants) {
          const works = await worksOf(() => void device.scope(() => opened.run(variant).storage));
          const name = `${stem} ${variant} ${group.shape}`;
          const flops = works.reduce((sum, one) => sum + one.flops, 0);
          const bytes = works.reduce((sum, one) => sum + one.bytes, 0);
          expect(flops, name).toBe(opened.flops);
          const [least, most] = works.length === 1 ? ONE_LAUNCH : SEVERAL;
          if (opened.bytes < FEW || EXEMPT.includes(stem)) continue;
          expect(bytes / opened.bytes, name).toBeGreaterThan(least);
          expect(bytes / opened.bytes, name).toBeLessThan(most);
        }
        opened.dispose?.();
      });
    }
  });
});
