/**
 * The part of `npm run browser:check` about `instructblip-webgpu/worker`: in a worker of a real browser, by messages, what
 * generates no text (scores of images and texts against PyTorch's), adapters, pipelines, instruments, and saving.
 */
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import {
  AutoModelForImageTextToText,
  AutoProcessor,
  attribute,
  Blip2QFormerModel,
  Blip2VisionModelWithProjection,
  InstructBlipModel,
  logitLens,
  type ModelInputs,
} from "../../src/index.node.ts";
import { goldenFolder } from "../../test/golden_folder.ts";
import { Golden } from "../../test/parity/golden.ts";
import type { Expect } from "./check_page.ts";
import { serveLibrary } from "./check_server.ts";
import type { Chromium } from "./chromium.ts";
import { EMBEDDED } from "./serve.ts";

const ADAPTERS = fileURLToPath(new URL("../../test/golden/adapters/data/", import.meta.url));
const IMAGES = fileURLToPath(new URL("../shapes/images/", import.meta.url));
const QUESTION = "What color is the square?";
const ANSWER = "orange";

const PAGE = `<!doctype html><body><img src="/images/a.png"><script type="module">
  import { connect, TextIteratorStreamer } from "/worker_lib.js";
  const worker = connect(new Worker("/worker.js", { type: "module" }));
  const read = async (tensor) => Array.from(await tensor.read());
  const codeOf = (promise) => promise.then(() => "not refused", ({ code, message }) => code + ": " + message);
  Object.assign(window, {
    /** Scores of images and texts. */
    async retrieve(images, text) {
      const processor = await worker.AutoProcessor.from_pretrained("./retrieval");
      const model = await worker.AutoModel.from_pretrained("./retrieval");
      const inputs = await processor({ images, text, padding: true });
      const itc = await model.forward(inputs);
      const itm = await model.forward({ ...inputs, use_image_text_matching_head: true });
      const { text_embeds } = await model.get_text_features(await processor({ text, padding: true }));
      const found = { itc: await read(itc.logits_per_image), itm: await read(itm.logits_per_image),
        texts: await read(text_embeds), shape: itc.logits_per_image.shape, architecture: model.architecture,
        generates: "generate" in model };
      await itc.logits_per_image.dispose();
      found.disposed = await codeOf(itc.logits_per_image.read());
      await model.dispose();
      return found;
    },
    /** States of models without a head: a Q-Former, whose image states stay in the worker, and an InstructBLIP. */
    async states({ pixel_values, query_embeds, prompt }) {
      const hosted = ({ data, shape }) => ({ data: new Float32Array(data), shape });
      const vision = await worker.Blip2VisionModelWithProjection.from_pretrained("./retrieval");
      const qformer = await worker.Blip2QFormerModel.from_pretrained("./retrieval");
      const { last_hidden_state } = await vision.forward({ pixel_values: hosted(pixel_values) });
      const queries = { query_embeds: hosted(query_embeds), encoder_hidden_states: last_hidden_state };
      const seen = await qformer.forward(queries);
      const base = await worker.InstructBlipModel.from_pretrained("./adapters/base");
      const said = await base.forward({ ...prompt, pixel_values: hosted(prompt.pixel_values) });
      const found = { queries: await read(seen.last_hidden_state),
        words: await read(said.language_model_outputs.last_hidden_state) };
      for (const model of [vision, qformer, base]) await model.dispose();
      return found;
    },
    /** The logits of a tiny model, with adapters. */
    async logits({ pixel_values, ...ids }, adapter) {
      const inputs = { ...ids, pixel_values: { ...pixel_values, data: new Float32Array(pixel_values.data) } };
      const model = await worker.InstructBlipForConditionalGeneration.from_pretrained("./adapters/base", adapter);
      const { logits } = await model.forward(inputs);
      const numbers = await read(logits);
      await model.dispose();
      return numbers;
    },
    /** A pipeline with the page's <img>, streamed; what it and its model save is loaded again. */
    async pipe(question) {
      const pipe = await worker.pipeline("image-text-to-text", { model: { url: "./checkpoint" }, cache: "opfs" });
      const image = document.querySelector("img");
      const [{ generated_text }] = await pipe(image, { text: question, return_full_text: false, max_new_tokens: 8 });
      const root = await navigator.storage.getDirectory();
      const folder = await root.getDirectoryHandle("saved", { create: true });
      await pipe.model.save_pretrained(folder);
      const processor = await worker.AutoProcessor.from_pretrained({ url: "./checkpoint" }, { cache: "opfs" });
      await processor.save_pretrained(folder);
      await pipe.dispose();
      const again = await worker.pipeline("image-text-to-text", { model: folder });
      const [{ generated_text: saved }] = await again(image, { text: question, return_full_text: false });
      await again.dispose();
      await root.removeEntry("saved", { recursive: true });
      return { generated_text, saved };
    },
    /** What instruments say, numbers of a token. */
    async look(question, answer) {
      const processor = await worker.AutoProcessor.from_pretrained("./checkpoint");
      const model = await worker.AutoModelForImageTextToText.from_pretrained("./checkpoint");
      const inputs = await processor({ images: [document.querySelector("img")], text: [question] });
      const progress = [];
      const on_progress = ({ done, total }) => progress.push(done / total);
      const methods = ["image"];
      const { image } = await worker.attribute(model, inputs, { answer, methods, on_progress });
      const lens = await worker.logitLens(model, inputs, { answer, top_k: 1 });
      const controller = new AbortController();
      const aborted = worker.attribute(model, inputs, {
        answer, methods, signal: controller.signal, on_progress: () => controller.abort(new Error("enough")),
      });
      const found = { drops: Array.from(image.drops[0]), top: lens.answer[0].states.map(({ top }) => top[0].id), progress,
        stopped: await codeOf(aborted), refused: await codeOf(model.forward(inputs, { observer: { wants() {}, see() {} } })) };
      try { model.language_model; } catch ({ code, message }) { found.inner = code + ": " + message; }
      await model.dispose();
      return found;
    },
  });
  window.ready = true;
</script>`;

