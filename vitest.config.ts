/** How vitest runs the tests. `npm test` also runs what is not a vitest test: see scripts/test.mjs. */

import { defineConfig } from "vitest/config";
import { BaseSequencer, type TestSpecification } from "vitest/node";

const ALL = process.env.INSTRUCTBLIP_TEST_ALL === "1";

/** The file that takes as long as all others together in `npm run test:all` is first, and the others beside it. */
class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const isLongest = ({ moduleId }: TestSpecification) => moduleId.endsWith("injected.test.ts");
    return (await super.sort(files)).sort((a, b) => Number(isLongest(b)) - Number(isLongest(a)));
  }
}

/** Tests of what a process has once: the source of its adapters, its memory, its open files. */
const OWN_PROCESS = [
  "test/tensor/device/{device,gpu,plan,tuned_plan}.test.ts",
  "test/scripts/gpu.node.test.ts",
  "test/instructblip/pretrained/{injected,memory}.test.ts",
  "test/instructblip/cli/open_files.test.ts",
  "test/fuzz/fuzz.test.ts",
];

export default defineConfig({
  test: {
    setupFiles: ["test/setup.ts"],
    pool: "forks",
    // Software drivers use every core for each dispatch; more workers only get in each other's way.
    maxWorkers: 2,
    // lavapipe compiles a shader at its first dispatch, which takes seconds for a large one.
    testTimeout: 300_000,
    hookTimeout: 300_000,
    sequence: { sequencer: LongestFirst },
    projects: [
      {
        extends: true,
        test: { name: "own process", include: OWN_PROCESS, sequence: { groupOrder: 0 } },
      },
      {
        extends: true,
        test: {
          name: "shared process",
          include: ["test/**/*.test.ts"],
          exclude: OWN_PROCESS,
          // Two processes run these files in turn: to start one for each takes a quarter of the whole run. `npm run test:all`
          // does start one for each, so that no file comes to rely on another.
          isolate: ALL,
          sequence: { groupOrder: ALL ? 0 : 1 },
        },
      },
    ],
  },
});
