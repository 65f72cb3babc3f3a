/**
 * Interventions: changes to what flows between a model's modules, as plain data that JSON can hold, or as functions. Checked
 * here as far as possible without a model; plan.ts checks them against one, and edit.ts has the arithmetic.
 */
import { unknownName } from "../../tensor/arguments.ts";
import { InputError } from "../../tensor/errors.ts";
import { type Shape, sizeOf } from "../../tensor/shape.ts";
import { shown } from "../../tensor/shown.ts";
import type { SiteKind, Tensor } from "../../tensor/tensor.ts";

/** Numbers in nested lists of equal lengths. */
export type NestedNumbers = number | readonly NestedNumbers[];

/** What an edit changes; a list that is left out means all. */
export interface InterventionIndex {
  /** Prompts of the batch, as they were given: all beams or samples of a prompt, all frames of a video. */
  readonly row?: readonly number[];
  /**
   * Tokens of the module's whole sequence. In the language model image, prompt and answer count on through the steps; with
   * T5 the decoder counts from its start token.
   */
  readonly token?: readonly number[];
  /** Attention heads; with `at: "heads"` and `at: "edges"`. */
  readonly head?: readonly number[];
  /** Of the last dimension; with `at: "heads"` within each head. */
  readonly channel?: readonly number[];
  /** With `at: "edges"`: the tokens that attend, counted as `token`. */
  readonly from?: readonly number[];
  /** With `at: "edges"`: the tokens that they attend to. In cross-attention these are another sequence's, counted from 0. */
  readonly to?: readonly number[];
}

interface Place {
  /** Module path of the checkpoint; `*` stands for one name and `**` for any number of them. */
  readonly module: string;
  /**
   * The module's output (default), its input (of layers, linear layers and norms); of an attention its heads before the
   * output projection, or its edges: which token attends to which.
   */
  readonly at?: SiteKind;
  /** Passes of generate(): `"prompt"` is step 0, in which the first token is chosen. Default: all. */
  readonly steps?: "all" | "prompt" | readonly number[];
}

/** An intervention as data. */
export interface InterventionData extends Place {
  /**
   * `zero`, of edges the only op: the score becomes -∞, and a token without edges gets zeros; `scale` multiplies by the value, `add` adds it, `set` puts it in place; `mean` is the mean over the rows of the
   * batch (beams and frames count as rows), for each token and channel.
   */
  readonly op: "zero" | "scale" | "add" | "set" | "mean";
  /** Of scale, add and set. Broadcasts to what the index selects: [rows, tokens, channels], of heads [rows, tokens, heads, channels]. */
  readonly value?: NestedNumbers | { readonly data: ArrayLike<number>; readonly shape: readonly number[] };
  readonly index?: InterventionIndex;
}

/** Where and when a function is called. */
export interface InterventionContext {
  readonly module: string;
  readonly at: SiteKind;
  /** Of generate(); 0 in forward(). */
  readonly step: number;
  /** Token of the module's sequence with which the tensor begins. */
  readonly start: number;
}

/** An intervention as a function. */
export interface InterventionFunction extends Place {
  /**
   * @param tensor f32: the module's own shape; of heads [R, T, H, d]; of edges [R, H, T, S], 1, or 0 where it is cut
   * @returns a tensor of the same shape, or nothing to leave it as it is
   */
  readonly apply: (tensor: Tensor, context: InterventionContext) => Tensor | undefined;
}

export type Intervention = InterventionData | InterventionFunction;

/** Dimensions of what an edit changes; `head` is 1 unless at heads. */
export const DIMENSIONS = ["row", "token", "head", "channel"] as const;
export type Dimension = (typeof DIMENSIONS)[number];
/** The same of edges. */
export const EDGE_DIMENSIONS = ["row", "head", "from", "to"] as const;

/** An edit, checked. */
export interface Edit {
  readonly op: InterventionData["op"];
  /** Its shape has four dimensions: row, token, head, channel. */
  readonly value?: { readonly data: Float32Array; readonly shape: Shape };
  readonly index: InterventionIndex;
}

