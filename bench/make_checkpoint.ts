/**
 * `npm run checkpoint -- vicuna-7b FOLDER`: writes a whole checkpoint with the names, shapes and sizes of an official one
 * and random numbers, by the writer that save_pretrained uses. For tests that depend on size only: loading, memory, speed.
 * Its tokenizers are those of examples/shapes, so that every command works with it; its answers are meaningless.
 */
import { parseArgs } from "node:util";
import { runScript, UsageError } from "../scripts/script.ts";

const MODELS = ["vicuna-7b", "vicuna-13b", "flan-t5-xl", "flan-t5-xxl"];
const STORED = ["f16", "bf16", "f32"] as const;

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
  if (positionals.length !== 2) throw new UsageError("give a model and a folder");
  if (!MODELS.includes(model)) throw new UsageError(`there is no model "${model}", only ${MODELS.join(", ")}`);
  if (!dtype) throw new UsageError(`--dtype must be one of ${STORED.join(", ")}, got "${values.dtype}"`);
  const { writeFullCheckpoint } = await import("./full_checkpoint.ts");
  await writeFullCheckpoint(model, to, dtype);
  return 0;
}

await runScript(main);
