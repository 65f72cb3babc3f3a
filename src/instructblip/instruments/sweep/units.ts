/**
 * The parts of a model that a sweep goes through one by one: layers, attention heads, queries and tokens, in groups such as
 * `qformer.heads`. A group is a grid: rows are layers or attentions, columns what they consist of. Pure.
 */
import { pathPattern } from "../../../modules/observer.ts";
import { InputError } from "../../../tensor/errors.ts";
import type { Shape } from "../../../tensor/shape.ts";
import { quote } from "../../../tensor/shown.ts";
import type { SiteKind } from "../../../tensor/tensor.ts";
import { layoutOf } from "../../interventions/edit.ts";
import type { InterventionIndex } from "../../interventions/intervention.ts";

/** What is changed: an intervention without its op. */
export interface UnitPlace {
  /** Module path. */
  readonly module: string;
  readonly at: SiteKind;
  readonly index: Pick<InterventionIndex, "token" | "head">;
}

export interface SweepUnit {
  /** `vision_model.layers` */
  readonly group: string;
  /** Its row: a layer's number, `2 cross` of an attention, `input` or `projection`. */
  readonly row: string;
  /** Its column: the number of a head, query or token, or a part of a layer. */
  readonly column: string;
  readonly places: readonly UnitPlace[];
}

/** What is done with each unit: it is taken out, or given the numbers of another run. */
export type SweepKind = "ablate" | "patch";

/** Shapes of the places that a pass computes, by `placeKey`. */
export type Sites = ReadonlyMap<string, Shape>;
export const placeKey = (at: string, module: string) => `${at} ${module}`;

/** A stack of layers. `#` stands for a layer's number. */
interface Stack {
  readonly name: string;
  readonly layer: string;
  /** Modules below the layer: heads, and the output that is added to the residual stream. */
  readonly attentions: Readonly<Partial<Record<"self" | "cross", { readonly heads: string; readonly adds: string }>>>;
  /** Modules whose output is added to the residual stream. */
  readonly feedForward: readonly string[];
  /** Whether layers read something else than the layer before: an image, or an encoder. */
  readonly readsMore?: boolean;
}

const T5_SELF = { heads: "layer.0.SelfAttention", adds: "layer.0.SelfAttention" };
const SELF_ATTN = { heads: "self_attn", adds: "self_attn" };
const STACKS: readonly Stack[] = [
  {
    name: "vision_model",
    layer: "vision_model.encoder.layers.#",
    attentions: { self: SELF_ATTN },
    feedForward: ["mlp"],
  },
  {
    name: "qformer",
    layer: "qformer.encoder.layer.#",
    attentions: {
      self: { heads: "attention.attention", adds: "attention.output.dense" },
      cross: { heads: "crossattention.attention", adds: "crossattention.output.dense" },
    },
    feedForward: ["output_query.dense", "output.dense"],
    readsMore: true,
  },
  {
    name: "language_model",
    layer: "language_model.model.layers.#",
    attentions: { self: SELF_ATTN },
    feedForward: ["mlp"],
  },
  {
    name: "language_model",
    layer: "language_model.model.decoder.layers.#",
    attentions: { self: SELF_ATTN },
    feedForward: ["fc2"],
  },
  {
    name: "language_model.encoder",
    layer: "language_model.encoder.block.#",
    attentions: { self: T5_SELF },
    feedForward: ["layer.1.DenseReluDense"],
  },
  {
    name: "language_model.decoder",
    layer: "language_model.decoder.block.#",
    attentions: {
      self: T5_SELF,
      cross: { heads: "layer.1.EncDecAttention", adds: "layer.1.EncDecAttention" },
    },
    feedForward: ["layer.2.DenseReluDense"],
    readsMore: true,
  },
];

/** Groups that are swept only if they are named: a unit for every patch of every layer. */
const LARGE = ["vision_model.tokens"];

const numbers = (count: number) => Array.from({ length: count }, (_, i) => i);

/**
 * All units of a model, in order of computation.
 *
 * @param queries image features of a row
 */
export function unitsOf(sites: Sites, kind: SweepKind, queries: number): SweepUnit[] {
  return STACKS.flatMap((stack) => {
    const layers: string[] = [];
    for (let i = 0; ; i++) {
      const path = stack.layer.replace("#", String(i));
      if (!sites.has(placeKey("output", path))) break;
      layers.push(path);
    }
    if (layers.length === 0) return [];
    const units = [...layerUnits(stack, layers, sites, kind), ...headUnits(stack, layers, sites)];
    if (stack.name === "qformer") return [...units, ...queryUnits(layers, kind, queries)];
    if (stack.name === "vision_model" && kind === "ablate") return units;
    return [...units, ...tokenUnits(stack, layers, sites, kind)];
  });
}