/** The largest difference relative to the largest number; NaN for lists of different lengths. */
function difference(ours: ArrayLike<number>, theirs: ArrayLike<number>): number {
  if (ours.length !== theirs.length) return Number.NaN;
  const most = Math.max(...Array.from(theirs, Math.abs));
  return Math.max(...Array.from(theirs, (x, i) => Math.abs(x - ours[i]))) / most;
}

/** An image and a prompt for the tiny model that adapters are made for. */
const PIXELS = [1, 3, 8, 8];
const PROMPT = { input_ids: [[22, 22, 22, 22, 3, 5]], qformer_input_ids: [[3, 4]] };

interface Waves {
  readonly data: readonly number[];
  readonly shape: readonly number[];
}

/** Numbers that can be posted as JSON. */
function waves(shape: readonly number[]): Waves {
  const length = shape.reduce((size, n) => size * n, 1);
  return { data: Array.from({ length }, (_, i) => Math.sin(i)), shape };
}

const hosted = ({ data, shape }: Waves) => ({ data: new Float32Array(data), shape });

export async function checkWorker(browser: Chromium, expect: Expect): Promise<void> {
  const retrieval = goldenFolder("itm");
  const served = { "retrieval/": retrieval, "adapters/": ADAPTERS, "checkpoint/": EMBEDDED, "images/": IMAGES };
  const server = await serveLibrary(PAGE, served);
  try {
    await browser.send("Page.navigate", { url: server.url });
    await browser.until("window.ready");
    await checkRetrieval(browser, retrieval, expect);
    await checkBases(browser, retrieval, expect);
    await checkAdapters(browser, expect);
    await checkPipeline(browser, expect);
    await checkInstruments(browser, expect);
    await browser.send("Page.navigate", { url: "about:blank" });
  } finally {
    await server.close();
  }
}

