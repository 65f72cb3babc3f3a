/** Arguments of every from_pretrained, and refusals: options, locations, and files that would change answers. */
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { pathToFileURL } from "node:url";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { InstructBlipConfig } from "../../../src/instructblip/config/instructblip.ts";
import { AutoConfig, AutoModelForImageTextToText } from "../../../src/instructblip/pretrained/auto_model.ts";
import { AutoProcessor } from "../../../src/instructblip/pretrained/auto_processor.ts";
import { weightBytes } from "../../../src/instructblip/pretrained/checkpoint/fit.ts";
import { parseHubUrl } from "../../../src/instructblip/pretrained/hub/hub.ts";
import { InstructBlipForConditionalGeneration } from "../../../src/instructblip/pretrained/instructblip.ts";
import { type FromPretrainedOptions, readModelOptions } from "../../../src/instructblip/pretrained/load.ts";
import * as browserPlatform from "../../../src/instructblip/pretrained/platform.browser.ts";
import { nodePlatform } from "../../../src/instructblip/pretrained/platform.node.ts";
import { setPlatform } from "../../../src/instructblip/pretrained/platform.ts";
import { Blip2Processor } from "../../../src/instructblip/processing/blip_2_processor.ts";
import { InstructBlipProcessor } from "../../../src/instructblip/processing/instructblip_processor.ts";
import { InstructBlipVideoProcessor } from "../../../src/instructblip/processing/instructblip_video_processor.ts";
import { readStorage } from "../../../src/modules/storage_dtype.ts";
import { openDevice } from "../../../src/tensor/device/open_device.ts";
import { NodeFolder, openCheckpoint } from "../../../src/tensor/files/source.node.ts";
import { HttpFolder } from "../../../src/tensor/files/source.ts";
import { testDevice } from "../../device.ts";
import { goldenFolder } from "../../golden_folder.ts";
import { ALL } from "../../rounds.ts";
import { cli } from "../cli/cli.ts";
import { type HubModel, HubServer } from "./hub_server.ts";

setPlatform(nodePlatform);

const GOLDEN = goldenFolder("plain_f32");
const COMMIT = "0123456789abcdef0123456789abcdef01234567";
const OLD = "fedcba9876543210fedcba9876543210fedcba98";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "pretrained-"));
});
afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(folder, { recursive: true, force: true });
});

/** Every from_pretrained there is, by what it is called on. */
const LOADERS: Record<string, { from_pretrained(from: never, options: never): Promise<unknown> }> = {
  AutoModelForImageTextToText,
  InstructBlipForConditionalGeneration,
  AutoConfig,
  AutoProcessor,
  InstructBlipProcessor,
  Blip2Processor,
  InstructBlipVideoProcessor,
};
const load = (name: string, from: unknown, options: object) =>
  LOADERS[name].from_pretrained(from as never, options as never);

