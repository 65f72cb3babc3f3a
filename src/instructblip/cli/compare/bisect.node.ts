/** `compare --bisect`: every module given the reference's inputs; and which of them need more bits to meet a gate. */
import { outputObserver } from "../../../modules/observer.ts";
import { formatStorage, type StorageDType } from "../../../modules/storage_dtype.ts";
import type { FloatDType } from "../../../tensor/dtype.ts";
import { type Shape, sizeOf } from "../../../tensor/shape.ts";
import type { Comparison } from "../../compare/comparison.ts";
import { findPrecision, type MatrixModule, type Precision } from "../../compare/precision.ts";
import type { Setting } from "../../compare/setting.ts";
import { differenceOf, type Numbers } from "../../compare/statistics.ts";
import { formatError, modulesText } from "../../compare/summary.ts";
import { weightsOf } from "../../pretrained/checkpoint/open_weights.ts";
import { openModelFolder } from "../folder.node.ts";
import { formatTable } from "../format.ts";
import type { Run } from "../session.node.ts";
import { Progress } from "../terminal.node.ts";
import { openLiveTrace, type Question } from "./live.node.ts";
import type { FileTrace } from "./trace_file.node.ts";

/** What a pass goes on with, so that every module is given the reference's inputs: the reference's outputs. */
export function replacementsOf(reference: FileTrace): (name: string, shape: Shape) => Float32Array | undefined {
  return (name, shape) => {
    const known = reference.shape(name);
    if (!known || sizeOf(known) !== sizeOf(shape)) return undefined;
    const numbers = reference.readNow(name);
    return numbers instanceof Float32Array ? numbers : Float32Array.from(numbers);
  };
}

/** Modules of the checkpoint with a matrix, and its dtype in the file. */
export type Matrices = ReadonlyMap<string, FloatDType>;

export async function matricesOf(setting: Setting, question: Question, run: Run): Promise<Matrices> {
  const folder = await openModelFolder(setting.model ?? question.model, run);
  const checkpoint = await weightsOf(folder.preview() ?? folder); // only headers are read
  await checkpoint.close();
  const matrices = [...checkpoint.tensors.values()].filter(
    ({ name, shape }) => name.endsWith(".weight") && shape.length > 1,
  );
  return new Map(matrices.map(({ name, dtype }) => [name.replace(/\.weight$/, ""), dtype as FloatDType]));
}

/** What a gate is checked with. */
export interface Gate {
  /** Largest NMSE of the logits. */
  readonly nmse: number;
  readonly matrices: Matrices;
  /** Every module given the reference's inputs: the comparison, and its outputs. */
  readonly comparison: Comparison;
  readonly outputs: FileTrace;
}

/** Finds the modules that need more bits. */
export async function bisectPrecision(
  setting: Setting,
  { nmse: gate, matrices, comparison, outputs }: Gate,
  reference: FileTrace,
  question: Question,
  run: Run,
): Promise<Precision> {
  const progress = new Progress(run.terminal);
  const modules = () => effectsOf(setting, { matrices, comparison, outputs }, question, run, progress);
  const logits = await reference.read("logits");
  const errorOf = async (dtype: StorageDType) => {
    const { trace, close } = await openLiveTrace({ ...setting, dtype }, question, run, { only: "results" });
    try {
      return logitsError(logits, await trace.read("logits"));
    } finally {
      close();
    }
  };
  const parts = [...new Set([...matrices.keys()].map((path) => path.split(".")[0]!))];
  const dtype = setting.dtype ?? "auto";
  return findPrecision({ dtype, parts, modules, loaded: (path) => matrices.get(path)!, gate, errorOf });
}

/** The effect of each module's own error on the logits of the model as it is in the checkpoint. */
async function effectsOf(
  setting: Setting,
  { matrices, comparison, outputs }: Omit<Gate, "nmse">,
  question: Question,
  run: Run,
  progress: Progress,
): Promise<MatrixModule[]> {
  const { trace, close } = await openLiveTrace({ ...setting, dtype: "auto" }, question, run, { only: "results" });
  try {
    const right = await trace.read("logits");
    const wrong = comparison.rows.filter(
      ({ name, difference }) => matrices.has(name) && difference && difference.nmse > 0,
    );
    const modules: MatrixModule[] = [];
    for (const [i, { name, difference }] of wrong.entries()) {
      run.signal.throwIfAborted();
      progress.show(`effects on the logits … ${i} of ${wrong.length} modules`);
      const numbers = Float32Array.from(outputs.readNow(name));
      const replace = outputObserver((_, output) => output.device.tensor(numbers, output.shape), name);
      const effect = logitsError(right, await trace.resultUnder(replace, "logits"));
      modules.push({ path: name, error: difference!.nmse, effect });
    }
    return modules;
  } finally {
    progress.clear();
    close();
  }
}

/** NaN if one of them has a NaN, or an infinity that the other has not. */
function logitsError(right: Numbers, logits: Numbers): number {
  const { nmse, broken } = differenceOf(right, logits);
  return broken > 0 ? Number.NaN : nmse;
}

/** As text: what was found, and the option that meets the gate. */
export function precisionText({ gate, before, found, tries }: Precision, { text }: Setting): string {
  const first = `gate: an NMSE of the logits of at most ${formatError(gate)}; ${text} gives ${formatError(before)}\n`;
  if (before <= gate) return first;
  if (!found) return `${first}no dtype of weights meets it, f32 included: the error is not theirs\n`;
  const rows = found.modules.map(({ path, error, effect }) => [`  ${path}`, formatError(error), formatError(effect)]);
  return (
    `${first}${modulesText(found.modules.length)} as ${found.more} give ${formatError(found.error)} (${tries} tries):\n` +
    `${formatTable([["  module", "own NMSE", "logits"], ...rows], [1, 2])}--dtype ${formatStorage(found.dtype)}\n`
  );
}
