/**
 * `features`: features of images and texts as one safetensors file, in shards if wanted. While it runs they are appended to a file
 * beside it, OUT.part, which a later run resumes; at the end the safetensors file is written from that, and it is removed, unless
 * items failed that a later run asks again.
 */
import { createReadStream } from "node:fs";
import { open, stat } from "node:fs/promises";
import { basename } from "node:path";
import { formatStorage, type StorageDType } from "../../../modules/storage_dtype.ts";
import type { ComputeDType } from "../../../tensor/dtype.ts";
import { InputError } from "../../../tensor/errors.ts";
import { SafetensorsFile } from "../../../tensor/files/safetensors.ts";
import type { TensorEntry } from "../../../tensor/files/safetensors_writer.ts";
import { FileSource, saveSafetensors } from "../../../tensor/files/source.node.ts";
import { parseJson } from "../../config/json_file.ts";
import { hasShard, isIndex, PartReader, type Shard, sizeOf } from "../../evaluation/shards.ts";
import { isObject } from "../../evaluation/task.ts";
import { checkModelDownload, modelWithFeatures } from "../../pretrained/auto_model.ts";
import { type AnyProcessor, AutoProcessor } from "../../pretrained/auto_processor.ts";
import { openModelFolder } from "../folder.node.ts";
import { describeError, EXIT, endsRun, formatDuration, gravest, isWorthARetry, Pace, progressText } from "../format.ts";
import { ahead, windows } from "../requests/ahead.ts";
import { AHEAD, BATCH_SIZE, type BatchLimit, isShortage } from "../requests/batches.ts";
import { ImageReader, workersFor } from "../requests/image_workers.node.ts";
import { identityOf } from "../requests/predictions.node.ts";
import { reopening } from "../requests/reopening.node.ts";
import { splitLines } from "../requests/requests.ts";
import { expectSameRun, openShard } from "../requests/shard_file.node.ts";
import { type Stats, statsOn } from "../requests/stats.ts";
import { loadAs, type Run } from "../session.node.ts";
import { Progress, say, sayStack } from "../terminal.node.ts";
import { embed, type Features, type LoadedModel, missingIn, neededBy, type ReadItem } from "./embed.node.ts";
import { type Item, type ItemOptions, type Items, readItems } from "./items.node.ts";

export interface FeatureRun extends ItemOptions {
  readonly model: string;
  readonly dtype: StorageDType;
  readonly weightCache?: true | string;
  readonly computeDtype: ComputeDType;
  /** A file, or a folder of images or of a data set. */
  readonly data: string;
  /** The safetensors file. */
  readonly out: string;
  readonly shard?: Shard;
  readonly resume?: boolean;
  readonly batchSize?: number;
  /** Threads that decode and resize images. */
  readonly workers?: number;
  /** Print how busy the device was. */
  readonly stats?: boolean;
  /** The program's version. */
  readonly version: string;
}

/** The first line of OUT.part, and `features` in the file's metadata: all that the numbers depend on, besides the hardware. */
interface Settings {
  readonly version: string;
  readonly model: string;
  readonly model_sha256: string;
  readonly dtype: string;
  readonly compute_dtype: string;
  readonly data: string;
  readonly data_sha256: string;
  /** The template of texts, if one was given. */
  readonly prompt?: string;
  /** Items in the whole data. */
  readonly items: number;
  readonly shard: Shard;
}

const SAME = ["version", "model_sha256", "dtype", "compute_dtype", "data_sha256", "prompt", "items"] as const;
const FORMAT = {
  headerLine: (features: Settings) => `${JSON.stringify({ features })}\n`,
  difference: (a: Settings, b: Settings) => SAME.find((name) => a[name] !== b[name]),
};

/** What is kept in memory of an item that is done. */
interface Row {
  readonly index: number;
  readonly id: Item["id"];
  /** Features by name, and their shapes. */
  readonly shapes: Readonly<Record<string, readonly number[]>>;
  /** Of an item that failed. */
  readonly error?: { readonly code: string };
}

/** A row, and where its line is in OUT.part. */
type PlacedRow = Row & { readonly begin: number; readonly bytes: number };

/** Reads OUT.part. @throws InputError BAD_PART */
const partReader = (name: string) =>
  new PartReader<Settings, Row>(name, {
    ...{ command: "features", what: "item", line: "a line" },
    settings: ({ features }) => (hasShard(features) ? (features as Settings) : undefined),
    row: (value, { items }) => {
      const { index, features, error } = value;
      const fits = isIndex(index, items) && isObject(features) !== isObject(error);
      return fits ? rowOf(value as unknown as Line) : undefined;
    },
  });

