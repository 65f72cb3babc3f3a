/** How vitest runs the tests. `npm test` also runs what is not a vitest test: see scripts/test.mjs. */

import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    setupFiles: ["test/setup.ts"],
    // A process for each file: a crash in a driver takes down one file, and a lost device stays lost there.
    pool: "forks",
    // Software drivers use every core for each dispatch; more workers only get in each other's way.
    maxWorkers: 2,
    // lavapipe compiles a shader at its first dispatch, which takes seconds for a large one.
    testTimeout: 120_000,
    hookTimeout: 120_000,
  },
});
