/** Attribution with the texts of tokens and words: as JSON, as tables for a terminal, and as maps to draw. Pure. */
import { nats, type ReportedToken, signed } from "../sweep/report.ts";
import type { Attribution, TokenAttention } from "./attribute.ts";
import type { OccludedWord, WordOcclusion } from "./words.ts";

type Numbers = readonly number[];

export interface ReportedWord {
  readonly text: string;
  /** Of the prompt, in UTF-16 units. */
  readonly start: number;
  readonly end: number;
  /** Of each token of the answer, in nats. */
  readonly drops: Numbers;
  /** Of each token of the answer: the share that the rollout gives the word's tokens, in the language model and the Q-Former. */
  readonly rollout?: Numbers;
}

/** What `instructblip attribute --json` writes. Lists of patches are row by row, above 0 where a token rests on a patch. */
export interface AttributionReport {
  readonly image: string;
  readonly prompt: string;
  /** Its tokens' texts, in a row. */
  readonly answer: string;
  /** In nats. */
  readonly logprob: number;
  readonly answer_tokens: readonly ReportedToken[];
  readonly grid: { readonly rows: number; readonly columns: number };
  readonly occlusion: {
    readonly window: number;
    readonly stride: number;
    readonly fill: string;
    readonly windows: number;
    /** Of each token of the answer and each patch, in nats. */
    readonly drops: readonly Numbers[];
  } | null;
  /** What an occluded word became. */
  readonly word: WordOcclusion;
  readonly words: readonly ReportedWord[] | null;
  /** Of each token of the answer, as attribute() has them. */
  readonly rollout:
    | readonly (MapShares & {
        readonly instruction: Numbers;
        readonly prompt: Numbers;
        readonly queries: number;
        readonly answer: number;
      })[]
    | null;
  readonly cross_attention: readonly MapShares[] | null;
}

interface MapShares {
  readonly patches: Numbers;
  readonly class_token: number;
}

export function attributionReport(
  { answer, logprobs, grid, image, words: drops, attention }: Attribution,
  words: readonly OccludedWord[],
  about: Pick<AttributionReport, "image" | "prompt" | "word">,
  textOf: (id: number) => string,
): AttributionReport {
  const answer_tokens = answer.map((id, t) => ({ id, text: textOf(id), logprob: logprobs[t]! }));
  return {
    ...about,
    answer: answer_tokens.map(({ text }) => text).join(""),
    logprob: sum(logprobs),
    answer_tokens,
    grid: { rows: grid.rows, columns: grid.columns },
    occlusion: image && {
      window: image.window,
      stride: image.stride,
      fill: image.fill,
      windows: image.windows,
      drops: image.drops.map((drops) => [...drops]),
    },
    words:
      drops &&
      words.map((word, w) => ({
        text: word.text,
        start: word.start,
        end: word.end,
        drops: drops[w]!,
        ...(attention && { rollout: attention.map((token) => wordShare(word, token)) }),
      })),
    rollout: listOf(attention, ({ rollout }) => ({
      ...rollout,
      patches: [...rollout.patches],
      instruction: [...rollout.instruction],
      prompt: [...rollout.prompt],
    })),
    cross_attention: listOf(attention, ({ cross_attention }) => ({
      ...cross_attention,
      patches: [...cross_attention.patches],
    })),
  };
}

const listOf = <T>(attention: readonly TokenAttention[] | null, of: (token: TokenAttention) => T): T[] | null =>
  attention?.map(of) ?? null;
const sum = (list: Numbers) => list.reduce((total, x) => total + x, 0);

function wordShare({ tokens, qformer_tokens }: OccludedWord, { rollout }: TokenAttention): number {
  const own = rollout.prompt.subarray(tokens.from, tokens.to);
  const read = qformer_tokens ? rollout.instruction.subarray(qformer_tokens.from, qformer_tokens.to) : [];
  return sum([...own, ...read]);
}

/** One way to see where an answer looks: a map of the patches for each token. */
export interface MethodMaps {
  readonly name: "occlusion" | "rollout" | "cross-attention";
  /** Of each token of the answer. */
  readonly maps: readonly Numbers[];
  /** Of the whole answer: the sum of drops, the mean of shares. */
  readonly whole: Numbers;
  /** Of the class token, of shares. */
  readonly class_tokens?: Numbers;
}

