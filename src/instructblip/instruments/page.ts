/**
 * Self-contained HTML pages: one file with its styles, script and data, which loads nothing. Light and dark, for screens from
 * 390 pixels and for paper. Pure.
 */

import { COLOUR_STYLES } from "./colours.ts";

/** Text as HTML: in an element, or in an attribute's quotes. Control characters become U+FFFD. */
export function escapeHtml(text: string): string {
  const ENTITIES: Readonly<Record<string, string>> = {
    "&": "&amp;",
    "<": "&lt;",
    ">": "&gt;",
    '"': "&quot;",
    "'": "&#39;",
  };
  return (
    text
      // biome-ignore lint/suspicious/noControlCharactersInRegex: HTML forbids them
      .replace(/[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]/g, "\ufffd")
      .replace(/[&<>"']/g, (character) => ENTITIES[character]!)
  );
}

/** A value for the page's script: `JSON.parse(document.getElementById(id).textContent)`. Not for NaN and infinities. */
export function jsonElement(id: string, value: unknown): string {
  const text = JSON.stringify(value).replaceAll("<", "\\u003c").replaceAll("\u2028", "\\u2028");
  return `<script type="application/json" id="${escapeHtml(id)}">${text.replaceAll("\u2029", "\\u2029")}</script>`;
}

export interface PageParts {
  readonly title: string;
  /** A sentence under the title. */
  readonly lead?: string;
  /** HTML. */
  readonly body: string;
  /** CSS, after the common one. */
  readonly styles?: string;
  /** JavaScript of a module. */
  readonly script?: string;
}

/**
 * Colours (colours.ts) and forms that pages have in common. `.heat` with `style="--heat: 0.4"` is a cell of a heat map, from 0 to 1; the
 * text on it keeps its contrast. `.scroll` is for what may be wider than a screen, such as tables.
 */
const STYLES = `
${COLOUR_STYLES}* { box-sizing: border-box; }
body {
  margin: 0 auto;
  max-width: 76rem;
  padding: 1.75rem clamp(0.75rem, 3vw, 1.5rem);
  background: var(--page);
  color: var(--ink);
  font: 1rem / 1.5 system-ui, sans-serif;
}
h1 { margin: 0; font-size: 1.5rem; line-height: 1.25; overflow-wrap: anywhere; }
h2 { margin: 0 0 0.35rem; font-size: 1.1rem; }
p { margin: 0.25rem 0 0.75rem; }
header p, .soft { color: var(--soft); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 0.7rem; padding: 1rem; margin: 1rem 0; }
.scroll { overflow-x: auto; }
table { border-collapse: separate; border-spacing: 0; font-size: 0.875rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.5rem; text-align: left; border-bottom: 1px solid var(--line); }
th { font-weight: 600; color: var(--soft); }
.number { text-align: right; }
.heat { background: color-mix(in oklab, var(--accent) calc(var(--heat) * 55%), var(--card)); }
button, select, input { font: inherit; color: inherit; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
@media print {
  :root { color-scheme: light; }
  body { max-width: none; padding: 0; background: none; }
  .card { break-inside: avoid; }
  .heat { print-color-adjust: exact; }
}
`;

/** The page's own styles and scripts only, and images as `data:` URLs. */
const POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:";

export function htmlPage({ title, lead, body, styles = "", script }: PageParts): string {
  const under = lead === undefined ? "" : `\n<p>${escapeHtml(lead)}</p>`;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="${POLICY}">
<title>${escapeHtml(title)}</title>
<style>${STYLES}${styles}</style>
</head>
<body>
<header>
<h1>${escapeHtml(title)}</h1>${under}
</header>
${body}
${script === undefined ? "" : `<script type="module">\n${script.replaceAll("</script", "<\\/script")}</script>\n`}</body>
</html>
`;
}
