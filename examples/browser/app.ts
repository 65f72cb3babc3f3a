/**
 * The page of `npm run browser`: loads a checkpoint over HTTP, and answers questions about an image, streamed. The code of
 * an application is in `load` and `ask`; the rest is the page (index.html).
 *
 * In your own project import from "instructblip-webgpu": bundlers select the browser's entry point.
 */
import {
  type AnyProcessor,
  AutoModelForImageTextToText,
  AutoProcessor,
  type Device,
  EngineError,
  openDevice,
  TextIteratorStreamer,
  type VisionLanguageModel,
} from "../../src/index.ts";
import { examine, formatCheck, formatSummary } from "../../src/instructblip/doctor/doctor.ts";
import type { PageExam, PageFacts } from "./serve.ts";

interface Loaded {
  readonly model: VisionLanguageModel;
  readonly processor: AnyProcessor;
}

interface Timing {
  readonly tokens: number;
  readonly firstTokenMs: number;
  readonly decodeMs: number;
}

/**
 * Processor and weights from the folder at this URL. @param onProgress fraction of the weights that is loaded, while they
 * are read, and a message
 */
async function load(
  url: string,
  device: Device,
  asked: URLSearchParams,
  onProgress: (share: number | undefined, text: string) => void,
): Promise<Loaded> {
  const processor = await AutoProcessor.from_pretrained(url);
  const model = await AutoModelForImageTextToText.from_pretrained(url, {
    device,
    dtype: (asked.get("dtype") ?? "auto") as "auto", // an invalid one is refused
    fix_vicuna_token_ids: asked.has("fix_vicuna_token_ids"),
    on_progress: ({ loadedBytes, totalBytes }) => {
      const MB = (bytes: number) => (bytes / 1e6).toFixed(1);
      if (loadedBytes === totalBytes) onProgress(undefined, "Compiling the kernels");
      else onProgress(loadedBytes / totalBytes, `Loading the weights: ${MB(loadedBytes)} of ${MB(totalBytes)} MB`);
    },
  });
  return { model, processor };
}

/** Asks about an image; `write` receives the streamed text. */
async function ask(
  { model, processor }: Loaded,
  image: Blob,
  question: string,
  write: (piece: string) => void,
  signal: AbortSignal,
): Promise<Timing> {
  const started = performance.now();
  let first = 0;
  let tokens = 0;
  const inputs = await processor({ images: [image], text: [question] });
  const streamer = new TextIteratorStreamer(processor.tokenizer, { skip_prompt: true, skip_special_tokens: true });
  const done = model.generate({
    ...inputs,
    max_new_tokens: 64,
    streamer,
    signal,
    on_token: () => {
      tokens++;
      first ||= performance.now();
    },
  });
  done.catch(() => {}); // the streamer throws it too
  for await (const piece of streamer) write(piece);
  await done;
  return { tokens, firstTokenMs: first - started, decodeMs: performance.now() - first };
}

// --- the page --------------------------------------------------------------------------------------------------------

function element<K extends keyof HTMLElementTagNameMap>(_kind: K, selector: string): HTMLElementTagNameMap[K] {
  const found = document.querySelector<HTMLElementTagNameMap[K]>(selector);
  if (!found) throw new Error(`index.html has no ${selector}`);
  return found;
}

const page = {
  about: element("p", "#about"),
  failure: element("div", "#failure"),
  status: element("div", "#status"),
  main: element("main" as "div", "main"),
  file: element("input", "#file"),
  drop: element("label", "#drop"),
  image: element("img", "#image"),
  images: element("div", "#images"),
  talk: element("ol", "#talk"),
  suggestions: element("div", "#suggestions"),
  form: element("form", "#ask"),
  question: element("input", "#question"),
  button: element("button", "#ask button"),
  doctor: element("button", "#doctor"),
  checking: element("span", "#checking"),
  report: element("pre", "#report"),
};

let loaded: Loaded | undefined;
let image: Blob | undefined;
/** Stops the answer that is being written. */
let writing: AbortController | undefined;

