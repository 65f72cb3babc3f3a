/** A link that restores what the explorer shows, in the URL's fragment: no server sees it. Pure. */
import type { SweepUnit } from "../../../../src/index.ts";

/** What a link restores. A checkpoint and an image can be in it if the page offers them. */
export interface LinkState {
  /** The checkpoint's name. */
  readonly checkpoint: string;
  /** How its weights were loaded; default: as stored. */
  readonly dtype?: string | undefined;
  /** An example image. */
  readonly image: string;
  readonly question: string;
  readonly token?: number | undefined;
  /** Of the maps; default: the mean of all. */
  readonly layer?: number | undefined;
  readonly head?: number | undefined;
  /** The query whose map is shown. */
  readonly query?: number | undefined;
  /** After which layer the queries' words are; default: the surest. */
  readonly words?: number | undefined;
  readonly map?: MapKind | undefined;
  /** Parts that are taken out. */
  readonly out: readonly LinkedParts[];
}

export const MAP_KINDS = ["looked", "rests", "image"] as const;
export type MapKind = (typeof MAP_KINDS)[number];

/** Parts of one row of a group, by their columns. */
export interface LinkedParts {
  readonly group: string;
  readonly row: string;
  readonly columns: readonly string[];
}

const TEXTS = ["checkpoint", "dtype", "image", "question", "map"] as const satisfies (keyof LinkState)[];
const NUMBERS = ["token", "layer", "head", "query", "words"] as const satisfies (keyof LinkState)[];

/** The fragment of a link, with its `#`. */
export function fragmentOf(state: LinkState): string {
  const fields = new URLSearchParams();
  for (const name of [...TEXTS, ...NUMBERS]) {
    if (state[name] !== undefined) fields.set(name, String(state[name]));
  }
  for (const { group, row, columns } of state.out) fields.append("out", [group, row, columns.join(".")].join("/"));
  return `#${fields}`;
}

/** What a link restores; undefined for a fragment that is none; a message for one that is broken. */
export function linkOf(fragment: string): LinkState | string | undefined {
  const fields = new URLSearchParams(fragment.replace(/^#/, ""));
  const [checkpoint, image, question] = ["checkpoint", "image", "question"].map((name) => fields.get(name));
  if (!checkpoint && !image && !question) return undefined;
  if (!checkpoint || !image || !question) return "This link is not whole: it names no model, image or question.";
  const known: readonly string[] = [...TEXTS, ...NUMBERS, "out"];
  const other = [...fields.keys()].find((name) => !known.includes(name));
  if (other !== undefined) return `This link has a part that is not known here: ${other.slice(0, 40)}.`;
  const numbers: Partial<Record<(typeof NUMBERS)[number], number>> = {};
  for (const name of NUMBERS) {
    const given = fields.get(name);
    if (given === null) continue;
    if (!/^\d{1,6}$/.test(given)) return `This link is broken: ${name} is not a number.`;
    numbers[name] = Number(given);
  }
  const map = fields.get("map");
  if (map !== null && !isMapKind(map)) return "This link is broken: it names no map that there is.";
  const out: LinkedParts[] = [];
  for (const given of fields.getAll("out")) {
    const [, group, row, columns] = /^([\w.]{1,80})\/([\w ]{1,40})\/(\w+(?:\.\w+)*)$/.exec(given) ?? [];
    if (columns === undefined) return "This link is broken: it does not say which parts are out.";
    out.push({ group: group!, row: row!, columns: columns.split(".") });
  }
  const dtype = fields.get("dtype") ?? undefined;
  return { checkpoint, dtype, image, question, ...numbers, map: map ?? undefined, out };
}

export function isMapKind(text: string): text is MapKind {
  return (MAP_KINDS as readonly string[]).includes(text);
}

/** Parts by group and row. @param numbers of parts */
export function linkedParts(parts: readonly SweepUnit[], numbers: ReadonlySet<number>): LinkedParts[] {
  const rows = new Map<string, { group: string; row: string; columns: string[] }>();
  for (const i of [...numbers].sort((a, b) => a - b)) {
    const { group, row, column } = parts[i]!;
    const one = rows.get(`${group} ${row}`) ?? { group, row, columns: [] };
    one.columns.push(column);
    rows.set(`${group} ${row}`, one);
  }
  return [...rows.values()];
}

/** The numbers of linked parts, and how many of them the model does not have. */
export function partsOfLink(
  parts: readonly SweepUnit[],
  linked: readonly LinkedParts[],
): { readonly numbers: ReadonlySet<number>; readonly missing: number } {
  const key = (group: string, row: string, column: string) => `${group}/${row}/${column}`;
  const known = new Map(parts.map(({ group, row, column }, i) => [key(group, row, column), i]));
  const found = linked.flatMap(({ group, row, columns }) =>
    columns.map((column) => known.get(key(group, row, column))),
  );
  const numbers = new Set(found.filter((number) => number !== undefined));
  return { numbers, missing: found.filter((number) => number === undefined).length };
}
