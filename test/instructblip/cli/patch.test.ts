/** `patch`: the embedded checkpoint on two images, and on two instructions. Numbers: instruments/sweep. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, it } from "vitest";
import { EXIT } from "../../../src/instructblip/cli/format.ts";
import type { SweepReport } from "../../../src/instructblip/instruments/sweep/report.ts";
import { temporaryFolder } from "../../temporary.ts";
import { askShapes, cli, SHAPES } from "./cli.ts";

const [image, other] = ["a.png", "b.png"].map((name) => join(SHAPES, "images", name));
const ASK = askShapes("patch");

it("shows which queries carry the color that the other image has not", async () => {
  const folder = temporaryFolder();
  const [out, html] = [join(folder, "p.jsonl"), join(folder, "p.html")];
  const args = [...ASK, "--corrupted-image", other, "--targets", "qformer.queries", "--max-new-tokens", "2"];
  const { code, stdout, stderr } = await cli([...args, "--out", out, "--json", "-", "--html", html]);
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  const report: SweepReport = JSON.parse(stdout);
  expect(report.corrupted_logprob).toBeLessThan(report.logprob - 3);
  expect([...new Set(report.units.map(({ row }) => row))]).toEqual(["0", "1", "2", "3", "projection"]);
  const carrying = report.units.filter(({ row, effect }) => row === "projection" && effect > 0.9);
  expect(carrying.map(({ column }) => column)).toEqual(["9", "10"]);
  expect((await readFile(html, "utf8")).match(/<g data-at=/g)).toHaveLength(5 * 12);

  const again = await cli(["patch", "--from", out, "--top", "2"]);
  const lines = again.stdout.split("\n");
  expect(lines[0]).toMatch(/^answer " orange<\/s>", clean log p 0\.000, corrupted log p -\d\.\d+; 60 parts restored$/);
  expect(lines[3]).toMatch(/^qformer\.queries +\w+ +\d+ +-?0\.00\d +100 %$/);
  // A file of one command is not the other's.
  expect(await cli(["ablate", "--from", out])).toMatchObject({ code: EXIT.refused });
});

it("takes an instruction of equally many tokens, and says what it takes", async () => {
  const targets = ["--targets", "language_model.layers"];
  const equal = await cli([...ASK, "--corrupted-prompt", "What color is the circle?", ...targets, "--json", "-"]);
  expect(equal.code).toBe(0);
  expect(JSON.parse(equal.stdout).corrupted_prompt).toBe("What color is the circle?");
  const longer = ["--corrupted-prompt", "What is the color of the circle?", ...targets];
  expect(await cli([...ASK, ...longer])).toMatchObject({
    code: EXIT.refused,
    stderr: expect.stringMatching(
      /needs instructions of equally many tokens: \S+ has \d+ positions in the clean run, \d+ in/,
    ),
  });
  expect(await cli(ASK)).toMatchObject({
    code: EXIT.usage,
    stderr: expect.stringMatching(/'--corrupted-image <file>' or '--corrupted-prompt <text>' not/),
  });
  expect(await cli([...ASK, "--corrupted-image", image])).toMatchObject({
    code: EXIT.refused,
    stderr: expect.stringContaining("the same log-probability"),
  });
});
