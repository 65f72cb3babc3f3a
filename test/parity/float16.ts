/**
 * The work of `npm run quality:f16`: what compute_dtype "f16" costs, module by module, beside PyTorch's own float16 run of the
 * same weights (test/golden/float16.json, by test/golden/float16.py). Both run freely from the golden's inputs to its logits; errors are from f64,
 * of which the golden's f32 is as good as a copy here.
 */
import { readFileSync } from "node:fs";
import { AutoModelForImageTextToText, openDevice, traceOutputs } from "../../src/index.node.ts";
import type { Device } from "../../src/tensor/device/device.ts";
import type { ComputeDType } from "../../src/tensor/dtype.ts";
import { compare } from "../compare.ts";
import { goldenFolder } from "../golden_folder.ts";
import { Golden } from "./golden.ts";

/** NMSE of PyTorch's float16 run from its float64 run: by golden and module. */
export const TORCH_F16 = JSON.parse(
  readFileSync(new URL("../golden/float16.json", import.meta.url), "utf8"),
) as Readonly<Record<string, Readonly<Record<string, number>>>>;

/** A module's NMSE from f64. */
export interface ModuleError {
  readonly path: string;
  readonly ours: number;
  readonly torch: number;
}

/** What f32 is off by anyhow, ours and the golden's: where PyTorch's float16 is exact, nothing else can be asked. */
const F32_ROUNDING = 1e-12;

/** Whether a module is at most as far off as PyTorch's float16. A NaN is not. */
export function passes({ ours, torch }: ModuleError): boolean {
  return ours <= Math.max(torch, F32_ROUNDING);
}

/** The error of every module whose output a golden has. */
export async function moduleErrors(
  device: Device,
  name: string,
  compute_dtype: ComputeDType = "f16",
): Promise<ModuleError[]> {
  const golden = await Golden.open(goldenFolder(name));
  const options = { device, compute_dtype, compile: false, on_warning: null } as const;
  const model = await AutoModelForImageTextToText.from_pretrained(golden.folder, options);
  try {
    const inputs = {
      ...(await golden.inputs()),
      ...golden.json.options,
      ...(golden.has("decoder_input_ids") && { decoder_input_ids: await golden.rows("decoder_input_ids") }),
    };
    const { outputs } = await traceOutputs(device, () => model.forward(inputs));
    const errors: ModuleError[] = [];
    for (const [path, torch] of Object.entries(TORCH_F16[name])) {
      const ours = outputs.get(path);
      if (!ours || !golden.has(`output:${path}`)) continue;
      const { data } = await golden.floats(`output:${path}`);
      errors.push({ path, ours: compare(ours.data.subarray(0, data.length), data, {}).nmse, torch });
    }
    return errors;
  } finally {
    model.dispose();
    await golden.close();
  }
}

/** Compares all goldens of which PyTorch's float16 is known and prints a table; the exit code. */
export async function run(): Promise<number> {
  const device = await openDevice();
  console.log(
    `compute_dtype f16 on ${device.caps.description}: root mean square error beside PyTorch's float16, 1 is as large`,
  );
  const table = [["golden", "modules", "median", "largest", "of", "gate"]];
  let failed = 0;
  for (const name of Object.keys(TORCH_F16)) {
    const errors = await moduleErrors(device, name);
    const sorted = errors
      .filter(({ torch }) => torch > F32_ROUNDING)
      .map(({ path, ours, torch }) => ({ path, ratio: Math.sqrt(ours / torch) }))
      .sort((a, b) => a.ratio - b.ratio);
    const worst = sorted.at(-1)!;
    const wrong = errors.filter((error) => !passes(error));
    failed += wrong.length;
    const median = sorted[Math.floor(sorted.length / 2)].ratio;
    const gate = wrong.length ? `FAIL ${wrong.length}` : "ok";
    table.push([name, `${errors.length}`, median.toFixed(2), worst.ratio.toFixed(2), worst.path, gate]);
  }
  const widths = table[0].map((_, column) => Math.max(...table.map((cells) => cells[column].length)));
  for (const cells of table)
    console.log(
      cells
        .map((cell, i) => cell.padEnd(widths[i]))
        .join("  ")
        .trimEnd(),
    );
  device.destroy();
  return failed ? 1 : 0;
}
