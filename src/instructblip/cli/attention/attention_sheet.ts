/**
 * A contact sheet of attention maps, each over its image, all in one colour scale. Pure: it returns pixels and labels, which
 * attention.node.ts writes as PNG or SVG.
 */

import type { RgbImage } from "../../processing/image.ts";
import { resize } from "../../processing/resize.ts";

/** The attention of one query. */
export interface AttentionMap {
  readonly caption: string;
  /** f32[rows · columns]: the weight of each patch, row by row */
  readonly patches: Float32Array;
  /** The weight of the class token, which is not in the image; none where the map is of no attention. */
  readonly class_token?: number | undefined;
}

/** The grid of patches on the image. */
export interface PatchGrid {
  readonly rows: number;
  readonly columns: number;
  /** The image's height and width in patches: not whole numbers if its edge fills no patch. */
  readonly height: number;
  readonly width: number;
}

export interface SheetContent {
  readonly title: string;
  readonly subtitle: string;
  readonly image: RgbImage;
  readonly grid: PatchGrid;
  readonly maps: readonly AttentionMap[];
  /** Shown at the top, beside the image. */
  readonly mean?: AttentionMap | undefined;
  /** Maps in a row. Default: as many as make full rows. */
  readonly columns?: number | undefined;
  /** The weight of the brightest colour. Default: the largest weight. */
  readonly scale_max?: number | undefined;
  /** Patches as blocks, instead of interpolated between their centres. */
  readonly blocks?: boolean | undefined;
  /** What a patch's number is, and how it is printed. Default: an attention weight in percent. */
  readonly measure?: { readonly title: string; readonly text: (value: number) => string } | undefined;
}

export interface Label {
  readonly text: string;
  readonly x: number;
  /** Of the baseline. */
  readonly y: number;
  readonly size: number;
  readonly anchor: "start" | "middle" | "end";
  readonly bold?: boolean;
}

export interface Sheet {
  readonly canvas: RgbImage;
  readonly labels: readonly Label[];
}

type Rgb = readonly [number, number, number];

/** Coefficients of t⁰ … t⁶ for red, green and blue. Source: Matt Zucker's fit of matplotlib's viridis (CC0). */
const VIRIDIS: readonly Rgb[] = [
  [0.2777273272234177, 0.005407344544966578, 0.3340998053353061],
  [0.1050930431085774, 1.404613529898575, 1.384590162594685],
  [-0.3308618287255563, 0.214847559468213, 0.09509516302823659],
  [-4.634230498983486, -5.799100973351585, -19.33244095627987],
  [6.228269936347081, 14.17993336680509, 56.69055260068105],
  [4.776384997670288, -13.74514537774601, -65.35303263337234],
  [-5.435455855934631, 4.645852612178535, 26.3124352495832],
];

/** matplotlib's viridis, a perceptually uniform colour scale, within 2 of 255. @param t 0 … 1 @returns 0 … 255 each */
export function viridis(t: number): Rgb {
  const at = Math.min(1, Math.max(0, t));
  const channel = (c: 0 | 1 | 2) => {
    const value = VIRIDIS.reduceRight((sum, coefficients) => sum * at + coefficients[c], 0);
    return Math.round(255 * Math.min(1, Math.max(0, value)));
  };
  return [channel(0), channel(1), channel(2)];
}

/** Opacity of the map's colour over the image. */
const OPACITY = 0.65;
const MID_GREY = 128;
const MARGIN = 24;
const GAP = 10;
const CAPTION = 22;
/** Of a sheet with many maps, in pixels. */
const WIDTH = 1360;

