/** The goldens of BLIP-2, of videos, of other image sizes and of legacy checkpoints, compared as InstructBLIP's are. */
import { expect, test } from "vitest";
import { testDevice } from "../device.ts";
import { goldenFolder, SIBLINGS } from "../golden_folder.ts";
import { compareStages, failures, Golden } from "./golden.ts";

const device = await testDevice();

test.each(SIBLINGS)("%s", async (name) => {
  const golden = await Golden.open(goldenFolder(name));
  const rows = await compareStages(golden, device);
  await golden.close();
  expect(failures(rows)).toEqual([]);
  // A golden that compared nothing would pass: each stage must have rows.
  for (const stage of ["image", "module", "vision", "qformer", "projection", "logits", "tokens", "text"]) {
    expect(
      rows.some((row) => row.stage === stage),
      stage,
    ).toBe(true);
  }
});
