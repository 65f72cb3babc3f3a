/** ModelFolder: every file is read and parsed once, and library and command line have the same errors. */
import { readFile, rm, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { afterEach, describe, expect, test, vi } from "vitest";
import {
  AutoConfig,
  AutoModelForImageTextToText,
  AutoProcessor,
  Blip2Config,
  Blip2ForConditionalGeneration,
  Blip2Processor,
  type Folder,
  InstructBlipConfig,
  InstructBlipForConditionalGeneration,
  InstructBlipProcessor,
  InstructBlipVideoConfig,
  InstructBlipVideoForConditionalGeneration,
  InstructBlipVideoProcessor,
  ModelFolder,
  NodeFolder,
} from "../../../src/index.node.ts";
import { describeError } from "../../../src/instructblip/cli/format.ts";
import { FAMILIES } from "../../../src/instructblip/config/families.ts";
import { testDevice } from "../../device.ts";
import { goldenFolder } from "../../golden_folder.ts";
import { cli, copyOfGolden, ROOT } from "../cli/cli.ts";
import { memoryFolder } from "../processing/processor_golden.ts";

afterEach(() => {
  vi.restoreAllMocks();
});

/** Folders with files of transformers 4 and 5, one file of weights and several, and each of the models. */
const CHECKPOINTS = [
  ...["plain_f32", "cross_frequency_3_sharded", "t5_flan", "blip2_opt", "video_1_frame"].map(goldenFolder),
];

/** How often files were asked for and read while this counts, and how often their JSON was parsed. */
function counting() {
  const counts = { has: new Map<string, number>(), open: new Map<string, number>(), parsed: new Map<string, number>() };
  const add = (of: Map<string, number>, key: string) => of.set(key, (of.get(key) ?? 0) + 1);
  for (const method of ["has", "open"] as const) {
    const original = NodeFolder.prototype[method] as (file: string) => Promise<never>;
    vi.spyOn(NodeFolder.prototype, method).mockImplementation(function (this: NodeFolder, file: string) {
      add(counts[method], file);
      return original.call(this, file);
    });
  }
  const { parse } = JSON;
  vi.spyOn(JSON, "parse").mockImplementation((text: string, ...more) => {
    add(counts.parsed, text);
    return parse(text, ...more);
  });
  return counts;
}

const moreThanOnce = (counts: ReadonlyMap<string, number>) => [...counts].filter(([, count]) => count > 1);

/** What is read for an answer of any of them. */
const READ = ["config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json"];

function expectOnce({ has, open, parsed }: ReturnType<typeof counting>): void {
  expect([...open.keys()]).toEqual(expect.arrayContaining(READ));
  expect([...parsed.values()].length).toBeGreaterThanOrEqual(READ.length);
  expect({ has: moreThanOnce(has), open: moreThanOnce(open), parsed: moreThanOnce(parsed) }).toEqual({
    has: [],
    open: [],
    parsed: [],
  });
}

describe.each(CHECKPOINTS.map((path) => [basename(path), path]))("%s is read once", (_, path) => {
  test("for a processor and a model that are given the open folder", async () => {
    const device = await testDevice();
    const counts = counting();
    const folder = await ModelFolder.open(path);
    const config = await AutoConfig.from_pretrained(folder);
    const processor = await AutoProcessor.from_pretrained(folder);
    const model = await AutoModelForImageTextToText.from_pretrained(folder, { device, on_warning: null });
    expectOnce(counts);
    expect(model.config).toBe(config);
    expect(processor.processor_class).toBe(config.family.processor_class);
    model.dispose();
  });

  test("for an answer of `instructblip generate`", async () => {
    const image = join(goldenFolder("plain_f32"), "image_0.png");
    const counts = counting();
    const asked = ["--model", path, "--image", image, "--prompt", "What is this?", "--max-new-tokens", "2"];
    const { code, stderr } = await cli(["generate", ...asked]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: expect.not.stringContaining("error") });
    expectOnce(counts);
  });
});

test("and more often by those who are given its path each for itself", async () => {
  const [path] = CHECKPOINTS;
  const counts = counting();
  await AutoConfig.from_pretrained(path);
  await AutoProcessor.from_pretrained(path);
  expect(counts.open.get("config.json")).toBe(1);
  expect(counts.has.get("config.json")).toBe(1);
  await AutoConfig.from_pretrained(path);
  expect(counts.open.get("config.json")).toBe(2);
});

