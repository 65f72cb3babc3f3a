/** The results of a sweep with the texts of its tokens: as JSON, as a table, and as grids for heat maps. Pure. */
import type { HeatGrid } from "./heat_map.ts";
import type { SweepKind, SweepUnit } from "./units.ts";

export interface ReportedToken {
  readonly id: number;
  readonly text: string;
  /** In the clean run, in nats. */
  readonly logprob: number;
}

/** What a sweep is about. */
export interface SweepSubject {
  readonly kind: SweepKind;
  readonly image: string;
  readonly prompt: string;
  /** Of ablate, if parts are replaced by means. */
  readonly mean_images?: readonly string[];
  /** Of patch. */
  readonly corrupted_image?: string;
  readonly corrupted_prompt?: string;
  readonly answer_tokens: readonly ReportedToken[];
  /** The sum of the answer's log-probabilities in the corrupted run, in nats. */
  readonly corrupted_logprob?: number;
  /** Texts of the columns of groups of tokens, by group. */
  readonly columns: Readonly<Record<string, readonly string[]>>;
}

/** A unit's result. */
export interface SweepRow {
  readonly index: number;
  readonly group: string;
  readonly row: string;
  readonly column: string;
  /** The sum of the answer's log-probabilities, in nats. */
  readonly logprob: number;
}

export interface ReportedUnit extends Omit<SweepRow, "index"> {
  /** Ablated: `logprob` less that of the clean run. Patched: 0 as in the corrupted run, 1 as in the clean one. */
  readonly effect: number;
  /** Text of a token's column. */
  readonly text?: string;
}

/** What `--json` writes. */
export interface SweepReport extends SweepSubject {
  /** Its tokens' texts, in a row. */
  readonly answer: string;
  readonly logprob: number;
  readonly units: readonly ReportedUnit[];
}

/**
 * Texts of the columns of groups of tokens.
 *
 * @param token_ids by group; image features that have no id are in front
 * @param image_token the placeholder's id
 */
export function columnTexts(
  units: readonly SweepUnit[],
  token_ids: Readonly<Record<string, readonly number[]>>,
  image_token: number | null,
  textOf: (id: number) => string,
): Record<string, string[]> {
  const texts: Record<string, string[]> = {};
  for (const [group, ids] of Object.entries(token_ids)) {
    const count = units.reduce(
      (most, unit) => (unit.group === group ? Math.max(most, Number(unit.column) + 1) : most),
      0,
    );
    if (count === 0) continue;
    const all = [...new Array<null>(count - ids.length).fill(null), ...ids];
    let images = 0;
    texts[group] = all.map((id) => (id === null || id === image_token ? `image ${images++}` : textOf(id)));
  }
  return texts;
}

export function sweepReport(subject: SweepSubject, rows: readonly SweepRow[]): SweepReport {
  const { answer_tokens, corrupted_logprob, columns } = subject;
  const clean = answer_tokens.reduce((total, { logprob }) => total + logprob, 0);
  const effectOf = (logprob: number) =>
    corrupted_logprob === undefined ? logprob - clean : (logprob - corrupted_logprob) / (clean - corrupted_logprob);
  const units = [...rows]
    .sort((a, b) => a.index - b.index)
    .map(({ index: _, ...row }): ReportedUnit => {
      const text = columns[row.group]?.[Number(row.column)];
      return { ...row, ...(text !== undefined && { text }), effect: effectOf(row.logprob) };
    });
  return { ...subject, answer: answer_tokens.map(({ text }) => text).join(""), logprob: clean, units };
}

/** The units with the largest effects. */
export function strongestUnits({ units }: SweepReport, count: number): readonly ReportedUnit[] {
  const sorted = [...units].sort((a, b) => Math.abs(b.effect) - Math.abs(a.effect));
  return count === 0 ? sorted : sorted.slice(0, count);
}

/** `+0.012`, `-3.4`, `0` */
export function signed(value: number): string {
  const text = Math.abs(value) < 0.0005 ? "0" : Math.abs(value) < 9.995 ? value.toFixed(3) : value.toFixed(1);
  return value > 0 && text !== "0" ? `+${text}` : text;
}

/** A log-probability: `-3.412`, `0.000` of nearly 1. */
export const nats = (logprob: number) => (logprob > -0.0005 ? "0.000" : logprob.toFixed(3));

