/** `generate` on the golden models: PyTorch's ids and texts, the lines of `--json`, and errors of bad requests. */
import { appendFile, copyFile, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { describe, expect, it, vi } from "vitest";
import { InstructBlipProcessor } from "../../../src/index.node.ts";
import { EXIT, Interrupted } from "../../../src/instructblip/cli/format.ts";
import type { Failure, RankedResult, Result } from "../../../src/instructblip/cli/requests/result.ts";
import { InstructBlipForConditionalGeneration } from "../../../src/instructblip/pretrained/instructblip.ts";
import { DeviceError } from "../../../src/tensor/errors.ts";
import { COMPOSITES, goldenFolder } from "../../golden_folder.ts";
import { ALL } from "../../rounds.ts";
import { temporaryFolder } from "../../temporary.ts";
import { cli, json, openGolden, PADDED_RIGHT, ROOT } from "./cli.ts";

const PLAIN = goldenFolder("plain_f32");
const IMAGE = join(PLAIN, "image_0.png");
const PROMPT = "What is unusual about this image?";
const ONE = ["generate", "--model", PLAIN, "--image", IMAGE, "--prompt", PROMPT];

async function requestsFile(lines: readonly (string | object)[], folder?: string): Promise<string> {
  const file = join(folder ?? temporaryFolder(), "requests.jsonl");
  await writeFile(file, lines.map((line) => (typeof line === "string" ? line : JSON.stringify(line))).join("\n"));
  return file;
}

/** Padded left and right, lone bytes, old files, a generation_config.json that misleads, few positions, OPT, T5. */
const SAMPLE = [
  "grouped_heads_bf16",
  "bias_variants",
  "cross_frequency_1",
  "odd_widths",
  "opt_post_norm_f16",
  "t5_flan",
];

// What every golden answers is held by test/parity/golden.test.ts; this is the way through the command line.
describe.each(ALL ? COMPOSITES : SAMPLE)("golden %s", (name) => {
  it("gives PyTorch's sequences and texts, in order", async () => {
    const folder = goldenFolder(name);
    const golden = await openGolden(folder);
    const { prompts, images: names, generations } = golden.json;
    const images = names.map((file) => join(folder, file));
    const requests = generations.map(({ name, kwargs }) => ({ id: name, images, prompts, generation: kwargs }));
    const isPaddedRight = (await golden.rows("attention_mask")).some((row) => row.at(-1) === 0);
    const warning = `request ${JSON.stringify(generations[0]!.name)}: ${PADDED_RIGHT}`;
    const results = await json<Result>(
      ["generate", "--model", folder, "--requests", await requestsFile(requests), "--json"],
      isPaddedRight && golden.json.spec.backbone !== "t5" ? [warning] : [],
    );
    expect(results.map(({ id }) => id)).toEqual(generations.map(({ name }) => name));
    for (const [i, { name, answers }] of generations.entries()) {
      expect(results[i].sequences, name).toEqual(await golden.rows(`${name}.sequences`));
      expect(results[i].text, name).toEqual(answers);
      expect(results[i].sequences_scores !== undefined, name).toBe(golden.has(`${name}.sequences_scores`));
    }
  });
});

describe("one question", () => {
  it("reads several images where the prompt has <image>, also of requests and in their batches", async () => {
    const [prompt, generation] = ["<image> A photo. <image> What is this?", { max_new_tokens: 4 }];
    const other = join(goldenFolder("t5_flan"), "image_1.png");
    const file = await requestsFile([
      { images: [[IMAGE, other]], prompts: [prompt], generation },
      { images: [IMAGE], prompts: [PROMPT], generation },
    ]);
    const many = await json<Result>(["generate", "--model", PLAIN, "--requests", file, "--json"]);
    expect(many.map((result) => result.batch_rows)).toEqual([2, 2]);
    const { num_query_tokens: Q } = (await openGolden(PLAIN)).json.spec;
    const [row] = many[0].sequences;
    expect(row.filter((id) => id === row[0])).toHaveLength(2 * Q);
  });

  it("drafts by --assistant, which may be a copy of the model, also for requests", async () => {
    const drafting = ["--assistant", PLAIN, "--num-assistant-tokens", "2", "--assistant-confidence-threshold", "0"];
    const generation = {
      max_new_tokens: 4,
      eos_token_id: 2,
      num_assistant_tokens: 2,
      assistant_confidence_threshold: 0,
    };
    const schedule = ["--num-assistant-tokens-schedule", "constant"];
    const asked = [...ONE, "--json", "--max-new-tokens", "4", "--eos-token-id", "2", ...drafting, ...schedule];
    const alone = { max_new_tokens: 4, eos_token_id: 2, assistant_model: null };
    const idle = { ...alone, num_assistant_tokens: 2 };
    const ask = (of: object, id: string) => ({ id, images: [IMAGE], prompts: [PROMPT], generation: of });
    const file = await requestsFile([ask(generation, "a"), ask(alone, "b"), ask(idle, "c"), ask(idle, "d")]);
    const many = ["generate", "--model", PLAIN, "--assistant", PLAIN, "--requests", file, "--json"];
    const warning = 'request "c": num_assistant_tokens has no effect: assistant_model is null';
    const [[one], [same, without]] = [await json<Result>(asked), await json<Result>(many, [warning])];
    expect(one.assisted).toEqual({ passes: 2, draft_tokens: 2, accepted_tokens: 2 });
    expect(without.sequences).toEqual(one.sequences);
    expect(without.assisted).toBeUndefined();
    expect(same).toMatchObject({ sequences: one.sequences, assisted: one.assisted });
  });

  it("prints the best of the beams, or as many as are asked for", async () => {
    const golden = await openGolden(PLAIN);
    const { kwargs, answers } = golden.json.generations.find(({ name }) => name === "beams_penalised")!;
    const flags = Object.entries(kwargs).flatMap(([key, value]) => [`--${key.replaceAll("_", "-")}`, String(value)]);
    const { code, stdout, stderr } = await cli([...ONE, ...flags]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(stdout).toBe(answers.map((answer) => `${answer.slice(PROMPT.length).trim()}\n`).join(""));
    expect(answers).toHaveLength(2);

    // On a terminal the best answer so far is shown while it is sought, and wiped.
    const waited = await cli([...ONE, ...flags], { terminal: true });
    expect(waited.stdout).toBe(stdout);
    const shown = waited.stderr.split("\r").filter((line) => !/^ *$|loading|computing/.test(line));
    expect(shown.length).toBeGreaterThan(0);
    expect(answers.some((answer) => answer.slice(PROMPT.length).trim().startsWith(shown[0].trim()))).toBe(true);
    expect(waited.stderr).toMatch(/\r +\r$/);
  });

  it("takes interventions from a file and from requests, which are answered alone", async () => {
    const folder = temporaryFolder();
    const file = join(folder, "interventions.json");
    const interventions = [{ module: "language_projection", op: "scale", value: -2, index: { row: [0] } }];
    await writeFile(file, JSON.stringify(interventions));
    const options = ["--max-new-tokens", "6", "--json"];
    const [plain] = await json<Result>([...ONE, ...options]);
    const [changed] = await json<Result>([...ONE, ...options, "--interventions", file]);
    expect(changed.sequences).not.toEqual(plain.sequences);
    const streamed = await cli([...ONE, "--max-new-tokens", "6", "--interventions", file]);
    expect(streamed.stdout).not.toBe((await cli([...ONE, "--max-new-tokens", "6"])).stdout);

    const same = { images: [IMAGE], prompts: [PROMPT], generation: { max_new_tokens: 6 } };
    const lines = [
      { id: "plain", ...same },
      { id: "changed", ...same, interventions },
      { id: "plain again", ...same },
    ];
    const wrong = { id: "wrong", ...same, interventions: [{ module: "language_projection", op: "zeroed" }] };
    const requests = await requestsFile([...lines, wrong]);
    const run = await cli(["generate", "--model", PLAIN, "--requests", requests, "--json"]);
    expect(run.code).toBe(EXIT.someFailed);
    const answers: (Result & Failure)[] = run.stdout
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(answers.slice(0, 3).map(({ sequences }) => sequences)).toEqual(
      [plain, changed, plain].map(({ sequences }) => sequences),
    );
    expect(answers.map(({ batch_rows }) => batch_rows)).toEqual([2, undefined, 2, undefined]);
    expect(answers[3].error).toMatchObject({ code: "INTERVENTION", message: expect.stringMatching(/op must be/) });

    await writeFile(file, JSON.stringify([{ module: "language_projektion", op: "zero" }]));
    expect(await cli([...ONE, "--interventions", file])).toMatchObject({
      code: EXIT.refused,
      stderr: expect.stringMatching(/no module matches "language_projektion".*did you mean language_projection\?/s),
    });
    // JSON has no functions, an editor may write a byte order mark, and a comma may be left over.
    const zero = '{"module": "language_projection", "op": "zero"';
    for (const [text, message] of [
      [`[${zero}, "aply": 1}]`, /has no field "aply"\n {4}hint: (?!.*apply)/],
      [`\ufeff[\n  ${zero}},\n]`, /not valid JSON: a comma after the last element, line 2, column 50\n/],
      [`\ufeff[${zero}, "at": "heads"}]`, /"language_projection" has no "at": "heads"/],
      [`[${zero}, "value": "a,]" "steps"]`, /not valid JSON: .*, line 1, column 65\n/],
    ] as const) {
      await writeFile(file, text);
      const { code, stderr } = await cli([...ONE, "--interventions", file]);
      expect({ code, stderr }).toEqual({ code: EXIT.refused, stderr: expect.stringMatching(message) });
    }
    const refused = [
      [[...ONE, "--interventions", join(folder, "none.json")], /none.json: no such file/],
      [[...ONE, "--interventions", folder], /this is a folder/],
    ] as const;
    for (const [args, message] of refused) {
      expect(await cli(args)).toMatchObject({ code: EXIT.refused, stderr: expect.stringMatching(message) });
    }
  });

  it("repeats what it samples from a seed", async () => {
    const sample = async (seed: string) =>
      (await cli([...ONE, "--do-sample", "--temperature", "2", "--seed", seed, "--max-new-tokens", "8"])).stdout;
    const [a, again, b] = [await sample("1"), await sample("1"), await sample("2")];
    expect(again).toBe(a);
    expect(b).not.toBe(a);
  });

  it("repeats nothing with --no-repeat-ngram-size, whose name does not make it the contrary of another option", async () => {
    const repeated = async (...flags: string[]) => {
      const [{ sequences }] = await json<Result>([...ONE, "--max-new-tokens", "24", "--json", ...flags]);
      const added = sequences[0].slice(-24);
      return added.length - new Set(added).size;
    };
    expect(await repeated()).toBeGreaterThan(0);
    expect(await repeated("--no-repeat-ngram-size", "1")).toBe(0);
  });

  it("prints the answer alone", async () => {
    const golden = await openGolden(PLAIN);
    const { answers } = golden.json.generations.find(({ name }) => name === "greedy")!;
    expect(answers[0].startsWith(PROMPT)).toBe(true);
    const pieces: string[] = [];
    const { code, stdout, stderr } = await cli([...ONE, "--max-new-tokens", "12"], {
      onOut: (text) => void pieces.push(text),
    });
    expect(stdout).toBe(`${answers[0].slice(PROMPT.length).trimStart()}\n`);
    expect(pieces.length).toBeGreaterThan(5); // piece by piece, not all at the end
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  });

  it("stores keys and values as --kv-cache-dtype says, or says why not", async () => {
    const question = ["--image", IMAGE, "--prompt", PROMPT, "--max-new-tokens", "2", "--kv-cache-dtype", "f16"];
    const odd = await cli(["generate", "--model", goldenFolder("odd_widths"), ...question]);
    expect(odd.code).toBe(0);
    expect(odd.stderr).toContain(
      "warning: keys and values are stored as f32: f16 needs a head size that is a multiple of 4",
    );
    const plain = await cli(["generate", "--model", PLAIN, ...question]);
    expect({ code: plain.code, stderr: plain.stderr }).toEqual({ code: 0, stderr: "" });
  });

  it("prints one line of JSON with exactly the fields that are documented", async () => {
    const options = ["--max-length", "31", "--repetition-penalty", "1.0", "--dtype", "f32", "--json"];
    const [result, ...more] = await json<Result>([...ONE, ...options]);
    const golden = await openGolden(PLAIN);
    expect(more).toEqual([]);
    expect(Object.keys(result)).toEqual(["id", "sequences", "text", "timing"]);
    expect(result.id).toBeNull();
    expect(result.sequences).toEqual(await golden.rows("greedy_max_length.sequences"));
    const { timing } = result;
    expect(Object.keys(timing).sort()).toEqual([
      "load_ms",
      "new_tokens",
      "preprocess_ms",
      "time_to_first_token_ms",
      "tokens_per_second",
      "total_ms",
    ]);
    expect(timing.new_tokens).toBe(result.sequences[0].length - (await golden.rows("input_ids"))[0].length);
    for (const value of Object.values(timing)) expect(value).toBeGreaterThan(0);
    expect(timing.preprocess_ms).toBeLessThan(timing.time_to_first_token_ms!);
    expect(timing.time_to_first_token_ms!).toBeLessThan(timing.total_ms);
  });

  it("guides away from a negative prompt, and marks answers, as generate() does", async () => {
    const model = await InstructBlipForConditionalGeneration.from_pretrained(PLAIN);
    const processor = await InstructBlipProcessor.from_pretrained(PLAIN);
    const golden = await openGolden(PLAIN);
    const inputs = {
      pixel_values: await golden.floats("pixel_values"),
      qformer_input_ids: await golden.rows("qformer_input_ids"),
      input_ids: await golden.rows("input_ids"),
    };
    const options = ["--max-new-tokens", "8", "--json"];
    const negative = "a cat";
    const sequences = async (...more: string[]) => (await json<Result>([...ONE, ...options, ...more]))[0].sequences;
    const guided = { max_new_tokens: 8, guidance_scale: 2.5 };
    const negative_prompt_ids = [processor.tokenizer.encode(negative)];
    const scale = ["--guidance-scale", "2.5"];
    const plain = await sequences();
    const free = await sequences(...scale);
    const away = await sequences(...scale, "--negative-prompt", negative);
    const marked = await sequences("--watermarking-config", '{"bias": 30}');
    expect(free).toEqual(await model.generate({ ...inputs, ...guided }));
    expect(away).toEqual(await model.generate({ ...inputs, ...guided, negative_prompt_ids }));
    expect(marked).toEqual(await model.generate({ ...inputs, max_new_tokens: 8, watermarking_config: { bias: 30 } }));
    expect(new Set([plain, free, away, marked].map((rows) => rows.join())).size).toBe(4);
    const certain = ["--do-sample", "--top-k", "1", "--num-return-sequences", "2"];
    const twice = await sequences(...scale, "--negative-prompt", negative, ...certain);
    expect(twice).toEqual([away[0], away[0]]);
    model.dispose();
  });

  it("hands every option to generate()", async () => {
    const golden = await openGolden(PLAIN);
    const given = golden.json.generations.find(({ name }) => name === "greedy_eos_given")!.kwargs;
    const options = [
      "--max-new-tokens",
      "12",
      "--eos-token-id",
      String(given.eos_token_id),
      "--pad-token-id",
      String(given.pad_token_id),
    ];
    const [result] = await json<Result>([...ONE, ...options, "--json"]);
    expect(result.sequences).toEqual(await golden.rows("greedy_eos_given.sequences"));
    // An end that may not come yet, and a penalty: other tokens than without.
    const [[changed], [row]] = [
      (await json<Result>([...ONE, ...options, "--min-new-tokens", "12", "--repetition-penalty", "5", "--json"]))[0]
        .sequences,
      result.sequences,
    ];
    const prompt = (await golden.rows("input_ids"))[0].length;
    expect(changed.length).toBe(prompt + 12);
    expect(changed.slice(prompt)).not.toContain(given.eos_token_id);
    expect(new Set(changed.slice(prompt)).size).toBe(12); // a penalty of 5 lets nothing come twice
    expect(row.slice(prompt)).not.toEqual(changed.slice(prompt));
  });

  it("stops at once when interrupted, and ends the line on a terminal only", async () => {
    const onOut = () => new Interrupted(EXIT.sigint);
    const piped = await cli([...ONE, "--max-new-tokens", "40"], { onOut });
    expect(piped).toMatchObject({ code: EXIT.sigint, stderr: "" });
    expect(piped.stdout).not.toMatch(/\n/);
    const shown = await cli([...ONE, "--max-new-tokens", "40"], { onOut, terminal: true });
    expect(shown.code).toBe(EXIT.sigint);
    expect(shown.stdout.slice(0, -1)).toBe(piped.stdout);
  });

  it("shows progress and notes on a terminal's stderr", async () => {
    const { code, stdout, stderr } = await cli([...ONE, "--max-new-tokens", "1"], { terminal: true });
    expect(code).toBe(0);
    expect(stderr).toMatch(/^\rloading the model …/);
    expect(stdout).not.toContain("\r");
  });
});

describe("many requests", () => {
  it("answers good lines between bad ones, in order, with paths relative to the file", async () => {
    const folder = temporaryFolder();
    await mkdir(join(folder, "images"));
    await copyFile(IMAGE, join(folder, "images", "a b.png"));
    await writeFile(join(folder, "page.png"), "<!doctype html><title>404</title>");
    await writeFile(join(folder, "empty.png"), "");
    const png = await readFile(IMAGE);
    const dataUrl = `data:image/png;base64,${png.toString("base64")}`;
    await writeFile(join(folder, "cut.png"), png.subarray(0, 700));
    new DataView(png.buffer, png.byteOffset).setUint32(16, 2 ** 30); // its width
    await writeFile(join(folder, "bomb.png"), png);
    const good = (id: string, more: object = {}) => ({
      id,
      images: ["images/a b.png"],
      prompts: [PROMPT],
      generation: { max_new_tokens: 2, ...more },
    });
    const file = await requestsFile(
      [
        good("first"),
        "{broken",
        "",
        { ...good("lost"), images: ["images/none.png"] },
        { ...good("page"), images: ["page.png"] },
        { ...good("empty"), images: ["empty.png"] },
        { ...good("folder"), images: ["images"] },
        good("absolute"),
        { ...good("uneven"), prompts: ["a", "b"] },
        good("typo", { max_new_token: 3 }),
        good("guidance", { guidance_scale: 2, num_beams: 2 }),
        good("range", { max_new_tokens: 0 }),
        good("vocabulary", { eos_token_id: 1e6 }),
        { ...good("long"), prompts: ["what ".repeat(200)] },
        { ...good("batch"), images: [IMAGE, "images/a b.png"], prompts: [PROMPT, "a"] },
        { ...good("half"), images: [IMAGE, "cut.png"], prompts: [PROMPT, "a"] },
        { ...good("bomb"), images: ["bomb.png"] },
        { ...good("URLs"), images: [pathToFileURL(IMAGE), dataUrl], prompts: [PROMPT, "a"] },
        { ...good("nowhere"), images: ["http://localhost:1/a.png"] },
        good("last"),
      ],
      folder,
    );
    await appendFile(file, "\n\n");
    const { code, stdout, stderr } = await cli(["generate", "--model", PLAIN, "--requests", file, "--json"]);
    const results = stdout
      .split("\n")
      .slice(0, -1)
      .map((line) => JSON.parse(line) as Result & Failure);
    expect(results.map(({ id, error }) => [id, error?.code])).toEqual([
      ["first", undefined],
      [null, "BAD_JSON"],
      ["lost", "NOT_FOUND"],
      ["page", "IMAGE_FORMAT"],
      ["empty", "IMAGE_TRUNCATED"],
      ["folder", "NOT_REGULAR_FILE"],
      ["absolute", undefined],
      ["uneven", "BATCH_MISMATCH"],
      ["typo", "UNKNOWN_OPTION"],
      ["guidance", "UNSUPPORTED_OPTION"],
      ["range", "PARAM_RANGE"],
      ["vocabulary", undefined], // as in transformers, an end that never comes
      ["long", "PROMPT_TOO_LONG"],
      ["batch", undefined],
      ["half", "IMAGE_TRUNCATED"],
      ["bomb", "IMAGE_TOO_LARGE"],
      ["URLs", undefined],
      ["nowhere", "IO"],
      ["last", undefined],
    ]);
    expect(code).toBe(EXIT.someFailed);
    expect(stderr).toBe(
      'warning: request "vocabulary": eos_token_id: no token has the id 1000000\n13 of 19 requests failed; their lines say why\n',
    );
    for (const { error } of results) {
      if (!error) continue;
      expect(Object.keys(error)).toEqual(["code", "message"]);
      expect(error.message).not.toMatch(/^error:| at .*:\d+:\d+/);
    }
    expect(results[2].error.message).toContain("images/none.png");
    // Errors in between have not changed anything.
    expect(results.at(-1)!.sequences).toEqual(results[0].sequences);
    const [batch, urls] = ["batch", "URLs"].map((name) => results.find(({ id }) => id === name)!);
    expect(batch.sequences[0].length).toBe(batch.sequences[1].length);
    expect(batch.text).toHaveLength(2);
    expect(urls.sequences).toEqual(batch.sequences);
  });

  it("shows how far it is on a terminal", async () => {
    const request = { images: [IMAGE], prompts: [PROMPT], generation: { max_new_tokens: 1 } };
    const file = await requestsFile([request, request]);
    const { stdout, stderr } = await cli(["generate", "--model", PLAIN, "--requests", file, "--json"], {
      terminal: true,
    });
    expect(stderr).toMatch(/\r1 of 2 +\d/);
    expect(
      stdout
        .trimEnd()
        .split("\n")
        .every((line) => JSON.parse(line).text.length === 1),
    ).toBe(true);
  });

  it("goes on after a mistake of its own, but not without a device", async () => {
    const requests = ["a", "b", "c"].map((id) => ({ id, images: [IMAGE], prompts: ["x"] }));
    const file = await requestsFile(requests);
    const asked = ["generate", "--model", PLAIN, "--requests", file, "--json"];
    const outcomeOf = async (error: Error) => {
      const generate = vi.spyOn(InstructBlipForConditionalGeneration.prototype, "generate");
      generate
        .mockResolvedValueOnce({ sequences: [[1]] } as never)
        .mockRejectedValueOnce(error)
        .mockResolvedValueOnce({ sequences: [[3]] } as never);
      const { code, stdout, stderr } = await cli([...asked, "--batch-size", "1"]);
      generate.mockRestore();
      const lines = stdout
        .trimEnd()
        .split("\n")
        .map((line) => JSON.parse(line) as Result & Failure);
      return { code, stderr, lines: lines.map(({ id, error }) => [id, error?.code]) };
    };
    expect(await outcomeOf(new TypeError("x is not a function"))).toEqual({
      code: EXIT.internal,
      stderr: "1 of 3 requests failed; their lines say why\n",
      lines: [
        ["a", undefined],
        ["b", "INTERNAL"],
        ["c", undefined],
      ],
    });
    expect(await outcomeOf(new DeviceError("GPU_OOM", "the GPU ran out of memory"))).toEqual({
      code: EXIT.retry,
      stderr: "error: the GPU ran out of memory\n",
      lines: [
        ["a", undefined],
        ["b", "GPU_OOM"],
      ],
    });
  });

  it("ranks the candidates of a request, of each prompt its own, and goes on behind them", async () => {
    const shapes = join(ROOT, "examples/shapes");
    const images = ["000.png", "001.png"].map((name) => join(shapes, "eval/images", name));
    const prompts = ["What is the color of the circle?", "What is the yellow shape?"];
    const file = await requestsFile([
      {
        id: "own",
        images,
        prompts,
        candidates: [
          ["red", "green"],
          ["square", "circle", "star"],
        ],
      },
      { id: "all", images: [images[0]], prompts: [prompts[0]], candidates: ["blue", "green", "orange"] },
      { id: "none", images, prompts, candidates: [["red"], []] },
    ]);
    const out = join(temporaryFolder(), "out.jsonl");
    const command = ["generate", "--model", join(shapes, "checkpoint"), "--requests", file, "--json", "--out", out];
    expect((await cli(command)).code).toBe(EXIT.someFailed);
    const written = await readFile(out, "utf8");
    const [own, all, none] = written
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line)) as [RankedResult, RankedResult, Failure];
    expect([own.text, all.text]).toEqual([["green", "star"], ["green"]]);
    expect(own.ranked.map((list) => list.map(({ text }) => text).sort())).toEqual([
      ["green", "red"],
      ["circle", "square", "star"],
    ]);
    for (const list of [...own.ranked, ...all.ranked]) {
      expect(list.map(({ sum }) => sum)).toEqual(list.map(({ sum }) => sum).sort((a, b) => a - b));
      for (const { sum, mean } of list) expect(mean).toBeLessThanOrEqual(sum);
    }
    expect(own.ranked[0][0].sum).toBeCloseTo(all.ranked[0][0].sum, 4);
    expect(all.timing).toMatchObject({ new_tokens: 0, time_to_first_token_ms: null });
    expect(none.error.code).toBe("BAD_REQUEST");
    expect((await cli([...command, "--resume"])).code).toBe(EXIT.someFailed);
    expect(await readFile(out, "utf8")).toBe(written);
  });

  it("refuses a file of requests that is not there", async () => {
    const { code, stdout, stderr } = await cli(["generate", "--model", PLAIN, "--requests", "no.jsonl", "--json"]);
    expect({ code, stdout, stderr }).toEqual({
      code: 1,
      stdout: "",
      stderr: "error: --requests no.jsonl: no such file\n",
    });
  });
});
