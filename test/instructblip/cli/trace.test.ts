/** `trace` on golden models: the tensors it writes against PyTorch's. */
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { EXIT, Interrupted } from "../../../src/instructblip/cli/format.ts";
import { openCheckpoint } from "../../../src/tensor/files/source.node.ts";
import { expectClose } from "../../compare.ts";
import { goldenFolder } from "../../golden_folder.ts";
import type { Golden } from "../../parity/golden.ts";
import { temporaryFolder } from "../../temporary.ts";
import { TOLERANCES } from "../../tolerances.ts";
import { cli, openGolden } from "./cli.ts";

const PLAIN = goldenFolder("plain_f32");
const MAIN = [
  "pixel_values",
  "vision_outputs.last_hidden_state",
  "qformer_outputs.last_hidden_state",
  "image_features",
  "logits",
];

async function trace({ folder, json: { prompts, images } }: Golden, out: string, ...more: string[]) {
  const args = ["trace", "--model", folder, "--image", join(folder, images[0]), "--prompt", prompts[0], "--out", out];
  return cli([...args, ...more]);
}

describe("trace", () => {
  it("writes what PyTorch computes, under its names", async () => {
    const folder = temporaryFolder();
    const out = join(folder, "trace.safetensors");
    const golden = await openGolden(PLAIN);
    const { code, stdout, stderr } = await trace(golden, out);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    const file = await openCheckpoint(out);
    expect([...file.tensors.keys()].sort()).toEqual([...MAIN].sort());
    for (const name of MAIN) {
      const { data, shape } = await golden.floats(name);
      expect(file.tensors.get(name)).toMatchObject({ dtype: "f32", shape });
      const bytes = await file.read(name);
      expectClose(
        new Float32Array(bytes.slice().buffer),
        data,
        name === "pixel_values" ? TOLERANCES.pixels : TOLERANCES.free_running,
        name,
      );
      expect(stdout).toContain(`f32[${shape.join(", ")}]\n`);
    }
    expect(
      stdout
        .trimEnd()
        .split("\n")
        .map((line) => line.split(" ")[0]),
    ).toEqual(MAIN);
    expect(await readdir(folder)).toEqual(["trace.safetensors"]);
    await file.close();
  });

  it("gives a T5's decoder the ids it is told", async () => {
    const out = join(temporaryFolder(), "trace.safetensors");
    const golden = await openGolden(goldenFolder("t5_odd_f16"));
    const [ids] = await golden.rows("decoder_input_ids");
    expect(await trace(golden, out, "--decoder-input-ids", ids.join(","))).toMatchObject({ code: 0, stderr: "" });
    const { data, shape } = await golden.floats("logits");
    let file = await openCheckpoint(out);
    expect(file.tensors.get("logits")!.shape).toEqual(shape);
    expectClose(new Float32Array((await file.read("logits")).slice().buffer), data, TOLERANCES.free_running, "logits");
    await file.close();
    // Without ids the start token alone: the first row of the same logits.
    expect(await trace(golden, out)).toMatchObject({ code: 0, stderr: "" });
    file = await openCheckpoint(out);
    const first = data.subarray(0, shape[2]);
    expectClose(new Float32Array((await file.read("logits")).slice().buffer), first, TOLERANCES.free_running, "start");
    await file.close();
  });

  it("writes what the model goes on with after interventions", async () => {
    const folder = temporaryFolder();
    const [out, file] = [join(folder, "trace.safetensors"), join(folder, "interventions.json")];
    const golden = await openGolden(PLAIN);
    await writeFile(file, JSON.stringify([{ module: "language_projection", op: "set", value: 0.5 }]));
    const traced = await trace(golden, out, "--all", "--interventions", file);
    expect(traced).toMatchObject({ code: 0, stderr: "" });
    const checkpoint = await openCheckpoint(out);
    const floats = async (name: string) => new Float32Array((await checkpoint.read(name)).slice().buffer);
    for (const name of ["language_projection", "image_features"]) {
      expect(new Set(await floats(name)), name).toEqual(new Set([0.5]));
    }
    expect(await floats("logits")).not.toEqual((await golden.floats("logits")).data);
    await checkpoint.close();
    await writeFile(file, "[");
    expect(await trace(golden, out, "--interventions", file)).toMatchObject({
      code: EXIT.refused,
      stderr: expect.stringMatching(/--interventions .*interventions.json: the file is not valid JSON/),
    });
  });

  it("writes every module with --all", async () => {
    const out = join(temporaryFolder(), "trace.safetensors");
    const golden = await openGolden(goldenFolder("cross_frequency_1"));
    expect(await trace(golden, out, "--all")).toMatchObject({ code: 0, stderr: "" });
    const file = await openCheckpoint(out);
    const expected = golden.json.modules.filter((path) => path !== "" && !/dropout$|rotary_emb$/.test(path));
    expect(expected.length).toBeGreaterThan(100);
    expect([...file.tensors.keys()]).toEqual(expect.arrayContaining([...MAIN, ...expected]));
    const known = expected.filter((path) => golden.has(`output:${path}`));
    expect(known.length).toBeGreaterThan(20);
    for (const path of known) {
      const { data, shape } = await golden.floats(`output:${path}`);
      expect(file.tensors.get(path)!.shape, path).toEqual(shape);
      expectClose(new Float32Array((await file.read(path)).slice().buffer), data, TOLERANCES.free_running, path);
    }
    await file.close();
  });

  it("leaves an old file alone when it is interrupted or refused", async () => {
    const folder = temporaryFolder();
    const out = join(folder, "trace.safetensors");
    await writeFile(out, "old");
    const golden = await openGolden(PLAIN);
    const refused = await trace(golden, out, "--decoder-input-ids", "0,5");
    expect(refused).toMatchObject({ code: 1, stdout: "" });
    expect(refused.stderr).toMatch(/--decoder-input-ids: .*llama.* no decoder of its own\n {4}hint: .*encoder-decoder/);
    const missing = await trace(golden, join(folder, "none", "x.safetensors"));
    expect(missing).toMatchObject({ code: 1, stdout: "" });
    expect(missing.stderr).toMatch(/there is no folder/);
    expect((await trace(golden, folder)).stderr).toMatch(/this is a folder; give a file name/);
    expect(await readdir(folder)).toEqual(["trace.safetensors"]);
    expect(await readFile(out, "utf8")).toBe("old");
  });

  it("exits as interrupted when nobody reads its table", async () => {
    const out = join(temporaryFolder(), "trace.safetensors");
    const args = ["trace", "--model", PLAIN, "--image", join(PLAIN, "image_0.png"), "--prompt", "a", "--out", out];
    const { code } = await cli(args, {
      onOut: () => {
        throw new Interrupted(EXIT.sigpipe);
      },
    });
    expect(code).toBe(EXIT.sigpipe);
  });
});
