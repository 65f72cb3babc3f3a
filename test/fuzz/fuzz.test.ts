/**
 * A short round of every target of `npm run fuzz`, always the same cases (four times as many with INSTRUCTBLIP_TEST_ALL=1,
 * `npm run test:all`), and the harness on injected faults, which it must detect.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { compiled } from "../compiled.ts";
import { Random } from "../random.ts";
import { ALL } from "../rounds.ts";
import { caseOf, isReadable, judge, readCase, writeCase } from "./harness.ts";
import { type Json, jsonOf, mutateBytes, mutateJson } from "./mutate.ts";
import type { TargetName } from "./target.ts";
import { TARGETS } from "./targets.ts";

const SEED = 20_261_129;
/** Cases of half a second or so each; where none is given, five hundred take less. */
const CASES: Readonly<Record<string, number>> = {
  weights: 100,
  adapters: 100,
  bitsandbytes: 50,
  jsons: 75,
  tokenizers: 30,
  images: 250,
};
const ROUNDS = ALL ? 4 : 1;

test.each(Object.keys(TARGETS) as TargetName[])("%s: no case of a short round fails", async (name) => {
  const prepared = await TARGETS[name].prepare();
  for (let i = 0; i < ROUNDS * (CASES[name] ?? 500); i++) {
    const given = caseOf(prepared, SEED, i);
    expect(
      await judge(prepared, given),
      `npm run fuzz -- --target ${name} --seed ${SEED} --count ${i + 1}`,
    ).toBeUndefined();
  }
});

describe("the harness", () => {
  const folder = mkdtempSync(join(tmpdir(), "instructblip-fuzz-test-"));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  const run = (...args: string[]) => {
    const main = compiled("test/fuzz/main.ts");
    const { status, stdout, stderr } = spawnSync(process.execPath, [main, ...args], { encoding: "utf8" });
    return { status, text: stdout + stderr };
  };

  test("names errors without a code, hangs, crashes and messages, and runs what it wrote again", () => {
    const json = join(folder, "summary.json");
    const out = join(folder, "out");
    const { status } = run(..."--target selftest --seed 12 --count 8 --hang 1 --out".split(" "), out, "--json", json);
    const { faults } = JSON.parse(readFileSync(json, "utf8")) as { faults: { kind: string }[] };
    expect(status).toBe(1);
    expect(new Set(faults.map(({ kind }) => kind))).toEqual(new Set(["untyped", "hang", "crash", "message"]));
    const untyped = readdirSync(out).find((file) => readCase(readFileSync(join(out, file), "utf8")).given.input === 0)!;
    const again = run("--replay", join(out, untyped));
    expect(again.text).toMatch(/it shows: untyped: TypeError: not typed/);
    expect(again.status).toBe(1);
  });

  test("says what it takes, and refuses what it does not know", () => {
    const help = run("--help");
    expect(help.status).toBe(0);
    for (const name of Object.keys(TARGETS)) expect(help.text).toContain(name);
    const unknown = run("--target", "heders");
    expect(unknown.status).toBe(2);
    expect(unknown.text).toContain("there is no target heders");
  });

  test("cases are the same again, from a seed and from a file, and differ by seed", async () => {
    const prepared = await TARGETS.headers.prepare();
    const first = caseOf(prepared, 1, 7);
    expect(caseOf(prepared, 1, 7)).toEqual(first);
    expect(caseOf(prepared, 2, 7)).not.toEqual(first);
    const back = readCase(writeCase({ target: "headers", seed: 1, index: 7, given: first }));
    expect(back.given.files["model.safetensors"]).toEqual(new Uint8Array(first.files["model.safetensors"]));
  });

  test("damage is damage, and what is damaged is a copy", () => {
    const bytes = Buffer.from("some bytes that lie in a buffer of the corpus");
    const document: Json = { a: [1, 2, { b: "c" }], d: null };
    const texts = [bytes.toString(), JSON.stringify(document)];
    let changed = 0;
    for (let seed = 0; seed < 200; seed++) {
      changed += Number(Buffer.compare(mutateBytes(new Random(seed), bytes), bytes) !== 0);
      changed += Number(jsonOf(mutateJson(new Random(seed), structuredClone(document))) !== texts[1]);
    }
    expect([bytes.toString(), JSON.stringify(document)]).toEqual(texts);
    expect(changed).toBeGreaterThan(340);
  });

  test("a readable message is short and has nothing that a terminal obeys", () => {
    expect(isReadable("config.json: x must be 1\n    hint: write 1")).toBe(true);
    for (const message of ["a\nb", "\u001b[2J", "\u009b", "\u202e", "x".repeat(5000)])
      expect(isReadable(message)).toBe(false);
  });
});
