/** Heat maps as SVG: a cell for each unit of a group, in one colour above zero and in another below. Pure. */
import { escapeHtml } from "../page.ts";

export interface HeatCell {
  readonly row: number;
  readonly column: number;
  readonly value: number;
  /** What is shown of it. */
  readonly text: string;
}

export interface HeatGrid {
  readonly title: string;
  readonly rows: readonly string[];
  readonly columns: readonly string[];
  readonly cells: readonly HeatCell[];
  /** The absolute value of the strongest colour, above 0. */
  readonly scale: number;
  /** What the strongest colours below and above zero stand for. */
  readonly ends: readonly [string, string];
}

/** Light colours, as attributes: programs that draw SVG without style sheets show these. */
const LIGHT = { ink: "#17212b", soft: "#5c6b7a", none: "#edf0f3", up: "#0f766e", down: "#b4531f", page: "#ffffff" };
const FONT = 'font-family="system-ui, sans-serif" font-size="11"';

const SOFT = `fill="${LIGHT.soft}"`;
const TITLED = `fill="${LIGHT.ink}" font-size="14" font-weight="600"`;

/** Styles of heat maps: dark colours. */
export const HEAT_STYLES = `
.hm { --hm-ink: ${LIGHT.ink}; --hm-none: ${LIGHT.none}; --hm-up: ${LIGHT.up}; --hm-down: ${LIGHT.down}; }
@media (prefers-color-scheme: dark) {
  .hm { --hm-ink: #e6ecf2; --hm-none: #26303a; --hm-up: #2dd4bf; --hm-down: #ff9a5c; }
  .hm text { fill: #93a3b3; }
  .hm .hm-title { fill: var(--hm-ink); }
  .hm .hm-none { fill: var(--hm-none); }
  .hm .hm-up { fill: var(--hm-up); }
  .hm .hm-down { fill: var(--hm-down); }
  .hm .hm-page { fill: #12181f; }
}
`;

/** Longest label, in characters. */
const LONGEST = 18;
const CHARACTER = 6.2;
const TITLE = 26;
/** Colours of a scale, from the lowest to the highest, and their size. */
const SCALE = [-1, -0.75, -0.5, -0.25, 0, 0.25, 0.5, 0.75, 1];
const SWATCH = 12;
const SCALE_HEIGHT = 30;

const shortened = (label: string) => (label.length > LONGEST ? `${label.slice(0, LONGEST - 1)}…` : label);
const widest = (labels: readonly string[]) => Math.max(...labels.map((label) => shortened(label).length)) * CHARACTER;

interface Drawn {
  readonly width: number;
  readonly height: number;
  readonly content: string;
}

/** A square in the colour of a strength from -1 to 1, on the colour of zero. @param place its attributes */
function colored(strength: number, place: string): string {
  const kind = strength < 0 ? "down" : "up";
  const opacity = Math.min(1, Math.abs(strength)).toFixed(3);
  return (
    `<rect class="hm-none" fill="${LIGHT.none}" ${place}/>` +
    `<rect class="hm-${kind}" fill="${LIGHT[kind]}" fill-opacity="${opacity}" ${place}/>`
  );
}

/** The scale of a grid, below it. */
function drawScale([low, high]: HeatGrid["ends"], y: number): Drawn {
  const from = low.length * CHARACTER + 6;
  const to = from + SCALE.length * SWATCH;
  const swatches = SCALE.map((strength, i) =>
    colored(strength, `x="${(from + i * SWATCH).toFixed(1)}" y="${y + 10}" width="${SWATCH}" height="${SWATCH}"`),
  );
  const label = (x: number, anchor: string, text: string) =>
    `<text ${SOFT} x="${x.toFixed(1)}" y="${y + 20}" text-anchor="${anchor}">${escapeHtml(text)}</text>`;
  const content = [label(from - 6, "end", low), ...swatches, label(to + 6, "start", high)].join("\n");
  return { width: to + 6 + high.length * CHARACTER, height: SCALE_HEIGHT, content };
}

