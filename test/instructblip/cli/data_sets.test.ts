/** `evaluate` and `generate --requests` on one data set in every format: byte for byte what they write of JSONL. */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { requestsOf } from "../../../src/instructblip/cli/requests/data_rows.ts";
import { readData, readTask } from "../../../src/instructblip/cli/requests/predictions.node.ts";
import type { ParsedLine } from "../../../src/instructblip/cli/requests/requests.ts";
import type { Result } from "../../../src/instructblip/cli/requests/result.ts";
import type { EmbeddedImage } from "../../../src/instructblip/data/row.ts";
import { InputError } from "../../../src/tensor/errors.ts";
import { ALL } from "../../rounds.ts";
import { temporaryFolder } from "../../temporary.ts";
import { SAME, writeDataSets } from "../data/data_sets.ts";
import { cli, json, ROOT } from "./cli.ts";

const MODEL = join(ROOT, "examples/shapes/checkpoint");
/** One of each reader; of the others the rows are compared (test/instructblip/data), and everything with test:all. */
const FORMATS = ALL ? [...SAME] : ["hub --split train"];

let folder: string;
let task: string;
beforeAll(async () => {
  folder = temporaryFolder();
  writeDataSets(folder);
  task = join(folder, "task.json");
  await writeFile(task, '{"prompt": "{question}", "generation": {"max_new_tokens": 40}, "metric": "exact_match"}');
});

const argumentsOf = (format: string) => {
  const [name, ...options] = format.split(" ");
  return [join(folder, name!), ...options];
};

describe("evaluate", () => {
  const evaluate = async (format: string, ...options: string[]) => {
    const out = join(folder, `${format.replaceAll(/\W/g, "_")}${options.join("").replaceAll(/\W/g, "_")}.out`);
    const [data, ...more] = argumentsOf(format);
    const run = await cli([
      "evaluate",
      "--model",
      MODEL,
      "--task",
      task,
      "--data",
      data!,
      ...more,
      ...options,
      "--out",
      out,
      "--json",
    ]);
    expect(run.stderr).toBe("");
    const [header, ...lines] = (await readFile(out, "utf8")).split("\n");
    const { settings, ...figures } = JSON.parse(run.stdout);
    expect(JSON.parse(header!).evaluation).toEqual(settings);
    return { lines, figures };
  };
  let jsonl: Awaited<ReturnType<typeof evaluate>>;
  beforeAll(async () => {
    jsonl = await evaluate("paths.jsonl");
    expect(jsonl.lines).toHaveLength(7); // the last of them is empty
  });

  test.each(FORMATS)("%s", async (format) => {
    expect(await evaluate(format)).toEqual(jsonl);
  });

  test.runIf(ALL)("columns by other names, images as bytes, answers in structs", async () => {
    const columns = ["--image-column", "picture", "--question-column", "asked"];
    const { lines, figures } = await evaluate("other_names.parquet", ...columns);
    expect(lines.map((line) => line.replace(/"id":(\d+)/, '"id":"0$1"'))).toEqual(jsonl.lines);
    expect(figures).toEqual(jsonl.figures);
  });

  test.runIf(ALL)("by threads", async () => {
    expect(await evaluate("paths.jsonl", "--workers", "2")).toEqual(jsonl);
    expect(await evaluate("hub --split train", "--workers", "1")).toEqual(jsonl);
  });

  test.runIf(ALL)("in shards, the second resumed", async () => {
    const parts = await Promise.all([
      evaluate("hub --split train", "--shard", "0/2"),
      evaluate("hub --split train", "--shard", "1/2"),
    ]);
    expect(parts.flatMap(({ lines }) => lines).sort()).toEqual([...jsonl.lines, ""].sort());
    const again = await evaluate("hub --split train", "--shard", "1/2", "--resume");
    expect(again).toEqual(parts[1]);
  });
});

