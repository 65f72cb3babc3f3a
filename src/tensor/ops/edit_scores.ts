/** A repetition penalty and bans of token ids: changes a few scores of each row. */
import { ShapeError } from "../errors.ts";
import { formatShape, hasRank } from "../shape.ts";
import type { Tensor } from "../tensor.ts";
import { copy } from "./copy.ts";

const WG = 64;

/** The changes: first the penalty, then the bans. Ids are distinct in each row. */
export interface ScoreEdits {
  /** Above 0. Divides what is positive and multiplies what is negative. */
  readonly penalty: number;
  /** [R][…], ids below V */
  readonly penalised: readonly (readonly number[])[];
  /** [R][…], ids below V that become -Infinity */
  readonly banned: readonly (readonly number[])[];
}

/**
 * @param x f32[R, V], which stays as it is
 * @returns f32[R, V]; x itself if nothing changes
 * @throws ShapeError
 * Source: transformers 5.18, RepetitionPenaltyLogitsProcessor in generation/logits_process.py.
 */
export function editScores(x: Tensor, { penalty, penalised, banned }: ScoreEdits): Tensor {
  if (!hasRank(x.shape, 2) || penalised.length !== x.shape[0] || banned.length !== x.shape[0]) {
    throw new ShapeError(
      `editScores: x must be [R, V], with R lists of each kind, got ${formatShape(x.shape)}, ${penalised.length} and ` +
        `${banned.length} lists`,
    );
  }
  const [, V] = x.shape;
  const placesOf = (lists: readonly (readonly number[])[]) =>
    lists.flatMap((ids, row) => ids.map((id) => row * V + id));
  // An element is written by one invocation only: a ban overrides the penalty.
  const bans = new Set(placesOf(banned));
  const penalties = penalty === 1 ? [] : placesOf(penalised).filter((place) => !bans.has(place));
  const n = penalties.length + bans.size;
  if (n === 0) return x;
  const places = x.device.tensor(Uint32Array.from([...penalties, ...bans]), [n]);
  const y = x.device.empty(x.shape);
  copy(x, y);
  x.device.launch({
    kernel: "edit_scores",
    bindings: { places, y },
    params: { n, penalised: penalties.length, size: y.size, penalty },
    workgroups: Math.ceil(n / WG),
    work: () => ({ bytes: 3 * places.bytes }),
  });
  return y;
}
