/**
 * The part of `npm run browser:check` about Firefox, where one is installed: the demo's questions, in the page and by a worker, and
 * what empty submits bring.
 */
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Example } from "./check_ask.ts";
import type { Expect } from "./check_page.ts";
import { serveLibrary } from "./check_server.ts";
import { Firefox, findFirefox } from "./firefox.ts";
import { EMBEDDED } from "./serve.ts";

const SHAPES = fileURLToPath(new URL("../shapes/", import.meta.url));

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

interface Asked {
  readonly answers: readonly string[];
  readonly ms: number;
  readonly tokens: number;
}

export async function checkFirefox(examples: readonly Example[], expect: Expect): Promise<void> {
  const program = findFirefox();
  if (!program) return console.log("Firefox         skipped: none was found on the PATH; FIREFOX_PATH=FILE names one");
  const server = await serveLibrary(PAGE, { "checkpoint/": EMBEDDED, "images/": join(SHAPES, "images") });
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
