/** What the explorer computes from what it has been told. Pure. */
import type { InterventionData, SweepUnit } from "../../../../src/index.ts";
import { percentOf } from "../../../../src/instructblip/instruments/percent.ts";
import type { Look, SeenWord, Weights } from "../../worker/protocol.ts";

/** One layer and head, or the mean of all (undefined). */
export interface Choice {
  readonly layer: number | undefined;
  readonly head: number | undefined;
}

/** What has been chosen of weights before: of a large model they are millions, and the pointer asks again at each token. */
const known = new WeakMap<Weights, Map<string, Float32Array>>();

/** f32[rows, columns] of a choice. */
export function chosenWeights(weights: Weights, { layer, head }: Choice): Float32Array {
  const choices = known.get(weights) ?? new Map<string, Float32Array>();
  known.set(weights, choices);
  const key = `${layer} ${head}`;
  const chosen = choices.get(key) ?? meanWeights(weights, layer, head);
  choices.set(key, chosen);
  return chosen;
}

function meanWeights(weights: Weights, layer: number | undefined, head: number | undefined): Float32Array {
  const { layers, heads, rows, columns, data } = weights;
  const size = rows * columns;
  const mean = new Float32Array(size);
  const numbers = (one: number | undefined, count: number) =>
    one === undefined ? Array.from({ length: count }, (_, i) => i) : [one];
  const [ls, hs] = [numbers(layer, layers), numbers(head, heads)];
  for (const l of ls) {
    for (const h of hs) {
      const from = (l * heads + h) * size;
      for (let i = 0; i < size; i++) mean[i]! += data[from + i]! / (ls.length * hs.length);
    }
  }
  return mean;
}

const ALL: Choice = { layer: undefined, head: undefined };

/** How much of its attention a token of the answer gave each query: the mean over the language model's layers and heads. */
export function readsOf({ reads }: Look, token: number): Float32Array {
  const { columns } = reads;
  return chosenWeights(reads, ALL).subarray(token * columns, (token + 1) * columns);
}

/** The patches that a query looked at; without a query those of all, each as much as the token read of it. */
export function mapOf(look: Look, choice: Choice, token: number, query: number | undefined): Float32Array {
  const { columns: N, rows: Q } = look.maps;
  const maps = chosenWeights(look.maps, choice);
  if (query !== undefined) return maps.subarray(query * N, (query + 1) * N);
  const reads = readsOf(look, token);
  const whole = reads.reduce((sum, read) => sum + read, 0) || 1;
  const map = new Float32Array(N);
  for (let q = 0; q < Q; q++) {
    for (let i = 0; i < N; i++) map[i]! += (reads[q]! / whole) * maps[q * N + i]!;
  }
  return map;
}

/** The words that a query is surest of after any layer, best first. @param words after each layer; 0 is before all */
export function surestWords(
  words: readonly (readonly SeenWord[])[],
  count: number,
): (SeenWord & { readonly layer: number })[] {
  const best = new Map<number, SeenWord & { readonly layer: number }>();
  for (const [state, list] of words.entries()) {
    for (const word of state > 0 ? list : []) {
      if (!((best.get(word.id)?.logprob ?? Number.NEGATIVE_INFINITY) >= word.logprob)) {
        best.set(word.id, { ...word, layer: state - 1 });
      }
    }
  }
  return [...best.values()].sort((a, b) => b.logprob - a.logprob).slice(0, count);
}

/** The interventions that take parts out, one for each module. */
export function interventionsOf(parts: readonly SweepUnit[], out: ReadonlySet<number>): InterventionData[] {
  const merged = new Map<string, { module: string; at: SweepUnit["places"][number]["at"]; numbers: number[] }>();
  for (const i of [...out].sort((a, b) => a - b)) {
    for (const { module, at, index } of parts[i]!.places) {
      const one = merged.get(`${at} ${module}`) ?? { module, at, numbers: [] };
      one.numbers.push(...(index.head ?? index.token ?? []));
      merged.set(`${at} ${module}`, one);
    }
  }
  return [...merged.values()].map(({ module, at, numbers }) => {
    const index = at === "heads" ? { head: numbers } : { token: numbers };
    return { module, at, op: "zero", index };
  });
}

