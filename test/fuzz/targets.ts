/**
 * Fuzz targets: each generates cases (files and calls) from a seed, and runs them through the public API. A case is plain
 * data, so that it can be saved and run again.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gunzipSync } from "node:zlib";
import sharp from "sharp";
import {
  AutoConfig,
  AutoModelForImageTextToText,
  AutoProcessor,
  Blip2ForConditionalGeneration,
  InstructBlipForConditionalGeneration,
  InstructBlipVideoForConditionalGeneration,
  ModelFolder,
} from "../../src/index.node.ts";
import { parseLine, splitLines } from "../../src/instructblip/cli/requests/requests.ts";
import { openArrow } from "../../src/instructblip/data/arrow.ts";
import { openDataSet } from "../../src/instructblip/data/data_set.node.ts";
import { openJsonArray } from "../../src/instructblip/data/json_array.ts";
import { openParquet } from "../../src/instructblip/data/parquet.ts";
import { EmbeddedImage } from "../../src/instructblip/data/row.ts";
import { openTar } from "../../src/instructblip/data/tar.ts";
import { parseQuestion, parseTask } from "../../src/instructblip/evaluation/task.ts";
import { decodingConfig } from "../../src/instructblip/generation/configuration.ts";
import { type GenerationOptions, refuseUnknownOptions } from "../../src/instructblip/generation/options.ts";
import { readRankOptions } from "../../src/instructblip/generation/ranking.ts";
import { weightsOf } from "../../src/instructblip/pretrained/checkpoint/open_weights.ts";
import { readImage } from "../../src/instructblip/pretrained/platform.ts";
import { BlipImageProcessor } from "../../src/instructblip/processing/image_processor.ts";
import { Tokenizer } from "../../src/instructblip/tokenizer/tokenizer.ts";
import { Weights } from "../../src/modules/weights.ts";
import { optionsOf } from "../../src/tensor/arguments.ts";
import { DTYPES } from "../../src/tensor/dtype.ts";
import { Checkpoint } from "../../src/tensor/files/checkpoint.ts";
import { SafetensorsFile } from "../../src/tensor/files/safetensors.ts";
import { checkFileName, type Folder, MemorySource, readText } from "../../src/tensor/files/source.ts";
import { COMPOSITES, committedFolder, goldenFolder, SIBLINGS } from "../golden_folder.ts";
import { dataFiles } from "../instructblip/data/data_sets.ts";
import { tokenizerFiles } from "../instructblip/processing/processor_golden.ts";
import { openLedgerDevice } from "../official/ledger_device.ts";
import type { Random } from "../random.ts";
import { build, entry } from "../tensor/files/corpus/files.ts";
import { dictPickle, pytorchZip, tensorPickle } from "../tensor/files/pytorch_file.ts";
import {
  chance,
  damagedJson,
  type Json,
  jsonOf,
  mutateBytes,
  mutateJson,
  odd,
  oddOption,
  oddText,
  pick,
  realised,
} from "./mutate.ts";
import { isTyped, type Target, type TargetName } from "./target.ts";

type Files = Record<string, Uint8Array>;
type Documents = Record<string, Json>;

const utf8 = new TextEncoder();

/** A folder in memory, as strict about names as those on a disk. */
function folderOf(files: Readonly<Files>): Folder {
  const open = async (name: string) => {
    checkFileName(name);
    return new MemorySource(name, files[name]);
  };
  return {
    name: "folder",
    has: async (name) => {
      checkFileName(name);
      return Object.hasOwn(files, name);
    },
    text: async (name, maxBytes) => readText(await open(name), maxBytes),
    open,
  };
}

/** Folders of goldens, with the names of their files. */
function goldenFolders(): string[] {
  return [...COMPOSITES, ...SIBLINGS].map(goldenFolder);
}

/** The JSON files of a folder and of qformer_tokenizer/ in it. */
function documentsOf(folder: string, wanted: RegExp): Documents {
  const names = readdirSync(folder, { recursive: true, encoding: "utf8" }).filter((name) => wanted.test(name));
  return Object.fromEntries(names.map((name) => [name, JSON.parse(readFileSync(join(folder, name), "utf8")) as Json]));
}

const PROCESSOR_FILES =
  /^(config|processor_config|preprocessor_config|generation_config|((qformer_tokenizer\/)?(tokenizer|tokenizer_config|special_tokens_map)))\.json$/;

/** One or two of the documents damaged, the others as they are. */
function damagedFiles(random: Random, documents: Documents, alike?: (random: Random) => Json): Files {
  const names = Object.keys(documents);
  const damaged = new Set([pick(random, names), ...(chance(random, 0.3) ? [pick(random, names)] : [])]);
  return Object.fromEntries(
    names
      .filter((name) => !(damaged.has(name) && chance(random, 0.02))) // gone
      .map((name) => [
        name,
        damaged.has(name) ? damagedJson(random, documents[name], alike) : utf8.encode(JSON.stringify(documents[name])),
      ]),
  );
}

