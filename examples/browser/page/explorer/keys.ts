/** Arrow keys in a grid of buttons, of which Tab reaches one. */

/**
 * @param rows buttons; rows may be of different lengths
 * @param first the one that Tab reaches at first
 */
export function arrowKeys(
  container: HTMLElement,
  rows: readonly (readonly HTMLElement[])[],
  first?: HTMLElement,
): void {
  const places = new Map<HTMLElement, readonly [number, number]>();
  for (const [r, row] of rows.entries()) {
    for (const [c, one] of row.entries()) {
      one.tabIndex = -1;
      places.set(one, [r, c]);
    }
  }
  const start = first ?? rows[0]?.[0];
  if (start) start.tabIndex = 0;
  container.onkeydown = (event) => {
    const at = [...places].find(([one]) => one === document.activeElement);
    if (!at) return;
    const [one, [r, c]] = at;
    const next = {
      ArrowLeft: rows[r]![c - 1],
      ArrowRight: rows[r]![c + 1],
      ArrowUp: rows[r - 1]?.[Math.min(c, rows[r - 1]!.length - 1)],
      ArrowDown: rows[r + 1]?.[Math.min(c, rows[r + 1]!.length - 1)],
      Home: rows[r]![0],
      End: rows[r]!.at(-1),
    }[event.key];
    if (!next || next === one) return;
    event.preventDefault();
    one.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  };
}
