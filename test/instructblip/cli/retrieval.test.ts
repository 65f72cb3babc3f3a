/** `features` and `retrieve`, against transformers' numbers, and against themselves in shards and resumed. */
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { afterAll, describe, expect, it, vi } from "vitest";
import { EXIT } from "../../../src/instructblip/cli/format.ts";
import { readItems } from "../../../src/instructblip/cli/retrieval/items.node.ts";
import type { EmbeddedImage } from "../../../src/instructblip/data/row.ts";
import { Blip2ForImageTextRetrieval } from "../../../src/instructblip/pretrained/blip_2_retrieval.ts";
import { DeviceError } from "../../../src/tensor/errors.ts";
import { SafetensorsFile } from "../../../src/tensor/files/safetensors.ts";
import { FileSource } from "../../../src/tensor/files/source.node.ts";
import { expectClose } from "../../compare.ts";
import { goldenFolder } from "../../golden_folder.ts";
import { Golden } from "../../parity/golden.ts";
import { ALL } from "../../rounds.ts";
import { temporaryFolder } from "../../temporary.ts";
import { TOLERANCES } from "../../tolerances.ts";
import { SAME, writeDataSets } from "../data/data_sets.ts";
import { cli, json, SHAPES, SHAPES_IMAGE } from "./cli.ts";

const model = goldenFolder("itm");
const SHAPES_MODEL = join(SHAPES, "checkpoint");
const golden = await Golden.open(model);
afterAll(() => golden.close());
const { texts } = golden.json as unknown as { readonly texts: readonly string[] };
const image = (i: number) => join(model, `image_${i}.png`);
const folder = temporaryFolder();
const data = join(folder, "items.jsonl");
const items = [
  { id: "both", image: image(0), text: texts[0] },
  { image: image(1) },
  { text: texts[1] },
  { id: "gone", image: "gone.png", text: "x" },
  { id: "last", image: image(2), text: texts[2] },
];
writeFileSync(data, items.map((item) => `${JSON.stringify(item)}\n`).join(""));
const features = (out: string, ...more: string[]) =>
  cli(["features", "--model", model, "--data", data, "--out", join(folder, out), ...more]);

interface Written {
  readonly floats: Record<string, Float32Array>;
  readonly index: Record<string, number[]>;
  readonly metadata: Record<string, string>;
}

async function read(name: string): Promise<Written> {
  const file = await SafetensorsFile.open(await FileSource.open(resolve(folder, name)));
  const [floats, index] = [{} as Written["floats"], {} as Written["index"]];
  for (const [key, { dtype }] of file.tensors) {
    const { buffer } = (await file.read(key)).slice();
    if (dtype === "f32") floats[key] = new Float32Array(buffer);
    else index[key] = [...new BigInt64Array(buffer)].map(Number);
  }
  const metadata = Object.fromEntries(file.metadata);
  await file.close();
  return { floats, index, metadata };
}

