/** Readers of data sets against what pyarrow, datasets and tarfile wrote, and what they say of damaged files. */
import { createHash } from "node:crypto";
import { cpSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { CompressionType, getCompressionCodec } from "@uwdata/flechette";
import { beforeAll, describe, expect, test, vi } from "vitest";
import { openDataSet } from "../../../src/instructblip/data/data_set.node.ts";
import { GunzippedSource } from "../../../src/instructblip/data/gunzipped.node.ts";
import type { EmbeddedImage, Row } from "../../../src/instructblip/data/row.ts";
import { EngineError } from "../../../src/tensor/errors.ts";
import type { FileSource } from "../../../src/tensor/files/source.node.ts";
import { temporaryFolder } from "../../temporary.ts";
import { SAME, writeDataSets } from "./data_sets.ts";

let folder: string;
let questions: Record<string, unknown>[];
beforeAll(() => {
  folder = temporaryFolder();
  writeDataSets(folder);
  questions = JSON.parse(readFileSync(join(folder, "paths.json"), "utf8"));
});

const checked = (row: Row) => {
  if ("error" in row) throw row.error;
  return row.value;
};

async function rowsOf(name: string, split?: string): Promise<Record<string, unknown>[]> {
  const set = (await openDataSet(join(folder, name), split))!;
  try {
    const rows: Record<string, unknown>[] = [];
    for await (const row of set.rows()) rows.push(checked(row));
    if (set.count !== undefined) expect(rows.length).toBe(set.count);
    return rows;
  } finally {
    await set.close();
  }
}

const refusal = async (name: string, split?: string): Promise<EngineError> => {
  try {
    await rowsOf(name, split);
  } catch (error) {
    expect(error).toBeInstanceOf(EngineError);
    return error as EngineError;
  }
  throw new Error(`${name} was read`);
};

const sha256 = (bytes: Uint8Array | string) => createHash("sha256").update(bytes).digest("hex");

describe("the same questions in", () => {
  test.each(SAME)("%s", async (which) => {
    const [name, , split] = which.split(" ");
    const set = (await openDataSet(join(folder, name!), split))!;
    const rows: Record<string, unknown>[] = [];
    for await (const row of set.rows()) rows.push(checked(row));
    expect(rows.length).toBe(questions.length);
    // Backwards, so that the images of an earlier file and row group are read again.
    for (const [i, { id, image, png, question, txt, answers, kind }] of [...rows.entries()].reverse()) {
      const one = questions[i]!;
      expect({ id, question: question ?? txt, answers, kind }).toEqual({ ...one, image: undefined });
      const source = image ?? png;
      if (typeof source === "string") expect(source).toBe(one.image);
      else {
        expect((source as EmbeddedImage).name).toBe(one.image);
        const bytes = await (source as EmbeddedImage).read();
        expect(sha256(bytes)).toBe(sha256(readFileSync(join(folder, one.image as string))));
      }
    }
    await set.close();
  });

  test("a folder of more shards than are open at a time", async () => {
    mkdirSync(join(folder, "many/data"), { recursive: true });
    for (let i = 0; i < 40; i++)
      symlinkSync(
        join(folder, "hub/data/test-00000-of-00001.parquet"),
        join(folder, `many/data/train-${i}-of-40.parquet`),
      );
    const set = (await openDataSet(join(folder, "many")))!;
    const images: EmbeddedImage[] = [];
    for await (const row of set.rows()) images.push(checked(row).image as EmbeddedImage);
    expect(images.length).toBe(40);
    const read = await Promise.all(images.map(async (image) => sha256(await image.read())));
    expect(new Set(read)).toEqual(new Set([sha256(readFileSync(join(folder, "054.png")))]));
    await set.close();
  });
});

const TYPES = ["types.parquet", "types.arrow", "types_lz4.arrow", "types_zstd.arrow"];
test.each(TYPES)("every type of %s is what pyarrow reads", async (name) => {
  expect(await rowsOf(name)).toEqual(JSON.parse(readFileSync(join(folder, "types.json"), "utf8")));
});

describe("compressed Arrow", () => {
  test.each(["lz4", "zstd"])("%s of long texts, of some that cannot be compressed", async (codec) => {
    const rows = await rowsOf(`long_${codec}.arrow`);
    const expected = JSON.parse(readFileSync(join(folder, "long.json"), "utf8"));
    expect(rows.map(({ text }) => sha256(text as string))).toEqual(expected);
    // What other users of flechette registered in this process stays.
    expect([CompressionType.LZ4_FRAME, CompressionType.ZSTD].map((type) => getCompressionCodec(type))).toEqual([
      null,
      null,
    ]);
  });

  test.each(["lz4", "zstd"])("%s with a size that is not so is refused", async (codec) => {
    const whole = readFileSync(join(folder, `long_${codec}.arrow`));
    const magic = Buffer.from(codec === "lz4" ? [0x04, 0x22, 0x4d, 0x18] : [0x28, 0xb5, 0x2f, 0xfd]);
    const size = whole.lastIndexOf(magic) - 8; // of the texts
    const original = whole.readBigInt64LE(size);
    for (const other of [original - 1n, original + 1n, 2n ** 40n, -2n]) {
      whole.writeBigInt64LE(other, size);
      writeFileSync(join(folder, "size.arrow"), whole);
      expect((await refusal("size.arrow")).code, String(other)).toBe("BAD_DATA_FILE");
    }
  });
});

describe("rows that datasets 1 chose by indices", () => {
  const withState = (change: (state: Record<string, unknown>) => object) => {
    cpSync(join(folder, "chosen"), join(folder, "other"), { recursive: true });
    const file = join(folder, "other/state.json");
    const state = JSON.parse(readFileSync(file, "utf8")) as Record<string, unknown>;
    writeFileSync(file, JSON.stringify({ ...state, ...change(state) }));
  };

  test("are counted, and in their order", async () => {
    const set = (await openDataSet(join(folder, "chosen")))!;
    expect(set.count).toBe(questions.length);
    await set.close();
    withState(() => ({ _indices_data_files: null }));
    expect((await rowsOf("other")).map(({ id }) => id)).toEqual(
      [...questions.map(({ id }) => id).reverse(), questions[0]!.id], // all that are there
    );
  });

  test.each([
    [{ _indices_data_files: [{ filename: "data-00000-of-00002.arrow" }] }, "none is undefined"],
    [{ _indices_data_files: [{ filename: "../chosen/indices.arrow" }] }, "names of files in this folder"],
    [{ _indices_data_files: "indices.arrow" }, "names of files in this folder"],
    [{ _indices_data_files: [{ filename: "indices.arrow", skip: 1, take: 2 }] }, "skip or take"],
    [{ _data_files: [{ filename: "data-00000-of-00002.arrow" }] }, "there are 4 rows, and none is 5"],
    [{ _data_files: [] }, "names no data files"],
  ])("%j is refused", async (change, message) => {
    withState(() => change);
    expect(await refusal("other")).toMatchObject({ code: "BAD_DATA_FILE", message: expect.stringContaining(message) });
  });
});

test("images in lists of Parquet, of bytes alone", async () => {
  const set = (await openDataSet(join(folder, "lists.parquet")))!;
  const bytes: string[][][] = [];
  for await (const row of set.rows()) {
    const lists = Object.values(checked(row)) as EmbeddedImage[][];
    const read = (image: EmbeddedImage) => image.read().then((found) => Buffer.from(found).toString());
    bytes.push(await Promise.all(lists.map((images) => Promise.all(images.map(read)))));
  }
  await set.close();
  expect(bytes).toEqual([["a", "bc"], [], ["d"]].map((images) => [images, images]));
});

test.each(["views.arrow", "views_lz4.arrow"])("images and texts of %s in Arrow's views", async (name) => {
  const long = "a text of more than twelve bytes";
  const read = async (cell: unknown) => Buffer.from(await (cell as EmbeddedImage).read()).toString();
  const set = (await openDataSet(join(folder, name)))!;
  const rows: unknown[] = [];
  for await (const row of set.rows()) {
    const { image, images, ...texts } = checked(row);
    const one = await read(image).catch((error: EngineError) => error.code);
    rows.push({ ...texts, image: one, images: await Promise.all((images as unknown[]).map(read)) });
  }
  await set.close();
  expect(rows).toEqual([
    { question: long, answers: ["a", long], image: "a", images: ["a", long] },
    { question: "short", answers: null, image: "BAD_DATA", images: [] },
    { question: null, answers: [], image: long, images: ["d"] },
  ]);
  // A view that leads elsewhere: 32 bytes of buffer 0, from beyond it.
  const damaged = readFileSync(join(folder, "views.arrow"));
  const view = damaged.indexOf(Buffer.from([32, 0, 0, 0, ...Buffer.from("a te")]));
  damaged.writeInt32LE(2 ** 20, view + 12);
  writeFileSync(join(folder, "damaged.arrow"), damaged);
  expect((await refusal("damaged.arrow")).message).toContain("a view lies outside of its column");
});

test("splits of tar.gz by their names; what was decompressed is gone", async () => {
  vi.stubEnv("TMPDIR", temporaryFolder());
  const shards = ["train-00000-of-00002.tar.gz", "train-00001-of-00002.tgz", "test-00000-of-00001.tar"];
  mkdirSync(join(folder, "packed"));
  for (const [i, name] of shards.entries()) {
    symlinkSync(
      join(folder, ["shards_gz/000000.tar.gz", "shards_gz/000001.tgz", "shards/000000.tar"][i]!),
      join(folder, "packed", name),
    );
  }
  expect((await rowsOf("packed", "train")).map(({ id }) => id)).toEqual(questions.map(({ id }) => id));
  expect(await rowsOf("packed", "test")).toHaveLength(3);
  expect(readdirSync(process.env.TMPDIR!)).toEqual([]);
  vi.unstubAllEnvs();
});

test("nothing is left of what is decompressed if the process is killed", async () => {
  vi.stubEnv("TMPDIR", temporaryFolder());
  const bytes = gzipSync("what is in it");
  const left: string[][] = [];
  const source = await GunzippedSource.open({
    ...{ name: "a", version: "1", size: bytes.length },
    read: async (offset: number, into: Uint8Array) => {
      left.push(readdirSync(process.env.TMPDIR!));
      into.set(bytes.subarray(offset, offset + into.length));
    },
  } as FileSource);
  const text = new Uint8Array(source.size);
  await source.read(0, text);
  await source.close();
  expect([new TextDecoder().decode(text), left]).toEqual(["what is in it", [[]]]);
  vi.unstubAllEnvs();
});

test("two archives one after another, as tar and as members of gzip", async () => {
  const both = ["000000", "000001"];
  writeFileSync(join(folder, "two.tar"), Buffer.concat(both.map((i) => readFileSync(join(folder, `shards/${i}.tar`)))));
  const packed = ["shards_gz/000000.tar.gz", "shards_gz/000001.tgz"].map((name) => readFileSync(join(folder, name)));
  writeFileSync(join(folder, "two.tar.gz"), Buffer.concat(packed));
  for (const name of ["two.tar", "two.tar.gz"]) {
    expect((await rowsOf(name)).map(({ id }) => id)).toEqual(questions.map(({ id }) => id));
  }
});

test("long names of tar, by POSIX and by GNU", async () => {
  expect((await rowsOf("long_names_pax.tar"))[0]!.__key__).toBe(`${"é".repeat(80)}/054`);
  expect((await rowsOf("long_names_gnu.tar"))[0]!.__key__).toBe(`${"e".repeat(160)}/054`);
});

test("a row of tar whose JSON is damaged has its key", async () => {
  const bytes = readFileSync(join(folder, "shards/000000.tar"));
  bytes[bytes.indexOf('{"id"')] = "x".charCodeAt(0);
  writeFileSync(join(folder, "damaged.tar"), bytes);
  const set = (await openDataSet(join(folder, "damaged.tar")))!;
  const { value: first } = await set.rows().next();
  await set.close();
  expect(first).toMatchObject({ key: questions[0]!.id, error: { code: "BAD_DATA" } });
});

describe("what is refused", () => {
  test("a split that is not named, or that there is not", async () => {
    expect(await refusal("hub")).toMatchObject({ code: "UNKNOWN_SPLIT", message: /"test", "train"/ });
    expect(await refusal("saved_dict")).toMatchObject({ code: "UNKNOWN_SPLIT", message: /"train", "test"/ });
    expect((await refusal("chosen", "dev")).message).toMatch(/is of no split\n.*leave --split out/);
    expect(await refusal("hub", "dev")).toMatchObject({ code: "UNKNOWN_SPLIT", message: /dev/ });
    expect(await rowsOf("saved_dict", "train")).toHaveLength(3);
    expect((await rowsOf("saved_dict", "train"))[0]!.id).toBe(questions[1]!.id);
  });

  test("files cut short, and others than their names say", async () => {
    for (const name of [
      "snappy.parquet",
      "hub/data/train-00000-of-00002.parquet",
      "saved/data-00000-of-00002.arrow",
      "shards/000000.tar",
      "shards_gz/000000.tar.gz",
      "paths.json",
    ]) {
      const whole = readFileSync(join(folder, name));
      for (const size of [13, 300, Math.floor(whole.length / 2), whole.length - 9]) {
        if (name.endsWith("tar") && size === whole.length - 9) continue; // only padding is gone
        const cut = `cut.${name.split(".").at(-1)}`;
        writeFileSync(join(folder, cut), whole.subarray(0, size));
        expect((await refusal(cut)).code, `${name} ${size}`).toBe("BAD_DATA_FILE");
      }
    }
    writeFileSync(join(folder, "shards.tar.gz"), Buffer.from([0x1f, 0x8b, 8, 0]));
    expect(await refusal("shards.tar.gz")).toMatchObject({ code: "BAD_DATA_FILE", message: /decompress/ });
    expect(await refusal("none.tar")).toMatchObject({ code: "NOT_FOUND" });
    mkdirSync(join(folder, "empty"));
    expect(await refusal("empty")).toMatchObject({ code: "NOT_FOUND", message: /no \.parquet/ });
  });

  test("a footer with bytes cut out, in words of ours; an image by what it is", async () => {
    const whole = readFileSync(join(folder, "snappy.parquet"));
    const footer = whole.readUInt32LE(whole.length - 8);
    const middle = whole.length - 8 - Math.floor(footer / 2);
    const cut = Buffer.concat([whole.subarray(0, middle), whole.subarray(middle + 80)]);
    cut.writeUInt32LE(footer - 80, cut.length - 8);
    writeFileSync(join(folder, "cut.parquet"), cut);
    const { code, message } = await refusal("cut.parquet");
    expect(code).toBe("BAD_DATA_FILE");
    expect(message).not.toMatch(/undefined|Cannot|BigInt|bounds/);
    expect((await refusal("054.png")).message).toContain("this is an image, not a data set");
  });

  test("data after the end of a tar that are no archive", async () => {
    const whole = readFileSync(join(folder, "shards/000000.tar"));
    writeFileSync(join(folder, "more.tar"), Buffer.concat([whole, Buffer.alloc(512, "x")]));
    expect((await refusal("more.tar")).message).toContain(`there is no header at ${whole.length}`);
    writeFileSync(join(folder, "more.tar"), Buffer.concat([whole, whole.subarray(0, 300)]));
    expect((await refusal("more.tar")).message).toContain("it ends within a header");
  });

  test("gzip whose checksum is wrong, or with bytes after its end, by what is wrong", async () => {
    const whole = readFileSync(join(folder, "shards_gz/000000.tar.gz"));
    const wrong = Buffer.from(whole);
    wrong[whole.length - 8]! ^= 1;
    for (const bytes of [wrong, Buffer.concat([whole, Buffer.from("more")])]) {
      writeFileSync(join(folder, "wrong.tar.gz"), bytes);
      expect((await refusal("wrong.tar.gz")).message).toMatch(/not a gzip file that can be read: incorrect/);
    }
    // Not one that is read, whatever its name.
    writeFileSync(join(folder, "x.jsonl.gz"), gzipSync("{}"));
    expect((await refusal("x.jsonl.gz")).message).toContain("compressed as a whole");
  });

  test("gzip of far more bytes than an archive's", async () => {
    vi.stubEnv("TMPDIR", temporaryFolder());
    const zeros = Buffer.alloc(2 ** 24 + 2 ** 23);
    zeros.set(readFileSync(join(folder, "shards/000000.tar")).subarray(0, 512));
    writeFileSync(join(folder, "bomb.tar.gz"), gzipSync(zeros));
    expect(await refusal("bomb.tar.gz")).toMatchObject({ code: "BAD_DATA_FILE", message: /200 times its size/ });
    expect(readdirSync(process.env.TMPDIR!)).toEqual([]);
    vi.unstubAllEnvs();
  });

  test.each([
    ["[", "ends within"],
    ['[{"id": 1}', "ends within"],
    ['[{"id": 1}] x', "more after"],
    ['[{"id": 1},,{"id": 2}]', "missing"],
    ['[{"id": 1},]', "missing"],
    ["[1]", "not a JSON object"],
    ['[{"id": }]', "not valid JSON"],
    [`[{"id": "${"x".repeat(2 ** 20)}"}]`, "more than"],
  ])("the JSON array %j", async (text, message) => {
    writeFileSync(join(folder, "bad.json"), text);
    expect((await refusal("bad.json")).message).toContain(message);
  });

  test("a JSON array is read across chunks, with brackets and quotes in texts", async () => {
    const rows = [{ id: '[]{}",\\' }, { id: "x".repeat(70_000), b: [[1], { c: "]" }] }, {}];
    writeFileSync(join(folder, "good.json"), `\ufeff \n${JSON.stringify(rows, null, 2)}\n`);
    expect(await rowsOf("good.json")).toEqual(rows);
    writeFileSync(join(folder, "good.json"), "[ ]");
    expect(await rowsOf("good.json")).toEqual([]);
  });
});
