/**
 * Two traces, tensor by tensor: never more than one of each side is held. The first is the reference.
 *
 * The error of a module's output is inherited as far as its inputs have it already: `inherited` is the largest NMSE among
 * the tensors that come into the module from outside, `added` the rest of the output's NMSE. A layer can also amplify the
 * error of its input, or hide it; what a module does wrong by itself is found by giving it the reference's inputs (`byItself`).
 */
import { InputError } from "../../tensor/errors.ts";
import { type Shape, sizeOf } from "../../tensor/shape.ts";
import { type Difference, differenceOf, indicesOf, type Statistics, statisticsOf } from "./statistics.ts";
import { inputName, isInput, moduleOf, splitRun, type Trace } from "./trace.ts";

/** One side of a row. */
export interface Side {
  readonly shape: Shape;
  readonly statistics: Statistics;
  /** Where the first NaN or infinity is. */
  readonly firstNotFinite?: readonly number[];
}

/** A tensor of both traces. */
export interface Row {
  readonly name: string;
  readonly a: Side;
  readonly b: Side;
  /** Absent if the two have different numbers of elements. */
  readonly difference?: Difference;
  /** Where the largest difference is, and the two numbers there. */
  readonly worst?: { readonly at: readonly number[]; readonly a: number; readonly b: number };
  /** Largest NMSE of what comes into the module; absent where it is unknown. */
  readonly inherited?: number;
  /** NMSE that the module adds to it. */
  readonly added?: number;
  /** Why it counts as different. */
  readonly wrong?: "shape" | "not finite" | "error";
}

export interface Comparison {
  readonly a: string;
  readonly b: string;
  /** NMSE. */
  readonly tolerance: number;
  /** Every module of B was given A's inputs: errors are its own. */
  readonly byItself?: boolean;
  readonly isOrdered: boolean;
  /** In the reference's order of computation. */
  readonly rows: readonly Row[];
  /** Names that only one of the traces has. */
  readonly onlyA: readonly string[];
  readonly onlyB: readonly string[];
}

export interface CompareOptions {
  /** NMSE above which a tensor is different. */
  readonly tolerance: number;
  /** Every module of B was given A's inputs: nothing is inherited. */
  readonly byItself?: boolean;
  /** Which of the tensors, by name. Default: all */
  readonly isWanted?: (name: string) => boolean;
  readonly onRow?: (done: number, total: number) => void;
  readonly signal?: AbortSignal;
}

/** @throws InputError TRACE if the traces have no tensor in common, FILTER if none of them is wanted */
export async function compareTraces(
  a: Trace,
  b: Trace,
  { tolerance, byItself = false, isWanted = () => true, onRow, signal }: CompareOptions,
): Promise<Comparison> {
  const pairs = pairsOf(a, b);
  if (pairs.length === 0) {
    throw new InputError("TRACE", `${a.label} and ${b.label} have no tensor in common`, {
      hint: `${a.label} has ${a.order.slice(0, 3).join(", ")}, …`,
    });
  }
  const [kept, errors] = [[] as Row[], new Map<string, number>()];
  for (const [i, pair] of pairs.entries()) {
    signal?.throwIfAborted();
    onRow?.(i, pairs.length);
    const row = await compareOne(a, b, pair, tolerance);
    errors.set(row.name, row.difference?.nmse ?? Number.POSITIVE_INFINITY);
    kept.push(row);
  }
  const inputs = new Map([...b.inputs, ...a.inputs]);
  const inherited = inheritedErrors(
    kept.map(({ name }) => name),
    inputs,
    errors,
  );
  const rows = kept
    .filter(({ name }) => isWanted(name))
    .map((row) => {
      const from = inherited.get(row.name);
      if (from === undefined || byItself || !row.difference) return row;
      return { ...row, inherited: from, added: Math.max(0, row.difference.nmse - from) };
    });
  if (rows.length === 0) throw new InputError("FILTER", "--filter matches no tensor of both traces");
  const [inA, inB] = [a, b].map(({ order }) => new Set(order.filter((name) => !isInput(name))));
  return {
    a: a.label,
    b: b.label,
    tolerance,
    ...(byItself && { byItself }),
    isOrdered: a.isOrdered,
    rows,
    onlyA: [...inA!].filter((name) => !inB!.has(name)),
    onlyB: [...inB!].filter((name) => !inA!.has(name)),
  };
}

/** The tensors of a row in either trace. */
interface Pair {
  readonly name: string;
  readonly inA: string;
  readonly inB: string;
}

