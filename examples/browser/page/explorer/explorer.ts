/** The view that looks inside: it asks the worker, and keeps what is chosen. */
import type { SweepUnit } from "../../../../src/index.ts";
import type { WorkerClient } from "../../../../src/worker.ts";
import type { Look, PageCalls } from "../../worker/protocol.ts";
import { copyText } from "../clipboard.ts";
import { element, makeButton, saidOf } from "../elements.ts";
import { follow, state } from "../state.ts";
import { markToken, showAnswer, showWritten, type WrittenToken } from "./answer_view.ts";
import { arrange, type Choice, interventionsOf, leastSure, mapOf, nats, visibleText } from "./exploration.ts";
import { makeHeads, markHeads } from "./heads_view.ts";
import { type LinkState, linkedParts, MAP_KINDS, type MapKind, partsOfLink } from "./link.ts";
import { drawOverlay, followPointer } from "./overlay.ts";
import { makeQueries, markQueries, showQueries } from "./queries_view.ts";
import { makeRests, showRestWords } from "./rests.ts";
import { offerLink } from "./sharing.ts";

const page = {
  form: element("form", "#look"),
  question: element("input", "#look-question"),
  button: element("button", "#look button"),
  suggestions: element("div", "#look-suggestions"),
  status: element("p", "#looking"),
  found: element("div", "#found"),
  layer: element("select", "#map-layer"),
  head: element("select", "#map-head"),
  choices: element("div", "#choices"),
  maps: element("fieldset", "#maps"),
  mapChoices: element("div", "#map-choices"),
  words: element("select", "#words-layer"),
  out: element("span", "#out"),
  restore: element("button", "#restore"),
  copy: element("button", "#copy-interventions"),
  measure: element("button", "#measure"),
  measured: element("span", "#measured"),
  effects: element("div", "#effect-scale"),
  effectLow: element("span", "#effect-low"),
  effectHigh: element("span", "#effect-high"),
};

interface Explorer {
  /** @param asked a question to begin with */
  open(asked?: string): void;
  close(): void;
  /** Shows what a link is about, as soon as it is open and the model is there. */
  restore(link: LinkState): void;
}

