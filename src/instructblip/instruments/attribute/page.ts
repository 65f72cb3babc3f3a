/**
 * The page of an attribution: the image with a map over it for each token of the answer, and the instruction with each word as
 * strong as the answer rests on it. Pure.
 */

import { visible } from "../lens_page.ts";
import { escapeHtml, htmlPage, jsonElement } from "../page.ts";
import { percentOf } from "../percent.ts";
import { type AttributionReport, attributionLines, methodMaps } from "./report.ts";

export interface PageAbout {
  /** Name of the model. */
  readonly model: string;
  /** The image as a `data:` URL. */
  readonly image: string;
}

const MEANINGS = {
  occlusion: "Occlusion: without what is bright the answer is less probable.",
  rollout: "Rollout: bright is what attention leads back to, through all layers of all three parts.",
  "cross-attention": "Cross-attention: bright is where those queries looked that the answer attends to.",
};

export function attributionPage(report: AttributionReport, { model, image }: PageAbout): string {
  const { prompt, answer, answer_tokens, grid, words } = report;
  const methods = methodMaps(report);
  const hasWords = words !== null && words.length > 0;
  const digits = (list: readonly number[]) => list.map((x) => Number(x.toPrecision(4)));
  return htmlPage({
    title: prompt.trim() || "(no prompt)",
    lead: `${model}, answer “${answer.trim()}”: what it rests on.`,
    styles: STYLES,
    script: SCRIPT,
    body: [
      "<main>",
      tokensCard(methods.length > 0),
      '<div class="both">',
      methods.length > 0 ? imageCard(image, methods) : "",
      hasWords ? wordsCard(report) : "",
      "</div>",
      `<p class="soft">${escapeHtml(attributionLines(report).join("; "))}. ${DROPS}</p>`,
      "</main>",
      jsonElement("data", {
        grid,
        tokens: [
          ["all of it", percentOf(report.logprob)],
          ...answer_tokens.map(({ text, logprob }) => [visible(text.trim() || text), percentOf(logprob)]),
        ],
        methods: methods.map(({ name, maps, whole }) => ({
          name,
          meaning: MEANINGS[name],
          maps: [whole, ...maps].map(digits),
        })),
        words: hasWords ? words.map(({ text, drops }) => ({ text, drops: digits(drops) })) : null,
      }),
    ].join("\n"),
  });
}

const DROPS =
  "Changes are of the answer's log-probability, in nats: −0.7 is half as probable, −2.3 a tenth; each token is read after those before it.";

function tokensCard(hasMaps: boolean): string {
  return `<section class="card">
<h2>The answer</h2>
<p class="soft">${hasMaps ? "Each token with its own map" : "Its tokens"}, and how probable it is. Choose one.</p>
<div id="tokens" role="radiogroup" aria-label="Token of the answer"></div>
</section>`;
}

function imageCard(image: string, methods: readonly { readonly name: string }[]): string {
  const choices = methods.map(
    ({ name }, i) =>
      `<label><input type="radio" name="method" value="${i}"${i === 0 ? " checked" : ""}> ${name}</label>`,
  );
  return `<section class="card" id="looked">
<h2>In the image</h2>
<div class="choices" role="radiogroup" aria-label="Method">${choices.join("")}</div>
<figure><div class="stack"><img id="image" src="${escapeHtml(image)}" alt="The image">
<canvas id="map" role="img" tabindex="0" aria-label="Map over the image; arrow keys read patches" aria-describedby="where"></canvas>
<i id="cursor" hidden></i></div>
<figcaption><p id="meaning"></p><p id="where" role="status">&nbsp;</p></figcaption></figure>
</section>`;
}

function wordsCard({ prompt, words, word }: AttributionReport): string {
  let at = 0;
  const parts = words!.map(({ text, start, end }, w) => {
    const between = escapeHtml(prompt.slice(at, start));
    at = end;
    return `${between}<mark class="heat" data-word="${w}">${escapeHtml(text)}</mark>`;
  });
  const rows = words!.map(
    ({ text }, w) =>
      `<tr><th scope="row">${escapeHtml(text)}</th><td class="bars"><i data-bar="${w}"></i></td><td class="number" data-change="${w}"></td></tr>`,
  );
  const how = word === "remove" ? "removed from the instruction" : "hidden in its place";
  return `<section class="card">
<h2>In the instruction</h2>
<p class="soft">How the log-probability changes when a word is ${how}.</p>
<p id="prompt">${parts.join("")}${escapeHtml(prompt.slice(at))}</p>
<table id="words"><thead><tr><th scope="col">without</th><th scope="col"><span class="hidden">as a bar</span></th><th scope="col" class="number">change</th></tr></thead>
<tbody>${rows.join("\n")}</tbody></table>
</section>`;
}