/** In A's order: outputs that both have, and inputs that are not the same output in both. */
function pairsOf(a: Trace, b: Trace): Pair[] {
  const pairs: Pair[] = [];
  const given = new Set<string>();
  const addInput = (path: string) => {
    const [inA, inB] = [a.inputs.get(path), b.inputs.get(path)];
    if (given.has(path) || inA === undefined || inB === undefined) return;
    given.add(path);
    if (inA === inB && !isInput(inA)) return;
    pairs.push({ name: inputName(path), inA, inB });
  };
  for (const name of a.order) {
    // The input of a module comes before all that is in it; the trace has the output of a module last.
    addInput(moduleOf(name));
    if (!isInput(name) && b.shape(name)) pairs.push({ name, inA: name, inB: name });
  }
  return pairs;
}

async function compareOne(a: Trace, b: Trace, { name, inA, inB }: Pair, tolerance: number): Promise<Row> {
  const [shapeA, shapeB] = [a.shape(inA)!, b.shape(inB)!];
  const [numbersA, numbersB] = [await a.read(inA), await b.read(inB)];
  const side = (shape: Shape, statistics: Statistics): Side => {
    const first = statistics.firstNotFinite;
    return { shape, statistics, ...(first >= 0 && { firstNotFinite: indicesOf(first, shape) }) };
  };
  const sides = { a: side(shapeA, statisticsOf(numbersA)), b: side(shapeB, statisticsOf(numbersB)) };
  if (!fits(shapeA, shapeB)) return { name, ...sides, wrong: "shape" };
  const difference = differenceOf(numbersA, numbersB);
  const { worst, broken, nmse } = difference;
  return {
    name,
    ...sides,
    difference,
    worst: { at: indicesOf(worst, shapeA), a: numbersA[worst] ?? 0, b: numbersB[worst] ?? 0 },
    ...(broken > 0 ? { wrong: "not finite" } : !(nmse <= tolerance) && { wrong: "error" }),
  };
}

/** Whether two shapes hold the same: some modules of transformers join rows and tokens, [B, T, C] and [B * T, C]. */
function fits(a: Shape, b: Shape): boolean {
  return sizeOf(a) === sizeOf(b) && a.at(-1) === b.at(-1);
}

/**
 * The largest error of what comes into each module: its input, and those inputs of modules inside of it that are outputs of
 * modules outside. Of a module whose input is unknown, that of the first module inside of it. Of an input that no module
 * returned, the errors of the modules beside it that came before, of the
 * tensor just before it, and of what came into the module around them.
 *
 * @param names of rows, in order
 * @param inputs the tensor that a module is given
 * @param errors NMSE by row
 */
export function inheritedErrors(
  names: readonly string[],
  inputs: ReadonlyMap<string, string>,
  errors: ReadonlyMap<string, number>,
): Map<string, number> {
  const found = new Map<string, number>();
  /** The largest error of a module's children so far, and the error of the last tensor inside of it. */
  const [children, last] = [new Map<string, number>(), new Map<string, number>()];
  const parentOf = (name: string) => {
    const [path, run] = splitRun(name);
    return path.includes(".") ? path.slice(0, path.lastIndexOf(".")) + run : "";
  };
  for (const name of names) {
    const parent = parentOf(moduleOf(name));
    if (isInput(name)) {
      const before = [found.get(parent), children.get(parent), last.get(parent)].filter((error) => error !== undefined);
      if (before.length > 0) found.set(name, Math.max(...before));
      continue;
    }
    children.set(parent, Math.max(children.get(parent) ?? 0, errors.get(name) ?? 0));
    const [path, run] = splitRun(name);
    for (let end = path.lastIndexOf("."); end > 0; end = path.lastIndexOf(".", end - 1)) {
      last.set(path.slice(0, end) + run, errors.get(name) ?? 0);
    }
    const source = inputs.get(name);
    if (source === undefined) continue;
    // That of the trace where it is the same in both, else the row of its own.
    const error = errors.get(inputName(name)) ?? errors.get(source);
    if (error === undefined) continue;
    const raise = (key: string) => found.set(key, Math.max(found.get(key) ?? 0, error));
    raise(name);
    for (let end = path.lastIndexOf("."); end > 0; end = path.lastIndexOf(".", end - 1)) {
      const around = path.slice(0, end);
      const key = around + run;
      // Its own input counts, which is known: then inner inputs that no module returns are what it has computed itself.
      const isFirst = !found.has(key) && !inputs.has(key);
      const isOutside = !isInput(source) && !`${source}.`.startsWith(`${around}.`);
      if (isFirst || isOutside) raise(key);
    }
  }
  return found;
}
