/**
 * docs/from_transformers.md: what each listing prints is what its Python prints with transformers, on the embedded checkpoint
 * and two small ones (test/golden/transformers/make.py).
 */
import { readFileSync } from "node:fs";
import { transformSync } from "esbuild";
import { afterAll, expect, test, vi } from "vitest";
import * as library from "../../../src/index.node.ts";
import { testDevice } from "../../device.ts";
import { goldenFolder } from "../../golden_folder.ts";
import { ALL } from "../../rounds.ts";

const GOLDEN = "test/golden/transformers";
const readJson = (path: string) => JSON.parse(readFileSync(path, "utf8"));
const PRINTED: Record<string, string> = readJson(`${GOLDEN}/printed.json`);
const { checkpoints, listings: kinds, hub, replace } = readJson(`${GOLDEN}/settings.json`);

const SECTIONS = readFileSync("docs/from_transformers.md", "utf8")
  .split(/^## /m)
  .slice(1)
  .map((text) => [text.split("\n")[0], [...text.matchAll(/^```ts\n(.*?)^```$/gms)].map(([, code]) => code)] as const)
  .filter(([, codes]) => codes.length > 0);

const device = await testDevice();
const models = new Map<string, Promise<{ dispose(): void }>>();
afterAll(async () => {
  for (const model of models.values()) (await model).dispose();
});

type Loads = { from_pretrained(from: string, options?: object): Promise<{ dispose(): void }> };
/** The class, whose models are loaded once. */
const once = (Model: Loads) => ({
  from_pretrained: (from: string) => {
    const key = Model === (library.AutoModelForImageTextToText as Loads) ? from : `${from} ${Model}`;
    if (!models.has(key)) models.set(key, Model.from_pretrained(from, { device, compile: false, on_warning: null }));
    return models.get(key);
  },
});
const NAMES = {
  ...library,
  AutoModelForImageTextToText: once(library.AutoModelForImageTextToText as Loads),
  Blip2ForConditionalGeneration: once(library.Blip2ForConditionalGeneration as Loads),
  Blip2Model: once(library.Blip2Model as Loads),
  InstructBlipForConditionalGeneration: once(library.InstructBlipForConditionalGeneration as Loads),
  InstructBlipVideoForConditionalGeneration: once(library.InstructBlipVideoForConditionalGeneration as Loads),
  pipeline: (task: never, options: library.PipelineOptions) =>
    library.pipeline(task, { ...options, device, compile: false }),
};

const kindOf = (code: string): string => kinds.find((one: string) => code.includes(one)) ?? "instructblip";

/** What a listing prints on its checkpoint. */
async function run(code: string): Promise<string> {
  const kind = kindOf(code);
  const place: string = checkpoints[kind];
  const [, name] = /^test\/golden\/(?:data|siblings)\/(.*)$/.exec(place) ?? [];
  let text = code.replaceAll(hub[kind], name ? goldenFolder(name) : place);
  for (const [from, to] of Object.entries<string>({ ...replace.all, ...replace.here }))
    text = text.replaceAll(from, to);
  ({ code: text } = transformSync(text.replace(/^import .*\n/gm, ""), { loader: "ts" }));
  let printed = "";
  const print = (...values: unknown[]) => {
    printed += `${values.map(String).join(" ")}\n`;
  };
  const AsyncFunction = (async () => {}).constructor as new (
    ...args: string[]
  ) => (...args: unknown[]) => Promise<void>;
  const write = vi.spyOn(process.stdout, "write").mockImplementation((chunk) => {
    printed += chunk;
    return true;
  });
  try {
    await new AsyncFunction(...Object.keys(NAMES), "console", text)(...Object.values(NAMES), { log: print });
  } finally {
    write.mockRestore();
  }
  return printed;
}

test("every listing has one of Python", () => {
  expect(SECTIONS.map(([heading]) => heading)).toEqual(Object.keys(PRINTED));
  expect(SECTIONS.length).toBeGreaterThanOrEqual(10);
});

test("listings import what they use", () => {
  for (const [heading, [code]] of SECTIONS) {
    const imported = [...code.matchAll(/^import \{ (.*) \} from "instructblip-webgpu";$/gm)].flatMap(([, names]) =>
      names.split(", "),
    );
    const used = Object.keys(library).filter((name) =>
      new RegExp(`\\b${name}\\b`).test(code.replace(/^import .*$/gm, "")),
    );
    expect(imported.sort(), heading).toEqual(used.sort());
  }
});

/** A sample, on the embedded checkpoint. */
const SAMPLE = /^(InstructBLIP$|Pipelines|Stopping|Tokenizers)/;
const RUN = ALL ? SECTIONS : SECTIONS.filter(([heading]) => SAMPLE.test(heading));

test.each(RUN)("%s: prints what Python prints", async (heading, [code]) => {
  expect(await run(code)).toBe(PRINTED[heading]);
});
