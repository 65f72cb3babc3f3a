/** `attribute`: tables, JSON, sheets and page of the embedded checkpoint. Numbers: instruments/attribute. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { Script } from "node:vm";
import { expect, it } from "vitest";
import { EXIT } from "../../../src/instructblip/cli/format.ts";
import type { AttributionReport } from "../../../src/instructblip/instruments/attribute/report.ts";
import { temporaryFolder } from "../../temporary.ts";
import { askShapes, cli } from "./cli.ts";

const WHERE = askShapes("attribute", "Where is the square?");
const FEW = ["--window", "3", "--stride", "3"];

it("finds the shape that is asked about, and writes JSON, sheets and a page", async () => {
  const folder = temporaryFolder();
  const [json, html, svg] = ["a.json", "a.html", "a.svg"].map((name) => join(folder, name)) as [string, string, string];
  const { code, stdout, stderr } = await cli([...WHERE, ...FEW, "--json", json, "--html", html, "--out", svg]);
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  const [first, , title, head, left, , , words, , ...rest] = stdout.split("\n");
  expect(first).toMatch(
    /^answer " left<\/s>", log p -?0\.\d+; occluded: 9 windows of 3 x 3 patches \(mean\), 5 words$/,
  );
  expect(title).toBe("where each token rests most, of 9 x 9 patches");
  expect(head).toMatch(/^token +log p +occlusion +rollout +cross-attention +word$/);
  // The square is in the middle row on the left, one window of nine.
  expect(left).toMatch(/^" left" +-?0\.\d+ +row 3, column 0: -\d.* +row \d, column \d: [\d.]+ % +row .* "\w+" -\d/);
  expect(words).toBe("what the answer loses without a word");
  expect(rest[0]).toMatch(/^"Where" +-\d[\d.]+ +[\d.]+ %$/);
  expect(stdout).toContain("the whole answer by occlusion, @ is -");
  expect(stdout).toContain("\n|@@@@@@            |\n");

  const report: AttributionReport = JSON.parse(await readFile(json, "utf8"));
  expect(report).toMatchObject({
    ...{ prompt: "Where is the square?", answer: " left</s>", grid: { rows: 9, columns: 9 }, word: "remove" },
    occlusion: { window: 3, stride: 3, fill: "mean", windows: 9 },
  });
  const { occlusion, rollout, cross_attention } = report;
  for (const maps of [occlusion!.drops, rollout!.map((x) => x.patches), cross_attention!.map((x) => x.patches)]) {
    expect(maps.map(({ length }) => length)).toEqual([81, 81]);
  }
  for (const { prompt, instruction, patches, class_token, queries, answer } of rollout!) {
    const total = [...prompt, ...instruction, ...patches, class_token, queries, answer].reduce((sum, x) => sum + x);
    expect(total).toBeCloseTo(1, 5);
  }
  expect(report.words!.map(({ text, start, end }) => [text, report.prompt.slice(start, end)])).toEqual(
    ["Where", "is", "the", "square", "?"].map((text) => [text, text]),
  );

  for (const [name, meaning] of [
    ["occlusion", "change without a patch, in nats"],
    ["rollout", "attention weight of one patch"],
    ["cross-attention", "attention weight of one patch"],
  ] as const) {
    const sheet = await readFile(join(folder, `a.${name}.svg`), "utf8");
    expect(sheet).toContain(meaning);
    expect(sheet).toContain("mean of all tokens");
    expect(sheet.includes("class ")).toBe(name !== "occlusion");
  }
  const page = await readFile(html, "utf8");
  expect(page.match(/<mark /g)).toHaveLength(5);
  expect(page).not.toMatch(/\b(src|href)="(?!data:)|url\(|https?:/);
  const [, data] = /<script type="application\/json" id="data">(.*?)<\/script>/.exec(page)!;
  const shown = JSON.parse(data!);
  expect(shown.methods.map(({ name, maps }: { name: string; maps: [] }) => [name, maps.length])).toEqual([
    ["occlusion", 3],
    ["rollout", 3],
    ["cross-attention", 3],
  ]);
  const [, script] = /<script type="module">(.*)<\/script>/s.exec(page)!;
  expect(() => new Script(script!)).not.toThrow();
});

it("prints JSON alone, of one method and another answer", async () => {
  const { code, stdout } = await cli([
    ...WHERE,
    "--methods",
    "words",
    "--word",
    "pad",
    "--answer",
    "right",
    "--json",
    "-",
  ]);
  expect(code).toBe(0);
  const report: AttributionReport = JSON.parse(stdout);
  expect(report).toMatchObject({ word: "pad", occlusion: null, rollout: null, cross_attention: null });
  expect(report.answer_tokens[0]!.text.trim()).toBe("right");
  expect(report.logprob).toBeLessThan(-3);
  expect(report.words!.every(({ drops }) => drops.length === report.answer_tokens.length)).toBe(true);
});

it.each([
  [["--methods", "gradients"], EXIT.usage, "some of image, words, attention"],
  [["--fill", "black"], EXIT.usage, "Allowed choices are mean, blur, image_mean"],
  [["--answer", "left", "--max-new-tokens", "3"], EXIT.usage, "cannot be used with"],
  [["--out", "map.gif"], EXIT.refused, "must end in .png or .svg"],
  [["--out", "map.png", "--methods", "words"], EXIT.refused, "there is no map of words"],
  [["--json", "same", "--html", "./same"], EXIT.refused, "--html ./same: --json writes this file too"],
  [["--html", "-"], EXIT.refused, "only --json writes to stdout"],
  [["--window", "10"], EXIT.refused, "window must be a whole number from 1 to 9"],
  [["--window", "2", "--stride", "3"], EXIT.refused, "stride must be a whole number from 1 to 2"],
] as const)("refuses %j", async (args, code, message) => {
  expect(await cli([...WHERE, ...args])).toMatchObject({ code, stdout: "", stderr: expect.stringContaining(message) });
});
