/**
 * The page of a logit lens: the answer as a grid of layers and tokens, and the image tokens with their words beside the image,
 * over which it is drawn where a query looked. Pure.
 */

import { type LensReport, layerName, type StateWords } from "./lens_report.ts";
import { escapeHtml, htmlPage, jsonElement } from "./page.ts";
import { percentOf } from "./percent.ts";

export interface PageAbout {
  /** Name of the model. */
  readonly model: string;
  /** The image as a `data:` URL. */
  readonly image: string;
}

export function lensPage(report: LensReport, { model, image }: PageAbout): string {
  const { answer_tokens, image_tokens, maps, prompt, answer } = report;
  const layers = answer_tokens[0]!.states.length - 1;
  return htmlPage({
    title: prompt.trim() || "(no prompt)",
    lead: `${model}, answer “${answer.trim()}”: what each of ${layers} layers would say, if it were the last.`,
    styles: STYLES,
    script: SCRIPT,
    body: [
      "<main>",
      answerCard(report),
      image_tokens.length > 0 ? imageCard(image, layers) : NO_IMAGE_TOKENS,
      "</main>",
      jsonElement("data", {
        answer: answer_tokens.map(({ text, states }) => ({ text: visible(text), states: compact(states) })),
        image: image_tokens.map(({ states }) => compact(states)),
        // A map is drawn, and needs no more digits.
        maps: { ...maps, weights: maps.weights.map((map) => map.map((weight) => Number(weight.toPrecision(3)))) },
      }),
    ].join("\n"),
  });
}

/** [text, log-probability, percent] of each word. */
const compact = (states: readonly StateWords[]) =>
  states.map(({ logprob, top }) => ({
    ...(logprob !== null && { percent: percentOf(logprob) }),
    top: top.map(({ text, logprob }) => [visible(text), Number(logprob.toFixed(3)), percentOf(logprob)]),
  }));

const NO_IMAGE_TOKENS = `<section class="card"><h2>The image tokens</h2>
<p class="soft">They enter an encoder, which has no head: its states are not those of the decoder's vocabulary, and have no words.</p>
</section>`;

/** A token's text in which white space alone and control characters are seen. */
export function visible(text: string): string {
  if (text.trim() === "") return text.replaceAll(" ", "␣").replaceAll("\n", "⏎") || "∅";
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
  return text.replace(/[\x00-\x1f\x7f-\x9f]/g, (c) => `\\x${c.charCodeAt(0).toString(16).padStart(2, "0")}`);
}

function answerCard({ answer_tokens }: LensReport): string {
  const cell = (text: string, { top }: StateWords, state: number, t: number) => {
    const [best] = top;
    const chosen = best!.text === text ? ' class="heat chosen"' : ' class="heat"';
    const heat = Math.exp(best!.logprob).toFixed(3);
    const first = state === 0 && t === 0 ? 0 : -1;
    return (
      `<td role="gridcell" tabindex="${first}" data-at="${state},${t}"${chosen} style="--heat: ${heat}">` +
      `<span>${escapeHtml(visible(best!.text))}</span> <small>${percentOf(best!.logprob)}</small></td>`
    );
  };
  const rows = answer_tokens[0]!.states.map(
    (_, state) =>
      `<tr role="row"><th role="rowheader" scope="row">${layerName(state)}</th>` +
      `${answer_tokens.map(({ text, states }, t) => cell(text, states[state]!, state, t)).join("")}</tr>`,
  );
  const heads = answer_tokens.map(
    ({ text }) => `<th role="columnheader" scope="col">${escapeHtml(visible(text))}</th>`,
  );
  return `<section class="card">
<h2>The answer, layer by layer</h2>
<p class="soft">A column for each token of the answer, a row for each layer: the token that it would choose, in a stronger colour
the surer it is. Framed: the answer's token.</p>
<div class="scroll"><table id="answer" role="grid" aria-label="The most probable token of each layer">
<thead><tr role="row"><th role="columnheader" scope="col">layer</th>${heads.join("")}</tr></thead>
<tbody>
${rows.join("\n")}
</tbody></table></div>
<div id="detail" role="status"></div>
</section>`;
}