describe.each(Object.keys(LOADERS))("%s.from_pretrained", (name) => {
  test.each([
    [{ revison: "main" }, "UNKNOWN_OPTION", "did you mean revision?"],
    [{ localFilesOnly: true }, "UNKNOWN_OPTION", "did you mean local_files_only?"],
    [{ nonsense_of_some_length: 1 }, "UNKNOWN_OPTION", "options: "],
    [{ device_map: "auto" }, "UNSUPPORTED_OPTION", "device_map"],
    [{ load_in_8bit: true }, "UNSUPPORTED_OPTION", 'dtype: "int8"'],
    [{ force_download: true }, "UNSUPPORTED_OPTION", "cache_dir"],
    [{ subfolder: "sub" }, "UNSUPPORTED_OPTION", "path of that folder"],
    [{ trust_remote_code: true }, "UNSUPPORTED_OPTION", "no code of a checkpoint"],
    [{ use_safetensors: false }, "UNSUPPORTED_OPTION", "PyTorch's files"],
    [{ low_cpu_mem_usage: false }, "UNSUPPORTED_OPTION", "piece by piece"],
    [{ attn_implementation: "flash_attention_2" }, "UNSUPPORTED_OPTION", "own kernel"],
    [{ variant: "fp16" }, "UNSUPPORTED_OPTION", 'dtype: "f16"'],
    [{ use_auth_token: "hf_x" }, "UNSUPPORTED_OPTION", "token is its name"],
  ])("refuses %j before anything is opened", async (options, code, hint) => {
    await expect(load(name, "/nowhere/at/all", options)).rejects.toMatchObject({
      name: "InputError",
      code,
      message: expect.stringContaining(hint),
    });
  });

  test("lets through what changes nothing, and null for what is not given", async () => {
    const options = {
      trust_remote_code: false,
      use_safetensors: true,
      low_cpu_mem_usage: true,
      attn_implementation: "sdpa",
      load_in_8bit: false,
      force_download: false,
      device_map: null,
      revision: undefined,
      token: null,
    };
    await expect(load(name, "/nowhere/at/all", options)).rejects.toMatchObject({ code: "NOT_FOUND" });
  });

  test("refuses what cannot be a place, and options about the Hub where a Folder is open already", async () => {
    for (const from of [undefined, null, 3, {}]) {
      await expect(load(name, from, {})).rejects.toMatchObject({ code: "BAD_INPUT" });
    }
    for (const option of [{ revision: "v1" }, { token: "x" }, { cache_dir: "x" }, { local_files_only: true }]) {
      await expect(load(name, new NodeFolder(GOLDEN), option)).rejects.toMatchObject({ code: "UNSUPPORTED_OPTION" });
    }
    for (const option of [
      { revision: 1 },
      { token: 3 },
      { local_files_only: "yes" },
      { on_download: 1 },
      { cache: "x" },
    ]) {
      await expect(load(name, "owner/name", option)).rejects.toMatchObject({ code: "BAD_INPUT" });
    }
    await expect(load(name, GOLDEN, [])).rejects.toMatchObject({ code: "ARGUMENTS" });
  });
});

describe("options of models", () => {
  test.each([
    [{ device: "webgpu" }, "UNSUPPORTED_OPTION", /opens a WebGPU device for itself/],
    [{ device: "cuda:0" }, "UNSUPPORTED_OPTION", /openDevice\(\) gave, got "cuda:0"/],
    [{ dtyp: "f16" }, "UNKNOWN_OPTION", /did you mean dtype\?/],
    [{ onProgress: () => {} }, "UNKNOWN_OPTION", /did you mean on_progress\?/],
  ])("%j is refused", (options, code, message) => {
    expect(() => readModelOptions(options as never)).toThrow(
      expect.objectContaining({ code, message: expect.stringMatching(message) }),
    );
  });

  test("dtypes have PyTorch's names, too, and torch_dtype is dtype", () => {
    for (const [name, dtype] of [
      ["float32", "f32"],
      ["torch.float32", "f32"],
      ["float16", "f16"],
      ["torch.half", "f16"],
      ["fp16", "f16"],
      ["torch.bfloat16", "bf16"],
      ["auto", "auto"],
      ["int4", "int4"],
    ] as const) {
      expect(readModelOptions({ dtype: name }).dtype).toBe(dtype);
      expect(readModelOptions({ torch_dtype: name }).dtype).toBe(dtype);
    }
    expect(readModelOptions({ dtype: "int8", torch_dtype: "float16" }).dtype).toBe("int8");
    expect(readStorage({ language_model: "torch.float16", vision_model: "int8" })).toEqual({
      language_model: "f16",
      vision_model: "int8",
    });
    expect(readModelOptions({ kv_cache_dtype: "float16" }).kv_cache_dtype).toBe("f16");
    expect(readModelOptions({ dtype: null as never }).dtype).toBe("auto");
    expect(readModelOptions({ compute_dtype: "float16" }).compute_dtype).toBe("f16");
    expect(readModelOptions({}).compute_dtype).toBe("f32");
    for (const compute_dtype of ["bf16", "int8", "half precision", 16]) {
      expect(() => readModelOptions({ compute_dtype: compute_dtype as never })).toThrow(
        /compute_dtype: numbers cannot be multiplied as .*\n.*f32 or f16/,
      );
    }
  });

  test("a model is loaded by them, and an unknown dtype is refused by its name", async () => {
    const device = await testDevice();
    const sizeOf = async (options: FromPretrainedOptions) => {
      const before = device.memory.use.live;
      const model = await AutoModelForImageTextToText.from_pretrained(GOLDEN, { device, compile: false, ...options });
      const size = device.memory.use.live - before;
      model.dispose();
      return size;
    };
    const [full, half] = [await sizeOf({ dtype: "f32" }), await sizeOf({ dtype: "f16" })];
    expect(half).toBeLessThan(full);
    expect(await sizeOf({ torch_dtype: "torch.float16" })).toBe(half);
    await expect(
      AutoModelForImageTextToText.from_pretrained(GOLDEN, { device, dtype: "torch.float64" as never }),
    ).rejects.toMatchObject({ code: "DTYPE", message: expect.stringContaining('"torch.float64"') });
  });

  test("AutoConfig reads a folder's config.json", async () => {
    const config = await AutoConfig.from_pretrained(GOLDEN);
    expect(config).toEqual(AutoConfig.parse(readFileSync(join(GOLDEN, "config.json"), "utf8")));
  });
});

