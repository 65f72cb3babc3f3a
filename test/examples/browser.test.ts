/**
 * The browser page without a browser: its build, and its server, which serves byte ranges of a checkpoint and no other
 * files. `npm run browser:check` tests it in a browser.
 */
import { readdirSync, readFileSync } from "node:fs";
import { mkdir, symlink, writeFile } from "node:fs/promises";
import { type IncomingHttpHeaders, request } from "node:http";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { buildPage, EMBEDDED, type PageServer, servePage } from "../../examples/browser/serve.ts";
import { AutoProcessor, Checkpoint, HttpFolder } from "../../src/index.node.ts";
import { openCheckpoint } from "../../src/tensor/files/source.node.ts";
import { temporaryFolder } from "../temporary.ts";

let server: PageServer;
beforeAll(async () => {
  server = await servePage({ models: [], port: 0 });
});
afterAll(() => server.close());

interface Reply {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
}

/** Asks for a path as it stands: fetch() would take its dots away. */
function get(path: string, headers: Record<string, string> = {}, method = "GET", url = server.url): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const { hostname, port } = new URL(url);
    const asked = request({ hostname, port, path, headers, method }, (response) => {
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.on("end", () => {
        resolve({ status: response.statusCode!, headers: response.headers, body: Buffer.concat(chunks) });
      });
    });
    asked.on("error", reject);
    asked.end();
  });
}