describe("features", () => {
  it("are transformers' numbers, without what failed, and the same in a shard", async () => {
    const whole = await features("whole.safetensors", "--batch-size", "2");
    expect(whole).toMatchObject({ code: EXIT.someFailed, stdout: "" });
    expect(whole.stderr).toBe(
      `1 of 5 items failed and are not in ${join(folder, "whole.safetensors")}; the first: "gone": gone.png: no such file\n`,
    );
    expect(existsSync(join(folder, "whole.safetensors.part"))).toBe(false);
    const { floats, index, metadata } = await read("whole.safetensors");
    expect(index).toEqual({
      "image_embeds.index": [0, 1, 4],
      "query_outputs.index": [0, 1, 4],
      "text_embeds.index": [0, 2, 4],
    });
    expect(JSON.parse(metadata.ids)).toEqual([
      [0, "both"],
      [1, 1],
      [2, 2],
      [3, "gone"],
      [4, "last"],
    ]);
    for (const name of ["image_embeds", "text_embeds"]) {
      expectClose(floats[name], (await golden.floats(`itc.${name}`)).data, TOLERANCES.free_running, name);
    }

    await features("part.safetensors", "--shard", "1/2");
    const part = await read("part.safetensors");
    expect(part.index).toEqual({ "image_embeds.index": [1], "query_outputs.index": [1] });
    expectClose(part.floats.image_embeds, floats.image_embeds.slice(50, 100), TOLERANCES.free_running, "shard 1");
    expect((await features("part.safetensors", "--shard", "1/2")).stderr).toContain("the file exists");
    const otherShard = await features("part.safetensors", "--resume");
    expect(otherShard).toMatchObject({ code: EXIT.refused, stderr: expect.stringContaining("they differ in shard") });
    expect((await features("part.safetensors", "--shard", "1/2", "--resume")).code).toBe(EXIT.someFailed);
    const again = await features("whole.safetensors", "--resume");
    expect(again.code).toBe(EXIT.someFailed);
    expect(again.stderr).toContain("is complete; 1 of 5 items failed");
    const otherPrompt = await features("whole.safetensors", "--resume", "--prompt", "a");
    expect(otherPrompt).toMatchObject({ code: EXIT.refused, stderr: expect.stringContaining("they differ in prompt") });
    const otherDType = await features("whole.safetensors", "--resume", "--dtype", "f16");
    expect(otherDType).toMatchObject({ code: EXIT.refused, stderr: expect.stringContaining("they differ in dtype") });
  });

  it("go on where they were stopped", async () => {
    const name = join(folder, "cut.safetensors");
    const line = (index: number, id: unknown) =>
      `${JSON.stringify({ index, id, features: { text_embeds: { shape: [10], f32: Buffer.alloc(40).toString("base64") } } })}\n`;
    const { metadata } = await read("whole.safetensors");
    const part = `{"features":${metadata.features}}\n${line(0, "both")}${line(1, 1)}{"index":2,`;
    writeFileSync(`${name}.part`, part);
    expect((await features("cut.safetensors")).stderr).toContain("the file is not empty");
    const other = await features("cut.safetensors", "--resume", "--dtype", "f16");
    expect(other).toMatchObject({ code: EXIT.refused, stderr: expect.stringContaining("differ in dtype") });
    expect(readFileSync(`${name}.part`, "utf8")).toContain(line(1, 1));
    expect((await features("cut.safetensors", "--resume")).code).toBe(EXIT.someFailed);
    const { floats, index } = await read("cut.safetensors");
    expect(index).toMatchObject({ "text_embeds.index": [0, 1, 2, 4], "image_embeds.index": [4] });
    const { floats: whole } = await read("whole.safetensors");
    expect([...floats.text_embeds.slice(0, 20)]).toEqual(new Array<number>(20).fill(0));
    expectClose(floats.text_embeds.slice(20), whole.text_embeds.slice(10), TOLERANCES.free_running, "the rest");
  });

  it.each(
    ALL
      ? [SHAPES_MODEL, model, goldenFolder("blip2_opt"), goldenFolder("video_1_frame"), goldenFolder("legacy_llama")]
      : [SHAPES_MODEL],
  )("of an item of %s are the same bits in every batch", async (of) => {
    const texts = ["a red circle", "What is the yellow shape?", "red", "Is the small triangle above the blue square?"];
    const lines = texts.map((text) => `${JSON.stringify({ image: SHAPES_IMAGE, text })}\n`).join("");
    writeFileSync(join(folder, "texts.jsonl"), lines);
    const [alone, together] = await Promise.all(
      ["1", "4"].map(async (size) => {
        const name = `batch_${size}.safetensors`;
        const asked = ["features", "--model", of, "--data", join(folder, "texts.jsonl"), "--out", join(folder, name)];
        expect((await cli([...asked, "--batch-size", size])).code).toBe(EXIT.ok);
        const { floats } = await read(name);
        rmSync(join(folder, name));
        return floats;
      }),
    );
    expect(together).toEqual(alone);
    expect(alone.query_outputs.every(Number.isFinite)).toBe(true);
  });

  it.each([
    ['{"image": "a.png", "texts": "a"}', 'line 1: a line has no field "texts"'],
    ['{"text": "a"}\n{"id": 0, "text": "b"}', "line 2: the id 0 is on line 1 already"],
    ['{"id": 1}', "line 1: there is no image and no text"],
    ["", "there are no images and no texts in it"],
    ["PAR1\u0015\u0004", "bad.jsonl: not a Parquet file that can be read"],
  ])("refuses %s", async (lines, message) => {
    const bad = join(folder, "bad.jsonl");
    writeFileSync(bad, lines);
    const { code, stderr } = await cli(["features", "--model", model, "--data", bad, "--out", join(folder, "bad.st")]);
    expect(code).toBe(EXIT.refused);
    expect(stderr).toContain(message);
    expect(stderr.split("hint:").length).toBeLessThanOrEqual(2);
  });

  it("refuse a folder of images before loading if the Q-Former reads an instruction", async () => {
    const out = join(folder, "none.safetensors");
    const asked = ["features", "--model", SHAPES_MODEL, "--data", join(SHAPES, "images"), "--out", out];
    const { code, stderr } = await cli(asked);
    expect(code).toBe(EXIT.refused);
    expect(stderr).toContain("no item can be embedded; the first needs a text: the Q-Former reads an instruction");
    expect([out, `${out}.part`].some(existsSync)).toBe(false);
  });

  it("that exceed memory are computed of halves, and later batches are as small", async () => {
    const file = join(folder, "texts.jsonl");
    writeFileSync(
      file,
      [...texts, ...texts]
        .slice(0, 6)
        .map((text) => `${JSON.stringify({ text })}\n`)
        .join(""),
    );
    const args = ["features", "--model", model, "--data", file, "--batch-size", "4", "--out"];
    expect((await cli([...args, join(folder, "roomy.safetensors")])).code).toBe(EXIT.ok);
    const { get_text_features } = Blip2ForImageTextRetrieval.prototype;
    const sizes: number[] = [];
    const tight = vi.spyOn(Blip2ForImageTextRetrieval.prototype, "get_text_features");
    tight.mockImplementation(function (this: Blip2ForImageTextRetrieval, inputs) {
      sizes.push(inputs.input_ids.length);
      if (inputs.input_ids.length > 2) return Promise.reject(new DeviceError("BUDGET", "too large"));
      return get_text_features.call(this, inputs);
    });
    const code = await cli([...args, join(folder, "tight.safetensors")]).finally(() => tight.mockRestore());
    expect(code).toMatchObject({ code: EXIT.ok, stderr: "" });
    expect(sizes).toEqual([4, 2, 2, 2]);
    expect(await read("tight.safetensors")).toEqual(await read("roomy.safetensors"));
  });
});

