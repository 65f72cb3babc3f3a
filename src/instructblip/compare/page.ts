/** A comparison as one HTML file: what differs, a chart of the error through the model, and every tensor. */
import { formatStorage } from "../../modules/storage_dtype.ts";
import { formatShape } from "../../tensor/shape.ts";
import { escapeHtml, htmlPage } from "../instruments/page.ts";
import { type Axis, axisOf, chartOf } from "./chart.ts";
import type { Comparison, Row, Side } from "./comparison.ts";
import type { Precision } from "./precision.ts";
import { equalLine, findingLines, formatError, formatNumber, labelOf, modulesText, wrongRows } from "./summary.ts";
import { moduleOf } from "./trace.ts";

const STYLES = `
.findings { margin: 0; padding: 0; list-style: none; overflow-wrap: anywhere; }
.findings li { padding: 0.1rem 0; }
.findings .first { color: var(--wrong); font-weight: 600; }
.chart { display: grid; grid-template-columns: 3.4rem minmax(0, 1fr); font-size: 0.8rem; color: var(--soft); }
.chart .axis { position: relative; }
.chart .axis span { position: absolute; right: 0.4rem; transform: translateY(50%); white-space: nowrap; }
.chart svg { display: block; width: 100%; height: 15rem; border-bottom: 1px solid var(--line); cursor: crosshair; }
.chart line { vector-effect: non-scaling-stroke; }
.chart .grid { stroke: var(--line); stroke-width: 1; }
.chart .tolerance { stroke: var(--wrong); stroke-width: 1; stroke-dasharray: 5 4; }
.chart .inherited { fill: var(--soft); opacity: 0.4; }
.chart .added, .chart .whole { fill: var(--accent); }
.chart .wrong { fill: var(--wrong); }
.chart .whole { opacity: 0.45; }
.chart .cursor { stroke: var(--ink); stroke-width: 1; visibility: hidden; }
.parts { grid-column: 2; display: flex; }
.parts span { flex: var(--share) 0 0; min-width: 0; overflow: hidden; text-overflow: ellipsis; white-space: nowrap;
  padding: 0.15rem 0.25rem; border-left: 1px solid var(--line); }
.key { grid-column: 2; display: flex; flex-wrap: wrap; gap: 0 1.1rem; margin: 0.5rem 0 0; }
.key i { display: inline-block; width: 0.7em; height: 0.7em; margin-right: 0.4em; border-radius: 0.15em; background: var(--color); }
#pointed { min-height: 3em; margin: 0.5rem 0 0; overflow-wrap: anywhere; }
.controls { display: flex; flex-wrap: wrap; gap: 0.5rem 1.2rem; align-items: center; margin-bottom: 0.75rem; }
.controls input[type="search"] { flex: 1 1 14rem; min-width: 0; padding: 0.35rem 0.6rem; border: 1px solid var(--line);
  border-radius: 0.4rem; background: var(--page); }
.tensors { width: 100%; }
.tensors th { position: sticky; top: 0; background: var(--card); white-space: nowrap; }
.tensors td { vertical-align: top; white-space: nowrap; }
.tensors td:first-child { white-space: normal; overflow-wrap: anywhere; min-width: 11rem; }
.tensors tr:target td { background: color-mix(in oklab, var(--accent) 18%, var(--card)); }
.tensors .wrong td:first-child { box-shadow: inset 0.2rem 0 var(--wrong); }
summary { cursor: pointer; }
.dtype { overflow-wrap: anywhere; }
details dl { display: grid; grid-template-columns: auto 1fr 1fr; gap: 0.1rem 1rem; margin: 0.4rem 0 0.6rem; font-size: 0.8rem; }
details dt { color: var(--soft); }
details dd { margin: 0; }
@media (max-width: 60rem) { .tensors .far { display: none; } }
@media (max-width: 36rem) { .tensors .near { display: none; } .tensors td, .tensors th { padding-inline: 0.3rem; } }
`;

