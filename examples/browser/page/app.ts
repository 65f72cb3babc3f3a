/** The page of `npm run browser`: opens the GPU, lets the user choose a checkpoint, and shows the views. */
import type { PageFacts } from "../serve.ts";
import { chooseCheckpoint, fail, loadCheckpoint, show } from "./checkpoints.ts";
import { offerDoctor } from "./doctor.ts";
import { element, fetched } from "./elements.ts";
import { offerExplorer } from "./explorer/explorer.ts";
import { update } from "./state.ts";
import { offerImages } from "./subject.ts";
import { offerTabs } from "./tabs.ts";
import { offerTalk } from "./talk.ts";
import { WorkerClient, WorkerError } from "./worker_client.ts";

async function start(): Promise<void> {
  if (!navigator.gpu) {
    throw new WorkerError({ code: "NO_WEBGPU", message: "there is no navigator.gpu", hint: "", aborted: false });
  }
  const client = new WorkerClient("worker.js");
  const adapter = await client.call("open", null); // before anything is loaded
  const facts = (await (await fetched("page.json")).json()) as PageFacts;
  offerDoctor();
  const chosen = await chooseCheckpoint(facts);
  const explorer = offerExplorer(client);
  const tabs = offerTabs((view, asked) => (view === "inside" ? explorer.open(asked) : explorer.close()));
  offerTalk(client, (question) => tabs.show("inside", question));
  element("div", "#views").hidden = false;
  show("Loading the processor");
  await offerImages(facts, chosen.questions);
  await loadCheckpoint(client, chosen, adapter);
  update({ ready: true });
  element("input", "#question").focus();
}

start().catch(fail);
