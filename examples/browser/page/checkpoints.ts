/** Choosing a checkpoint, before anything is loaded, and what is seen while it loads. */

import type { Caps } from "../../../src/index.ts";
import type { RemoteFrom, RemoteModelOptions, WorkerClient } from "../../../src/worker.ts";
import type { OfferedCheckpoint, PageFacts } from "../serve.ts";
import type { Loaded, PageCalls } from "../worker/protocol.ts";
import { element, make, makeButton, saidOf } from "./elements.ts";
import type { LinkState } from "./explorer/link.ts";
import { askToPersist, showKept, wantsKept } from "./kept.ts";
import { update } from "./state.ts";

const page = {
  about: element("p", "#about"),
  failure: element("section" as "div", "#failure"),
  status: element("section" as "div", "#status"),
  checkpoints: element("section" as "div", "#checkpoints"),
  offered: element("ul", "#offered"),
  folder: element("input", "#folder"),
  message: element("p", "#folder-message"),
  dtype: element("select", "#dtype"),
};

/** A checkpoint that was chosen. */
export interface Chosen extends Pick<OfferedCheckpoint, "name" | "note" | "questions"> {
  readonly place: RemoteFrom;
  /** Whether the page offers it, so that a link can name it. */
  readonly isOffered: boolean;
  /** How a link has its weights loaded. */
  readonly dtype?: string | undefined;
}

export function show(status: string, share?: number): void {
  page.status.hidden = false;
  element("p", "#status p").textContent = status;
  const bar = element("progress", "#status progress");
  if (share === undefined) bar.removeAttribute("value");
  else bar.value = share;
}

const NO_GPU = ["NO_WEBGPU", "NO_ADAPTER", "NO_DEVICE"];

/** Shows an error after which the page cannot go on. */
export function fail(error: unknown): void {
  const { code, hint, message } = saidOf(error);
  const noGpu = NO_GPU.includes(code);
  const explained = isSecureContext
    ? "The model computes on the graphics card, through WebGPU. Chrome and Edge have it since version 113, Safari since 26, Firefox since 141 on Windows and 145 on a Mac; on Linux it may have to be switched on, in Chrome at chrome://flags/#enable-unsafe-webgpu."
    : "Browsers give WebGPU only to pages that come over https or from localhost, which this one does not.";
  element("h2", "#failure h2").textContent = noGpu ? "There is no WebGPU in this browser" : "This did not work";
  element("p", "#failure .message").textContent = noGpu ? explained : message;
  const found = code === "NO_WEBGPU" ? "" : [message, hint].filter(Boolean).join("; ");
  element("p", "#failure .hint").textContent = noGpu ? found : hint;
  page.status.hidden = true;
  page.failure.hidden = false;
}