function imageCard(image: string, layers: number): string {
  return `<section class="card">
<h2>What the image tokens say</h2>
<p class="soft">The Q-Former's queries enter the language model in place of words. Point at one to see where in the image it
looked (the mean of its cross-attention).</p>
<div class="controls">
<label><input type="checkbox" id="any" checked> surest of all layers</label>
<label>layer <input type="range" id="layer" min="1" max="${layers}" value="${layers}"> <output id="shown"></output></label>
</div>
<div class="image">
<figure><div class="stack"><img src="${escapeHtml(image)}" alt="The image"><canvas id="map" aria-hidden="true"></canvas></div>
<figcaption id="where" role="status"></figcaption></figure>
<ol id="queries" start="0"></ol>
</div>
</section>`;
}

const STYLES = `
#answer th[scope=row], #answer th:first-child { position: sticky; left: 0; background: var(--card); z-index: 1; text-align: right; }
#answer td { white-space: pre; border: 1px solid var(--card); border-radius: 0.3rem; cursor: default; }
#answer th { white-space: pre; }
#answer .chosen { box-shadow: inset 0 0 0 1.5px var(--accent); font-weight: 600; }
#answer td:focus-visible { outline-offset: -2px; }
#answer td.at { outline: 2px solid var(--ink); outline-offset: -2px; }
#detail { position: sticky; bottom: 0; min-height: 5.5rem; padding-top: 0.75rem; background: var(--card); }
.words { display: flex; flex-wrap: wrap; gap: 0.3rem; margin: 0.25rem 0 0; padding: 0; list-style: none; }
small { font-weight: 400; }
.words > * { padding: 0.1rem 0.45rem; border-radius: 0.4rem; white-space: pre; border: 1px solid var(--line); font-size: 0.875rem; }
.controls { display: flex; flex-wrap: wrap; gap: 0.5rem 1.5rem; align-items: center; margin-bottom: 0.75rem; }
.controls label { display: flex; align-items: center; gap: 0.5rem; }
.controls input { accent-color: var(--accent); }
output { min-width: 2ch; font-variant-numeric: tabular-nums; }
.image { display: grid; grid-template-columns: minmax(0, 22rem) minmax(0, 1fr); gap: 1.25rem; align-items: start; }
figure { margin: 0; position: sticky; top: 0.75rem; }
.stack { position: relative; border-radius: 0.6rem; overflow: hidden; line-height: 0; }
.stack img { width: 100%; }
.stack canvas { position: absolute; inset: 0; width: 100%; height: 100%; }
figcaption { margin-top: 0.4rem; color: var(--soft); font-size: 0.875rem; min-height: 1.3em; }
#queries { margin: 0; padding: 0; list-style: none; display: grid; gap: 0.25rem; }
#queries button { width: 100%; display: grid; grid-template-columns: 2.2rem minmax(0, 1fr); gap: 0.5rem; align-items: baseline;
  text-align: left; background: none; border: 1px solid transparent; border-radius: 0.5rem; padding: 0.2rem 0.4rem; }
#queries button > span:first-child { text-align: right; color: var(--soft); font-variant-numeric: tabular-nums; }
#queries button[aria-pressed=true] { border-color: var(--accent); background: var(--page); }
#queries .words { margin: 0; }
@media (max-width: 46rem) {
  .image { grid-template-columns: minmax(0, 1fr); }
  figure { background: var(--card); z-index: 2; top: 0; padding-bottom: 0.4rem; }
  .stack { max-width: 14rem; }
}
@media print { figure, #detail { position: static; } }
`;