// --- checkpoints -----------------------------------------------------------------------------------------------------------

const HEADER: Documents = {
  __metadata__: { format: "pt" },
  "a.weight": { dtype: "F32", shape: [2, 3], data_offsets: [0, 24] },
  "a.bias": { dtype: "F16", shape: [3], data_offsets: [24, 30] },
  empty: { dtype: "U8", shape: [0], data_offsets: [30, 30] },
  scalar: { dtype: "BF16", shape: [], data_offsets: [30, 32] },
};

const headers: Target = {
  prepare: async () => ({
    make(random) {
      const file = build(damagedJson(random, HEADER), 32);
      return {
        files: { "model.safetensors": chance(random, 0.3) ? mutateBytes(random, file) : file },
        input: random.int(1, 64),
      };
    },
    async run({ files, input }) {
      const file = await SafetensorsFile.open(new MemorySource("model.safetensors", files["model.safetensors"]));
      const checkpoint = await Checkpoint.open(folderOf(files));
      for (const name of checkpoint.tensors.keys()) {
        await file.read(name);
        await file.read(name, [0, 1]).catch(ignoreTyped);
      }
      const chunkBytes = 8 * (input as number);
      for await (const { bytes } of checkpoint.stream(checkpoint.tensors.keys(), { chunkBytes })) bytes.fill(0);
      return checkpoint.warnings;
    },
  }),
};

const pickles: Target = {
  prepare: async () => {
    const golden = readFileSync(new URL("../golden/pytorch/data/files.json.gz", import.meta.url));
    const index = JSON.parse(gunzipSync(golden).toString()) as Record<string, Record<string, { data: string }>>;
    const files = [index.files, index.refused]
      .flatMap((part) => Object.values(part))
      .map(({ data }) => Buffer.from(data, "base64"));
    const view = { dtype: "f32", shape: [2, 3], storage: "0" } as const;
    const numel = 8;
    const storage = new Uint8Array(4 * numel);
    const tensors = {
      a: tensorPickle(view, numel),
      t: tensorPickle({ ...view, strides: [1, 2], offset: 1 }, numel),
      empty: tensorPickle({ ...view, shape: [0] }, numel),
    };
    return {
      make(random) {
        // Half of the cases are damaged where only a pickle's reader sees it.
        const pickle = () => mutateBytes(random, dictPickle(tensors));
        const bytes = chance(random, 0.5)
          ? pytorchZip(pickle(), { 0: storage }, { wide: chance(random, 0.2), narrow: chance(random, 0.2) })
          : mutateBytes(random, pick(random, files));
        return { files: { "pytorch_model.bin": bytes }, input: random.int(1, 64) };
      },
      async run({ files, input }) {
        const checkpoint = await Checkpoint.open(folderOf(files));
        // An expanded tensor is larger than its file.
        const small = [...checkpoint.tensors.values()].filter(({ begin, end }) => end - begin < 2 ** 20);
        for (const { name } of small) await checkpoint.read(name).catch(ignoreTyped);
        const names = small.filter(({ dtype }) => dtype in DTYPES).map(({ name }) => name);
        for await (const { bytes } of checkpoint.stream(names, { chunkBytes: 8 * (input as number) })) bytes.fill(0);
        await checkpoint.close();
        return checkpoint.warnings;
      },
    };
  },
};

const adapters: Target = {
  prepare: async () => {
    const golden = fileURLToPath(new URL("../golden/adapters/data/", import.meta.url));
    const names = ["plain", "patterns", "rslora", "everything"];
    const read = (folder: string, file: string) => readFileSync(join(golden, folder, file));
    const base = folderOf({
      "config.json": read("base", "config.json"),
      "model.safetensors": read("base", "model.safetensors"),
    });
    return {
      make(random) {
        const name = pick(random, names);
        const [config, weights] = [read(name, "adapter_config.json"), read(name, "adapter_model.safetensors")];
        const isConfig = chance(random, 0.6);
        const files: Files = {
          "adapter_config.json": isConfig ? damagedJson(random, JSON.parse(config.toString()) as Json) : config,
          "adapter_model.safetensors": isConfig ? weights : mutateBytes(random, weights),
        };
        return { files, input: null };
      },
      async run({ files }) {
        const checkpoint = await weightsOf(await ModelFolder.open(base, { adapter: folderOf(files) }));
        for await (const { bytes } of checkpoint.stream(checkpoint.tensors.keys(), { reads: 2 })) bytes.fill(0);
        await checkpoint.close();
        return checkpoint.warnings;
      },
    };
  },
};

