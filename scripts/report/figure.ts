/** A chart as people read it: a title, what it says in words, the drawing at three widths, and its table. HTML. Pure. */
import { type Column, filledColumns } from "../../bench/report.ts";
import { escapeHtml } from "../../src/instructblip/instruments/page.ts";

export interface Table {
  readonly caption: string;
  readonly head: readonly { readonly title: string; readonly left: boolean }[];
  readonly rows: readonly (readonly string[])[];
}

export interface Key {
  readonly label: string;
  /** A CSS colour. */
  readonly color: string;
  readonly mark?: "dot" | "ring" | "line" | "dashed" | "triangle" | "square" | "diamond" | "star";
}

export interface Figure {
  readonly title: string;
  /** What the chart shows, then sentence by sentence what is to be seen there. */
  readonly summary: readonly [string, ...string[]];
  readonly key?: readonly Key[];
  /** The SVG at a width in pixels. Absent: there is nothing to draw, as the summary says. */
  readonly draw?: (width: number) => string;
  /** Marks of the drawing refer to rows of the first. */
  readonly tables: readonly Table[];
}

/** Pixels, and from which width of the window on (STYLES below). A chart of the widest fills a page of 76rem. */
const WIDTHS = { narrow: 330, middle: 700, wide: 1130 } as const;

/** Columns that no row fills are left out. */
export function tableOf<R>(caption: string, rows: readonly R[], columns: readonly Column<R>[]): Table {
  const shown = filledColumns(rows, columns);
  return {
    caption,
    head: shown.map(({ title, left = false }) => ({ title, left })),
    rows: rows.map((row) => shown.map(({ cell }) => cell(row))),
  };
}

/** @param id of its heading, for links */
export function figureElement(figure: Figure, id: string): string {
  const { title, key = [], draw, tables } = figure;
  const [what, ...findings] = figure.summary;
  const list = findings.length
    ? `\n<ul class="findings">${findings.map((each) => `<li>${text(each)}</li>`).join("")}</ul>`
    : "";
  const drawings = draw
    ? `<div class="drawings" role="img" aria-label="${text(`Chart: ${title}`)}" aria-describedby="${id}-said">
${Object.entries(WIDTHS)
  .map(([name, width]) => `<div class="${name}">${draw(width)}</div>`)
  .join("\n")}
</div>${key.length ? `\n<ul class="key">${key.map(keyElement).join("")}</ul>` : ""}
<div class="walk"></div>`
    : "";
  return `<section class="card figure" aria-labelledby="${id}">
<h3 id="${id}">${text(title)}</h3>
<p class="said" id="${id}-said">${text(what)}</p>${list}
${drawings}
${tables.map(tableElement).join("\n")}
</section>`;
}

const text = escapeHtml;

const MARKS: Readonly<Record<NonNullable<Key["mark"]>, string>> = {
  dot: '<circle cx="6" cy="6" r="4"/>',
  ring: '<circle cx="6" cy="6" r="3.5" class="open"/>',
  line: '<path d="M0 6H12" class="open"/>',
  dashed: '<path d="M0 6H12" class="open" stroke-dasharray="3 2"/>',
  triangle: '<path d="M6 1.5L11 10.5H1Z"/>',
  square: '<path d="M2.5 2.5H9.5V9.5H2.5Z"/>',
  diamond: '<path d="M6 1L10 6L6 11L2 6Z"/>',
  star: '<path d="M6 1L7.5 4.6L11.4 4.9L8.4 7.4L9.3 11.2L6 9.2L2.7 11.2L3.6 7.4L0.6 4.9L4.5 4.6Z"/>',
};

function keyElement({ label, color, mark = "dot" }: Key): string {
  return `<li><svg viewBox="0 0 12 12" aria-hidden="true" style="color: ${color}">${MARKS[mark]}</svg>${text(label)}</li>`;
}

function tableElement({ caption, head, rows }: Table): string {
  if (rows.length === 0) return "";
  const titles = head.map(
    ({ title, left }) => `<th scope="col"${left ? "" : ' class="number"'}>${text(title) || "–"}</th>`,
  );
  const lines = rows.map((cells) => {
    const [first, ...rest] = cells;
    const others = rest.map((cell, i) => `<td${head[i + 1].left ? "" : ' class="number"'}>${text(cell)}</td>`);
    return `<tr><th scope="row">${text(first)}</th>${others.join("")}</tr>`;
  });
  return `<details><summary>Table: ${text(caption)}, ${rows.length === 1 ? "1 row" : `${rows.length} rows`}</summary>
<div class="scroll" tabindex="0" role="region" aria-label="${text(caption)}"><table><thead><tr>${titles.join("")}</tr></thead>
<tbody>
${lines.join("\n")}
</tbody></table></div></details>`;
}

