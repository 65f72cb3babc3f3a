/**
 * What is drawn over the image, with its scale. Where the model looked is lit and the rest dark: lightness alone, which
 * everybody sees, and the image keeps its colours. What an answer rests on is orange, what spoke against it blue, a pair that
 * the colour-blind tell apart.
 */
import { COLOURS, rgbOf } from "../../../../src/instructblip/instruments/colours.ts";
import { element } from "../elements.ts";
import { nats, percent } from "./exploration.ts";

const page = {
  stack: element("div", "#stack"),
  canvas: element("canvas", "#overlay"),
  scale: element("div", "#scale"),
  low: element("span", "#scale-low"),
  high: element("span", "#scale-high"),
  caption: element("p", "#caption"),
};

export interface Overlay {
  readonly kind: "looked" | "rests";
  readonly values: ArrayLike<number>;
  readonly rows: number;
  readonly columns: number;
  readonly caption: string;
}

/** How dark it is where nothing looked. */
const DARKEST = 0.75;
const [FOR, AGAINST] = [rgbOf(COLOURS.for[0]), rgbOf(COLOURS.against[0])];
const STRONGEST = 0.85;

let shown: Overlay | undefined;

/** Draws an overlay; none leaves the image alone. @param caption where there is none */
export function drawOverlay(overlay: Overlay | undefined, caption = ""): void {
  shown = overlay;
  page.stack.dataset.kind = overlay?.kind ?? "image";
  page.canvas.hidden = overlay === undefined;
  page.scale.hidden = overlay === undefined;
  page.caption.textContent = overlay?.caption ?? caption;
  if (!overlay) return;
  const { kind, values, rows, columns } = overlay;
  const list = Array.from(values);
  const most = Math.max(...list.map(Math.abs), Number.MIN_VALUE);
  [page.canvas.width, page.canvas.height] = [columns, rows];
  const pixels = new ImageData(columns, rows);
  for (const [i, value] of list.entries()) {
    const share = value / most;
    const [r, g, b] = kind === "looked" ? [0, 0, 0] : share < 0 ? AGAINST : FOR;
    const alpha = kind === "looked" ? DARKEST * (1 - share) : STRONGEST * Math.abs(share);
    pixels.data.set([r, g, b, 255 * alpha], 4 * i);
  }
  page.canvas.getContext("2d")!.putImageData(pixels, 0, 0);
  page.scale.dataset.kind = kind;
  page.low.textContent = kind === "looked" ? "0 %" : nats(-most);
  page.high.textContent = kind === "looked" ? percent(most) : nats(most);
}

/** Says what the patch under the pointer has. */
export function followPointer(): void {
  const { stack } = page;
  stack.addEventListener("pointermove", ({ clientX, clientY }) => {
    if (!shown) return;
    const { left, top, width, height } = stack.getBoundingClientRect();
    const column = Math.floor(((clientX - left) / width) * shown.columns);
    const row = Math.floor(((clientY - top) / height) * shown.rows);
    const value = shown.values[row * shown.columns + column];
    if (value === undefined || column < 0 || column >= shown.columns) return;
    const text = shown.kind === "looked" ? percent(value) : nats(value);
    page.caption.textContent = `Patch in row ${row + 1}, column ${column + 1}: ${text}`;
  });
  stack.addEventListener("pointerleave", () => {
    if (shown) page.caption.textContent = shown.caption;
  });
}
