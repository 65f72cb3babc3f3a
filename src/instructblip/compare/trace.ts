/**
 * A trace: the tensors of one pass, by name, in the order in which they were computed. A module's output has its path as
 * name, that of a second run `PATH#2`. What a module is given is not stored again where it is another tensor of the trace;
 * what no module returns (a sum, an attention's heads) is stored as `input:PATH`.
 *
 * In a safetensors file, which sorts its tensors, order and inputs are metadata; scripts/trace_pytorch.py writes the same.
 */
import { InputError } from "../../tensor/errors.ts";
import type { Shape } from "../../tensor/shape.ts";
import { quote } from "../../tensor/shown.ts";
import type { Numbers } from "./statistics.ts";

/** Tensors that are read one by one. */
export interface Trace {
  /** For people. */
  readonly label: string;
  /** Names of all tensors, in the order of computation; alphabetical where that is unknown. */
  readonly order: readonly string[];
  /** Whether the order is that of computation. */
  readonly isOrdered: boolean;
  /** What a module is given, by its path: the name of a tensor. */
  readonly inputs: ReadonlyMap<string, string>;
  /** @returns undefined if there is no such tensor */
  shape(name: string): Shape | undefined;
  /** The numbers of a tensor; it is the caller's to forget. */
  read(name: string): Promise<Numbers>;
}

const INPUT = "input:";
/** The name under which an input is stored that is no other tensor of the trace. */
export const inputName = (path: string): string => `${INPUT}${path}`;
export const isInput = (name: string): boolean => name.startsWith(INPUT);
/** The module of a tensor: `input:a.b#2` and `a.b#2` -> `a.b#2`. */
export const moduleOf = (name: string): string => (isInput(name) ? name.slice(INPUT.length) : name);

/** `a.b#2` -> [`a.b`, `#2`] */
export function splitRun(path: string): [path: string, run: string] {
  const at = path.lastIndexOf("#");
  return at < 0 ? [path, ""] : [path.slice(0, at), path.slice(at)];
}

const ORDER = "trace.order";
const INPUTS = "trace.inputs";

/** Order and inputs as metadata of a safetensors file. */
export function traceMetadata({ order, inputs }: Pick<Trace, "order" | "inputs">): Record<string, string> {
  return { [ORDER]: JSON.stringify(order), [INPUTS]: JSON.stringify(Object.fromEntries(inputs)) };
}

/**
 * Order and inputs of a file, whose metadata may be of another program, or wrong.
 *
 * @param names of the tensors that the file has
 * @throws InputError TRACE
 */
export function readTraceMetadata(
  file: string,
  metadata: ReadonlyMap<string, string>,
  names: readonly string[],
): Pick<Trace, "order" | "isOrdered" | "inputs"> {
  const read = (key: string): unknown => {
    const text = metadata.get(key);
    if (text === undefined) return undefined;
    try {
      return JSON.parse(text);
    } catch {
      throw new InputError("TRACE", `${file}: the metadata ${quote(key)} is not JSON`);
    }
  };
  const [order, inputs] = [read(ORDER), read(INPUTS) ?? {}];
  if (order === undefined) return { order: [...names].sort(), isOrdered: false, inputs: new Map() };
  const known = new Set(names);
  const isOrder = Array.isArray(order) && order.length === known.size && order.every((name) => known.delete(name));
  if (!isOrder) throw new InputError("TRACE", `${file}: the metadata ${quote(ORDER)} does not list the file's tensors`);
  const pairs = typeof inputs === "object" && inputs !== null ? Object.entries(inputs) : [];
  const all = new Set(names);
  const wrong = pairs.find(([, name]) => !all.has(name as string));
  if (wrong) throw new InputError("TRACE", `${file}: the input of ${quote(wrong[0])} is no tensor of the file`);
  return { order, isOrdered: true, inputs: new Map(pairs as [string, string][]) };
}
