/**
 * When turns are taken: one after another, or, in a process that is compared with others, each when the parent says so, while
 * the others wait. A change of the machine's speed between two turns of a process then falls on all processes alike.
 */

export interface Pace {
  /** Progress for a person. */
  show(text: string): void;
  /** Before the rounds of some cases. */
  begin(names: readonly string[], rounds: number): Promise<void>;
  /** Before a case's turn; rounds are counted from 0. */
  turn(round: number, name: string): Promise<void>;
  /** After the last. */
  end(): void;
}

/** One turn after another. */
export function atOnce(show: (text: string) => void = () => {}): Pace {
  let all = 0;
  return {
    show,
    begin: async (_, rounds) => {
      all = rounds;
    },
    turn: async (round, name) => show(`round ${round + 1} of ${all}: ${name}`),
    end: () => {},
  };
}

/** What a paced process tells its parent. */
export type Message =
  | { readonly begin: readonly string[]; readonly rounds: number }
  | { readonly round: number; readonly name: string };

/** Asks the parent, over the channel that it opened, and goes on at its next message. */
export function asParentSays(): Pace {
  const ask = async (message: Message) => {
    const told = new Promise<void>((resolve) => process.once("message", () => resolve()));
    process.send!(message);
    await told;
  };
  const alone = () => process.exit(1);
  process.once("disconnect", alone);
  return {
    show: () => {},
    begin: (begin, rounds) => ask({ begin, rounds }),
    turn: (round, name) => ask({ round, name }),
    end: () => {
      process.off("disconnect", alone);
      process.disconnect();
    },
  };
}

/** Where a paced process waits, which will go on from there. */
export interface Waiting {
  /** `begin`s so far. */
  readonly section: number;
  readonly names: readonly string[];
  /** -1: before the first. */
  readonly round: number;
  readonly name: string;
}

/** The place after a message. */
export function placeAfter(before: Waiting | undefined, message: Message): Waiting {
  if ("begin" in message) return { section: (before?.section ?? -1) + 1, names: message.begin, round: -1, name: "" };
  return { ...before!, ...message };
}

/**
 * Which of some waiting processes go on, one after another: those with the same case in the same round, in alternating order; one
 * alone that is behind, or whose case the others do not have.
 *
 * @returns their indices
 */
export function nextTurns(all: readonly (Waiting | undefined)[]): number[] {
  const waiting = [...all.entries()].flatMap(([i, at]) => (at ? [{ i, at }] : []));
  const behind = (a: Waiting, b: Waiting) => a.section - b.section || a.round - b.round;
  const first = waiting.map(({ at }) => at).sort(behind)[0];
  const level = waiting.filter(({ at }) => behind(at, first) === 0);
  const alone = level.find(({ at }) => level.some((other) => at.name !== "" && !other.at.names.includes(at.name)));
  const { at } = alone ?? level[0];
  const turn = at.round + Math.max(0, at.names.indexOf(at.name));
  const chosen = alone ? [alone.i] : level.filter((other) => other.at.name === at.name).map(({ i }) => i);
  return rotated(chosen, turn);
}

/** Whichever is first in one turn is last in the next; of three or more, every order comes. */
export function rotated<T>(items: readonly T[], turn: number): T[] {
  const start = ((turn % items.length) + items.length) % items.length;
  const order = [...items.slice(start), ...items.slice(0, start)];
  return turn % 2 !== 0 && items.length > 2 ? order.reverse() : order;
}