function show(status: string, share?: number): void {
  element("p", "#status p").textContent = status;
  const bar = element("progress", "#status progress");
  if (share === undefined) bar.removeAttribute("value");
  else bar.value = share;
}

/** The error's message, and its hint on a second line. */
function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function fail(error: unknown): void {
  const code = error instanceof EngineError ? error.code : "";
  const [message, hint = ""] = messageOf(error).split("\n");
  const noGpu = code === "NO_WEBGPU" || code === "NO_ADAPTER" || code === "NO_DEVICE";
  const explained = isSecureContext
    ? "The model computes on the graphics card, through WebGPU. Chrome and Edge have it since version 113, Safari since 26, Firefox since 141 on Windows and 145 on a Mac; on Linux it may have to be switched on, in Chrome at chrome://flags/#enable-unsafe-webgpu."
    : "Browsers give WebGPU only to pages that come over https or from localhost, which this one does not.";
  element("h2", "#failure h2").textContent = noGpu ? "There is no WebGPU in this browser" : "This did not work";
  element("p", "#failure .message").textContent = noGpu ? explained : message;
  const found = code === "NO_WEBGPU" ? "" : `${message}; ${hint.trim()}`;
  element("p", "#failure .hint").textContent = noGpu ? found : hint.trim();
  page.status.hidden = true;
  page.failure.hidden = false;
}

/** Enables or disables the form. */
function refresh(): void {
  const ready = loaded !== undefined && image !== undefined;
  page.question.disabled = !ready;
  page.button.disabled = !ready;
  page.button.textContent = writing ? "Stop" : "Ask";
  for (const button of page.suggestions.querySelectorAll("button")) button.disabled = !ready || writing !== undefined;
}

/** Selects the image. */
function choose(blob: Blob, questions: readonly string[]): void {
  writing?.abort();
  image = blob;
  URL.revokeObjectURL(page.image.src);
  page.image.src = URL.createObjectURL(blob);
  page.talk.replaceChildren();
  for (const button of page.images.querySelectorAll("button")) button.ariaPressed = "false";
  page.suggestions.replaceChildren(
    ...questions.map((text) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = text;
      button.onclick = () => void converse(text);
      return button;
    }),
  );
  refresh();
}

/** Asks a question and shows its answer, streamed. */
async function converse(question: string): Promise<void> {
  if (!loaded || !image || writing) return;
  const entry = document.createElement("li");
  const [asked, answer, timing] = ["question", "answer", "timing"].map((name) => {
    const line = document.createElement("div");
    line.className = name;
    entry.append(line);
    return line;
  });
  asked.textContent = question;
  answer.classList.add("writing");
  page.talk.append(entry);
  const controller = new AbortController();
  writing = controller;
  refresh();
  try {
    const write = (piece: string) => {
      answer.textContent = (answer.textContent + piece).trimStart();
      entry.scrollIntoView({ block: "nearest" });
    };
    const { tokens, firstTokenMs, decodeMs } = await ask(loaded, image, question, write, controller.signal);
    const rate = tokens > 1 ? `, then ${((1000 * (tokens - 1)) / decodeMs).toFixed(0)} tokens/s` : "";
    timing.textContent = `first token after ${(firstTokenMs / 1000).toFixed(2)} s${rate}`;
  } catch (error) {
    if (controller.signal.aborted) timing.textContent = "stopped";
    else {
      answer.classList.add("failed");
      answer.textContent = messageOf(error);
    }
  } finally {
    answer.classList.remove("writing");
    entry.scrollIntoView({ block: "nearest" });
    writing = undefined;
    refresh();
  }
}