describe("requestsOf", () => {
  async function* rows() {
    yield { where: "row 0", value: { id: 7, images: ["a.png", "b.png"], question: "Which?" } };
    yield { where: "row 1", value: { id: 8, images: ["a.png"], question: "What?" } };
    yield { where: "row 2", value: { id: 9, images: [], question: "What?" } };
  }

  test("asks one question about all images of a row", async () => {
    const found: ParsedLine[] = [];
    for await (const one of requestsOf("x", rows(), { generation: {} }, { columns: undefined })) found.push(one);
    expect(found.map(({ id }) => id)).toEqual([7, 8, 9]);
    expect(found.map(({ request }) => request?.images)).toEqual([[["a.png", "b.png"]], ["a.png"], undefined]);
    expect(found.map(({ request }) => request?.prompts)).toEqual([["Which?"], ["What?"], undefined]);
    expect(found[2]!.error!.message).toBe("row 2: there is no image in this row");
  });

  test.each([
    ["__key__", "a"],
    ["id", null],
  ])("names a row that cannot be read by its key, if %s has the ids", async (column, id) => {
    async function* rows() {
      const error = new InputError("BAD_DATA", "a.json: not valid JSON");
      yield { where: "a.tar", key: "a", error };
      yield { where: "a.tar", value: { [column]: "b", jpg: "b.jpg", txt: "What?" } };
      yield { where: "a.tar", key: "a", error };
    }
    const options = column === "id" ? { idColumn: "id" } : {};
    const found: ParsedLine[] = [];
    for await (const one of requestsOf("x", rows(), { ...options, generation: {} }, { columns: undefined }))
      found.push(one);
    expect(found.map((one) => one.id)).toEqual([id, "b", id]);
  });
});

describe.runIf(ALL)("generate --requests", () => {
  const options = ["--prompt", "{question}", "--max-new-tokens", "40"];
  const sequences = async (...args: string[]) =>
    (await json<Result>(["generate", "--model", MODEL, "--json", "--requests", ...args])).map(
      ({ timing: _, ...line }) => line,
    );
  let lines: Awaited<ReturnType<typeof sequences>>;
  beforeAll(async () => {
    const questions = JSON.parse(readFileSync(join(folder, "paths.json"), "utf8")) as {
      id: string;
      image: string;
      question: string;
    }[];
    const requests = questions.map(({ id, image, question }) => ({
      id,
      images: [image],
      prompts: [question],
      generation: { max_new_tokens: 40 },
    }));
    await writeFile(join(folder, "requests.jsonl"), requests.map((request) => JSON.stringify(request)).join("\n"));
    await writeFile(join(folder, "requests.json"), JSON.stringify(requests));
    lines = await sequences(join(folder, "requests.jsonl"));
    expect(lines).toHaveLength(6);
  });

  test.each([...FORMATS, "paths.jsonl"])("%s", async (format) => {
    expect(await sequences(...argumentsOf(format), ...options)).toEqual(lines);
  });

  test("JSONL with columns named, a JSON array of requests, and shards", async () => {
    expect(await sequences(join(folder, "paths.jsonl"), "--image-column", "image", ...options)).toEqual(lines);
    expect(await sequences(join(folder, "requests.json"))).toEqual(lines);
    const odd = await sequences(...argumentsOf("hub --split train"), ...options, "--shard", "1/2");
    expect(odd.map(({ id }) => id)).toEqual(lines.filter((_, i) => i % 2).map(({ id }) => id));
  });
});

test("generate --requests reads the rows of JSONL as those of the JSON array", async () => {
  const rows = JSON.parse(readFileSync(join(folder, "paths.json"), "utf8")).slice(0, 2) as Record<string, unknown>[];
  // An id by another usual name, a blank line in front.
  const named = rows.map(({ id, ...row }) => ({ question_id: id, ...row }));
  await writeFile(join(folder, "two.json"), JSON.stringify(named));
  await writeFile(join(folder, "two.jsonl"), `\n${named.map((row) => JSON.stringify(row)).join("\n")}\n`);
  const ask = async (name: string, ...more: string[]) =>
    (await json<Result>(["generate", "--model", MODEL, "--json", "--requests", join(folder, name), ...more])).map(
      ({ timing: _, ...line }) => line,
    );
  const options = ["--prompt", "{question}", "--max-new-tokens", "2"];
  const lines = await ask("two.jsonl", ...options);
  expect(lines.map(({ id }) => id)).toEqual(rows.map(({ id }) => id));
  expect(lines).toEqual(await ask("two.json", ...options));
});

test.each([...SAME, "paths.jsonl"])("the questions of %s, with the bytes of their images", async (format) => {
  const [path, , split] = argumentsOf(format);
  const data = await readData(path!, await readTask(task), split === undefined ? {} : { split });
  const items = await Promise.all(
    data.items.map(async ({ image, ...item }) => {
      const found = typeof image === "string" ? image : await (image as EmbeddedImage).read();
      const bytes = typeof found === "string" ? await readFile(join(data.base, found)) : found;
      return { ...item, image: createHash("sha256").update(bytes).digest("hex") };
    }),
  );
  await data.close();
  const questions = JSON.parse(readFileSync(join(folder, "paths.json"), "utf8")) as {
    image: string;
    question: string;
  }[];
  expect(items).toEqual(
    questions.map(({ image, question, ...item }) => {
      const bytes = readFileSync(join(ROOT, "examples/shapes/eval/images", image));
      return { ...item, prompt: question, image: createHash("sha256").update(bytes).digest("hex") };
    }),
  );
  expect(data.sha256).toMatch(/^[0-9a-f]{64}$/);
});

