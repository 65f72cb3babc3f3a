/** bench:dataset: the table of its rows, and with INSTRUCTBLIP_TEST_ALL=1 a small run as a user starts it. */
import { execFileSync, spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import {
  type DataRow,
  type ImagesRow,
  parseDataRows,
  type RunRow,
  renderData,
  replaceDataInDocs,
  SETTINGS,
} from "../../bench/dataset/results.ts";
import { readRowsOf } from "../../bench/files.ts";
import { compiled } from "../compiled.ts";
import { ALL } from "../rounds.ts";
import { temporaryFolder } from "../temporary.ts";
import { row } from "./row.ts";

const { adapter, vendor, architecture, software, cpu, cores, os, node, webgpu, commit, date } = row();
const machine = { adapter, vendor, architecture, software, cpu, cores, os, node, webgpu, commit, date };
const run = (more: Partial<RunRow>): RunRow => ({
  ...machine,
  ...{ kind: "run", setting: "one by one", command: "evaluate", part: 0, questions: 10 },
  ...{ workers: 0, per_second: 2, busy: 0.5 },
  ...more,
});
const images = (more: Partial<ImagesRow>): ImagesRow => ({
  ...machine,
  ...{ kind: "images", images: 4, bytes: 600_000, workers: 0, main_ms: 9, ms: 15.5 },
  ...more,
});

/** A machine that is three times as fast from part 1 on: ratios are of the same part. */
const ROWS: DataRow[] = [
  ...[0, 1, 2].flatMap((part) => {
    const speed = part === 0 ? 1 : 3;
    return [
      run({ part, per_second: 2 * speed, busy: 0.5 + part / 10 }),
      run({ part, setting: "batches", per_second: 5 * speed, busy: 0.8 }),
      run({ part, setting: "batches, threads", workers: 3, per_second: 6 * speed, busy: 0.95 }),
    ];
  }),
  images({}),
  images({ workers: 3, main_ms: 0.25, ms: 5 }),
];

test("medians of the parts, and ratios of the same part", () => {
  const text = renderData(ROWS);
  expect(text).toContain("30 questions by evaluate, medians of 3 parts\n4 images, 150 KB each");
  expect(text).toMatch(/^one by one +6\.00 +1\.00x +60\.0 %$/m);
  expect(text).toMatch(/^batches +15\.0 +2\.50x +80\.0 %$/m);
  expect(text).toMatch(/^batches, threads \(3\) +18\.0 +3\.00x +95\.0 %$/m);
  expect(text).toMatch(/^0 +9\.00 ms +15\.50 ms\n3 +0\.25 ms +5\.00 ms$/m);
});

test("rows come back from their file, and others are refused by their line", () => {
  const text = ROWS.map((one) => `${JSON.stringify(one)}\n`).join("");
  expect(parseDataRows(text)).toEqual(ROWS);
  expect(() => parseDataRows(`${text}\n${JSON.stringify(row())}`)).toThrow(/^line 13: not a row of bench:dataset$/);
  expect(() => parseDataRows("{")).toThrow(/^line 1: /);
});

test("docs/benchmarks.md has the table of the committed rows", () => {
  const page = readFileSync(new URL("../../docs/benchmarks.md", import.meta.url), "utf8");
  const folder = new URL("../../bench/results/", import.meta.url);
  const files = readdirSync(folder).filter((name) => name.startsWith("dataset-"));
  const committed = files.flatMap((name) => parseDataRows(readFileSync(new URL(name, folder), "utf8")));
  expect(replaceDataInDocs(page, committed)).toBe(page);
  const filled = replaceDataInDocs(page, ROWS);
  expect(filled).toContain("| batches, threads (3) |");
  expect(replaceDataInDocs(filled, ROWS)).toBe(filled);
  expect(() => replaceDataInDocs("", ROWS)).toThrow("<!-- dataset:begin -->");
});

test("arguments that are refused before anything is measured", () => {
  const gone = "gone.jsonl";
  for (const [args, message] of [
    [["--markdown"], "error: --markdown goes with --table\n    hint: --help lists the options"],
    [["--workers", "-1"], "error: --workers needs a value; of one that begins with a dash, --workers=VALUE\n    hint"],
  ] as const) {
    const { status, stdout, stderr } = spawnSync(process.execPath, [compiled("bench/dataset/main.ts"), ...args], {
      encoding: "utf8",
    });
    expect({ status, stdout, stderr }).toEqual({ status: 2, stdout: "", stderr: expect.stringContaining(message) });
  }
  expect(() => readRowsOf(gone, parseDataRows)).toThrow(/^gone\.jsonl: no such file or folder$/);
});

test.runIf(ALL).each(["evaluate", "generate"])("a small run of %s", (command) => {
  const file = join(temporaryFolder(), "rows.jsonl");
  const args = ["--questions", "6", "--parts", "2", "--workers", "1", "--command", command, "--json", file];
  const text = execFileSync(process.execPath, [compiled("bench/dataset/main.ts"), ...args], { encoding: "utf8" });
  expect(text).toMatch(/the same answers in all settings/);
  const rows = parseDataRows(readFileSync(file, "utf8"));
  expect(rows.map((one) => (one.kind === "run" ? one.setting : one.workers))).toEqual([
    ...[0, 1],
    ...SETTINGS,
    ...[SETTINGS[1], SETTINGS[2], SETTINGS[0]],
  ]);
  for (const one of rows) {
    const figures = one.kind === "run" ? [one.per_second, one.busy] : [one.main_ms, one.ms];
    for (const figure of figures) expect(figure).toBeGreaterThan(0);
  }
});
