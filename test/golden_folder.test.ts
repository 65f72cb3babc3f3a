/** The committed goldens: drawn weights equal PyTorch's bit by bit, required outputs exist, and sizes are small. */
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { widen } from "../src/tensor/dtype.ts";
import { Checkpoint } from "../src/tensor/files/checkpoint.ts";
import { MemorySource } from "../src/tensor/files/source.ts";
import { COMMITTED, COMPOSITES, committedFolder, drawnFiles, goldenFolder, SIBLINGS, sha256 } from "./golden_folder.ts";
import { Golden } from "./parity/golden.ts";

/** The one whose weights are committed besides. */
const STORED = "cross_frequency_3_sharded";
/** Of each family one has the output of every module, the others that of every fourth. */
const WHOLE = ["plain_f32", "t5_flan", "opt_plain", "blip2_opt", "video_1_frame"];

describe.each([...COMPOSITES, ...SIBLINGS])("%s", (name) => {
  const folder = committedFolder(name);

  test("the weights drawn here have the SHA-256 of those PyTorch computed with", () => {
    const { model_sha256 } = JSON.parse(readFileSync(join(folder, "golden.json"), "utf8"));
    const files = Object.entries(drawnFiles(folder));
    expect(Object.fromEntries(files.map(([file, bytes]) => [file, sha256(bytes)]))).toEqual(model_sha256);
    const stored = readdirSync(folder).filter((file) => file.endsWith(".safetensors") && file !== "golden.safetensors");
    expect(stored).toEqual(name === STORED ? Object.keys(model_sha256) : []);
    for (const file of stored) expect(readFileSync(join(folder, file)).equals(drawnFiles(folder)[file])).toBe(true);
  });

  test("outputs of modules are stored, all or every fourth", async () => {
    const golden = await Golden.open(goldenFolder(name));
    const { modules } = golden.json;
    const stored = modules.filter((path) => golden.has(`output:${path}`));
    await golden.close();
    if (WHOLE.includes(name)) expect(stored).toEqual(modules);
    else {
      const first = modules.indexOf(stored[0]);
      expect(stored).toEqual(modules.filter((_, i) => i >= first && (i - first) % 4 === 0));
      expect(first).toBeLessThan(4);
    }
  });
});

test("weights are spread as they say: half beyond 0.67 deviations, some beyond 3", async () => {
  const [file] = Object.values(drawnFiles(committedFolder("plain_f32")));
  const tensor = await (await Checkpoint.open(new MemorySource("model", file))).read(
    "language_model.model.embed_tokens.weight",
  );
  const sizes = widen(tensor, "f32").map(Math.abs); // of a standard deviation of 1
  const beyond = (limit: number) => sizes.filter((size) => size > limit).length / sizes.length;
  expect(beyond(0.6745)).toBeCloseTo(0.5, 1);
  expect(beyond(2)).toBeCloseTo(0.0455, 2);
  expect(beyond(3)).toBeGreaterThan(1e-3);
});

test("all goldens together are at most 12 MB", () => {
  // What the scripts beside them write, so not the scripts.
  const files = readdirSync(COMMITTED, { recursive: true, encoding: "utf8" }).filter(
    (path) => !/__pycache__|\.(py|md)$/.test(path),
  );
  const bytes = files.map((path) => statSync(join(COMMITTED, path))).filter((stat) => stat.isFile());
  expect(bytes.reduce((total, { size }) => total + size, 0)).toBeLessThanOrEqual(12e6);
});
