/**
 * The four official checkpoints, without their weights: every tensor of their headers is bound, none is missing or unused,
 * sizes are those of the published models, and the memory plan equals the engine's allocations. Nothing is computed.
 */
import { describe, expect, it } from "vitest";
import { planMemory } from "../../src/instructblip/cli/inspect/memory_plan.ts";
import { InstructBlipConfig } from "../../src/instructblip/config/instructblip.ts";
import { InstructBlipForConditionalGeneration } from "../../src/instructblip/pretrained/instructblip.ts";
import type { StorageDType } from "../../src/modules/storage_dtype.ts";
import { Weights } from "../../src/modules/weights.ts";
import type { EngineError } from "../../src/tensor/errors.ts";
import { Checkpoint } from "../../src/tensor/files/checkpoint.ts";
import type { ByteSource, Folder } from "../../src/tensor/files/source.ts";
import { type Shape, sizeOf } from "../../src/tensor/shape.ts";
import { Weight } from "../../src/tensor/weight.ts";
import { ALL } from "../rounds.ts";
import { HeaderOnlyFolder, sourceOf } from "./header_only.ts";
import { openLedgerDevice } from "./ledger_device.ts";

const BINDING = 128 * 2 ** 20; // WebGPU's default limit, which every adapter has
/** Rows of Vicuna's embedding and head as converted from LAVIS, and once `<image>` had been added and rows padded to 64. */
const [CONVERTED_ROWS, UPGRADED_ROWS] = [32001, 32064];
const VOCABULARY_TABLES = ["language_model.model.embed_tokens.weight", "language_model.lm_head.weight"];

/**
 * Parameters as converted from LAVIS, counted by PyTorch on the meta device; the other parts are the same in all four.
 * `tensors` is what files hold: a T5 state dict has 1365 entries, of which two are other names of the embedding.
 */
// biome-ignore format: a table
const OFFICIAL = [
  { name: "vicuna-7b",   files: 4, tensors: 1096, width: 4096, language_model:  6_738_423_808, total:  7_913_210_624 },
  { name: "vicuna-13b",  files: 6, tensors: 1168, width: 5120, language_model: 13_015_874_560, total: 14_191_448_832 },
  { name: "flan-t5-xl",  files: 2, tensors: 1363, width: 2048, language_model:  2_849_757_184, total:  4_022_969_088 },
  { name: "flan-t5-xxl", files: 5, tensors: 1363, width: 4096, language_model: 11_135_332_352, total: 12_310_119_168 },
] as const;
const VISION = 985_952_256;
const QFORMER = 185_660_160;
const QUERIES = 24_576;
const QFORMER_WIDTH = 768;

async function configOf(folder: Folder): Promise<InstructBlipConfig> {
  return InstructBlipConfig.parse(await folder.text("config.json"));
}

/** Constructs the model over a GPU that holds nothing. */
async function bind(
  checkpoint: Checkpoint,
  config: InstructBlipConfig,
  dtype: StorageDType = "auto",
  binding = BINDING,
) {
  const { device, sizes } = openLedgerDevice(binding);
  const weights = Weights.open(checkpoint, device, dtype);
  const model = new InstructBlipForConditionalGeneration(weights, config);
  return { weights, model, sizes };
}

/** As {@link bind}, from one file. @throws what binding throws */
async function bindSource(source: ByteSource, config: InstructBlipConfig) {
  return bind(await Checkpoint.open(source), config);
}

async function shapesOf(folder: Folder): Promise<Map<string, Shape>> {
  const { tensors } = await Checkpoint.open(folder);
  return new Map([...tensors].map(([name, { shape }]) => [name, shape]));
}

/** Parameters of each top-level part. */
function parts(shapes: Iterable<readonly [name: string, shape: Shape]>): Record<string, number> {
  const sums: Record<string, number> = {};
  for (const [name, shape] of shapes) {
    const [part] = name.split(".");
    sums[part] = (sums[part] ?? 0) + sizeOf(shape);
  }
  return sums;
}

