/** Switches for every attention head, a grid for each part of the model: by click, by dragging over them, and by arrow keys. */
import { element, make, makeButton } from "../elements.ts";
import type { HeadGrid } from "./exploration.ts";
import { arrowKeys } from "./keys.ts";
import { makeSwitch, showEffect } from "./switches.ts";

const page = { heads: element("div", "#heads") };

const NAMES: Readonly<Record<string, string>> = {
  "vision_model.heads": "Image encoder",
  "qformer.heads": "Q-Former",
  "language_model.heads": "Language model",
  "language_model.encoder.heads": "Language model’s encoder",
  "language_model.decoder.heads": "Language model’s decoder",
};

export interface HeadActions {
  /** Parts are taken out, or put back. */
  set(parts: readonly number[], out: boolean): void;
  isOut(part: number): boolean;
}

const switches = new Map<number, HTMLButtonElement>();

export function makeHeads(grids: readonly HeadGrid[], actions: HeadActions): void {
  switches.clear();
  page.heads.replaceChildren(...grids.map((grid) => gridOf(grid, actions)));
  dragOver(actions);
}

function gridOf({ group, rows }: HeadGrid, actions: HeadActions): HTMLElement {
  const name = NAMES[group] ?? group;
  const section = make("section", "grid");
  const title = make("h3", "", name);
  const cells = make("div", "cells");
  cells.role = "group";
  cells.ariaLabel = `Heads of ${name}`;
  const lines = rows.map(({ label, parts }) => {
    const layer = makeButton("layer", label, () => {
      actions.set(parts, !parts.every((part) => actions.isOut(part)));
    });
    layer.ariaLabel = `${name}, layer ${label}, all heads`;
    layer.title = "all heads of this layer";
    const heads = parts.map((part, head) => {
      const button = makeSwitch(`${name}, layer ${label}, head ${head}`, () => {}, "head");
      button.dataset.part = String(part);
      switches.set(part, button);
      return button;
    });
    return [layer, ...heads];
  });
  for (const line of lines) {
    const row = make("div", "line");
    row.append(...line);
    cells.append(row);
  }
  arrowKeys(cells, lines);
  section.append(title, cells);
  return section;
}

/** The first head that is pressed decides; heads that the pointer then passes follow it. A finger scrolls instead. */
function dragOver({ set, isOut }: HeadActions): void {
  const partAt = (target: EventTarget | null) => {
    const part = (target as Element | null)?.closest<HTMLElement>(".head")?.dataset.part;
    return part === undefined ? undefined : Number(part);
  };
  let takesOut: boolean | undefined;
  page.heads.onpointerdown = ({ target, button, pointerType }) => {
    const part = partAt(target);
    if (part === undefined || button !== 0 || pointerType === "touch") return;
    takesOut = !isOut(part);
    set([part], takesOut);
  };
  page.heads.onpointerover = ({ target, buttons }) => {
    const part = partAt(target);
    if (takesOut === undefined || buttons === 0 || part === undefined || isOut(part) === takesOut) return;
    set([part], takesOut);
  };
  page.heads.onclick = ({ target, detail, pointerType }: PointerEvent) => {
    const part = partAt(target);
    // Of the mouse's button the press has been heard; keys and fingers click alone.
    if (part !== undefined && (detail === 0 || pointerType === "touch")) set([part], !isOut(part));
  };
  const end = () => {
    takesOut = undefined;
  };
  addEventListener("pointerup", end);
  addEventListener("pointercancel", end);
}

export function markHeads(out: ReadonlySet<number>, effects: ReadonlyMap<number, number>): void {
  const most = Math.max(...[...effects.values()].map(Math.abs), Number.MIN_VALUE);
  for (const [part, button] of switches) {
    button.ariaChecked = String(!out.has(part));
    showEffect(button, effects.get(part), most);
  }
}
