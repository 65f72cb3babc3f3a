/** The roofline of the variants that plan() picks, as an image of its own, which follows the reader's light or dark. */
import { byMachine } from "../../bench/report.ts";
import type { Row } from "../../bench/rows.ts";
import { escapeHtml } from "../../src/instructblip/instruments/page.ts";
import { FAMILIES, familyOf } from "./families.ts";
import { measuredLimits, newestRows, pointsOf } from "./roofline.ts";
import { drawRoofline } from "./roofline_chart.ts";

const [WIDTH, HEIGHT] = [760, 440];
const TOP = 56;
const BOTTOM = 34;
const SIDE = 18;

const TITLE = "Kernels under this machine's limits";

/** Its own copy of the page's colours. */
const STYLES = `
svg { --ink: #17212b; --soft: #5c6b7a; --card: #ffffff; --line: #dce3ea; --wrong: #b42318; }
svg { --s1: #0b66c3; --s2: #b4531f; --s3: #0f766e; --s4: #8a2f8f; --s5: #6b5d00; }
@media (prefers-color-scheme: dark) {
  svg { --ink: #e6ecf2; --soft: #93a3b3; --card: #1b232c; --line: #2d3843; --wrong: #ff8a7a; }
  svg { --s1: #6cb2ff; --s2: #ff9a5c; --s3: #2dd4bf; --s4: #e29be6; --s5: #d9c64a; }
}
text { white-space: pre; }
.plot { color: var(--ink); }
`;

/**
 * Of the first adapter.
 *
 * @throws Error if no row has a time and arithmetic
 */
export function rooflineSvg(rows: readonly Row[]): string {
  const [group = []] = byMachine(rows);
  const drawn = newestRows(group).filter(({ kernel, planned, gflops }) => kernel !== "limit" && planned && gflops);
  const points = pointsOf(drawn);
  if (points.length === 0)
    throw new Error("no row of npm run bench with arithmetic and a time: there is no roofline to draw");
  const { adapter, cpu, cores } = drawn[0];
  const commits = [...new Set(drawn.map(({ commit }) => commit))];
  const chart = drawRoofline(points, measuredLimits(group), WIDTH - 2 * SIDE, HEIGHT - TOP - BOTTOM)
    .replaceAll(/ data-row="\d+"/g, "")
    .replace("<svg ", `<svg x="${SIDE}" y="${TOP}" overflow="visible" `);
  const text = (x: number, y: number, words: string, more = "") =>
    `<text x="${x}" y="${y}" fill="var(--ink)" ${more}>${escapeHtml(words)}</text>`;
  const there = FAMILIES.filter((family) => points.some(({ row }) => familyOf(row) === family));
  const key = there.map(({ name, color, symbol }, i) => {
    const x = SIDE + 56 + 132 * i;
    return `<g transform="translate(${x} ${HEIGHT - 18})" fill="${color}">${MARKS[symbol]}</g>${text(x + 10, HEIGHT - 14, name)}`;
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" width="${WIDTH}" height="${HEIGHT}" font-family="system-ui, sans-serif" font-size="12">
<title>${TITLE}</title>
<style>${STYLES}</style>
<rect x="0.5" y="0.5" width="${WIDTH - 1}" height="${HEIGHT - 1}" rx="10" fill="var(--card)" stroke="var(--line)"/>
${text(SIDE + 4, 26, TITLE, 'font-size="15" font-weight="600"')}
${text(SIDE + 4, 44, `${adapter} · ${cpu}, ${cores} cores · commit ${commits.join(", ")}`, 'style="fill: var(--soft)"')}
${chart}
${key.join("\n")}
</svg>
`;
}

const MARKS: Readonly<Record<(typeof FAMILIES)[number]["symbol"], string>> = {
  circle: '<circle r="4"/>',
  triangle: '<path d="M0 -4.5L5 4.5H-5Z"/>',
  square: '<path d="M-4 -4H4V4H-4Z"/>',
  diamond: '<path d="M0 -5L4 0L0 5L-4 0Z"/>',
  star: '<path d="M0 -5L1.5 -1.4L5.4 -1.1L2.4 1.4L3.3 5.2L0 3.2L-3.3 5.2L-2.4 1.4L-5.4 -1.1L-1.5 -1.4Z"/>',
};
