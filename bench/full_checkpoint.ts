/** The work of `npm run checkpoint`: a whole checkpoint of random numbers. */
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Progress, processTerminal } from "../src/instructblip/cli/terminal.node.ts";
import { fillParameter } from "../src/tensor/cases/support/data.ts";
import { formatBytes } from "../src/tensor/device/memory.ts";
import { DTYPES } from "../src/tensor/dtype.ts";
import { Checkpoint } from "../src/tensor/files/checkpoint.ts";
import { writeCheckpoint } from "../src/tensor/files/checkpoint_writer.ts";
import { NodeWritableFolder } from "../src/tensor/files/writable_folder.node.ts";
import { sizeOf } from "../src/tensor/shape.ts";
import { HeaderOnlyFolder } from "../test/official/header_only.ts";
import { root } from "./machine.ts";

const PIECE = 2 ** 22; // numbers

/** Writes the checkpoint, with progress on stderr, and prints what it holds. */
export async function writeFullCheckpoint(model: string, to: string, dtype: "f16" | "bf16" | "f32"): Promise<void> {
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