/** An intervention, checked without a model. */
export interface Checked extends Required<Place> {
  /** In messages: `interventions[2]`. */
  readonly name: string;
  readonly does: Edit | InterventionFunction["apply"];
}

const DATA_FIELDS = ["module", "at", "op", "value", "index", "steps"];
const FIELDS = [...DATA_FIELDS, "apply"];
const PLACES: readonly SiteKind[] = ["output", "input", "heads", "edges"];
const OPS: readonly string[] = ["zero", "scale", "add", "set", "mean"];
const NEED_VALUE: readonly string[] = ["scale", "add", "set"];
/** Most interventions of a call, and deepest value. */
const MOST = 10_000;

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/**
 * Checks what can be checked without a model.
 *
 * @param isJson whether they were read from JSON, which has no functions
 * @throws InputError INTERVENTION, INTERVENTION_VALUE, INTERVENTION_INDEX, UNKNOWN_FIELD
 */
export function checkInterventions(given: unknown, isJson = false): readonly Checked[] {
  if (!Array.isArray(given) || given.length > MOST) {
    const must = `a list of at most ${MOST} interventions`;
    throw new InputError("INTERVENTION", `interventions must be ${must}, got ${shown(given)}`);
  }
  return given.map((one: unknown, i) => check(`interventions[${i}]`, one, isJson ? DATA_FIELDS : FIELDS));
}

function check(name: string, one: unknown, fields: readonly string[]): Checked {
  const bad = (message: string, hint?: string): never => {
    throw new InputError("INTERVENTION", `${name}: ${message}`, { hint });
  };
  if (!isObject(one)) return bad(`must be an object, got ${shown(one)}`);
  const unknown = Object.keys(one).find((key) => !fields.includes(key));
  if (unknown !== undefined) throw unknownName(name, unknown, fields, { kind: "field" });
  const { module, at = "output", steps = "all", op, apply, value, index = {} } = one;
  if (typeof module !== "string" || module === "") bad(`module must be a path or pattern, got ${shown(module)}`);
  if (!PLACES.includes(at as SiteKind)) bad(`at must be ${PLACES.map(quoted).join(", ")}, got ${shown(at)}`);
  const areSteps = Array.isArray(steps) && steps.length > 0 && steps.every(isCount) && isDistinct(steps);
  if (steps !== "all" && steps !== "prompt" && !areSteps) {
    bad(`steps must be "all", "prompt" or a list of different numbers from 0 on, got ${shown(steps)}`);
  }
  const place = { name, module: module as string, at: at as SiteKind, steps: steps as Checked["steps"] };
  if (apply !== undefined) {
    if (typeof apply !== "function") bad(`apply must be a function, got ${shown(apply)}`);
    const both = ["op", "value", "index"].find((key) => one[key] !== undefined);
    if (both) bad(`apply decides all by itself: leave ${both} out`);
    return { ...place, does: apply as InterventionFunction["apply"] };
  }
  if (!OPS.includes(op as string)) bad(`op must be ${OPS.map(quoted).join(", ")}, got ${shown(op)}`);
  if (at === "edges" && op !== "zero") bad(`edges can be cut only: op must be "zero", got ${shown(op)}`);
  const needs = NEED_VALUE.includes(op as string);
  if (needs && value === undefined) bad(`${op} needs a value`);
  if (!needs && value !== undefined) bad(`${op} takes no value`);
  const edit = { op: op as Edit["op"], index: checkIndex(name, index, place.at) };
  return { ...place, does: needs ? { ...edit, value: checkValue(name, value, place.at) } : edit };
}

/** `1 row`, `3 rows` */
export const counted = (count: number, what: string): string => `${count} ${what}${count === 1 ? "" : "s"}`;
const quoted = (text: string) => `"${text}"`;
const isCount = (value: unknown) => Number.isSafeInteger(value) && (value as number) >= 0;
const isDistinct = (list: readonly unknown[]) => new Set(list).size === list.length;

