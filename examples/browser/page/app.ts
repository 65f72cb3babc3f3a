/** The page of `npm run browser`: opens the GPU, lets the user choose a checkpoint, and shows the views. */
import { DeviceError } from "../../../src/index.ts";
import { connect } from "../../../src/worker.ts";
import type { PageFacts } from "../serve.ts";
import type { PageCalls } from "../worker/protocol.ts";
import { chooseCheckpoint, fail, loadCheckpoint, show } from "./checkpoints.ts";
import { offerDoctor } from "./doctor.ts";
import { element, fetched } from "./elements.ts";
import { offerExplorer } from "./explorer/explorer.ts";
import { linkOf } from "./explorer/link.ts";
import { showKept } from "./kept.ts";
import { reloadWhenLost } from "./lost.ts";
import { state, update } from "./state.ts";
import { offerImages } from "./subject.ts";
import { offerTabs } from "./tabs.ts";
import { offerTalk } from "./talk.ts";

async function start(): Promise<void> {
  if (!navigator.gpu) throw new DeviceError("NO_WEBGPU", "there is no navigator.gpu");
  const client = connect<PageCalls>(new Worker("worker.js", { type: "module" }));
  const adapter = await client.openDevice(); // before anything is loaded
  const facts = (await (await fetched("page.json")).json()) as PageFacts;
  offerDoctor();
  await showKept(facts.checkpoints);
  const link = linkOf(location.hash);
  const chosen = await chooseCheckpoint(facts, link);
  const explorer = offerExplorer(client);
  const tabs = offerTabs((view, asked) => (view === "inside" ? explorer.open(asked) : explorer.close()));
  offerTalk((question) => tabs.show("inside", question));
  element("div", "#views").hidden = false;
  show("Loading the processor");
  const restored = typeof link === "object" && chosen.name === link.checkpoint ? link : undefined;
  await offerImages(facts, chosen.questions, restored?.image);
  const load = () => loadCheckpoint(client, chosen, adapter);
  reloadWhenLost(client, load);
  const loaded = await load();
  // The image of a link that is not here is said; a question about another image would mislead.
  if (restored && restored.image === state().imageName) {
    explorer.restore(restored);
    tabs.show("inside");
    update({ loaded });
    return;
  }
  update({ loaded });
  element("input", "#question").focus();
}

start().catch(fail);
