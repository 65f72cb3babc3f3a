/** Models from PyTorch's files: the same weights, bit by bit, as from safetensors. */
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { AutoModelForImageTextToText, type TensorInfo } from "../../../src/index.node.ts";
import type { Inspection } from "../../../src/instructblip/cli/inspect/inspection.ts";
import { isWhole } from "../../../src/instructblip/pretrained/hub/cache.node.ts";
import { DTYPES, type DType } from "../../../src/tensor/dtype.ts";
import { openCheckpoint } from "../../../src/tensor/files/source.node.ts";
import { testDevice } from "../../device.ts";
import { goldenFolder } from "../../golden_folder.ts";
import { pytorchFile, type View } from "../../tensor/files/pytorch_file.ts";
import { json } from "../cli/cli.ts";

const device = await testDevice();
const root = await mkdtemp(join(tmpdir(), "pytorch-"));
afterAll(() => rm(root, { recursive: true }));

/** Columns of a matrix as rows. */
function transposed(bytes: Uint8Array, [N, K]: readonly [number, number], size: number): Uint8Array {
  const out = new Uint8Array(bytes.length);
  for (let n = 0; n < N; n++) {
    for (let k = 0; k < K; k++) out.set(bytes.subarray((n * K + k) * size, (n * K + k + 1) * size), (k * N + n) * size);
  }
  return out;
}

/**
 * A copy of a golden's folder with its weights as PyTorch's: matrices stored transposed, vectors in storages with a number before
 * them, and a tensor under a second name, as tied ones are.
 */
async function pytorchFolder(golden: string, tied: Readonly<Record<string, string>> = {}): Promise<string> {
  const folder = join(root, golden);
  await cp(goldenFolder(golden), folder, { recursive: true });
  const checkpoint = await openCheckpoint(folder);
  const shards = new Map<string, { tensors: Record<string, View>; storages: Record<string, Uint8Array> }>();
  const weight_map: Record<string, string> = {};
  for (const { name, dtype, shape, file } of checkpoint.tensors.values()) {
    const bytes = await checkpoint.read(name);
    const shard = file.replace(/^model(.*)\.safetensors$/, "pytorch_model$1.bin");
    const { tensors, storages } = shards.get(shard) ?? { tensors: {}, storages: {} };
    shards.set(shard, { tensors, storages });
    const size = DTYPES[dtype as DType].bytes;
    const key = `${Object.keys(storages).length}`;
    const [N, K] = shape;
    if (shape.length === 2) {
      tensors[name] = { dtype: dtype as DType, shape, strides: [1, N], storage: key };
      storages[key] = transposed(bytes, [N, K], size);
    } else {
      tensors[name] = { dtype: dtype as DType, shape, offset: 1, storage: key };
      storages[key] = Buffer.concat([Buffer.alloc(size), bytes]);
    }
    weight_map[name] = shard;
    for (const [other, of] of Object.entries(tied)) {
      if (of !== name) continue;
      tensors[other] = tensors[name];
      weight_map[other] = shard;
    }
  }
  await checkpoint.close();
  for (const [shard, { tensors, storages }] of shards) {
    await writeFile(join(folder, shard), pytorchFile(tensors, storages));
    await rm(join(folder, shard.replace(/^pytorch_model(.*)\.bin$/, "model$1.safetensors")));
  }
  if (shards.size > 1) {
    await rm(join(folder, "model.safetensors.index.json"));
    await writeFile(join(folder, "pytorch_model.bin.index.json"), JSON.stringify({ weight_map }));
  }
  return folder;
}

test("use_safetensors: true refuses them, false is not understood", async () => {
  const folder = await pytorchFolder("opt_bare");
  const load = (use_safetensors: boolean) =>
    AutoModelForImageTextToText.from_pretrained(folder, { device, compile: false, use_safetensors });
  await expect(load(true)).rejects.toMatchObject({
    code: "MISSING_MODEL",
    message: expect.stringContaining("pytorch_model.bin"),
  });
  await expect(load(false)).rejects.toMatchObject({ code: "UNSUPPORTED_OPTION" });
});

const named = ({ name, dtype, shape }: TensorInfo) => ({ name, dtype, shape });

test.each([
  ["plain_f32", {}],
  ["cross_frequency_3_sharded", {}],
  ["opt_plain", { "language_model.lm_head.weight": "language_model.model.decoder.embed_tokens.weight" }],
])("%s as PyTorch's files", async (golden, tied) => {
  const folder = await pytorchFolder(golden, tied);
  const model = await AutoModelForImageTextToText.from_pretrained(folder, { device, compile: false });
  expect(model.warnings).toEqual([]);
  const to = join(root, `${golden}-saved`);
  await model.save_pretrained(to);
  model.dispose();
  const [saved, original] = [await openCheckpoint(to), await openCheckpoint(goldenFolder(golden))];
  for (const [name, info] of original.tensors) {
    expect(named(saved.tensors.get(name)!)).toEqual(named(info));
    expect(Buffer.from(await saved.read(name)).equals(Buffer.from(await original.read(name))), name).toBe(true);
  }
  await saved.close();
  await original.close();
});

test("inspect tells of PyTorch's files what it tells of safetensors, and the cache of the Hub knows them", async () => {
  const folder = await pytorchFolder("grouped_heads_bf16");
  const [of, original] = [
    (await json<Inspection>(["inspect", folder, "--json"]))[0],
    (await json<Inspection>(["inspect", goldenFolder("grouped_heads_bf16"), "--json"]))[0],
  ];
  expect(of.files.map(({ name }) => name)).toEqual(["pytorch_model.bin"]);
  expect({ ...of, files: [] }).toEqual({ ...original, files: [] });
  expect(await isWhole(folder)).toBe(true);
  const bytes = await readFile(join(folder, "pytorch_model.bin"));
  await writeFile(join(folder, "pytorch_model.bin"), bytes.subarray(0, -10));
  await expect(openCheckpoint(folder)).rejects.toMatchObject({ code: "TRUNCATED" });
});
