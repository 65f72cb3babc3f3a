/** The hash that identifies a model in prediction files, beyond its name and file sizes. */
import { cp, mkdtemp, readFile, rm, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { identityOf } from "../../../src/instructblip/cli/requests/predictions.node.ts";
import { ModelFolder } from "../../../src/instructblip/pretrained/model_folder.ts";
import type { DType } from "../../../src/tensor/dtype.ts";
import { writeCheckpoint } from "../../../src/tensor/files/checkpoint_writer.ts";
import { NodeFolder, openCheckpoint } from "../../../src/tensor/files/source.node.ts";
import { NodeWritableFolder } from "../../../src/tensor/files/writable_folder.node.ts";
import { goldenFolder } from "../../golden_folder.ts";

const root = await mkdtemp(join(tmpdir(), "identity-"));
afterAll(() => rm(root, { recursive: true }));

test("a copy is the same model, in other files too; one of other numbers is another", async () => {
  const [first, copy, shards] = ["first", "copy", "shards"].map((name) => join(root, name));
  for (const to of [first, copy, shards]) await cp(goldenFolder("plain_f32"), to, { recursive: true });
  const is = await identityOf(new ModelFolder(new NodeFolder(first)));
  await utimes(join(copy, "model.safetensors"), 0, 0);
  expect(await identityOf(new ModelFolder(new NodeFolder(copy)))).toBe(is);

  const checkpoint = await openCheckpoint(first);
  const entries = [];
  for (const { name, dtype, shape } of checkpoint.tensors.values()) {
    entries.push({ name, dtype: dtype as DType, shape, data: await checkpoint.read(name) });
  }
  await checkpoint.close();
  const folder = await NodeWritableFolder.create(shards);
  expect((await writeCheckpoint(folder, entries, { max_shard_size: "100KB" })).length).toBeGreaterThan(2);
  expect(await identityOf(new ModelFolder(new NodeFolder(shards)))).toBe(is);

  // The same sizes, the same header, one matrix trained further.
  const trained = entries.map((entry) =>
    entry.name.endsWith("layers.0.self_attn.q_proj.weight") ? { ...entry, data: entry.data.map((x) => x ^ 1) } : entry,
  );
  await writeCheckpoint(await NodeWritableFolder.create(copy), trained);
  const [before, after] = [first, copy].map((path) => readFile(join(path, "model.safetensors")));
  expect((await before).length).toBe((await after).length);
  expect(await identityOf(new ModelFolder(new NodeFolder(copy)))).not.toBe(is);
  await writeCheckpoint(folder, trained, { max_shard_size: "100KB" });
  expect(await identityOf(new ModelFolder(new NodeFolder(shards)))).not.toBe(is);

  const config = join(first, "config.json");
  await writeFile(
    config,
    (await readFile(config, "utf8")).replace('"layer_norm_eps": 1e-06', '"layer_norm_eps": 1e-05'),
  );
  expect(await identityOf(new ModelFolder(new NodeFolder(first)))).not.toBe(is);
});
