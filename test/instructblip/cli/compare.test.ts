/** `compare`, of files and of settings. test/golden/traces are PyTorch's, by scripts/trace_pytorch.py. */
import { readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { describe, expect, it } from "vitest";
import { EXIT } from "../../../src/instructblip/cli/format.ts";
import { COMMITTED, goldenFolder } from "../../golden_folder.ts";
import { cli, temporaryFolder } from "./cli.ts";

const TORCH = join(COMMITTED, "traces/opt_plain.safetensors");
const FOLDER = goldenFolder("opt_plain");
const QUESTION = ["--model", FOLDER, "--image", join(FOLDER, "image_0.png"), "--prompt", "Is the CIRCLE above?"];

const compare = (...args: string[]) => cli(["compare", ...args]);

/** A file of one intervention. */
async function fault(intervention: object): Promise<string> {
  const file = join(await temporaryFolder(), "fault.json");
  await writeFile(file, JSON.stringify([intervention]));
  return file;
}

describe("compare", () => {
  it("says in one line that a trace of PyTorch is equal", async () => {
    const { code, stdout, stderr } = await compare(TORCH, "default", ...QUESTION);
    expect({ code, stderr }).toEqual({ code: EXIT.ok, stderr: "" });
    expect(stdout).toMatch(
      /^equal: 133 tensors of opt_plain.safetensors and default, within 1.0e-9; largest NMSE .*\n$/,
    );
  });

  it("names the module that a fault is in, and nothing before it", async () => {
    const module = "qformer.encoder.layer.1.output_query.dense";
    const setting = `interventions=${await fault({ module, op: "scale", value: 1.01 })}`;
    const { code, stdout } = await compare(TORCH, setting, ...QUESTION, "--json", "-");
    expect(code).toBe(EXIT.refused);
    const found = JSON.parse(stdout);
    expect(found).toMatchObject({ equal: false, first_different: module, first_not_finite: null, ordered: true });
    const at = found.tensors.findIndex(({ name }: { name: string }) => name === module);
    expect(found.tensors[at].nmse).toBeCloseTo(1e-4, 6);
    expect(found.tensors[at].inherited).toBeLessThan(1e-11);
    const before = found.tensors.slice(0, at).map(({ nmse }: { nmse: number }) => nmse);
    expect(Math.max(...before)).toBeLessThan(1e-11);
  });

  it("names what no module returns by the module that gets it: here an attention's heads", async () => {
    const module = "language_model.model.decoder.layers.1.self_attn";
    const file = await fault({ module, at: "heads", op: "zero", index: { head: [1] } });
    const [out, page] = ["out.json", "out.html"].map((name) => join(dirname(file), name));
    const to = ["--top", "3", "--json", out, "--html", page];
    const { code, stdout } = await compare(TORCH, `interventions=${file}`, ...QUESTION, ...to);
    expect(code).toBe(EXIT.refused);
    expect(stdout).toContain(`first: ${module}.out_proj (input), NMSE `);
    expect(stdout.split("\n").filter((line) => line.endsWith("  differs"))).toHaveLength(3);
    expect(JSON.parse(await readFile(out, "utf8"))).toMatchObject({ first_different: `input:${module}.out_proj` });
    expect(await readFile(page, "utf8")).toContain(`<li class="first">first: ${module}.out_proj (input), NMSE `);
  });

  it("compares two settings, one after the other", async () => {
    const args = ["default", "dtype=language_model=int8", ...QUESTION, "--tolerance", "1e-9", "--statistics"];
    const { code, stdout, stderr } = await compare(...args);
    expect({ code, stderr }).toEqual({ code: EXIT.refused, stderr: "" });
    expect(stdout).toMatch(/^A {2}default\nB {2}dtype=language_model=int8\n\d+ of \d+ tensors differ/);
    expect(stdout).toMatch(/\nfirst: language_model\.model\.decoder\.embed_tokens, NMSE/);
    expect(stdout).toMatch(/tensor +shape +min +max +mean +rms +zeros +NaN +infinite\n/);
  });

  it("compares passes of generate(), in which there is a key/value cache", async () => {
    const { code, stdout } = await compare("default", "kv_cache_dtype=f16", ...QUESTION, "--steps", "2", "--top", "0");
    expect(code).toBe(EXIT.refused);
    expect(stdout).toContain("first: language_model.model.decoder.layers.0.self_attn.out_proj (input), NMSE");
    expect(stdout).toMatch(/\nlanguage_model\.lm_head#2 /);
  });

  it("compares kernel variants: other sums, the same numbers but for rounding", async () => {
    const { code, stdout } = await compare("default", "plan=linear=tile,attention=composed", ...QUESTION);
    expect(code).toBe(EXIT.ok);
    expect(stdout).toMatch(/^equal: .*; largest NMSE /);
    expect(stdout).not.toContain("bit by bit");
  });

  it.each([
    [["default", TORCH], /required option '--model/],
    [["dtyp=f16", TORCH, ...QUESTION], /did you mean dtype/],
    [["kv_cache_dtype=f16", TORCH, ...QUESTION], /--steps 4/],
    [[TORCH, TORCH, "--prompt", "a"], /'--prompt <text>' is for settings/],
    [[TORCH], /missing required argument 'b'/],
    [[TORCH, TORCH, "--tolerance", "-1"], /at least 0/],
  ])("refuses a wrong command line, case %#", async (args, message) => {
    const { code, stdout, stderr } = await compare(...args);
    expect({ code, stdout }).toEqual({ code: EXIT.usage, stdout: "" });
    expect(stderr).toMatch(message);
  });

  it.each([
    [[join(FOLDER, "config.json"), TORCH], /config.json: this is bare JSON/],
    [["none.safetensors", TORCH], /none.safetensors: no such file/],
    [[TORCH, join(FOLDER, "model.safetensors")], /have no tensor in common/],
    [[TORCH, TORCH, "--filter", "qformer.no.*"], /--filter matches no tensor/],
  ])("refuses what cannot be compared, case %#", async (args, message) => {
    const { code, stdout, stderr } = await compare(...args);
    expect({ code, stdout }).toEqual({ code: EXIT.refused, stdout: "" });
    expect(stderr).toMatch(message);
  });
});
