/** compute_dtype "f16" in whole models: no module is further off than in PyTorch's float16 run of the same weights. */
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { AutoModelForImageTextToText, traceOutputs } from "../../src/index.node.ts";
import { compare } from "../compare.ts";
import { testDevice } from "../device.ts";
import { goldenFolder } from "../golden_folder.ts";
import { moduleErrors, passes, TORCH_F16 } from "./float16.ts";
import { Golden } from "./golden.ts";

const device = await testDevice();

test.each(Object.keys(TORCH_F16))("%s: every module", async (name) => {
  const errors = await moduleErrors(device, name);
  expect(errors.filter((error) => !passes(error))).toEqual([]);
  expect(errors.length).toBeGreaterThan(20);
  // Inputs of products are f16, or nothing would be tested.
  expect(Math.max(...errors.map(({ ours }) => ours))).toBeGreaterThan(1e-9);
});

test("a module further off fails, and so does a NaN", () => {
  const error = { path: "a", ours: 2e-7, torch: 1.9e-7 };
  expect([error, { ...error, ours: 1.8e-7 }, { ...error, ours: Number.NaN }].map(passes)).toEqual([false, true, false]);
});

/** A copy of t5_flan whose linear half of the feed-forward gives `factor` times as much, which its last product undoes. */
async function scaledT5(factor: number): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "instructblip-float16-"));
  folders.push(folder);
  await cp(goldenFolder("t5_flan"), folder, { recursive: true });
  const path = join(folder, "model.safetensors");
  const file = await readFile(path);
  const length = Number(file.readBigUInt64LE(0));
  const header: Record<string, { dtype: string; data_offsets: [number, number] }> = JSON.parse(
    file.subarray(8, 8 + length).toString(),
  );
  for (const [name, { dtype, data_offsets }] of Object.entries(header)) {
    const by = /DenseReluDense\.(wi_1|wo)\./.exec(name)?.[1];
    if (!by) continue;
    expect(dtype).toBe("F32");
    for (let at = 8 + length + data_offsets[0]; at < 8 + length + data_offsets[1]; at += 4) {
      file.writeFloatLE(file.readFloatLE(at) * (by === "wo" ? 1 / factor : factor), at);
    }
  }
  await writeFile(path, file);
  return folder;
}

const folders: string[] = [];
afterAll(() => Promise.all(folders.map((folder) => rm(folder, { recursive: true }))));

test.each([
  ["activations", 2 ** 15],
  ["activations and weights", 2 ** 30],
])("%s beyond f16's range on either side give what f32 does", async (_, factor) => {
  const folder = await scaledT5(factor);
  const golden = await Golden.open(folder);
  const inputs = { ...(await golden.inputs()), decoder_input_ids: await golden.rows("decoder_input_ids") };
  const logits: Float32Array[] = [];
  for (const compute_dtype of ["f32", "f16"] as const) {
    const options = { device, compute_dtype, compile: false, on_warning: null } as const;
    const model = await AutoModelForImageTextToText.from_pretrained(folder, options);
    const { outputs, result } = await traceOutputs(device, async () => (await model.forward(inputs)).logits.read());
    logits.push(result);
    const inner = outputs.get("language_model.encoder.block.0.layer.1.DenseReluDense.wi_1")!.data;
    expect(inner.some((value) => Math.abs(value) > 65_504)).toBe(true);
    expect(model.warnings).toEqual([]);
    model.dispose();
  }
  await golden.close();
  const { nmse } = compare(logits[1], logits[0], {});
  expect(nmse).toBeLessThan(1e-5);
  expect(nmse).toBeGreaterThan(1e-12);
});
