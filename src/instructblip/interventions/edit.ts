/** The arithmetic of an edit: an op on the part of a tensor that an index selects. */
import type { Device } from "../../tensor/device/device.ts";
import { add } from "../../tensor/ops/add.ts";
import { contiguous, copy } from "../../tensor/ops/copy.ts";
import { mul } from "../../tensor/ops/gated_activation.ts";
import { scale } from "../../tensor/ops/scale.ts";
import { type Shape, sizeOf, sizes } from "../../tensor/shape.ts";
import type { SiteKind, Tensor } from "../../tensor/tensor.ts";
import { DIMENSIONS, type Edit, type InterventionIndex } from "./intervention.ts";

/**
 * Sizes of a tensor as [row, token, head, channel]; a convolution's output [R, C, h, w] has its patches as tokens. Of edges
 * [R, H, T, S] the tokens are those that attend, and the channels those that they attend to.
 */
export function layoutOf(shape: Shape, at: SiteKind): readonly [R: number, T: number, H: number, C: number] {
  if (at === "heads") {
    const [R, T, H, C] = sizes(shape, 4);
    return [R, T, H, C];
  }
  if (at === "edges") {
    const [R, H, T, S] = sizes(shape, 4);
    return [R, T, H, S];
  }
  if (shape.length === 4) {
    const [R, C, h, w] = sizes(shape, 4);
    return [R, h * w, 1, C];
  }
  const [R, T, C] = shape.length === 2 ? [shape[0]!, 1, shape[1]!] : sizes(shape, 3);
  return [R, T, 1, C];
}

/** Consecutive places of one dimension that are edited together, and where their values begin. */
interface Run {
  readonly start: number;
  readonly length: number;
  readonly value: number;
  /** All have that one value. */
  readonly isOne: boolean;
}

/**
 * Joins places to runs.
 *
 * @param places what index i of the value is for; undefined where that is outside of the tensor
 * @param each tensor places for each of these: beams of a prompt
 */
function runsOf(places: readonly (number | undefined)[], isOne: boolean, each = 1): Run[] {
  const runs: { start: number; length: number; value: number; isOne: boolean }[] = [];
  places.forEach((place, value) => {
    if (place === undefined) return;
    const last = runs.at(-1);
    const follows = last && last.start + last.length === place * each && (isOne || each === 1);
    if (follows && (isOne || last.value + last.length === value)) last.length += each;
    else runs.push({ start: place * each, length: each, value: isOne ? 0 : value, isOne: isOne || each > 1 });
  });
  return runs;
}

/** The tensor of a pass, and the call that it belongs to. */
export interface Edited {
  readonly at: SiteKind;
  /** Prompts of the batch. */
  readonly rows: number;
  /** Token of the module's sequence with which the tensor begins. */
  readonly start: number;
}

/** A copy of x, f32 of any layout, with an edit. */
export function edited(x: Tensor, { op, value, index }: Edit, { at, rows, start }: Edited): Tensor {
  const { device } = x;
  const isGrid = at !== "heads" && x.rank === 4;
  const layout = layoutOf(x.shape, at);
  const whole = contiguous(isGrid ? x.permute([0, 2, 3, 1]) : x).reshape(layout);
  const y = device.empty(layout);
  copy(whole, y);
  const numbers = value && device.tensor(value.data, value.shape);
  const all = (n: number) => Array.from({ length: n }, (_, i) => i);
  const local = (token: number) => (token >= start && token < start + layout[1] ? token - start : undefined);
  const places = [
    index.row ?? all(rows),
    index.token?.map(local) ?? all(layout[1]),
    index.head ?? all(layout[2]),
    index.channel ?? all(layout[3]),
  ];
  const runs = places.map((list, d) => runsOf(list, !value || value.shape[d] === 1, d === 0 ? layout[0] / rows : 1));
  for (const region of product(runs)) {
    const part = (t: Tensor) => region.reduce((view, { start, length }, d) => view.narrow(d, start, length), t);
    const target = part(y);
    const given =
      numbers && region.reduce((view, run, d) => view.narrow(d, run.value, run.isOne ? 1 : run.length), numbers);
    copy(computed(device, op, part(whole), given, () => meanOf(whole, region)).expand(target.shape), target);
  }
  if (!isGrid) return y.reshape(x.shape);
  const [R, C, h, w] = sizes(x.shape, 4);
  return contiguous(y.reshape([R, h, w, C]).permute([0, 3, 1, 2]));
}

/** @returns the new numbers of `old`, or what expands to them */
function computed(device: Device, op: Edit["op"], old: Tensor, given: Tensor | undefined, mean: () => Tensor): Tensor {
  const spread = () => contiguous(given!.expand(old.shape));
  switch (op) {
    case "zero":
      return device.tensor(
        [0],
        DIMENSIONS.map(() => 1),
      );
    case "set":
      return given!;
    case "add":
      return add(contiguous(old), spread());
    case "scale":
      return mul(contiguous(old), spread());
    case "mean":
      return mean();
  }
}

/** The mean over all rows of a region's tokens, heads and channels. f32[R, T, H, C] -> f32[1, t, h, c] */
function meanOf(whole: Tensor, [, ...region]: readonly Run[]): Tensor {
  const part = region.reduce((view, { start, length }, d) => view.narrow(d + 1, start, length), whole);
  const [R] = sizes(part.shape, 4);
  let sum = contiguous(part.narrow(0, 0, 1));
  for (let r = 1; r < R; r++) sum = add(sum, contiguous(part.narrow(0, r, 1)));
  return scale(sum, 1 / R);
}

/**
 * The edges of an attention without those that the cuts name: f32[R, H, T, S], a view that repeats one row or head where no cut
 * names any; undefined if none of the cuts is in this pass.
 *
 * @param edges f32[R, H, T, S] before; undefined: all are there
 */
export function cutEdges(
  device: Device,
  edges: Tensor | undefined,
  cuts: readonly InterventionIndex[],
  shape: Shape,
  { rows, start }: Pick<Edited, "rows" | "start">,
): Tensor | undefined {
  const [R, H, T, S] = sizes(shape, 4);
  const [ownRows, ownHeads] = [cuts.some(({ row }) => row), cuts.some(({ head }) => head)];
  const own = [ownRows ? R : 1, ownHeads ? H : 1, T, S] as const;
  const left = new Float32Array(sizeOf(own)).fill(1);
  const each = R / rows;
  const all = (n: number) => Array.from({ length: n }, (_, i) => i);
  for (const { row = all(rows), head = all(H), from, to } of cuts) {
    const placesOfRow = ownRows ? row.flatMap((one) => all(each).map((i) => one * each + i)) : [0];
    const queries = from?.map((token) => token - start).filter((t) => t >= 0 && t < T) ?? all(T);
    const keys = to?.filter((s) => s < S) ?? all(S);
    for (const r of placesOfRow)
      for (const h of ownHeads ? head : [0])
        for (const t of queries) for (const s of keys) left[((r * own[1] + h) * T + t) * S + s] = 0;
  }
  if (!left.includes(0)) return edges;
  const kept = device.tensor(left, own).expand(shape);
  return edges ? mul(contiguous(edges), contiguous(kept)) : kept;
}

/** One run of each dimension, in every combination. */
function product(runs: readonly (readonly Run[])[]): readonly (readonly Run[])[] {
  return runs.reduce<readonly (readonly Run[])[]>(
    (regions, list) => regions.flatMap((region) => list.map((run) => [...region, run])),
    [[]],
  );
}
