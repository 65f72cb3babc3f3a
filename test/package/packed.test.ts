/**
 * The package as users have it: built, packed, installed into an empty project and used there. Its dependencies are linked
 * from the repository's node_modules; with INSTRUCTBLIP_TEST_INSTALL=1 or INSTRUCTBLIP_TEST_ALL=1 (`npm run test:all`) npm
 * installs it all, as a user's would.
 */
import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build, transformSync } from "esbuild";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { PATIENT } from "../compiled.ts";
import { withoutDawn } from "../dawn.ts";
import { goldenFolder } from "../golden_folder.ts";
import { ALL } from "../rounds.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const NAME = "instructblip-webgpu";
const MODULES = join(ROOT, "node_modules");

/** An empty project outside of the repository, in which nothing is found but what is put there. */
const project = mkdtempSync(join(tmpdir(), "instructblip-packed-"));
const installed = join(project, "node_modules", NAME);
let tarball: string;

afterAll(() => rmSync(project, { recursive: true, force: true }));

interface Outcome {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

function run(command: string, args: readonly string[], env: Record<string, string> = {}): Outcome {
  const options = { cwd: project, encoding: "utf8", env: { ...process.env, ...PATIENT, ...env } } as const;
  const { status, stdout, stderr, error } = spawnSync(command, args, options);
  if (error) throw error;
  return { status, stdout, stderr: withoutDawn(stderr) };
}

const node = (...args: string[]) => run(process.execPath, args);
/** As npx runs it. */
const bin = (name: string, args: readonly string[], env?: Record<string, string>) =>
  run(join(project, "node_modules/.bin", name), args, env);

const readJson = (path: string) => JSON.parse(readFileSync(path, "utf8"));

/** What npm would install for the package, as links: its dependencies and theirs, optional ones where they are. */
function linkDependencies(manifest: { dependencies?: object; optionalDependencies?: object }): void {
  for (const name of Object.keys({ ...manifest.dependencies, ...manifest.optionalDependencies })) {
    const link = join(project, "node_modules", name);
    try {
      const theirs = readJson(join(MODULES, name, "package.json"));
      mkdirSync(dirname(link), { recursive: true });
      symlinkSync(join(MODULES, name), link, "dir");
      linkDependencies(theirs);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code !== "EEXIST" && !(code === "ENOENT" && name in (manifest.optionalDependencies ?? {}))) throw error;
    }
  }
}

beforeAll(() => {
  writeFileSync(join(project, "package.json"), '{ "name": "empty", "private": true }\n');
  // In the worst of surroundings: no script is run.
  const env = { ...process.env, npm_config_ignore_scripts: "true" };
  tarball = execFileSync(process.execPath, ["scripts/pack.mjs", project], { cwd: ROOT, encoding: "utf8", env }).trim();
  if (ALL || process.env.INSTRUCTBLIP_TEST_INSTALL === "1") {
    execFileSync("npm", ["install", "--no-audit", "--no-fund", tarball], { cwd: project, stdio: "pipe" });
    return;
  }
  mkdirSync(installed, { recursive: true });
  execFileSync("tar", ["-xzf", tarball, "-C", installed, "--strip-components", "1"]);
  const manifest = readJson(join(installed, "package.json"));
  linkDependencies(manifest);
  mkdirSync(join(project, "node_modules/.bin"));
  for (const [name, path] of Object.entries<string>(manifest.bin)) {
    const link = join(project, "node_modules/.bin", name);
    symlinkSync(join(installed, path), link);
    execFileSync("chmod", ["+x", link]);
  }
}, 120_000);