/** A checkpoint on a Hub of this machine. */
describe("a model of the Hub", () => {
  let model: HubModel;
  let server: HubServer;
  beforeEach(async () => {
    const files: Record<string, Buffer> = {};
    for (const entry of readdirSync(GOLDEN, { recursive: true, withFileTypes: true })) {
      if (!entry.isFile() || /png|golden/.test(entry.name)) continue;
      const path = join(entry.parentPath, entry.name);
      files[relative(GOLDEN, path)] = readFileSync(path);
    }
    model = { repository: "owner/name", commit: COMMIT, files, large: ["model.safetensors"] };
    server = await HubServer.start(model);
    vi.stubEnv("HF_ENDPOINT", server.endpoint);
    vi.stubEnv("HF_HOME", join(folder, "home"));
  });
  afterEach(() => server.stop());
  const asked = () => server.seen.map(({ path }) => path);

  test("revision is what is asked for, in an option as in the id, and two that differ are refused", async () => {
    await AutoConfig.from_pretrained("owner/name", { revision: COMMIT });
    expect([...new Set(asked())]).toEqual([
      `/api/models/owner/name/tree/${COMMIT}`,
      `/owner/name/resolve/${COMMIT}/config.json`,
    ]);
    await expect(AutoConfig.from_pretrained("owner/name", { revision: "v9" })).rejects.toMatchObject({
      code: "HUB_REVISION_NOT_FOUND",
    });
    await expect(AutoProcessor.from_pretrained("owner/name", { revision: OLD })).rejects.toMatchObject({
      code: "HUB_REVISION_NOT_FOUND",
    });
    await AutoConfig.from_pretrained("owner/name@main", { revision: "main" });
    for (const [id, revision] of [
      ["owner/name@main", "v2"],
      ["owner/name", "../x"],
    ]) {
      await expect(AutoConfig.from_pretrained(id, { revision })).rejects.toMatchObject({ code: "HUB_ID" });
    }
  });

  test("one that does not fit on the device is refused by the headers, with the dtype that would, before its download", async () => {
    const checkpoint = await openCheckpoint(GOLDEN);
    await checkpoint.close();
    const budget = Math.ceil(1.1 * weightBytes(checkpoint, "int8"));
    vi.stubEnv("INSTRUCTBLIP_MEMORY_BUDGET", String(budget));
    const weights = join(folder, "home/hub/models--owner--name/snapshots", COMMIT, "model.safetensors");
    const bytesSent = () =>
      server.seen
        .filter(({ host }) => host === "cdn")
        .map(({ range }) =>
          /^bytes=(\d+)-(\d+)$/
            .exec(range ?? "")!
            .slice(1)
            .map(Number),
        )
        .reduce((sum, [begin, end]) => sum + end! - begin! + 1, 0);
    const refused = { code: "BUDGET", hint: expect.stringMatching(/^dtype: "int8" takes /) };
    await expect(AutoModelForImageTextToText.from_pretrained("owner/name")).rejects.toMatchObject(refused);
    const data = join(folder, "data.jsonl");
    writeFileSync(data, '{"id": 1, "image": "a.png", "question": "a", "answers": ["b"]}\n');
    writeFileSync(join(folder, "task.json"), '{"prompt": "{question}", "metric": "exact_match"}');
    const commands = [
      ["evaluate", "--task", join(folder, "task.json"), "--data", data],
      ["generate", "--json", "--requests", data, "--prompt", "a", "--out", join(folder, "out.jsonl")],
    ];
    for (const args of commands.slice(0, ALL ? 2 : 1)) {
      const { code, stderr } = await cli([...args, "--model", "owner/name"]);
      expect(`${code} ${stderr}`).toMatch(/^1 error: .*its weights take .*\n +hint: dtype: "int8" takes /);
    }
    const { code, stdout } = await cli(["inspect", "owner/name"]);
    expect(`${code} ${stdout}`).toMatch(/^0 .*owner\/name/);
    expect(existsSync(weights)).toBe(false);
    expect(bytesSent()).toBeLessThan(model.files["model.safetensors"].length / 2);

    if (!ALL) return;
    const fitting = await AutoModelForImageTextToText.from_pretrained("owner/name", { dtype: "int8", compile: false });
    fitting.dispose();
    expect(existsSync(weights)).toBe(true);
    // What is kept is read from the disk.
    server.seen.length = 0;
    const again = await AutoModelForImageTextToText.from_pretrained("owner/name", { dtype: "int8", compile: false });
    again.dispose();
    expect(asked()).toEqual(["/api/models/owner/name/revision/main"]);
  });

  test("a server without ranges is asked for the whole file", async () => {
    model.ignoreRange = true;
    const device = await testDevice();
    const loaded = await AutoModelForImageTextToText.from_pretrained("owner/name", { device, compile: false });
    loaded.dispose();
  });

  test("token: the one that is given, none, or the stored one", async () => {
    const sent = async (options: object) => {
      server.seen.length = 0;
      await AutoConfig.from_pretrained("owner/name", { cache_dir: mkdtempSync(join(folder, "cache-")), ...options });
      return [...new Set(server.seen.map(({ authorization }) => authorization))];
    };
    vi.stubEnv("HF_TOKEN", "hf_env");
    expect(await sent({})).toEqual(["Bearer hf_env"]);
    expect(await sent({ token: true })).toEqual(["Bearer hf_env"]);
    expect(await sent({ token: "hf_given" })).toEqual(["Bearer hf_given"]);
    expect(await sent({ token: false })).toEqual([undefined]);
    vi.stubEnv("HF_TOKEN", "");
    await expect(sent({ token: true })).rejects.toMatchObject({ code: "TOKEN" });
    const refusal = await sent({ token: "my secret" }).catch((error: Error) => error);
    expect(String(refusal)).not.toContain("secret");
  });

  test("cache_dir is where files are kept, and local_files_only opens no others", async () => {
    const cache_dir = join(folder, "elsewhere");
    const local = { cache_dir, local_files_only: true };
    await expect(AutoProcessor.from_pretrained("owner/name", local)).rejects.toMatchObject({
      code: "HUB_OFFLINE",
      message: expect.stringContaining("local_files_only"),
    });
    expect(server.seen).toEqual([]);
    await AutoProcessor.from_pretrained("owner/name", { cache_dir });
    expect(existsSync(join(cache_dir, "models--owner--name", "snapshots", COMMIT, "tokenizer.json"))).toBe(true);
    expect(existsSync(join(folder, "home"))).toBe(false);
    server.seen.length = 0;
    const processor = await AutoProcessor.from_pretrained("owner/name", local);
    expect(processor.processor_class).toBe("InstructBlipProcessor");
    // The weights were not downloaded.
    await expect(
      AutoModelForImageTextToText.from_pretrained("owner/name", { ...local, device: await testDevice() }),
    ).rejects.toMatchObject({ code: "HUB_OFFLINE" });
    expect(server.seen).toEqual([]);
  });

  test("its page's URL is opened as its id, with the revision in it, in the API and on the command line", async () => {
    const config = await AutoConfig.from_pretrained(`${server.endpoint}/owner/name`);
    expect(config).toBeInstanceOf(InstructBlipConfig);
    await AutoConfig.from_pretrained(new URL(`${server.endpoint}/owner/name/tree/${COMMIT}`));
    await expect(AutoConfig.from_pretrained(`${server.endpoint}/owner/name/tree/v9`)).rejects.toMatchObject({
      code: "HUB_REVISION_NOT_FOUND",
    });
    const { code, stdout } = await cli(["inspect", `${server.endpoint}/owner/name`, "--json"]);
    expect([code, JSON.parse(stdout).name]).toEqual([0, "owner/name"]);
  });
});