describe("what is refused, before the model is loaded", () => {
  const refused = async (...args: string[]) => {
    const { code, stderr, stdout } = await cli(args);
    expect(stdout).toBe("");
    return `${code} ${stderr}`;
  };
  const evaluate = (...data: string[]) => refused("evaluate", "--model", "none", "--task", task, "--data", ...data);

  test("columns that there are not, with those that there are", async () => {
    expect(await evaluate(join(folder, "other_names.parquet"))).toMatch(
      /1 error: .*other_names\.parquet: there is no column "image"; the columns are question_id, picture, asked, answers, kind\n.*--image-column/,
    );
    expect(await evaluate(join(folder, "other_names.parquet"), "--image-column", "pictures")).toMatch(
      /--image-column: there is no column "pictures"; the columns are .*\n.*did you mean "picture"/,
    );
    // Not id, which is as close.
    expect(await evaluate(join(folder, "paths.jsonl"), "--image-column", "img")).toMatch(/did you mean "image"/);
    expect(await evaluate(join(folder, "paths.jsonl"), "--answer-column", "x")).toMatch(
      /no column "x"; the columns are id, /,
    );
  });

  // Without a schema, by the first rows.
  test.each(["none.parquet", "shards", "shards_gz/000000.tar.gz", "paths.json", "paths.jsonl"])(
    "a prompt of a column that there is not in %s",
    async (name) => {
      const asked = ["generate", "--model", "none", "--json", "--requests", join(folder, name)];
      expect(await refused(...asked, "--prompt", "{question} {nope}")).toMatch(
        /^1 error: .*--prompt: there is no column "nope"; the columns are /,
      );
      // These there are, so that the model is asked for.
      expect(await refused(...asked, "--prompt", "{question} {id} {image}")).not.toMatch(/column/);
    },
  );

  test("a column that only a later row has is one", async () => {
    await writeFile(join(folder, "later.json"), '[{"image": "a.png"}, {"image": "b.png", "hint": "x"}]');
    const asked = ["generate", "--model", "none", "--json", "--requests", join(folder, "later.json")];
    expect(await refused(...asked, "--prompt", "{hint}")).not.toMatch(/column/);
  });

  test("a folder of images that there is not", async () => {
    const data = join(folder, "paths.json");
    expect(await evaluate(data, "--images", join(folder, "gone"))).toMatch(/^1 error: --images .*gone: no such folder/);
    expect(await evaluate(data, "--images", data)).toMatch(/^1 error: --images .*paths\.json: this is a file/);
  });

  test("options that cannot be had together, before anything is loaded", async () => {
    const both = ["--num-beams", "2", "--prompt-lookup-num-tokens", "3"];
    const generate = (...more: string[]) => refused("generate", "--model", "none", ...more, ...both);
    const why = /^1 error: prompt_lookup_num_tokens: not with num_beams/;
    expect(await generate("--json", "--requests", join(folder, "none.parquet"))).toMatch(why);
    expect(await generate("--image", "none.png", "--prompt", "What?")).toMatch(why);
    const odd = join(folder, "odd_task.json");
    const generation = { num_beams: 2, guidance_scale: 2 };
    await writeFile(odd, JSON.stringify({ prompt: "{question}", generation, metric: "exact_match" }));
    expect(await refused("evaluate", "--model", "none", "--task", odd, "--data", join(folder, "paths.json"))).toMatch(
      /^1 error: guidance_scale: not with beams/,
    );
  });

  test("a split that is missing, and options beside requests that have their own", async () => {
    expect(await evaluate(join(folder, "hub"))).toMatch(/1 error: .*it has the splits "test", "train"\n.*--split/);
    expect(await evaluate(join(folder, "paths.jsonl"), "--split", "train")).toMatch(/is one file/);
    const own = join(folder, "own.jsonl");
    await writeFile(own, '{"images": ["054.png"], "prompts": ["x"]}\n');
    const requests = ["generate", "--model", "none", "--json", "--requests", own];
    expect(await refused(...requests, "--max-new-tokens", "3")).toMatch(
      /^2 error: .*cannot be used with .*--max-new-tokens/,
    );
    expect(await refused(...requests, "--prompt", "x")).toMatch(/^2 error: .*cannot be used with .*--prompt/);
  });
});