const bitsandbytes: Target = {
  prepare: async () => {
    const golden = fileURLToPath(new URL("../golden/bitsandbytes/data/", import.meta.url));
    const read = (name: string, file: string) => readFileSync(join(golden, name, file));
    const checkpoints = ["int8", "nf4", "nf4_nested", "fp4"].map((name) => {
      const bytes = read(name, "model.safetensors");
      const end = 8 + Number(bytes.readBigUInt64LE());
      const header = JSON.parse(bytes.toString("utf8", 8, end)) as Record<string, { data_offsets: [number, number] }>;
      const states = Object.entries(header).filter(([key]) => key.includes("quant_state"));
      return { config: read(name, "config.json"), bytes, end, header, states };
    });
    /** One matrix's state damaged, and as many bytes as it has then. */
    const stateDamaged = (random: Random, { bytes, end, header, states }: (typeof checkpoints)[number]) => {
      const [key, info] = pick(random, states);
      const [from, to] = info.data_offsets;
      const state = damagedJson(random, JSON.parse(bytes.toString("utf8", end + from, end + to)) as Json);
      const data_offsets = [bytes.length - end, bytes.length - end + state.length];
      const { __metadata__: _, ...tensors } = {
        ...header,
        [key]: { dtype: "U8", shape: [state.length], data_offsets },
      };
      // What is in its old place is a tensor of its own, as no byte may be of none.
      const old = { dtype: "U8", shape: [to - from], data_offsets: [from, to] };
      return Buffer.concat([build(JSON.stringify({ ...tensors, old }), 0), bytes.subarray(end), state]);
    };
    return {
      make(random) {
        const of = pick(random, checkpoints);
        const { config, bytes, end, header } = of;
        const kind = random.int(0, of.states.length ? 3 : 2);
        const damagedHeader = () =>
          Buffer.concat([build(jsonOf(mutateJson(random, structuredClone(header) as Json)), 0), bytes.subarray(end)]);
        const file = [() => mutateBytes(random, bytes), damagedHeader, () => stateDamaged(random, of)][kind]!();
        return { files: { "config.json": config, "model.safetensors": file }, input: random.int(1, 64) };
      },
      async run({ files, input }) {
        const checkpoint = await weightsOf(await ModelFolder.open(folderOf(files)));
        const names = [...checkpoint.tensors.values()].filter(({ dtype }) => dtype in DTYPES).map(({ name }) => name);
        for await (const { bytes } of checkpoint.stream(names, { chunkBytes: 8 * (input as number) })) bytes.fill(0);
        await checkpoint.close();
        return checkpoint.warnings;
      },
    };
  },
};

/** A refusal that is one of many answers of a case. */
function ignoreTyped(error: unknown): void {
  if (!isTyped(error)) throw error;
}

const indexes: Target = {
  prepare: async () => {
    const shard = (...names: string[]) =>
      build(`{${names.map((name, i) => entry(name, "U8", [1], [i, i + 1])).join()}}`, names.length);
    const shards = {
      "one.safetensors": shard("a"),
      "two.safetensors": shard("b", "c"),
      "sub/three.safetensors": shard("d"),
    };
    const map = { a: "one.safetensors", b: "two.safetensors", c: "two.safetensors", d: "sub/three.safetensors" };
    const names = [
      ...Object.keys(shards),
      "../one.safetensors",
      "/etc/passwd",
      "sub\\x",
      "C:x",
      "x\0",
      "sub//x",
      ".",
      "model.safetensors.index.json",
    ];
    const alike = (random: Random) => (chance(random, 0.7) ? pick(random, names) : odd(random));
    return {
      make(random) {
        const index = damagedJson(random, { metadata: { total_size: 4 }, weight_map: map }, alike);
        const files: Files = { ...shards, "model.safetensors.index.json": index };
        if (chance(random, 0.2)) {
          const name = pick(random, Object.keys(shards));
          files[name] = mutateBytes(random, files[name]);
        }
        return { files, input: null };
      },
      async run({ files }) {
        const checkpoint = await Checkpoint.open(folderOf(files));
        for (const name of checkpoint.tensors.keys()) await checkpoint.read(name);
        await checkpoint.close();
        return checkpoint.warnings;
      },
    };
  },
};

const weights: Target = {
  prepare: async () => {
    const folders = goldenFolders()
      .map((folder) => ({ folder, documents: documentsOf(folder, /^config\.json$/) }))
      .filter(({ folder }) => readdirSync(folder).includes("model.safetensors"))
      .map(({ folder, documents }) => {
        const bytes = readFileSync(join(folder, "model.safetensors"));
        const end = 8 + Number(bytes.readBigUInt64LE());
        const header = JSON.parse(bytes.toString("utf8", 8, end)) as Json;
        return { documents, header, data: bytes.length - end };
      });
    return {
      make(random) {
        const { documents, header, data } = pick(random, folders);
        const damaged = chance(random, 0.3) ? mutateJson(random, structuredClone(header)) : header;
        return {
          files: { "config.json": damagedJson(random, documents["config.json"]), header: utf8.encode(jsonOf(damaged)) },
          input: { data, dtype: pick(random, ["auto", "f32", "f16", "int8", "int4"]) },
        };
      },
      async run({ files, input }) {
        const { data, dtype } = input as { data: number; dtype: "auto" };
        const config = AutoConfig.parse(await folderOf(files).text("config.json"));
        const checkpoint = await Checkpoint.open(new MemorySource("model.safetensors", fileOf(files.header, data)));
        const ledger = openLedgerDevice(2 ** 30);
        const weights = Weights.open(checkpoint, ledger.device, dtype);
        const Model = MODELS.find(({ config_class }) => config instanceof config_class)!;
        let refusal: unknown;
        try {
          new (Model as unknown as new (w: Weights, c: unknown) => unknown)(weights, config);
          weights.leftovers();
        } catch (error) {
          refusal = error;
        }
        weights.dispose();
        const { live } = ledger.device.memory.use;
        if (live !== 0) throw new Error(`${live} bytes stay allocated`, { cause: refusal });
        if (refusal) throw refusal;
        return checkpoint.warnings;
      },
    };
  },
};