/** A line of OUT.part: little-endian f32 numbers in base64. */
interface Line {
  readonly index: number;
  readonly id: Item["id"];
  readonly features?: Readonly<Record<string, { readonly shape: readonly number[]; readonly f32: string }>>;
  readonly error?: { readonly code: string; readonly message: string };
}

function rowOf({ index, id, features = {}, error }: Line): Row {
  const shapes = Object.fromEntries(Object.entries(features).map(([name, { shape }]) => [name, shape]));
  return { index, id, shapes, ...(error && { error: { code: error.code } }) };
}

/** Computes and writes the features. @returns the exit code */
export async function runFeatures(asked: FeatureRun, run: Run): Promise<number> {
  const data = await readItems(asked.data, asked);
  try {
    return await featuresOf(data, asked, run);
  } finally {
    await data.close();
  }
}

async function featuresOf({ items, base, sha256 }: Items, asked: FeatureRun, run: Run): Promise<number> {
  const { terminal, signal } = run;
  const { out: name, resume = false, shard = { i: 0, n: 1 }, dtype, computeDtype, batchSize = BATCH_SIZE } = asked;
  const part = `${name}.part`;
  const sizeOfFile = async (file: string) => (await stat(file).catch(() => undefined))?.size;
  // One without a line is of a run that was stopped before it began.
  const hasPart = async () => Boolean(await sizeOfFile(part));
  const isWritten = (await sizeOfFile(name)) !== undefined;
  if (isWritten && !resume) {
    const hint = (await hasPart())
      ? `--resume asks again what failed, and writes it anew; remove it and ${part} to start again`
      : "remove it to start again";
    throw new InputError("OUT_EXISTS", `--out ${name}: the file exists`, { hint });
  }
  const folder = await openModelFolder(asked.model, run);
  const needed = await neededBy(folder);
  const missing = items.map((item) => missingIn(item, needed));
  if (missing.every((part) => part !== undefined)) {
    throw new InputError("BAD_DATA", `${asked.data}: no item can be embedded; the first needs ${missing[0]}`, {
      hint: 'give a file of JSON lines such as {"image": "a.png", "text": "What is in the image?"}',
    });
  }
  const processor = await AutoProcessor.from_pretrained(folder);
  await checkModelDownload(folder, dtype);
  const settings: Settings = {
    version: asked.version,
    model: folder.name,
    model_sha256: await identityOf(folder),
    dtype: formatStorage(dtype),
    compute_dtype: computeDtype,
    data: basename(asked.data),
    data_sha256: sha256,
    ...(asked.prompt !== undefined && { prompt: asked.prompt }),
    items: items.length,
    shard,
  };
  if (isWritten && !(await hasPart())) {
    const written = await readWritten(name);
    expectSameRun(name, written.settings, settings, FORMAT.difference);
    const { failed } = written;
    if (failed > 0) {
      const total = sizeOf(shard, items.length);
      say(terminal, `${name} is complete; ${failed} of ${total} items failed and are not in it`);
    } else if (terminal.errIsTerminal) say(terminal, `${name} is complete`);
    return failed > 0 ? EXIT.someFailed : EXIT.ok;
  }
  const { out, rows } = await openShard({ out: part, resume }, partReader(part), settings, FORMAT, run);
  // Another process may have ended during the wait for the lock: it has written OUT, and removed OUT.part.
  const isNew = (await sizeOfFile(part)) === Buffer.byteLength(FORMAT.headerLine(settings));
  if (isNew && !isWritten && (await sizeOfFile(name)) !== undefined) {
    await out!.remove();
    const hint = "--resume sees whether it is complete";
    throw new InputError("OUT_LOCKED", `--out ${name}: another process has written it in the meantime`, { hint });
  }
  let exit: number = rows.some(({ error }) => error) ? EXIT.someFailed : EXIT.ok;
  const known = new Set(rows.map(({ index }) => index));
  const left = [...items.entries()].filter(([index]) => !known.has(index) && index % shard.n === shard.i);
  const progress = new Progress(terminal);
  const counts = { done: 0, failed: 0 };
  const begun = performance.now();
  let model: LoadedModel | undefined;
  let stats: Stats | undefined;
  const pace = new Pace();
  const workers = workersFor(left.filter(([, { image }]) => image !== undefined).length, asked.workers);
  const images = new ImageReader(processor, base, workers, signal);
  const read = async ([index, item]: [number, Item]): Promise<Read> => {
    try {
      const missing = missingIn(item, needed);
      if (missing) throw new InputError("BAD_DATA", `the item needs ${missing}`);
      return { index, item: { ...item, pixels: item.image === undefined ? undefined : await images.read(item.image) } };
    } catch (error) {
      return { index, item, error };
    }
  };
  const embedRest = async (progressed: () => void) => {
    const options = { weight_cache: asked.weightCache ?? false, compute_dtype: computeDtype };
    model ??= await loadAs(modelWithFeatures, folder, dtype, run, options);
    if (asked.stats) stats = statsOn(model.device, stats);
    const limit: BatchLimit = { rows: batchSize };
    const prepared = ahead(left.slice(counts.done), workers === 0 ? 0 : AHEAD * batchSize, read);
    for await (const batch of windows(prepared, batchSize)) {
      signal.throwIfAborted();
      if (images.failure) throw images.failure.error;
      const found = await embedEach(model, processor, batch, limit, signal);
      for (const [k, { index, item }] of batch.entries()) {
        const { exitCode, ...rest } = lineOf(found[k]!, terminal);
        const line = { index, id: item.id, ...rest };
        if (line.error) counts.failed++;
        exit = gravest(exit, exitCode);
        rows.push(rowOf(line));
        await out!.write(`${JSON.stringify(line)}\n`);
        counts.done++;
        progressed();
      }
      const rest = pace.left(counts.done, left.length);
      progress.show(progressText(counts, left.length, performance.now() - begun, rest));
    }
  };
  const release = () => {
    model?.dispose();
    model = undefined;
  };
  try {
    if (left.length > 0) await reopening(run, embedRest, release);
    progress.clear();
    if (stats) say(terminal, (stats as Stats).text(counts.done));
    if (rows.length !== sizeOf(shard, items.length)) {
      throw new InputError("BAD_PART", `${part}: ${rows.length} of ${sizeOf(shard, items.length)} items are there`);
    }
    const placed = await placesOf(part, rows);
    await writeFeatures(name, part, settings, placed);
    const failed = placed.filter(({ error }) => error);
    const again = failed.filter(({ error }) => isWorthARetry(error!.code)).length;
    if (failed.length > 0) {
      const first = await firstError(part, failed);
      say(terminal, `${failed.length} of ${rows.length} items failed and are not in ${name}; the first: ${first}`);
    } else if (terminal.errIsTerminal) {
      say(terminal, `${rows.length} items in ${name}, ${formatDuration(performance.now() - begun)}`);
    }
    if (again > 0) say(terminal, `${again} of them may succeed later: ${part} is kept, and --resume asks them again`);
    else await out?.remove();
    return exit;
  } finally {
    progress.clear();
    await images.close();
    model?.dispose();
    await out?.close();
  }
}

