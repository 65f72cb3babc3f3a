/**
 * Files that are written together: wherever the writer is stopped, a reader finds the old ones, the new ones, or nothing that
 * loads; and the next save leaves nothing but its own.
 */
import { spawnSync } from "node:child_process";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { InstructBlipProcessor } from "../../../src/index.node.ts";
import { Checkpoint } from "../../../src/tensor/files/checkpoint.ts";
import { type WriteCheckpointOptions, writeCheckpoint } from "../../../src/tensor/files/checkpoint_writer.ts";
import { textFile, type WritableFolder, writeTogether } from "../../../src/tensor/files/file_set.ts";
import type { TensorEntry } from "../../../src/tensor/files/safetensors_writer.ts";
import { NodeFolder, writeFileAtomic } from "../../../src/tensor/files/source.node.ts";
import { type Folder, MemorySink, MemorySource } from "../../../src/tensor/files/source.ts";
import { NodeWritableFolder } from "../../../src/tensor/files/writable_folder.node.ts";
import { compiled } from "../../compiled.ts";
import { committedFolder } from "../../golden_folder.ts";

const root = await mkdtemp(join(tmpdir(), "file-set-"));
afterAll(() => rm(root, { recursive: true }));
let turn = 0;
const fresh = async () => NodeWritableFolder.create(join(root, `${++turn}`));
const here = () => join(root, `${turn}`);

/** A folder in memory: a disk takes its time to be sure. */
class MemoryFolder implements WritableFolder, Folder {
  readonly name = "memory";
  readonly files = new Map<string, Uint8Array>();

  async list() {
    return [...this.files.keys()];
  }
  async delete(file: string) {
    this.files.delete(file);
  }
  async write(file: string, fill: (sink: MemorySink) => Promise<void>) {
    const sink = new MemorySink();
    await fill(sink);
    this.files.set(file, sink.bytes());
  }
  async writeText(file: string, text: string) {
    this.files.set(file, new TextEncoder().encode(text));
  }
  async rename(from: string, to: string) {
    this.files.set(to, this.files.get(from)!);
    this.files.delete(from);
  }
  async has(file: string) {
    return this.files.has(file);
  }
  async text(file: string) {
    return new TextDecoder().decode(this.files.get(file));
  }
  async open(file: string) {
    return new MemorySource(file, this.files.get(file)!);
  }
}

/** Stands for the end of the process. */
class Killed extends Error {}

/** A folder whose process ends at its `at`-th act, 0 before the first: what follows, clean-up too, does not happen. */
function mortal(
  folder: WritableFolder,
  at: number,
  { rename = true } = {},
): WritableFolder & { readonly acts: number } {
  let acts = 0;
  const act = <T>(go: () => Promise<T>): Promise<T> => {
    if (acts++ >= at) throw new Killed();
    return go();
  };
  return {
    name: folder.name,
    list: () => folder.list(), // changes nothing
    delete: (file) => act(() => folder.delete(file)),
    write: (file, fill) => act(() => folder.write(file, fill)),
    writeText: (file, text) => act(() => folder.writeText(file, text)),
    ...(rename && { rename: (from, to) => act(() => folder.rename!(from, to)) }),
    get acts() {
      return acts;
    },
  };
}

const TENSORS = 7;
/** A checkpoint all of whose numbers are `value`, and a config that says so. */
function save(folder: WritableFolder, value: number, options: WriteCheckpointOptions = {}) {
  const tensors = Array.from({ length: TENSORS }, (_, i): TensorEntry => {
    return { name: `t${i}`, dtype: "u8", shape: [16], data: new Uint8Array(16).fill(value) };
  });
  return writeCheckpoint(folder, tensors, { ...options, beside: [textFile("config.json", `${value}`)] });
}

