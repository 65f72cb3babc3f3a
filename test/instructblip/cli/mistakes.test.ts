/** Errors of the command line: one clear message, the right exit code, nothing on stdout, no stack. */
import { readFile, rm, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it, vi } from "vitest";
import { EXIT } from "../../../src/instructblip/cli/format.ts";
import { goldenFolder } from "../../golden_folder.ts";
import { temporaryFolder } from "../../temporary.ts";
import { cli, copyOfGolden } from "./cli.ts";

const PLAIN = goldenFolder("plain_f32");
const IMAGE = join(PLAIN, "image_0.png");

/** Runs what must fail, and gives its message. */
async function refused(args: readonly string[], code: number): Promise<string> {
  const outcome = await cli(args);
  expect(outcome, outcome.stderr).toMatchObject({ code, stdout: "" });
  expect(outcome.stderr).toMatch(/^error: /);
  expect(outcome.stderr).not.toMatch(/\n\s+at |\.ts:\d+/);
  return outcome.stderr;
}

function ask(model: string, image = IMAGE, ...more: string[]): string[] {
  return ["generate", "--model", model, "--image", image, "--prompt", "What?", ...more];
}

describe("a wrong command line", () => {
  it.each([
    [["--modle"], /unknown option '--modle'/],
    [["generat"], /unknown command 'generat'\n\(Did you mean generate\?\)/],
    [["generate"], /required option '--model <folder>' not specified/],
    [["generate", "--modl", "m"], /unknown option '--modl'\n\(Did you mean --model\?\)/],
    [["generate", "--model", "m"], /required option '--image <file>' not specified/],
    [["generate", "--model", "m", "--image", "i"], /required option '--prompt <text>' not specified/],
    [ask("m", "i", "--max-new-token", "3"), /unknown option '--max-new-token'\n\(Did you mean --max-new-tokens\?\)/],
    [ask("m", "i", "extra"), /too many arguments/],
    [ask("m", "i", "--model", "n"), /It is given twice/],
    [ask("", "i"), /It must not be empty/],
    [ask("m", "i", "--dtype", "f64"), /'f64' is invalid. dtype: unknown dtype "f64"\n +hint: did you mean f32\?/],
    [ask("m", "i", "--dtype", "language_model=int3"), /unknown dtype "int3"\n +hint: did you mean int8\?/],
    [ask("m", "i", "--dtype", "int8,int4"), /"int8,int4" is neither a dtype nor a list of module=dtype/],
    [ask("m", "i", "--dtype", "qformer=f16,qformer=f32"), /"qformer" is given twice/],
    [ask("m", "i", "--compute-dtype", "bf16"), /'bf16' is invalid. Allowed choices are f32, f16/],
    [ask("m", "i", "--kv-cache-dtype", "int8"), /'int8' is invalid. Allowed choices are f32, f16/],
    [ask("m", "i", "--max-new-tokens", "0"), /a whole number of at least 1/],
    [ask("m", "i", "--max-new-tokens", "-1"), /a whole number of at least 1/],
    [ask("m", "i", "--max-new-tokens", "1.5"), /a whole number of at least 1/],
    [ask("m", "i", "--max-new-tokens", "1e3"), /a whole number of at least 1/],
    [ask("m", "i", "--max-new-tokens", "99999999999999999999"), /a whole number of at least 1/],
    [ask("m", "i", "--max-length", "ten"), /a whole number of at least 1/],
    [ask("m", "i", "--min-length", ""), /a whole number of at least 0/],
    [ask("m", "i", "--repetition-penalty", "0"), /a number above 0/],
    [ask("m", "i", "--repetition-penalty", "NaN"), /a number above 0/],
    [ask("m", "i", "--repetition-penalty", "Infinity"), /a number above 0/],
    [ask("m", "i", "--eos-token-id", "2,"), /token ids, separated by commas/],
    [ask("m", "i", "--eos-token-id", "-1"), /token ids, separated by commas/],
    [ask("m", "i", "--watermarking-config", "2"), /an object as JSON/],
    [ask("m", "i", "--watermarking-config", "{bias: 2}"), /an object as JSON/],
    [ask("m", "i", "--guidance-scale", "x"), /guidance_scale must be a number, got "x"/],
    [ask("m", "i", "--negative-prompt", "a"), /required option '--guidance-scale <x>' not specified/],
    [
      ["generate", "--model", "m", "--requests", "r", "--json", "--negative-prompt", "a"],
      /cannot be used with .*--negative-prompt/,
    ],
    [ask("m", "i", "--requests", "r"), /'--requests <file.jsonl>' cannot be used with option '--image <file>'/],
    [["generate", "--model", "m", "--requests", "r"], /required option '--json' not specified/],
    [
      ["generate", "--model", "m", "--requests", "r", "--json", "--max-length", "9"],
      /cannot be used with .*--max-length/,
    ],
    [["trace", "--model", "m", "--image", "i", "--prompt", "p"], /required option '--out <file.safetensors>'/],
    [ask("m", "i", "--shard", "0/2"), /required option '--requests <file.jsonl>' not specified/],
    [ask("m", "i", "--out", "o"), /required option '--requests <file.jsonl>' not specified/],
    [["generate", "--model", "m", "--requests", "r", "--json", "--resume"], /required option '--out <file.jsonl>'/],
    ...["2/2", "1", "1/0", "-1/2", "1/2/3", "0.5/2", ""].map(
      (shard) => [["generate", "--shard", shard], /It must be i\/n with i from 0 to n-1/] as [string[], RegExp],
    ),
    [["evaluate", "--model", "m", "--task", "t"], /required option '--data <file.jsonl>' not specified/],
    [["evaluate", "--model", "m", "--task", "t", "--data", "d", "--resume"], /required option '--out <file.jsonl>'/],
    [["merge"], /missing required argument 'parts'/],
    [["inspect"], /missing required argument 'folder'/],
    [["inspect", "a", "b"], /too many arguments/],
    [["devices", "--jsn"], /unknown option '--jsn'\n\(Did you mean --json\?\)/],
  ])("%j", async (args, message) => {
    expect(await refused(args, EXIT.usage)).toMatch(message);
  });

  it("refuses a file whose name says another format", async () => {
    const asked = ["--model", "m", "--image", "i", "--prompt", "p"];
    for (const [command, option, name, message] of [
      ["ablate", "--png", "x.jpg", /--png x.jpg: the name must end in .png\n/],
      ["ablate", "--svg", "x.png", /must end in .svg/],
      ["ablate", "--json", "x.html", /what is written is JSON, not .html/],
      ["lens", "--html", "x.json", /must end in .html or .htm/],
      ["attribute", "--html", "x.pdf", /must end in .html/],
      ["profile", "--trace", "x.svg", /JSON, not .svg/],
      ["trace", "--out", "x.npz", /must end in .safetensors/],
    ] as const) {
      expect(await refused([command, ...asked, option, name], EXIT.refused)).toMatch(message);
    }
    expect(await refused(["compare", "a", "b", "--html", "x.md"], EXIT.refused)).toMatch(/must end in .html/);
    const lens = ["lens", ...asked, "--html", "/dev/null"]; // which says no format
    expect(await refused(lens, EXIT.refused)).toMatch(/no such folder/);
  });

  it("takes a prompt for what it is", async () => {
    // Not for an option, nor for a number, nor for nothing: it is the model that is missing here.
    for (const prompt of ["-5 cats?", "007", ""]) {
      const args = ["generate", "--model", "no model", "--image", IMAGE, "--prompt", prompt];
      expect(await refused(args, EXIT.refused)).toMatch(/^error: no model: no such folder\n {4}hint: give the folder/);
    }
  });

  it("prints the help to stderr when it is given no command", async () => {
    const { code, stdout, stderr } = await cli([]);
    expect({ code, stdout }).toEqual({ code: EXIT.usage, stdout: "" });
    expect(stderr).toMatch(/Usage: instructblip/);
  });
});

