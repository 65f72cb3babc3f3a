/** `ablate`: table, JSON, heat maps and page of the embedded checkpoint, shards and resumption. Numbers: instruments/sweep. */
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Script } from "node:vm";
import sharp, { type Sharp } from "sharp";
import { expect, it } from "vitest";
import { EXIT } from "../../../src/instructblip/cli/format.ts";
import { type SweepReport, signed } from "../../../src/instructblip/instruments/sweep/report.ts";
import { temporaryFolder } from "../../temporary.ts";
import { askShapes, cli, ROOT, SHAPES } from "./cli.ts";

const ASK = askShapes("ablate");
const FEW = ["--targets", "qformer.layers,language_model.tokens", "--max-new-tokens", "2"];

/** RGB of a cell in the PNG, by its place in the SVG. */
async function colourAt(png: Sharp, svg: string, title: string): Promise<number[]> {
  const end = svg.indexOf(`<title>${title}`);
  const before = svg.slice(0, end);
  const [, x, y] = /.*<rect [^>]* x="([\d.]+)" y="([\d.]+)"[^>]*>$/s.exec(before)!.map(Number);
  const [, left, top] = /.*<g transform="translate\(([\d.]+) ([\d.]+)\)">/s.exec(before)!.map(Number);
  const { data, info } = await png.raw().toBuffer({ resolveWithObject: true });
  const place = (Math.round(2 * (top + y + 6)) * info.width + Math.round(2 * (left + x + 6))) * info.channels;
  return [...data.subarray(place, place + 3)];
}

