#!/usr/bin/env node
/**
 * The whole test suite: the kernels module is fresh, types and linter pass, and every vitest test passes. All stages run
 * even if an early one fails. Tests can be selected: `npm test -- -t softmax`, `npm test -- test/kernels`. With --all (`npm
 * run test:all`) tests that run a sample of many cases run all of them: INSTRUCTBLIP_TEST_ALL=1. The last line of a complete
 * run is `N passed, N failed`: each vitest test and each other stage counts once.
 */

import { spawn } from "node:child_process";
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));

/** Each stage but the tests: its name, the arguments to Node, and a description. */
const CHECKS = [
  {
    name: "kernels module is fresh",
    args: ["scripts/build_kernels.mjs", "--check"],
    about: "src/tensor/kernels.gen.ts is what kernels/ makes",
  },
  { name: "types", args: ["node_modules/@typescript/native/bin/tsc", "--noEmit"], about: "tsc --noEmit" },
  { name: "lint and format", args: ["node_modules/@biomejs/biome/bin/biome", "check", "."], about: "biome check" },
];
const TESTS = "tests";

/** Dawn's warnings about nearly every driver, which cannot be disabled. */
const HARMLESS = /^Warning: maxDynamic\w+ artificially reduced from \d+ to \d+/;

/** Runs Node with these arguments, and without the harmless lines on stderr if asked; its exit code, 1 for a signal. */
function runNode(args, { filtered = false } = {}) {
  return new Promise((resolve) => {
    const color = filtered && process.stderr.isTTY && !process.env.NO_COLOR ? { FORCE_COLOR: "1" } : {};
    const stdio = ["inherit", "inherit", filtered ? "pipe" : "inherit"];
    const child = spawn(process.execPath, args, { cwd: ROOT, stdio, env: { ...process.env, ...color } });
    if (filtered) {
      createInterface({ input: child.stderr }).on("line", (line) => {
        if (!HARMLESS.test(line)) process.stderr.write(line + "\n");
      });
    }
    child.on("error", (error) => {
      process.stderr.write(`${error.message}\n`);
      resolve(1);
    });
    child.on("close", (code) => resolve(code ?? 1));
  });
}

/**
 * Counts a vitest JSON report: `{ passed, failed, skipped }`. What fails outside any test counts as one failure: a file
 * that cannot be loaded, a non-zero exit without a failed test (an unhandled error), no report, or no test run at all.
 */
export function countTests(report, exitCode) {
  if (!report) return { passed: 0, failed: 1, skipped: 0 };
  const passed = report.numPassedTests;
  const skipped = report.numPendingTests + report.numTodoTests;
  const broken = report.testResults.filter(
    (file) => file.status === "failed" && !file.assertionResults.some((test) => test.status === "failed"),
  );
  let failed = report.numFailedTests + broken.length;
  if (failed === 0 && (exitCode !== 0 || passed === 0)) failed = 1;
  return { passed, failed, skipped };
}

async function runVitest(args) {
  const folder = fs.mkdtempSync(join(tmpdir(), "instructblip-test-"));
  const file = join(folder, "report.json");
  try {
    const reporters = ["--reporter=default", "--reporter=json", `--outputFile.json=${file}`];
    const code = await runNode(["node_modules/vitest/vitest.mjs", "run", ...reporters, ...args], { filtered: true });
    const report = fs.existsSync(file) ? JSON.parse(fs.readFileSync(file, "utf8")) : undefined;
    return countTests(report, code);
  } finally {
    fs.rmSync(folder, { recursive: true, force: true });
  }
}

const HELP = `usage: npm test [-- [options] [PATHS]]
       npm run test:all [-- [options] [PATHS]]

Runs each of these, even if one before it fails:

${CHECKS.map(({ name, about }) => `  ${name.padEnd(24)} ${about}\n`).join("")}  ${TESTS.padEnd(24)} vitest: all tests, or those in files whose paths contain one of PATHS

  -t, --testNamePattern PATTERN   only the tests whose names match
  --testTimeout MS                what a test may take
  --bail N                        stops after N failed tests
  --all                           every case where a sample would be taken; test:all has it
  -h, --help
`;

/** The command line; exits with 2 for unknown arguments. */
function readArguments(args) {
  const options = {
    testNamePattern: { type: "string", short: "t" },
    testTimeout: { type: "string" },
    bail: { type: "string" },
    all: { type: "boolean", default: false },
    help: { type: "boolean", short: "h", default: false },
  };
  try {
    const { values, positionals } = parseArgs({ args, options, allowPositionals: true });
    const { all, help, ...rest } = values;
    return {
      all,
      help,
      vitestArgs: [...Object.entries(rest).map(([key, value]) => `--${key}=${value}`), ...positionals],
    };
  } catch (error) {
    process.stderr.write(`error: ${error.message}\n${HELP}`);
    process.exit(2);
  }
}

async function main({ all, help, vitestArgs }) {
  if (help) return void process.stdout.write(HELP);
  if (all) process.env.INSTRUCTBLIP_TEST_ALL = "1";
  process.stdout.on("error", ({ code }) => process.exit(code === "EPIPE" ? 141 : 1)); // stdout was closed
  // Ctrl-C also reaches the running stage; this process ends after it, and starts no other.
  let interrupted = false;
  process.on("SIGINT", () => {
    interrupted = true;
  });

  const rows = [];
  async function stage(name, run) {
    if (interrupted) return;
    console.log(`\n== ${name}`);
    const start = performance.now();
    const counts = await run();
    rows.push({ name, ...counts, seconds: (performance.now() - start) / 1000 });
  }
  for (const { name, args } of CHECKS) {
    await stage(name, async () => {
      const ok = (await runNode(args)) === 0;
      return { passed: ok ? 1 : 0, failed: ok ? 0 : 1, skipped: 0 };
    });
  }
  await stage(TESTS, () => runVitest(vitestArgs));

  console.log("\n== summary");
  for (const { name, passed, failed, skipped, seconds } of rows) {
    const counts = `${passed} passed, ${failed} failed${skipped ? `, ${skipped} skipped` : ""}`;
    console.log(`${failed ? "FAIL" : "ok  "}  ${name.padEnd(24)} ${counts.padEnd(40)} ${seconds.toFixed(1)} s`);
  }
  const total = (key) => rows.reduce((sum, row) => sum + row[key], 0);
  if (interrupted) {
    process.exitCode = 130;
    return;
  }
  process.exitCode = total("failed") ? 1 : 0;
  console.log(`${total("passed")} passed, ${total("failed")} failed`);
}

if (process.argv[1] && import.meta.url === pathToFileURL(fs.realpathSync(process.argv[1])).href) {
  await main(readArguments(process.argv.slice(2)));
}