export function methodMaps({ occlusion, rollout, cross_attention }: AttributionReport): MethodMaps[] {
  const added = (maps: readonly Numbers[], by: number) => maps[0]!.map((_, i) => sum(maps.map((map) => map[i]!)) / by);
  const shares = (name: MethodMaps["name"], of: readonly MapShares[] | null): MethodMaps[] => {
    if (!of) return [];
    const maps = of.map(({ patches }) => patches);
    return [{ name, maps, whole: added(maps, maps.length), class_tokens: of.map(({ class_token }) => class_token) }];
  };
  const drops = occlusion
    ? [{ name: "occlusion" as const, maps: occlusion.drops, whole: added(occlusion.drops, 1) }]
    : [];
  return [...drops, ...shares("rollout", rollout), ...shares("cross-attention", cross_attention)];
}

/** A share in percent: `3.1 %`. */
export const share = (value: number) => `${(100 * value).toFixed(1)} %`;

/** Sentences above the tables. */
export function attributionLines({ answer, logprob, occlusion, words }: AttributionReport): string[] {
  const parts = [
    ...(occlusion
      ? [`${occlusion.windows} windows of ${occlusion.window} x ${occlusion.window} patches (${occlusion.fill})`]
      : []),
    ...(words ? [`${words.length} words`] : []),
  ];
  const said = parts.length > 0 ? `; occluded: ${parts.join(", ")}` : "";
  return [`answer ${JSON.stringify(answer)}, log p ${nats(logprob)}${said}`];
}

/** Characters of a map in a terminal, from nothing to most. */
const SHADES = " .:-=+*#%@";

/** Rows of cells as a table. */
type Tabulate = (rows: readonly (readonly string[])[], right?: readonly number[]) => string;

/** Tables: for each token where it rests most; the words; and a small map of the whole answer. */
export function attributionTables(report: AttributionReport, tabulate: Tabulate): string {
  const { answer_tokens, words, grid } = report;
  const methods = methodMaps(report);
  const place = (map: Numbers, text: (value: number) => string) => {
    const most = map.indexOf(Math.max(...map));
    if (map[most]! <= 0 || text(map[most]!) === "0") return "nowhere";
    return `row ${Math.floor(most / grid.columns)}, column ${most % grid.columns}: ${text(map[most]!)}`;
  };
  const textOf = (name: MethodMaps["name"]) => (name === "occlusion" ? dropText : share);
  const wordOf = (t: number) => {
    const [best] = words!.toSorted((a, b) => b.drops[t]! - a.drops[t]!) as [ReportedWord];
    const text = dropText(best.drops[t]!);
    return best.drops[t]! <= 0 || text === "0" ? "none" : `${JSON.stringify(best.text)} ${text}`;
  };
  const hasWords = words !== null && words.length > 0;
  const tokens = [
    ["token", "log p", ...methods.map(({ name }) => name), ...(hasWords ? ["word"] : [])],
    ...answer_tokens.map(({ text, logprob }, t) => [
      JSON.stringify(text),
      nats(logprob),
      ...methods.map(({ name, maps }) => place(maps[t]!, textOf(name))),
      ...(hasWords ? [wordOf(t)] : []),
    ]),
  ];
  const parts = [`where each token rests most, of ${grid.rows} x ${grid.columns} patches\n${tabulate(tokens, [1])}`];
  if (hasWords) {
    const shares = words.some(({ rollout }) => rollout);
    const rows = words.map(({ text, drops, rollout }) => [
      JSON.stringify(text),
      dropText(sum(drops)),
      ...(rollout ? [share(sum(rollout) / rollout.length)] : []),
    ]);
    parts.push(
      `what the answer loses without a word\n${tabulate([["word", "change", ...(shares ? ["rollout"] : [])], ...rows], [1, 2])}`,
    );
  }
  const [first] = methods;
  if (first) {
    const most = Math.max(...first.whole);
    const low = first.name === "occlusion" ? 0 : Math.min(...first.whole);
    const shade = (value: number) => SHADES[Math.round(9 * Math.max(0, (value - low) / (most - low || 1)))]!.repeat(2);
    const lines = Array.from({ length: grid.rows }, (_, y) =>
      first.whole
        .slice(y * grid.columns, (y + 1) * grid.columns)
        .map(shade)
        .join(""),
    );
    const text = textOf(first.name)(most);
    parts.push(`the whole answer by ${first.name}, @ is ${text}\n${lines.map((line) => `|${line}|\n`).join("")}`);
  }
  return parts.join("\n");
}

/** A drop as the change that it is: `-9.81` without the part. */
export const dropText = (drop: number) => signed(-drop);