/** The value of a folder whose files are of one save; undefined if it does not load. */
async function load(folder: Folder): Promise<number | undefined> {
  let checkpoint: Checkpoint;
  try {
    checkpoint = await Checkpoint.open(folder);
  } catch (error) {
    expect(error).toMatchObject({ code: "MISSING_MODEL" });
    return undefined;
  }
  const values = new Set([Number(await folder.text("config.json"))]);
  expect(checkpoint.tensors.size).toBe(TENSORS);
  for (const name of checkpoint.tensors.keys()) for (const byte of await checkpoint.read(name)) values.add(byte);
  await checkpoint.close();
  expect([...values], "one save, not parts of two").toHaveLength(1);
  return [...values][0];
}

const SINGLE = {};
const THREE = { max_shard_size: 48 };
const FOUR = { max_shard_size: 32 };
describe.each([
  ["shards over as many", THREE, THREE],
  ["more shards over fewer", THREE, FOUR],
  ["fewer shards over more", FOUR, THREE],
  ["one file over one", SINGLE, SINGLE],
  ["shards over one file", SINGLE, THREE],
  ["one file over shards", THREE, SINGLE],
])("%s", (_, before, after) => {
  test.each([true, false])("stopped anywhere; rename: %s", async (rename) => {
    const seen: (number | undefined)[] = [];
    for (let at = 0; ; at++) {
      const folder = new MemoryFolder();
      await save(folder, 1, before);
      const stopped = mortal(folder, at, { rename });
      const ended = await save(stopped, 2, after).then(
        () => true,
        (error) => {
          expect(error).toBeInstanceOf(Killed);
          return false;
        },
      );
      seen.push(await load(folder));
      const others = ["config.json", ...(after === SINGLE ? [] : ["model.safetensors.index.json"])];
      const names = await save(folder, 3, after);
      expect(await load(folder)).toBe(3);
      expect((await folder.list()).sort()).toEqual([...names, ...others].sort());
      if (ended) break;
    }
    expect(seen.at(-1)).toBe(2);
    expect(seen.slice(0, -1)).not.toContain(2);
    if (!rename) return;
    // The old save outlives all the writing, which is what takes long.
    expect(seen.lastIndexOf(1)).toBeGreaterThanOrEqual(after === SINGLE ? 2 : 5);
  });
});

test("killed while writing: the old checkpoint loads, and the next save removes the staged files", async () => {
  const folder = await fresh();
  await save(folder, 1, THREE);
  const script = `
    import { NodeWritableFolder } from ${JSON.stringify(compiled("src/tensor/files/writable_folder.node.ts"))};
    import { writeCheckpoint } from ${JSON.stringify(compiled("src/tensor/files/checkpoint_writer.ts"))};
    const data = (i) => async function* () {
      yield new Uint8Array(8);
      if (i === 5) process.kill(process.pid, "SIGKILL");
      yield new Uint8Array(8);
    };
    const tensors = Array.from({ length: 7 }, (_, i) => ({ name: "t" + i, dtype: "u8", shape: [16], data: data(i) }));
    await writeCheckpoint(await NodeWritableFolder.create(${JSON.stringify(here())}), tensors, { max_shard_size: 48 });`;
  const { signal } = spawnSync(process.execPath, ["--input-type=module", "-e", script]);
  expect(signal).toBe("SIGKILL");
  expect((await readdir(here())).filter((file) => file.startsWith("."))).toHaveLength(2); // one whole, one half
  expect(await load(new NodeFolder(here()))).toBe(1);
  const names = await save(folder, 2, THREE);
  expect((await readdir(here())).sort()).toEqual([...names, "config.json", "model.safetensors.index.json"].sort());
});

test("a failed save leaves the old files, and none of its own", async () => {
  const folder = await fresh();
  await save(folder, 1, THREE);
  const before = await readdir(here());
  const reason = new Error("the disk is full");
  const beside = [{ name: "config.json", write: () => Promise.reject(reason) }];
  await expect(writeCheckpoint(folder, [], { ...THREE, beside })).rejects.toBe(reason);
  expect(await readdir(here())).toEqual(before);
  expect(await load(new NodeFolder(here()))).toBe(1);
});

