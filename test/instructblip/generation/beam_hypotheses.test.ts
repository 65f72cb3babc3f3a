/** Finished beams by the rules of transformers 4.33; lavis.test.ts holds searches by them to its own. */
import { expect, test } from "vitest";
import { Hypotheses, type HypothesesRules } from "../../../src/instructblip/generation/beam_hypotheses.ts";

const RULES: HypothesesRules = { num_beams: 2, length_penalty: 1, early_stopping: false, most: 9 };
const of = (more: Partial<HypothesesRules>, ...beams: [string, number, number][]) => {
  const found = new Hypotheses<string>({ ...RULES, ...more });
  for (const beam of beams) found.add(...beam);
  return found;
};
const names = (found: Hypotheses<string>) =>
  found
    .best()
    .map(({ sequence }) => sequence)
    .join("");

test("the best are kept, divided by their lengths", () => {
  const beams: [string, number, number][] = [
    ["a", -3, 3],
    ["b", -2, 1],
    ["c", -3, 2],
  ];
  expect(of({}, ...beams).best()).toEqual([
    { sequence: "a", score: -1 },
    { sequence: "c", score: -1.5 },
  ]);
  expect(names(of({ length_penalty: 0 }, ...beams))).toBe("ba"); // -3 is not better than -3, and stays away
  expect(names(of({ length_penalty: -1 }, ...beams))).toBe("bc");
});

test("of equals the latest is first, and the earliest goes", () => {
  expect(names(of({}, ["a", -1, 1], ["b", -2, 2]))).toBe("ba");
  expect(names(of({}, ["a", -1, 1], ["b", -2, 2], ["c", -1, 2]))).toBe("cb");
});

test.each<[string, Partial<HypothesesRules>, number, number, boolean]>([
  ["as long as a running one, with its next token, is worse", {}, -5, 3, true], // -5 / 4 against -1.2
  ["not if it may be better", {}, -4.4, 3, false],
  ["equal is not better", {}, -4.8, 3, true],
  ["at once, if early_stopping", { early_stopping: true }, 0, 3, true],
  ["never: at its best length, which is the longest", { early_stopping: "never" }, -5, 3, false], // -5 / 10
  ["never, with a penalty for length: at its own", { early_stopping: "never", length_penalty: -1 }, -5, 3, true],
])("a search ends %s", (_, rules, best, t, done) => {
  const length_penalty = rules.length_penalty ?? 1;
  const beam = (name: string, score: number): [string, number, number] => [name, score * 2 ** length_penalty, 2];
  expect(of(rules, beam("a", -1)).isDone(best, t)).toBe(false); // too few
  expect(of(rules, beam("a", -1), beam("b", -1.2)).isDone(best, t)).toBe(done);
});