async function refusal(source: ByteSource, config: InstructBlipConfig): Promise<EngineError> {
  return bindSource(source, config).then(
    () => expect.unreachable("it was bound"),
    (error: EngineError) => error,
  );
}

describe.each(OFFICIAL)("$name", ({ name, files, tensors, width, language_model, total }) => {
  const folder = new HeaderOnlyFolder(name);
  const isVicuna = name.startsWith("vicuna");
  const added = isVicuna ? 2 * (UPGRADED_ROWS - CONVERTED_ROWS) * width : 0; // since conversion
  const expected = {
    query_tokens: QUERIES,
    vision_model: VISION,
    qformer: QFORMER,
    language_projection: (QFORMER_WIDTH + 1) * width,
    language_model: language_model + added,
  };

  it("opens, in as many files as 10 GB each make of it", async () => {
    const checkpoint = await Checkpoint.open(folder);
    expect(checkpoint.warnings).toEqual([]);
    expect(checkpoint.tensors.size).toBe(tensors);
    expect(new Set([...checkpoint.tensors.values()].map(({ file }) => file)).size).toBe(files);
    expect((await configOf(folder)).text_config.hidden_size).toBe(width);
  });

  it("binds every tensor once and leaves none over, with the parameters and bytes it should have", async () => {
    const checkpoint = await Checkpoint.open(folder);
    const { weights, model } = await bind(checkpoint, await configOf(folder));
    expect(weights.leftovers()).toEqual([]);
    expect([...weights.parameters.keys()].sort()).toEqual([...checkpoint.tensors.keys()].sort());
    const bound = parts([...weights.parameters].map(([key, { shape }]) => [key, shape]));
    expect(bound).toEqual(expected);
    expect(Object.values(bound).reduce((sum, n) => sum + n)).toBe(total + added);
    let bytes = 0;
    for (const { begin, end } of checkpoint.tensors.values()) bytes += end - begin;
    expect(bytes).toBe(4 * (total + added));
    expect(model.language_model.num_embeddings).toBe(isVicuna ? UPGRADED_ROWS : 32128);
  });

  it.each([
    ["WebGPU's default binding limit", BINDING],
    ["a binding limit of 2 GiB", 2 ** 31],
  ])("takes the memory that was planned, with %s", async (_, binding) => {
    const checkpoint = await Checkpoint.open(folder);
    const config = await configOf(folder);
    const plan = planMemory(checkpoint.tensors, config, { maxBindingBytes: binding, maxBufferBytes: binding });
    for (const { dtype, bytes, split, pieces } of plan.weights) {
      const { weights, model, sizes } = await bind(checkpoint, config, dtype, binding);
      expect(Math.max(...sizes())).toBeLessThanOrEqual(binding);
      const matrices = [...weights.parameters.values()].filter((parameter) => parameter instanceof Weight);
      const wholes = [...new Set(matrices.map(({ whole }) => whole))];
      const shards = wholes.map((weight) => weight.shards.length).filter((count) => count > 1);
      const found = { bytes: sizes().reduce((a, b) => a + b), split: shards.length, pieces: shards.reduce(sum, 0) };
      expect(found, dtype).toEqual({ bytes, split, pieces });
      expect(model.device.memory.use.live, dtype).toBe(bytes);
    }
  });

  it("is loaded up to the first byte of a weight", async () => {
    const { device, sizes } = openLedgerDevice(BINDING);
    // Compiling takes activations, which stay in the device's pool.
    const loading = InstructBlipForConditionalGeneration.from_pretrained(folder, { device, compile: false });
    await expect(loading).rejects.toMatchObject({ code: "NO_WEIGHTS" });
    if (!isVicuna) expect(sizes()).toEqual([]); // LLaMA's rotary table, not a parameter, stays with the device
  });
});

const sum = (a: number, b: number) => a + b;

