/** What the README promises is there: the tests that hold its feature table, and the files and pictures it shows. */
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const root = fileURLToPath(new URL("../..", import.meta.url));
const readme = readFileSync(`${root}/README.md`, "utf8");

/** Rows of the feature table, cell by cell. */
const rows = readme
  .slice(readme.indexOf("## What there is, and who else has it"), readme.indexOf("## How it is built"))
  .split("\n")
  .filter((line) => line.startsWith("| ") && !line.startsWith("| ---"))
  .map((line) => line.slice(2, -2).split(" | "))
  .slice(1);

test("the feature table has its rows", () => {
  expect(rows.length).toBeGreaterThan(25);
  expect(new Set(rows.map(({ length }) => length))).toEqual(new Set([6]));
});

test.each(rows.map((cells) => [cells[0], cells[5]]))("%s: is held by a test", (_, cell) => {
  const [, file] = /^\[.+\]\((test\/.+\.test\.ts)\)$/.exec(cell) ?? [];
  expect(file, cell).toBeDefined();
  const text = readFileSync(`${root}/${file}`, "utf8");
  expect(text).toMatch(/^(\s*|for .*)(test|it|describe)(\.each)?\(/m);
});

test("every relative link and picture leads somewhere", () => {
  const targets = [...readme.matchAll(/\]\((?!https?:|#)([^)\s]+)\)|src="(?!https?:)([^"]+)"/g)].map(
    ([, link, source]) => link ?? source,
  );
  expect(targets.length).toBeGreaterThan(30);
  expect(targets.filter((target) => !existsSync(`${root}/${target}`))).toEqual([]);
});
