/** `compare`, of files and of settings. test/golden/traces are PyTorch's, by scripts/trace_pytorch.py. */
import { readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { describe, expect, it } from "vitest";
import { EXIT } from "../../../src/instructblip/cli/format.ts";
import { COMMITTED, goldenFolder } from "../../golden_folder.ts";
import { ALL } from "../../rounds.ts";
import { temporaryFolder } from "../../temporary.ts";
import { cli, ROOT } from "./cli.ts";

const TORCH = join(COMMITTED, "traces/opt_plain.safetensors");
const FOLDER = goldenFolder("opt_plain");
const QUESTION = ["--model", FOLDER, "--image", join(FOLDER, "image_0.png"), "--prompt", "Is the CIRCLE above?"];

const compare = (...args: string[]) => cli(["compare", ...args]);

/** A file of one intervention. */
async function fault(intervention: object): Promise<string> {
  const file = join(temporaryFolder(), "fault.json");
  await writeFile(file, JSON.stringify([intervention]));
  return file;
}

describe("compare", () => {
  it("says in one line that a trace of PyTorch is equal", async () => {
    const { code, stdout, stderr } = await compare(TORCH, "default", ...QUESTION);
    expect({ code, stderr }).toEqual({ code: EXIT.ok, stderr: "" });
    expect(stdout).toMatch(
      /^equal: 132 tensors of \S+\/opt_plain.safetensors and default, within 1.0e-9; largest NMSE .*\n$/,
    );
  });

  it("names the module that a fault is in, and nothing before it", async () => {
    const module = "qformer.encoder.layer.1.output_query.dense";
    const setting = `interventions=${await fault({ module, op: "scale", value: 1.01 })}`;
    const { code, stdout } = await compare(TORCH, setting, ...QUESTION, "--json", "-");
    expect(code).toBe(EXIT.different);
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
    const to = ["--top", "3", "--statistics", "--json", out, "--html", page];
    const { code, stdout } = await compare(TORCH, `interventions=${file}`, ...QUESTION, ...to);
    expect(code).toBe(EXIT.different);
    expect(stdout).toContain(`first: ${module}.out_proj (input), NMSE `);
    expect(stdout.split("\n").filter((line) => line.endsWith("  differs"))).toHaveLength(3);
    expect(stdout).toMatch(/\ntensor +shape +min +max +mean +rms +zeros +NaN +infinite\n/);
    expect(JSON.parse(await readFile(out, "utf8"))).toMatchObject({ first_different: `input:${module}.out_proj` });
    expect(await readFile(page, "utf8")).toContain(`<li class="first">first: ${module}.out_proj (input), NMSE `);
  });

  it("filters by module, with its inputs and every run", async () => {
    const { code, stdout } = await compare(TORCH, TORCH, "--filter", "vision_model.post_*", "--top", "0");
    expect(code).toBe(EXIT.ok);
    const names = [...stdout.matchAll(/^vision_model\S*( \(input\))?/gm)].map(([name]) => name);
    const norm = "vision_model.post_layernorm";
    expect(names).toEqual([norm, `${norm}#2 (input)`, `${norm}#2`]);
  });

  it("compares passes of generate(), in which there is a key/value cache", async () => {
    const { code, stdout } = await compare("default", "kv_cache_dtype=f16", ...QUESTION, "--steps", "2", "--top", "0");
    expect(code).toBe(EXIT.different);
    expect(stdout).toContain("first: language_model.model.decoder.layers.0.self_attn.out_proj (input), NMSE");
    expect(stdout).toMatch(/\nlanguage_model\.lm_head#2 /);
  });

  it.runIf(ALL)("compares kernel variants: other sums, the same numbers but for rounding", async () => {
    const { code, stdout } = await compare("default", "plan=linear=tile,attention=composed", ...QUESTION);
    expect(code).toBe(EXIT.ok);
    expect(stdout).toMatch(/^equal: .*; largest NMSE /);
    expect(stdout).not.toContain("bit by bit");
  });

  it("bisects: what a module does with PyTorch's input, so that a fault stands alone", async () => {
    const module = "vision_model.encoder.layers.0.mlp.fc1";
    const setting = `interventions=${await fault({ module, op: "add", value: 0.1 })}`;
    const { code, stdout } = await compare(TORCH, setting, ...QUESTION, "--bisect", "--top", "1");
    expect(code).toBe(EXIT.different);
    expect(stdout).toMatch(
      /\n1 of 132 tensors are wrong by themselves, given A's inputs: an NMSE above 1.0e-9\nfirst: /,
    );
    expect(stdout).toContain(`\nfirst: ${module}, NMSE `);
    expect(stdout).not.toContain("worst:");
    expect(stdout).toMatch(/\ntensor +NMSE +max \|Δ\| +at +A there +B there +cosine\n/);
  });

  it.runIf(ALL)("bisects: no module of ours is wrong by itself", async () => {
    const clean = await compare(TORCH, "default", ...QUESTION, "--bisect");
    expect(clean.code).toBe(EXIT.ok);
    expect(clean.stdout).toMatch(
      /^equal: 132 tensors .* given A's inputs, within 1.0e-9; largest NMSE \d\.\de-1[3-5], /,
    );
  });

  it.runIf(ALL)("says that a dtype meets a gate", async () => {
    const { code, stdout } = await compare("default", "dtype=f32", ...QUESTION, "--bisect", "--gate", "0");
    expect({ code, stdout }).toEqual({
      code: EXIT.ok,
      stdout: expect.stringMatching(/; bit by bit\n\ngate: an NMSE of the logits of at most 0; dtype=f32 gives 0\n$/),
    });
  });

  it.runIf(ALL)("finds the modules that need more bits, and the dtype that meets the gate", async () => {
    const args = ["dtype=int4", ...QUESTION, "--bisect", "--gate", "2e-3", "--json", "-"];
    const { code, stdout } = await compare("default", ...args);
    expect(code).toBe(EXIT.different);
    const { precision } = JSON.parse(stdout);
    expect(precision).toMatchObject({ met: false, more: "int8", gate: 2e-3 });
    expect(precision.nmse).toBeLessThanOrEqual(2e-3);
    expect(precision.before).toBeGreaterThan(2e-3);
    // As written it meets the gate; with one module fewer it does not.
    const gateWith = async (dtype: Record<string, string>) => {
      const text = Object.entries(dtype).map((pair) => pair.join("="));
      const again = await compare("default", `dtype=${text}`, ...QUESTION, "--bisect", "--gate", "2e-3", "--json", "-");
      return JSON.parse(again.stdout).precision;
    };
    expect(await gateWith(precision.dtype)).toMatchObject({ met: true, before: precision.nmse });
    const { [precision.modules.at(-1).path]: _, ...fewer } = precision.dtype;
    expect(await gateWith(fewer)).toMatchObject({ met: false });
  });

  it.each([
    [["default", TORCH], /required option '--model/],
    [["dtyp=f16", TORCH, ...QUESTION], /did you mean dtype/],
    [["kv_cache_dtype=f16", TORCH, ...QUESTION], /--steps 4/],
    [[TORCH, TORCH, "--prompt", "a"], /'--prompt <text>' is for settings/],
    [["default", TORCH, ...QUESTION, "--bisect"], /needs a setting as b/],
    [[TORCH, "dtype=int8", ...QUESTION, "--gate", "1"], /is for --bisect/],
    [[TORCH, "default", ...QUESTION, "--bisect", "--gate", "1"], /needs a dtype in b/],
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

it("prints what docs/compare.md shows, but for the last digits of another adapter", async () => {
  const page = await readFile(join(ROOT, "docs/compare.md"), "utf8");
  const [, command, listing] = /```sh\nnpm run -s instructblip -- (compare [^\n]*)\n```\n\n```\n(.*?)```/s.exec(page)!;
  const args = [...command.matchAll(/"([^"]*)"|\S+/g)].map(([word, quoted]) => quoted ?? word);
  const { stdout } = await cli(args.map((arg) => (arg.startsWith("examples/") ? join(ROOT, arg) : arg)));
  const words = (text: string) => text.split(/[\s,()[\]]+/);
  const [ours, shown] = [words(stdout), words(listing)];
  expect(ours).toHaveLength(shown.length);
  for (const [i, word] of shown.entries()) {
    if (Number.isNaN(Number(word))) expect(ours[i]).toBe(word);
    else expect(Math.abs(Number(ours[i]) - Number(word)), word).toBeLessThanOrEqual(0.1 * Math.abs(Number(word)));
  }
});
