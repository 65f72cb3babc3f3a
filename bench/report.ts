/** Formats rows: a table for the terminal, one in Markdown, and the generated part of docs/benchmarks.md. Pure. */
import { basisSamples, groupedBy, isWrong, type Row, spreadOf } from "./rows.ts";

/** A column of a table of any rows. */
export interface Column<R> {
  readonly title: string;
  readonly left?: boolean;
  readonly cell: (row: R) => string;
}

export const KERNEL_COLUMNS: readonly Column<Row>[] = [
  { title: "kernel", left: true, cell: (row) => row.kernel },
  {
    title: "variant",
    left: true,
    cell: (row) => row.variant + (row.planned && row.variant !== "-" && row.kernel !== "limit" ? "*" : ""),
  },
  { title: "shape", left: true, cell: (row) => row.shape },
  { title: "check", cell: check },
  { title: "first", cell: (row) => formatTime(row.first_ms) },
  { title: "median", cell: (row) => formatTime(row.ms) },
  { title: "min", cell: (row) => formatTime(row.ms_min) },
  { title: "cpu", cell: (row) => formatTime(row.cpu_ms) },
  { title: "spread", cell: spread },
  { title: "caches", left: true, cell: (row) => row.caches ?? "" },
  // On a software adapter timestamps equal wall time; they are in the rows.
  { title: "gpu", cell: (row) => (row.basis === "cpu" ? "" : formatTime(row.gpu_ms)) },
  { title: "GFLOP/s", cell: (row) => formatRate(row.gflops) },
  { title: "GB/s", cell: (row) => formatRate(row.gbs) },
  { title: "of limit", left: true, cell: limit },
];

export const MODEL_COLUMNS: readonly Column<Row>[] = [
  { title: "model", left: true, cell: (row) => row.shape },
  { title: "step", left: true, cell: (row) => row.variant },
  { title: "check", cell: check },
  { title: "first", cell: (row) => formatTime(row.first_ms) },
  { title: "median", cell: (row) => formatTime(row.ms) },
  { title: "min", cell: (row) => formatTime(row.ms_min) },
  { title: "cpu", cell: (row) => formatTime(row.cpu_ms) },
  { title: "spread", cell: spread },
  { title: "caches", left: true, cell: (row) => row.caches ?? "" },
  { title: "tokens/s", cell: (row) => formatRate(row.tokens_per_second ?? null) },
  { title: "GFLOP/s", cell: (row) => formatRate(row.gflops) },
  { title: "GB/s", cell: (row) => formatRate(row.gbs) },
  { title: "of limit", left: true, cell: limit },
  { title: "launches", cell: (row) => perToken(row, "launches") },
  { title: "submits", cell: (row) => perToken(row, "submits") },
  { title: "bind groups", cell: (row) => perToken(row, "bind_groups") },
  { title: "buffers", cell: (row) => perToken(row, "buffers") },
];

/** The legend of the columns, in lines. */
function kernelLegend(rows: readonly Row[]): string[] {
  const basis = {
    cpu: "CPU time, because on a software adapter wall time depends on other processes",
    gpu: "GPU time",
    wall: "wall time, because this adapter has no timestamps",
  }[rows[0].basis];
  return [
    "variant: * marks the one that plan() chooses here. check: error against f64 loops, as a share of the tolerance (of large results a sample of rows).",
    "first: a cold start, one run with compilation, of which the other times have none. median, min: wall time of one run. cpu: of all threads. gpu: by timestamps.",
    `GFLOP/s, GB/s: by the median ${basis}.`,
    ...(rows.some(({ samples }) => samples)
      ? [
          "spread: standard deviation of the rounds, over their mean, by the same clock. caches: hot if successive runs find their data in caches, cold if they touch more memory than caches hold.",
        ]
      : []),
    "of limit: the shortest time that the machine's limits (the first rows) allow, divided by the measured time; and the limit that applies.",
  ];
}

const MODEL_LEGEND = [
  "check: tokens generated with the cache, compared with one pass without it. first: on a new device, with compilation.",
  "prefill: the language model only. first token: image encoder, Q-Former and prefill. tokens/s: by wall time.",
  "first answer: from the start of the process, with compilation (caches: start). encode: JavaScript time for each launch of a recorded token.",
  "reading: the checkpoint's files only. loading: from_pretrained(), as stored, int8, int4. GB/s of the files, by wall time.",
  "GFLOP/s, GB/s: of matrices and attention, of weights and cache, by the time that the kernels' table uses. of limit: as above.",
  "launches, submits, bind groups made, buffers created: for one decoded token.",
];