function checkIndex(name: string, index: unknown, at: SiteKind): InterventionIndex {
  if (!isObject(index)) throw new InputError("INTERVENTION", `${name}: index must be an object, got ${shown(index)}`);
  const fields: readonly string[] = at === "edges" ? EDGE_DIMENSIONS : DIMENSIONS;
  const all: readonly string[] = [...DIMENSIONS, ...EDGE_DIMENSIONS];
  const unknown = Object.keys(index).find((key) => !all.includes(key));
  if (unknown !== undefined) throw unknownName(`${name}.index`, unknown, fields, { kind: "field" });
  for (const [key, list] of Object.entries(index)) {
    if (list === undefined) continue;
    if (!Array.isArray(list) || list.length === 0 || !list.every(isCount) || !isDistinct(list)) {
      const must = "a list of different numbers from 0 on";
      throw new InputError("INTERVENTION_INDEX", `${name}: index.${key} must be ${must}, got ${shown(list)}`);
    }
    if (fields.includes(key) && (key !== "head" || at === "heads" || at === "edges")) continue;
    const needs = key === "head" ? `"at": "heads" or "edges"` : at === "edges" ? "another place" : `"at": "edges"`;
    const hint = at === "edges" ? `edges have ${EDGE_DIMENSIONS.join(", ")}` : undefined;
    throw new InputError("INTERVENTION_INDEX", `${name}: index.${key} needs ${needs}, this is at ${quoted(at)}`, {
      hint,
    });
  }
  return index;
}

function checkValue(name: string, value: unknown, at: SiteKind): NonNullable<Edit["value"]> {
  const bad = (message: string): never => {
    throw new InputError("INTERVENTION_VALUE", `${name}: ${message}`);
  };
  const isArray = ArrayBuffer.isView(value) && !(value instanceof DataView);
  const list = isArray ? { data: value, shape: [(value as Float32Array).length] } : undefined;
  const given = list ?? (isObject(value) ? value : nested(value));
  const { data, shape } = given as { data: unknown; shape: unknown };
  if (!Array.isArray(shape) || !shape.every(isCount))
    return bad(`value must be a number or an array, got ${shown(value)}`);
  const isList = Array.isArray(data) || (ArrayBuffer.isView(data) && "length" in data);
  const numbers = isList ? (data as ArrayLike<number>) : [];
  if (!isList || numbers.length !== sizeOf(shape) || numbers.length === 0) {
    return bad(`value has the shape [${shape.join(", ")}], and ${counted(numbers.length, "number")}`);
  }
  const floats = Float32Array.from(numbers);
  const wrong = Array.from(numbers).findIndex((n, i) => typeof n !== "number" || !Number.isFinite(floats[i]));
  if (wrong >= 0) return bad(`value must have finite f32 numbers only, has ${shown(numbers[wrong])}`);
  const most = at === "heads" ? 4 : 3;
  if (shape.length > most) return bad(`value has ${shape.length} dimensions, at most ${most} fit`);
  const rank = [...new Array<number>(most - shape.length).fill(1), ...(shape as number[])];
  return { data: floats, shape: at === "heads" ? rank : [rank[0]!, rank[1]!, 1, rank[2]!] };
}

/** Nested lists as numbers with a shape; ragged ones get a shape that does not fit their numbers. */
function nested(value: unknown): { data: readonly unknown[]; shape: readonly number[] } | Record<string, never> {
  const shape: number[] = [];
  let data: readonly unknown[] = [value];
  while (shape.length <= DIMENSIONS.length && data.length > 0 && data.every(Array.isArray)) {
    const lists = data as readonly (readonly unknown[])[];
    const length = lists[0]!.length;
    if (lists.some((list) => list.length !== length)) return {};
    shape.push(length);
    data = lists.flat();
  }
  return { data, shape };
}