/** A tensor of a layer. */
const IN_LAYER =
  /^(?:vision_model\.encoder\.layers|qformer\.encoder\.layer|language_model\.(?:model\.layers|(?:en|de)coder\.block))\.(\d+)\./;
/** What configs call the number of layers. */
const DEPTHS = ["num_hidden_layers", "num_layers", "num_decoder_layers"];
/**
 * Layers of each part of a damaged checkpoint, which is bound hundreds of times: of the Q-Former every second is another, T5
 * has its table of biases in the first. With INSTRUCTBLIP_TEST_ALL=1 (`npm run test:all`) all of them.
 */
const LAYERS = ALL ? Number.POSITIVE_INFINITY : 2;

/** Two language models: the larger checkpoints have tensors of the same kinds. */
describe.each(["vicuna-7b", "flan-t5-xl"])("a damaged %s", (name) => {
  const folder = new HeaderOnlyFolder(name);

  /** The config of fewer layers. */
  async function shortConfig(): Promise<InstructBlipConfig> {
    const text = await folder.text("config.json");
    return InstructBlipConfig.parse(
      JSON.stringify(JSON.parse(text), (key, value) => (DEPTHS.includes(key) ? Math.min(value, LAYERS) : value)),
    );
  }

  /** Of each kind of tensor, the last. Without T5's head and embedding: either may be absent, and is then the other. */
  async function oneOfEachKind(): Promise<{ shapes: Map<string, Shape>; names: string[] }> {
    const whole = await shapesOf(folder);
    const shapes = new Map([...whole].filter(([key]) => Number(IN_LAYER.exec(key)?.[1] ?? 0) < LAYERS));
    const kindOf = (key: string) => key.replace(/\d+/g, "#");
    const kinds = new Map([...shapes.keys()].map((key) => [kindOf(key), key]));
    expect(kinds.size).toBe(new Set([...whole.keys()].map(kindOf)).size);
    const either = ["language_model.lm_head.weight", "language_model.shared.weight"];
    const names = [...kinds.values()].filter((key) => name === "vicuna-7b" || !either.includes(key));
    expect(names.length).toBeGreaterThan(60);
    return { shapes, names };
  }

  it("is refused by the name of the tensor it lacks", async () => {
    const { shapes, names } = await oneOfEachKind();
    const config = await shortConfig();
    for (const absent of names) {
      const rest = new Map([...shapes].filter(([key]) => key !== absent));
      const error = await refusal(sourceOf(rest), config);
      expect(error).toMatchObject({ code: "MISSING_TENSORS" });
      expect(error.message).toContain(`${absent}: `);
    }
  });

  it("is refused by the name of the tensor that is called otherwise, and told the other name", async () => {
    const { shapes, names } = await oneOfEachKind();
    const config = await shortConfig();
    const alone = names.filter((key) => !/\d/.test(key)); // the nearest to a layer's name is its neighbour's
    expect(alone.length).toBeGreaterThanOrEqual(15);
    for (const renamed of alone) {
      const rest = new Map([...shapes].map(([key, shape]) => [key === renamed ? `${key}_` : key, shape]));
      const error = await refusal(sourceOf(rest), config);
      expect(error).toMatchObject({ code: "MISSING_TENSORS", hint: `it has ${renamed}_` });
      expect(error.message).toContain(`${renamed}: `);
    }
  });

  it("is refused by the name of the tensor that has another shape, and told if it is transposed", async () => {
    const { shapes, names } = await oneOfEachKind();
    const config = await shortConfig();
    let transposed = 0;
    for (const key of names) {
      const shape = shapes.get(key)!;
      const turned = shape.length === 2 && shape[0] !== shape[1];
      const other = turned ? [...shape].reverse() : [...shape.slice(0, -1), shape.at(-1)! + 1];
      const error = await refusal(sourceOf(new Map([...shapes, [key, other]])), config);
      expect(error, key).toMatchObject({ code: "SHAPE_EXPECTED" });
      expect(error.message).toContain(`${key}: expected`);
      if (error.hint?.includes("transposed")) transposed++;
    }
    expect(transposed).toBeGreaterThan(5); // a table of any number of rows only shows a wrong width
  });

  it("lists a tensor that nothing asks for", async () => {
    const stray = "language_model.model.layers.99.self_attn.q_proj.weight";
    const { weights } = await bindSource(
      sourceOf(new Map([...(await shapesOf(folder)), [stray, [1, 1]]])),
      await configOf(folder),
    );
    expect(weights.leftovers()).toEqual([stray]);
  });
});

