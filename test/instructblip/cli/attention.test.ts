/** `attention`: weights sum to 1, drawings show them in place, and file names give their content. */
import { readdirSync, readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join, relative } from "node:path";
import sharp from "sharp";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import { AutoProcessor, InstructBlipVideoForConditionalGeneration } from "../../../src/index.node.ts";
import {
  drawSheet,
  heat,
  percent,
  sheetSvg,
  viridis,
} from "../../../src/instructblip/cli/attention/attention_sheet.ts";
import { EXIT } from "../../../src/instructblip/cli/format.ts";
import { Weights } from "../../../src/modules/weights.ts";
import { expectClose } from "../../compare.ts";
import { goldenFolder } from "../../golden_folder.ts";
import { openOutputs } from "../../parity/outputs.ts";
import { temporaryFolder } from "../../temporary.ts";
import { TOLERANCES } from "../../tolerances.ts";
import { HubServer } from "../pretrained/hub_server.ts";
import { cli, json } from "./cli.ts";

const MODEL = goldenFolder("cross_frequency_3_sharded"); // layers 0 and 3
const ONE = ["attention", "--model", MODEL, "--image", join(MODEL, "image_0.png"), "--prompt", "Where's <it> & how?"];

interface Printed {
  readonly prompt: string | null;
  readonly grid: readonly [number, number];
  readonly layers: readonly {
    readonly layer: number;
    readonly head: number | "mean";
    readonly queries: readonly { readonly query: number; readonly class_token: number; readonly patches: number[] }[];
  }[];
}

describe("--json", () => {
  test("weights sum to 1 for every query of every layer with cross-attention", async () => {
    const [{ grid, layers }] = await json<Printed>([...ONE, "--json"]);
    expect(layers.map(({ layer, head }) => [layer, head])).toEqual([
      [0, "mean"],
      [3, "mean"],
    ]);
    for (const { queries } of layers) {
      expect(queries.map(({ query }) => query)).toEqual(queries.map((_, i) => i));
      for (const { class_token, patches } of queries) {
        expect(patches).toHaveLength(grid[0] * grid[1]);
        expect(patches.reduce((sum, weight) => sum + weight, class_token)).toBeCloseTo(1, 5);
      }
    }
  });

  test("does not load the language model", async () => {
    const asked = vi.spyOn(Weights.prototype, "at");
    await json<Printed>([...ONE, "--json"]);
    const names = asked.mock.calls.map(([name]) => name);
    asked.mockRestore();
    expect(names).toContain("vision_model");
    expect(names).not.toContain("language_model");
  });

  test("prints heads, layers and queries separately, with the default as their mean", async () => {
    const [mean] = await json<Printed>([...ONE, "--json"]);
    const [all] = await json<Printed>([...ONE, "--json", "--layer", "3", "--query", "1", "--head", "all"]);
    expect(new Set(all.layers.map(({ layer }) => layer))).toEqual(new Set([3]));
    const heads = all.layers.map(({ queries }) => queries);
    expect(heads.length).toBeGreaterThan(1);
    expect(heads.every((queries) => queries.length === 1 && queries[0].query === 1)).toBe(true);
    mean.layers[1].queries[1].patches.forEach((weight, i) => {
      const sum = heads.reduce((total, [{ patches }]) => total + patches[i], 0);
      expect(weight).toBeCloseTo(sum / heads.length, 6);
    });
    const [one] = await json<Printed>([...ONE, "--json", "--layer", "3", "--query", "1", "--head", "1"]);
    expect(one.layers).toEqual([all.layers[1]]);
  });
});