/** Draws the sheet. All maps have the same scale, from 0 up. */
export function drawSheet(content: SheetContent): Sheet {
  const { title, subtitle, image, grid, maps, mean, blocks = false } = content;
  const columns = content.columns ?? columnsFor(maps.length);
  const rows = Math.ceil(maps.length / columns);
  const longest = Math.max(120, Math.min(320, Math.floor((WIDTH - 2 * MARGIN + GAP) / columns) - GAP));
  const shrink = longest / Math.max(image.width, image.height);
  const small = resize(
    image,
    Math.max(1, Math.round(image.width * shrink)),
    Math.max(1, Math.round(image.height * shrink)),
  );
  const [w, h] = [small.width, small.height];
  const shown = mean ? [...maps, mean] : maps;
  const most = shown.reduce((m, { patches }) => patches.reduce((a, b) => Math.max(a, b), m), 0);
  const scale = content.scale_max ?? most;

  const head = MARGIN + 56; // two lines of text
  const top = head + h + CAPTION + GAP;
  const legendX = MARGIN + (mean ? 2 : 1) * (w + GAP) + GAP;
  const legendWidth = 300;
  const width = Math.max(2 * MARGIN + columns * (w + GAP) - GAP, legendX + 450 + MARGIN);
  const canvas = blank(width, top + rows * (h + CAPTION + GAP) - GAP + MARGIN);
  const labels: Label[] = [];
  const write = (text: string, x: number, y: number, size: number, more: Partial<Label> = {}) => {
    labels.push({ text, x, y, size, anchor: "start", ...more });
  };
  write(shortened(title, width - 2 * MARGIN, 18, 0.6), MARGIN, MARGIN + 16, 18, { bold: true });
  write(shortened(subtitle, width - 2 * MARGIN, 13), MARGIN, MARGIN + 40, 13);

  const place = (image: RgbImage, caption: string, x: number, y: number) => {
    paste(canvas, image, x, y);
    write(shortened(caption, w, 12), x + w / 2, y + h + 15, 12, { anchor: "middle" });
  };
  place(small, "image", MARGIN, head);
  const over = (map: AttentionMap) => heat(small, map.patches, grid, scale, blocks);
  if (mean) place(over(mean), captionOf(mean), MARGIN + w + GAP, head);
  for (const [i, map] of maps.entries()) {
    const x = MARGIN + (i % columns) * (w + GAP);
    place(over(map), captionOf(map), x, top + Math.floor(i / columns) * (h + CAPTION + GAP));
  }

  const bar = blank(legendWidth, 16);
  for (let x = 0; x < legendWidth; x++) {
    const color = blend(MID_GREY, viridis(x / (legendWidth - 1)));
    for (let y = 0; y < 16; y++) bar.data.set(color, 3 * (y * legendWidth + x));
  }
  const barY = head + 22;
  paste(canvas, bar, legendX, barY);
  const { title: meaning, text: number } = content.measure ?? { title: "attention weight of one patch", text: percent };
  write(meaning, legendX, barY - 8, 12);
  write("0", legendX, barY + 32, 12, { anchor: "middle" });
  write(`${most > scale ? "≥ " : ""}${number(scale)}`, legendX + legendWidth, barY + 32, 12, { anchor: "middle" });
  const even = 1 / (grid.rows * grid.columns + 1);
  if (!content.measure && even < scale) {
    const x = legendX + (even / scale) * legendWidth;
    const crowded = x < legendX + 40 || x > legendX + legendWidth - 60;
    paste(canvas, blank(2, 22, 0), Math.round(x) - 1, barY - 3);
    write(`${percent(even)} if all were equal`, x, barY + (crowded ? 48 : 32), 12, {
      anchor: x < legendX + 70 ? "start" : x > legendX + legendWidth - 70 ? "end" : "middle",
    });
  }
  if (shown.some(({ class_token }) => class_token !== undefined)) {
    write("class: the weight of the class token, which is not in the image", legendX, barY + 70, 12);
  }
  return { canvas, labels };
}