const MODELS = [
  InstructBlipForConditionalGeneration,
  Blip2ForConditionalGeneration,
  InstructBlipVideoForConditionalGeneration,
] as const;

/** A file with this header and so many bytes of zeros. */
function fileOf(header: Uint8Array, data: number): Uint8Array {
  const file = new Uint8Array(8 + header.length + data);
  new DataView(file.buffer).setBigUint64(0, BigInt(header.length), true);
  file.set(header, 8);
  return file;
}

// --- JSON files ------------------------------------------------------------------------------------------------------------

const configs: Target = {
  prepare: async () => {
    const documents = goldenFolders().map((folder) => documentsOf(folder, /^config\.json$/)["config.json"]);
    const values = [
      "llama",
      "opt",
      "t5",
      "gelu",
      "silu",
      "bfloat16",
      "float16",
      "instructblip",
      "blip-2",
      224,
      14,
      32000,
      64,
    ];
    const alike = (random: Random): Json => (chance(random, 0.5) ? pick(random, values) : odd(random));
    return {
      make: (random) => ({
        files: { "config.json": damagedJson(random, pick(random, documents), alike) },
        input: null,
      }),
      async run({ files }) {
        const config = AutoConfig.parse(await folderOf(files).text("config.json", 2 ** 20));
        JSON.stringify(config);
        return [];
      },
    };
  },
};

const jsons: Target = {
  prepare: async () => {
    const folders = goldenFolders().map((folder) => documentsOf(folder, PROCESSOR_FILES));
    return {
      make: (random) => ({
        files: damagedFiles(random, pick(random, folders)),
        input: { text: oddText(random), exact: chance(random, 0.5) },
      }),
      async run({ files, input }) {
        const { text, exact } = input as { text: string; exact: boolean };
        const processor = await AutoProcessor.from_pretrained(folderOf(files));
        const pixels = { width: 2, height: 2, data: new Uint8Array(12) };
        const frames = processor.processor_class === "InstructBlipVideoProcessor" ? [pixels, pixels] : pixels;
        const options = exact ? { size: 4 } : {};
        const made = await processor({ images: frames, text: [text], ...options } as never);
        processor.batch_decode((made as { input_ids: number[][] }).input_ids);
        return [];
      },
    };
  },
};

const generation: Target = {
  prepare: async () => {
    const documents = goldenFolders().map(
      (folder) => documentsOf(folder, /^generation_config\.json$/)["generation_config.json"],
    );
    return {
      make: (random) => ({
        files: {},
        input: { options: mutateOptions(random, pick(random, documents.filter(Boolean))), setting: random.int(0, 3) },
      }),
      async run({ input }) {
        const { options, setting } = input as { options: Json; setting: number };
        const given = optionsOf("generate", [realised(options)]);
        return decodingConfig(given as GenerationOptions, SETTINGS[setting]).warnings;
      },
    };
  },
};

const SETTINGS = [
  { promptLength: 40, vocabulary: 700, max_position_embeddings: 2048, eos_token_id: 2, pad_token_id: 0 },
  { promptLength: 1, vocabulary: 32128, eos_token_id: [1, 2], pad_token_id: null, decoder_start_token_id: 0 },
  {
    promptLength: 0,
    embeddedLength: 41,
    vocabulary: 50,
    max_position_embeddings: 64,
    eos_token_id: null,
    pad_token_id: null,
  },
];

const GENERATION_NAMES =
  `max_new_tokens max_length min_length min_new_tokens max_time stop_strings eos_token_id pad_token_id
  bos_token_id do_sample num_beams num_return_sequences early_stopping length_penalty beam_rules penalize_prompt seed guidance_scale negative_prompt_ids
  sequence_bias repetition_penalty no_repeat_ngram_size bad_words_ids prefix_allowed_tokens_fn forced_bos_token_id
  forced_eos_token_id exponential_decay_length_penalty suppress_tokens begin_suppress_tokens logits_processor
  stopping_criteria watermarking_config temperature top_h top_k top_p min_p typical_p epsilon_cutoff eta_cutoff
  return_dict_in_generate output_scores num_beam_groups generation_config cache_implementation`.split(/\s+/);

