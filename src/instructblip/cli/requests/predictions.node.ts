/** Files of `evaluate` and `merge`: tasks, data and predictions. */
import { createHash } from "node:crypto";
import { createReadStream, readFileSync } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { DTYPES } from "../../../tensor/dtype.ts";
import { InputError } from "../../../tensor/errors.ts";
import { sizeOf } from "../../../tensor/shape.ts";
import type { Field } from "../../data/columns.ts";
import { openDataSet } from "../../data/data_set.node.ts";
import { onlyJsonl } from "../../data/format.ts";
import { type PredictionFile, predictionReader } from "../../evaluation/prediction_file.ts";
import { PRESETS } from "../../evaluation/presets.ts";
import { hasSlot, parseTask, type Question, questionOf, type Task } from "../../evaluation/task.ts";
import { weightsOf } from "../../pretrained/checkpoint/open_weights.ts";
import type { ModelFolder } from "../../pretrained/model_folder.ts";
import { ColumnsOf, type DataOptions, rowsOfLines } from "./data_rows.ts";
import { splitLines } from "./requests.ts";

/** Largest task file. */
const MAX_TASK_BYTES = 2 ** 20;
const MAX_CONFIG_BYTES = 2 ** 20;

/** @throws InputError NOT_FOUND, BAD_TASK and those of {@link parseTask} */
export async function readTask(path: string): Promise<Task> {
  const found = await stat(path).catch(() => undefined);
  if (!found?.isFile()) {
    const hint = Object.hasOwn(PRESETS, path) ? `a task is a file; of a preset: {"preset": "${path}"}` : undefined;
    throw new InputError("NOT_FOUND", `--task ${path}: ${found ? "not a file" : "no such file"}`, { hint });
  }
  if (found.size > MAX_TASK_BYTES) throw new InputError("BAD_TASK", `--task ${path}: too large for a task file`);
  return parseTask(await readFile(path, "utf8"), path, (name) => readBeside(path, name));
}

function readBeside(path: string, name: string): string {
  const file = resolve(dirname(path), name);
  try {
    return readFileSync(file, "utf8");
  } catch {
    throw new InputError("NOT_FOUND", `--task ${path}: ${file} cannot be read`);
  }
}

export interface Data {
  readonly items: readonly Question[];
  /** Of a JSONL file's bytes; of other formats of all rows, images by their names. */
  readonly sha256: string;
  /** What relative names of images are relative to. */
  readonly base: string;
  /** Images inside the data can be read until then. */
  close(): Promise<void>;
}

/**
 * All questions, checked.
 *
 * @throws InputError NOT_FOUND, BAD_DATA, BAD_DATA_FILE, UNKNOWN_COLUMN, UNKNOWN_SPLIT, LINE_TOO_LONG, BAD_UTF8, naming file
 *   and line or row
 */
export async function readData(path: string, task: Task, options: DataOptions = {}): Promise<Data> {
  const hash = createHash("sha256");
  const items: Question[] = [];
  const whereOf = new Map<string, string>();
  const set = await openDataSet(path, options.split);
  try {
    const chunks = onlyJsonl(
      path,
      chunksOf(path, (chunk) => hash.update(chunk)),
      "such data is read from files: give the file's name",
    );
    const rows = set ? set.rows() : rowsOfLines(splitLines(chunks));
    const needed: Field[] = ["image", "answers"];
    if (hasSlot(task.prompt, "question")) needed.push("question");
    const columns = new ColumnsOf(path, options, needed, set);
    for await (const row of rows) {
      try {
        if ("error" in row) throw row.error;
        if (set) hash.update(`${JSON.stringify(row.value)}\n`);
        const item = questionOf(columns.fields(row.value), task);
        const key = JSON.stringify(item.id);
        const twin = whereOf.get(key);
        if (twin !== undefined) {
          const place = twin.startsWith("line") ? `on ${twin}` : `of ${twin}`;
          throw new InputError("BAD_DATA", `the id ${key} is ${place} already`);
        }
        whereOf.set(key, row.where);
        items.push(item);
      } catch (error) {
        if (!(error instanceof InputError) || error.code === "UNKNOWN_COLUMN") throw error;
        throw new InputError(error.code, `${path}: ${row.where}: ${error.message}`);
      }
    }
    if (items.length === 0) throw new InputError("BAD_DATA", `${path}: there are no questions in it`);
  } catch (error) {
    await set?.close();
    throw error;
  }
  return {
    items,
    sha256: hash.digest("hex"),
    base: set?.base ?? dirname(path),
    close: async () => await set?.close(),
  };
}

/** @throws InputError NOT_FOUND, BAD_PART */
export async function readPredictionFile(path: string): Promise<PredictionFile> {
  const reader = predictionReader(path);
  let last: number | undefined;
  const chunks = chunksOf(path, (chunk) => {
    last = chunk.at(-1) ?? last;
  });
  for await (const { bytes } of splitLines(chunks, Number.POSITIVE_INFINITY))
    reader.add(new TextDecoder().decode(bytes));
  const part = reader.file();
  if (!part) throw new InputError("BAD_PART", `${path}: the file is empty`);
  if (last !== 10) throw new InputError("BAD_PART", `${path}: the last line is not complete`);
  return part;
}

/** The bytes of a file. @throws InputError NOT_FOUND */
export async function* chunksOf(path: string, onChunk: (chunk: Uint8Array) => void): AsyncGenerator<Uint8Array> {
  const found = await stat(path).catch(() => undefined);
  if (!found || found.isDirectory()) {
    throw new InputError("NOT_FOUND", `${path}: ${found ? "this is a folder" : "no such file"}`);
  }
  for await (const chunk of createReadStream(path) as AsyncIterable<Uint8Array>) {
    onChunk(chunk);
    yield chunk;
  }
}

/**
 * SHA-256 of the config and of the middle row of every tensor, names, types and shapes included: hashing all weights would
 * take too long, and a model that was trained further has other numbers in the same files.
 */
export async function identityOf(folder: ModelFolder): Promise<string> {
  const hash = createHash("sha256").update(await folder.text("config.json", MAX_CONFIG_BYTES));
  const checkpoint = await weightsOf(folder);
  try {
    for (const { name, dtype, shape } of [...checkpoint.tensors.values()].sort((a, b) => (a.name < b.name ? -1 : 1))) {
      hash.update(JSON.stringify([name, dtype, shape]));
      if (sizeOf(shape) === 0 || !(dtype in DTYPES)) continue;
      const [rows] = shape;
      const middle = rows && Math.floor(rows / 2);
      hash.update(await checkpoint.read(name, middle === undefined ? undefined : [middle, middle + 1]));
    }
  } finally {
    await checkpoint.close();
  }
  return hash.digest("hex");
}
