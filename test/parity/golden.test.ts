/** Every committed golden, climbed stage by stage, on the ordinary device and on two that are harder to please. */
import { readdirSync } from "node:fs";
import { afterAll, describe, expect, test } from "vitest";
import { otherDevice, testDevice } from "../device.ts";
import { climb, failures, Golden } from "./golden.ts";

const data = new URL("../golden/data/", import.meta.url);
const names = readdirSync(data);

const devices = {
  "the adapter as it is": await testDevice(),
  // Weights above the limit are split by rows.
  "a binding limit of 1 MiB": await otherDevice({ max_binding: 2 ** 20 }),
  "default WebGPU limits": await otherDevice({ default_limits: true }),
};

for (const [title, device] of Object.entries(devices)) {
  describe(title, () => {
    for (const name of names) {
      test(name, async () => {
        const golden = await Golden.open(new URL(name, data).pathname);
        const rows = await climb(golden, device);
        await golden.close();
        expect(failures(rows)).toEqual([]);
        // A golden that compared nothing would pass: each stage must have rows.
        for (const stage of ["image", "ids", "module", "vision", "qformer", "projection", "logits", "tokens", "text"]) {
          expect(
            rows.some((row) => row.stage === stage),
            stage,
          ).toBe(true);
        }
      });
    }
  });
}

afterAll(() => {
  for (const device of Object.values(devices)) device.destroy();
});