/** Options with odd values, and names nobody knows. */
function mutateOptions(random: Random, base: Json): Json {
  const options = { ...(base as Record<string, Json>) };
  for (let n = random.int(1, 5); n > 0; n--) {
    const name = chance(random, 0.9)
      ? pick(random, GENERATION_NAMES)
      : String(pick(random, ["", "max_tokens", "a".repeat(100_000), "\u202e\u009b", "num_beems"]));
    const value = chance(random, 0.3)
      ? pick<Json>(random, [{ keys: [1], ngram_len: 5 }, [[1], [2, 3]], [[[1], 0.5]], ["a", "b"], { bias: 2 }])
      : oddOption(random);
    Object.defineProperty(options, name, {
      value: chance(random, 0.3) ? mutateJson(random, structuredClone(value)) : value,
      enumerable: true,
      configurable: true,
      writable: true,
    });
  }
  return options;
}

// --- tokenizers ------------------------------------------------------------------------------------------------------------

const STEPS: readonly Json[] = [
  { type: "NFC" },
  { type: "NFKD" },
  { type: "Lowercase" },
  { type: "BertNormalizer" },
  { type: "Strip", strip_left: true, strip_right: true },
  { type: "Prepend", prepend: "▁" },
  { type: "Replace", pattern: { String: " " }, content: "▁" },
  { type: "Replace", pattern: { String: "a" }, content: "aa" },
  { type: "Replace", pattern: { Regex: " {2,}" }, content: " " },
  { type: "BertPreTokenizer" },
  { type: "WhitespaceSplit" },
  { type: "Metaspace", replacement: "▁", prepend_scheme: "always" },
  { type: "Metaspace", replacement: " ", prepend_scheme: "first", split: true },
  { type: "ByteLevel" },
  { type: "ByteLevel", use_regex: false, add_prefix_space: true },
  { type: "Fuse" },
  { type: "ByteFallback" },
  { type: "Strip", content: " ", start: 1, stop: 0 },
  { type: "WordPiece", prefix: "##" },
  { type: "Precompiled", precompiled_charsmap: "AAAA" },
  {
    type: "TemplateProcessing",
    single: [{ SpecialToken: { id: "<s>" } }, { Sequence: { id: "A" } }],
    special_tokens: { "<s>": { ids: [1] } },
  },
  { type: "RobertaProcessing", cls: ["<s>", 0], sep: ["</s>", 2] },
  { type: "BPE", vocab: { a: 0, b: 1, ab: 2 }, merges: ["a b"] },
  { type: "WordPiece", unk_token: "[UNK]", vocab: { "[UNK]": 0, a: 1, "##a": 2 }, max_input_chars_per_word: 1e6 },
  {
    type: "Unigram",
    unk_id: 0,
    vocab: [
      ["<unk>", 0],
      ["a", -1],
      ["aa", -1.5],
      ["▁", -2],
    ],
  },
];

/** Pieces of tokenizers: steps by themselves, in sequences, in sequences of sequences. */
function tokenizerPiece(random: Random): Json {
  if (chance(random, 0.3)) return odd(random);
  if (chance(random, 0.6)) return structuredClone(pick(random, STEPS));
  const steps = Array.from({ length: pick(random, [0, 1, 2, 3, 30, 70]) }, () => structuredClone(pick(random, STEPS)));
  if (chance(random, 0.3)) steps.fill(steps[0]);
  return { type: "Sequence", normalizers: steps, pretokenizers: steps, decoders: steps, processors: steps };
}

const TOKENIZERS = [
  "bert",
  "bert_as_is",
  "llama",
  "llama_as_is",
  "llama_old_flags",
  "t5",
  "t5_as_is",
  "opt",
  "opt_as_is",
];

