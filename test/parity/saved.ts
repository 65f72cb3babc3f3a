/** Loads and saves every golden, for make.py to compare with the original. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { AutoModel, AutoModelForImageTextToText, AutoProcessor, type Device } from "../../src/index.node.ts";

/** Small enough that a golden takes several files. */
const SHARD = "100KB";

/**
 * Writes model and processor of each golden under `root` to its subfolder saved/, every other one in shards, and the models
 * beside it (model_cases.ts) to saved_base/ and saved_retrieval/.
 */
export async function saveCopies(root: string, names: readonly string[], device: Device): Promise<void> {
  for (const [i, name] of names.entries()) {
    const [from, to] = [join(root, name), join(root, name, "saved")];
    const model = await AutoModelForImageTextToText.from_pretrained(from, { device });
    await model.save_pretrained(to, i % 2 ? { max_shard_size: SHARD } : {});
    model.dispose();
    await (await AutoProcessor.from_pretrained(from)).save_pretrained(to);
    for (const part of ["base", "retrieval"]) {
      if (!existsSync(join(from, part))) continue;
      const beside = await AutoModel.from_pretrained(join(from, part), { device });
      await beside.save_pretrained(join(from, `saved_${part}`));
      beside.dispose();
    }
  }
}
