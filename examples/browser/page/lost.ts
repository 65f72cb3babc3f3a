/** The loss of the GPU device: the model is loaded again, and what was asked and answered stays. */
import type { WorkerClient } from "../../../src/worker.ts";
import type { Loaded, PageCalls } from "../worker/protocol.ts";
import { fail } from "./checkpoints.ts";
import { element, saidOf } from "./elements.ts";
import { update } from "./state.ts";

const notice = element("p", "#lost");

/** Losses within a minute after which the page gives up: a model that does not fit is lost each time. */
const MOST = 3;

/** @param load loads the model that was chosen */
export function reloadWhenLost(client: WorkerClient<PageCalls>, load: () => Promise<Loaded>): void {
  let losses: number[] = [];
  client.onlost = async (error) => {
    losses = [...losses.filter((at) => at > performance.now() - 60_000), performance.now()];
    update({ loaded: undefined });
    if (losses.length > MOST) {
      client.onlost = undefined;
      return fail(error);
    }
    notice.hidden = false;
    const { message } = saidOf(error);
    notice.textContent = `${message[0]!.toUpperCase()}${message.slice(1)}. The model is loaded again; what was asked and answered stays.`;
    const count = losses.length;
    try {
      const loaded = await load();
      if (count === losses.length) update({ loaded });
      notice.textContent = "The GPU device was lost, and the model has been loaded again. Ask on.";
    } catch (failure) {
      if (saidOf(failure).code !== "DEVICE_LOST") fail(failure); // else the next loss is told
    }
  };
}
