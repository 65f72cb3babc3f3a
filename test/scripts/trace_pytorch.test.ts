/** scripts/trace_pytorch.py writes what the committed trace has, where there is a Python with PyTorch. */
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { expect, test } from "vitest";
import { EXIT } from "../../src/instructblip/cli/format.ts";
import { COMMITTED, goldenFolder } from "../golden_folder.ts";
import { cli, ROOT } from "../instructblip/cli/cli.ts";
import { pythonThere } from "../parity/python.ts";
import { temporaryFolder } from "../temporary.ts";

const python = pythonThere();
const reason = python ? "" : " (skipped: no PyTorch; npm run parity makes .venv, or set INSTRUCTBLIP_PYTHON)";

test.skipIf(!python)(`a trace of PyTorch is as the committed one${reason}`, { timeout: 300_000 }, async () => {
  const out = join(temporaryFolder(), "torch.safetensors");
  const folder = goldenFolder("opt_plain");
  const question = ["--model", folder, "--image", join(folder, "image_0.png"), "--prompt", "Is the CIRCLE above?"];
  const script = join(ROOT, "scripts/trace_pytorch.py");
  const { status, stderr } = spawnSync(python!, [script, ...question, "--out", out], { encoding: "utf8" });
  expect(stderr).toMatch(/torch\.safetensors: \d+ tensors$/m);
  expect(status).toBe(0);
  // Another version of PyTorch may round otherwise.
  const { code, stdout } = await cli(["compare", join(COMMITTED, "traces/opt_plain.safetensors"), out]);
  expect(stdout).toMatch(/^equal: 131 tensors/);
  expect(code).toBe(EXIT.ok);
});
