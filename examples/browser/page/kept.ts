/** What the browser keeps of models, and how to delete it. */
import { type KeptFolder, OpfsCache } from "../../../src/index.ts";
import type { OfferedCheckpoint } from "../serve.ts";
import { sizeText } from "./checkpoints.ts";
import { element, make, makeButton } from "./elements.ts";

const page = {
  keep: element("input", "#keep"),
  kept: element("section" as "div", "#kept"),
  text: element("p", "#kept-text"),
  folders: element("ul", "#kept-folders"),
};

/** Names of checkpoints that the page offers, by URL. */
const names = new Map<string, string>();

/** Whether the user wants the model that is loaded next to be kept. */
export function wantsKept(): boolean {
  return new URLSearchParams(location.search).has("keep") || page.keep.checked;
}

/** Asks the browser not to delete what is kept: only a page can, not its worker. */
export async function askToPersist(): Promise<void> {
  await OpfsCache.open()
    .then((cache) => cache.persist())
    .catch(() => undefined); // there is nothing to keep then, of which the model warns
}

/** What is kept of a model, and in which form: `3.9 MB, quantized, in place of 6.7 MB`. */
export function keptText({ files, quantized, keptBytes }: KeptFolder): string {
  const size = sizeText(keptBytes);
  const whole = files.reduce((sum, file) => sum + file.size, 0);
  if (files.some(({ isReduced }) => isReduced)) return `${size}, quantized, in place of ${sizeText(whole)}`;
  const missing = files.reduce((sum, file) => sum + file.size - file.keptBytes, 0);
  if (missing > 0) return `${size}; ${sizeText(missing)} are still to be downloaded`;
  return quantized.length > 0 ? `${size}, whole and quantized` : size;
}

/** Shows what is kept, and how long the browser will. @param offered checkpoints of the page, whose names are shown */
export async function showKept(offered: readonly OfferedCheckpoint[] = []): Promise<void> {
  for (const { url, name } of offered) names.set(new URL(url, location.href).href, name);
  const cache = await OpfsCache.open().catch(() => undefined);
  const folders = ((await cache?.list()) ?? []).filter(({ keptBytes }) => keptBytes > 0);
  const bytes = folders.reduce((sum, { keptBytes }) => sum + keptBytes, 0);
  page.kept.hidden = folders.length === 0;
  if (!cache || folders.length === 0) return;
  const { quotaBytes, persisted } = await cache.space();
  const room = quotaBytes === undefined ? "" : ` of ${sizeText(quotaBytes)} that it may`;
  const until = persisted ? "until you delete it" : "until its disk is nearly full";
  page.text.textContent = `This browser keeps ${sizeText(bytes)}${room}, ${until}.`;
  page.folders.replaceChildren(
    ...folders.map((folder) => {
      const { url } = folder;
      const name = names.get(url) ?? decodeURI(url.replace(/^\w+:\/\//, ""));
      const item = make("li", "");
      const forget = makeButton("pill", "Forget", async () => {
        await cache.delete(url);
        await showKept();
      });
      forget.ariaLabel = `Forget ${name}`;
      item.append(make("span", "name", name), make("span", "size", keptText(folder)), forget);
      return item;
    }),
  );
}
