/** The numbers scripts/test.mjs prints last. */

import { expect, test } from "vitest";
// @ts-expect-error: plain JavaScript.
import { countTests } from "../../scripts/test.mjs";

const file = (...statuses: string[]) => ({
  status: statuses.length === 0 || statuses.includes("failed") ? "failed" : "passed",
  assertionResults: statuses.map((status) => ({ status })),
});

function report(...files: ReturnType<typeof file>[]) {
  const count = (status: string) => files.flatMap((f) => f.assertionResults).filter((t) => t.status === status).length;
  return {
    numPassedTests: count("passed"),
    numFailedTests: count("failed"),
    numPendingTests: count("skipped"),
    numTodoTests: count("todo"),
    testResults: files,
  };
}

test("tests are counted as vitest counted them", () => {
  const counts = countTests(report(file("passed", "failed", "skipped"), file("passed", "todo")), 1);
  expect(counts).toEqual({ passed: 2, failed: 1, skipped: 2 });
  expect(countTests(report(file("passed")), 0)).toEqual({ passed: 1, failed: 0, skipped: 0 });
});

test("what fails outside a test is a failure too", () => {
  const cannotBeLoaded = file();
  expect(countTests(report(file("passed"), cannotBeLoaded), 1)).toEqual({ passed: 1, failed: 1, skipped: 0 });
  const unhandledError = report(file("passed"));
  expect(countTests(unhandledError, 1)).toEqual({ passed: 1, failed: 1, skipped: 0 });
  const crashed = undefined;
  expect(countTests(crashed, 1).failed).toBe(1);
});

test("a run of no tests is not a success", () => {
  expect(countTests(report(file("skipped")), 0).failed).toBe(1);
  expect(countTests(report(), 0).failed).toBe(1);
});
