/** Alternating processes, with processes that only pretend; and the checkout of a revision of a small repository. */
import { execFileSync } from "node:child_process";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, expect, test } from "vitest";
import {
  alternate,
  canBePaced,
  checkOut,
  familyFilter,
  processRunner,
  processStarter,
  renderSelfTest,
  type Side,
  selfTestOf,
} from "../../bench/against.ts";
import { root } from "../../bench/machine.ts";
import { formatRows } from "../../bench/rows.ts";
import { row } from "./row.ts";

const folder = mkdtempSync(join(tmpdir(), "instructblip-against-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const side = (name: string): Side => ({ name, folder, args: [] });

test("sides take turns, kernel by kernel, and none is always first", async () => {
  const log: string[] = [];
  const shown: string[] = [];
  const run = async ({ name }: Side, args: readonly string[]) => {
    log.push(`${name}${args[1]}`);
    return [row({ shape: name + log.length })];
  };
  const rows = await alternate([side("a"), side("b")], ["1", "2"], 2, run, (text) => shown.push(text));
  expect(log.join(" ")).toBe("a1 b1 a2 b2 b1 a1 b2 a2");
  expect(rows.map((of) => of.map(({ shape }) => shape))).toEqual([
    ["a1", "a3", "a6", "a8"],
    ["b2", "b4", "b5", "b7"],
  ]);
  expect(shown[0]).toBe("run 1 of 2: a, 1");
  expect(shown[7]).toMatch(/^run 2 of 2, about \d+ min left: a, 2$/);

  log.length = 0;
  await alternate(["a", "b", "c"].map(side), [""], 6, run, () => {});
  const orders = log.join("").match(/.../g)!;
  expect(new Set(orders).size).toBe(6); // every order of three
});

test("a kernel's filter admits its own cases that the user's filter admits", () => {
  const admits = (filter: string, name: string) => new RegExp(familyFilter("linear", filter)).test(name);
  expect(admits("", "linear tile vit")).toBe(true);
  expect(admits("(?:)", "linear tile vit")).toBe(true);
  expect(admits("", "linear_f16 tile vit")).toBe(false);
  expect(admits("vit|q-former", "linear tile vit")).toBe(true);
  expect(admits("vit|q-former", "add - vit")).toBe(false);
  expect(admits("^(linear|add) tile", "linear tile vit")).toBe(true);
  expect(admits("vicuna", "linear tile vit")).toBe(false);
});

/** A repository with two commits, of which the second has other packages. */
function repository(): { path: string; git: (...args: string[]) => string } {
  const path = join(folder, "repository");
  mkdirSync(join(path, "node_modules/a"), { recursive: true });
  const git = (...args: string[]) =>
    execFileSync("git", ["-c", "user.name=a", "-c", "user.email=a@b", ...args], { cwd: path, encoding: "utf8" });
  git("init", "--quiet");
  writeFileSync(join(path, ".gitignore"), "node_modules\n");
  for (const [tag, lock] of [
    ["one", "{}"],
    ["two", '{"a": 1}'],
  ]) {
    writeFileSync(join(path, "package-lock.json"), lock);
    writeFileSync(join(path, "file"), tag);
    git("add", ".");
    git("commit", "--quiet", "-m", tag);
    git("tag", tag);
  }
  return { path, git };
}

test("a revision is checked out with these node_modules, and leaves nothing behind", () => {
  const { path, git } = repository();
  writeFileSync(join(path, "file"), "changed");
  const made = checkOut("two", path);
  expect(readFileSync(join(made.folder, "file"), "utf8")).toBe("two");
  expect(lstatSync(join(made.folder, "node_modules")).isSymbolicLink()).toBe(true);
  expect(existsSync(join(made.folder, "node_modules/a"))).toBe(true);
  made.remove();
  expect(existsSync(dirname(made.folder))).toBe(false);
  expect(existsSync(join(path, "node_modules/a"))).toBe(true); // the link went, not what it names
  expect(git("worktree", "list").trimEnd().split("\n")).toHaveLength(1);
  expect(readFileSync(join(path, "file"), "utf8")).toBe("changed");

  expect(() => checkOut("three", path)).toThrow('"three" is no revision');
  expect(() => checkOut("--all", path)).toThrow('"--all" is no revision');
  expect(() => checkOut("one", path)).toThrow("another package-lock.json");
});

test("a process's rows are read; a side may lack a case; a failure is told", async () => {
  const bench = join(folder, "bench");
  mkdirSync(bench);
  symlinkSync(join(root, "node_modules"), join(folder, "node_modules"), "junction");
  const program = (text: string) => writeFileSync(join(bench, "main.ts"), text);
  const run = processRunner(["--quick"], false, new AbortController().signal);
  program(`import { writeFileSync } from "node:fs";
const args = process.argv.slice(2);
if (args.join(" ").replace(/ [^ ]*$/, "") !== "--quick --filter x --json") throw new Error(args.join(" "));
writeFileSync(args.at(-1)!, ${JSON.stringify(formatRows([row({ shape: "read" })]))});
process.exitCode = 1; // as if a result were wrong`);
  expect((await run(side("a"), ["--filter", "x"])).map(({ shape }) => shape)).toEqual(["read"]);
  program(`console.error("error: --filter: no case matches /x/"); process.exit(2);`);
  expect(await run(side("a"), [])).toEqual([]);
  program(`console.error("error: broken"); process.exit(1);`);
  await expect(run(side("old"), [])).rejects.toThrow("old: the bench failed (1): error: broken");
  await expect(processRunner([], false, AbortSignal.abort(new Error("interrupted")))(side("a"), [])).rejects.toThrow(
    "interrupted",
  );
});

test("a paced process waits before every turn, and its rows are read at its end", async () => {
  const bench = join(folder, "bench");
  mkdirSync(bench, { recursive: true });
  const program = (text: string) => writeFileSync(join(bench, "main.ts"), text);
  writeFileSync(join(folder, "package.json"), '{"type": "module"}');
  const start = processStarter(["--quick"], new AbortController().signal);
  program(`import { writeFileSync } from "node:fs";
import { asParentSays } from ${JSON.stringify(join(root, "bench/pace.ts"))};
const args = process.argv.slice(2);
if (args.slice(0, 4).join(" ") !== "--quick --filter x --paced") throw new Error(args.join(" "));
const pace = asParentSays();
await pace.begin(["a"], 2);
await pace.turn(0, "a");
await pace.turn(1, "a");
writeFileSync(args.at(-1)!, ${JSON.stringify(formatRows([row({ shape: "read" })]))});
pace.end();`);
  const one = start(side("a"), ["--filter", "x"]);
  expect(await one.next()).toEqual({ begin: ["a"], rounds: 2 });
  expect(await one.next()).toEqual({ round: 0, name: "a" });
  expect(await one.next()).toEqual({ round: 1, name: "a" });
  expect(one.rows()).toEqual([]);
  expect(await one.next()).toBeUndefined();
  expect(one.rows().map(({ shape }) => shape)).toEqual(["read"]);
  one.stop(); // after its end it does nothing

  program(`console.error("error: broken"); process.exit(1);`);
  await expect(start(side("old"), []).next()).rejects.toThrow("old: the bench failed (1): error: broken");
  const aborted = processStarter([], AbortSignal.abort(new Error("interrupted")));
  await expect(aborted(side("a"), []).next()).rejects.toThrow("interrupted");
  expect([canBePaced(folder), canBePaced(root)]).toEqual([false, true]);
});

test("the self-test counts alarms of equal code, and what is found of slower code", () => {
  const runs = [1, 1.01, 1.02, 1.03, 1.04, 1.05, 1.06, 1.07].map((speed) => {
    const side = (x: number, y: number) =>
      Object.entries({ x, y }).map(([shape, ms]) =>
        row({ shape, basis: "cpu", cpu_ms: ms, samples: { wall: [], cpu: [ms * speed, ms], gpu: [] } }),
      );
    return [side(1, 1), side(1, 0.9 * speed), side(1.1, 1)];
  });
  const test = selfTestOf(runs);
  expect(test).toEqual({ rows: 2, alarms: 1, found: 1, noise: expect.closeTo(0.0118, 3) });
  expect(renderSelfTest([test, { rows: 48, alarms: 0, found: 47, noise: 0.04 }], 8)).toBe(
    [
      "2 comparisons of 8 runs; ratios of equal code differ from run to run by 2.6 %",
      "equal code, rows reported as changed: 1 of 50, 2.0 % (95 % interval 0.4 to 10.5 %)",
      "10 % more work, rows reported as slower: 48 of 50, 96.0 % (95 % interval 86.5 to 98.9 %)",
    ].join("\n"),
  );
});