const STYLES = `
.both { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); gap: 1rem; align-items: start; }
.both .card { margin: 0; }
.both > :only-child { max-width: 40rem; }
main > p { margin-top: 1rem; }
#tokens { display: grid; grid-template-columns: repeat(auto-fill, minmax(5.5rem, 1fr)); gap: 0.5rem; }
#tokens button { min-width: 0; max-width: 7rem; padding: 0.3rem; text-align: center; border: 1px solid var(--line); border-radius: 0.6rem;
  background: var(--page); cursor: pointer; }
#tokens button[aria-checked=true] { border-color: var(--accent); box-shadow: 0 0 0 1px var(--accent); background: var(--card); }
#tokens b, #tokens small { display: block; overflow: hidden; text-overflow: ellipsis; white-space: pre; }
#tokens small { color: var(--soft); }
.stack { position: relative; overflow: hidden; line-height: 0; border-radius: 0.6rem; background: #000; }
#tokens .stack { border-radius: 0.35rem; margin-bottom: 0.25rem; }
.stack img { width: 100%; }
.stack canvas { position: absolute; inset: 0; width: 100%; height: 100%; }
.stack i { position: absolute; border: 2px solid #fff; outline: 1px solid #000; pointer-events: none; }
figure { margin: 0; }
#looked figure { max-width: 36rem; margin: 0 auto; }
figcaption { margin-top: 0.5rem; font-size: 0.875rem; color: var(--soft); }
figcaption p { margin: 0 0 0.2rem; }
#where { color: var(--ink); font-variant-numeric: tabular-nums; min-height: 1.5em; }
.choices { display: flex; flex-wrap: wrap; gap: 0.25rem 1.25rem; margin-bottom: 0.75rem; }
.choices label { display: flex; gap: 0.4rem; align-items: center; }
.choices input { accent-color: var(--accent); }
#prompt { font-size: 1.25rem; line-height: 1.9; white-space: pre-wrap; overflow-wrap: anywhere; }
mark { color: inherit; padding: 0.15rem 0.1rem; border-radius: 0.3rem; }
#words { width: 100%; }
#words th[scope=row] { color: inherit; max-width: 9rem; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.bars { width: 60%; }
.bars i { display: block; height: 0.7rem; border-radius: 0.2rem; background: var(--accent); }
.bars i.up { background: var(--wrong); }
.hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
@media (max-width: 46rem) {
  .both { grid-template-columns: minmax(0, 1fr); }
  #tokens { grid-template-columns: repeat(auto-fill, minmax(4.25rem, 1fr)); gap: 0.35rem; font-size: 0.875rem; }
}
@media print { .stack, .bars i { print-color-adjust: exact; } }
`;

