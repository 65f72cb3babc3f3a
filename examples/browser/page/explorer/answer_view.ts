/** The answer, token by token, and what could have been said in place of the chosen one. */

import type { Look, SeenToken, SeenWord } from "../../worker/protocol.ts";
import { element, make, makeButton } from "../elements.ts";
import { changedFrom, percent, probability, readsOf, visibleText } from "./exploration.ts";
import { arrowKeys } from "./keys.ts";

const page = {
  tokens: element("div", "#tokens"),
  whole: element("p", "#whole"),
  chosen: element("p", "#chosen"),
  instead: element("ul", "#instead"),
};

const textOf = ({ text, isEnd }: Pick<SeenToken, "text" | "isEnd">) => (isEnd ? "end" : visibleText(text));
const answerText = (tokens: readonly SeenToken[]) =>
  tokens
    .filter(({ isEnd }) => !isEnd)
    .map(({ text }) => text)
    .join("")
    .trim();

/** A token while the answer is written: nothing more is known of it. */
export interface WrittenToken {
  readonly id: number;
  readonly text: string;
}

/** @param whole what the whole model said, if it is known */
export function showWritten(written: readonly WrittenToken[], whole: Look | undefined): void {
  const changed = whole
    ? changedFrom(
        whole.tokens.map(({ id }) => id),
        written.map(({ id }) => id),
      )
    : [];
  const tokens = written.map(({ text }, t) => {
    const token = make("span", "token", text === "" ? "end" : visibleText(text));
    token.classList.toggle("changed", changed[t] ?? false);
    return token;
  });
  page.tokens.replaceChildren(...tokens);
}

/**
 * @param whole what the whole model said, where parts are taken out
 * @param choose is called with the token under the pointer or in focus
 */
export function showAnswer(look: Look, whole: Look | undefined, chosen: number, choose: (token: number) => void): void {
  const ids = (one: Look) => one.tokens.map(({ id }) => id);
  const changed = whole ? changedFrom(ids(whole), ids(look)) : [];
  page.whole.hidden = whole === undefined;
  if (whole) {
    const isSame = !changed.includes(true) && whole.tokens.length === look.tokens.length;
    page.whole.replaceChildren(
      isSame ? "The answer stays the same as the whole model's." : "The whole model says: ",
      ...(isSame ? [] : [make("b", "", answerText(whole.tokens))]),
    );
  }
  const buttons = look.tokens.map((token, t) => {
    const button = makeButton("token", "", () => choose(t));
    button.classList.toggle("changed", changed[t] ?? false);
    button.classList.toggle("end", token.isEnd);
    button.style.setProperty("--share", String(Math.exp(token.logprob)));
    button.append(make("span", "", textOf(token)), make("small", "", probability(token.logprob)));
    if (changed[t]) button.append(make("span", "for-readers", ", changed"));
    button.onpointerenter = () => choose(t);
    button.onfocus = () => choose(t);
    return button;
  });
  page.tokens.role = "group";
  page.tokens.ariaLabel = "The answer, token by token";
  page.tokens.replaceChildren(...buttons);
  arrowKeys(page.tokens, [buttons], buttons[chosen]);
  markToken(look, chosen);
}

/** Marks a token and shows what could have been in its place. */
export function markToken(look: Look, chosen: number): void {
  for (const [t, button] of [...page.tokens.children].entries())
    button.setAttribute("aria-pressed", String(t === chosen));
  const token = look.tokens[chosen];
  if (!token) return;
  const read = readsOf(look, chosen).reduce((sum, x) => sum + x, 0);
  page.chosen.replaceChildren(
    make("b", "", token.isEnd ? "The end" : `“${textOf(token)}”`),
    ` was chosen with ${probability(token.logprob)}. `,
    make("span", "soft", `${percent(read)} of its attention went to the image's queries, the rest to words.`),
  );
  page.instead.replaceChildren(...token.top.map((word) => bar(word, word.id === token.id)));
}

function bar(word: SeenWord, isChosen: boolean): HTMLLIElement {
  const item = make("li", isChosen ? "chosen" : "");
  const share = Math.exp(word.logprob);
  item.style.setProperty("--share", String(share));
  item.append(
    make("span", "word", visibleText(word.text)),
    make("span", "bar"),
    make("span", "number", probability(word.logprob)),
  );
  return item;
}