const tokenizers: Target = {
  prepare: async () => {
    const folders = TOKENIZERS.map((name) => {
      const files = Object.entries(tokenizerFiles(name));
      return Object.fromEntries(
        files.filter(([file]) => file.endsWith(".json")).map(([file, text]) => [file, JSON.parse(text) as Json]),
      );
    });
    const sides = ["left", "right", "up", null];
    return {
      make(random) {
        const documents = { ...pick(random, folders) };
        // T5's character map is nine tenths of its file: most cases shall be of the rest.
        const tokenizer = documents["tokenizer.json"] as Record<string, Json> | undefined;
        if (tokenizer && chance(random, 0.9))
          documents["tokenizer.json"] = { ...tokenizer, normalizer: { type: "NFKC" } };
        // Half of them lose their class, so that every part of tokenizer.json counts.
        if (chance(random, 0.5)) documents["tokenizer_config.json"] = {};
        const bytes = damagedFiles(random, documents, tokenizerPiece);
        return {
          files: bytes,
          input: {
            texts: Array.from({ length: random.int(1, 4) }, () => oddText(random)),
            ids: Array.from({ length: random.int(0, 40) }, () => random.int(0, 800)),
            options: chance(random, 0.5)
              ? null
              : {
                  padding: pick<Json>(random, [true, "max_length", false]),
                  truncation: true,
                  max_length: pick(random, [0, 1, 8, 100, 2 ** 17]),
                  padding_side: pick(random, sides),
                },
          },
        };
      },
      async run({ files, input }) {
        const { texts, ids, options } = input as { texts: string[]; ids: number[]; options: object | null };
        const tokenizer = await Tokenizer.from_pretrained(folderOf(files));
        for (const text of texts) {
          try {
            ids.push(...tokenizer.encode(text).slice(0, 200));
          } catch (error) {
            ignoreTyped(error);
          }
        }
        try {
          tokenizer.encode_batch(texts, options ?? {});
        } catch (error) {
          ignoreTyped(error);
        }
        const text = tokenizer.decode(ids);
        tokenizer.decode(ids, { skip_special_tokens: true, clean_up_tokenization_spaces: true });
        const stream = tokenizer.decodeStream();
        const pieces = ids.map((id) => stream.push(id)).join("") + stream.finish();
        if (pieces !== text && !tokenizer.clean_up_tokenization_spaces)
          throw new Error(`a stream of ${pieces.length} characters for ${text.length}`);
        return [];
      },
    };
  },
};

// --- images --------------------------------------------------------------------------------------------------------------

const images: Target = {
  prepare: async () => {
    const pixels = Buffer.from(Uint8Array.from({ length: 24 * 18 * 4 }, (_, i) => (i * 37) % 256));
    const image = () => sharp(pixels, { raw: { width: 24, height: 18, channels: 4 } });
    const encoded = [
      image().png(),
      image().png({ palette: true }),
      image().png({ progressive: true }),
      image().greyscale().png(),
      image().toColourspace("rgb16").png(),
      image().jpeg(),
      image().jpeg({ progressive: true }),
      image().withMetadata({ orientation: 6 }).jpeg(),
      image().removeAlpha().toColourspace("cmyk").jpeg(),
      image().webp(),
      image().webp({ lossless: true }),
      image().gif(),
      image().tiff(),
      image().tiff({ compression: "lzw" }),
    ];
    const files = await Promise.all(encoded.map((one) => one.toBuffer()));
    const starts = [
      "BM",
      "\0\0\0\x1cftypavif",
      "<svg xmlns='http://www.w3.org/2000/svg'/>",
      "%PDF-1.4",
      "\xff\xd8\xff",
      "GIF89a",
      "RIFF\x10\0\0\0WEBP",
      "II*\0",
      "version https://git-lfs.github.com/spec/v1\n",
    ];
    for (const start of starts) files.push(Buffer.concat([Buffer.from(start, "latin1"), pixels.subarray(0, 200)]));
    const processor = new BlipImageProcessor({ size: { height: 8, width: 8 } });
    return {
      make: (random) => ({ files: { image: mutateBytes(random, pick(random, files)) }, input: chance(random, 0.3) }),
      async run({ files, input }) {
        const decoded = await readImage(files.image, "image 0", { exif_transpose: input as boolean });
        processor.preprocess([decoded]);
        return [];
      },
    };
  },
};

// --- what callers give -----------------------------------------------------------------------------------------------------

const requests: Target = {
  prepare: async () => {
    const lines: Json[] = [
      { id: 1, images: ["a.png"], prompts: ["What?"] },
      { id: "x", images: ["a.png", "b.png"], prompts: ["a", "b"], generation: { max_new_tokens: 5, num_beams: 3 } },
      { images: ["a.png"], prompts: ["a"], candidates: ["yes", "no"] },
      { id: null, images: ["a.png"], prompts: ["a"], generation: { eos_token_id: [1, 2], stop_strings: ["."] } },
    ];
    return {
      make(random) {
        const parts = Array.from({ length: random.int(1, 4) }, () =>
          Buffer.concat([
            damagedJson(random, pick(random, lines)),
            Buffer.from(pick(random, ["\n", "\r\n", "\n\n", ""])),
          ]),
        );
        return { files: { lines: Buffer.concat(parts) }, input: random.int(1, 100) };
      },
      async run({ files, input }) {
        const messages: string[] = [];
        const size = Math.max(input as number, Math.floor(files.lines.length / 50));
        async function* chunks() {
          for (let at = 0; at < files.lines.length; at += size) yield files.lines.subarray(at, at + size);
        }
        for await (const line of splitLines(chunks())) {
          const parsed = parseLine(line);
          if (parsed?.error) messages.push(checked(parsed.error));
          else if (parsed?.request) {
            try {
              refuseUnknownOptions(parsed.request.generation);
              messages.push(...decodingConfig(parsed.request.generation, SETTINGS[0]).warnings);
            } catch (error) {
              ignoreTyped(error);
              messages.push((error as Error).message);
            }
          }
        }
        return messages;
      },
    };
  },
};