const SCRIPT = `
const { answer, image, maps } = JSON.parse(document.getElementById("data").textContent);
const make = (name, text, more = {}) => Object.assign(document.createElement(name), { textContent: text }, more);
const layerName = (state) => (state === 0 ? "the input" : "layer " + (state - 1));
const words = (name, list, noteOf) => {
  const element = make(name, "", { className: "words" });
  for (const word of list) {
    const [text, logprob, percent] = word;
    const item = make(name === "ul" ? "li" : "span", text + " ", { className: "heat" });
    item.style.setProperty("--heat", Math.exp(logprob).toFixed(3));
    item.append(make("small", percent + noteOf(word)));
    element.append(item);
  }
  return element;
};

// --- the answer -------------------------------------------------------------
const grid = document.getElementById("answer");
const detail = document.getElementById("detail");
const cells = new Map([...grid.querySelectorAll("td")].map((cell) => [cell.dataset.at, cell]));
const none = () => "";
let at;
function show(cell) {
  at?.classList.remove("at");
  at = cell;
  at.classList.add("at");
  const [state, t] = cell.dataset.at.split(",").map(Number);
  const { text, states } = answer[t];
  const { percent, top } = states[state];
  const title = make("p", "After " + layerName(state) + ", in place of ");
  title.append(make("b", text.trim()), ", which it gives " + percent + ":");
  detail.replaceChildren(title, words("ul", top, none));
}
grid.addEventListener("pointerover", ({ target }) => { const cell = target.closest("td"); if (cell) show(cell); });
grid.addEventListener("focusin", ({ target }) => { const cell = target.closest("td"); if (cell) show(cell); });
grid.addEventListener("keydown", (event) => {
  const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
  const cell = event.target.closest("td");
  if (!step || !cell) return;
  const [state, t] = cell.dataset.at.split(",").map(Number);
  const next = cells.get([state + step[0], t + step[1]].join());
  if (!next) return;
  event.preventDefault();
  cell.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
});
show(cells.get([answer[0].states.length - 1, 0].join()));

// --- the image tokens -------------------------------------------------------
const list = document.getElementById("queries");
if (list) {
  const [any, layer, shown, where] = ["any", "layer", "shown", "where"].map((id) => document.getElementById(id));
  const canvas = document.getElementById("map");
  canvas.width = maps.columns;
  canvas.height = maps.rows;
  const surest = (states) => {
    const best = new Map();
    states.forEach(({ top }, state) => {
      for (const [text, logprob, percent] of state > 0 ? top : []) {
        if (!(best.get(text)?.[1] >= logprob)) best.set(text, [text, logprob, percent, state]);
      }
    });
    return [...best.values()].sort((a, b) => b[1] - a[1]).slice(0, states[0].top.length);
  };
  let query;
  const look = (q) => {
    query = q;
    for (const [i, { firstChild }] of [...list.children].entries()) firstChild.setAttribute("aria-pressed", i === q);
    const map = maps.weights[q];
    const [low, high] = [Math.min(...map), Math.max(...map)];
    const pixels = new ImageData(maps.columns, maps.rows);
    // What it did not look at is dark.
    map.forEach((weight, i) => { pixels.data[4 * i + 3] = 215 * (1 - (weight - low) / (high - low || 1)); });
    canvas.getContext("2d").putImageData(pixels, 0, 0);
    where.textContent = "Where query " + q + " looked: up to " + (100 * high).toPrecision(2) + " % on one patch";
  };
  const draw = () => {
    layer.disabled = any.checked;
    shown.textContent = any.checked ? "" : layer.value - 1;
    const rows = image.map((states, q) => {
      const item = document.createElement("li");
      const button = make("button", "", { type: "button" });
      const chosen = any.checked ? surest(states) : states[layer.value].top;
      const note = any.checked ? ([, , , state]) => " in " + (state - 1) : none;
      button.append(make("span", q), words("span", chosen, note));
      for (const event of ["pointerenter", "focus", "click"]) button.addEventListener(event, () => look(q));
      item.append(button);
      return item;
    });
    list.replaceChildren(...rows);
    look(query ?? 0);
  };
  any.addEventListener("change", draw);
  layer.addEventListener("input", draw);
  draw();
}
`;