/** An image in grey under a map in colours. */
export function heat(
  image: RgbImage,
  patches: Float32Array,
  grid: PatchGrid,
  scale: number,
  blocks: boolean,
): RgbImage {
  const { width, height, data } = image;
  const result = new Uint8Array(data.length);
  for (let y = 0; y < height; y++) {
    const v = ((y + 0.5) / height) * grid.height; // in patches
    for (let x = 0; x < width; x++) {
      const u = ((x + 0.5) / width) * grid.width;
      const at = 3 * (y * width + x);
      const grey = 0.299 * data[at]! + 0.587 * data[at + 1]! + 0.114 * data[at + 2]!; // BT.601, as in Pillow
      if (v < grid.rows && u < grid.columns) {
        const weight = blocks ? patches[Math.floor(v) * grid.columns + Math.floor(u)]! : between(patches, grid, v, u);
        result.set(blend(grey, viridis(scale > 0 ? weight / scale : 0)), at);
      } else {
        result.fill(Math.round(grey), at, at + 3); // an edge that fills no patch has no weight
      }
    }
  }
  return { width, height, data: result };
}

/** Bilinear between the patches' centres, constant beyond the outermost. */
function between(patches: Float32Array, { rows, columns }: PatchGrid, v: number, u: number): number {
  const y = Math.min(rows - 1, Math.max(0, v - 0.5));
  const x = Math.min(columns - 1, Math.max(0, u - 0.5));
  const [y0, x0] = [Math.floor(y), Math.floor(x)];
  const [y1, x1] = [Math.min(rows - 1, y0 + 1), Math.min(columns - 1, x0 + 1)];
  const row = (r: number) => patches[r * columns + x0]! * (1 - (x - x0)) + patches[r * columns + x1]! * (x - x0);
  return row(y0) * (1 - (y - y0)) + row(y1) * (y - y0);
}

/** The largest number of columns from 4 to 8 that fills all rows, else 8. */
function columnsFor(count: number): number {
  if (count <= 8) return count;
  return [8, 7, 6, 5, 4].find((columns) => count % columns === 0) ?? 8;
}

function captionOf({ caption, class_token }: AttentionMap): string {
  return class_token === undefined ? caption : `${caption} · class ${percent(class_token)}`;
}

/** `12 %`, `1.2 %`, `0.12 %`: two digits. */
export function percent(share: number): string {
  const value = 100 * share;
  if (value > 0 && value < 0.00095) return "<0.001 %";
  return `${value >= 9.95 || value === 0 ? Math.round(value) : value.toPrecision(2)} %`;
}

/** Text truncated to about `width` pixels; a character of a sans-serif font is about half as wide as its size. */
function shortened(text: string, width: number, size: number, ratio = 0.52): string {
  const characters = [...text];
  const most = Math.max(1, Math.floor(width / (ratio * size)));
  return characters.length <= most ? text : `${characters.slice(0, most - 1).join("")}…`;
}

/** Blends a colour over a low-contrast grey, so that the image's colours and brightness are not mistaken for weights. */
function blend(grey: number, color: Rgb): number[] {
  const under = 30 + 0.65 * grey;
  return color.map((value) => Math.round((1 - OPACITY) * under + OPACITY * value));
}

function blank(width: number, height: number, value = 255): RgbImage {
  return { width, height, data: new Uint8Array(3 * width * height).fill(value) };
}

function paste(canvas: RgbImage, image: RgbImage, x: number, y: number): void {
  for (let row = 0; row < image.height; row++) {
    const source = image.data.subarray(3 * row * image.width, 3 * (row + 1) * image.width);
    canvas.data.set(source, 3 * ((y + row) * canvas.width + x));
  }
}

/** The labels as an SVG of the canvas's size, over an image if one is given. @param background a URL */
export function sheetSvg({ canvas, labels }: Sheet, background?: string): string {
  const { width, height } = canvas;
  const texts = labels.map(
    ({ text, x, y, size, anchor, bold }) =>
      `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" font-size="${size}" text-anchor="${anchor}"` +
      `${bold ? ' font-weight="bold"' : ""}>${escaped(text)}</text>`,
  );
  const image = background === undefined ? "" : `<image width="${width}" height="${height}" href="${background}"/>`;
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}">\n` +
    `${image}<g font-family="sans-serif" fill="#222">\n${texts.join("\n")}\n</g></svg>\n`
  );
}

/** Escapes text for XML, without invalid characters. */
function escaped(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: XML 1.0 forbids most control characters
  const allowed = text.replace(/[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]/g, "\ufffd");
  return allowed.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