interface Scores {
  readonly itc: readonly number[];
  readonly itm: readonly number[];
  readonly texts: readonly number[];
  readonly shape: readonly number[];
  readonly architecture: string;
  readonly generates: boolean;
  readonly disposed: string;
}

/** Scores of images and texts are transformers'. */
async function checkRetrieval(browser: Chromium, folder: string, expect: Expect): Promise<void> {
  const golden = await Golden.open(folder);
  const { texts } = golden.json as unknown as { readonly texts: readonly string[] };
  const images = texts.map((_, i) => `/retrieval/image_${i}.png`);
  const asked = [images, texts].map((one) => JSON.stringify(one)).join(", ");
  const found = await browser.evaluate<Scores>(`retrieve(${asked})`);
  const differences: number[] = [];
  for (const [name, ours] of [
    ["itc.logits_per_image", found.itc],
    ["itm.logits_per_image", found.itm],
    ["itc.text_embeds", found.texts],
  ] as const) {
    const off = difference(ours, (await golden.floats(name)).data);
    expect(off < 1e-4, `by a worker ${name} is PyTorch's, not ${off} from it`);
    differences.push(off);
  }
  await golden.close();
  expect(found.shape.join() === `${images.length},${texts.length}`, `a tensor has its shape, not ${found.shape}`);
  expect(
    found.architecture === "Blip2ForImageTextRetrieval" && !found.generates,
    `AutoModel loads what config.json names, not ${found.architecture}`,
  );
  expect(/^DISPOSED: /.test(found.disposed), `a tensor that is disposed is gone, not ${found.disposed}`);
  const most = Math.max(...differences).toExponential(1);
  console.log(`worker          ITC, ITM and text embeds are PyTorch's to ${most} of the largest`);
}

/** Models without a head, on a tensor that stays in the worker, give what they give in Node. */
async function checkBases(browser: Chromium, folder: string, expect: Expect): Promise<void> {
  const [pixel_values, query_embeds] = [waves([1, 3, 21, 21]), waves([1, 5, 24])];
  const prompt = { pixel_values: waves(PIXELS), ...PROMPT };
  const quiet = { on_warning: null };
  const vision = await Blip2VisionModelWithProjection.from_pretrained(folder, quiet);
  const { last_hidden_state } = await vision.forward({ pixel_values: hosted(pixel_values) });
  const states = { data: await last_hidden_state.read(), shape: last_hidden_state.shape };
  const qformer = await Blip2QFormerModel.from_pretrained(folder, quiet);
  const queries = await qformer.forward({ query_embeds: hosted(query_embeds), encoder_hidden_states: states });
  const base = await InstructBlipModel.from_pretrained(join(ADAPTERS, "base"), quiet);
  const said = await base.forward({ pixel_values: hosted(prompt.pixel_values), ...PROMPT });
  const expected = {
    queries: await queries.last_hidden_state.read(),
    words: await said.language_model_outputs.last_hidden_state.read(),
  };
  for (const model of [vision, qformer, base]) model.dispose();
  const asked = JSON.stringify({ pixel_values, query_embeds, prompt });
  const found = await browser.evaluate<Record<keyof typeof expected, number[]>>(`states(${asked})`);
  for (const name of ["queries", "words"] as const) {
    const off = difference(found[name], expected[name]);
    expect(off < 1e-4, `without a head, by a worker, ${name} are Node's, not ${off} from them`);
  }
  console.log(
    "                a Q-Former by itself, on a tensor of the worker, and InstructBlipModel give Node's states",
  );
}

