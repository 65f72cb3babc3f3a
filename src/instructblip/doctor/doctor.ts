/**
 * `doctor`: checks that an adapter computes correctly. All variants of every kernel against f64 references, then a model's
 * answers against PyTorch's. For the command line and web pages; data about the platform is passed in and only printed.
 */
import type { Device } from "../../tensor/device/device.ts";
import { formatBytes } from "../../tensor/device/memory.ts";
import { EngineError } from "../../tensor/errors.ts";
import { checkAnswers, type Exam } from "./answers.ts";
import { type Check, firstLine, suspects, type Watch } from "./check.ts";
import { checkKernels, groupsOfOps } from "./kernels.ts";

export type { Exam } from "./answers.ts";
export { type Check, formatCheck } from "./check.ts";

export interface DoctorOptions extends Watch {
  /** Small shapes and one image only. */
  readonly quick?: boolean | undefined;
  /** Called with each finished check. */
  readonly onCheck?: (check: Check) => void | Promise<void>;
  /** Versions of the package, Node and Dawn or the browser, by name. */
  readonly versions?: Readonly<Record<string, string>>;
}

/** The result of a run, and the machine. */
export interface Report {
  readonly ok: boolean;
  readonly quick: boolean;
  readonly date: string;
  readonly seconds: number;
  readonly versions: Readonly<Record<string, string>>;
  readonly adapter: {
    readonly vendor: string;
    readonly architecture: string;
    readonly device: string;
    readonly description: string;
    readonly software: boolean;
    readonly subgroups: readonly [number, number] | null;
  };
  readonly features: readonly string[];
  readonly limits: Readonly<Record<string, number>>;
  readonly checks: readonly Check[];
  /** Kernels that ran in wrong checks, the most likely first. */
  readonly suspects: readonly string[];
  /** Why the run ended early. */
  readonly ended: string | null;
  /** Whether everything that this adapter uses has been checked. It comes before the other variants. */
  readonly usedChecked: boolean;
}

/** Limits that determine memory layout and kernels. */
const LIMITS = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
  "maxComputeWorkgroupsPerDimension",
] as const;

/**
 * Runs all checks: of the kernels that this adapter uses, of answers, of other variants. On a new driver compiling these takes most
 * of the time. The signal, or a lost device, ends the run, and the report has the checks so far.
 */
export async function examine(device: Device, exam: Exam, options: DoctorOptions = {}): Promise<Report> {
  const { quick = false, onCheck, versions = {} } = options;
  const start = performance.now();
  const date = new Date().toISOString();
  const checks: Check[] = [];
  let ended: string | null = null;
  let usedChecked = false;
  const run = async (results: AsyncIterable<Check>) => {
    for await (const check of results) {
      checks.push(check);
      await onCheck?.(check);
    }
  };
  try {
    const ops = groupsOfOps(device, quick);
    await run(checkKernels(device, ops, true, options));
    await run(checkAnswers(device, exam, options));
    usedChecked = true;
    await run(checkKernels(device, ops, false, options));
  } catch (error) {
    if (options.signal?.aborted) ended = "interrupted";
    else if (error instanceof EngineError) ended = firstLine(error.message);
    else throw error;
  }
  const info = device.handle.adapterInfo;
  const { caps } = device;
  return {
    ok: ended === null && checks.every(({ wrong }) => wrong.length === 0),
    ...{ quick, date, versions },
    seconds: Math.round((performance.now() - start) / 100) / 10,
    adapter: {
      ...{ vendor: info.vendor, architecture: info.architecture, device: info.device, description: info.description },
      software: caps.isSoftware,
      subgroups: caps.subgroups ? [caps.subgroupMinSize, caps.subgroupMaxSize] : null,
    },
    features: [...device.handle.features].sort(),
    limits: Object.fromEntries(LIMITS.map((name) => [name, Number(device.handle.limits[name])])),
    checks,
    suspects: suspects(checks),
    ...{ ended, usedChecked },
  };
}

/** The end of the report, for an issue. */
export function formatSummary(report: Report): string {
  const { checks, adapter, versions, features, limits, ended } = report;
  const wrong = checks.filter((check) => check.wrong.length > 0);
  const results = checks.reduce((sum, { count }) => sum + count, 0);
  const skipped = checks.reduce((sum, check) => sum + check.skipped.length, 0);
  const bytes = (name: (typeof LIMITS)[number]) => formatBytes(limits[name]!);
  const rows: [string, string][] = [
    ["adapter", [adapter.device, adapter.description, adapter.vendor, adapter.architecture].filter(Boolean).join(", ")],
    ["kind", adapter.software ? "software: computes on the CPU" : "hardware"],
    ["subgroups", adapter.subgroups ? [...new Set(adapter.subgroups)].join(" to ") : "none"],
    ["features", features.join(", ")],
    ["buffers", `${bytes("maxBufferSize")}, bindings ${bytes("maxStorageBufferBindingSize")}`],
    [
      "workgroups",
      `${limits.maxComputeInvocationsPerWorkgroup} invocations, ${bytes("maxComputeWorkgroupStorageSize")} of memory`,
    ],
    [
      "versions",
      Object.entries(versions)
        .map((pair) => pair.join(" "))
        .join(", "),
    ],
    [
      "checks",
      `${checks.length}, of ${results} results${skipped ? `, ${skipped} skipped` : ""}, in ${report.seconds} s${report.quick ? " (quick)" : ""}`,
    ],
    ...wrong.map(({ name, wrong, count }): [string, string] => ["WRONG", `${name}: ${wrong.length} of ${count}`]),
    ...report.suspects.map((kernel): [string, string] => ["kernel", kernel]),
    ...(ended === null ? [] : [["ENDED", ended] satisfies [string, string]]),
    ["verdict", verdict(report, wrong.length)],
  ];
  return rows.map(([name, what]) => `${name.padEnd(10)}  ${what}\n`).join("");
}

function verdict({ ok, ended, usedChecked }: Report, wrong: number): string {
  if (ok) return "this adapter computes right";
  if (usedChecked && wrong === 0) return "the run did not end; all that this adapter uses computes right";
  const checks = wrong === 1 ? "1 check is wrong" : `${wrong || "no"} checks are wrong`;
  return ended === null ? checks : `the run did not end; so far ${checks}`;
}