export function offerExplorer(client: WorkerClient<PageCalls>): Explorer {
  let isOpen = false;
  let question = "";
  let parts: readonly SweepUnit[] = [];
  let queries: readonly number[] = [];
  /** Parts that are taken out. */
  let out: ReadonlySet<number> = new Set();
  let effects = new Map<number, number>();
  /** What the whole model said, and what is said with parts taken out. */
  let whole: Look | undefined;
  let current: Look | undefined;
  let token = 0;
  let pinned: number | undefined;
  let preview: number | undefined;
  /** What a link asks for, until it is shown. */
  let linked: LinkState | undefined;
  let looking: AbortController | undefined;
  let measuring: AbortController | undefined;

  const choice = (): Choice => {
    const number = ({ value }: HTMLSelectElement) => (value === "" ? undefined : Number(value));
    return { layer: number(page.layer), head: number(page.head) };
  };

  const wordsState = () => (page.words.value === "" ? undefined : Number(page.words.value));

  const shownMap = () => page.maps.querySelector<HTMLInputElement>("input:checked")!.value as MapKind;

  const link = offerLink(() => {
    if (!current) return undefined;
    const { layer, head } = choice();
    const map = shownMap();
    return {
      ...{ question, token, layer, head, query: pinned, words: wordsState(), out: linkedParts(parts, out) },
      ...(map !== MAP_KINDS[0] && { map }),
    };
  });

  const draw = () => {
    page.mapChoices.hidden = shownMap() !== "looked";
    showRestWords(undefined, token);
    if (!isOpen || !current || shownMap() === "image") return drawOverlay(undefined);
    const { text = "", isEnd = false } = current.tokens[token] ?? {};
    const name = isEnd ? "the end" : `“${visibleText(text)}”`;
    if (shownMap() === "rests") return drawRests(current, name);
    const query = preview ?? pinned;
    const caption =
      query === undefined
        ? `Where the queries looked that ${name} read: all of them, each as much as it was read`
        : `Where query ${query} looked: share of its attention for each patch`;
    drawOverlay({ kind: "looked", values: mapOf(current, choice(), token, query), ...current.grid, caption });
  };

  const rests = makeRests(client, draw);

  /** What the token rests on; measured on the whole model. */
  const drawRests = ({ grid }: Look, name: string) => {
    const { image, loaded } = state();
    if (!whole || !image || !loaded || out.size > 0) {
      return drawOverlay(undefined, "This is measured on the whole model: put everything back in.");
    }
    rests.request({ ...loaded, image, text: question, answer: whole.tokens.map(({ id }) => id) });
    const { found } = rests;
    if (!found) return drawOverlay(undefined, rests.progress);
    showRestWords(found, token);
    const caption = `What ${name} rests on: how much less probable it is where the image is covered or a word left out (orange), or more (blue)`;
    const values = found.drops[token]!;
    drawOverlay({ kind: "rests", values, ...grid, caption });
  };

  const chooseToken = (chosen: number) => {
    if (!current || chosen === token) return;
    token = chosen;
    markToken(current, token);
    showQueries(current, token, pinned, wordsState());
    draw();
  };

  const mark = () => {
    markQueries(queries, out, effects);
    markHeads(out, effects);
    const count = out.size;
    page.out.textContent = count === 0 ? "Everything is in." : `${count} ${count === 1 ? "part is" : "parts are"} out.`;
    page.restore.disabled = count === 0;
    page.copy.disabled = count === 0;
    page.effects.hidden = effects.size === 0;
    const most = Math.max(...[...effects.values()].map(Math.abs), 0);
    page.effectLow.textContent = `without it ${nats(-most)}: the answer rests on it`;
    page.effectHigh.textContent = `+${nats(most)}`;
  };

  const show = () => {
    if (!current) return;
    token = Math.min(token, current.tokens.length - 1);
    showAnswer(current, out.size > 0 ? whole : undefined, token, chooseToken);
    showQueries(current, token, pinned, wordsState());
    draw();
  };

  /** Answers with what is out; a later call ends an earlier one. */
  const look = async () => {
    const { image, loaded } = state();
    if (!image || !loaded || question === "") return;
    looking?.abort();
    const controller = new AbortController();
    looking = controller;
    const { signal } = controller;
    page.found.setAttribute("aria-busy", "true");
    page.status.textContent = out.size > 0 ? "Answering without what is out …" : "Answering …";
    const written: WrittenToken[] = [];
    try {
      if (parts.length === 0) {
        parts = await client.call("parts", { ...loaded, image, text: question });
        const { queries: numbers, grids } = arrange(parts);
        queries = numbers;
        makeQueries(queries, queryActions);
        makeHeads(grids, { set, isOut: (part) => out.has(part) });
        mark();
      }
      if (signal.aborted) return;
      const tell = (token: WrittenToken) => {
        if (signal.aborted) return;
        written.push(token);
        showWritten(written, out.size > 0 ? whole : undefined);
      };
      const asked = { ...loaded, image, text: question, interventions: interventionsOf(parts, out) };
      const seen = await client.call("look", asked, { tell, signal });
      if (signal.aborted) return;
      if (out.size === 0) whole = seen;
      if (!current) token = leastSure(seen);
      current = seen;
      offerChoices(seen);
      page.status.textContent = "Point at a token to see what it read, and where that had looked.";
      page.found.hidden = false;
      if (linked) follows(linked);
      show();
      link.changed();
    } catch (error) {
      if (signal.aborted) return;
      const { message, hint } = saidOf(error);
      page.status.textContent = [message, hint].filter(Boolean).join(" ");
    } finally {
      if (looking === controller) page.found.removeAttribute("aria-busy");
    }
  };

  /** Chooses what a link has chosen; with parts to take out, what it shows is of the answer without them. */
  const follows = (wanted: LinkState) => {
    const { numbers, missing } = partsOfLink(parts, wanted.out);
    if (missing > 0) page.status.textContent = `The link takes out ${missing} parts that this model does not have.`;
    if (numbers.size > 0 && out.size === 0) {
      out = numbers;
      mark();
      void look();
      return;
    }
    linked = undefined;
    const select = (one: HTMLSelectElement, value: number | undefined) => {
      const text = value === undefined ? "" : String(value);
      if ([...one.options].some((option) => option.value === text)) one.value = text;
    };
    select(page.layer, wanted.layer);
    select(page.head, wanted.head);
    select(page.words, wanted.words);
    page.maps.querySelector<HTMLInputElement>(`input[value="${wanted.map ?? MAP_KINDS[0]}"]`)!.checked = true;
    pinned = wanted.query !== undefined && wanted.query < queries.length ? wanted.query : undefined;
    token = wanted.token ?? token;
  };

  const set = (numbers: readonly number[], isOut: boolean) => {
    const next = new Set(out);
    for (const part of numbers) {
      if (isOut) next.add(part);
      else next.delete(part);
    }
    out = next;
    mark();
    void look();
  };

  const queryActions = {
    toggle: (part: number) => set([part], !out.has(part)),
    preview: (query: number | undefined) => {
      preview = query;
      draw();
    },
    pin: (query: number) => {
      pinned = pinned === query ? undefined : query;
      if (current) showQueries(current, token, pinned, wordsState());
      draw();
    },
  };

  /** Takes each part out by itself, and colours its switch. */
  const measure = async () => {
    if (measuring) return measuring.abort();
    const { image, loaded } = state();
    if (!image || !whole || !loaded) return;
    const controller = new AbortController();
    measuring = controller;
    const { signal } = controller;
    effects = new Map();
    page.measure.textContent = "Stop";
    const answer = whole.tokens.map(({ id }) => id);
    let isDue = false;
    const tell = ({ part, effect }: { part: number; effect: number }) => {
      if (signal.aborted) return;
      effects.set(part, effect);
      page.measured.textContent = `${effects.size} of ${parts.length}`;
      if (isDue) return;
      isDue = true;
      requestAnimationFrame(() => {
        isDue = false;
        mark();
      });
    };
    try {
      await client.call("effects", { ...loaded, image, text: question, answer }, { tell, signal });
    } catch (error) {
      if (!signal.aborted) page.measured.textContent = saidOf(error).message;
    } finally {
      measuring = undefined;
      page.measure.textContent = "Measure each";
      if (effects.size === parts.length) page.measured.textContent = "";
      mark();
    }
  };

  /** Asks a question anew. */
  const explore = (text: string) => {
    measuring?.abort();
    if (linked?.question !== text) linked = undefined;
    question = text;
    page.question.value = text;
    whole = undefined;
    current = undefined;
    token = 0;
    pinned = undefined;
    effects = new Map();
    out = new Set();
    rests.reset();
    page.measured.textContent = "";
    mark();
    link.changed();
    void look();
  };

  page.form.onsubmit = (event) => {
    event.preventDefault();
    const text = page.question.value.trim();
    if (text !== "") explore(text);
  };
  page.restore.onclick = () => set([...out], false);
  page.copy.onclick = () => void copyText(JSON.stringify(interventionsOf(parts, out), null, 2), page.copy);
  page.measure.onclick = () => void measure();
  page.maps.onchange = draw;
  page.layer.onchange = draw;
  page.head.onchange = draw;
  page.words.onchange = () => {
    if (current) showQueries(current, token, pinned, wordsState());
  };
  followPointer();
  mark();
  /** Asks the link's question, or the last suggested one, if none has been asked. */
  const begin = () => {
    const { loaded, image, questions } = state();
    const first = linked?.question ?? questions.at(-1);
    if (isOpen && loaded && image && question === "" && first !== undefined) explore(first);
  };

  follow(({ loaded, image, questions }, before) => {
    if (questions !== before.questions) {
      page.suggestions.replaceChildren(...questions.map((text) => makeButton("pill", text, () => explore(text))));
    }
    page.button.disabled = !loaded || !image;
    page.question.disabled = !loaded || !image;
    for (const button of page.suggestions.querySelectorAll("button")) button.disabled = !loaded;
    if (image !== before.image) {
      looking?.abort();
      measuring?.abort();
      current = undefined;
      page.found.hidden = true;
      question = "";
      linked = undefined;
      draw();
      link.changed();
    }
    begin();
  });

  return {
    open(text?: string) {
      isOpen = true;
      if (text !== undefined && text !== question) explore(text);
      else begin();
      draw();
    },
    restore(wanted: LinkState) {
      linked = wanted;
    },
    close() {
      isOpen = false;
      draw();
    },
  };
}

/** Layers and heads of the Q-Former to choose from. */
function offerChoices({ map_layers, maps, words }: Look): void {
  const fill = (select: HTMLSelectElement, all: string, names: readonly (readonly [string, number])[]) => {
    if (select.options.length === names.length + 1) return;
    select.replaceChildren(new Option(all, ""), ...names.map(([name, value]) => new Option(name, String(value))));
  };
  fill(
    page.layer,
    "all, mean",
    map_layers.map((layer, i) => [String(layer), i] as const),
  );
  fill(
    page.head,
    "all, mean",
    Array.from({ length: maps.heads }, (_, head) => [String(head), head] as const),
  );
  const states = words[0]?.length ?? 0;
  const layers = Array.from({ length: states }, (_, i) => [i === 0 ? "before layer 0" : `layer ${i - 1}`, i] as const);
  fill(page.words, "the surest layer", layers);
  page.words.parentElement!.hidden = states === 0;
  page.choices.hidden = false;
}
