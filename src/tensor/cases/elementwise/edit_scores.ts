/** A repetition penalty for the ids of a prompt, and a few bans: mostly the copy of the scores. */
import { editScores } from "../../ops/edit_scores.ts";
import { editScores as reference } from "../../reference/edit_scores.ts";
import { compare } from "../support/compare.ts";
import { type Groups, ONLY } from "../support/group.ts";
import { Random } from "../support/random.ts";
import { TOLERANCES } from "../support/tolerances.ts";

/** Ids in each row: a prompt's, and those that would repeat an n-gram. */
const [PENALISED, BANNED] = [64, 4];

export const groups: Groups = ({ logits }) =>
  logits.map(({ name, R, D }) => ({
    kernel: "edit_scores",
    shape: `${name} R${R} V${D}`,
    ...ONLY,
    open(device) {
      const x = new Random(1).normal(R * D);
      const xs = device.tensor(x, [R, D]);
      const every = (count: number) =>
        Array.from({ length: R }, (_, row) => Array.from({ length: count }, (_, i) => (row + 13 * i) % D));
      const edits = { penalty: 1.5, penalised: every(PENALISED), banned: every(BANNED) };
      return {
        flops: 0,
        bytes: 4 * 2 * R * D,
        run: () => editScores(xs, edits),
        check(y) {
          const expected = reference(x, D, edits.penalty, edits.penalised, edits.banned);
          return compare(y, expected, TOLERANCES.elementwise, "edit_scores");
        },
      };
    },
  }));