describe("the tarball", () => {
  test("can be published, unlike the repository", () => {
    expect(readJson(join(ROOT, "package.json")).private).toBe(true);
    expect(readJson(join(installed, "package.json")).private).toBeUndefined();
  });

  test("needs nothing of the repository", () => {
    expect(readdirSync(installed).sort()).toEqual(
      ["CHANGELOG.md", "LICENSE", "README.md", "dist", "examples", "kernels", "package.json", "scripts"].sort(),
    );
    expect(readdirSync(join(installed, "scripts")).sort()).toEqual(["setup", "setup.mjs"]);
    expect(readdirSync(join(installed, "examples/shapes")).sort()).toEqual(["README.md", "checkpoint", "images"]);
  });

  test("is well-formed in publint's eyes, and its types in attw's, but for require()", async () => {
    const { publint } = await import("publint");
    const { messages } = await publint({ pkgDir: installed, strict: true, pack: false });
    expect(messages).toEqual([]);
    // .attw.json says that the package is an ES module alone, on purpose.
    const attw = spawnSync(process.execPath, [join(MODULES, "@arethetypeswrong/cli/dist/index.js"), tarball], {
      cwd: ROOT,
      encoding: "utf8",
    });
    expect(attw.status, attw.stdout + attw.stderr).toBe(0);
  });

  test("has maps that say the source themselves", () => {
    const files = readdirSync(join(installed, "dist"), { recursive: true, encoding: "utf8" });
    const maps = files.filter((name) => name.endsWith(".js.map"));
    expect(maps.length).toBeGreaterThan(100);
    for (const name of maps) {
      const { sources, sourcesContent } = readJson(join(installed, "dist", name));
      expect(sources, name).toHaveLength(1);
      expect(sourcesContent?.[0].length, name).toBeGreaterThan(0);
      const script = readFileSync(join(installed, "dist", name.slice(0, -".map".length)), "utf8");
      expect(script).toMatch(/\n\/\/# sourceMappingURL=\S+\.js\.map\s*$/);
    }
    writeFileSync(join(project, "throw.mjs"), `import { Tensor } from "${NAME}"; Tensor.prototype.read.call({});`);
    expect(node("--enable-source-maps", "throw.mjs").stderr).toMatch(/src\/tensor\/tensor\.ts:\d+/);
  });
});

describe("a program", () => {
  const USE = "new InstructBlipConfig().num_query_tokens, typeof openDevice, typeof NodeFolder";

  test("imports it", () => {
    const text = `import { InstructBlipConfig, openDevice, NodeFolder } from "${NAME}"; console.log(${USE});`;
    writeFileSync(join(project, "use.mjs"), text);
    expect(node("use.mjs")).toEqual({ status: 0, stdout: "32 function function\n", stderr: "" });
  });

  test("requires it", () => {
    const text = `const { InstructBlipConfig, openDevice, NodeFolder } = require("${NAME}"); console.log(${USE});`;
    writeFileSync(join(project, "use.cjs"), text);
    expect(node("use.cjs")).toMatchObject({ status: 0, stdout: "32 function function\n" });
  });

  test("answers a question", () => {
    const text = `
      import { AutoModelForImageTextToText, AutoProcessor, openDevice } from "${NAME}";
      const shapes = "node_modules/${NAME}/examples/shapes";
      const device = await openDevice();
      const processor = await AutoProcessor.from_pretrained(shapes + "/checkpoint");
      const model = await AutoModelForImageTextToText.from_pretrained(shapes + "/checkpoint", { device });
      const inputs = await processor({ images: [shapes + "/images/a.png"], text: ["What color is the square?"] });
      const sequences = await model.generate({ ...inputs, max_new_tokens: 8, return_full_text: false });
      console.log(processor.batch_decode(sequences, { skip_special_tokens: true })[0]);
      process.exit();`;
    writeFileSync(join(project, "answer.mjs"), text);
    expect(node("answer.mjs")).toEqual({ status: 0, stdout: "orange\n", stderr: "" });
  });
});

test("its doctor finds kernels, references and the embedded checkpoint", () => {
  const args = ["doctor", "--quick", "--filter", "^(scale|answers int8)"];
  const { status, stdout, stderr } = bin("instructblip-webgpu", args);
  expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
  expect(stdout).toMatch(/^ok {5}scale \*.*\nok {5}answers int8 weights \* +7 right\n/);
  expect(stdout).toMatch(/^verdict +this adapter computes right$/m);
});

/** The program of all listings but those of docs/from_transformers.md, as TypeScript. */
const PROGRAM = "listings.mts";

/** The listings of a page. */
const listingsOf = (page: string) =>
  [...readFileSync(join(ROOT, page), "utf8").matchAll(/^```ts\n(.*?)^```$/gms)].map(([, code]) => code);

describe("README and docs", () => {
  const PAGES = ["README.md", ...readdirSync(join(ROOT, "docs")).map((name) => `docs/${name}`)].filter((path) =>
    path.endsWith(".md"),
  );

  const IMPORT = /^import \{ (.*?) \} from "instructblip-webgpu(\/tensor)?";\n/gm;
  const opensDevice = (page: string) => listingsOf(page).some((code) => code.includes("openDevice()"));

  /** A page's listings in blocks: if it opens a device, they are in the block of the first, which does. */
  function blockOf(page: string, ...after: readonly string[]): string {
    const blocks = listingsOf(page).map((code) => `{\n${code.replace(IMPORT, "")}}\n`);
    const inOrder = opensDevice(page) ? [blocks[0].replace(/\}\n$/, ""), ...blocks.slice(1)] : blocks;
    const text = [inOrder.join('console.log("\\n--");\n'), ...after].join('console.log("\\n==");\n');
    return opensDevice(page) ? `${text}}\n` : text;
  }

  /**
   * One program of all pages: what they import, and their listings; of those that open no device, in the block of README's.
   * Paths are those of the embedded checkpoint.
   */
  function programOf(pages: readonly string[]): string {
    const imports = pages.flatMap((page) => listingsOf(page).flatMap((code) => [...code.matchAll(IMPORT)]));
    const importsFrom = (part: string) => {
      const names = new Set(imports.flatMap(([, list, from = ""]) => (from === part ? list.split(", ") : [])));
      return names.size === 0 ? "" : `import { ${[...names].join(", ")} } from "${NAME}${part}";\n`;
    };
    const shapes = join(installed, "examples/shapes");
    const [readme, ...others] = pages;
    const within = others.filter((page) => !opensDevice(page)).map((page) => blockOf(page));
    const beside = others.filter(opensDevice).map((page) => blockOf(page));
    const text = [blockOf(readme, ...within), ...beside]
      .join('console.log("\\n==");\n')
      .replaceAll("from_pretrained(dir", `from_pretrained(${JSON.stringify(join(shapes, "checkpoint"))}`)
      .replaceAll('"photo.jpg"', JSON.stringify(join(shapes, "images/a.png")))
      .replaceAll('"cat.jpg"', JSON.stringify(join(shapes, "images/a.png")))
      .replaceAll('"dog.jpg"', JSON.stringify(join(shapes, "images/b.png")))
      .replaceAll('"Salesforce/blip2-itm-vit-g"', JSON.stringify(goldenFolder("itm")))
      .replaceAll("10_000", "600_000") // a slow machine's
      .replaceAll('"qformer.**"', ALL ? '"qformer.**"' : '"qformer.layers"');
    return `${importsFrom("")}${importsFrom("/tensor")}\n${text}`;
  }

  /** Has https://example.org/instructblip serve the embedded checkpoint. */
  const SERVER = `
    import { readFileSync, existsSync } from "node:fs";
    const around = globalThis.fetch;
    globalThis.fetch = async (url, { method, headers } = {}) => {
      const [, name] = /^https:..example.org.instructblip.(.*)$/.exec(String(url)) ?? [];
      if (name === undefined) return around(url, { method, headers });
      const path = "node_modules/${NAME}/examples/shapes/checkpoint/" + name;
      if (!existsSync(path)) return new Response(null, { status: 404 });
      const bytes = readFileSync(path);
      const [, from, to] = /bytes=(\\d+)-(\\d*)/.exec(new Headers(headers).get("range")) ?? [];
      const part = from === undefined ? bytes : bytes.subarray(Number(from), to ? Number(to) + 1 : undefined);
      const range = "bytes " + from + "-" + (Number(from) + part.length - 1) + "/" + bytes.length;
      const extra = from === undefined ? {} : { "content-range": range };
      const length = { "content-length": String(part.length), "accept-ranges": "bytes", ...extra };
      return new Response(method === "HEAD" ? null : part, { status: from === undefined ? 200 : 206, headers: length });
    };`;

  /** What they print, page by page as programOf has them. */
  const SHOWN: Readonly<Record<string, readonly RegExp[]>> = {
    "README.md": [/^\[\s*['"].*\w.*['"]\s*\]\n$/s],
    "docs/interpretability.md": [
      /^qformer.encoder.layer.0.crossattention \[ 1, 12, 128 \]\nqformer.encoder.layer.2.crossattention \[ 1, 12, 128 \]\n$/,
      /^(\w+ -\d.*\n)+sum: -\d.*\n$/,
      /^(.*: (.*, ){4}.*\n)+(\d+ \[.*\]\n){12}$/,
      /^(\S+: row \d, column \d\n)+(\S+( -?\d+\.\d\d)+\n){7}$/,
      /^\[\s*['"]/,
      /^(without query \d+: .* instead of .*\n)*done\n$/,
      /^(cut from layer \d on: .*\n){4}$/,
      /^((qformer\.(layers|heads|queries)|language_model\.heads) \w+( cross| self)? [\w-]+ -\d+\.\d\d\n){5}$/,
      /^(query \d+, (\d|projection): -?\d+ %\n){5}$/,
      /^grey image: -[\d.]+\n(qformer.encoder.layer.\d restored: -?[\d.]+\n){4}$/,
      /^\[\s*['"]/,
      /^language_model.model.layers.3 step 2 token \d+: 1,1,128\n$/,
      /^\[\s*['"]/,
    ],
    "docs/model.md": [/shape: \[ 1, 12, 128 \]/],
    "docs/profiling.md": [/^\d+ launches\n([\w.()]+ [\d.]+ (launch|arithmetic|memory|cache)\n){3}true\n$/],
    "docs/usage.md": [
      /^$/,
      /^\[ .* \]\n$/, // of two images
      /^[\w ]+$/, // streamed
      /^\{ passes: \d+, draft_tokens: \d+, accepted_tokens: \d+ \}\n$/,
      /^the likelier of both: (yes|no), negative log-likelihoods [\d.]+,[\d.]+\n$/,
      /^Float32Array\(2\) .*Float32Array\(1\)/s,
      /Tensor/,
      /shape: \[ .*data: Float32Array/s,
      /^12\n$/,
    ],
  };

  /** Its listings, on three checkpoints, are run by a test of their own. */
  const ELSEWHERE = ["docs/from_transformers.md"];

  test("have listings that run, on every page that has any", () => {
    const pages = PAGES.filter((page) => listingsOf(page).length > 0);
    expect(pages.sort()).toEqual([...Object.keys(SHOWN), ...ELSEWHERE].sort());
  });

  let outcome: Outcome;
  beforeAll(() => {
    const program = programOf(Object.keys(SHOWN));
    const host = "declare const process: { stdout: { write(text: string): void } };";
    writeFileSync(join(project, PROGRAM), `${program}\n${host}\n`);
    const { code } = transformSync(program, { loader: "ts", target: "es2022" });
    writeFileSync(join(project, "listings.mjs"), `${SERVER}\n${code}\nprocess.exit();`);
    outcome = node("listings.mjs");
  });

  test("have listings that fail nowhere", () => {
    expect({ status: outcome.status, stderr: outcome.stderr }).toEqual({ status: 0, stderr: "" });
  });

  test.each(Object.keys(SHOWN).map((page, i) => [page, i] as const))(
    "the listings of %s print what they say",
    (page, i) => {
      const outputs = (outcome.stdout.split("\n==\n")[i] ?? "").split("\n--\n");
      expect(outputs).toHaveLength(SHOWN[page].length);
      outputs.forEach((output, i) => {
        expect(output).toMatch(SHOWN[page][i]);
      });
    },
  );
});

describe("TypeScript, strict, with the libraries' types checked", () => {
  const MODULE = `
    import { AutoModelForImageTextToText, AutoProcessor, type Device, openDevice, TextIteratorStreamer } from "${NAME}";
    export async function ask(dir: string): Promise<string[]> {
      const device: Device = await openDevice({ memory_budget: 2 ** 30, adapter: undefined });
      const processor = await AutoProcessor.from_pretrained(dir);
      const model = await AutoModelForImageTextToText.from_pretrained(dir, { device, dtype: "int8" });
      const inputs = await processor({ images: ["photo.jpg"], text: ["What is this?"] });
      const streamer = new TextIteratorStreamer(processor.tokenizer, { skip_prompt: true });
      const sequences: number[][] = await model.generate({ ...inputs, max_new_tokens: 3, streamer });
      return processor.batch_decode(sequences, { skip_special_tokens: true });
    }
    export const lost: Promise<GPUDeviceLostInfo> | undefined = undefined;\n`;
  const COMMON_JS = `
    import { InstructBlipConfig } from "${NAME}";
    export const queries: number = new InstructBlipConfig().num_query_tokens;\n`;

  const COMPILERS = { 5: "typescript/bin/tsc", 7: "@typescript/native/bin/tsc" };
  /** Libraries, but not TypeScript's own, which take longer than all others. TypeScript 6 and 7 declare WebGPU themselves, which clashes with @webgpu/types: they are not to check libraries. */
  const tsc = (version: keyof typeof COMPILERS, files: readonly string[], ...options: string[]) =>
    node(
      join(MODULES, COMPILERS[version]),
      ...["--noEmit", "--strict", "--skipLibCheck", `${version === 7}`, "--skipDefaultLibCheck"],
      ...["--exactOptionalPropertyTypes", "false", "--noUncheckedIndexedAccess"],
      ...["--target", "es2022", ...options, ...files],
    );

  const LISTINGS = listingsOf("docs/from_transformers.md");
  const listings = LISTINGS.map((_, i) => `listing_${i}.mts`);

  beforeAll(() => {
    LISTINGS.forEach((code, i) => {
      writeFileSync(join(project, listings[i]), code);
    });
    writeFileSync(join(project, "use.mts"), MODULE);
    writeFileSync(join(project, "use.cts"), COMMON_JS);
  });

  const right = { status: 0, stdout: "", stderr: "" };
  const BROWSER = ["--module", "esnext", "--moduleResolution", "bundler", "--customConditions", "browser"];
  test("as nodenext finds it, from CommonJS too, without the DOM's types", () =>
    expect(tsc(5, ["use.mts", "use.cts"], "--module", "nodenext", "--lib", "es2022")).toEqual(right));
  test.runIf(ALL)("as a bundler finds it for a browser", () => expect(tsc(5, ["use.mts"], ...BROWSER)).toEqual(right));
  test.each<[string, string[], string[]]>([
    ["node16", ["use.mts"], ["--module", "node16"]],
    ["nodenext", ["use.mts", "use.cts", PROGRAM, ...listings], ["--module", "nodenext", "--lib", "es2023,dom"]],
    ["a bundler for Node", ["use.mts"], ["--module", "esnext", "--moduleResolution", "bundler"]],
    ["a bundler for a browser", ["use.mts"], BROWSER],
  ])("as %s finds it, by TypeScript 7", (_, files, options) => expect(tsc(7, files, ...options)).toEqual(right));
});

describe("a page", () => {
  /** The sizes of pages that each use one thing of the package, minified, in bytes. */
  async function sizesOf(names: readonly string[]): Promise<[name: string, size: number][]> {
    for (const name of names) {
      writeFileSync(join(project, `page_${name}.mjs`), `import { ${name} } from "${NAME}"; console.log(${name});`);
    }
    const { outputFiles } = await build({
      entryPoints: names.map((name) => join(project, `page_${name}.mjs`)),
      outdir: join(project, "pages"),
      bundle: true,
      minify: true,
      format: "esm",
      platform: "browser",
      write: false,
    });
    return outputFiles.map(({ path, contents }) => [/page_(\w+)\.js$/.exec(path)![1], contents.length]);
  }

  /** What is larger than all else, and why. */
  const LARGE: Readonly<Record<string, number>> = {
    // Open folders over HTTP, within limits, keep them in OPFS and let originals go; find models on the Hub.
    AutoConfig: 60_000,
    ModelFolder: 60_000,
    OpfsCache: 26_000,
    GenerationConfig: 75_000,
    // With what retrieval models add.
    Blip2Config: 16_000,
    Blip2QFormerConfig: 16_000,
    // Decoders of images.
    load_image: 40_000,
    // A sweep over the model's parts: interventions, loss, scores.
    ablate: 20_000,
    attribute: 20_000,
    patchActivations: 20_000,
    // Both formats of weights, checked in every part.
    Checkpoint: 42_000,
    // Tokenizers and images.
    AutoProcessor: 150_000,
    AutoTokenizer: 100_000,
    Blip2Processor: 150_000,
    InstructBlipProcessor: 150_000,
    InstructBlipVideoProcessor: 150_000,
    // Every kernel.
    openDevice: 250_000,
    AutoModel: 560_000,
    AutoModelForImageTextToText: 560_000,
    Blip2ForConditionalGeneration: 550_000,
    Blip2ForImageTextRetrieval: 550_000,
    Blip2Model: 550_000,
    Blip2QFormerModel: 550_000,
    Blip2TextModelWithProjection: 550_000,
    Blip2VisionModelWithProjection: 550_000,
    InstructBlipForConditionalGeneration: 550_000,
    InstructBlipModel: 550_000,
    InstructBlipVideoForConditionalGeneration: 550_000,
    InstructBlipVideoModel: 550_000,
    // A model and a processor.
    pipeline: 650_000,
  };

  test("takes less than 15 kB for one class, but for models and processors", async () => {
    const names = Object.keys(await import(join(installed, "dist/index.js")));
    expect(names).toEqual(expect.arrayContaining(["InstructBlipConfig", "HttpFolder", ...Object.keys(LARGE)]));
    const sizes = await sizesOf(names);
    expect(sizes).toHaveLength(names.length);
    expect(sizes.filter(([name, size]) => size > (LARGE[name] ?? 15_000))).toEqual([]);
  });

  test("takes less than 32 kB to talk to a worker, and no kernel", async () => {
    const stdin = { contents: `export { connect, TextIteratorStreamer } from "${NAME}/worker";`, resolveDir: project };
    const { outputFiles } = await build({
      stdin,
      bundle: true,
      minify: true,
      format: "esm",
      platform: "browser",
      write: false,
    });
    expect(outputFiles[0].contents.length).toBeLessThan(32_000);
    expect(outputFiles[0].text).not.toContain("@compute");
  });
});

describe("the command line", () => {
  test.each(["instructblip", NAME])("answers as %s", (name) => {
    const { version } = readJson(join(ROOT, "package.json"));
    expect(bin(name, ["-V"])).toEqual({ status: 0, stdout: `${version}\n`, stderr: "" });
    expect(bin(name, ["help", "generate"])).toMatchObject({ status: 0, stderr: "" });
  });

  test("shows the demo", () => {
    const { status, stdout, stderr } = bin(NAME, ["demo"]);
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    expect(stdout).toContain(
      `\nnode_modules/${NAME}/examples/shapes/images/a.png\n  What color is the square? orange\n`,
    );
    expect(stdout.match(/\?/g)!.length).toBeGreaterThan(30);
    expect(stdout).toMatch(/\ndecoding +\d+ tokens per second\n$/);
    expect(stdout).not.toContain("\x1b");
  });

  test("names a command that there is where there is no adapter, and it works", () => {
    const none = { VK_DRIVER_FILES: "/nonexistent", INSTRUCTBLIP_CACHE: join(project, "cache") };
    const { status, stdout, stderr } = bin(NAME, ["demo"], none);
    expect({ status, stdout }).toEqual({ status: 1, stdout: "" });
    const [, command] = /`npx instructblip-webgpu (\w+)` finds or installs one/.exec(stderr) ?? [];
    expect(command, stderr).toBe("setup");
    expect(bin(NAME, ["devices"], none)).toMatchObject({ status: 1, stdout: "" });
    const check = bin(NAME, ["setup", "--check"], none);
    expect(check).toMatchObject({ status: 1, stdout: "" });
    expect(check.stderr).toMatch(/^setup: adapter: none .*\nsetup: /);
    expect(bin(NAME, ["setup", "--check"])).toMatchObject({
      status: 0,
      stderr: expect.stringMatching(/^setup: adapter /),
    });
  });
});

test("a build that fails, or lacks a file, makes no tarball", async () => {
  // @ts-expect-error: plain JavaScript.
  const { pack, problemsOf } = await import("../../scripts/pack.mjs");
  expect(problemsOf(tarball)).toEqual([]);
  const say = (step: string) => {
    throw new Error(`began ${step}`);
  };
  expect(() => pack(join(project, "none"), say)).toThrow(/^there is no folder .*none$/);
  const folder = mkdtempSync(join(tmpdir(), "instructblip-packed-"));
  try {
    mkdirSync(join(folder, "package"));
    writeFileSync(join(folder, "package/package.json"), readFileSync(join(ROOT, "package.json")));
    execFileSync("tar", ["-czf", join(folder, "bad.tgz"), "-C", folder, "package"]);
    const problems: string[] = problemsOf(join(folder, "bad.tgz"));
    expect(problems).toEqual(
      expect.arrayContaining([
        'package.json is "private"',
        "dist/index.node.js is missing",
        "dist/index.d.ts is missing",
      ]),
    );
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
