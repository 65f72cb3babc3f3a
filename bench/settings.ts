/** How long is measured, and what is compared. */
import type { Basis } from "./rows.ts";

/** What is compared: the basis of the rows, or a clock, or the first run, with compilation. */
export type Clock = Basis | "first";
export const CLOCKS: readonly Clock[] = ["cpu", "gpu", "wall", "first"];

export interface Settings {
  readonly rounds: number;
  /** Least time of a case in a round, in milliseconds. */
  readonly turnMs: number;
  /** A variant that plan() does not pick is not timed if one run takes longer, and not run if that is predicted. */
  readonly slowMs: number;
  /** Cases whose every run does HANDICAP more work than is counted. */
  readonly handicap?: RegExp;
}

/** A share that a comparison must find. */
export const HANDICAP = 0.1;

/** Processes a side in a comparison. */
export const RUNS = 8;

/** Rounds of a comparison whose sides are interleaved. */
export const INTERLEAVED_ROUNDS = 10;

export const SETTINGS: Readonly<Record<"full" | "quick", Settings>> = {
  full: { rounds: 5, turnMs: 50, slowMs: 700 },
  quick: { rounds: 3, turnMs: 20, slowMs: 300 },
};
