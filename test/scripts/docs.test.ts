/** The generated pages of docs/ are fresh, and list every error code that occurs in tests. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { pages } from "../../scripts/docs_pages.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));

const PAGES = await pages();

test.each([...PAGES])("%s is fresh: npm run docs -- --pages", (path, text) => {
  expect(readFileSync(join(ROOT, path), "utf8")).toBe(text);
});

/** Codes that tests throw themselves. */
const OF_TESTS = ["MY_HTTP_URL", "NO_WEIGHTS"];

test("every code that a test expects is one that was found in src", () => {
  const rows = PAGES.get("docs/errors.md")!.matchAll(/^\| `([A-Z][A-Z0-9_]+)` \|/gm);
  const codes = new Set([...rows].map(([, code]) => code));
  const tests = readdirSync(join(ROOT, "test"), { recursive: true, encoding: "utf8" }).filter((name) =>
    name.endsWith(".test.ts"),
  );
  const expected = tests.flatMap((name) =>
    [...readFileSync(join(ROOT, "test", name), "utf8").matchAll(/\bcode: "([A-Z][A-Z0-9_]+)"/g)].map(
      ([, code]) => code,
    ),
  );
  expect(expected.length).toBeGreaterThan(100);
  expect([...new Set(expected)].filter((code) => !codes.has(code) && !OF_TESTS.includes(code))).toEqual([]);
});