it("prints the strongest parts, and writes JSON, heat maps and a page", async () => {
  const folder = temporaryFolder();
  const [json, svg, png, html] = ["a.json", "a.svg", "a.png", "a.html"].map((name) => join(folder, name));
  const args = [...ASK, ...FEW, "--top", "4", "--json", json, "--svg", svg, "--png", png, "--html", html];
  const { code, stdout, stderr } = await cli(args);
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  const lines = stdout.split("\n");
  expect(lines[0]).toMatch(/^answer " orange<\/s>", log p 0\.000; 34 parts taken out$/);
  expect(lines[2]).toMatch(/^group +row +unit +log p +change$/);
  expect(lines[3]).toMatch(/^language_model\.tokens +input +18 "\?" +-12\.\d+ +-12\.\d$/);
  expect(lines[7]).toBe("(4 of 34: those of the largest effect; --top 0 shows all)");

  const report: SweepReport = JSON.parse(await readFile(json, "utf8"));
  expect(report).toMatchObject({ kind: "ablate", prompt: "What color is the square?", answer: " orange</s>" });
  expect(report.units).toHaveLength(34);
  expect(report.units.at(-2)).toMatchObject({ group: "language_model.tokens", row: "input", column: "18", text: "?" });
  for (const { logprob, effect } of report.units) expect(effect).toBeCloseTo(logprob - report.logprob, 9);

  const [drawn, page] = [await readFile(svg, "utf8"), await readFile(html, "utf8")];
  for (const text of [drawn, page]) {
    expect(text.match(/<g data-at=/g)).toHaveLength(34);
    expect(text).toContain("input, 18 &quot;?&quot;: -12.5");
  }
  const image = sharp(png);
  const { width, height } = await image.metadata();
  const [, drawnWidth, drawnHeight] = /width="([\d.]+)" height="([\d.]+)"/.exec(drawn)!.map(Number);
  expect([width, height]).toEqual([2 * drawnWidth, 2 * drawnHeight].map(Math.round));
  // The colour of what makes the answer less probable, where the question mark of the prompt is taken out.
  const at = await colourAt(image, drawn, "input, 18");
  expect(at).toEqual([180, 83, 31]);
  expect(page.replaceAll("http://www.w3.org/2000/svg", "")).not.toMatch(/\b(src|href)="(?!data:)|url\(|https?:/);
  const [, script] = /<script type="module">(.*)<\/script>/s.exec(page)!;
  expect(() => new Script(script)).not.toThrow();
});

it("replaces parts by their mean over other images", async () => {
  const folder = temporaryFolder();
  const [json, html, svg] = ["mean.json", "mean.html", "mean.svg"].map((name) => join(folder, name));
  const [b, c] = ["b.png", "c.png"].map((name) => join(SHAPES, "images", name));
  const few = ["--targets", "qformer.layers,language_model.tokens", "--answer", "orange", "--top", "1"];
  const { code, stdout } = await cli([...ASK, ...few, "--mean", b, c, "--html", html, "--json", json, "--svg", svg]);
  expect(code).toBe(0);
  const lines = stdout.split("\n");
  expect(lines[0]).toMatch(/33 parts replaced by means over 2 images$/);
  expect(lines[3]).toMatch(/^qformer\.layers +2 +cross-attention +-2\.1\d\d +-2\.1\d\d$/);
  const { units, mean_images }: SweepReport = JSON.parse(await readFile(json, "utf8"));
  expect(mean_images).toEqual([b, c]);
  // A word's embedding is the same whatever the image.
  const words = units.filter(({ text }) => text !== undefined && !text.startsWith("image "));
  expect(words.length).toBeGreaterThan(5);
  for (const { effect } of words) expect(Math.abs(effect)).toBeLessThan(1e-6);
  const page = await readFile(html, "utf8");
  for (const text of [">means over<", "b.png", "the mean of its numbers"]) expect(page).toContain(text);
  const drawn = await readFile(svg, "utf8");
  expect(drawn).toContain(`>images of the means: ${b}, ${c}</text>`);
  // Each group has a scale, which ends at its largest effect.
  for (const group of ["qformer.layers", "language_model.tokens"]) {
    const effects = units.filter((unit) => unit.group === group).map(({ effect }) => Math.abs(effect));
    const end = signed(Math.max(0.05, ...effects));
    expect(drawn.slice(drawn.indexOf(`>${group}<`))).toMatch(
      new RegExp(`>-${end.slice(1)}</text>[^]*?>\\${end}</text>`),
    );
  }
  expect(await cli([...ASK, ...few, "--mean", join(SHAPES, "none.png")])).toMatchObject({ code: EXIT.refused });
});

it("goes on where it stopped, and joins shards to what one run gives", async () => {
  const folder = temporaryFolder();
  const parts = [0, 1].map((i) => join(folder, `part-${i}.jsonl`));
  const targets = ["--targets", "qformer.layers", "--answer", "red"];
  const whole = await cli([...ASK, ...targets, "--json", "-"]);
  expect(whole.code).toBe(0);
  for (const [i, out] of parts.entries()) {
    expect(await cli([...ASK, ...targets, "--shard", `${i}/2`, "--out", out])).toMatchObject({ code: 0 });
  }
  const text = await readFile(parts[1], "utf8");
  await writeFile(parts[1], text.split("\n").slice(0, 3).join("\n"));
  expect(await cli(["ablate", "--from", ...parts])).toMatchObject({
    code: EXIT.refused,
    stderr: expect.stringMatching(/of 7 parts are done/),
  });
  expect(await cli([...ASK, ...targets, "--shard", "1/2", "--out", parts[1], "--resume"])).toMatchObject({ code: 0 });
  const again = await readFile(parts[1], "utf8");
  expect(again.split("\n")).toHaveLength(text.split("\n").length);
  expect(again.slice(0, 200)).toBe(text.slice(0, 200));
  const joined = await cli(["ablate", "--from", ...parts, "--json", "-"]);
  const [a, b]: SweepReport[] = [whole, joined].map(({ stdout }) => JSON.parse(stdout));
  expect(b.units.map(({ group, row, column }) => [group, row, column])).toEqual(
    a.units.map(({ group, row, column }) => [group, row, column]),
  );
  for (const [i, { effect }] of b.units.entries()) expect(Math.abs(effect - a.units[i].effect)).toBeLessThan(1e-4);

  expect(await cli([...ASK, "--answer", "blue", "--shard", "1/2", "--out", parts[1], "--resume"])).toMatchObject({
    code: EXIT.refused,
    stderr: expect.stringContaining("of another run: they differ in"),
  });
});

it("refuses what cannot be swept", async () => {
  expect(await cli([...ASK, "--targets", "qformer.hats"])).toMatchObject({
    code: EXIT.refused,
    stderr: expect.stringContaining("the groups are vision_model.layers, "),
  });
  expect(await cli([...ASK, "--from", "a.jsonl"])).toMatchObject({ code: EXIT.usage });
  expect(await cli([...ASK, "--resume"])).toMatchObject({ code: EXIT.usage });
  expect(await cli(["ablate", "--from", join(ROOT, "README.md")])).toMatchObject({
    code: EXIT.refused,
    stderr: expect.stringContaining("README.md: line 1"),
  });
});
