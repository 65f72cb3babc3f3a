/** Questions and answers. */

import type { Timing } from "../worker/protocol.ts";
import { copyText } from "./clipboard.ts";
import { element, make, makeButton } from "./elements.ts";
import { follow, state, update } from "./state.ts";
import type { WorkerClient, WorkerError } from "./worker_client.ts";

const page = {
  talk: element("ol", "#talk"),
  clear: element("button", "#clear"),
  suggestions: element("div", "#suggestions"),
  form: element("form", "#ask"),
  question: element("input", "#question"),
  button: element("button", "#ask button"),
};

/** Fewer tokens say nothing about the rate. */
const LEAST_TOKENS = 5;

export function timingText({ tokens, firstTokenMs, decodeMs }: Timing): string {
  const first = `first token after ${(firstTokenMs / 1000).toFixed(2)} s`;
  if (tokens < LEAST_TOKENS) return first;
  const rate = (1000 * (tokens - 1)) / decodeMs;
  return `${first}, then ${rate < 10 ? rate.toFixed(1) : rate.toFixed(0)} tokens/s`;
}

/** @param lookInside opens the other view with a question */
export function offerTalk(client: WorkerClient, lookInside: (question: string) => void): void {
  /** Stops the answer that is being written. */
  let writing: AbortController | undefined;

  /** Asks a question and shows its answer, streamed. */
  const converse = async (question: string): Promise<void> => {
    const { ready, image } = state();
    if (!ready || !image || writing) return;
    const entry = make("li", "");
    const [asked, answer, after, timing] = [
      make("div", "question", question),
      make("div", "answer writing"),
      make("div", "after"),
      make("span", "timing"),
    ];
    after.append(timing);
    entry.append(asked, answer, after);
    page.talk.append(entry);
    const controller = new AbortController();
    writing = controller;
    update({ writing: true });
    try {
      const tell = (piece: string) => {
        answer.textContent = (answer.textContent + piece).trimStart();
        entry.scrollIntoView({ block: "nearest" });
      };
      const { signal } = controller;
      const took = await client.call("answer", { image, text: question, interventions: [] }, { tell, signal });
      timing.textContent = timingText(took);
    } catch (error) {
      if (controller.signal.aborted) timing.textContent = "stopped";
      else {
        const { message, hint } = error as WorkerError;
        answer.classList.add("failed");
        answer.textContent = [message, hint].filter(Boolean).join("\n");
      }
    } finally {
      answer.classList.remove("writing");
      const copying = makeButton("", "Copy", () => void copyText(answer.textContent ?? "", copying));
      after.append(
        copying,
        makeButton("", "Ask again", () => void converse(question)),
        makeButton("", "Look inside", () => lookInside(question)),
      );
      if (!answer.textContent) copying.remove();
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
  follow(({ ready, image, questions, writing: isWriting }, before) => {
    if (image !== before.image) {
      writing?.abort();
      page.talk.replaceChildren();
    }
    if (questions !== before.questions) {
      page.suggestions.replaceChildren(...questions.map((text) => makeButton("pill", text, () => void converse(text))));
    }
    const canAsk = ready && image !== undefined;
    page.question.disabled = !canAsk;
    page.button.disabled = !canAsk;
    page.button.textContent = isWriting ? "Stop" : "Ask";
    page.clear.disabled = page.talk.childElementCount === 0;
    for (const button of page.suggestions.querySelectorAll("button")) button.disabled = !canAsk || isWriting;
  });
}
