/** Loads and saves every golden, for make.py to compare with the original. */
import { join } from "node:path";
import { AutoModelForImageTextToText, AutoProcessor, type Device } from "../../src/index.node.ts";

/** Small enough that a golden takes several files. */
const SHARD = "100KB";

/** Writes model and processor of each golden under `root` to its subfolder saved/, every other one in shards. */
export async function saveCopies(root: string, names: readonly string[], device: Device): Promise<void> {
  for (const [i, name] of names.entries()) {
    const [from, to] = [join(root, name), join(root, name, "saved")];
    const model = await AutoModelForImageTextToText.from_pretrained(from, { device });
    await model.save_pretrained(to, i % 2 ? { max_shard_size: SHARD } : {});
    model.dispose();
    await (await AutoProcessor.from_pretrained(from)).save_pretrained(to);
  }
}
