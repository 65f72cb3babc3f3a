/**
 * `npm run checkpoint -- vicuna-7b FOLDER`: writes a whole checkpoint with the names, shapes and sizes of an official one
 * and random numbers, by the writer that save_pretrained uses. For tests that depend on size only: loading, memory, speed.
 * Its tokenizers are those of examples/shapes, so that every command works with it; its answers are meaningless.
 */
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { exitWithReader, Progress, processTerminal } from "../src/instructblip/cli/terminal.node.ts";
import { fillParameter } from "../src/tensor/cases/support/data.ts";
import { formatBytes } from "../src/tensor/device/memory.ts";
import { DTYPES } from "../src/tensor/dtype.ts";
import { writeCheckpoint } from "../src/tensor/files/checkpoint_writer.ts";
import { Checkpoint } from "../src/tensor/files/safetensors.ts";
import { NodeWritableFolder } from "../src/tensor/files/writable_folder.node.ts";
import { sizeOf } from "../src/tensor/shape.ts";
import { HeaderOnlyFolder } from "../test/official/header_only.ts";
import { root } from "./machine.ts";

const MODELS = ["vicuna-7b", "vicuna-13b", "flan-t5-xl", "flan-t5-xxl"];
const STORED = ["f16", "bf16", "f32"] as const;
const PIECE = 2 ** 22; // numbers

const HELP = `usage: npm run checkpoint -- MODEL FOLDER [--dtype f16|bf16|f32]

Writes a checkpoint of random numbers with the names and shapes of an official one.

  MODEL    ${MODELS.join(", ")}
  FOLDER   created if missing; vicuna-7b takes 15.8 GB as f16
  --dtype  storage dtype (default f16)`;

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { dtype: { type: "string", default: "f16" }, help: { type: "boolean", short: "h", default: false } },
  });
  if (values.help) {
    console.log(HELP);
    return 0;
  }
  const [model, to] = positionals;
  const dtype = STORED.find((known) => known === values.dtype);
  const wrong =
    positionals.length !== 2
      ? "give a model and a folder"
      : !MODELS.includes(model)
        ? `there is no model "${model}", only ${MODELS.join(", ")}`
        : !dtype && `--dtype must be one of ${STORED.join(", ")}, got "${values.dtype}"`;
  if (wrong || !dtype) {
    console.error(`error: ${wrong}\n    hint: --help shows how`);
    return 2;
  }

  const headers = new HeaderOnlyFolder(model);
  const checkpoint = await Checkpoint.open(headers);
  const bytes = DTYPES[dtype].bytes;
  const shapes = [...checkpoint.tensors].map(([name, { shape }]) => ({ name, shape }));
  const totalBytes = shapes.reduce((sum, { shape }) => sum + sizeOf(shape) * bytes, 0);
  const progress = new Progress(processTerminal(({ exitCode }) => process.exit(exitCode)));
  let writtenBytes = 0;
  let first = 0;
  const entries = shapes.map(({ name, shape }) => {
    const begin = first;
    first += sizeOf(shape);
    return {
      name,
      dtype,
      shape,
      async *data() {
        for (let at = 0; at < sizeOf(shape); at += PIECE) {
          const count = Math.min(PIECE, sizeOf(shape) - at);
          const numbers = new Uint8Array(count * bytes);
          fillParameter(numbers, name, begin + at, dtype);
          yield numbers;
          writtenBytes += count * bytes;
          progress.show(`${formatBytes(writtenBytes)} of ${formatBytes(totalBytes)}  ${name}`);
        }
      },
    };
  });
  const folder = await NodeWritableFolder.create(to);
  const files = await writeCheckpoint(folder, entries, { max_shard_size: "10GB" });
  await checkpoint.close();
  await writeRest(await headers.text("config.json"), to);
  progress.clear();
  console.log(`${to}: ${shapes.length} tensors, ${formatBytes(totalBytes)} as ${dtype} in ${files.join(", ")}`);
  return 0;
}

/** config.json with the placeholder of these tokenizers, and processors for images of the model's size. */
async function writeRest(config: string, to: string): Promise<void> {
  const from = join(root, "examples/shapes/checkpoint");
  const read = (file: string) => JSON.parse(readFileSync(join(from, file), "utf8"));
  const write = (file: string, value: unknown) => writeFileSync(join(to, file), `${JSON.stringify(value, null, 2)}\n`);
  const given = JSON.parse(config);
  const { image_token_index } = read("config.json");
  const { vision_config = {}, num_query_tokens = 32 } = given;
  const side = vision_config.image_size ?? 224;
  const processor = read("processor_config.json");
  write("config.json", { ...given, image_token_index, image_token_id: undefined });
  write("processor_config.json", {
    ...processor,
    num_query_tokens,
    image_processor: { ...processor.image_processor, size: { height: side, width: side } },
  });
  mkdirSync(join(to, "qformer_tokenizer"), { recursive: true });
  for (const folder of ["", "qformer_tokenizer"]) {
    for (const file of ["tokenizer.json", "tokenizer_config.json"]) {
      copyFileSync(join(from, folder, file), join(to, folder, file));
    }
  }
}

exitWithReader();
process.exitCode = await main().catch((error: Error & { code?: string }) => {
  const usage = error.code?.startsWith("ERR_PARSE_ARGS");
  console.error(`error: ${error.message}${usage ? "\n    hint: --help shows how" : ""}`);
  return usage ? 2 : 1;
});