describe("the page", () => {
  test("is built for a browser, with every kernel and nothing of Node's", async () => {
    const [page, worker] = await Promise.all([buildPage("page/app.ts"), buildPage("worker/worker.ts")]);
    for (const script of [page, worker]) {
      expect(script).not.toMatch(/\b(from|import|require)\s*\(?\s*["'](node:|sharp|webgpu)/);
    }
    expect(worker).toContain("navigator.gpu");
    expect(worker).toMatch(/@compute/);
    expect(worker).toContain("HttpFolder");
    // The page computes nothing: no kernel is in it.
    expect(page).not.toMatch(/@compute/);
    expect(page.length).toBeLessThan(worker.length / 4);
  });

  test("asks no other host, and may not", async () => {
    const { headers, body } = await get("/");
    expect(headers["content-type"]).toBe("text/html; charset=utf-8");
    expect(headers["content-security-policy"]).toMatch(/^default-src 'self';/);
    expect(body.toString()).not.toMatch(/https?:/);
    for (const path of ["/app.js", "/worker.js"]) {
      const { headers } = await get(path);
      expect(headers["content-type"]).toBe("text/javascript; charset=utf-8");
      expect(headers["content-security-policy"]).toMatch(/^default-src 'self';/);
    }
    for (const path of ["/colours.css", "/styles.css", "/explorer.css"]) {
      const { headers, body } = await get(path);
      expect(headers["content-type"]).toBe("text/css; charset=utf-8");
      // Of the pages of commands, too: in one place.
      if (path !== "/colours.css") expect(body.toString()).not.toMatch(/light-dark\(|--[\w-]+: #/);
    }
  });

  test("has every element that its module looks for", async () => {
    const html = (await get("/")).body.toString();
    const folder = new URL("../../examples/browser/page/", import.meta.url);
    const script = readdirSync(folder, { recursive: true, encoding: "utf8" })
      .filter((name) => name.endsWith(".ts"))
      .map((name) => readFileSync(new URL(name, folder), "utf8"))
      .join("\n");
    const ids = [...script.matchAll(/element\("\w+"(?: as "\w+")?, "#([\w-]+)/g)].map(([, id]) => id);
    expect(ids.length).toBeGreaterThan(50);
    for (const id of ids) expect(html).toContain(`id="${id}"`);
  });

  test("is told of images that are there, and not of their answers", async () => {
    const facts = JSON.parse((await get("/page.json")).body.toString());
    expect(facts.images).toHaveLength(6);
    for (const { image, questions, answers } of facts.images) {
      expect(questions.length).toBeGreaterThan(0);
      expect(answers).toBe(undefined);
      const { status, headers } = await get(`/${image}`);
      expect({ status, type: headers["content-type"] }).toEqual({ status: 200, type: "image/png" });
    }
  });
});

describe("the checkpoint", () => {
  test("is read over HTTP as from the disk", async () => {
    const folder = new HttpFolder(`${server.url}checkpoint/0`);
    const [here, there] = [await openCheckpoint(EMBEDDED), await Checkpoint.open(folder)];
    expect([...there.tensors.keys()]).toEqual([...here.tensors.keys()]);
    for (const name of ["query_tokens", "vision_model.post_layernorm.weight"]) {
      expect(await there.read(name)).toEqual(await here.read(name));
    }
    await here.close();
    await there.close();
    const ask = { text: "What is in the image?" };
    const [near, far] = [await AutoProcessor.from_pretrained(EMBEDDED), await AutoProcessor.from_pretrained(folder)];
    expect(await far(ask)).toEqual(await near(ask));
  });

  const WEIGHTS = "/checkpoint/0/model.safetensors";
  const bytes = readFileSync(join(EMBEDDED, "model.safetensors"));

  test.each<[string, string | undefined, number, string | undefined, [number, number]]>([
    ["a part", "bytes=8-99", 206, `bytes 8-99/${bytes.length}`, [8, 100]],
    ["one byte", "bytes=0-0", 206, `bytes 0-0/${bytes.length}`, [0, 1]],
    [
      "the rest",
      `bytes=${bytes.length - 3}-`,
      206,
      `bytes ${bytes.length - 3}-${bytes.length - 1}/${bytes.length}`,
      [-3, Infinity],
    ],
    [
      "more than there is",
      `bytes=${bytes.length - 2}-999999999999`,
      206,
      `bytes ${bytes.length - 2}-${bytes.length - 1}/${bytes.length}`,
      [-2, Infinity],
    ],
    ["no part", undefined, 200, undefined, [0, Infinity]],
    ["a range of another kind", "bytes=0-1,5-6", 200, undefined, [0, Infinity]],
  ])("%s of the weights", async (_, range, status, contentRange, [from, to]) => {
    const reply = await get(WEIGHTS, range === undefined ? {} : { range });
    const expected = bytes.subarray(from, to === Infinity ? undefined : to);
    expect(reply.status).toBe(status);
    expect(reply.headers["content-range"]).toBe(contentRange);
    expect(reply.headers["content-length"]).toBe(String(expected.length));
    expect(reply.headers.etag).toMatch(/^"[\w-]+"$/);
    expect(reply.body.equals(expected)).toBe(true);
  });

  test("a part behind the end is refused, and HEAD has no body", async () => {
    const beyond = await get(WEIGHTS, { range: `bytes=${bytes.length}-` });
    expect([beyond.status, beyond.headers["content-range"]]).toEqual([416, `bytes */${bytes.length}`]);
    const head = await get(WEIGHTS, {}, "HEAD");
    expect([head.status, head.headers["content-length"], head.body.length]).toEqual([200, String(bytes.length), 0]);
  });
});

describe("nothing else is served", () => {
  test.each([
    "/checkpoint/0/../../../package.json",
    "/checkpoint/0/%2e%2e/README.md",
    "/checkpoint/0/..%2f..%2f..%2fpackage.json",
    "/checkpoint/0/..%5c..%5cpackage.json",
    "/checkpoint/0//etc/passwd",
    "/checkpoint/0/qformer_tokenizer",
    "/checkpoint/0/qformer_tokenizer/../config.json",
    "/checkpoint/0/",
    "/checkpoint/0",
    "/checkpoint/1/config.json",
    "/checkpoint/-1/config.json",
    "/checkpoint/config.json",
    "/checkpoint/0/none.json",
    "/checkpoint/0/%00.json",
    "/checkpoint/0/%",
    "/images/questions.json",
    "/images/../checkpoint/model.safetensors",
    "/../browser/app.ts",
    "/app.ts",
    "/page/app.ts",
    "/serve.ts",
    "/index.html/",
    "/package.json",
    "/favicon.ico",
    "*",
  ])("%s", async (path) => {
    expect((await get(path)).status).toBe(404);
  });

  test("in a folder of anybody's own only what belongs to a checkpoint", async () => {
    const folder = join(temporaryFolder(), "model");
    await mkdir(folder);
    for (const name of ["config.json", "secret.txt", "id_rsa", "image.png", ".env"]) {
      await writeFile(join(folder, name), "{}");
    }
    await symlink(join(folder, "config.json"), join(folder, "generation_config.json"));
    await symlink(join(EMBEDDED, "tokenizer.json"), join(folder, "tokenizer.json")); // out of the folder
    await symlink(EMBEDDED, join(folder, "qformer_tokenizer"));
    const other = await servePage({ models: [folder], port: 0 });
    try {
      const statusOf = async (name: string) => (await get(`/checkpoint/0/${name}`, {}, "GET", other.url)).status;
      expect(await statusOf("config.json")).toBe(200);
      expect(await statusOf("generation_config.json")).toBe(200);
      const refused = ["secret.txt", "id_rsa", "image.png", ".env", "tokenizer.json", "qformer_tokenizer/config.json"];
      for (const name of refused) expect(await statusOf(name), name).toBe(404);
      const facts = JSON.parse((await get("/page.json", {}, "GET", other.url)).body.toString());
      // What is offered is what is served, with its size.
      const files = ["config.json", "generation_config.json"];
      expect(facts.checkpoints[0]).toMatchObject({ name: "model", url: "checkpoint/0", files, bytes: 4 });
      expect(facts.checkpoints[1]).toMatchObject({ name: "The embedded checkpoint", url: "checkpoint/1" });
    } finally {
      await other.close();
    }
  });

  test("in the Hub's cache also what its links lead to", async () => {
    const model = join(temporaryFolder(), "models--owner--name");
    const folder = join(model, "snapshots/0123abc");
    await mkdir(folder, { recursive: true });
    await mkdir(join(model, "blobs"));
    await writeFile(join(model, "blobs/9f86d081"), "{}");
    await writeFile(join(model, "outside"), "{}");
    await symlink("../../blobs/9f86d081", join(folder, "config.json"));
    await symlink("../../outside", join(folder, "tokenizer.json"));
    const other = await servePage({ models: [folder], port: 0 });
    try {
      const reply = await get("/checkpoint/0/config.json", {}, "GET", other.url);
      expect([reply.status, reply.headers["content-type"], reply.body.toString()]).toEqual([
        200,
        "application/json",
        "{}",
      ]);
      expect((await get("/checkpoint/0/tokenizer.json", {}, "GET", other.url)).status).toBe(404);
    } finally {
      await other.close();
    }
  });

  test("to nobody who calls it by another name, whatever leads here", async () => {
    const { port } = new URL(server.url);
    for (const host of ["localhost", `localhost:${port}`, `127.0.0.1:${port}`, `[::1]:${port}`, "LOCALHOST"]) {
      expect((await get("/page.json", { host })).status, host).toBe(200);
    }
    for (const host of [
      "evil.example",
      `evil.example:${port}`,
      "localhost.evil.example",
      "127.0.0.1.evil",
      "a@localhost",
    ]) {
      for (const path of ["/", "/page.json", "/checkpoint/0/config.json", "/none"]) {
        const { status, body } = await get(path, { host });
        expect([status, body.toString()], host).toEqual([421, "this server is called localhost or 127.0.0.1"]);
      }
    }
  });

  test("and to nobody who would write", async () => {
    for (const method of ["POST", "PUT", "DELETE"]) expect((await get("/", {}, method)).status).toBe(405);
  });

  test("a folder without a checkpoint is refused at once", async () => {
    const model = temporaryFolder();
    await expect(servePage({ models: [model], port: 0 })).rejects.toThrow(
      /no checkpoint's config\.json in this folder/,
    );
  });
});
