/**
 * Saving and loading: config.json and weights bit by bit, for every dtype, width, sharding and naming. That transformers
 * loads it too is `npm run parity` (test/golden/make.py, saved).
 */
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  AutoModelForImageTextToText,
  AutoProcessor,
  Checkpoint,
  type Device,
  InstructBlipForConditionalGeneration,
  InstructBlipProcessor,
} from "../../../src/index.node.ts";
import { Blip2Config } from "../../../src/instructblip/config/blip_2.ts";
import { InstructBlipConfig } from "../../../src/instructblip/config/instructblip.ts";
import { InstructBlipVideoConfig } from "../../../src/instructblip/config/instructblip_video.ts";
import { jsonText } from "../../../src/instructblip/config/json_file.ts";
import type { LlamaForCausalLM } from "../../../src/instructblip/model/llama.ts";
import { Weights } from "../../../src/modules/weights.ts";
import { writeCheckpoint } from "../../../src/tensor/files/checkpoint_writer.ts";
import type { WritableFolder } from "../../../src/tensor/files/file_set.ts";
import { serializeSafetensors, type TensorEntry } from "../../../src/tensor/files/safetensors_writer.ts";
import { openCheckpoint } from "../../../src/tensor/files/source.node.ts";
import { MemorySink, MemorySource } from "../../../src/tensor/files/source.ts";
import { Weight } from "../../../src/tensor/weight.ts";
import { otherDevice, testDevice } from "../../device.ts";
import { goldenFolder } from "../../golden_folder.ts";

const GOLDENS = [
  ...["plain_f32", "odd_widths", "grouped_heads_bf16", "opt_post_norm_f16", "t5_plain_tied_bf16", "t5_odd_f16"],
  ...["blip2_t5_f16", "video_4_frames", "legacy_blip2_opt"],
].map((name) => [name, goldenFolder(name)]);
/** Names that transformers drops or changes as well. */
const T5_TABLE = /^language_model\.(encoder|decoder)\.embed_tokens\.weight$/;

let device: Device;
let root: string;
beforeAll(async () => {
  device = await testDevice();
  root = await mkdtemp(join(tmpdir(), "save-"));
});
afterAll(() => rm(root, { recursive: true }));

async function contents(path: string): Promise<Map<string, string>> {
  const checkpoint = await openCheckpoint(path);
  const found = new Map<string, string>();
  for (const { name, dtype, shape } of checkpoint.tensors.values()) {
    const bytes = Buffer.from(await checkpoint.read(name)).toString("base64");
    found.set(name.replace(T5_TABLE, "language_model.shared.weight"), `${dtype} [${shape}] ${bytes}`);
  }
  await checkpoint.close();
  return found;
}

async function save(
  from: string,
  to: string,
  options?: Parameters<InstructBlipForConditionalGeneration["save_pretrained"]>[1],
) {
  const model = await AutoModelForImageTextToText.from_pretrained(from, { device });
  await model.save_pretrained(to, options);
  return model;
}

describe.each(GOLDENS)("%s", (name, from) => {
  test("comes back bit by bit, and so does what was saved of that", async () => {
    const [first, second] = [join(root, name), join(root, `${name}_again`)];
    const model = await save(from, first);
    expect(await contents(first)).toEqual(await contents(from));
    (await save(first, second)).dispose();
    for (const file of ["config.json", "model.safetensors"]) {
      expect((await readFile(join(second, file))).equals(await readFile(join(first, file)))).toBe(true);
    }
    const again = await AutoModelForImageTextToText.from_pretrained(first, { device });
    expect(again.config).toEqual(model.config);
    expect(again.warnings).toEqual([]);
    again.dispose();
    model.dispose();
  });
});

