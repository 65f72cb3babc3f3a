/** Merges the files of `generate --out` of all shards into the lines of a single run, in the order of the requests. */
import { createReadStream } from "node:fs";
import { type FileHandle, open, stat } from "node:fs/promises";
import { InputError } from "../../../tensor/errors.ts";
import { bounded } from "../../../tensor/shown.ts";
import { openDataSet } from "../../data/data_set.node.ts";
import { EXIT } from "../format.ts";
import type { Run } from "../session.node.ts";
import { say } from "../terminal.node.ts";
import { type DataOptions, idsOf, namesColumns, rowsOfLines } from "./data_rows.ts";
import { isAnswer, isFailure, parseLine, type RequestId, splitLines } from "./requests.ts";
import { isJsonlOfRows } from "./row_files.node.ts";

/** A line of a file: lines stay there until they are written, as there may be millions. */
interface Place {
  readonly file: number;
  readonly begin: number;
  readonly bytes: number;
}

/**
 * Writes the answer of every request to stdout, once. @returns the exit code
 * @throws InputError NOT_FOUND, BAD_PART, BAD_REQUEST (two requests of one id), PARTS_DIFFER (an id is answered twice, or
 *   was not asked for), PARTS_MISSING; as openDataSet, of `requests`
 */
export async function mergeAnswers(
  requests: string,
  files: readonly string[],
  data: DataOptions,
  { terminal }: Run,
): Promise<number> {
  const answers = new Map<string, Place>();
  let failed = 0;
  for (const [file, name] of files.entries()) {
    let begin = 0;
    const end = await sizeOf(name);
    for await (const { number, bytes } of linesOf(name)) {
      const { length } = bytes!;
      if (begin + length === end) {
        const hint = "resume the run: it redoes the line";
        throw new InputError("BAD_PART", `${name}: the last line is not complete`, { hint });
      }
      const line = parsed(bytes!);
      if (!isAnswer(line)) {
        const hint = "the files of evaluate --out are merged without --requests";
        throw new InputError("BAD_PART", `${name}: line ${number} is not an answer`, { hint });
      }
      const key = JSON.stringify(line.id);
      const twin = answers.get(key);
      if (twin) {
        const text = `the request of id ${bounded(key, 100)} is answered in ${files[twin.file]} and in ${name}`;
        throw new InputError("PARTS_DIFFER", text, { hint: "are they files of one division into shards?" });
      }
      answers.set(key, { file, begin, bytes: length });
      if (isFailure(line)) failed++;
      begin += length + 1;
    }
  }
  const order = await orderOf(requests, data, answers);
  const handles: FileHandle[] = [];
  try {
    for (const name of files) handles.push(await open(name));
    for (const { file, begin, bytes } of order) {
      const buffer = new Uint8Array(bytes);
      await handles[file]!.read(buffer, 0, bytes, begin);
      await terminal.out(`${new TextDecoder().decode(buffer)}\n`);
    }
  } finally {
    for (const handle of handles) await handle.close();
  }
  if (failed) say(terminal, `${failed} of ${order.length} requests failed; their lines say why`);
  return failed ? EXIT.someFailed : EXIT.ok;
}

/** The answers in the order of the requests. */
async function orderOf(requests: string, data: DataOptions, answers: ReadonlyMap<string, Place>): Promise<Place[]> {
  const places = new Map<string, string>();
  const order: Place[] = [];
  let missing: string | undefined;
  for await (const { where, id } of idsIn(requests, data)) {
    const key = JSON.stringify(id);
    const twin = places.get(key);
    if (twin !== undefined) {
      const which = id === null ? "have no id" : `have the id ${bounded(key, 100)}`;
      const hint = "merging tells requests by their ids; the files can be concatenated";
      throw new InputError("BAD_REQUEST", `${requests}: ${twin} and ${where} ${which}`, { hint });
    }
    places.set(key, where);
    const place = answers.get(key);
    if (place) order.push(place);
    else missing ??= `the first is ${where}, id ${bounded(key, 100)}`;
  }
  if (missing !== undefined) {
    const hint = "is a shard missing, or not complete? --resume completes it";
    const text = `${places.size - order.length} of ${places.size} requests have no answer, ${missing}`;
    throw new InputError("PARTS_MISSING", text, { hint });
  }
  if (order.length < answers.size) {
    const [other] = [...answers.keys()].filter((key) => !places.has(key));
    throw new InputError("PARTS_DIFFER", `no request of ${requests} has the id ${bounded(other!, 100)} of an answer`);
  }
  return order;
}

/** The id of each request: of lines, or of a data set's rows. @throws as openDataSet and idsOf */
async function* idsIn(
  path: string,
  data: DataOptions,
): AsyncGenerator<{ readonly where: string; readonly id: RequestId }> {
  const set = await openDataSet(path, data.split);
  try {
    const hasRows = set !== undefined || namesColumns(data) || (await isJsonlOfRows(path));
    if (hasRows) yield* idsOf(path, set ? set.rows() : rowsOfLines(linesOf(path)), data, set);
    else {
      for await (const line of linesOf(path)) {
        const request = parseLine(line);
        if (request) yield { where: `line ${line.number}`, id: request.id };
      }
    }
  } finally {
    await set?.close();
  }
}

/** A file's bytes. @throws InputError NOT_FOUND */
async function sizeOf(path: string): Promise<number> {
  const found = await stat(path).catch(() => undefined);
  if (!found?.isFile()) throw new InputError("NOT_FOUND", `${path}: ${found ? "not a file" : "no such file"}`);
  return found.size;
}

async function* linesOf(path: string) {
  await sizeOf(path);
  yield* splitLines(createReadStream(path), Number.POSITIVE_INFINITY);
}

function parsed(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    return undefined;
  }
}