describe("retrieve", () => {
  const asked = ["retrieve", "--model", model, "--data", data];

  it("ranks texts for an image: the best by ITC are judged by ITM, and come first", async () => {
    const texts = join(folder, "texts.jsonl");
    writeFileSync(
      texts,
      items.map(({ id, text }, i) => (text ? `${JSON.stringify({ id: id ?? i, text })}\n` : "")).join(""),
    );
    const ranking = ["retrieve", "--model", model, "--data", texts, "--image", image(1), "--rerank", "2", "--json"];
    const [{ ranked }] = await json<{ ranked: { id: unknown; itc: number; itm?: number; score: number }[] }>(ranking);
    const { data: itc } = await golden.floats("itc.logits_per_image"); // [images, texts]
    const { data: itm } = await golden.floats("itm.logits_per_image"); // of equal places
    for (const [id, t] of [
      ["both", 0],
      [2, 1],
      ["last", 2],
    ] as const) {
      const found = ranked.find((one) => one.id === id)!;
      expect(found.itc).toBeCloseTo(itc[3 + t], 5);
      if (t !== 1 || found.itm === undefined) continue;
      expect(found.itm).toBeCloseTo(1 / (1 + Math.exp(itm[2] - itm[3])), 4);
      expect(found.score).toBeCloseTo(itm[3] + itc[4], 4);
    }
    expect(ranked.map((one) => one.itm !== undefined)).toEqual([true, true, false, false]);
    expect(ranked[0].score).toBeGreaterThanOrEqual(ranked[1].score);
    expect(Math.min(ranked[0].itc, ranked[1].itc)).toBeGreaterThanOrEqual(ranked[2].itc);
    expect(ranked[2].itc).toBeGreaterThanOrEqual(ranked[3].itc);
  });

  it("ranks the images of a folder for a text, as a table", async () => {
    const { code, stdout } = await cli([
      "retrieve",
      "--model",
      model,
      "--data",
      model,
      "--text",
      texts[2],
      "--rerank",
      "0",
      "--top",
      "2",
    ]);
    expect(code).toBe(EXIT.ok);
    const { data: itc } = await golden.floats("itc.logits_per_image");
    const order = [0, 1, 2].sort((a, b) => itc[3 * b + 2] - itc[3 * a + 2]).slice(0, 2);
    const [head, ...rows] = stdout.trimEnd().split("\n");
    expect(head.trim().split(/ +/)).toEqual(["ITC", "ITM", "score", "id"]);
    expect(rows.slice(0, 2).map((row) => row.trim().split(/ +/))).toEqual(
      order.map((i, k) => [String(k + 1), itc[3 * i + 2].toFixed(4), itc[3 * i + 2].toFixed(4), `image_${i}.png`]),
    );
    expect(rows[2]).toBe("1 more; --top 0 prints all");
  });

  it("leaves out what fails, and ends with 3", async () => {
    const [good, bad] = [join(folder, "good.jsonl"), join(folder, "some.jsonl")];
    const lines = [0, 1].map((i) => `${JSON.stringify({ id: i, image: image(i) })}\n`);
    writeFileSync(good, lines.join(""));
    writeFileSync(bad, `${lines[0]}{"id": "gone", "image": "gone.png"}\n${lines[1]}`);
    const ask = (file: string) => cli(["retrieve", "--model", model, "--data", file, "--text", texts[1], "--json"]);
    const [all, some] = [await ask(good), await ask(bad)];
    expect(all).toMatchObject({ code: EXIT.ok, stderr: "" });
    expect(some).toEqual({
      code: EXIT.someFailed,
      stdout: all.stdout,
      stderr: '1 of 3 items failed and are not ranked; the first: "gone": gone.png: no such file\n',
    });
  });

  it("needs a query, data of its kind, and a model that compares", async () => {
    expect(await cli(asked)).toMatchObject({ code: EXIT.usage, stderr: expect.stringContaining("'--text <text>'") });
    const both = await cli([...asked, "--text", "a", "--image", image(0)]);
    expect(both).toMatchObject({ code: EXIT.usage, stderr: expect.stringContaining("cannot be used with") });
    const folderAlone = await cli(["retrieve", "--model", model, "--data", model, "--image", image(0)]);
    expect(folderAlone.stderr).toContain("there are no texts in it to rank");
    const other = await cli(["retrieve", "--model", SHAPES_MODEL, "--data", data, "--text", "a"]);
    expect(other).toMatchObject({
      code: EXIT.refused,
      stderr: expect.stringContaining("needs a retrieval checkpoint"),
    });
    const long = await cli(["retrieve", "--model", model, "--data", model, "--text", "red ".repeat(600)]);
    expect(long).toMatchObject({ code: EXIT.refused, stderr: expect.stringContaining("hint: shorten it; in code") });
    const generating = await cli(["generate", "--model", model, "--image", image(0), "--prompt", "a"]);
    expect(generating.stderr).toContain("the model is a Blip2ForImageTextRetrieval, which generates no text");
  });
});

