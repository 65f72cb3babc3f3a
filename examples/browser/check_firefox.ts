/**
 * The part of `npm run browser:check` about Firefox, where one is installed: the demo's questions, in the page and by a worker, and
 * what empty submits bring.
 */
import { readFileSync } from "node:fs";
import { extname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { checkFileName } from "../../src/tensor/files/source.ts";
import type { Example } from "./check_ask.ts";
import type { Expect } from "./check_page.ts";
import { type Served, serveCheck } from "./check_server.ts";
import { Firefox, findFirefox } from "./firefox.ts";
import { EMBEDDED } from "./serve.ts";

const SHAPES = fileURLToPath(new URL("../shapes/", import.meta.url));
const ENTRY = fileURLToPath(new URL("../../src/index.ts", import.meta.url));
const WORKER = fileURLToPath(new URL("../../src/worker.ts", import.meta.url));

const PAGE = `<!doctype html><body><script type="module">
  import * as lib from "/lib.js";
  import { connect } from "/worker_lib.js";
  /** Answers to questions about images. */
  window.ask = async (examples, { AutoProcessor, AutoModelForImageTextToText }) => {
    const options = { cache: "opfs" };
    const processor = await AutoProcessor.from_pretrained("./checkpoint", options);
    const model = await AutoModelForImageTextToText.from_pretrained("./checkpoint", options);
    const answers = [];
    const begun = performance.now();
    let tokens = 0;
    for (const { image, questions } of examples) {
      for (const text of questions) {
        const inputs = await processor({ images: ["./" + image], text: [text] });
        const ids = await model.generate({ ...inputs, max_new_tokens: 64, return_full_text: false });
        tokens += ids[0].length;
        answers.push((await processor.batch_decode(ids, { skip_special_tokens: true }))[0].trim());
      }
    }
    await model.dispose();
    return { answers, ms: performance.now() - begun, tokens };
  };
  /** The median of reads of 16 bytes, in milliseconds. */
  window.reads = async (device) => {
    const times = [];
    for (let i = 0; i < 9; i++) {
      const tensor = device.tensor([1, 2, 3, 4], [4]);
      const begun = performance.now();
      await tensor.read();
      times.push(performance.now() - begun);
      tensor.dispose();
    }
    return times.sort((a, b) => a - b)[4];
  };
  /** The same by WebGPU alone, without empty submits. */
  window.plainReads = async ({ handle }) => {
    const times = [];
    const source = handle.createBuffer({ size: 16, usage: 12 });
    for (let i = 0; i < 9; i++) {
      const staging = handle.createBuffer({ size: 16, usage: 9 });
      const encoder = handle.createCommandEncoder();
      encoder.copyBufferToBuffer(source, 0, staging, 0, 16);
      handle.queue.submit([encoder.finish()]);
      const begun = performance.now();
      await staging.mapAsync(1);
      times.push(performance.now() - begun);
      staging.destroy();
    }
    return times.sort((a, b) => a - b)[4];
  };
  Object.assign(window, { lib, connect, ready: true });
</script>`;

async function serve(): Promise<Served> {
  const bundled = async (entry: string) =>
    (
      await build({
        ...{ entryPoints: [entry], bundle: true, platform: "browser", format: "esm", write: false, logLevel: "silent" },
      })
    ).outputFiles![0].contents;
  const [lib, worker] = [await bundled(ENTRY), await bundled(WORKER)];
  const start = Buffer.from('import { answerCalls } from "/worker_lib.js"; answerCalls();');
  const made: Readonly<Record<string, Uint8Array>> = { "/lib.js": lib, "/worker_lib.js": worker, "/worker.js": start };
  return serveCheck((request, response) => {
    const path = decodeURIComponent(request.url ?? "");
    if (path === "/") return void response.writeHead(200, { "content-type": "text/html" }).end(PAGE);
    const script = made[path];
    if (script) return void response.writeHead(200, { "content-type": "text/javascript" }).end(script);
    try {
      checkFileName(path.slice(1));
      const [, name] = /^\/checkpoint\/(.*)$/.exec(path) ?? [];
      const file = readFileSync(name === undefined ? join(SHAPES, path) : join(EMBEDDED, name));
      const [, from, to] = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "") ?? [];
      const begin = Number(from ?? 0);
      const part = file.subarray(begin, to ? Number(to) + 1 : undefined);
      response.writeHead(from === undefined ? 200 : 206, {
        "content-type": extname(path) === ".png" ? "image/png" : "application/octet-stream",
        "content-length": part.length,
        etag: `"${path.length}-${file.length}"`,
        ...(from !== undefined && { "content-range": `bytes ${begin}-${begin + part.length - 1}/${file.length}` }),
      });
      response.end(request.method === "HEAD" ? undefined : part);
    } catch {
      response.writeHead(404).end();
    }
  });
}

interface Asked {
  readonly answers: readonly string[];
  readonly ms: number;
  readonly tokens: number;
}

export async function checkFirefox(examples: readonly Example[], expect: Expect): Promise<void> {
  const program = findFirefox();
  if (!program) return console.log("Firefox         skipped: none was found on the PATH; FIREFOX_PATH=FILE names one");
  const server = await serve();
  let firefox: Firefox | undefined;
  try {
    firefox = await Firefox.start(program);
    await firefox.navigate(server.url);
    const version = await firefox.evaluate<string>("navigator.userAgent.match(/Firefox.[\\d.]+/)[0]");
    if (!(await firefox.evaluate<boolean>("Boolean(await navigator.gpu?.requestAdapter())"))) {
      return console.log(`Firefox         skipped: ${version} gives no WebGPU adapter on this machine`);
    }
    await firefox.evaluate("(async () => { while (!window.ready) await new Promise((r) => setTimeout(r, 50)); })()");
    const [nudged, plain] = await firefox.evaluate<[number, number]>(
      "lib.openDevice().then(async (device) => [await reads(device), await plainReads(device)])",
    );
    const asked = examples.slice(0, 2);
    const expected = asked.flatMap(({ answers }) => answers);
    const given = JSON.stringify(asked.map(({ image, questions }) => ({ image, questions })));
    const worker = 'connect(new Worker("/worker.js", { type: "module" }))';
    let here: Asked | undefined;
    for (const [where, library] of [
      ["in the page", "lib"],
      ["by a worker", worker],
    ] as const) {
      here = await firefox.evaluate<Asked>(`ask(${given}, ${library})`);
      const wrong = here.answers.filter((answer, i) => answer !== expected[i]);
      expect(
        here.answers.length === expected.length && wrong.length === 0,
        `${version} answers ${where}, not ${wrong.join("; ")}`,
      );
    }
    const { ms, tokens } = here!;
    console.log(
      `Firefox         ${version}: ${expected.length} answers in the page and by a worker, kept in OPFS; ${tokens} tokens in ${(ms / 1000).toFixed(1)} s; a read takes ${nudged.toFixed(0)} ms, without empty submits ${plain.toFixed(0)} ms`,
    );
  } finally {
    await firefox?.close();
    await server.close();
  }
}