/** An item of which the image is read, or why it is not. */
interface Read {
  readonly index: number;
  readonly item: Item & Partial<ReadItem>;
  readonly error?: unknown;
}

type Found = { readonly features: Features } | { readonly error: unknown };

/**
 * Features of items, together. If they exceed memory, of halves, and the limit is lowered; if it fails otherwise, one by one, so that
 * the error is that of its item.
 */
async function embedEach(
  model: LoadedModel,
  processor: AnyProcessor,
  items: readonly Read[],
  limit: BatchLimit,
  signal: AbortSignal,
): Promise<Found[]> {
  const found: (Found | undefined)[] = items.map((one) => ("error" in one ? { error: one.error } : undefined));
  const read = items.flatMap(({ item }, i) => (found[i] ? [] : [{ ...(item as ReadItem), i }]));
  const embedAll = async (some: typeof read): Promise<void> => {
    if (some.length === 0) return;
    if (some.length > limit.rows) {
      for (let i = 0; i < some.length; ) {
        const part = some.slice(i, i + limit.rows); // lowered as it is embedded, perhaps
        await embedAll(part);
        i += part.length;
      }
      return;
    }
    try {
      const features = await embed(model, processor, some);
      some.forEach(({ i }, k) => {
        found[i] = { features: features[k]! };
      });
    } catch (error) {
      signal.throwIfAborted();
      if (some.length > 1 && isShortage(error)) {
        limit.rows = Math.ceil(some.length / 2);
        return embedAll(some);
      }
      if (endsRun(error)) throw error;
      if (some.length > 1) for (const one of some) await embedAll([one]);
      else found[some[0]!.i] = { error };
    }
  };
  await embedAll(read);
  return found as Found[];
}

