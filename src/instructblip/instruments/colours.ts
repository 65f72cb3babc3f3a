/** The colours of all pages, those of commands and the browser's: each in light and in dark. Pure. */

/**
 * One accent. `for` and `against`, orange and blue, are a pair that the colour-blind tell apart. Texts in `ink`, `soft`, `accent` and
 * `wrong` have a contrast of at least 4.5 on `page` and on `card`.
 */
export const COLOURS = {
  ink: ["#17212b", "#e6ecf2"],
  soft: ["#55636f", "#9aa9b8"],
  page: ["#f4f6f8", "#12181f"],
  card: ["#ffffff", "#1b232c"],
  line: ["#dce3ea", "#2d3843"],
  accent: ["#0f766e", "#2dd4bf"],
  "on-accent": ["#ffffff", "#06201d"],
  wrong: ["#b42318", "#ff8a7a"],
  for: ["#d95f02", "#f28e2b"],
  against: ["#2171b5", "#6baed6"],
} as const satisfies Readonly<Record<string, readonly [light: string, dark: string]>>;

/** CSS: each as a variable, `var(--ink)`. */
export const COLOUR_STYLES = `:root {
  color-scheme: light dark;
${Object.entries(COLOURS)
  .map(([name, [light, dark]]) => `  --${name}: light-dark(${light}, ${dark});`)
  .join("\n")}
}
`;

/** `#d95f02` as numbers, of 255. */
export function rgbOf(colour: string): readonly [red: number, green: number, blue: number] {
  const part = (at: number) => Number.parseInt(colour.slice(at, at + 2), 16);
  return [part(1), part(3), part(5)];
}
