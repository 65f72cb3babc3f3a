/** A tied table is found under any of its names in a file, as in transformers 5.18. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { AutoModelForImageTextToText, Checkpoint } from "../../../src/index.node.ts";
import { textFile, type WritableFolder } from "../../../src/tensor/files/file_set.ts";
import { serializeSafetensors, type TensorEntry } from "../../../src/tensor/files/safetensors_writer.ts";
import { MemorySink, MemorySource } from "../../../src/tensor/files/source.ts";
import type { Weight } from "../../../src/tensor/weight.ts";
import { testDevice } from "../../device.ts";
import { goldenFolder } from "../../golden_folder.ts";

const device = await testDevice();

/** A checkpoint in memory. */
function folderOf(files: ReadonlyMap<string, Uint8Array>) {
  return {
    name: "memory",
    has: async (file: string) => files.has(file),
    text: async (file: string) => new TextDecoder().decode(files.get(file)),
    open: async (file: string) => new MemorySource(file, files.get(file)!),
  };
}

/** The golden `name` with its tables as `kept` has them, a number added to each so that they differ, and its text_config changed. */
async function changed(name: string, kept: Readonly<Record<string, number>>, text: object = {}) {
  const bytes = await readFile(join(goldenFolder(name), "model.safetensors"));
  const checkpoint = await Checkpoint.open(new MemorySource("old", bytes));
  const isTable = (key: string) => /language_model\.(lm_head|shared|.*embed_tokens)\.weight$/.test(key);
  const entries: TensorEntry[] = [];
  let table: { shape: readonly number[]; numbers: Float32Array } | undefined;
  for (const { name: key, dtype, shape } of checkpoint.tensors.values()) {
    const data = await checkpoint.read(key);
    if (!isTable(key)) entries.push({ name: key, dtype: dtype as "f32", shape, data });
    else table = { shape, numbers: Float32Array.from({ length: shape[0] * shape[1] }, (_, i) => (i % 251) - 100) };
  }
  for (const [key, plus] of Object.entries(kept)) {
    const { shape, numbers } = table!;
    entries.push({ name: `language_model.${key}.weight`, dtype: "f32", shape, data: numbers.map((x) => x + plus) });
  }
  const config = JSON.parse(await readFile(join(goldenFolder(name), "config.json"), "utf8"));
  config.text_config = { ...config.text_config, ...text };
  return folderOf(
    new Map([
      ["model.safetensors", await serializeSafetensors(entries)],
      ["config.json", new TextEncoder().encode(JSON.stringify(config))],
    ]),
  );
}

/** What was added to the numbers of a table. */
async function plusOf(weight: Weight): Promise<number> {
  for await (const piece of weight.read()) return new Float32Array(piece.buffer, piece.byteOffset, 1)[0] + 100;
  return Number.NaN;
}

const [embed, shared, encoder, decoder] = ["embed_tokens", "shared", "encoder.embed_tokens", "decoder.embed_tokens"];
const opt = `model.${decoder}`;
const llama = `model.${embed}`;
const tied = { tie_word_embeddings: true };

// The first number is the embedding's, the second the head's: as transformers says of the same files.
test.each<[string, Record<string, number>, object, [number, number], string]>([
  ["opt_plain", { [opt]: 0 }, {}, [0, 0], opt],
  ["opt_plain", { lm_head: 1 }, {}, [1, 1], opt],
  ["opt_plain", { [opt]: 0, lm_head: 1 }, {}, [0, 1], opt],
  ["plain_f32", { [llama]: 0 }, tied, [0, 0], llama],
  ["plain_f32", { lm_head: 1 }, tied, [1, 1], llama],
  ["plain_f32", { [llama]: 0, lm_head: 1 }, tied, [0, 1], llama],
  ["t5_flan", { [shared]: 0 }, {}, [0, 0], shared],
  ["t5_flan", { lm_head: 1 }, {}, [1, 1], shared],
  ["t5_flan", { lm_head: 1, [encoder]: 2 }, {}, [2, 1], shared],
  ["t5_flan", { lm_head: 1, [decoder]: 3 }, {}, [3, 1], shared],
  ["t5_flan", { [shared]: 0, lm_head: 1 }, {}, [0, 1], shared],
])("%s with %j", async (name, kept, text, expected, first) => {
  const model = await AutoModelForImageTextToText.from_pretrained(await changed(name, kept, text), {
    device,
    compile: false,
  });
  const { language_model } = model as unknown as { language_model: Record<string, { weight: Weight }> };
  const embedding = language_model.shared ?? language_model.embed_tokens;
  expect([await plusOf(embedding.weight), await plusOf(language_model.lm_head.weight)]).toEqual(expected);
  const onlyHead = Object.keys(kept).join() === "lm_head";
  expect(model.warnings).toHaveLength(name === "t5_flan" && onlyHead ? 1 : 0); // Flan-T5's head is another table

  // Saved, it has the first of its names.
  const files = new Map<string, Uint8Array>();
  const to: WritableFolder = {
    name: "memory",
    list: async () => [...files.keys()],
    delete: async (file) => void files.delete(file),
    writeText: (file, value) => to.write(file, textFile(file, value).write),
    write: async (file, fill) => {
      const sink = new MemorySink();
      await fill(sink);
      files.set(file, sink.bytes());
    },
  };
  await model.save_pretrained(to);
  model.dispose();
  const saved = await Checkpoint.open(folderOf(files));
  expect(saved.tensors.has(`language_model.${first}.weight`)).toBe(true);
  const again = await AutoModelForImageTextToText.from_pretrained(folderOf(files), { device, compile: false });
  expect(again.warnings).toEqual([]);
  again.dispose();
});

test.each([
  ["opt_plain", { [opt]: 0 }],
  ["opt_plain", { lm_head: 0 }],
  ["plain_f32", { [llama]: 0 }],
  ["plain_f32", { lm_head: 0 }],
])("%s untied with %j alone is refused, where transformers draws random numbers", async (name, kept) => {
  const folder = await changed(name, kept, { tie_word_embeddings: false });
  await expect(AutoModelForImageTextToText.from_pretrained(folder, { device })).rejects.toMatchObject({
    code: "MISSING_TENSORS",
  });
});

test.each([{ lm_head: 0 }, { [decoder]: 0 }])("T5's %j of other rows than shared is refused", async (other) => {
  const folder = await changed("t5_flan", { [shared]: 0, ...other });
  const checkpoint = await Checkpoint.open(folder);
  const entries: TensorEntry[] = [];
  for (const { name, dtype, shape } of checkpoint.tensors.values()) {
    const data = await checkpoint.read(name);
    const cut = name === `language_model.${Object.keys(other)[0]}.weight`;
    const rows = cut ? [shape[0] - 1, shape[1]] : shape;
    entries.push({ name, dtype: dtype as "f32", shape: rows, data: cut ? data.subarray(shape[1] * 4) : data });
  }
  const files = new Map([
    ["model.safetensors", await serializeSafetensors(entries)],
    ["config.json", new TextEncoder().encode(await folder.text("config.json"))],
  ]);
  await expect(AutoModelForImageTextToText.from_pretrained(folderOf(files), { device })).rejects.toMatchObject({
    code: "SHAPE_EXPECTED",
  });
});
