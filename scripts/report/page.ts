/** All results on one page, each adapter by itself. */

import type { DataRow } from "../../bench/dataset/results.ts";
import type { PeerRow } from "../../bench/peers/results.ts";
import { byMachine } from "../../bench/report.ts";
import { groupedBy, type Row } from "../../bench/rows.ts";
import { escapeHtml, htmlPage } from "../../src/instructblip/instruments/page.ts";
import { changesFigure } from "./changes.ts";
import { comparisonFigure } from "./comparison.ts";
import { datasetFigure } from "./dataset.ts";
import { FIGURE_SCRIPT, FIGURE_STYLES, type Figure, figureElement } from "./figure.ts";
import { historyFigure } from "./history.ts";
import type { Results } from "./inputs.ts";
import { launchesFigure } from "./launches.ts";
import { parityFigure } from "./parity.ts";
import { peersFigure } from "./peers.ts";
import { profileFigures } from "./profile.ts";
import { qualityFigure } from "./quality.ts";
import { rooflineFigures } from "./roofline.ts";

interface Section {
  readonly title: string;
  /** A sentence under it. */
  readonly lead?: string;
  readonly figures: readonly Figure[];
}

const STYLES = `${FIGURE_STYLES}
nav ul { margin: 0; padding: 0; list-style: none; }
nav > ul > li + li { margin-top: 0.4rem; }
nav li ul { display: flex; flex-wrap: wrap; gap: 0 1.1rem; }
a { color: var(--accent); }
nav { overflow-wrap: anywhere; }
h2 { overflow-wrap: anywhere; }
@media print { nav { display: none; } .section { break-after: avoid; } }
`;

/** @throws Error if a file's rows cannot be drawn together */
export function reportPage(results: readonly Results[]): string {
  const sections = sectionsOf(results);
  const versions = [...groupedBy(results, ({ path }) => path)].map(([path, { length }]) =>
    length > 1 ? `${path} (${length} versions)` : path,
  );
  const links = sections.map(({ title, figures }, i) => {
    const items = figures.map((figure, j) => `<li><a href="#s${i}f${j}">${escapeHtml(figure.title)}</a></li>`);
    return `<li>${escapeHtml(title)}<ul>${items.join("")}</ul></li>`;
  });
  const body = `<nav class="card" aria-label="Charts"><ul>${links.join("\n")}</ul></nav>
<main>
${sections.map(sectionElement).join("\n")}
</main>`;
  return htmlPage({
    title: "Measurements of instructblip-webgpu",
    lead: `From ${versions.join(", ")}.`,
    body,
    styles: STYLES,
    script: FIGURE_SCRIPT,
  });
}

function sectionElement({ title, lead, figures }: Section, i: number): string {
  const about = lead === undefined ? "" : `\n<p class="soft">${escapeHtml(lead)}</p>`;
  return `<div class="section"><h2>${escapeHtml(title)}</h2>${about}</div>
${figures.map((figure, j) => figureElement(figure, `s${i}f${j}`)).join("\n")}`;
}

/** Adapters first, then what has no times. */
export function sectionsOf(results: readonly Results[]): Section[] {
  const rows = results.flatMap((each) => (each.kind === "bench" ? each.rows : []));
  const peers = results.flatMap((each) => (each.kind === "peers" ? each.rows : []));
  const data = results.flatMap((each) => (each.kind === "dataset" ? each.rows : []));
  const sections: Section[] = byMachine<MachineRow>([...rows, ...peers, ...data]).map((group) => {
    const [benches, others, sets] = [group.filter(isBench), group.filter(isPeer), group.filter(isData)];
    const figures = [
      ...(benches.length ? [...rooflineFigures(benches), launchesFigure(benches), historyFigure(benches)] : []),
      ...(others.length ? [peersFigure(others)] : []),
      ...(sets.length ? [datasetFigure(sets)] : []),
    ];
    return { ...machineOf(group), figures: figures.filter((figure) => figure !== undefined) };
  });
  const of = (title: string, figures: readonly Figure[]) => (figures.length ? [{ title, figures }] : []);
  return [
    ...sections,
    ...of(
      "Before and after",
      results.flatMap((each) => (each.kind === "changes" ? [changesFigure(each.result)] : [])),
    ),
    ...of(
      "Profiles",
      results.flatMap((each) => (each.kind === "profile" ? profileFigures(each.result) : [])),
    ),
    ...of(
      "Against PyTorch",
      results.flatMap((each) => (each.kind === "parity" ? [parityFigure(each.result)] : [])),
    ),
    ...of(
      "Dtypes",
      results.flatMap((each) => (each.kind === "quality" ? [qualityFigure(each.result)] : [])),
    ),
    ...of(
      "Two runs",
      results.flatMap((each) => (each.kind === "comparison" ? [comparisonFigure(each.result)] : [])),
    ),
  ];
}

type MachineRow = Row | PeerRow | DataRow;
const isBench = (row: MachineRow): row is Row => "kernel" in row;
const isPeer = (row: MachineRow): row is PeerRow => "engine" in row;
const isData = (row: MachineRow): row is DataRow => "workers" in row;

function machineOf(rows: readonly MachineRow[]): Pick<Section, "title" | "lead"> {
  const newest = rows.reduce((a, b) => (b.date > a.date ? b : a));
  const dates = rows.map(({ date }) => date.slice(0, 10)).sort();
  const when = dates[0] === dates.at(-1) ? dates[0] : `${dates[0]} to ${dates.at(-1)}`;
  const commits = [...new Set(rows.map(({ commit }) => commit))];
  const { adapter, cpu, cores, os, node, webgpu } = newest;
  const shown = commits.length > 4 ? `${commits.length} commits` : `commit ${commits.join(", ")}`;
  return {
    title: adapter,
    lead: `${cpu}, ${cores} cores · ${os} · Node ${node} · webgpu ${webgpu} · ${shown} · ${when}`,
  };
}