/** Filters rows, and tells which tensor of the chart is under the pointer. */
const SCRIPT = `
const rows = [...document.querySelectorAll("#tensors tbody tr")];
const [filter, wrong, count] = ["filter", "wrong", "count"].map((id) => document.getElementById(id));
const show = () => {
  const words = filter.value.toLowerCase().split(/\\s+/);
  let shown = 0;
  for (const row of rows) {
    const name = row.dataset.name.toLowerCase();
    row.hidden = !words.every((word) => name.includes(word)) || (wrong.checked && !row.classList.contains("wrong"));
    if (!row.hidden) shown++;
  }
  count.textContent = shown + " of " + rows.length;
};
filter.addEventListener("input", show);
wrong.addEventListener("change", show);
show();
const svg = document.querySelector(".chart svg");
const [cursor, pointed] = [svg.querySelector(".cursor"), document.getElementById("pointed")];
const at = (event) => {
  const { left, width } = svg.getBoundingClientRect();
  return Math.max(0, Math.min(rows.length - 1, Math.floor(((event.clientX - left) / width) * rows.length)));
};
svg.addEventListener("pointermove", (event) => {
  const i = at(event);
  const x = ((i + 0.5) / rows.length) * 1000;
  cursor.setAttribute("x1", x);
  cursor.setAttribute("x2", x);
  cursor.style.visibility = "visible";
  pointed.textContent = rows[i].dataset.told;
});
svg.addEventListener("click", (event) => {
  filter.value = "";
  wrong.checked = false;
  show();
  location.hash = rows[at(event)].id;
});
`;

const text = escapeHtml;

/** @param precision what a bisection of dtypes has found */
export function comparisonPage(comparison: Comparison, precision?: Precision): string {
  const { a, b, rows, tolerance, byItself } = comparison;
  const wrong = wrongRows(comparison).length;
  const axis = axisOf(comparison);
  const lines = wrong === 0 ? [equalLine(comparison).trim()] : findingLines(comparison).slice(2);
  const findings = lines.map((line) => `<li${line.startsWith("first:") ? ' class="first"' : ""}>${text(line)}</li>`);
  const body = `<main>
<section class="card"><h2>Findings</h2>
<ul class="findings">${findings.join("")}</ul></section>
${precision ? precisionSection(precision) : ""}<section class="card"><h2>Error through the model</h2>
<p class="soft">NMSE of each tensor, in ${comparison.isOrdered ? "order of computation" : "alphabetical order"}.</p>
${chartOf(comparison, axis)}
<p id="pointed" class="soft" aria-live="polite">Point at a bar to see which tensor it is; a click leads to its row.</p></section>
<section class="card"><h2>Tensors</h2>
<div class="controls"><input id="filter" type="search" placeholder="name: qformer dense" aria-label="filter by name">
<label><input id="wrong" type="checkbox"${wrong > 0 && wrong < rows.length / 2 ? " checked" : ""}> above ${formatError(tolerance)} only</label>
<span id="count" class="soft" aria-live="polite">${rows.length}</span></div>
<div class="scroll"><table id="tensors" class="tensors"><thead><tr><th>tensor</th><th class="number">NMSE</th>
${byItself ? "" : '<th class="number near">inherited</th><th class="number">added</th>'}<th class="number near">max |Δ|</th>
<th class="far">at</th><th class="number far">A there</th><th class="number far">B there</th><th class="number far">cosine</th></tr></thead>
<tbody>
${rows.map((row, i) => rowOf(row, i, axis, byItself ?? false)).join("\n")}
</tbody></table></div></section>
</main>`;
  return htmlPage({
    title: `${b} against ${a}`,
    lead: `A, the reference: ${a}. B: ${b}${byItself ? ", each module given A's inputs" : ""}.`,
    body,
    styles: STYLES,
    script: SCRIPT,
  });
}