describe("what cannot be opened is refused alike by the library and the command line", () => {
  const folders: Readonly<Record<string, readonly [code: string, make: (folder: string) => Promise<unknown>]>> = {
    "that is not there": ["NOT_FOUND", (folder) => rm(folder, { recursive: true })],
    "that is a file": [
      "NOT_FOUND",
      async (folder) => {
        await rm(folder, { recursive: true });
        await writeFile(folder, "");
      },
    ],
    "without a config": ["NOT_FOUND", (folder) => rm(join(folder, "config.json"))],
    "of an adapter alone": [
      "ADAPTER",
      async (folder) => {
        await rm(join(folder, "config.json"));
        await writeFile(join(folder, "adapter_config.json"), '{"peft_type": "LORA"}');
      },
    ],
    "with a config that is no JSON": ["CONFIG_JSON", (folder) => writeFile(join(folder, "config.json"), "{")],
    "with a config that is a list": ["CONFIG_JSON", (folder) => writeFile(join(folder, "config.json"), "[]")],
    "with a config of another model": [
      "UNSUPPORTED_MODEL",
      (folder) => writeFile(join(folder, "config.json"), '{"model_type": "llava"}'),
    ],
    "with a tokenizer that is no JSON": [
      "TOKENIZER_JSON",
      (folder) => writeFile(join(folder, "tokenizer_config.json"), "{"),
    ],
  };

  test.each(Object.entries(folders))("a folder %s", async (_, [code, make]) => {
    const folder = await copyOfGolden("plain_f32");
    // So that tokenizer_config.json is asked, too, which processor it is.
    const named = join(folder, "processor_config.json");
    const { processor_class: _name, ...rest } = JSON.parse(await readFile(named, "utf8"));
    await writeFile(named, JSON.stringify(rest));
    await make(folder);
    const load = code === "TOKENIZER_JSON" ? AutoProcessor : AutoModelForImageTextToText;
    const error = await load.from_pretrained(folder).then(
      () => undefined,
      (error: unknown) => error,
    );
    expect(error).toMatchObject({ code });
    const image = join(goldenFolder("plain_f32"), "image_0.png");
    const { stderr } = await cli(["generate", "--model", folder, "--image", image, "--prompt", "a"]);
    expect(stderr).toBe(`${describeError(error).message}\n`);
  });
});

describe("a model folder", () => {
  const files = () => ({ "config.json": '{"model_type": "blip-2"}' });

  test("stays itself when it is opened again, and gives everyone the same config", async () => {
    const folder = await ModelFolder.open(memoryFolder(files()));
    expect(await ModelFolder.open(folder)).toBe(folder);
    const [one, other] = await Promise.all([folder.config(), folder.config(Blip2Config)]);
    expect(one).toBeInstanceOf(Blip2Config);
    expect(other).toBe(one);
    await expect(folder.config(InstructBlipConfig)).rejects.toMatchObject({
      code: "UNSUPPORTED_MODEL",
      message: expect.stringContaining('model_type must be "instructblip", got "blip-2"'),
      hint: expect.stringContaining("AutoModelForImageTextToText"),
    });
    expect(await folder.config()).toBe(one);
  });

  test("gives a class of one's own its own config", async () => {
    class MyConfig extends Blip2Config {}
    const folder = await ModelFolder.open(memoryFolder(files()));
    expect(await folder.config()).not.toBeInstanceOf(MyConfig);
    expect(await folder.config(MyConfig)).toBeInstanceOf(MyConfig);
  });

  test("asks again for what could not be read", async () => {
    const inner = memoryFolder(files());
    let down = true;
    const failing: Folder = {
      ...inner,
      text: async (file, maxBytes) => {
        if (down) throw new Error("the network is down");
        return inner.text(file, maxBytes);
      },
    };
    const folder = await ModelFolder.open(failing);
    await expect(folder.config()).rejects.toThrow("the network is down");
    down = false;
    expect(await folder.config()).toBeInstanceOf(Blip2Config);
  });

  test("refuses options that it would drop", async () => {
    const open = (from: unknown, options: object) => ModelFolder.open(from as string, options);
    await expect(open(ROOT, { revison: "v1" })).rejects.toMatchObject({
      code: "UNKNOWN_OPTION",
      message: expect.stringMatching(/ModelFolder\.open has no option "revison".*revision/s),
    });
    await expect(open(memoryFolder({}), { revision: "v1" })).rejects.toMatchObject({ code: "UNSUPPORTED_OPTION" });
    await expect(open(7, {})).rejects.toMatchObject({ code: "BAD_INPUT" });
    await expect(open(ROOT, { token: 7 })).rejects.toMatchObject({ code: "BAD_INPUT" });
  });
});

describe("the row of a family", () => {
  const CLASSES = [
    [InstructBlipConfig, InstructBlipForConditionalGeneration, InstructBlipProcessor],
    [Blip2Config, Blip2ForConditionalGeneration, Blip2Processor],
    [InstructBlipVideoConfig, InstructBlipVideoForConditionalGeneration, InstructBlipVideoProcessor],
  ] as const;

  test.each(CLASSES.map((classes) => [classes[0].model_type, ...classes] as const))(
    "%s is that of its classes",
    (model_type, Config, Model, Processor) => {
      const row = FAMILIES[model_type];
      expect(row).toMatchObject({
        model_type,
        config_class: Config.name,
        architecture: Model.name,
        processor_class: Processor.name,
      });
      expect([Config.family, Model.config_class, Processor.family]).toEqual([row, Config, row]);
      const config = AutoConfig.parse(JSON.stringify({ model_type }));
      expect(config).toBeInstanceOf(Config);
      expect(config.family).toBe(row);
      expect(config.architectures).toEqual([Model.name]);
      expect(config.modality).toBe(row.modality);
    },
  );

  test("there is one for every model", () => {
    expect(CLASSES.map(([{ model_type }]) => model_type)).toEqual(Object.keys(FAMILIES));
  });
});