test("what transformers 5 wrote is written byte for byte", async () => {
  for (const from of [
    ...["plain_f32", "t5_flan", "opt_plain", "odd_widths", "blip2_opt", "blip2_llama_wide", "video_3_frames_t5"].map(
      goldenFolder,
    ),
  ]) {
    const to = join(root, `bytes_${basename(from)}`);
    (await save(from, to)).dispose();
    await (await AutoProcessor.from_pretrained(from)).save_pretrained(to);
    // The video goldens' processors are not transformers' own: that class needs torchvision.
    const files = from.includes("video") ? [] : ["processor_config.json", "tokenizer_config.json"];
    for (const file of ["config.json", "model.safetensors", ...files]) {
      const [ours, theirs] = [await readFile(join(to, file)), await readFile(join(from, file))];
      expect(ours.equals(theirs), `${from}/${file}`).toBe(true);
    }
  }
});

describe("parts by themselves", () => {
  test.each([
    [InstructBlipConfig, "instructblip_vision_model", "instructblip_qformer"],
    [Blip2Config, "blip_2_vision_model", "blip_2_qformer"],
    [InstructBlipVideoConfig, "instructblipvideo_vision_model", "instructblipvideo_qformer"],
  ] as const)("a config", async (Config, vision, qformer) => {
    const to = join(root, Config.model_type);
    const text_config = { model_type: "t5", feed_forward_proj: "gated-gelu", task_specific_params: { a: 1 } };
    const config = new Config({ text_config, num_query_tokens: 7, note: "kept" });
    await config.save_pretrained(to);
    const text = await readFile(join(to, "config.json"), "utf8");
    expect(Config.parse<object>(text)).toEqual(config);
    const written = JSON.parse(text);
    expect(written).toMatchObject({
      num_query_tokens: 7,
      note: "kept",
      use_decoder_only_language_model: false,
      vision_config: { model_type: vision, hidden_size: 1408 },
      qformer_config: { model_type: qformer, encoder_hidden_size: 1408 },
      text_config: { model_type: "t5", d_ff: 2048, task_specific_params: { a: 1 } },
    });
    expect(written).not.toHaveProperty("modality");
    expect(written.text_config).not.toHaveProperty("dense_act_fn"); // null to us, and to HF the end of a fallback
    expect(text).toContain('"initializer_factor": 1.0,');
  });

  test("an image processor, and a tokenizer", async () => {
    const to = join(root, "parts");
    const processor = await InstructBlipProcessor.from_pretrained(goldenFolder("t5_plain_tied_bf16"));
    await processor.image_processor.save_pretrained(to);
    await processor.tokenizer.save_pretrained(to);
    await processor.qformer_tokenizer.save_pretrained(to, { subfolder: "qformer_tokenizer" });
    const pixels = JSON.parse(await readFile(join(to, "preprocessor_config.json"), "utf8"));
    const { processor_class: _, ...original } = JSON.parse(
      await readFile(join(goldenFolder("t5_plain_tied_bf16"), "preprocessor_config.json"), "utf8"),
    );
    expect(pixels).toEqual(original);
    await writeFile(join(to, "processor_config.json"), '{ "num_query_tokens": 4 }');
    const again = await InstructBlipProcessor.from_pretrained(to);
    const input = { text: "a dog", images: { width: 2, height: 2, data: new Uint8Array(12) } };
    expect(await again(input)).toEqual(await processor(input));
  });
});

test.each(["t5_plain_tied_bf16", "t5_odd_f16", "t5_flan"])("%s's table is written once, as shared", async (name) => {
  const to = join(root, `table_${name}`);
  (await save(goldenFolder(name), to)).dispose();
  const checkpoint = await openCheckpoint(to);
  const tables = [...checkpoint.tensors.keys()].filter((key) => /shared|embed_tokens/.test(key));
  await checkpoint.close();
  expect(tables).toEqual(["language_model.shared.weight"]);
});

test("a dtype chosen on loading is the dtype of the matrices", async () => {
  const to = join(root, "narrowed");
  const model = await InstructBlipForConditionalGeneration.from_pretrained(goldenFolder("plain_f32"), {
    device,
    dtype: "bf16",
  });
  await model.save_pretrained(to);
  expect(JSON.parse(await readFile(join(to, "config.json"), "utf8")).dtype).toBe("bfloat16");
  const checkpoint = await openCheckpoint(to);
  const dtypeOf = (name: string) => checkpoint.tensors.get(name)?.dtype;
  expect(dtypeOf("language_model.lm_head.weight")).toBe("bf16");
  expect(dtypeOf("vision_model.embeddings.patch_embedding.weight")).toBe("bf16");
  expect(dtypeOf("language_model.model.norm.weight")).toBe("f32"); // nothing is lost that was not asked for
  expect(dtypeOf("query_tokens")).toBe("f32");
  await checkpoint.close();
  model.dispose();
});

