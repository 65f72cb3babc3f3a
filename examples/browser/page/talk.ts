/** Questions and answers. */

import { TextIteratorStreamer } from "../../../src/worker.ts";
import type { Loaded } from "../worker/protocol.ts";
import { copyText } from "./clipboard.ts";
import { element, make, makeButton, saidOf } from "./elements.ts";
import { follow, state, update } from "./state.ts";

const page = {
  talk: element("ol", "#talk"),
  clear: element("button", "#clear"),
  suggestions: element("div", "#suggestions"),
  form: element("form", "#ask"),
  question: element("input", "#question"),
  button: element("button", "#ask button"),
};

interface Timing {
  readonly tokens: number;
  readonly firstTokenMs: number;
  readonly decodeMs: number;
}

/** Fewer tokens say nothing about the rate. */
const LEAST_TOKENS = 5;

function timingText({ tokens, firstTokenMs, decodeMs }: Timing): string {
  const first = `first token after ${(firstTokenMs / 1000).toFixed(2)} s`;
  if (tokens < LEAST_TOKENS) return first;
  const rate = (1000 * (tokens - 1)) / decodeMs;
  return `${first}, then ${rate < 10 ? rate.toFixed(1) : rate.toFixed(0)} tokens/s`;
}

/** Asks about an image. @param tell is told the answer piece by piece */
async function answer(
  { model, processor }: Loaded,
  { image, text }: { image: Blob; text: string },
  tell: (piece: string) => void,
  signal: AbortSignal,
): Promise<Timing> {
  const started = performance.now();
  let first = 0;
  let tokens = 0;
  const inputs = await processor({ images: [image], text: [text] });
  const streamer = new TextIteratorStreamer(processor.tokenizer, { skip_prompt: true, skip_special_tokens: true });
  const on_token = () => {
    tokens++;
    first ||= performance.now();
  };
  const done = model.generate({ ...inputs, max_new_tokens: 64, streamer, signal, on_token });
  done.catch(() => {}); // the streamer throws it too
  for await (const piece of streamer) tell(piece);
  await done;
  return { tokens, firstTokenMs: first - started, decodeMs: performance.now() - first };
}

/** @param lookInside opens the other view with a question */
export function offerTalk(lookInside: (question: string) => void): void {
  /** Stops the answer that is being written. */
  let writing: AbortController | undefined;

  /** Asks a question and shows its answer, streamed. */
  const converse = async (question: string): Promise<void> => {
    const { loaded, image } = state();
    if (!loaded || !image || writing) return;
    const entry = make("li", "");
    const [asked, answered, after, timing] = [
      make("div", "question", question),
      make("div", "answer writing"),
      make("div", "after"),
      make("span", "timing"),
    ];
    after.append(timing);
    entry.append(asked, answered, after);
    page.talk.append(entry);
    const controller = new AbortController();
    writing = controller;
    update({ writing: true });
    try {
      const tell = (piece: string) => {
        answered.textContent = (answered.textContent + piece).trimStart();
        entry.scrollIntoView({ block: "nearest" });
      };
      const took = await answer(loaded, { image, text: question }, tell, controller.signal);
      timing.textContent = timingText(took);
    } catch (error) {
      if (controller.signal.aborted) timing.textContent = "stopped";
      else {
        const { message, hint } = saidOf(error);
        answered.classList.add("failed");
        answered.textContent = [message, hint].filter(Boolean).join("\n");
      }
    } finally {
      answered.classList.remove("writing");
      const copying = makeButton("", "Copy", () => void copyText(answered.textContent ?? "", copying));
      after.append(
        copying,
        makeButton("", "Ask again", () => void converse(question)),
        makeButton("", "Look inside", () => lookInside(question)),
      );
      if (!answered.textContent) copying.remove();
      entry.scrollIntoView({ block: "nearest" });
      writing = undefined;
      update({ writing: false });
    }
  };

  page.talk.tabIndex = 0; // where it scrolls, arrow keys scroll it
  page.clear.onclick = () => {
    writing?.abort();
    page.talk.replaceChildren();
    update({});
    page.question.focus();
  };
  page.form.onsubmit = (event) => {
    event.preventDefault();
    if (writing) return writing.abort();
    const question = page.question.value.trim();
    if (question === "") return;
    page.question.value = "";
    void converse(question);
  };
  follow(({ loaded, image, questions, writing: isWriting }, before) => {
    if (image !== before.image) {
      writing?.abort();
      page.talk.replaceChildren();
    }
    if (questions !== before.questions) {
      page.suggestions.replaceChildren(...questions.map((text) => makeButton("pill", text, () => void converse(text))));
    }
    const canAsk = loaded !== undefined && image !== undefined;
    page.question.disabled = !canAsk;
    page.button.disabled = !canAsk;
    page.button.textContent = isWriting ? "Stop" : "Ask";
    page.clear.disabled = page.talk.childElementCount === 0;
    for (const button of page.suggestions.querySelectorAll("button")) button.disabled = !canAsk || isWriting;
  });
}
