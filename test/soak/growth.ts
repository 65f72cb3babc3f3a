/** Detects growth of memory in a long run. */

/** What is in use at a moment of a run; bytes, but for counts. */
export interface Sample {
  /** Rounds done. */
  readonly done: number;
  readonly live: number;
  readonly pooled: number;
  readonly buffers: number;
  readonly rss: number;
  readonly heapUsed: number;
}

/**
 * The host's memory is a matter of what its allocators keep, and of when: it counts as growing if the least of the last
 * third exceeds all of the middle third, by more than so much.
 */
const SLACK = { rss: 24 * 2 ** 20, heapUsed: 4 * 2 ** 20 } as const;

/**
 * What grows in a run, in words. What the GPU holds must be the same at the end as it was after the first third, to the
 * byte, as the rounds are alike.
 */
export function growth(samples: readonly Sample[]): string[] {
  if (samples.length < 6) return [];
  const third = Math.floor(samples.length / 3);
  const [middle, end] = [samples.slice(third, 2 * third), samples.slice(2 * third)];
  const exact = (["live", "pooled", "buffers"] as const).flatMap((name) => {
    const [before, after] = [middle[0][name], end[end.length - 1][name]];
    return after > before ? [`${name} ${before} after ${middle[0].done}, ${after} in the end`] : [];
  });
  const host = (["rss", "heapUsed"] as const).flatMap((name) => {
    const before = Math.max(...middle.map((sample) => sample[name]));
    const after = Math.min(...end.map((sample) => sample[name]));
    return after > before + SLACK[name] ? [`${name} at most ${before} halfway, at least ${after} in the end`] : [];
  });
  return [...exact, ...host];
}