function listen(questions: readonly string[]): void {
  const isImage = ({ type }: File) => type.startsWith("image/");
  const take = (files: Iterable<File> | null | undefined) => {
    // A file that is not an image is refused when a question is asked.
    const image = [...(files ?? [])].sort((a, b) => Number(isImage(b)) - Number(isImage(a)))[0];
    if (image) choose(image, questions);
    return image !== undefined;
  };
  page.file.onchange = () => {
    take(page.file.files);
    page.file.value = ""; // so that the same file can be chosen again
  };
  document.addEventListener("paste", (event) => {
    if (take(event.clipboardData?.files)) event.preventDefault();
  });
  // On the whole page: an image dropped beside the frame would replace the page.
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    page.drop.classList.add("over");
  });
  document.addEventListener("dragleave", () => page.drop.classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    page.drop.classList.remove("over");
    take(event.dataTransfer?.files);
  });
  page.form.onsubmit = (event) => {
    event.preventDefault();
    if (writing) return writing.abort();
    const question = page.question.value.trim();
    if (question === "") return;
    page.question.value = "";
    void converse(question);
  };
}

async function fetched(url: string): Promise<Response> {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: the server answers ${response.status}`);
  return response;
}

async function showImages({ images }: PageFacts): Promise<void> {
  const select = async ({ image, questions }: PageFacts["images"][number], button: HTMLButtonElement) => {
    choose(await (await fetched(image)).blob(), questions);
    button.ariaPressed = "true";
  };
  for (const entry of images) {
    const button = document.createElement("button");
    button.type = "button";
    button.ariaLabel = entry.image;
    const image = document.createElement("img");
    image.src = entry.image;
    image.alt = "";
    button.append(image);
    button.onclick = () => void select(entry, button).catch(fail);
    page.images.append(button);
  }
  await select(images[0], page.images.querySelector("button")!);
}

/** Checks kernels and answers on a device of its own, as the command line's `doctor` does; a second click stops it. */
function offerDoctor(): void {
  let running: AbortController | undefined;
  const check = async (signal: AbortSignal) => {
    const exam = (await (await fetched("exam.json")).json()) as PageExam;
    const images = exam.map(async ({ image, ...asked }) => {
      return { ...asked, name: image, image: await (await fetched(image)).blob() };
    });
    const device = await openDevice();
    const write = (text: string) => {
      page.report.textContent += text;
      page.report.scrollTop = page.report.scrollHeight;
    };
    try {
      const report = await examine(
        device,
        { checkpoint: "embedded", images: await Promise.all(images) },
        {
          quick: new URLSearchParams(location.search).has("quick"),
          signal,
          progress: (text) => {
            page.checking.textContent = text;
          },
          onCheck: async (check) => {
            write(formatCheck(check));
            await new Promise((shown) => setTimeout(shown)); // the f64 references block rendering
          },
          versions: { browser: navigator.userAgent },
        },
      );
      write(`* used on this adapter\n\n${formatSummary(report)}`);
    } finally {
      device.destroy();
    }
  };
  page.doctor.disabled = false;
  page.doctor.onclick = async () => {
    if (running) return running.abort();
    running = new AbortController();
    page.doctor.textContent = "Stop";
    page.report.hidden = false;
    page.report.textContent = "";
    try {
      await check(running.signal);
      page.checking.textContent = running.signal.aborted ? "stopped" : "";
    } catch (error) {
      page.checking.textContent = running.signal.aborted ? "stopped" : messageOf(error);
    } finally {
      running = undefined;
      page.doctor.textContent = "Check this adapter";
    }
  };
}

async function start(): Promise<void> {
  const device = await openDevice(); // before anything is loaded
  const facts = (await (await fetched("page.json")).json()) as PageFacts;
  const { description, isSoftware } = device.caps;
  const names = [facts.model, `on ${description}${isSoftware ? " (software, so slow)" : ""}`];
  page.about.textContent = names.join(" · ");
  listen(facts.questions);
  offerDoctor();
  page.main.hidden = false;
  await showImages(facts);
  const started = performance.now();
  show("Loading the processor");
  const asked = new URLSearchParams(location.search);
  loaded = await load("checkpoint", device, asked, (share, text) => show(text, share));
  const seconds = ((performance.now() - started) / 1000).toFixed(2);
  page.about.textContent = [...names, `loaded in ${seconds} s`].join(" · ");
  page.about.append(document.createElement("br"), `Nothing leaves this machine. ${facts.note}`);
  page.status.hidden = true;
  refresh();
  page.question.focus();
}

start().catch(fail);
