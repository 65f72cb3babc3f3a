/** README and docs: the tests of the comparison, linked files, commands and options exist. */
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { withCompiled } from "../compiled.ts";
import { cli } from "../instructblip/cli/cli.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));
const read = (path: string) => readFileSync(join(root, path), "utf8");
const PAGES = [
  ...[
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "kernels/README.md",
    "examples/shapes/README.md",
    "examples/cluster/README.md",
  ],
  ...readdirSync(join(root, "docs")).map((name) => `docs/${name}`),
].filter((path) => path.endsWith(".md") && existsSync(join(root, path)));

test("the README is short", () => {
  expect(read("README.md").split("\n").length - 1).toBeLessThanOrEqual(200);
  expect(statSync(join(root, "README.md")).size).toBeLessThanOrEqual(12_288);
});

test("the README leads to every page of docs", () => {
  const targets = linksOf("README.md");
  expect(PAGES.filter((path) => path.startsWith("docs/") && !targets.includes(path))).toEqual([]);
});

/** Rows of the comparison, cell by cell. */
const rows = read("docs/comparison.md")
  .split("\n")
  .filter((line) => line.startsWith("| ") && !line.startsWith("| ---"))
  .map((line) => line.slice(2, -2).split(" | "))
  .slice(1);

test("the comparison has its rows", () => {
  expect(rows.length).toBeGreaterThan(25);
  expect(new Set(rows.map(({ length }) => length))).toEqual(new Set([6]));
});

test.each(rows.map((cells) => [cells[0], cells[5]]))("%s: is held by a test", (_, cell) => {
  const [, file] = /^\[.+\]\(\.\.\/(test\/.+\.test\.ts)\)$/.exec(cell) ?? [];
  expect(file, cell).toBeDefined();
  expect(read(file)).toMatch(/^(\s*|for .*)(test|it|describe)(\.each)?\(/m);
});

/** Rows of the tables of layouts, as title and file of a test. */
const layouts = [...read("docs/checkpoints.md").matchAll(/^\| (.+) \|$/gm)]
  .map(([, row]) => row)
  .filter((row) => !/^(layout|---) /.test(row));

test.each(layouts)("the layout %s is held by the test it names", (row) => {
  const [, title, file] = / \| \[(.+)\]\(\.\.\/(test\/.+\.test\.ts)\)$/.exec(row) ?? [];
  expect(row.split(" | ")).toHaveLength(3);
  expect(read(file)).toContain(`"${title}"`);
});

test("all layouts are in the tables", () => expect(layouts.length).toBeGreaterThan(30));

/** Where the relative links and images of a page lead, from the repository's root. */
function linksOf(page: string): string[] {
  const text = read(page).replace(/^```.*?^```$/gms, "");
  const links = [...text.matchAll(/\]\((?!https?:|#)([^)\s]+)\)|src="(?!https?:)([^"]+)"/g)];
  return links.map(([, link, source]) => join(dirname(page), link ?? source));
}

/** A heading's anchor, as GitHub makes it. */
const anchorOf = (heading: string) =>
  heading
    .toLowerCase()
    .replace(/[^\p{L}\p{N}\s_-]/gu, "")
    .replace(/\s/g, "-");

test.each(PAGES)("every relative link and image of %s leads somewhere", (page) => {
  const lost = linksOf(page).filter((target) => {
    const [path, anchor] = target.split("#");
    if (!existsSync(join(root, path))) return true;
    return anchor && ![...read(path).matchAll(/^#+ (.+)$/gm)].some(([, heading]) => anchorOf(heading) === anchor);
  });
  expect(lost).toEqual([]);
});

/** Commands of the `sh` listings, a line each, without comments. */
const COMMANDS = PAGES.flatMap((page) =>
  [...read(page).matchAll(/^ *```sh\n(.*?)^ *```$/gms)].flatMap(([, listing]) =>
    listing
      .replace(/\\\n\s*/g, "")
      .split("\n")
      .map((line) =>
        line
          .replace(/(^|\s+)# .*$/, "")
          .replace(/^\s*([A-Z_]+=\S+ )+/, "")
          .trim(),
      )
      .filter((line) => line !== "")
      .map((command) => [page, command] as const),
  ),
);

const scripts: Record<string, string> = JSON.parse(read("package.json")).scripts;

/** Runs a command of the repository as npm does, but for the set-up in front of it. */
function runScript(name: string, args: string, as = (command: string) => command) {
  const command = as(scripts[name].split(" && ").at(-1)!);
  const PATH = `${join(root, "node_modules/.bin")}:${process.env.PATH}`;
  return spawnSync("bash", ["-c", `${command} ${args}`], {
    cwd: root,
    encoding: "utf8",
    env: { ...process.env, PATH },
  });
}

/**
 * Commands that are quick and write nothing in the repository, and what they print. The others run elsewhere, or for long. The
 * demo is read up to its first answer; test/package runs the whole of it.
 */
const RUN: readonly (readonly [RegExp, RegExp, string?])[] = [
  [/^npm run demo$/, /\n {2}What color is the square\? orange\n/, "| sed /orange/q"],
  [/^npm run -s instructblip -- generate /, /^four\n$/],
];

/** A command's own help: of npm scripts, and of the command line, which npx finds as well. */
const helps = new Map<string, string>();
async function helpOf(command: string, run: () => Promise<string> | string): Promise<string> {
  if (!helps.has(command)) {
    const stdout = await run();
    helps.set(command, stdout);
  }
  return helps.get(command)!;
}

test.each(COMMANDS)("%s: %s", async (_, command) => {
  const [, name = "", args = ""] = /^npm (?:run (?:-s )?)?([\w:]+)(?: -- (.*))?$/.exec(command) ?? [];
  const ours = /^(?:npm run -s instructblip -- |npx (?:instructblip|instructblip-webgpu) |instructblip )(.*)$/.exec(
    command,
  );
  if (ours) {
    const [, words] = ours;
    const [first] = words.split(" ");
    const help = await helpOf(first, async () => {
      const { code, stdout } = await cli([first, "--help"]);
      expect(code, command).toBe(0);
      return stdout;
    });
    for (const [option] of words.matchAll(/(?<=\s)--[\w-]+/g)) expect(help).toContain(option);
  } else if (Object.hasOwn(scripts, name)) {
    const options = [...args.matchAll(/(?<=^|\s)--[\w-]+/g)].map(([option]) => option);
    if (options.length > 0) {
      const help = await helpOf(`npm run ${name}`, () => {
        const { status, stdout } = runScript(name, "--help", withCompiled);
        expect(status, command).toBe(0);
        return stdout;
      });
      for (const option of options) expect(help).toContain(option);
    }
  } else {
    expect(command).toMatch(/^(npm (ci|install)|node_modules\/\.bin\/|git|python|\.venv\/bin\/|npx vitest)\b/);
  }
  const quick = RUN.find(([pattern]) => pattern.test(command));
  if (!quick) return;
  const { status, stdout, stderr } = runScript(name, `${args} ${quick[2] ?? ""}`);
  expect(status, stderr).toBe(0);
  expect(stdout).toMatch(quick[1]);
});

test("every command that is to run is shown", () => {
  expect(RUN.filter(([pattern]) => !COMMANDS.some(([, command]) => pattern.test(command)))).toEqual([]);
});