test.each([
  ["https://huggingface.co/Salesforce/instructblip-vicuna-7b", "Salesforce/instructblip-vicuna-7b", "main"],
  ["https://huggingface.co/a/b/", "a/b", "main"],
  ["https://hf.co/a/b?library=transformers#usage", "a/b", "main"],
  ["https://huggingface.co/a/b/tree/v1.0", "a/b", "v1.0"],
  ["https://huggingface.co/a/b/tree/refs/pr/1", "a/b", "refs/pr/1"],
  ["https://huggingface.co/a/b/tree/refs%2Fpr%2F1", "a/b", "refs/pr/1"],
  ["https://huggingface.co/a/b/blob/main/config.json", "a/b", "main"],
  ["https://huggingface.co/a/b/resolve/main/model.safetensors", "a/b", "main"],
  ["https://huggingface.co/a/b/discussions", "a/b", "main"],
])("%s is %s at %s", (url, repository, revision) => {
  expect(parseHubUrl(url)).toMatchObject({ repository, revision });
});

test.each([
  "https://huggingface.co/",
  "https://huggingface.co/gpt2",
  "https://huggingface.co/datasets/a/b",
  "https://huggingface.co/spaces/a/b",
  "https://huggingface.co/a/b/tree/main/folder",
  "https://huggingface.co/a/b/blob/main/folder/config.json",
  "https://huggingface.co/a/b/tree/..%2F..%2Fx",
  "https://huggingface.co/a/b/tree/%",
])("HUB_URL: %s is no model's", (url) => {
  expect(() => parseHubUrl(url)).toThrow(expect.objectContaining({ code: "HUB_URL" }));
});

