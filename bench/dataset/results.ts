/** The rows of `npm run bench:dataset`, and their table. Pure. */
import { byMachine, type Column, renderTable, replacePart } from "../report.ts";
import { type Machine, median } from "../rows.ts";

/** How a data set is answered. The first is what the others are compared with. */
export const SETTINGS = ["one by one", "batches", "batches, threads"] as const;
export type Setting = (typeof SETTINGS)[number];

/** One part of the questions by one setting, without the load of the model. */
export interface RunRow extends Machine {
  readonly kind: "run";
  readonly setting: Setting;
  readonly command: "evaluate" | "generate";
  readonly part: number;
  readonly questions: number;
  readonly workers: number;
  readonly per_second: number;
  /** The share of the time that the device had work, as `--stats` counts it. */
  readonly busy: number;
}

/** Decoding and resizing the images alone, without a device. */
export interface ImagesRow extends Machine {
  readonly kind: "images";
  readonly images: number;
  readonly bytes: number;
  readonly workers: number;
  /** Of the main thread for one image, in milliseconds: the event loop's active time. */
  readonly main_ms: number;
  /** Elapsed time for one image, in milliseconds. */
  readonly ms: number;
}

export type DataRow = RunRow | ImagesRow;

export function parseDataRows(text: string): DataRow[] {
  return text.split("\n").flatMap((line, i) => {
    if (!line.trim()) return [];
    try {
      const row = JSON.parse(line) as DataRow;
      const isRow = row.kind === "images" || (row.kind === "run" && SETTINGS.includes(row.setting));
      if (!isRow) throw new Error("not a row of bench:dataset");
      return [row];
    } catch (cause) {
      throw new Error(`line ${i + 1}: ${(cause as Error).message}`, { cause });
    }
  });
}

/** Machine and tables, for each machine. */
export function renderData(rows: readonly DataRow[], markdown = false): string {
  return byMachine(rows)
    .map((group) => renderMachine(group, markdown))
    .join("\n\n");
}

/** A setting: medians of its parts. */
export interface SettingLine {
  readonly setting: Setting;
  readonly workers: number;
  readonly per_second: number;
  /** Median over the parts of how many times as fast as the first setting it is; NaN without that. */
  readonly ratio: number;
  readonly busy: number;
}

export function settingName({ setting, workers }: Pick<SettingLine, "setting" | "workers">): string {
  return workers > 0 ? `${setting} (${workers})` : setting;
}

export const RUN_COLUMNS: readonly Column<SettingLine>[] = [
  {
    title: "setting",
    left: true,
    cell: settingName,
  },
  { title: "questions a second", cell: ({ per_second }) => per_second.toPrecision(3) },
  { title: "of the first", cell: ({ ratio }) => (Number.isNaN(ratio) ? "" : `${ratio.toFixed(2)}x`) },
  { title: "device busy", cell: ({ busy }) => `${(100 * busy).toFixed(1)} %` },
];

export const IMAGE_COLUMNS: readonly Column<ImagesRow>[] = [
  { title: "threads", left: true, cell: ({ workers }) => String(workers) },
  { title: "main thread, an image", cell: ({ main_ms }) => `${main_ms.toFixed(2)} ms` },
  { title: "elapsed, an image", cell: ({ ms }) => `${ms.toFixed(2)} ms` },
];

/** The rows of one machine: what was measured, in words, and the lines of the tables. */
export function summaryOf(rows: readonly DataRow[]): {
  readonly about: readonly string[];
  readonly settings: readonly SettingLine[];
  readonly images: readonly ImagesRow[];
} {
  const runs = rows.filter((row) => row.kind === "run");
  const images = rows.filter((row) => row.kind === "images");
  const lines = SETTINGS.map((setting) => runs.filter((row) => row.setting === setting)).filter(
    (own) => own.length > 0,
  );
  const firstOf = new Map(
    runs.filter(({ setting }) => setting === SETTINGS[0]).map((row) => [row.part, row.per_second]),
  );
  const questions = (lines[0] ?? []).reduce((sum, row) => sum + row.questions, 0);
  const about = [
    ...(runs[0] ? [`${questions} questions by ${runs[0].command}, medians of ${lines[0].length} parts`] : []),
    ...(images[0]
      ? [`${images[0].images} images, ${Math.round(images[0].bytes / images[0].images / 1000)} KB each`]
      : []),
  ];
  const settings = lines.map((own) => ({
    ...own[0],
    per_second: median(own.map(({ per_second }) => per_second)),
    ratio: median(own.map(({ part, per_second }) => per_second / firstOf.get(part)!)),
    busy: median(own.map(({ busy }) => busy)),
  }));
  return { about, settings, images };
}

function renderMachine(rows: readonly DataRow[], markdown: boolean): string {
  const [first] = rows;
  const { about, settings, images } = summaryOf(rows);
  return [
    `${first.adapter} · ${first.cpu}, ${first.cores} cores · ${first.os} · Node ${first.node} · webgpu ${first.webgpu} · commit ${first.commit} · ${first.date.slice(0, 10)}`,
    about.map((text) => (markdown ? `- ${text}` : text)).join("\n"),
    ...(settings.length > 0 ? [renderTable(settings, RUN_COLUMNS, markdown)] : []),
    ...(images.length > 0 ? ["Decoding and resizing alone:", renderTable(images, IMAGE_COLUMNS, markdown)] : []),
  ].join("\n\n");
}

/** `page` with the tables between its markers. @throws Error if the markers are missing */
export function replaceDataInDocs(page: string, rows: readonly DataRow[]): string {
  return replacePart(page, "dataset", renderData(rows, true));
}
