/**
 * Runs cases of a target in sequence, in a separate process, so that one that hangs or crashes is identified: its number is
 * written to a file before it runs. Reports results and progress to its parent.
 */
import { openSync, readFileSync, writeSync } from "node:fs";
import { caseOf, type Finding, judge, readCase, signatureOf } from "./harness.ts";
import { targetOf } from "./target.ts";

export interface Work {
  readonly target: string;
  readonly seed: number;
  readonly first: number;
  /** Milliseconds to go on for. */
  readonly time: number;
  readonly count: number;
  /** Where the number of the case at hand is written. */
  readonly state: string;
  /** One case from a file instead. */
  readonly replay?: string;
}

export type Report =
  | { readonly done: number; readonly seconds: number; readonly last?: boolean }
  | { readonly index: number; readonly finding: Finding; readonly signature: string };

/** What a process may have grown by between its first thousand cases and its last, collected, in bytes. */
const MOST_GROWTH = 64 * 2 ** 20;
const WARM = 1000;

const work = JSON.parse(process.argv[2]) as Work;
const tell = (report: Report) => new Promise<void>((resolve) => process.send!(report, () => resolve()));

const prepared = await (await targetOf(work.target)).prepare();
if (work.replay !== undefined) {
  const finding = await judge(prepared, readCase(readFileSync(work.replay, "utf8")).given);
  if (finding) await tell({ index: 0, finding, signature: signatureOf(finding) });
  await tell({ done: 1, seconds: 0, last: true });
} else await go();
process.disconnect();

async function go(): Promise<void> {
  const state = openSync(work.state, "w");
  const number = Buffer.alloc(8);
  const start = performance.now();
  const told = new Map<string, number>();
  let baseline = 0;
  let at = start;
  let index = work.first;
  for (; index < work.first + work.count && performance.now() - start < work.time; index++) {
    number.writeDoubleLE(index);
    writeSync(state, number, 0, 8, 0);
    const finding = await judge(prepared, caseOf(prepared, work.seed, index));
    if (finding) {
      const signature = signatureOf(finding);
      const times = (told.get(signature) ?? 0) + 1;
      told.set(signature, times);
      if (times <= 3) await tell({ index, finding, signature });
    }
    if (index - work.first === WARM) baseline = await held();
    if (performance.now() - at > 1000) {
      at = performance.now();
      await tell({ done: index + 1 - work.first, seconds: (at - start) / 1000 });
    }
  }
  const growth = baseline && (await held()) - baseline;
  if (growth > MOST_GROWTH) {
    const what = `${Math.round(growth / 2 ** 20)} MiB more are held after ${index - work.first} cases than after ${WARM}`;
    await tell({ index, finding: { kind: "memory", what }, signature: "growth" });
  }
  await tell({ done: index - work.first, seconds: (performance.now() - start) / 1000, last: true });
}

/** Bytes that are held, garbage collected. */
async function held(): Promise<number> {
  for (let i = 0; i < 3; i++) {
    globalThis.gc?.();
    await new Promise((resolve) => setTimeout(resolve, 10)); // native memory is given back in a later turn
  }
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}