describe("help", () => {
  it.each(["generate", "evaluate", "merge", "features", "retrieve", "trace", "inspect", "devices", "doctor"])(
    "explains %s with examples and exit codes",
    async (command) => {
      const { code, stdout, stderr } = await cli([command, "--help"]);
      expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
      expect(stdout).toContain(`Usage: instructblip ${command}`);
      expect(stdout).toContain(`$ instructblip ${command}`);
      expect(stdout).toMatch(/Exit codes:\n {2}0 /);
      if (command === "generate" || command === "evaluate") expect(stdout).toMatch(/candidates/);
      for (const line of stdout.split("\n")) expect(line.length).toBeLessThanOrEqual(120);
    },
  );

  it("names every command and environment variable at the top", async () => {
    const { stdout } = await cli(["--help"]);
    for (const word of [
      "generate",
      "evaluate",
      "merge",
      "features",
      "retrieve",
      "trace",
      "inspect",
      "devices",
      "doctor",
      "demo",
      "setup",
      "INSTRUCTBLIP_DEBUG",
      "INSTRUCTBLIP_MEMORY_BUDGET",
    ]) {
      expect(stdout).toContain(word);
    }
  });

  it("prints the version of the package", async () => {
    const { version } = JSON.parse(await readFile("package.json", "utf8")) as { version: string };
    for (const flag of ["--version", "-V"]) {
      expect(await cli([flag])).toEqual({ code: 0, stdout: `${version}\n`, stderr: "" });
    }
  });

  it("prints the same help however it is asked for", async () => {
    const [top, generate] = [await cli(["--help"]), await cli(["generate", "--help"])];
    expect([top.code, generate.code, top.stderr + generate.stderr]).toEqual([0, 0, ""]);
    expect(generate.stdout).toMatch(/^Usage: instructblip generate /);
    for (const args of [["-h"], ["help"], ["help", "help"], ["help", "-h"]]) expect(await cli(args)).toEqual(top);
    for (const args of [
      ["generate", "-h"],
      ["help", "generate"],
    ])
      expect(await cli(args)).toEqual(generate);
    expect(await refused(["help", "genrate"], EXIT.usage)).toMatch(
      /unknown command 'genrate'\n\(Did you mean generate\?\)/,
    );
  });
});