test("weights that do not fit are refused before they are downloaded; the language model's do not count", async () => {
  const found = readdirSync(MODEL, { withFileTypes: true, recursive: true });
  const names = found
    .filter((entry) => entry.isFile())
    .map((entry) => relative(MODEL, join(entry.parentPath, entry.name)));
  const files = Object.fromEntries(names.map((name) => [name, readFileSync(join(MODEL, name))]));
  const large = names.filter((name) => name.endsWith(".safetensors"));
  const server = await HubServer.start({ repository: "owner/name", commit: "a".repeat(40), files, large });
  onTestFinished(async () => {
    vi.unstubAllEnvs();
    await server.stop();
  });
  vi.stubEnv("HF_ENDPOINT", server.endpoint);
  vi.stubEnv("HF_HOME", temporaryFolder());
  vi.stubEnv("INSTRUCTBLIP_MEMORY_BUDGET", "20000");
  const ask = ONE.map((word) => (word === MODEL ? "owner/name" : word));
  const { code, stderr } = await cli([...ask, "--json"]);
  expect({ code, stderr }).toEqual({
    code: EXIT.refused,
    stderr: expect.stringContaining("its weights take 92.7 KiB, "),
  });
  const asked = server.seen.filter(({ host, path }) => host === "cdn" || path.endsWith(".safetensors"));
  expect(asked.length).toBeGreaterThan(0);
  expect(asked.filter(({ method, range }) => method === "GET" && range === undefined)).toEqual([]);
});

describe("a sibling", () => {
  /** All weights as the model has them. f32[H, Q, N + 1] */
  const weightsOf = (layers: Printed["layers"]) =>
    Float32Array.from(layers.flatMap(({ queries }) => queries.flatMap((q) => [q.class_token, ...q.patches])));

  test("BLIP-2's attention equals PyTorch's, without a prompt", async () => {
    const folder = goldenFolder("blip2_opt");
    const args = ["attention", "--model", folder, "--image", join(folder, "image_0.png"), "--json", "--head", "all"];
    const [{ prompt, layers }] = await json<Printed>(args);
    expect(prompt).toBe(null);
    const file = await openOutputs("blip2_opt");
    for (const [i, layer] of [0, 2].entries()) {
      const bytes = await file.read(`qformer_outputs.cross_attentions.${i}`); // of two images
      const expected = new Float32Array(bytes.slice().buffer).subarray(0, bytes.length / 8);
      const found = weightsOf(layers.filter((map) => map.layer === layer));
      expectClose(found, expected, TOLERANCES.attention, `layer ${layer}`);
    }
    await file.close();
    const svg = join(temporaryFolder(), "sheet.svg");
    expect(await cli([...args.slice(0, 5), "--layer", "2", "--out", svg])).toMatchObject({ code: 0, stderr: "" });
    expect(await readFile(svg, "utf8")).toContain(">image_0.png</text>");
  });

  test("a frame has the attention that it has in its video", async () => {
    const folder = goldenFolder("video_4_frames");
    const frames = [0, 1, 2, 3].map((i) => join(folder, `image_${i}.png`));
    const text = "a photo of";
    const args = ["attention", "--model", folder, "--image", frames[2], "--prompt", text, "--json", "--head", "all"];
    const [{ layers }] = await json<Printed>(args);
    const processor = await AutoProcessor.from_pretrained(folder);
    const model = await InstructBlipVideoForConditionalGeneration.from_pretrained(folder);
    const inputs = (await processor({ images: frames, text })) as Parameters<typeof model.get_video_features>[0];
    const { qformer_outputs } = await model.get_video_features({ ...inputs, output_attentions: true });
    const expected: number[] = [];
    for (const maps of qformer_outputs.cross_attentions!) {
      const all = await maps.read(); // [4, H, Q, N + 1]
      expected.push(...all.subarray(2 * (all.length / 4), 3 * (all.length / 4)));
    }
    model.dispose();
    expectClose(weightsOf(layers), Float32Array.from(expected), TOLERANCES.attention, "frame 2");
  });

  test("requires a prompt if its Q-Former reads one, else refuses it", async () => {
    const blip2 = goldenFolder("blip2_opt");
    for (const [args, message] of [
      [["--model", blip2, "--prompt", "a photo of"], "error: --prompt: BLIP-2's Q-Former reads no text"],
      [["--model", MODEL], "error: --prompt <text> is needed"],
    ] as const) {
      const image = join(MODEL, "image_0.png");
      const { code, stdout, stderr } = await cli(["attention", ...args, "--image", image, "--json"]);
      expect({ code, stdout }).toEqual({ code: EXIT.refused, stdout: "" });
      expect(stderr).toContain(message);
    }
  });
});