const SCRIPT = `
const { grid, tokens, methods, words } = JSON.parse(document.getElementById("data").textContent);
const make = (name, text, more = {}) => Object.assign(document.createElement(name), { textContent: text }, more);
const sum = (list) => list.reduce((total, x) => total + x, 0);
const changed = (drop) => {
  const text = Math.abs(drop) < 9.995 ? Math.abs(drop).toFixed(2) : Math.abs(drop).toFixed(1);
  return Number(text) === 0 ? "0" : (drop > 0 ? "−" : "+") + text;
};
/** Drops below it, in nats, are noise and stay dark. */
const FAINT = 0.05;
/** 0 is the whole answer, then its tokens. */
let [token, method, patch] = [0, 0, undefined];
const image = document.getElementById("image")?.src;

function draw(canvas, { name, maps }, t) {
  const map = maps[t];
  const [low, high] = name === "occlusion" ? [0, Math.max(FAINT, ...map)] : [Math.min(...map), Math.max(...map)];
  canvas.width = grid.columns;
  canvas.height = grid.rows;
  const pixels = new ImageData(grid.columns, grid.rows);
  // What the answer does not rest on is dark.
  map.forEach((value, i) => {
    pixels.data[4 * i + 3] = 205 * (1 - Math.max(0, Math.min(1, (value - low) / (high - low || 1))));
  });
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

// --- the answer -------------------------------------------------------------
const list = document.getElementById("tokens");
const buttons = tokens.map(([text, probability], t) => {
  const button = make("button", "", { type: "button" });
  button.setAttribute("role", "radio");
  if (image) {
    const stack = make("div", "", { className: "stack" });
    stack.append(make("img", "", { src: image, alt: "" }), document.createElement("canvas"));
    button.append(stack);
  }
  button.append(make("b", text), make("small", probability));
  button.addEventListener("click", () => choose(t));
  list.append(button);
  return button;
});
list.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
  if (!step) return;
  event.preventDefault();
  choose((token + step + buttons.length) % buttons.length);
  buttons[token].focus();
});

function choose(t) {
  token = t;
  for (const [i, button] of buttons.entries()) {
    button.setAttribute("aria-checked", i === t);
    button.tabIndex = i === t ? 0 : -1;
  }
  show();
}

// --- the image --------------------------------------------------------------
const [canvas, cursor, where, meaning] = ["map", "cursor", "where", "meaning"].map((id) => document.getElementById(id));
function show() {
  if (canvas) {
    draw(canvas, methods[method], token);
    meaning.textContent = methods[method].meaning;
    said();
  }
  if (!words) return;
  const drops = words.map(({ drops }) => (token === 0 ? sum(drops) : drops[token - 1]));
  const most = Math.max(FAINT, ...drops.map(Math.abs));
  for (const [w, drop] of drops.entries()) {
    const of = (name) => document.querySelector("[data-" + name + '="' + w + '"]');
    of("word").style.setProperty("--heat", Math.max(0, drop / most).toFixed(3));
    of("bar").style.width = ((100 * Math.abs(drop)) / most).toFixed(1) + "%";
    of("bar").classList.toggle("up", drop < 0);
    of("change").textContent = changed(drop);
  }
}

function said() {
  const { name, maps } = methods[method];
  const map = maps[token];
  const at = patch ?? map.indexOf(Math.max(...map));
  const [row, column] = [Math.floor(at / grid.columns), at % grid.columns];
  const value = name === "occlusion" ? changed(map[at]) + " nats without it" : (100 * map[at]).toFixed(1) + " % of the weight";
  where.textContent = (patch === undefined ? "Most at row " : "Row ") + row + ", column " + column + ": " + value;
  if (patch === undefined && name === "occlusion" && changed(map[at]) === "0") where.textContent = "Nowhere: no patch changes it";
  cursor.hidden = patch === undefined;
  Object.assign(cursor.style, {
    left: (100 * column) / grid.columns + "%",
    top: (100 * row) / grid.rows + "%",
    width: 100 / grid.columns + "%",
    height: 100 / grid.rows + "%",
  });
}

if (canvas) {
  const point = (at) => { patch = at; said(); };
  canvas.addEventListener("pointermove", ({ offsetX, offsetY }) => {
    const [x, y] = [(offsetX / canvas.clientWidth) * grid.columns, (offsetY / canvas.clientHeight) * grid.rows];
    const inside = (value, length) => Math.max(0, Math.min(length - 1, Math.floor(value)));
    point(inside(y, grid.rows) * grid.columns + inside(x, grid.columns));
  });
  for (const event of ["pointerleave", "blur"]) canvas.addEventListener(event, () => point(undefined));
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    const map = methods[method].maps[token];
    const from = patch ?? map.indexOf(Math.max(...map));
    const moved = (value, by, length) => Math.max(0, Math.min(length - 1, value + by));
    const row = moved(Math.floor(from / grid.columns), step[0], grid.rows);
    point(row * grid.columns + moved(from % grid.columns, step[1], grid.columns));
  });
  for (const input of document.querySelectorAll("[name=method]")) {
    input.addEventListener("change", () => { method = Number(input.value); thumbs(); show(); });
  }
}
function thumbs() {
  for (const [t, button] of buttons.entries()) {
    const small = button.querySelector("canvas");
    if (small) draw(small, methods[method], t);
  }
}
if (canvas) thumbs();
choose(0);
`;