describe("a model that is not there", () => {
  it("names the folder, and says where models come from", async () => {
    vi.stubEnv("HF_HUB_OFFLINE", "1");
    expect(await refused(ask("nowhere/at-all"), EXIT.refused)).toMatch(
      /nowhere\/at-all: no such folder, and .* not wholly, in the cache at .*\n.*HF_HUB_OFFLINE/,
    );
    vi.unstubAllEnvs();
    expect(await refused(ask(IMAGE), EXIT.refused)).toMatch(/this is a file, not a folder/);
    expect(await refused(["inspect", temporaryFolder()], EXIT.refused)).toMatch(/there is no config\.json/);
  });

  it("misses its weights", async () => {
    const folder = await copyOfGolden("plain_f32");
    await rm(join(folder, "model.safetensors"));
    expect(await refused(ask(folder), EXIT.refused)).toMatch(/neither model\.safetensors nor pytorch_model\.bin/);
  });

  it("misses a shard", async () => {
    const folder = await copyOfGolden("cross_frequency_3_sharded");
    await rm(join(folder, "model-00003-of-00004.safetensors"));
    for (const args of [ask(folder, join(folder, "image_0.png")), ["inspect", folder]]) {
      expect(await refused(args, EXIT.refused)).toMatch(
        /1 of 4 files are missing: .*model-00003-of-00004.*\n.*incomplete download/s,
      );
    }
  });

  it("misses its tokenizer", async () => {
    const folder = await copyOfGolden("plain_f32");
    await rm(join(folder, "qformer_tokenizer"), { recursive: true });
    expect(await refused(ask(folder), EXIT.refused)).toMatch(/qformer_tokenizer/);
  });
});