describe("a data set", () => {
  const sets = temporaryFolder();
  writeDataSets(sets);
  const questions = JSON.parse(readFileSync(join(sets, "paths.json"), "utf8")) as {
    id: string;
    image: string;
    question: string;
  }[];
  const argumentsOf = (format: string) => {
    const [name, ...more] = format.split(" ");
    return { path: join(sets, name), more };
  };

  const few = ["hub --split train", "chosen", "paths.jsonl", "paths.jsonl columns"];
  it.each(ALL ? [...SAME, "paths.jsonl", "paths.jsonl columns"] : few)(
    "of %s has the items of JSON lines",
    async (format) => {
      const { path, more } = argumentsOf(format);
      const options = more[0] === "columns" ? { imageColumn: "image" } : { split: more[1] };
      const { items, base, close } = await readItems(path, options);
      const read = await Promise.all(
        items.map(async ({ image, ...item }) => {
          const found = typeof image === "string" ? image : await (image as EmbeddedImage).read();
          return { ...item, image: typeof found === "string" ? readFileSync(join(base, found)) : Buffer.from(found) };
        }),
      );
      await close();
      expect(read).toEqual(
        questions.map(({ id, image, question }) => ({ id, text: question, image: readFileSync(join(sets, image)) })),
      );
    },
  );

  const lines = join(sets, "items.jsonl");
  writeFileSync(
    lines,
    questions.map(({ id, image, question }) => `${JSON.stringify({ id, image, text: question })}\n`).join(""),
  );

  it.each(ALL ? SAME : ["hub --split train"])("of %s has the features and the ranks of JSON lines", async (format) => {
    const { path, more } = argumentsOf(format);
    const write = async (data: readonly string[], out: string) => {
      const asked = ["features", "--model", model, "--data", ...data, "--out", join(sets, out)];
      expect(await cli(asked)).toMatchObject({ code: EXIT.ok, stderr: "" });
      const { floats, index, metadata } = await read(join(sets, out));
      rmSync(join(sets, out));
      return { floats, index, ids: metadata.ids };
    };
    expect(await write([path, ...more], "a.safetensors")).toEqual(await write([lines], "b.safetensors"));
    if (!ALL) return;
    const threads = await write([path, ...more, "--workers", "2"], "c.safetensors");
    expect(threads).toEqual(await write([lines], "b.safetensors"));
    const ranks = async (...data: string[]) => {
      const ranked = await json<{ ranked: object[] }>(["retrieve", "--model", model, "--data", ...data, "--json"]);
      return ranked[0].ranked;
    };
    for (const query of [
      ["--text", "red"],
      ["--image", image(1)],
    ]) {
      expect(await ranks(path, ...more, ...query)).toEqual(await ranks(lines, ...query));
    }
  });

  it("of lines with our names has no other, which a hint says how to read", async () => {
    const file = join(sets, "ours.jsonl");
    writeFileSync(file, '{"image": "a.png", "text": "a"}\n{"image": "b.png", "question": "b"}\n');
    await expect(readItems(file)).rejects.toMatchObject({
      code: "UNKNOWN_FIELD",
      message: expect.stringContaining('line 2: a line has no field "question"'),
      hint: expect.stringContaining("--question-column"),
    });
  });

  it("of a folder of images has one text for every image", async () => {
    const images = join(SHAPES, "images");
    const names = (await readItems(images)).items.map(({ image }) => image);
    const found = await readItems(images, { prompt: "What is in {image}?" });
    expect(found.items).toEqual(names.map((name) => ({ id: name, image: name, text: `What is in ${name}?` })));
    expect(found.base).toBe(images);
    await expect(readItems(images, { prompt: "{nope}" })).rejects.toMatchObject({ code: "UNKNOWN_COLUMN" });
    await expect(readItems(images, { split: "train" })).rejects.toThrow(/a folder of images, which has no columns/);
  });

  it("has a text by --prompt, or a caption; of several none is chosen", async () => {
    const file = join(sets, "captions.json");
    const write = (...rows: object[]) => writeFileSync(file, JSON.stringify(rows));
    write({ image: "a.png", caption: "a cat" }, { image: null, caption: ["a dog"] });
    expect((await readItems(file)).items).toEqual([
      { id: 0, image: "a.png", text: "a cat" },
      { id: 1, text: "a dog" },
    ]);
    expect((await readItems(file, { prompt: "a photo of {caption}" })).items[0].text).toBe("a photo of a cat");
    await expect(readItems(file, { prompt: "{nope}" })).rejects.toThrow(/nope/);
    await expect(readItems(file, { idColumn: "nope" })).rejects.toMatchObject({ code: "UNKNOWN_COLUMN" });
    write({ image: "a.png", captions: ["a", "b"] });
    await expect(readItems(file)).rejects.toThrow(/captions\.json: element 0: there are 2 texts in this row, not one/);
    write({ image: ["a.png", "b.png"] });
    await expect(readItems(file)).rejects.toThrow(/element 0: there are 2 images in this row/);
    write({ question_id: 1, answers: ["a"] });
    await expect(readItems(file)).rejects.toThrow(/element 0: there is no image and no text/);
    const empty = temporaryFolder();
    await expect(readItems(empty)).rejects.toThrow(/no images in this folder, and no \.parquet/);
    await expect(readItems(join(sets, "hub"))).rejects.toMatchObject({ code: "UNKNOWN_SPLIT" });
  });
});

it.runIf(ALL)("features of a model that generates are those of the Q-Former and the projection", async () => {
  const blip2 = goldenFolder("blip2_opt");
  const images = join(folder, "two.jsonl");
  writeFileSync(images, [0, 1].map((i) => `${JSON.stringify({ image: join(blip2, `image_${i}.png`) })}\n`).join(""));
  const out = join(folder, "blip2.safetensors");
  expect((await cli(["features", "--model", blip2, "--data", images, "--out", out])).code).toBe(EXIT.ok);
  const { floats } = await read("blip2.safetensors");
  const expected = await Golden.open(blip2);
  for (const [name, of] of [
    ["image_features", "image_features"],
    ["query_outputs", "qformer_outputs.last_hidden_state"],
  ]) {
    expectClose(floats[name], (await expected.floats(of)).data, TOLERANCES.free_running, name);
  }
  await expected.close();
});