function checked(error: unknown): string {
  if (!isTyped(error)) throw error;
  return error.message;
}

const TEXT_NAMES =
  "padding truncation max_length pad_to_multiple_of padding_side truncation_side add_special_tokens stride return_tensors is_split_into_words text_pair".split(
    " ",
  );
const IMAGE_NAMES =
  "do_resize size resample do_rescale rescale_factor do_normalize image_mean image_std input_data_format do_convert_rgb do_center_crop device data_format".split(
    " ",
  );
const INPUT_NAMES = [
  "images",
  "text",
  "text_kwargs",
  "images_kwargs",
  "common_kwargs",
  "allow_image_token",
  "exif_transpose",
  "videos",
];

const LOAD_NAMES =
  "device dtype torch_dtype compute_dtype kv_cache_dtype weight_cache fix_vicuna_token_ids compile signal on_progress on_download revision token device_map load_in_8bit trust_remote_code dtypes".split(
    " ",
  );

const options: Target = {
  prepare: async () => {
    const folder = folderOf(
      Object.fromEntries(
        Object.entries(documentsOf(committedFolder("opt_plain"), PROCESSOR_FILES)).map(([name, value]) => [
          name,
          utf8.encode(JSON.stringify(value)),
        ]),
      ),
    );
    const video = folderOf(
      Object.fromEntries(
        Object.entries(documentsOf(committedFolder("video_3_frames_t5"), PROCESSOR_FILES)).map(([name, value]) => [
          name,
          utf8.encode(JSON.stringify(value)),
        ]),
      ),
    );
    const processors = [await AutoProcessor.from_pretrained(folder), await AutoProcessor.from_pretrained(video)];
    const { tokenizer } = processors[0];
    const config = documentsOf(committedFolder("opt_plain"), /^config\.json$/)["config.json"];
    const configOnly = folderOf({ "config.json": utf8.encode(JSON.stringify(config)) });
    const image: Json = { width: 2, height: 2, data: { $: "u8" } };
    const tensor: Json = { shape: [2, 2, 3], data: { $: "f32" } };
    const values: Json[] = [
      true,
      false,
      "longest",
      "max_length",
      "left",
      8,
      2,
      [2, 2],
      { height: 3, width: 2 },
      "channels_first",
      [0.5, 0.5, 0.5],
    ];
    const draw = (random: Random, names: readonly string[]) =>
      Object.fromEntries(
        Array.from({ length: random.int(0, 4) }, () => [
          pick(random, names),
          chance(random, 0.4) ? pick(random, values) : oddOption(random),
        ]),
      );
    return {
      make(random) {
        const call = pick(random, [
          "processor",
          "processor",
          "encode",
          "decode",
          "preprocess",
          "rank",
          "construct",
          "load",
        ]);
        const base: Record<string, Json> = { images: [pick(random, [image, tensor])], text: ["What is this?"] };
        const given =
          call === "processor"
            ? mutateJson(
                random,
                {
                  ...structuredClone(base),
                  ...draw(random, [...TEXT_NAMES, ...IMAGE_NAMES, ...INPUT_NAMES, "imagse"]),
                },
                oddOption,
              )
            : call === "rank"
              ? mutateJson(
                  random,
                  {
                    candidates: [["yes"], ["no", "perhaps"]],
                    ...draw(random, ["reduction", "candidates", "prompt_ids", "top_k", "batch_size"]),
                  },
                  oddOption,
                )
              : draw(
                  random,
                  call === "load"
                    ? LOAD_NAMES
                    : call === "preprocess" || call === "construct"
                      ? IMAGE_NAMES
                      : [...TEXT_NAMES, "skip_special_tokens", "clean_up_tokenization_spaces"],
                );
        return {
          files: {},
          input: {
            call,
            given,
            which: random.int(0, 2),
            value: chance(random, 0.5) ? oddOption(random) : chance(random, 0.5) ? tensor : image,
          },
        };
      },
      async run({ input }) {
        const { call, given, which, value } = input as { call: string; given: Json; which: number; value: Json };
        const object = realised(given) as never;
        const odd = realised(value) as never;
        switch (call) {
          case "processor":
            await processors[which](object);
            break;
          case "encode":
            tokenizer.encode_batch(["text", "more of it"], object);
            break;
          case "decode":
            tokenizer.decode([1, 2, 3], object);
            break;
          case "preprocess":
            new BlipImageProcessor({ size: 4 }).preprocess([odd], object);
            break;
          case "load":
            // No weights are there: past the checks of options there is MISSING_MODEL, and never a device.
            // A text would be a folder of this machine or a model of the Hub: none of ours to ask for.
            await AutoModelForImageTextToText.from_pretrained(
              which && typeof odd !== "string" ? odd : configOnly,
              object,
            );
            break;
          case "construct":
            new BlipImageProcessor(object, "preprocessor_config.json");
            break;
          default:
            readRankOptions(optionsOf("rank_answers", [object]) as never, 2, {
              vocabulary: 700,
              num_embeddings: 700,
              is_encoder_decoder: false,
            } as never);
        }
        return [];
      },
    };
  },
};