describe("a damaged model", () => {
  it("has weights that were cut short", async () => {
    const folder = await copyOfGolden("plain_f32");
    await truncate(join(folder, "model.safetensors"), 300_000);
    expect(await refused(ask(folder), EXIT.refused)).toMatch(/^error: model\.safetensors: /);
    await truncate(join(folder, "model.safetensors"), 4);
    expect(await refused(ask(folder), EXIT.refused)).toMatch(/^error: model\.safetensors: /);
  });

  it("has another shape than its config says", async () => {
    const folder = await copyOfGolden("plain_f32");
    const config = JSON.parse(await readFile(join(folder, "config.json"), "utf8"));
    config.vision_config.intermediate_size = 48;
    await writeFile(join(folder, "config.json"), JSON.stringify(config));
    expect(await refused(ask(folder), EXIT.refused)).toMatch(
      /vision_model\.encoder\.layers\.0\.mlp\.fc1\.weight: expected \[48, 32\], the checkpoint has \[44, 32\]/,
    );
  });

  it("has a config that is no JSON, or of another model", async () => {
    const folder = await copyOfGolden("plain_f32");
    await writeFile(join(folder, "config.json"), "{");
    expect(await refused(["inspect", folder], EXIT.refused)).toMatch(/config\.json/);
    await writeFile(join(folder, "config.json"), '{"model_type": "llava"}');
    expect(await refused(["inspect", folder], EXIT.refused)).toMatch(
      /model_type must be "instructblip" or "blip-2" or "instructblipvideo", got "llava"/,
    );
    await writeFile(
      join(folder, "config.json"),
      '{"model_type": "instructblip", "text_config": {"model_type": "gpt2"}}',
    );
    expect(await refused(["inspect", folder], EXIT.refused)).toMatch(/"gpt2" is not supported/);
  });
});

describe("a question that cannot be answered", () => {
  it("has no image", async () => {
    expect(await refused(ask(PLAIN, "no.png"), EXIT.refused)).toBe("error: no.png: no such file\n");
    expect(await refused(ask(PLAIN, PLAIN), EXIT.refused)).toMatch(/not a regular file/);
    expect(await refused(ask(PLAIN, "package.json"), EXIT.refused)).toMatch(/JSON, not an image, must be PNG/);
    const refusals = [
      ["file://elsewhere/a.png", /of no file on this machine/],
      ["s3://bucket/a.png", /not read from s3: URLs/],
      [
        "http://localhost:1/a.png",
        /localhost:1\/a\.png: the server cannot be reached: its port .*\n {4}hint: download/,
      ],
      ["data:image/png;base64,!!!!", /is not base64/],
      [`data:image/png;base64,${"A".repeat(100_000)}`, /^error: .{0,200}$/ms],
    ] as const;
    for (const [image, message] of refusals) {
      expect(await refused(ask(PLAIN, image), EXIT.refused)).toMatch(message);
    }
    const cut = join(temporaryFolder(), "cut.png");
    await writeFile(cut, (await readFile(IMAGE)).subarray(0, 700));
    expect(await refused(ask(PLAIN, cut), EXIT.refused)).toMatch(/the PNG ends before its image does/);
  });

  it("is longer than the Q-Former reads", async () => {
    const args = ["generate", "--model", PLAIN, "--image", IMAGE, "--prompt", "what ".repeat(100)];
    expect(await refused(args, EXIT.refused)).toMatch(/Q-Former.* 48 at most/);
  });

  it("asks for what the vocabulary or the lengths do not have", async () => {
    const { code, stderr } = await cli(ask(PLAIN, IMAGE, "--eos-token-id", "357"));
    expect([code, stderr]).toEqual([0, "warning: eos_token_id: no token has the id 357\n"]);
    expect(await refused(ask(PLAIN, IMAGE, "--max-length", "3"), EXIT.refused)).toMatch(/max_length must be more than/);
  });

  it("asks for what has no effect", async () => {
    const { code, stderr } = await cli(ask(PLAIN, IMAGE, "--temperature", "0.5", "--length-penalty", "2"));
    expect(code).toBe(0);
    expect(stderr.split("\n")).toEqual([
      "warning: temperature has no effect: do_sample is not true",
      "warning: length_penalty has no effect: num_beams is 1",
      "",
    ]);
  });

  it("shows the stack when asked to", async () => {
    process.env.INSTRUCTBLIP_DEBUG = "1";
    try {
      const { code, stderr } = await cli(ask(PLAIN, "no.png"));
      expect(code).toBe(EXIT.refused);
      expect(stderr).toMatch(/^error: no\.png: no such file\nWeightError: .*\n\s+at .*\ncaused by: Error: ENOENT/s);
    } finally {
      delete process.env.INSTRUCTBLIP_DEBUG;
    }
  });
});
