/** The queries: how much the chosen token read of each, its words, and its switch. */
import type { Look } from "../../worker/protocol.ts";
import { element, make, makeButton } from "../elements.ts";
import { percent, probability, readsOf, surestWords, visibleText } from "./exploration.ts";
import { makeSwitch, showEffect } from "./switches.ts";

const page = { list: element("ol", "#queries"), title: element("p", "#queries-about") };

/** Words that are shown: the best, and others that are as sure as this. */
const WORDS = 3;
const LEAST = Math.log(0.05);

export interface QueryActions {
  /** A query's switch was used. */
  toggle(part: number): void;
  /** A query is under the pointer or in focus; undefined: none any more. */
  preview(query: number | undefined): void;
  /** A query was pressed: it stays until it is pressed again. */
  pin(query: number): void;
}

interface Row {
  readonly switch: HTMLButtonElement;
  readonly button: HTMLButtonElement;
  readonly number: HTMLSpanElement;
  readonly words: HTMLSpanElement;
}

let rows: readonly Row[] = [];

/** Makes the rows. @param parts the queries' numbers among the parts */
export function makeQueries(parts: readonly number[], actions: QueryActions): void {
  rows = parts.map((part, q) => {
    const button = makeButton("query", "", () => actions.pin(q));
    const [bar, number, words] = [make("span", "bar"), make("span", "number"), make("span", "words")];
    button.append(make("span", "index", String(q)), bar, number, words);
    button.onpointerenter = () => actions.preview(q);
    button.onpointerleave = () => actions.preview(undefined);
    button.onfocus = () => actions.preview(q);
    button.onblur = () => actions.preview(undefined);
    return { switch: makeSwitch(`Query ${q}`, () => actions.toggle(part)), button, number, words };
  });
  page.list.replaceChildren(
    ...rows.map((row) => {
      const item = make("li", "");
      item.append(row.switch, row.button);
      return item;
    }),
  );
}

/**
 * Shows what the queries say, and how much the chosen token read of them.
 *
 * @param state after which layer of the language model, 0: before all; undefined: after the one that is surest
 */
export function showQueries(look: Look, token: number, pinned: number | undefined, state: number | undefined): void {
  const reads = readsOf(look, token);
  const most = Math.max(...reads, Number.MIN_VALUE);
  const { text = "", isEnd = false } = look.tokens[token] ?? {};
  const name = isEnd ? "the end" : `“${visibleText(text)}”`;
  const words =
    look.words.length > 0
      ? "and the words that the query would say"
      : "which an encoder reads, so that it has no words";
  page.title.textContent = `How much of its attention ${name} gave each query, ${words}. Point at one to see where it looked.`;
  for (const [q, { button, number, words }] of rows.entries()) {
    button.style.setProperty("--share", String(reads[q]! / most));
    button.setAttribute("aria-pressed", String(q === pinned));
    number.textContent = percent(reads[q]!);
    const said = look.words[q] ?? [];
    const chosen = state === undefined ? surestWords(said, WORDS) : (said[state] ?? []).slice(0, WORDS);
    const sure = chosen.filter(({ logprob }, i) => i === 0 || logprob >= LEAST);
    const list = sure.map((word) => {
      const one = make("span", word.logprob >= LEAST ? "said" : "said soft", `${visibleText(word.text)} `);
      one.append(make("small", "", probability(word.logprob)));
      if ("layer" in word) one.title = `in layer ${word.layer}`;
      return one;
    });
    words.replaceChildren(...list);
  }
}

export function markQueries(
  parts: readonly number[],
  out: ReadonlySet<number>,
  effects: ReadonlyMap<number, number>,
): void {
  const most = Math.max(...[...effects.values()].map(Math.abs), Number.MIN_VALUE);
  for (const [q, part] of parts.entries()) {
    const row = rows[q]!;
    row.switch.ariaChecked = String(!out.has(part));
    row.button.classList.toggle("out", out.has(part));
    showEffect(row.switch, effects.get(part), most);
  }
}