describe.each(OFFICIAL.filter(({ name }) => name.startsWith("vicuna")))(
  "$name as converted",
  ({ name, width, total }) => {
    const folder = new HeaderOnlyFolder(name);

    /** The rows are the file's, whatever the config says. */
    async function converted(): Promise<ByteSource> {
      const shapes = await shapesOf(folder);
      for (const table of VOCABULARY_TABLES) {
        expect(shapes.get(table)).toEqual([UPGRADED_ROWS, width]);
        shapes.set(table, [CONVERTED_ROWS, width]);
      }
      return sourceOf(shapes);
    }

    it("is bound too, with the parameters it was published with", async () => {
      const { weights, model } = await bindSource(await converted(), await configOf(folder));
      expect(weights.leftovers()).toEqual([]);
      const bound = parts([...weights.parameters].map(([key, { shape }]) => [key, shape]));
      expect(Object.values(bound).reduce(sum)).toBe(total);
      expect(model.language_model.vocabulary).toBe(CONVERTED_ROWS);
    });

    it("is refused when its config has an image token beyond the embedding", async () => {
      const file = await converted();
      const single: Folder = {
        name,
        has: async (wanted) => ["config.json", "model.safetensors"].includes(wanted),
        text: (wanted) => folder.text(wanted),
        open: async () => file,
      };
      const { device } = openLedgerDevice(BINDING);
      const loading = InstructBlipForConditionalGeneration.from_pretrained(single, { device });
      await expect(loading).rejects.toMatchObject({ code: "VOCAB_MISMATCH" });
    });
  },
);

describe.each(["flan-t5-xl", "flan-t5-xxl"])("%s of another writer", (name) => {
  const folder = new HeaderOnlyFolder(name);
  const SHARED = "language_model.shared.weight";
  const ALIASES = ["language_model.encoder.embed_tokens.weight", "language_model.decoder.embed_tokens.weight"];

  it.each(ALIASES)("may keep the embedding as %s", async (alias) => {
    const shapes = await shapesOf(folder);
    const renamed = new Map([...shapes].map(([key, shape]) => [key === SHARED ? alias : key, shape]));
    const { weights, model } = await bindSource(sourceOf(renamed), await configOf(folder));
    expect(weights.leftovers()).toEqual([]);
    expect(weights.parameters.size).toBe(shapes.size);
    expect(model.language_model.num_embeddings).toBe(32128);
  });

  it("may keep all three names, as a state dict does; the encoder's is not needed", async () => {
    const shapes = await shapesOf(folder);
    for (const alias of ALIASES) shapes.set(alias, shapes.get(SHARED)!);
    expect(shapes.size).toBe(1365);
    const { weights } = await bindSource(sourceOf(shapes), await configOf(folder));
    expect(weights.leftovers()).toEqual([ALIASES[0]]);
  });

  it("may lack the head, which then is the embedding", async () => {
    const shapes = await shapesOf(folder);
    expect(shapes.delete("language_model.lm_head.weight")).toBe(true);
    const { weights, model } = await bindSource(sourceOf(shapes), await configOf(folder));
    expect(weights.leftovers()).toEqual([]);
    expect(weights.parameters.has("language_model.lm_head.weight")).toBe(false);
    expect(model.language_model.vocabulary).toBe(32128);
  });
});
