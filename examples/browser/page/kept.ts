/** What the browser keeps of models, and how to delete it. */
import { OpfsCache } from "../../../src/index.ts";
import { sizeText } from "./checkpoints.ts";
import { element } from "./elements.ts";

const page = {
  keep: element("input", "#keep"),
  kept: element("p", "#kept"),
  text: element("span", "#kept-text"),
  forget: element("button", "#forget"),
};

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

/** Shows what is kept, and how long the browser will. */
export async function showKept(): Promise<void> {
  const cache = await OpfsCache.open().catch(() => undefined);
  const folders = (await cache?.list()) ?? [];
  const bytes = folders.reduce((sum, { keptBytes }) => sum + keptBytes, 0);
  page.kept.hidden = bytes === 0;
  if (!cache || bytes === 0) return;
  const { quotaBytes, persisted } = await cache.space();
  const room = quotaBytes === undefined ? "" : ` of ${sizeText(quotaBytes)} that it may`;
  const until = persisted ? "until you delete it" : "until its disk is nearly full";
  page.text.textContent = `This browser keeps ${sizeText(bytes)}${room}, ${until}.`;
  page.forget.onclick = async () => {
    await cache.clear();
    await showKept();
  };
}