/** The effect's name, and how it is printed. */
export const EFFECTS: Readonly<
  Record<SweepKind, { readonly head: string; readonly text: (effect: number) => string }>
> = {
  ablate: { head: "change", text: signed },
  patch: { head: "restored", text: (effect) => `${Math.round(100 * effect)} %` },
};

const columnText = ({ column, text }: ReportedUnit) =>
  text === undefined ? column : `${column} ${JSON.stringify(text)}`;

/** The table of the strongest units, with a head. */
export function sweepTable(report: SweepReport, count: number): string[][] {
  const { head, text } = EFFECTS[report.kind];
  const rows = strongestUnits(report, count).map((unit) => [
    unit.group,
    unit.row,
    columnText(unit),
    nats(unit.logprob),
    text(unit.effect),
  ]);
  return [["group", "row", "unit", "log p", head], ...rows];
}

/** Nats by which corruption should lower the answer's log-probability: shares of less are mostly of chance. */
const CORRUPTED = 0.1;

/** Sentences above the table. */
export function sweepLines(report: SweepReport): string[] {
  const { kind, answer, logprob, corrupted_logprob, mean_images, units } = report;
  const p = (value: number) => `log p ${nats(value)}`;
  if (kind === "ablate") {
    const how = mean_images ? `replaced by means over ${mean_images.length} images` : "taken out";
    return [`answer ${JSON.stringify(answer)}, ${p(logprob)}; ${units.length} parts ${how}`];
  }
  const both = `clean ${p(logprob)}, corrupted ${p(corrupted_logprob!)}`;
  const lines = [`answer ${JSON.stringify(answer)}, ${both}; ${units.length} parts restored`];
  if (logprob - corrupted_logprob! < CORRUPTED) {
    const how = corrupted_logprob! > logprob ? "more probable" : "hardly less probable";
    lines.push(`the corrupted run makes the answer ${how}: shares of that difference say little`);
  }
  return lines;
}

/** Images that a line names, at most. */
const NAMED = 4;

/** Lines below the title of a heat map: what was compared, and what a colour means. */
export function sweepCaption(report: SweepReport): string[] {
  const { kind, mean_images, corrupted_image, corrupted_prompt } = report;
  const lines = sweepLines(report);
  if (mean_images) {
    const more = mean_images.length > NAMED ? [`and ${mean_images.length - NAMED} more`] : [];
    lines.push(`images of the means: ${[...mean_images.slice(0, NAMED), ...more].join(", ")}`);
  }
  if (corrupted_image !== undefined) lines.push(`corrupted image: ${corrupted_image}`);
  if (corrupted_prompt !== undefined) lines.push(`corrupted instruction: ${JSON.stringify(corrupted_prompt)}`);
  return [
    ...lines,
    kind === "ablate"
      ? "colour: change of the answer's log-probability, in nats"
      : "colour: how much of the answer's log-probability is restored",
  ];
}

/** Effects below it, in nats, are faint even where a group has none above. */
const FAINT = 0.05;

/** A grid for each group, with its own scale if parts were ablated: heads matter less than layers. */
export function sweepGrids(report: SweepReport): HeatGrid[] {
  const { kind, units, logprob, columns: texts } = report;
  const { text } = EFFECTS[kind];
  const groups = [...new Set(units.map(({ group }) => group))];
  return groups.map((title): HeatGrid => {
    const own = units.filter(({ group }) => group === title);
    const rows = [...new Set(own.map(({ row }) => row))];
    const names = [...new Set(own.map(({ column }) => column))];
    const isNumber = names.every((name) => /^\d+$/.test(name));
    // A shard has some of the units.
    if (isNumber) names.sort((a, b) => Number(a) - Number(b));
    const cells = own.map((unit) => ({
      row: rows.indexOf(unit.row),
      column: names.indexOf(unit.column),
      value: unit.effect,
      text: `${unit.row}, ${columnText(unit)}: ${text(unit.effect)} (log p ${nats(logprob)} → ${nats(unit.logprob)})`,
    }));
    const largest = own.reduce((most, { effect }) => Math.max(most, Math.abs(effect)), FAINT);
    const columns = names.map((name) => texts[title]?.[Number(name)] ?? name);
    const scale = kind === "patch" ? 1 : largest;
    return { title, rows, columns, cells, scale, ends: [text(-scale), text(scale)] };
  });
}