export function sizeText(bytes: number): string {
  return bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(1)} GB`;
}

/** The files of a chosen folder as a checkpoint. @returns a message if it is none */
export function checkpointOf(files: Iterable<File>): Chosen | string {
  const chosen = [...files];
  const paths = chosen.map(({ webkitRelativePath, name }) =>
    (webkitRelativePath || `/${name}`).replace(/^[^/]*\//, ""),
  );
  const name = chosen[0]?.webkitRelativePath.split("/")[0] || "The chosen folder";
  if (!paths.includes("config.json")) {
    return `${name} is not a checkpoint: there is no config.json in it`;
  }
  if (!paths.some((path) => /\.(safetensors|bin|pth?|ckpt)$/.test(path))) {
    return `${name} has no weights: there is neither a .safetensors nor a .bin file in it`;
  }
  const questions = ["What is unusual about this image?", "Describe the image in detail.", "a photo of"];
  return { name, note: "", questions, place: chosen, isOffered: false };
}

/** Lets the user choose; `?checkpoint=N` chooses the Nth, and a link the one that it names. */
export function chooseCheckpoint({ checkpoints }: PageFacts, link: LinkState | string | undefined): Promise<Chosen> {
  const offered = (one: OfferedCheckpoint): Chosen => {
    return { ...one, place: { url: one.url, files: one.files }, isOffered: true };
  };
  const asked = new URLSearchParams(location.search).get("checkpoint");
  const named = typeof link === "object" ? checkpoints.find(({ name }) => name === link.checkpoint) : undefined;
  const known = named ?? (asked === null || link !== undefined ? undefined : checkpoints[Number(asked)]);
  if (known) return Promise.resolve({ ...offered(known), dtype: named && (link as LinkState).dtype });
  page.message.textContent =
    typeof link === "object"
      ? `The link is about ${link.checkpoint.slice(0, 80)}, which is not offered here.`
      : (link ?? "");
  page.status.hidden = true;
  page.checkpoints.hidden = false;
  return new Promise((resolve) => {
    const take = (chosen: Chosen) => {
      page.checkpoints.hidden = true;
      resolve(chosen);
    };
    for (const [i, one] of checkpoints.entries()) {
      const button = makeButton("", "", () => {
        const url = new URL(location.href);
        url.searchParams.set("checkpoint", String(i)); // so that it is there again after a reload
        history.replaceState(null, "", url);
        take(offered(one));
      });
      button.append(make("span", "name", one.name), make("span", "size", sizeText(one.bytes)));
      if (one.note) button.append(make("span", "note", one.note));
      const item = make("li", "");
      item.append(button);
      page.offered.append(item);
    }
    page.folder.onchange = () => {
      const chosen = checkpointOf(page.folder.files ?? []);
      page.message.textContent = typeof chosen === "string" ? chosen : "";
      page.folder.value = ""; // so that the same folder can be chosen again
      if (typeof chosen !== "string") take(chosen);
    };
    page.offered.querySelector("button")?.focus();
  });
}

/** Loads a checkpoint in place of the one before, and says how far it is. @throws EngineError */
export async function loadCheckpoint(client: WorkerClient<PageCalls>, chosen: Chosen, adapter: Caps): Promise<Loaded> {
  const started = performance.now();
  const asked = new URLSearchParams(location.search);
  const dtype = asked.get("dtype") ?? chosen.dtype ?? page.dtype.value;
  const { description, isSoftware } = adapter;
  const names = [chosen.name, `on ${description}${isSoftware ? " (software, so slow)" : ""}`];
  page.about.textContent = names.join(" · ");
  show("Loading the processor");
  const isKept = "url" in Object(chosen.place) && wantsKept();
  if (isKept) await askToPersist();
  const keeping: Pick<RemoteModelOptions, "cache" | "on_download"> = isKept
    ? {
        cache: "opfs",
        on_download: ({ file, loadedBytes, totalBytes }) =>
          show(`Downloading ${file}: ${MB(loadedBytes)} of ${MB(totalBytes)} MB`, loadedBytes / totalBytes),
      }
    : {};
  const processor = await client.AutoProcessor.from_pretrained(chosen.place, keeping);
  const model = await client.AutoModelForImageTextToText.from_pretrained(chosen.place, {
    ...keeping,
    dtype: dtype as "auto", // an invalid one is refused
    weight_cache: isKept,
    fix_vicuna_token_ids: asked.has("fix_vicuna_token_ids"),
    on_progress: ({ loadedBytes, totalBytes }) => {
      if (loadedBytes === totalBytes) return show("Compiling the kernels");
      show(`Loading the weights: ${MB(loadedBytes)} of ${MB(totalBytes)} MB`, loadedBytes / totalBytes);
    },
    on_warning: null, // shown below
  });
  const seconds = ((performance.now() - started) / 1000).toFixed(2);
  page.about.textContent = [...names, `loaded in ${seconds} s`].join(" · ");
  page.about.append(document.createElement("br"), `Nothing leaves this machine. ${chosen.note}`);
  for (const warning of model.warnings) page.about.append(document.createElement("br"), warning);
  page.status.hidden = true;
  await showKept();
  update({ checkpoint: chosen.isOffered ? chosen.name : undefined, dtype });
  return { model, processor };
}

const MB = (bytes: number) => (bytes / 1e6).toFixed(1);