describe("--out", () => {
  test("writes a PNG for each layer, and one for a layer, a query or a head", async () => {
    const folder = temporaryFolder();
    const { code, stdout, stderr } = await cli([...ONE, "--out", join(folder, "a.b.png")]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    const names = ["a.b.layer-0.png", "a.b.layer-3.png"];
    expect(stdout).toBe(names.map((name) => `${join(folder, name)}\n`).join(""));
    const { format, width = 0, height = 0 } = await sharp(join(folder, names[0])).metadata();
    expect(format).toBe("png");
    expect(width).toBeGreaterThan(600);
    expect(height).toBeGreaterThan(400);

    await cli([...ONE, "--out", join(folder, "layer.png"), "--layer", "0", "--blocks"]);
    await cli([...ONE, "--out", join(folder, "query.png"), "--query", "0", "--head", "all"]);
    await cli([...ONE, "--out", join(folder, "head.png"), "--layer", "3", "--head", "all"]);
    const heads = readdirSync(folder).filter((name) => name.startsWith("head"));
    expect(heads).toEqual(heads.map((_, h) => `head.head-${h}.png`));
    expect(heads.length).toBeGreaterThan(1);
    expect(readdirSync(folder)).toEqual([...names, ...heads, "layer.png", "query.png"].sort());
  });

  test("writes an SVG whose labels are text", async () => {
    const file = join(temporaryFolder(), "sheet.svg");
    const { code } = await cli([...ONE, "--out", file, "--layer", "3", "--scale-max", "0.001"]);
    expect(code).toBe(0);
    const svg = await readFile(file, "utf8");
    expect(svg).toContain("image_0.png: “Where's &lt;it&gt; &amp; how?”</text>");
    expect(svg).toContain("layer 3, mean of all heads");
    expect(svg).toMatch(/query 0 · class [0-9.]+ %<\/text>/);
    expect(svg).toContain(">≥ 0.10 %</text>");
    const { width, height } = await sharp(Buffer.from(svg)).metadata();
    expect(svg).toContain(`width="${width}" height="${height}"`);
  });

  test.each([
    [["--out", "sheet.gif"], "must end in .png or .svg"],
    [["--out", "nowhere/sheet.png"], "there is no folder nowhere"],
    [["--json", "--layer", "1"], "--layer 1: queries look at the image in layers 0, 3"],
    [["--json", "--head", "99"], "--head 99: there are heads 0 to"],
    [["--json", "--query", "99"], "--query 99: there are queries 0 to"],
  ])("%j is refused before the model is loaded", async (options, message) => {
    const { code, stdout, stderr } = await cli([...ONE, ...options]);
    expect({ code, stdout }).toEqual({ code: EXIT.refused, stdout: "" });
    expect(stderr).toContain(message);
  });

  test("an output is required", async () => {
    const { code, stderr } = await cli(ONE);
    expect(code).toBe(EXIT.usage);
    expect(stderr).toContain("required option '--out <file>' not specified");
  });
});

describe("the drawing", () => {
  test("has matplotlib's colours", () => {
    // matplotlib.colormaps["viridis"] at 0, 0.25, 0.5, 0.75 and 1.
    const expected = [
      [0, [68, 1, 84]],
      [0.25, [59, 82, 139]],
      [0.5, [33, 145, 140]],
      [0.75, [94, 201, 98]],
      [1, [253, 231, 37]],
    ] as const;
    for (const [t, color] of expected) {
      viridis(t).forEach((value, c) => {
        expect(Math.abs(value - color[c]), `${t}`).toBeLessThanOrEqual(4);
      });
    }
    expect(viridis(7)).toEqual(viridis(1));
  });

  const grey = (width: number, height: number) => ({
    width,
    height,
    data: new Uint8Array(3 * width * height).fill(128),
  });
  const at = ({ width, data }: { width: number; data: Uint8Array }, x: number, y: number) => [
    ...data.subarray(3 * (y * width + x), 3 * (y * width + x) + 3),
  ];

  test("draws a patch's weight over the patch, and nothing over pixels outside of patches", () => {
    const grid = { rows: 2, columns: 2, height: 2.5, width: 2.5 };
    const weights = Float32Array.of(0, 0.5, 1, 0);
    const blocks = heat(grey(25, 25), weights, grid, 1, true);
    const [none, half, all] = [at(blocks, 5, 5), at(blocks, 15, 5), at(blocks, 5, 15)];
    expect(new Set([none, half, all].map(String)).size).toBe(3);
    expect(at(blocks, 9, 9)).toEqual(none);
    expect(at(blocks, 10, 9)).toEqual(half);
    expect(at(blocks, 24, 5)).toEqual([128, 128, 128]);
    const smooth = heat(grey(25, 25), weights, { ...grid, height: 2, width: 2 }, 1, false);
    expect(at(smooth, 0, 0)).toEqual(none); // constant beyond the outermost centres
    expect(at(smooth, 24, 0)).toEqual(half);
    expect(at(smooth, 0, 24)).toEqual(all);
    expect(at(smooth, 12, 0)).not.toEqual(none); // halfway between 0 and 0.5
    expect(at(smooth, 12, 0)).not.toEqual(half);
  });

  test("all maps have one scale, and weights above it are clipped", () => {
    const grid = { rows: 1, columns: 1, height: 1, width: 1 };
    const map = (weight: number) => ({
      caption: `${weight}`,
      patches: Float32Array.of(weight),
      class_token: 1 - weight,
    });
    const draw = (weights: number[], scale_max?: number) => {
      const content = { title: "t", subtitle: "s", image: grey(8, 8), grid, maps: weights.map(map), scale_max };
      return drawSheet(content);
    };
    const centre = (sheet: ReturnType<typeof draw>, i: number) => {
      const { x, y } = sheet.labels.filter(({ text }) => text.includes("class ") && !text.startsWith("class"))[i];
      return at(sheet.canvas, Math.round(x), y - 60);
    };
    const two = draw([0.2, 0.4]);
    expect(centre(two, 0)).not.toEqual(centre(two, 1));
    expect(centre(draw([0.4]), 0)).toEqual(centre(two, 1));
    const cut = draw([0.2, 0.4], 0.2);
    expect(centre(cut, 0)).toEqual(centre(cut, 1));
    expect(cut.labels.map(({ text }) => text)).toContain("≥ 20 %");
    expect(two.labels.map(({ text }) => text)).toContain("40 %");
    expect(draw([0]).labels.map(({ text }) => text)).toContain("0 %"); // a head that looks at the class token alone
  });

  test("labels are within the sheet for any number of maps and length of the prompt", () => {
    for (const count of [1, 2, 5, 12, 31, 32]) {
      const map = { caption: "query 31", patches: new Float32Array(4).fill(0.2), class_token: 0.2 };
      const grid = { rows: 2, columns: 2, height: 2, width: 2 };
      const maps = Array.from({ length: count }, () => map);
      const image = grey(64, 20);
      const sheet = drawSheet({ title: "very long ".repeat(99), subtitle: "s", image, grid, maps, mean: map });
      const { width, height } = sheet.canvas;
      for (const { text, x, y, size, anchor } of sheet.labels) {
        const right = { start: 1, middle: 0.5, end: 0 }[anchor];
        const span = 0.5 * size * text.length;
        expect(x + right * span, text).toBeLessThanOrEqual(width);
        expect(x - (1 - right) * span, text).toBeGreaterThanOrEqual(0);
        expect(y + size / 2, text).toBeLessThanOrEqual(height);
      }
      expect(sheetSvg(sheet)).not.toContain("<image");
    }
  });

  test("writes weights with two digits", () => {
    expect([0, 1, 0.994, 0.1234, 0.0995, 0.0123, 0.00123, 0.0000123, 1e-9].map(percent)).toEqual([
      "0 %",
      "100 %",
      "99 %",
      "12 %",
      "10 %",
      "1.2 %",
      "0.12 %",
      "0.0012 %",
      "<0.001 %",
    ]);
  });
});