test("weights that a device had to split are joined", async () => {
  const small = await otherDevice({ max_binding: 8192 });
  const to = join(root, "split");
  const model = await InstructBlipForConditionalGeneration.from_pretrained(goldenFolder("odd_widths"), {
    device: small,
  });
  expect((model.language_model as LlamaForCausalLM).lm_head.weight.shards.length).toBeGreaterThan(1);
  await model.save_pretrained(to);
  expect(await contents(to)).toEqual(await contents(goldenFolder("odd_widths")));
  model.dispose();
  small.destroy();
});

describe("shards", () => {
  test("are filled in order, and their index says what is where", async () => {
    const to = join(root, "shards");
    const seen: string[] = [];
    const model = await save(goldenFolder("plain_f32"), to, {
      max_shard_size: "60KB",
      on_progress: ({ name, savedTensors, totalTensors }) => seen.push(`${savedTensors}/${totalTensors} ${name}`),
    });
    const files = (await readdir(to)).filter((file) => file.endsWith(".safetensors"));
    expect(files.length).toBeGreaterThan(3);
    for (const file of files) expect((await stat(join(to, file))).size).toBeLessThan(60_000 + 20_000); // its header
    expect(await contents(to)).toEqual(await contents(goldenFolder("plain_f32")));
    const index = JSON.parse(await readFile(join(to, "model.safetensors.index.json"), "utf8"));
    expect(Object.keys(index.weight_map)).toHaveLength(seen.length);
    expect(index.metadata.total_size).toBe(4 * index.metadata.total_parameters);
    expect(seen.at(-1)).toMatch(`${seen.length}/${seen.length} `);

    // A whole save takes the place of the shards, and shards that of the whole.
    await model.save_pretrained(to);
    expect((await readdir(to)).sort()).toEqual(["config.json", "model.safetensors"]);
    await model.save_pretrained(to, { max_shard_size: 200_000 });
    expect(await readdir(to)).not.toContain("model.safetensors");
    expect(await contents(to)).toEqual(await contents(goldenFolder("plain_f32")));
    model.dispose();
  });

  /** The files of a checkpoint of f32 tensors of these sizes. */
  async function shardsOf(sizes: number[], max_shard_size: number | string): Promise<string[][]> {
    const files = new Map<string, Uint8Array>();
    const folder: WritableFolder = {
      name: "memory",
      list: async () => [...files.keys()],
      delete: async (file) => void files.delete(file),
      writeText: async (file, text) => void files.set(file, new TextEncoder().encode(text)),
      write: async (file, fill) => {
        const sink = new MemorySink();
        await fill(sink);
        files.set(file, sink.bytes());
      },
    };
    const tensors = sizes.map(
      (n, i): TensorEntry => ({ name: `t${i}`, dtype: "u8", shape: [n], data: new Uint8Array(n) }),
    );
    const names = await writeCheckpoint(folder, tensors, { max_shard_size });
    return Promise.all(
      names.map(async (name) => [...(await Checkpoint.open(new MemorySource(name, files.get(name)!))).tensors.keys()]),
    );
  }

  // As huggingface_hub divides: a tensor larger than a shard has one to itself and does not close the one begun.
  test.each<[number[], number | string, string[][]]>([
    [[5, 5, 5], 10, [["t0", "t1"], ["t2"]]],
    [[5, 11, 5], 10, [["t1"], ["t0", "t2"]]],
    [[11], 10, [["t0"]]],
    [[5, 6, 4, 10], 10, [["t0"], ["t1", "t2"], ["t3"]]],
    [[500, 600], "1KB", [["t0"], ["t1"]]],
    [[500, 600], "1.1kb", [["t0", "t1"]]],
    [[], 10, [[]]],
  ])("%j of at most %s bytes", async (sizes, most, expected) => {
    expect(await shardsOf(sizes, most)).toEqual(expected);
  });

  test.each([0, -1, Number.NaN, "", "GB", "5 apples", "5GiB"])("max_shard_size %s is refused", async (size) => {
    await expect(shardsOf([1], size)).rejects.toMatchObject({ code: "SHARD_SIZE" });
  });
});

