/** A sweep as one page: heat maps of all groups, what is under the pointer in words, and the strongest effects. Pure. */
import { escapeHtml, htmlPage } from "../page.ts";
import { HEAT_STYLES, heatMapElement } from "./heat_map.ts";
import { EFFECTS, nats, type SweepReport, strongestUnits, sweepGrids, sweepLines } from "./report.ts";

const STYLES = `${HEAT_STYLES}
.hm { display: block; }
.hm:focus-visible { outline-offset: -2px; }
.hm g.at rect { stroke: var(--hm-ink); stroke-width: 1.5; }
.hm g { cursor: default; }
.said { min-height: 1.5em; margin: 0.5rem 0 0; font-variant-numeric: tabular-nums; }
.legend { display: flex; align-items: center; gap: 0.5rem; }
.legend span { white-space: nowrap; }
.legend i { flex: 0 1 9rem; height: 0.8rem; border-radius: 0.25rem; }
.groups { display: flex; flex-wrap: wrap; gap: 0 1rem; }
.groups .card { flex: 0 1 auto; min-width: 0; }
dl { display: grid; grid-template-columns: auto 1fr; gap: 0.15rem 1rem; margin: 0; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
`;

/** Text under a map follows pointer and arrow keys. */
const SCRIPT = `
for (const map of document.querySelectorAll(".hm")) {
  const said = document.getElementById(map.getAttribute("aria-describedby"));
  const cells = new Map([...map.querySelectorAll("g[data-at]")].map((cell) => [cell.dataset.at, cell]));
  let at;
  const show = (cell) => {
    if (!cell) return;
    at?.classList.remove("at");
    at = cell;
    cell.classList.add("at");
    said.textContent = cell.querySelector("title").textContent;
  };
  map.addEventListener("pointerover", ({ target }) => show(target.closest("g[data-at]")));
  map.addEventListener("focus", () => show(at ?? cells.values().next().value));
  map.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!step || !at) return;
    event.preventDefault();
    const [row, column] = at.dataset.at.split(",").map(Number);
    const next = cells.get([row + step[0], column + step[1]].join());
    show(next);
    next?.scrollIntoView({ block: "nearest", inline: "nearest" });
  });
}
`;

const MEANINGS = {
  mean: "Each cell is one part that was given the mean of its numbers in the runs of other images, token by token: of a layer what it adds to the residual stream, of a head its values, of a query its image token, of a token its embedding. Its colour is the change of the answer's log-probability, in nats.",
  ablate:
    "Each cell is one part taken out: of a layer what it adds to the residual stream, of a head its values, of a query its image token, of a token its embedding. Its colour is the change of the answer's log-probability, in nats.",
  patch:
    "Each cell is one part of the corrupted run that was given the clean run's numbers. Its colour is how much of the answer's log-probability that brings back: 0 % as corrupted, 100 % as clean.",
};

/** What the ends of the scale mean. */
const ENDS = { ablate: ["less probable", "more probable"], patch: ["-100 %", "100 % restored"] };

/** @param model its name */
export function sweepPage(report: SweepReport, model: string): string {
  const { kind, image, prompt, mean_images, corrupted_image, corrupted_prompt, answer_tokens } = report;
  const grids = sweepGrids(report);
  const { head, text } = EFFECTS[kind];
  const facts: [string, string | undefined][] = [
    ["model", model],
    ["image", image],
    ["means over", mean_images?.join(", ")],
    ["corrupted image", corrupted_image],
    ["instruction", prompt],
    ["corrupted instruction", corrupted_prompt],
    ["answer", answer_tokens.map(({ text: word, logprob }) => `${word} (${nats(logprob)})`).join(" ")],
  ];
  const list = facts.flatMap(([name, value]) =>
    value === undefined ? [] : [`<dt>${name}</dt><dd>${escapeHtml(value)}</dd>`],
  );
  const [low, high] = ENDS[kind];
  const gradient = "linear-gradient(to right, var(--hm-down), var(--hm-none), var(--hm-up))";
  const legend = `<p class="legend hm"><span>${low}</span><i style="background: ${gradient}"></i><span>${high}</span></p>`;
  const maps = grids.map((grid, i) => {
    const label = `${grid.title}: heat map of ${grid.rows.length} by ${grid.columns.length}; arrow keys read cells`;
    const map = heatMapElement(grid, label).replace('<svg class="hm"', `<svg class="hm" aria-describedby="said-${i}"`);
    return `<section class="card"><h2>${escapeHtml(grid.title)}</h2>
${kind === "ablate" ? `<p class="soft">strongest colour: ${text(-grid.scale)}</p>` : ""}
<div class="scroll">${map}</div>
<p class="said soft" id="said-${i}" aria-live="polite">&nbsp;</p></section>`;
  });
  const rows = strongestUnits(report, 15).map((unit) => {
    const column = unit.text === undefined ? unit.column : `${unit.column} ${JSON.stringify(unit.text)}`;
    const cells = [unit.group, unit.row, column].map((cell) => `<td>${escapeHtml(cell)}</td>`);
    const numbers = [nats(unit.logprob), text(unit.effect)].map((cell) => `<td class="number">${cell}</td>`);
    return `<tr>${cells.join("")}${numbers.join("")}</tr>`;
  });
  const body = `<section class="card"><dl>${list.join("")}</dl>
<p>${escapeHtml(MEANINGS[mean_images ? "mean" : kind])}</p>${legend}</section>
<div class="groups">${maps.join("\n")}</div>
<section class="card"><h2>Strongest</h2>
<div class="scroll"><table><thead><tr><th>group</th><th>row</th><th>unit</th><th class="number">log p</th><th class="number">${head}</th></tr></thead>
<tbody>${rows.join("\n")}</tbody></table></div></section>`;
  const title = kind === "ablate" ? "Ablation" : "Activation patching";
  return htmlPage({ title, lead: `${sweepLines(report).join("; ")}.`, body, styles: STYLES, script: SCRIPT });
}