test("of two concurrent saves one fails, and the folder has the files of the other", async () => {
  const folder = await fresh();
  await save(folder, 1, THREE);
  let inFirst!: () => void;
  let goOn!: () => void;
  const reached = new Promise<void>((resolve) => (inFirst = resolve));
  const released = new Promise<void>((resolve) => (goOn = resolve));
  const waits = {
    name: "config.json",
    write: async () => {
      inFirst();
      await released;
    },
  };
  const first = writeTogether(folder, [textFile("a", "x"), waits], ["config.json"]);
  await reached;
  await save(folder, 2, THREE);
  goOn();
  await expect(first).rejects.toMatchObject({ code: "SAVE_CONFLICT" });
  expect(await load(new NodeFolder(here()))).toBe(2);
  expect((await readdir(here())).filter((file) => file.startsWith("."))).toEqual([]);
});

test("a single file: temporary files of a killed process are removed, those of other files are not", async () => {
  await mkdir(join(root, "alone"));
  const left = (name: string) => join(root, "alone", `.${name}.01234567-89ab-cdef-0123-456789abcdef.tmp`);
  const long = "m".repeat(150);
  for (const name of ["a", "b", "model", `${long}-int8`]) await writeFile(left(name), "half");
  for (const name of ["a", "model"]) {
    await writeFileAtomic(join(root, "alone", name), (sink) => sink.write(new Uint8Array(1)));
  }
  // Two at once in one process do not take each other's away.
  const both = [`${long}-int4`, `${long}-int8`].map((name) =>
    writeFileAtomic(join(root, "alone", name), (sink) => sink.write(new Uint8Array(2))),
  );
  await Promise.all([...both, writeFileAtomic(join(root, "alone", "a"), (sink) => sink.write(new Uint8Array(3)))]);
  const files = await readdir(join(root, "alone"));
  expect(files).toContain(left("b").split("/").at(-1));
  expect(files.filter((file) => /^\.(a|model)\./.test(file))).toEqual([]);
  expect((await readFile(join(root, "alone", "a"))).length).toBe(3);
});

test("a processor stopped anywhere is the old one, the new one, or refused", { timeout: 60_000 }, async () => {
  const input = { text: "what is in the image?", images: { width: 2, height: 2, data: new Uint8Array(12) } };
  const [old, next] = await Promise.all(
    ["t5_flan", "opt_plain"].map((name) => InstructBlipProcessor.from_pretrained(committedFolder(name))),
  );
  const answers = await Promise.all([old, next].map(async (processor) => JSON.stringify(await processor(input))));
  expect(answers[0]).not.toBe(answers[1]);
  const seen = new Set<number>();
  for (let at = 0, ended = false; !ended; at++) {
    const folder = await fresh();
    await old.save_pretrained(folder);
    await writeFile(join(here(), "special_tokens_map.json"), "{}"); // of an older version's save
    ended = await next.save_pretrained(mortal(folder, at)).then(
      () => true,
      () => false,
    );
    const loaded = await InstructBlipProcessor.from_pretrained(new NodeFolder(here())).catch(() => undefined);
    if (!loaded) continue;
    const answer = answers.indexOf(JSON.stringify(await loaded(input)));
    if (answer !== 0) expect(answer).toBe(ended ? 1 : 0);
    seen.add(answer);
    if (ended) expect(await readdir(here())).not.toContain("special_tokens_map.json");
  }
  expect([...seen]).toEqual([0, 1]);
  await old.save_pretrained(here());
  const again = await InstructBlipProcessor.from_pretrained(here());
  expect(JSON.stringify(await again(input))).toBe(answers[0]);
  expect((await readdir(here())).filter((file) => file.startsWith("."))).toEqual([]);
});
