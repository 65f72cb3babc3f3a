/** What the whole model's answer rests on in the image: asked of the worker once, when it is first looked at. */
import type { Calls } from "../../worker/protocol.ts";
import type { WorkerClient, WorkerError } from "../worker_client.ts";

export interface Rests {
  /** Of a token f32[patches], in nats; undefined while it is not known, and then `progress` says why. */
  dropsOf(token: number): Float32Array | undefined;
  readonly progress: string;
  /** Asks for it, if that has not been done. */
  request(asked: Calls["occlude"]["asked"]): void;
  /** Forgets it: there is another answer. */
  reset(): void;
}

/** @param changed is called when there is something new to show */
export function makeRests(client: WorkerClient, changed: () => void): Rests {
  let drops: readonly Float32Array[] | undefined;
  let progress = "";
  let running: AbortController | undefined;

  const ask = async (asked: Calls["occlude"]["asked"], { signal }: AbortController) => {
    try {
      const found = await client.call("occlude", asked, {
        signal,
        tell: ({ done, total }) => {
          if (signal.aborted) return;
          progress = `Covering parts of the image, one after the other: ${done} of ${total}`;
          changed();
        },
      });
      if (!signal.aborted) drops = found.drops;
    } catch (error) {
      if (signal.aborted) return;
      progress = (error as WorkerError).message;
    }
    changed();
  };

  return {
    dropsOf: (token) => drops?.[token],
    get progress() {
      return progress;
    },
    request(asked) {
      if (running) return;
      running = new AbortController();
      progress = "Covering parts of the image, one after the other …";
      void ask(asked, running);
    },
    reset() {
      running?.abort();
      running = undefined;
      drops = undefined;
      progress = "";
    },
  };
}
