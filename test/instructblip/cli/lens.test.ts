/** `lens`: tables, JSON and page of the embedded checkpoint, of T5, and what is refused. Numbers: instruments/lens.test.ts. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { Script } from "node:vm";
import { expect, it, test } from "vitest";
import { EXIT } from "../../../src/instructblip/cli/format.ts";
import { type LensReport, lensTables, strongest } from "../../../src/instructblip/instruments/lens_report.ts";
import { goldenFolder } from "../../golden_folder.ts";
import { temporaryFolder } from "../../temporary.ts";
import { askShapes, cli, ROOT } from "./cli.ts";

const ASK = askShapes("lens");

it("prints a column for each token of the answer, a row for each layer, and the image tokens' words", async () => {
  const folder = temporaryFolder();
  const [json, html] = [join(folder, "lens.json"), join(folder, "lens.html")];
  const { code, stdout, stderr } = await cli([...ASK, "--json", json, "--html", html]);
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  const [title, head, ...rest] = stdout.split("\n");
  expect(title).toBe("what each layer would say, token by token");
  expect(head).toMatch(/^layer {2}" orange" +"<\/s>"$/);
  expect(rest[0]).toMatch(/^input {2}".*" [\d.]+ % +".*" [\d.]+( %|e-\d+)$/);
  expect(rest[4]).toMatch(/^3 +" orange" >99.9 % +"<\/s>" >99.9 %$/);
  expect(rest.slice(5, 8)).toEqual(["", expect.stringMatching(/^what the image tokens say/), "query  words"]);
  const queries = rest.slice(8, -1);
  expect(queries.map((line) => Number.parseInt(line, 10))).toEqual(Array.from({ length: 12 }, (_, q) => q));
  for (const line of queries) expect(line.match(/ (%|[\de-]+) in [0-3]/g)).toHaveLength(5);

  const report: LensReport = JSON.parse(await readFile(json, "utf8"));
  expect(Object.keys(report)).toEqual(["image", "prompt", "answer", "answer_tokens", "image_tokens", "maps"]);
  expect([report.answer, report.answer_tokens.length, report.image_tokens.length]).toEqual([" orange</s>", 2, 12]);
  const { states } = report.answer_tokens[0];
  expect(states).toHaveLength(5);
  expect(states[4].top[0]).toEqual({ id: report.answer_tokens[0].id, logprob: expect.closeTo(0, 3), text: " orange" });
  expect(states[4].logprob).toBeCloseTo(states[4].top[0].logprob, 5);
  expect(report.maps.weights.map(({ length }) => length)).toEqual(
    report.image_tokens.map(() => report.maps.rows * report.maps.columns),
  );

  const page = await readFile(html, "utf8");
  expect(page.match(/<td /g)).toHaveLength(2 * 5);
  expect(page.match(/<td [^>]*class="heat chosen"/g)!.length).toBeGreaterThan(1);
  expect(page).not.toMatch(/\b(src|href)="(?!data:)|url\(|https?:/);
  const [, data] = /<script type="application\/json" id="data">(.*?)<\/script>/.exec(page)!;
  const shown = JSON.parse(data);
  expect(shown.image).toHaveLength(12);
  expect(shown.answer[0].states[4].top[0][0]).toBe(" orange");
  const [, script] = /<script type="module">(.*)<\/script>/s.exec(page)!;
  expect(() => new Script(script)).not.toThrow();
});

it("writes JSON alone to stdout, and looks at another answer", async () => {
  const { code, stdout } = await cli([...ASK, "--answer", "red", "--top-k", "2", "--json", "-"]);
  expect(code).toBe(0);
  const report: LensReport = JSON.parse(stdout);
  expect(report.answer.trim()).toMatch(/^red/);
  const last = report.answer_tokens[0].states.at(-1)!;
  expect(last.top.map(({ text }) => text)[0]).toBe(" orange");
  expect(last.logprob).toBeLessThan(-3);
});

it("has no image tokens of T5, and says why", async () => {
  const model = goldenFolder("t5_flan");
  const html = join(temporaryFolder(), "lens.html");
  const image = join(model, "image_0.png");
  const asked = ["lens", "--model", model, "--image", image, "--prompt", "a", "--max-new-tokens", "3", "--html", html];
  const { code, stdout } = await cli(asked);
  expect(code).toBe(0);
  expect(stdout.trimEnd().split("\n")).toHaveLength(5);
  expect(await readFile(html, "utf8")).toContain("They enter an encoder, which has no head");
});

it("refuses what cannot be looked at, before the model is loaded", async () => {
  expect(await cli([...ASK, "--top-k", "101"])).toMatchObject({ code: EXIT.usage });
  expect(await cli([...ASK, "--answer", "red", "--max-new-tokens", "3"])).toMatchObject({
    code: EXIT.usage,
    stderr: expect.stringContaining("cannot be used with option '--answer <text>'"),
  });
  expect(await cli([...ASK, "--html", join(ROOT, "no/such/folder.html")])).toMatchObject({
    code: EXIT.refused,
    stderr: expect.stringContaining("--html"),
  });
});

const word = (id: number, text: string, logprob: number) => ({ id, text, logprob });
const STATES = [
  { logprob: -1, top: [word(1, "a", -0.1), word(2, "b", -0.2)] },
  { logprob: -1, top: [word(3, "c", -3), word(2, "b", -0.5)] },
  { logprob: -1, top: [word(2, "b", -0.7), word(3, "c", -2)] },
];

test("the surest words are those of any layer, each once, without the input's", () => {
  expect(strongest(STATES, 5).map(({ text, logprob, state }) => [text, logprob, state])).toEqual([
    ["b", -0.5, 1],
    ["c", -2, 2],
  ]);
  expect(strongest(STATES, 1)).toHaveLength(1);
});

test("a wide table is split between tokens", () => {
  const token = { position: 0, id: 2, text: "b", states: STATES };
  const report = { answer_tokens: Array.from({ length: 7 }, () => token), image_tokens: [] } as unknown as LensReport;
  const tabulate = (rows: readonly (readonly string[])[]) => rows.map((row) => `${row.join("|")}\n`).join("");
  const text = lensTables(report, 42, tabulate);
  const heads = text.split("\n").filter((line) => line.startsWith("layer"));
  expect(heads).toEqual(['layer|"b"|"b"|"b"', 'layer|"b"|"b"|"b"', 'layer|"b"']);
  // Even a token that is too wide has its column.
  expect(lensTables(report, 1, tabulate).match(/^layer/gm)).toHaveLength(7);
});
