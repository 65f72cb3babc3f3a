/** What the whole model's answer rests on in the image and in the question: asked of the worker once, when it is first looked at. */
import type { WorkerClient } from "../../../../src/worker.ts";
import type { Occluded, PageCalls } from "../../worker/protocol.ts";
import { element, make, saidOf } from "../elements.ts";
import { nats, visibleText } from "./exploration.ts";

export interface Rests {
  /** Undefined while it is not known, and then `progress` says why. */
  readonly found: Occluded | undefined;
  readonly progress: string;
  /** Asks for it, if that has not been done. */
  request(asked: PageCalls["occlude"]["asked"]): void;
  /** Forgets it: there is another answer. */
  reset(): void;
}

/** @param changed is called when there is something new to show */
export function makeRests(client: WorkerClient<PageCalls>, changed: () => void): Rests {
  let found: Occluded | undefined;
  let progress = "";
  let running: AbortController | undefined;

  const ask = async (asked: PageCalls["occlude"]["asked"], { signal }: AbortController) => {
    try {
      const occluded = await client.call("occlude", asked, {
        signal,
        tell: ({ done, total }) => {
          if (signal.aborted) return;
          progress = `Covering parts of the image and leaving out words, one after the other: ${done} of ${total}`;
          changed();
        },
      });
      if (!signal.aborted) found = occluded;
    } catch (error) {
      if (signal.aborted) return;
      progress = saidOf(error).message;
    }
    changed();
  };

  return {
    get found() {
      return found;
    },
    get progress() {
      return progress;
    },
    request(asked) {
      if (running) return;
      running = new AbortController();
      progress = "Covering parts of the image and leaving out words …";
      void ask(asked, running);
    },
    reset() {
      running?.abort();
      running = undefined;
      found = undefined;
      progress = "";
    },
  };
}

const page = { words: element("p", "#rest-words") };

/** The question's words, each coloured by what the token loses without it; nothing hides them. */
export function showRestWords(found: Occluded | undefined, token: number): void {
  page.words.hidden = found === undefined;
  if (!found) return;
  const drops = found.words.map((word) => word.drops[token]!);
  const most = Math.max(...drops.map(Math.abs), Number.MIN_VALUE);
  page.words.replaceChildren(
    ...found.words.map(({ text }, i) => {
      const word = make("span", "rest-word", visibleText(text));
      word.classList.toggle("against", drops[i]! < 0);
      word.style.setProperty("--share", String(Math.abs(drops[i]!) / most));
      word.append(make("small", "", nats(drops[i]!)));
      return word;
    }),
  );
}