/** The modules that need more bits, and the dtype that gives them. */
function precisionSection({ gate, before, found }: Precision): string {
  const first = `The logits' NMSE is ${formatError(before)}; the gate is ${formatError(gate)}.`;
  const section = (rest: string) => `<section class="card"><h2>Bits</h2>\n<p>${first}${rest}</section>\n`;
  if (!found) return section(before <= gate ? "</p>" : " No dtype of weights meets it.</p>");
  const { modules, more, error, dtype } = found;
  const rows = modules.map(
    ({ path, error, effect }) =>
      `<tr><td>${text(path).replaceAll(".", ".<wbr>")}</td><td class="number">${formatError(error)}</td><td class="number">${formatError(effect)}</td></tr>`,
  );
  return section(` ${modulesText(modules.length)} as ${more} give ${formatError(error)}.</p>
<details><summary>these modules</summary><div class="scroll"><table class="tensors"><thead><tr><th>module</th><th class="number">own NMSE</th><th class="number">logits</th></tr></thead>
<tbody>${rows.join("\n")}</tbody></table></div></details>
<details><summary>the dtype</summary><p class="dtype"><code>--dtype ${text(formatStorage(dtype)).replaceAll(",", ",<wbr>")}</code></p></details>`);
}

function rowOf(row: Row, i: number, axis: Axis, byItself: boolean): string {
  const { name, a, b, difference, worst, inherited, added, wrong } = row;
  const label = labelOf(name);
  const nmse = difference ? formatError(difference.nmse) : "-";
  const parts = byItself ? "" : `, inherited ${formatError(inherited)}, added ${formatError(added)}`;
  const told = `${label}: NMSE ${nmse}${parts}`;
  const cell = (value: string, kind = "") => `<td class="number${kind}">${value}</td>`;
  const heat = difference ? axis.share(difference.nmse) : 1;
  return `<tr id="t${i}" data-name="${text(moduleOf(name))}" data-told="${text(told)}"${wrong ? ' class="wrong"' : ""}>
<td><details><summary>${text(label).replaceAll(".", ".<wbr>")}</summary>${statisticsOf(a, b, row)}</details></td>
<td class="number heat" style="--heat: ${heat.toFixed(2)}">${wrong && wrong !== "error" ? wrong : nmse}</td>${byItself ? "" : cell(formatError(inherited), " near") + cell(formatError(added))}${cell(formatError(difference?.maxAbs), " near")}<td class="far">${worst ? formatShape(worst.at) : "-"}</td>${cell(worst ? formatNumber(worst.a) : "-", " far")}${cell(worst ? formatNumber(worst.b) : "-", " far")}${cell(difference ? difference.cosine.toFixed(6) : "-", " far")}</tr>`;
}

/** Both sides, number by number. */
function statisticsOf(a: Side, b: Side, { difference, worst }: Row): string {
  const line = (name: string, of: (side: Side) => string) =>
    `<dt>${name}</dt><dd>${text(of(a))}</dd><dd>${text(of(b))}</dd>`;
  const number = (name: "min" | "max" | "mean" | "rms") =>
    line(name, ({ statistics }) => formatNumber(statistics[name]));
  const hasBroken = a.firstNotFinite || b.firstNotFinite;
  return `<dl><dt></dt><dd>A</dd><dd>B</dd>
${line("shape", ({ shape }) => formatShape(shape))}${(["min", "max", "mean", "rms"] as const).map(number).join("")}
${line("zeros", ({ statistics }) => `${(100 * statistics.zeros).toFixed(1)} %`)}
${hasBroken ? line("NaN, infinite", ({ statistics: { nan, infinite } }) => `${nan}, ${infinite}`) : ""}
${hasBroken ? line("first of them", ({ firstNotFinite }) => (firstNotFinite ? formatShape(firstNotFinite) : "-")) : ""}
${worst ? `<dt>max |Δ| ${formatError(difference?.maxAbs)} at ${formatShape(worst.at)}</dt><dd>${formatNumber(worst.a)}</dd><dd>${formatNumber(worst.b)}</dd>` : ""}
<dt>cosine</dt><dd>${difference ? difference.cosine.toFixed(9) : "-"}</dd><dd></dd></dl>`;
}