/** Machine, tables and legends. */
export function renderReport(rows: readonly Row[], markdown = false): string {
  const blocks: string[] = [];
  const lines = (texts: readonly string[]) => texts.map((text) => (markdown ? `- ${text}` : text)).join("\n");
  for (const group of byMachine(rows)) {
    const [first] = group;
    const kernels = group.filter((row) => row.kernel !== "model");
    const models = group.filter((row) => row.kernel === "model");
    const header = `${first.adapter} · ${first.cpu}, ${first.cores} cores · ${first.os} · Node ${first.node} · webgpu ${first.webgpu}`;
    const commits = [...new Set(group.map((row) => row.commit))].join(", ");
    const dates = group.map((row) => row.date.slice(0, 10)).sort();
    const when = dates[0] === dates.at(-1) ? dates[0] : `${dates[0]} to ${dates.at(-1)}`;
    blocks.push(`${header} · commit ${commits} · ${when}`);
    if (kernels.length) blocks.push(renderTable(kernels, KERNEL_COLUMNS, markdown), lines(kernelLegend(kernels)));
    if (models.length) blocks.push(renderTable(models, MODEL_COLUMNS, markdown), lines(MODEL_LEGEND));
    const wrong = group.filter(isWrong);
    if (wrong.length) blocks.push(lines(wrong.map(complaint)));
  }
  return blocks.join("\n\n");
}

/**
 * `page` with the report on the planned variants between its markers.
 *
 * @throws Error as {@link replacePart}
 */
export function replaceInDocs(page: string, rows: readonly Row[]): string {
  const planned = rows.filter(({ planned }) => planned);
  return replacePart(page, "bench", renderReport(planned, true));
}

/**
 * `page` with `text` between the markers of a part, `<!-- NAME:begin -->` and `<!-- NAME:end -->`.
 *
 * @throws Error if the markers are missing
 */
export function replacePart(page: string, name: string, text: string): string {
  const [first, last] = [`<!-- ${name}:begin -->`, `<!-- ${name}:end -->`];
  const [begin, end] = [page.indexOf(first), page.indexOf(last)];
  if (begin < 0 || end < begin || page.indexOf(first, begin + 1) >= 0 || page.indexOf(last, end + 1) >= 0) {
    throw new Error(`the file must have one line ${first} and, behind it, one line ${last}`);
  }
  return `${page.slice(0, begin + first.length)}\n\n${text}\n\n${page.slice(end)}`;
}

/** `870 ns`, `34.5 µs`, `1.25 ms`, `2.34 s`: three digits. */
export function formatTime(ms: number | null): string {
  if (ms === null) return "";
  for (const [unit, size] of [
    ["s", 1000],
    ["ms", 1],
    ["µs", 1e-3],
  ] as const) {
    if (ms >= size * 0.9995) return `${threeDigits(ms / size)} ${unit}`;
  }
  return `${threeDigits(ms * 1e6)} ns`;
}

/** Three digits. */
export function formatRate(rate: number | null): string {
  return rate === null ? "" : threeDigits(rate);
}

function threeDigits(value: number): string {
  if (value >= 99.95) return value.toFixed(0);
  return value.toFixed(value >= 9.995 ? 1 : 2);
}

function check(row: Row): string {
  if (isWrong(row)) return "WRONG";
  if (row.check === null) return "";
  return row.check.share === 0 ? "exact" : percent(row.check.share!);
}

/** The fraction of the limit, and which limit; or why there are no times. */
function limit(row: Row): string {
  return row.share === null ? (row.note ?? "") : `${percent(row.share).padStart(5)} ${row.bound}`;
}

function spread(row: Row): string {
  const share = spreadOf(basisSamples(row) ?? []);
  return share === null ? "" : `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;
}

function percent(share: number): string {
  return share < 0.01 ? "<1 %" : `${Math.round(100 * share)} %`;
}

function perToken(row: Row, what: "launches" | "submits" | "bind_groups" | "buffers"): string {
  const count = row.per_token?.[what];
  return count === undefined ? "" : Number.isInteger(count) ? String(count) : count.toFixed(1);
}

function complaint({ kernel, variant, shape, check }: Row): string {
  return `WRONG: ${kernel} ${variant} ${shape}: ${check?.note ?? `${percent(check!.share!)} of the tolerance`}`;
}

/** Groups rows by adapter and processor, in order. */
export function byMachine<R extends Pick<Row, "adapter" | "cpu">>(rows: readonly R[]): R[][] {
  return [...groupedBy(rows, ({ adapter, cpu }) => `${adapter}|${cpu}`).values()];
}

/** The columns that some row fills. */
export function filledColumns<R>(rows: readonly R[], columns: readonly Column<R>[]): readonly Column<R>[] {
  return columns.filter(({ cell }) => rows.some((row) => cell(row) !== ""));
}

/** A table for the terminal, or in Markdown; columns that nobody fills are left out. */
export function renderTable<R>(rows: readonly R[], columns: readonly Column<R>[], markdown: boolean): string {
  const shown = filledColumns(rows, columns);
  const cells = [shown.map(({ title }) => title), ...rows.map((row) => shown.map(({ cell }) => cell(row)))];
  const widths = shown.map((_, i) => Math.max(...cells.map((line) => line[i].length)));
  const pad = (line: readonly string[]) =>
    line.map((text, i) => (shown[i].left ? text.padEnd(widths[i]) : text.padStart(widths[i])));
  if (!markdown) return cells.map((line) => pad(line).join("  ").trimEnd()).join("\n");
  const rule = shown.map(({ left }, i) => (left ? "-".repeat(widths[i]) : `${"-".repeat(widths[i] - 1)}:`));
  const [head, ...body] = cells.map((line) => pad(line.map((text) => text.replaceAll("|", "\\|"))));
  return [head, rule, ...body].map((line) => `| ${line.join(" | ")} |`).join("\n");
}