test("another server's URL is no model of the Hub", () => {
  expect(parseHubUrl("https://example.org/a/b")).toBeUndefined();
  expect(parseHubUrl("https://huggingface.co.example.org/a/b")).toBeUndefined();
  expect(parseHubUrl("https://mirror.example/hf/a/b", "https://mirror.example/hf")).toMatchObject({
    repository: "a/b",
  });
  expect(parseHubUrl("https://mirror.example/a/b", "https://mirror.example/hf")).toBeUndefined();
});

describe("URLs", () => {
  test("file: is a folder of this machine", async () => {
    const url = pathToFileURL(GOLDEN);
    expect(await AutoConfig.from_pretrained(url)).toBeInstanceOf(InstructBlipConfig);
    const { code } = await cli(["inspect", url.href, "--json"]);
    expect(code).toBe(0);
    for (const bad of ["file://elsewhere/folder", "file:///a%2Fb"]) {
      await expect(AutoConfig.from_pretrained(bad)).rejects.toMatchObject({ code: "FOLDER_SOURCE" });
    }
  });

  test("http: is a folder on a server, read by ranges; options about the Hub are refused", async () => {
    const server = createServer((request, response) => {
      const path = join(GOLDEN, decodeURIComponent(request.url!.replace(/^\/m\//, "")));
      if (!existsSync(path)) return void response.writeHead(404).end();
      const bytes = readFileSync(path);
      const range = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "");
      if (!range) return void response.writeHead(200).end(bytes);
      const [begin, end] = [Number(range[1]), Math.min(Number(range[2]) + 1, bytes.length)];
      const headers = { "content-range": `bytes ${begin}-${end - 1}/${bytes.length}` };
      response.writeHead(206, headers).end(bytes.subarray(begin, end));
    });
    await new Promise<void>((ready) => server.listen(0, "127.0.0.1", ready));
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/m`;
    try {
      const [there, here] = await Promise.all(
        [url, GOLDEN].map((from) => cli(["inspect", from, "--json", "--tensors"])),
      );
      expect(there).toMatchObject({ code: 0, stderr: "" });
      expect(JSON.parse(there.stdout).list).toEqual(JSON.parse(here.stdout).list);
      expect(await nodePlatform.openFolder(url)).toBeInstanceOf(HttpFolder);
      for (const option of [{ revision: "v1" }, { token: "x" }, { cache_dir: "x" }, { local_files_only: true }]) {
        await expect(AutoConfig.from_pretrained(url, option)).rejects.toMatchObject({ code: "UNSUPPORTED_OPTION" });
      }
    } finally {
      server.closeAllConnections();
      server.close();
    }
  });

  test("others are refused, in a message of a line's length without what a terminal obeys", async () => {
    const long = `data:application/json;base64,${"A".repeat(200e6)}`;
    for (const from of [
      long,
      "blob:https://x/1",
      "ftp://host/m",
      "s3://bucket/m",
      "x".repeat(1e7),
      "a\u202e\u009b/b/c",
    ]) {
      for (const load of [AutoConfig, AutoProcessor]) {
        const error: Error = await load.from_pretrained(from).then(
          () => expect.unreachable(),
          (error: Error) => error,
        );
        expect(error).toMatchObject({ code: expect.stringMatching(/^(FOLDER_SOURCE|NOT_FOUND)$/) });
        expect(error.message.length).toBeLessThan(500);
        expect(error.message).not.toMatch(/[\u202e\u009b]/);
      }
    }
  });
});

describe("in a browser", () => {
  const seen: [string, string | null][] = [];
  const names = { status: 200, headers: { "content-type": "application/json" } };
  beforeEach(() => {
    seen.length = 0;
    vi.stubGlobal("fetch", async (url: string, init: RequestInit) => {
      seen.push([url, new Headers(init.headers).get("authorization")]);
      return new Response(JSON.stringify({ sha: COMMIT }), names);
    });
  });
  afterEach(() => vi.unstubAllGlobals());

  test("a model, by its id or page, is its files at the commit of a revision, with the token", async () => {
    const page = "https://huggingface.co/owner/name";
    const revision = "https://huggingface.co/api/models/owner/name/revision";
    await (await browserPlatform.openFolder(page)).text("config.json");
    await (await browserPlatform.openFolder(`${page}/tree/refs/pr/1`, { token: "hf_x" })).text("config.json");
    await (await browserPlatform.openFolder(page, { revision: "v1", token: false })).text("config.json");
    await (await browserPlatform.openFolder("owner/name@v2", { endpoint: "https://hub.example/" })).text("config.json");
    await (await browserPlatform.openFolder(`owner/name@${COMMIT}`)).text("config.json");
    await (await browserPlatform.openFolder("https://example.org/m")).text("config.json");
    const file = `${page}/resolve/${COMMIT}/config.json`;
    expect(seen).toEqual([
      ...[`${revision}/main`, file].map((url) => [url, null]),
      ...[`${revision}/refs%2Fpr%2F1`, file].map((url) => [url, "Bearer hf_x"]),
      ...[`${revision}/v1`, file].map((url) => [url, null]),
      ...[`${revision}/v2`, file].map((url) => [url.replace("huggingface.co", "hub.example"), null]),
      [file, null],
      ["https://example.org/m/config.json", null],
    ]);
  });

  test.each([
    ["https://huggingface.co/owner/name", { cache_dir: "x" }, "UNSUPPORTED_OPTION"],
    ["https://huggingface.co/owner/name", { local_files_only: true }, "UNSUPPORTED_OPTION"],
    ["https://huggingface.co/owner/name", { token: true }, "TOKEN"],
    ["https://example.org/m", { revision: "v1" }, "UNSUPPORTED_OPTION"],
    ["https://example.org/m", { token: "hf_x" }, "UNSUPPORTED_OPTION"],
    ["https://example.org/m", { endpoint: "https://hub.example" }, "UNSUPPORTED_OPTION"],
    ["owner/name", { endpoint: "hub.example" }, "ENV"],
    ["./name", {}, "FOLDER_SOURCE"], // there is no page here for it to be beside
  ])("%s with %j is refused", async (where, options, code) => {
    await expect(browserPlatform.openFolder(where, options)).rejects.toMatchObject({ code });
  });
});

describe("an adapter", () => {
  const CONFIG = { peft_type: "LORA", base_model_name_or_path: "Salesforce/instructblip-vicuna-7b", r: 8 };
  beforeEach(() => {
    cpSync(GOLDEN, folder, { recursive: true });
    writeFileSync(join(folder, "adapter_config.json"), JSON.stringify(CONFIG));
  });
  const refusal = {
    code: "ADAPTER",
    message: expect.stringMatching(/adapter \(LORA\).*\n.*instructblip-vicuna-7b.*--adapter.*merges/s),
  };

  test("ADAPTER: is refused beside its base, and alone, by the API and the command line", async () => {
    const device = await testDevice();
    for (const Model of [AutoModelForImageTextToText, InstructBlipForConditionalGeneration]) {
      await expect(Model.from_pretrained(folder, { device })).rejects.toMatchObject(refusal);
    }
    const ask = ["generate", "--model", folder, "--image", join(GOLDEN, "image_0.png"), "--prompt", "What?"];
    expect(await cli(ask)).toMatchObject({ code: 1, stdout: "", stderr: refusal.message });
    rmSync(join(folder, "config.json"));
    await expect(AutoModelForImageTextToText.from_pretrained(folder, { device })).rejects.toMatchObject(refusal);
    for (const args of [ask, ["inspect", folder]]) {
      expect(await cli(args)).toMatchObject({ code: 1, stdout: "", stderr: refusal.message });
    }
  });

  test("inspect says so", async () => {
    const { code, stdout, stderr } = await cli(["inspect", folder]);
    expect(code).toBe(0);
    expect(stdout).toContain("InstructBlipForConditionalGeneration");
    expect(stderr).toMatch(/^warning: there is an adapter \(LORA\) in this folder.*merge/);
    const { stdout: json } = await cli(["inspect", folder, "--json"]);
    expect(JSON.parse(json).warnings).toEqual([expect.stringContaining("an adapter (LORA)")]);
  });

  test("whose file cannot be read is an adapter still, and says nothing odd", async () => {
    for (const text of ["{", "[]", "", '{"peft_type": {"a": 1}}', `{"peft_type": "${"x\\u202e".repeat(1000)}"}`]) {
      writeFileSync(join(folder, "adapter_config.json"), text);
      const error: Error = await AutoModelForImageTextToText.from_pretrained(folder).then(
        () => expect.unreachable(),
        (error: Error) => error,
      );
      expect(error).toMatchObject({ code: "ADAPTER" });
      expect(error.message.length).toBeLessThan(700);
      expect(error.message).not.toContain("\u202e");
    }
  });
});

test("transformers_weights: the file of weights that a config names is read, as by transformers", async () => {
  cpSync(GOLDEN, folder, { recursive: true });
  const config = JSON.parse(readFileSync(join(GOLDEN, "config.json"), "utf8")) as object;
  const name = (transformers_weights: unknown) =>
    writeFileSync(join(folder, "config.json"), JSON.stringify({ ...config, transformers_weights }));
  const device = await testDevice();
  const load = () => AutoModelForImageTextToText.from_pretrained(folder, { device, compile: false });
  name("other.gguf");
  await expect(load()).rejects.toMatchObject({
    code: "OTHER_WEIGHTS",
    message: expect.stringContaining('"other.gguf"'),
  });
  expect((await cli(["inspect", folder])).stderr).toMatch(/^warning: config\.json says .*"other\.gguf"/);
  name("other.safetensors");
  await expect(load()).rejects.toMatchObject({
    code: "MISSING_MODEL",
    message: expect.stringContaining("other.safetensors"),
  });
  renameSync(join(folder, "model.safetensors"), join(folder, "other.safetensors"));
  (await load()).dispose();
  renameSync(join(folder, "other.safetensors"), join(folder, "model.safetensors"));
  for (const same of ["model.safetensors", null]) {
    name(same);
    (await load()).dispose();
  }
});

test("openDevice and save_pretrained drop no option either", async () => {
  await expect(openDevice({ memoryBudget: 1 } as never)).rejects.toMatchObject({
    code: "UNKNOWN_OPTION",
    message: expect.stringContaining("did you mean memory_budget?"),
  });
  const device = await testDevice();
  const model = await AutoModelForImageTextToText.from_pretrained(GOLDEN, { device, compile: false });
  const to = join(folder, "saved");
  for (const [options, code] of [[{ maxShardSize: 1 }, "UNKNOWN_OPTION"]] as const) {
    await expect(model.save_pretrained(to, options as never)).rejects.toMatchObject({ code });
  }
  expect(existsSync(to)).toBe(false);
  await model.save_pretrained(to);
  expect(existsSync(join(to, "model.safetensors"))).toBe(true);
  model.dispose();
});