export const FIGURE_STYLES = `
:root {
  --s1: light-dark(#0b66c3, #6cb2ff);
  --s2: light-dark(#b4531f, #ff9a5c);
  --s3: light-dark(#0f766e, #2dd4bf);
  --s4: light-dark(#8a2f8f, #e29be6);
  --s5: light-dark(#6b5d00, #d9c64a);
}
h2 { margin-top: 2rem; }
h3 { margin: 0 0 0.35rem; font-size: 1.05rem; overflow-wrap: anywhere; }
.said { color: var(--soft); margin-bottom: 0.35rem; }
.said, .findings { max-width: 90ch; overflow-wrap: anywhere; }
.findings { margin: 0 0 0.9rem; padding-left: 1.1rem; }
.drawings { position: relative; }
.drawings > div { display: none; }
.drawings .narrow { display: block; }
@media (min-width: 47.5rem) {
  .drawings .narrow { display: none; }
  .drawings .middle { display: block; }
}
@media (min-width: 77rem) {
  .drawings .middle { display: none; }
  .drawings .wide { display: block; }
}
.plot { display: block; width: 100%; height: auto; overflow: visible; color: var(--ink); }
.plot text { white-space: pre; }
.plot [data-row] { cursor: crosshair; }
.plot .at { stroke: var(--ink); stroke-width: 3; opacity: 1; }
.key { display: flex; flex-wrap: wrap; gap: 0.1rem 1.1rem; margin: 0.5rem 0 0; padding: 0; list-style: none; font-size: 0.875rem; }
.key li { display: flex; align-items: center; gap: 0.4rem; }
.key svg { flex: none; width: 0.8rem; height: 0.8rem; fill: currentColor; overflow: visible; }
.key .open { fill: none; stroke: currentColor; stroke-width: 1.75; }
.walk { font-size: 0.875rem; margin-top: 0.5rem; }
.walk input { width: min(100%, 30rem); margin: 0; accent-color: var(--accent); }
.walk output { display: block; min-height: 1.5em; overflow-wrap: anywhere; }
summary { cursor: pointer; padding: 0.25rem 0; }
.figure details table { width: max-content; min-width: 100%; }
.figure thead th { position: sticky; top: 0; background: var(--card); white-space: nowrap; }
.figure details .scroll { max-height: 32rem; overflow: auto; }
.figure tbody th { font-weight: 400; color: var(--ink); }
.figure td, .figure tbody th { white-space: nowrap; }
@media (max-width: 36rem) { .card { padding: 0.75rem; } }
@media print {
  .drawings .narrow, .drawings .wide { display: none; }
  .drawings .middle { display: block; }
  .walk, details:not([open]) { display: none; }
  details .scroll { max-height: none !important; overflow: visible !important; }
  .figure td, .figure tbody th, .figure thead th { white-space: normal; overflow-wrap: anywhere; font-size: 0.7rem; padding: 0.1rem 0.2rem; }
  .figure details table { width: 100%; }
  .figure:has(details[open]) { break-inside: auto; }
  tr { break-inside: avoid; }
  .plot { print-color-adjust: exact; }
}
`;

/**
 * A slider under each drawing goes from mark to mark, by keys, touch or pointer, and tells the row of the table; so does a
 * pointer over the drawing.
 */
export const FIGURE_SCRIPT = `
for (const figure of document.querySelectorAll(".figure")) {
  const [drawings, walk, table] = [".drawings", ".walk", "table"].map((name) => figure.querySelector(name));
  if (!drawings || !table) continue;
  const places = new Map();
  for (const mark of drawings.querySelectorAll("[data-row]")) {
    const known = places.get(mark.dataset.row);
    if (known) known.push(mark);
    else places.set(mark.dataset.row, [mark]);
  }
  const rows = [...places.keys()];
  if (rows.length === 0) continue;
  const heads = [...table.tHead.rows[0].cells].map((cell) => cell.textContent);
  const told = (row) => [...table.tBodies[0].rows[row].cells]
    .map((cell, i) => cell.textContent && (cell.className ? heads[i] + " " + cell.textContent : cell.textContent))
    .filter(Boolean).join(", ");
  const slider = document.createElement("input");
  Object.assign(slider, { type: "range", min: 0, max: rows.length - 1, value: 0 });
  slider.setAttribute("aria-label", "Point of the chart: " + figure.querySelector("h3").textContent);
  const output = document.createElement("output");
  output.textContent = "Point at the chart, or move the slider, to see what a point is.";
  walk.append(slider, output);
  let at = [];
  const show = (row) => {
    for (const mark of at) mark.classList.remove("at");
    at = places.get(row);
    for (const mark of at) mark.classList.add("at");
    output.textContent = told(row);
    slider.value = rows.indexOf(row);
    slider.setAttribute("aria-valuetext", output.textContent);
  };
  slider.addEventListener("input", () => show(rows[slider.value]));
  slider.addEventListener("focus", () => show(rows[slider.value]));
  drawings.addEventListener("pointermove", ({ clientX, clientY }) => {
    let [best, least] = [undefined, 24 ** 2];
    for (const [row, marks] of places) {
      for (const mark of marks) {
        const { left, right, top, bottom, width } = mark.getBoundingClientRect();
        if (width === 0) continue;
        const distance = (clientX - (left + right) / 2) ** 2 + (clientY - (top + bottom) / 2) ** 2;
        if (distance < least) [best, least] = [row, distance];
      }
    }
    if (best !== undefined) show(best);
  });
}
`;
