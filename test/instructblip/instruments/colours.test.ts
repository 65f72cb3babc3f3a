/** The colours of pages: texts are readable on every ground, in light and in dark. */
import { expect, test } from "vitest";
import { COLOUR_STYLES, COLOURS, rgbOf } from "../../../src/instructblip/instruments/colours.ts";

/** Relative luminance. Source: WCAG 2.2. */
function luminance(colour: string): number {
  const [r, g, b] = rgbOf(colour).map((part) => {
    const share = part / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function contrast(a: string, b: string): number {
  const [dark, light] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (light + 0.05) / (dark + 0.05);
}

test("colours as numbers, and as variables", () => {
  expect(rgbOf("#d95f02")).toEqual([217, 95, 2]);
  expect(contrast("#000000", "#ffffff")).toBeCloseTo(21);
  expect(COLOUR_STYLES).toContain("--on-accent: light-dark(#ffffff, #06201d);");
});

test.each(["ink", "soft", "accent", "wrong"] as const)("%s can be read on pages and cards", (name) => {
  for (const scheme of [0, 1] as const) {
    for (const ground of ["page", "card"] as const) {
      expect(contrast(COLOURS[name][scheme], COLOURS[ground][scheme])).toBeGreaterThanOrEqual(4.5);
    }
    expect(contrast(COLOURS["on-accent"][scheme], COLOURS.accent[scheme])).toBeGreaterThanOrEqual(4.5);
  }
});