function drawGrid({ title, rows, columns, cells, scale, ends }: HeatGrid, inFile: boolean): Drawn {
  const isTurned = columns.some((label) => label.length > 3);
  const cell = columns.length > 40 ? 14 : 22;
  const left = widest(rows) + 10;
  const top = (inFile ? TITLE : 4) + (isTurned ? widest(columns) + 6 : 16);
  const at = (row: number, column: number) => [left + column * cell, top + row * cell] as const;
  const marks: string[] = [];
  if (inFile) marks.push(`<text class="hm-title" x="0" y="15" ${TITLED}>${escapeHtml(title)}</text>`);
  for (const [c, label] of columns.entries()) {
    if (!isTurned && cell < 20 && c % 5 !== 0) continue; // numbers need room
    const [x, y] = [left + (c + 0.5) * cell, top - 5];
    const name = escapeHtml(shortened(label));
    if (isTurned)
      marks.push(`<text ${SOFT} transform="translate(${(x + 4).toFixed(1)} ${y}) rotate(-90)">${name}</text>`);
    else marks.push(`<text ${SOFT} x="${x.toFixed(1)}" y="${y}" text-anchor="middle">${name}</text>`);
  }
  for (const [r, label] of rows.entries()) {
    const y = top + (r + 0.5) * cell + 4;
    marks.push(
      `<text ${SOFT} x="${(left - 6).toFixed(1)}" y="${y}" text-anchor="end">${escapeHtml(shortened(label))}</text>`,
    );
  }
  for (const { row, column, value, text } of cells) {
    const [x, y] = at(row, column);
    const size = `x="${(x + 0.5).toFixed(1)}" y="${y + 0.5}" width="${cell - 1}" height="${cell - 1}" rx="2"`;
    marks.push(`<g data-at="${row},${column}">${colored(value / scale, size)}<title>${escapeHtml(text)}</title></g>`);
  }
  const bottom = top + rows.length * cell;
  const legend = inFile ? drawScale(ends, bottom) : undefined; // a page has its own
  if (legend) marks.push(legend.content);
  const widths = [left + columns.length * cell, inFile ? title.length * 8 : 0, legend?.width ?? 0];
  return {
    width: Math.ceil(Math.max(...widths) + 4),
    height: bottom + (legend?.height ?? 4),
    content: marks.join("\n"),
  };
}

/** One grid as an element of a page, which has HEAT_STYLES. @param label for screen readers */
export function heatMapElement(grid: HeatGrid, label: string): string {
  const { width, height, content } = drawGrid(grid, false);
  const size = `width="${width}" height="${height}" viewBox="0 0 ${width} ${height}"`;
  return `<svg class="hm" ${FONT} ${size} role="img" tabindex="0" aria-label="${escapeHtml(label)}">\n${content}\n</svg>`;
}

/**
 * Grids below each other as an SVG file, light or dark as its viewer is.
 *
 * @param lines below the title
 */
export function heatMapFile(title: string, lines: readonly string[], grids: readonly HeatGrid[]): string {
  const drawn = grids.map((grid) => drawGrid(grid, true));
  const margin = 16;
  const said = lines.map((line, i) => {
    return `<text ${SOFT} x="${margin}" y="${margin + 34 + 16 * i}">${escapeHtml(line)}</text>`;
  });
  let y = margin + 34 + 16 * lines.length;
  const parts = drawn.map(({ height, content }) => {
    const part = `<g transform="translate(${margin} ${y})">\n${content}\n</g>`;
    y += height + 18;
    return part;
  });
  const widths = [360, title.length * 8.5, ...lines.map(({ length }) => length * CHARACTER)];
  const width = Math.ceil(Math.max(...widths, ...drawn.map((one) => one.width)) + 2 * margin);
  const size = `width="${width}" height="${y}" viewBox="0 0 ${width} ${y}"`;
  return `<svg xmlns="http://www.w3.org/2000/svg" class="hm" ${FONT} ${size}>
<style>${HEAT_STYLES}</style>
<rect class="hm-page" fill="${LIGHT.page}" width="100%" height="100%"/>
<text class="hm-title" x="${margin}" y="${margin + 14}" ${TITLED}>${escapeHtml(title)}</text>
${said.join("\n")}
${parts.join("\n")}
</svg>
`;
}