/** What is written of an item, and the exit code of its error. */
function lineOf(found: Found, terminal: Run["terminal"]): Pick<Line, "features" | "error"> & { exitCode: number } {
  if ("error" in found) {
    const { code, message, exitCode } = describeError(found.error);
    sayStack(terminal, found.error);
    return { error: { code, message: (message ?? code).replace(/^error: /, "") }, exitCode };
  }
  const entries = Object.entries(found.features);
  return {
    exitCode: EXIT.ok,
    features: Object.fromEntries(entries.map(([name, { shape, data }]) => [name, { shape, f32: base64(data) }])),
  };
}

function base64({ buffer, byteOffset, byteLength }: Float32Array): string {
  return Buffer.from(buffer, byteOffset, byteLength).toString("base64");
}

/** Rows in the order of the items, in which lines of items that were asked again are not. @param rows those of the lines */
async function placesOf(part: string, rows: readonly Row[]): Promise<PlacedRow[]> {
  const placed: PlacedRow[] = [];
  let begin = 0;
  for await (const { number, bytes } of splitLines(createReadStream(part), Number.POSITIVE_INFINITY)) {
    const { length } = bytes!;
    if (number > 1) placed.push({ ...rows[number - 2]!, begin, bytes: length }); // the first line has the settings
    begin += length + 1;
  }
  return placed.sort((a, b) => a.index - b.index);
}

/** The lines of some rows. */
async function* linesOf(part: string, rows: readonly PlacedRow[]): AsyncGenerator<Line> {
  const handle = await open(part);
  try {
    for (const { begin, bytes } of rows) {
      const text = new Uint8Array(bytes);
      await handle.read(text, 0, bytes, begin);
      yield parseJson(new TextDecoder().decode(text)) as Line;
    }
  } finally {
    await handle.close();
  }
}

async function firstError(part: string, failed: readonly PlacedRow[]): Promise<string> {
  for await (const { id, error } of linesOf(part, failed)) return `${JSON.stringify(id)}: ${error!.message}`;
  return "";
}

/** Writes the safetensors file: NAME f32[n, …], NAME.index i64[n], places in the data; ids in the metadata. */
async function writeFeatures(
  name: string,
  part: string,
  settings: Settings,
  rows: readonly PlacedRow[],
): Promise<void> {
  const names = [...new Set(rows.flatMap(({ shapes }) => Object.keys(shapes)))].sort();
  const entries: TensorEntry[] = names.flatMap((key) => {
    const those = rows.filter(({ shapes }) => key in shapes);
    const shape = [those.length, ...those[0]!.shapes[key]!];
    const odd = those.find(({ shapes }) => String(shapes[key]) !== String(those[0]!.shapes[key]));
    if (odd) throw new InputError("BAD_PART", `${part}: ${key} of ${JSON.stringify(odd.id)} has another shape`);
    const data = async function* () {
      for await (const { features } of linesOf(part, those)) {
        yield new Uint8Array(Buffer.from(features![key]!.f32, "base64"));
      }
    };
    const index = BigInt64Array.from(those, (row) => BigInt(row.index));
    return [
      { name: key, dtype: "f32", shape, data },
      { name: `${key}.index`, dtype: "i64", shape: [those.length], data: index },
    ];
  });
  await saveSafetensors(name, entries, {
    features: JSON.stringify(settings),
    ids: JSON.stringify(rows.map(({ index, id }) => [index, id])),
  });
}

/** The settings in a file of {@link writeFeatures}, and how many of its items failed. @throws InputError BAD_PART; WeightError */
async function readWritten(name: string): Promise<{ readonly settings: Settings; readonly failed: number }> {
  const file = await SafetensorsFile.open(await FileSource.open(name));
  try {
    const [features, ids] = ["features", "ids"].map((key) => parseJson(file.metadata.get(key) ?? "null"));
    if (!hasShard(features) || !Array.isArray(ids)) {
      throw new InputError("BAD_PART", `--out ${name}: not a file written by features`);
    }
    const embedded = new Set<bigint>();
    for (const [key, { dtype }] of file.tensors) {
      if (dtype !== "i64") continue;
      const { buffer } = (await file.read(key)).slice();
      for (const index of new BigInt64Array(buffer)) embedded.add(index);
    }
    return { settings: features as unknown as Settings, failed: ids.length - embedded.size };
  } finally {
    await file.close();
  }
}