/** Adapters by URL, alone and one after the other, give what they give in Node. */
async function checkAdapters(browser: Chromium, expect: Expect): Promise<void> {
  const inputs = JSON.stringify({ pixel_values: waves(PIXELS), ...PROMPT });
  const seen: string[] = [];
  for (const names of [[], ["plain"], ["plain", "patterns"]]) {
    const model = await AutoModelForImageTextToText.from_pretrained(join(ADAPTERS, "base"), {
      adapter: names.map((name) => join(ADAPTERS, name)),
      on_warning: null,
    });
    const { logits } = await model.forward({ pixel_values: hosted(waves(PIXELS)), ...PROMPT } as ModelInputs);
    const expected = Array.from(await logits.read());
    model.dispose();
    const urls = names.map((name, i) => (i === 0 ? `./adapters/${name}` : { url: `./adapters/${name}` }));
    const options = JSON.stringify(names.length === 0 ? {} : { adapter: urls.length === 1 ? urls[0] : urls });
    const found = await browser.evaluate<number[]>(`logits(${inputs}, ${options})`);
    const off = difference(found, expected);
    expect(off < 1e-4, `adapters ${names.join(", ")} by a worker give Node's logits, not ${off} from them`);
    seen.push(expected.slice(0, 8).join());
  }
  expect(new Set(seen).size === seen.length, "adapters change the logits");
  console.log(`                ${seen.length - 1} choices of LoRA adapters give Node's logits`);
}

/** A pipeline answers; what is saved to OPFS is loaded from there. */
async function checkPipeline(browser: Chromium, expect: Expect): Promise<void> {
  const { generated_text, saved } = await browser.evaluate<{ generated_text: string; saved: string }>(
    `pipe(${JSON.stringify(QUESTION)})`,
  );
  expect(generated_text.trim() === ANSWER, `a pipeline in a worker answers ${ANSWER}, not ${generated_text}`);
  expect(saved === generated_text, `what was saved to a folder answers the same, not ${saved}`);
  console.log(`                a pipeline answers “${generated_text.trim()}”, and again from what it saved to OPFS`);
}

interface Looked {
  readonly drops: readonly number[];
  readonly top: readonly number[];
  readonly progress: readonly number[];
  readonly stopped: string;
  readonly refused: string;
  readonly inner: string;
}

/** Instruments give Node's numbers, with progress and abort; what cannot be posted is refused by name. */
async function checkInstruments(browser: Chromium, expect: Expect): Promise<void> {
  const processor = await AutoProcessor.from_pretrained(EMBEDDED);
  const model = await AutoModelForImageTextToText.from_pretrained(EMBEDDED);
  const inputs = (await processor({ images: [join(IMAGES, "a.png")], text: [QUESTION] })) as ModelInputs;
  const [answer] = await model.generate({ ...inputs, max_new_tokens: 8, return_full_text: false });
  const { image } = await attribute(model, inputs, { answer, methods: ["image"] });
  const lens = await logitLens(model, inputs, { answer, top_k: 1 });
  model.dispose();
  const asked = `${JSON.stringify(QUESTION)}, ${JSON.stringify(answer)}`;
  const found = await browser.evaluate<Looked>(`look(${asked})`);
  const off = difference(found.drops, image!.drops[0]!);
  expect(off < 1e-3, `by a worker attribution gives Node's drops, not ${off} from them`);
  const top = lens.answer[0]!.states.map((state) => state.top[0]!.id);
  expect(found.top.join() === top.join(), `by a worker the lens says ${top.join()}, not ${found.top.join()}`);
  expect(found.progress.length > 1 && found.progress.at(-1) === 1, `progress is told, not ${found.progress.join()}`);
  expect(/: enough$/.test(found.stopped), `an instrument stops at its signal, with its reason, not ${found.stopped}`);
  expect(
    /^WORKER_CLONE: forward: observer\.wants cannot be posted/.test(found.refused),
    `an observer is refused by name, not ${found.refused}`,
  );
  expect(
    /^WORKER_CLONE: language_model cannot be had from a worker/.test(found.inner),
    `a part of the model is refused by name, not ${found.inner}`,
  );
  console.log(
    "                instruments give Node's numbers, tell their progress and stop; an observer is refused by name",
  );
}
