/**
 * A profile as a file of Chrome's trace event format, which Perfetto (ui.perfetto.dev) and chrome://tracing open: a row of the
 * GPU and one of the host, spans nested by module path, and the memory in use.
 *
 * Source: Trace Event Format, https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU.
 */
import type { LaunchTime } from "../../../tensor/tensor.ts";
import type { ModelProfile } from "./profile.ts";

/** Times are in microseconds. */
export type TraceEvent =
  | { ph: "M"; name: "process_name" | "thread_name"; pid: number; tid?: number; args: { name: string } }
  | { ph: "M"; name: "thread_sort_index"; pid: number; tid: number; args: { sort_index: number } }
  | { ph: "X"; name: string; cat: string; pid: number; tid: number; ts: number; dur: number; args: TraceArgs }
  | { ph: "C"; name: string; pid: number; ts: number; args: { live: number; pooled: number } };
export type TraceArgs = Readonly<Record<string, string | number>>;

export interface ChromeTrace {
  readonly traceEvents: readonly TraceEvent[];
  readonly displayTimeUnit: "ms";
  readonly otherData: TraceArgs;
}

const PID = 1;
const GPU = 1;
const HOST = 2;

/** A span; `end` is in milliseconds as `start`. */
interface Span {
  readonly name: string;
  readonly cat: string;
  readonly start: number;
  readonly end: number;
  readonly args?: TraceArgs;
}

/** @param phases in the order of time @param about is kept in the file: adapter, clock, version */
export function chromeTrace(
  phases: readonly { readonly name: string; readonly profile: ModelProfile }[],
  about: TraceArgs,
): ChromeTrace {
  const origin = Math.min(...phases.flatMap(({ profile }) => [profile.start, ...profile.launches.map((l) => l.start)]));
  // Whole nanoseconds, so that spans that touch do so in the file, too.
  const nanoseconds = (ms: number) => Math.round((ms - origin) * 1e6);
  const row = (tid: number, spans: readonly Span[]): TraceEvent[] =>
    nested(spans.map((span) => ({ ...span, start: nanoseconds(span.start), end: nanoseconds(span.end) }))).map(
      ({ name, cat, start, end, args = {} }) => ({
        ...{ ph: "X", name, cat, pid: PID, tid },
        ...{ ts: start / 1000, dur: (end - start) / 1000, args },
      }),
    );
  const thread = (tid: number, name: string): TraceEvent[] => [
    { ph: "M", name: "thread_name", pid: PID, tid, args: { name } },
    { ph: "M", name: "thread_sort_index", pid: PID, tid, args: { sort_index: tid } },
  ];
  return {
    traceEvents: [
      { ph: "M", name: "process_name", pid: PID, args: { name: "instructblip" } },
      ...thread(GPU, "GPU"),
      ...thread(HOST, "host"),
      ...row(GPU, phases.flatMap(gpuSpans)),
      ...row(HOST, phases.flatMap(hostSpans)),
      ...phases.flatMap(({ profile }) =>
        profile.memory.map(
          ({ at, live, pooled }): TraceEvent => ({
            ...{ ph: "C", name: "GPU memory (bytes)", pid: PID, ts: Math.max(0, nanoseconds(at)) / 1000 },
            args: { live, pooled },
          }),
        ),
      ),
    ],
    displayTimeUnit: "ms",
    otherData: about,
  };
}

/** Launches, within spans of their modules: from the first to the last of those in sequence. */
function gpuSpans({ profile: { launches } }: { readonly profile: ModelProfile }): Span[] {
  const spans: Span[] = [];
  const open: { name: string; path: string; start: number }[] = [];
  let end = Number.NEGATIVE_INFINITY;
  const close = (depth: number) => {
    for (
      let one = open.length > depth ? open.pop() : undefined;
      one;
      one = open.length > depth ? open.pop() : undefined
    )
      spans.push({ name: one.name, cat: "module", start: one.start, end, args: { module: one.path } });
  };
  for (const launch of launches) {
    const parts = partsOf(launch.site);
    const start = Math.max(launch.start, end); // a pass may start before the one before it has quite ended
    let common = 0;
    while (common < open.length && open[common]!.name === parts[common]) common++;
    close(common);
    for (let depth = common; depth < parts.length; depth++) {
      open.push({ name: parts[depth]!, path: parts.slice(0, depth + 1).join("."), start });
    }
    end = start + launch.ms;
    spans.push({ name: launch.kernel, cat: "kernel", start, end, args: argsOf(launch) });
  }
  close(0);
  return spans;
}

/** `encoder.layers.3.mlp` -> encoder, layers.3, mlp */
function partsOf(path: string): string[] {
  return path === "" ? [] : path.split(/\.(?!\d+(?:\.|$))/);
}

function argsOf({ site, ms, flops, bytes }: LaunchTime): TraceArgs {
  return {
    ...{ module: site, flops, bytes },
    ...(ms > 0 && { "GFLOP/s": flops / ms / 1e6, "GB/s": bytes / ms / 1e6 }),
  };
}

function hostSpans({ name, profile }: { readonly name: string; readonly profile: ModelProfile }): Span[] {
  const { start, ms, calls, uploads } = profile;
  // Where two have the same ends, the later is taken for the outer one.
  return [
    ...uploads.map((one) => ({
      ...{ name: "upload", cat: "upload", start: one.start, end: one.start + one.ms },
      args: { module: one.site, bytes: one.bytes },
    })),
    ...calls.map((call) => {
      const parts = partsOf(call.path);
      const args = { module: call.path };
      return { name: parts.at(-1) ?? "model", cat: "module", start: call.start, end: call.start + call.ms, args };
    }),
    { name, cat: "phase", start, end: start + ms },
  ];
}

/** In the order of time, a span before those within it; one that sticks out of the span around it is cut. */
function nested<S extends { readonly start: number; readonly end: number }>(spans: readonly S[]): S[] {
  const ends: number[] = [];
  return [...spans]
    .map((span, i) => ({ span, i }))
    .sort((a, b) => a.span.start - b.span.start || b.span.end - a.span.end || b.i - a.i)
    .map(({ span }) => {
      while (ends.length > 0 && ends.at(-1)! <= span.start) ends.pop();
      const end = Math.max(span.start, Math.min(span.end, ends.at(-1) ?? Number.POSITIVE_INFINITY));
      ends.push(end);
      return { ...span, end };
    });
}
