/** Where the time of a load and an answer goes: by module, and by kernel under the adapter's limits. */
import { type Column, formatRate, formatTime } from "../../bench/report.ts";
import { groupedBy } from "../../bench/rows.ts";
import type { ProfileSums } from "../../src/instructblip/instruments/profile/report.ts";
import type { Limits } from "../../src/tensor/limits.ts";
import { drawBars } from "./bars.ts";
import { type Figure, tableOf } from "./figure.ts";
import type { ProfileResult } from "./inputs.ts";
import { heightOf, keyOf, limitWords } from "./roofline.ts";
import { drawRoofline } from "./roofline_chart.ts";

type Phase = ProfileResult["phases"][number];

/** Modules with a bar; the table has all. */
const MOST_BARS = 15;

/** Of each phase that launches something. */
export function profileFigures({ adapter, model, prompt, clock, limits, phases }: ProfileResult): Figure[] {
  const busy = phases.filter(({ kernels }) => kernels.length > 0);
  const of = `${model} on ${adapter}`;
  if (busy.length === 0) return [{ title: `Profile of ${of}`, summary: ["The file has no launches."], tables: [] }];
  const idle = phases.filter((phase) => !busy.includes(phase));
  const others = idle.map(({ name, total_ms }) => `${name} took ${formatTime(total_ms)}, without launches.`);
  const clockWords = clock === "sync" ? ["Each time has a sync in it, as there are no GPU timestamps."] : [];
  return busy.flatMap((phase) => [
    modulesFigure(phase, `${phase.name} by module: ${of}`, [`Asked: “${prompt}”.`, ...clockWords, ...others]),
    ...kernelsFigure(phase, limits, `${phase.name} by kernel: ${of}`),
  ]);
}

function modulesFigure(
  { name, total_ms, launches, ms, modules }: Phase,
  title: string,
  words: readonly string[],
): Figure {
  const rows = layersTogether(modules);
  const bars = rows
    .slice(0, MOST_BARS)
    .map(({ module, ms }, at) => ({ label: module, value: ms, text: formatTime(ms), at }));
  const rest = rows.length - bars.length;
  return {
    title,
    summary: [
      `GPU time of the modules' ${launches} launches, ${formatTime(ms)} in all; layers of a stack are one bar.`,
      `From beginning to end, ${name} took ${formatTime(total_ms)}.`,
      ...(rest > 0 ? [`${rest} more modules are in the table only.`] : []),
      ...words,
    ],
    draw: (width) => drawBars(bars, "milliseconds", width),
    tables: [tableOf("modules", rows, [{ title: "module", left: true, cell: ({ module }) => module }, ...COLUMNS])],
  };
}

/** Layers of one stack together, those outside of modules by name. */
function layersTogether(modules: Phase["modules"]): { module: string; ms: number; launches: number; share: number }[] {
  const groups = groupedBy(
    modules,
    ({ module }) => module.replace(/(?<=^|\.)\d+(?=\.|$)/g, "*") || "(outside of modules)",
  );
  return [...groups]
    .map(([module, group]) => {
      const sum = (of: "ms" | "launches" | "share") => group.reduce((total, each) => total + each[of], 0);
      return { module, ms: sum("ms"), launches: sum("launches"), share: sum("share") };
    })
    .sort((a, b) => b.ms - a.ms);
}

/** Those with arithmetic are drawn. */
function kernelsFigure({ kernels }: Phase, limits: Limits, title: string): Figure[] {
  const points = kernels.flatMap(({ kernel, flops, bytes, gflops }, at) =>
    gflops && bytes > 0 ? [{ row: { kernel, planned: true, check: null }, at, x: flops / bytes, y: gflops }] : [],
  );
  const most = kernels.reduce((a, b) => (b.ms > a.ms ? b : a));
  return [
    {
      title,
      summary: [
        `GFLOP/s over operations a byte of the sums of ${points.length} kernels with arithmetic; the table has all ${kernels.length}.`,
        ...limitWords(limits),
        `Most time: ${most.kernel}, ${percent(most.share)}.`,
      ],
      key: keyOf(points, limits),
      ...(points.length && { draw: (width: number) => drawRoofline(points, limits, width, heightOf(width)) }),
      tables: [
        tableOf("kernels", kernels, [
          { title: "kernel", left: true, cell: ({ kernel }) => kernel },
          ...COLUMNS,
          { title: "GFLOP/s", cell: ({ gflops }) => formatRate(gflops) },
          { title: "GB/s", cell: ({ gbs }) => formatRate(gbs) },
          { title: "of limit", cell: ({ of_limit }) => (of_limit === null ? "" : percent(of_limit)) },
          { title: "bound", left: true, cell: ({ bound }) => bound },
        ]),
      ],
    },
  ];
}

const percent = (share: number) => `${(100 * share).toFixed(1)} %`;

const COLUMNS: readonly Column<Pick<ProfileSums, "launches" | "ms" | "share">>[] = [
  { title: "launches", cell: ({ launches }) => String(launches) },
  { title: "time", cell: ({ ms }) => formatTime(ms) },
  { title: "share", cell: ({ share }) => percent(share) },
];