describe("what it refuses", () => {
  test("a file where a folder should be", async () => {
    const file = join(root, "file");
    await writeFile(file, "x");
    const model = await InstructBlipForConditionalGeneration.from_pretrained(goldenFolder("plain_f32"), { device });
    await expect(model.save_pretrained(file)).rejects.toMatchObject({ code: "NOT_A_FOLDER" });
    await expect(model.save_pretrained(join(file, "below"))).rejects.toMatchObject({ code: "IO" });
    model.dispose();
  });

  test("to go on when stopped; nothing half is left", async () => {
    const to = join(root, "stopped");
    const model = await InstructBlipForConditionalGeneration.from_pretrained(goldenFolder("plain_f32"), { device });
    const stop = new AbortController();
    const on_progress = () => stop.abort(new Error("enough"));
    await expect(model.save_pretrained(to, { signal: stop.signal, on_progress })).rejects.toThrow("enough");
    expect(await readdir(to)).toEqual([]);
    await model.save_pretrained(to); // the device is free again
    expect(await readdir(to)).toContain("model.safetensors");
    model.dispose();
  });

  test("numbers that Hugging Face's format does not have", async () => {
    const bytes = await serializeSafetensors([{ name: "w", dtype: "f32", shape: [2, 4], data: new Float32Array(8) }]);
    const weights = Weights.open(await Checkpoint.open(new MemorySource("w.safetensors", bytes)), device);
    const weight = weights.matrix("w", [2, 4]);
    Object.defineProperty(weight, "dtype", { value: "int8" });
    expect(() => weights.stored()).toThrow(expect.objectContaining({ code: "QUANTIZED" }));
    weights.dispose();
  });
});

test("a weight is read in pieces as it was written", async () => {
  const data = Float32Array.from({ length: 7 * 5 }, (_, i) => i - 0.5);
  for (const dtype of ["f32", "f16", "bf16"] as const) {
    const weight = Weight.from(device, data, [7, 5], dtype);
    const pieces: Uint8Array[] = [];
    for await (const piece of weight.read(64)) pieces.push(piece.slice());
    expect(pieces.length).toBeGreaterThan(1);
    const whole: Uint8Array[] = [];
    for await (const piece of weight.read()) whole.push(piece);
    expect(whole).toHaveLength(1);
    expect(Buffer.concat(pieces).equals(whole[0])).toBe(true);
    const again = new Weight(device, [7, 5], dtype);
    again.write(0, whole[0], dtype);
    expect(await again.shards[0].bits.read()).toEqual(await weight.shards[0].bits.read());
    weight.dispose();
    again.dispose();
  }
});

test("JSON as Python writes it", () => {
  const value = {
    b: [],
    a: { rms_norm_eps: 1, n: 1 },
    image_mean: [0, 0.5],
    e: [1e-6, 1e-10, 0.0001, 1 / 255],
    none: null,
  };
  const text = `{
  "a": {
    "n": 1,
    "rms_norm_eps": 1.0
  },
  "b": [],
  "e": [
    1e-06,
    1e-10,
    0.0001,
    0.00392156862745098
  ],
  "image_mean": [
    0.0,
    0.5
  ],
  "none": null
}
`;
  expect(jsonText(value, { sorted: true })).toBe(text);
  expect(jsonText({ model_max_length: 1e30, dropout: 1e16 })).toBe(
    '{\n  "model_max_length": 1000000000000000019884624838656,\n  "dropout": 1e+16\n}\n',
  );
  expect(() => jsonText([Number.NaN])).toThrow("no number");
});