/** The token of which the model was least sure, the end apart: what there is most to see of. */
export function leastSure({ tokens }: Pick<Look, "tokens">): number {
  const words = tokens.map(({ logprob, isEnd }) => (isEnd ? 0 : logprob));
  return Math.max(0, words.indexOf(Math.min(...words)));
}

/** A grid of heads: a row for each attention. */
export interface HeadGrid {
  readonly group: string;
  readonly rows: readonly { readonly label: string; readonly parts: readonly number[] }[];
}

/** Numbers of parts: of the queries, and of the heads by group. */
export function arrange(parts: readonly SweepUnit[]): { queries: number[]; grids: HeadGrid[] } {
  const queries: number[] = [];
  const groups = new Map<string, Map<string, number[]>>();
  for (const [i, { group, row }] of parts.entries()) {
    if (group === "qformer.queries") {
      queries.push(i);
      continue;
    }
    const rows = groups.get(group) ?? new Map<string, number[]>();
    rows.set(row, [...(rows.get(row) ?? []), i]);
    groups.set(group, rows);
  }
  const grids = [...groups].map(([group, rows]) => {
    return { group, rows: [...rows].map(([label, numbers]) => ({ label, parts: numbers })) };
  });
  return { queries, grids };
}

/** Which of `after` are not in the longest common subsequence with `before`. */
export function changedFrom(before: readonly number[], after: readonly number[]): boolean[] {
  const [n, m] = [before.length, after.length];
  // lengths[i][j]: of the longest common subsequence of before from i on and after from j on
  const lengths = Array.from({ length: n + 1 }, () => new Array<number>(m + 1).fill(0));
  for (let i = n - 1; i >= 0; i--) {
    for (let j = m - 1; j >= 0; j--) {
      const skipped = Math.max(lengths[i + 1]![j]!, lengths[i]![j + 1]!);
      lengths[i]![j] = before[i] === after[j] ? lengths[i + 1]![j + 1]! + 1 : skipped;
    }
  }
  const changed = new Array<boolean>(m).fill(true);
  for (let i = 0, j = 0; i < n && j < m; ) {
    if (before[i] === after[j]) {
      changed[j] = false;
      [i, j] = [i + 1, j + 1];
    } else if (lengths[i + 1]![j]! >= lengths[i]![j + 1]!) i++;
    else j++;
  }
  return changed;
}

/** A log-probability as a probability: as commands write it, but that one too small to matter is `<0.1 %`. */
export function probability(logprob: number): string {
  return Math.exp(logprob) < 0.001 ? "<0.1 %" : percentOf(logprob);
}

/** A share of attention in percent: `100 %`, `12 %`, `0.3 %`. */
export function percent(share: number): string {
  const value = 100 * share;
  if (value < 0.05) return value === 0 ? "0 %" : "<0.1 %";
  return `${value >= 9.95 ? Math.round(value) : value.toFixed(1)} %`;
}

/** A difference of log-probabilities: `−12 nats`, `1.5 nats`, `0.042 nats`. */
export function nats(value: number): string {
  const size = Math.abs(value);
  if (size < 0.0005) return "0 nats";
  const digits = size >= 9.95 ? 0 : size >= 0.995 ? 1 : size >= 0.0995 ? 2 : 3;
  return `${value < 0 ? "−" : ""}${size.toFixed(digits)} nats`;
}

/** The text of a token; one of white space, control characters or marks alone is spelled out. */
export function visibleText(text: string): string {
  if (text === "") return "∅";
  if (!/^[\p{C}\p{Z}\p{M}]*$/u.test(text)) return text.replace(/\p{C}/gu, "·").trim();
  const spelled = (character: string) => `U+${character.codePointAt(0)!.toString(16).toUpperCase().padStart(4, "0")}`;
  return [...text].map((character) => ({ " ": "␣", "\n": "⏎" })[character] ?? spelled(character)).join(" ");
}