const tasks: Target = {
  prepare: async () => {
    const task: Json = {
      prompt: "Question: {question}",
      mode: "generate",
      metric: "exact_match",
      generation: { max_new_tokens: 5 },
    };
    const rank: Json = { prompt: "{question}", mode: "rank_answers", candidates: ["a", "b"], metric: "exact_match" };
    const rows: Json[] = [
      { id: 1, image: "a.png", question: "What?", answers: ["a"] },
      { image: "a.png", question: "b", answer: "c" },
    ];
    return {
      make: (random) => ({
        files: {
          "task.json": damagedJson(random, pick(random, [task, rank])),
          data: Buffer.concat([damagedJson(random, pick(random, rows)), Buffer.from("\n")]),
        },
        input: null,
      }),
      run: async ({ files }) => {
        const decode = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
        const parsed = parseTask(decode(files["task.json"]), "task.json");
        parseQuestion(decode(files.data), parsed);
        return [];
      },
    };
  },
};

// --- data sets -------------------------------------------------------------------------------------------------------------

/** Readers by the ends of names; every tar header has a checksum, which damage must not always break. */
const READERS = { parquet: openParquet, arrow: openArrow, tar: openTar, json: openJsonArray };

const datasets: Target = {
  prepare: async () => {
    const all = Object.entries(dataFiles());
    const files = all.filter(([name]) => /(\.parquet|\.arrow|\.tar|\.tar\.gz|paths\.json)$/.test(name));
    const chosen = all.filter(([name]) => name.startsWith("chosen/"));
    const state = JSON.parse(dataFiles()["chosen/state.json"].toString()) as Json;
    return {
      make(random) {
        if (chance(random, 0.05)) {
          const saved = Object.fromEntries(
            chosen.map(([name, bytes]) => [name.slice("chosen/".length), bytes]),
          ) as Files;
          if (chance(random, 0.7)) saved["state.json"] = damagedJson(random, state);
          else saved["indices.arrow"] = mutateBytes(random, saved["indices.arrow"]);
          return { files: saved, input: "saved" };
        }
        const [name, bytes] = pick(random, files);
        const kind = name.split(".").at(-1) as keyof typeof READERS | "gz";
        const damaged = mutateBytes(random, bytes);
        if (kind === "tar" && chance(random, 0.8)) correctChecksums(damaged);
        return { files: { file: damaged }, input: kind };
      },
      async run({ files, input }) {
        const messages: string[] = [];
        const kind = input as keyof typeof READERS | "gz" | "saved";
        const rows =
          kind in READERS ? readRows(kind as keyof typeof READERS, files.file) : savedRows(files, kind === "gz");
        for await (const row of rows) {
          if ("error" in row) {
            if (!isTyped(row.error)) throw row.error;
            messages.push(row.error.message);
          } else {
            const images = Object.values(row.value)
              .flat()
              .filter((cell) => cell instanceof EmbeddedImage);
            for (const image of images) await image.read().catch(ignoreTyped);
            JSON.stringify(row.value);
          }
        }
        return messages;
      },
    };
  },
};

async function* readRows(kind: keyof typeof READERS, bytes: Uint8Array) {
  yield* (await READERS[kind](new MemorySource("file", bytes))).rows();
}

/** Of files that only the disk's reader takes: a folder, or one of gzip. */
async function* savedRows(files: Readonly<Files>, isFile: boolean) {
  const folder = mkdtempSync(join(tmpdir(), "instructblip-fuzz-"));
  try {
    for (const [name, bytes] of Object.entries(files)) writeFileSync(join(folder, name), bytes);
    const set = await openDataSet(isFile ? join(folder, "file") : folder);
    try {
      if (set) yield* set.rows();
    } finally {
      await set?.close();
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Every block that could be a header gets the sum of its bytes. */
function correctChecksums(tar: Uint8Array): void {
  for (let at = 0; at + 512 <= tar.length; at += 512) {
    const header = tar.subarray(at, at + 512);
    if (header[0] === 0 || new TextDecoder("latin1").decode(header.subarray(257, 262)) !== "ustar") continue;
    header.fill(32, 148, 156);
    const sum = header.reduce((all, byte) => all + byte, 0);
    header.set(utf8.encode(`${sum.toString(8).padStart(6, "0")}\0 `), 148);
  }
}

export const TARGETS: Readonly<Record<TargetName, Target>> = {
  headers,
  pickles,
  adapters,
  bitsandbytes,
  indexes,
  weights,
  configs,
  jsons,
  generation,
  tokenizers,
  images,
  requests,
  tasks,
  datasets,
  options,
};