/** What the attentions and the feed-forward network of a layer add to the residual stream, and all of the layer. */
function layerUnits(stack: Stack, layers: readonly string[], sites: Sites, kind: SweepKind): SweepUnit[] {
  const group = `${stack.name}.layers`;
  return layers.flatMap((path, i) => {
    const added = (names: readonly string[]) =>
      names
        .map((name): UnitPlace => ({ module: `${path}.${name}`, at: "output", index: {} }))
        .filter(({ module }) => sites.has(placeKey("output", module)));
    const parts: [string, readonly UnitPlace[]][] = [
      ...Object.entries(stack.attentions).map(([name, { adds }]) => [`${name}-attention`, added([adds])] as never),
      ["feed-forward", added(stack.feedForward)],
    ];
    // Where a layer reads the one before alone, its whole output restored restores all that comes after.
    if (kind === "ablate") parts.push(["layer", parts.flatMap(([, places]) => places)]);
    else if (stack.readsMore) parts.push(["layer", [{ module: path, at: "output", index: {} }]]);
    return parts
      .filter(([, places]) => places.length > 0)
      .map(([column, places]) => ({ group, row: String(i), column, places }));
  });
}

function headUnits({ name, attentions }: Stack, layers: readonly string[], sites: Sites): SweepUnit[] {
  return layers.flatMap((path, i) =>
    Object.entries(attentions).flatMap(([kind, { heads }]) => {
      const module = `${path}.${heads}`;
      const shape = sites.get(placeKey("heads", module));
      if (!shape) return [];
      const row = attentions.cross ? `${i} ${kind}` : String(i);
      const [, , H] = layoutOf(shape, "heads");
      return numbers(H).map((head): SweepUnit => {
        const places = [{ module, at: "heads", index: { head: [head] } }] as const;
        return { group: `${name}.heads`, row, column: String(head), places };
      });
    }),
  );
}

function queryUnits(layers: readonly string[], kind: SweepKind, queries: number): SweepUnit[] {
  const rows = kind === "patch" ? layers.map((module, i) => [String(i), module] as const) : [];
  return [...rows, ["projection", "language_projection"] as const].flatMap(([row, module]) =>
    numbers(queries).map((query): SweepUnit => {
      const places = [{ module, at: "output", index: { token: [query] } }] as const;
      return { group: "qformer.queries", row, column: String(query), places };
    }),
  );
}

/** Tokens at the input of the first layer and, to patch, at the output of each. */
function tokenUnits({ name }: Stack, layers: readonly string[], sites: Sites, kind: SweepKind): SweepUnit[] {
  const first = layers[0]!;
  const [, T] = layoutOf(sites.get(placeKey("input", first))!, "input");
  const rows = kind === "patch" ? layers.map((module, i) => [String(i), module, "output"] as const) : [];
  return [["input", first, "input"] as const, ...rows].flatMap(([row, module, at]) =>
    numbers(T).map((token) => {
      const places = [{ module, at, index: { token: [token] } }];
      return { group: `${name}.tokens`, row, column: String(token), places };
    }),
  );
}

/** Names of groups, in order. */
export function groupsOf(units: readonly SweepUnit[]): string[] {
  return [...new Set(units.map(({ group }) => group))];
}

/**
 * The units of the groups that patterns name; without patterns all but the tokens of the image encoder.
 *
 * @param targets group names, or patterns of them: `qformer.**`, `**.heads`
 * @throws InputError TARGETS for a pattern that names no group
 */
export function chosenUnits(units: readonly SweepUnit[], targets: readonly string[] | undefined): SweepUnit[] {
  const groups = groupsOf(units);
  if (targets === undefined) return units.filter(({ group }) => !LARGE.includes(group));
  const named = targets.map((target) => {
    const found = groups.filter((group) => pathPattern(target).test(group));
    if (found.length > 0) return found;
    throw new InputError("TARGETS", `targets: no group is named ${quote(target)}`, {
      hint: `the groups are ${groups.join(", ")}`,
    });
  });
  return units.filter(({ group }) => named.flat().includes(group));
}
