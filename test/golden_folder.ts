/**
 * Complete folders of the committed goldens. Their weights are not committed: weights.json describes how each tensor is
 * drawn, by a counter (test/golden/weights.py draws the same), and golden.json has the SHA-256 of PyTorch's weights.
 */
import { createHash } from "node:crypto";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { crc32 } from "node:zlib";
import { philox } from "../src/instructblip/generation/multinomial.ts";
import { narrow } from "../src/tensor/dtype.ts";

/** test/golden, without weights. */
export const COMMITTED = fileURLToPath(new URL("golden/", import.meta.url));
const RECIPE = "weights.json";
/** Copies with weights, by what is in them; git ignores it. */
const MADE = fileURLToPath(new URL("../.cache/goldens/", import.meta.url));

/** Names of the goldens of InstructBLIP, and of its siblings'. */
export const COMPOSITES: readonly string[] = readdirSync(join(COMMITTED, "data"));
export const SIBLINGS: readonly string[] = readdirSync(join(COMMITTED, "siblings"));
/** Those of models that embed images and texts. */
const RETRIEVAL: readonly string[] = readdirSync(join(COMMITTED, "retrieval/data"));

interface Row {
  readonly dtype: "F32" | "F16" | "BF16";
  readonly shape: readonly number[];
  readonly mean: number;
  readonly std: number;
  /** First and beyond the last row that has another deviation. */
  readonly rows?: readonly [number, number];
  readonly rows_std?: number;
}

interface Recipe {
  readonly key: readonly [number, number];
  readonly files: Readonly<Record<string, Readonly<Record<string, Row>>>>;
}

/** A Philox block has eight 16-bit numbers, whose sum is nearly normal, and at most 4.9 deviations from its mean. */
const HALVES = 8;
const MEAN = (HALVES * 0xffff) / 2;
const DEVIATION = Math.sqrt((HALVES * (0x1_0000 ** 2 - 1)) / 12);

/** f32 numbers: the i-th from the block whose counter is i and the name's CRC-32. */
function drawn(
  name: string,
  { shape, mean, std, rows = [0, 0], rows_std = std }: Row,
  key: Recipe["key"],
): Float32Array {
  const size = shape.reduce((a, b) => a * b, 1);
  const [within, of] = [size / shape[0], crc32(name)];
  return Float32Array.from({ length: size }, (_, i) => {
    const sum = philox([i, of, 0, 0], key).reduce((total, word) => total + (word & 0xffff) + (word >>> 16), 0);
    const row = Math.floor(i / within);
    return mean + (row >= rows[0] && row < rows[1] ? rows_std : std) * ((sum - MEAN) / DEVIATION);
  });
}

/** The weight files of a golden, by name, as safetensors writes them. */
export function drawnFiles(golden: string): Record<string, Uint8Array> {
  const { key, files } = JSON.parse(readFileSync(join(golden, RECIPE), "utf8")) as Recipe;
  return Object.fromEntries(
    Object.entries(files).map(([file, tensors]) => {
      const header: Record<string, unknown> = { __metadata__: { format: "pt" } };
      const parts: Uint8Array[] = [];
      let start = 0;
      for (const [name, row] of Object.entries(tensors)) {
        const values = drawn(name, row, key);
        const data = row.dtype === "F32" ? values : narrow(values, row.dtype === "F16" ? "f16" : "bf16");
        parts.push(new Uint8Array(data.buffer));
        header[name] = { dtype: row.dtype, shape: row.shape, data_offsets: [start, start + data.byteLength] };
        start += data.byteLength;
      }
      const text = JSON.stringify(header);
      const padded = Buffer.from(text.padEnd(Math.ceil(text.length / 8) * 8));
      const length = Buffer.alloc(8);
      length.writeBigUInt64LE(BigInt(padded.length));
      return [file, Buffer.concat([length, padded, ...parts])];
    }),
  );
}

export const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

/** A committed golden's folder in test/golden: without weights, unless it is one of those that keep them. */
export function committedFolder(name: string): string {
  if (RETRIEVAL.includes(name)) return join(COMMITTED, "retrieval/data", name);
  return join(COMMITTED, SIBLINGS.includes(name) ? "siblings" : "data", name);
}

/**
 * A golden's folder with its weights, an ordinary checkpoint. It is made once for what is committed, in .cache/goldens, and
 * must not be changed: tests that do copy it.
 *
 * @throws Error where the weights drawn are not those PyTorch was given
 */
export function goldenFolder(name: string): string {
  const folder = folders.get(name) ?? makeFolder(name);
  folders.set(name, folder);
  return folder;
}
const folders = new Map<string, string>();

function makeFolder(name: string): string {
  const from = committedFolder(name);
  const files = readdirSync(from, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  const paths = files.map(({ parentPath, name: file }) => join(parentPath, file)).sort();
  const stamp = sha256(Buffer.from(paths.map((path) => `${path} ${sha256(readFileSync(path))}\n`).join("")));
  const folder = join(MADE, stamp.slice(0, 16), name);
  if (existsSync(folder)) return folder;
  mkdirSync(join(folder, ".."), { recursive: true });
  const scratch = mkdtempSync(join(MADE, "making-"));
  cpSync(from, scratch, { recursive: true, filter: (path) => !path.endsWith(RECIPE) });
  const { model_sha256 } = JSON.parse(readFileSync(join(from, "golden.json"), "utf8")) as {
    readonly model_sha256: Readonly<Record<string, string>>;
  };
  for (const [file, bytes] of Object.entries(drawnFiles(from))) {
    if (sha256(bytes) !== model_sha256[file]) throw new Error(`${name}/${file} is not drawn as PyTorch's was`);
    writeFileSync(join(scratch, file), bytes);
  }
  try {
    renameSync(scratch, folder);
  } catch (error) {
    rmSync(scratch, { recursive: true, force: true });
    if (!existsSync(folder)) throw error; // else another process was faster
  }
  return folder;
}
