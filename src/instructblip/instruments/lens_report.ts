/** A logit lens with the texts of its tokens: as JSON, and as tables for a terminal. Pure. */
import type { TokenLogprob } from "../generation/types.ts";
import { tokenText } from "../tokenizer/token_text.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import type { LensToken, LogitLens } from "./lens.ts";
import { percentOf } from "./percent.ts";

export interface Word extends TokenLogprob {
  readonly text: string;
}

export interface StateWords {
  /** The log-probability of the answer's token; null of image tokens. */
  readonly logprob: number | null;
  readonly top: readonly Word[];
}

/** What `instructblip lens --json` writes. */
export interface LensReport {
  readonly image: string;
  readonly prompt: string;
  /** Its tokens' texts, in a row. */
  readonly answer: string;
  /** states[0] is the input of the first layer, states[i] the output of layer i - 1. */
  readonly answer_tokens: readonly {
    readonly position: number;
    readonly id: number;
    readonly text: string;
    readonly states: readonly StateWords[];
  }[];
  /** None of an encoder-decoder. */
  readonly image_tokens: readonly { readonly position: number; readonly states: readonly StateWords[] }[];
  readonly maps: {
    /** Patches of the image. */
    readonly rows: number;
    readonly columns: number;
    /** Of each query the weight of every patch, row by row. */
    readonly weights: readonly (readonly number[])[];
  };
}

export function lensReport(
  lens: LogitLens,
  about: Pick<LensReport, "image" | "prompt">,
  tokenizer: Pick<Tokenizer, "decode" | "convert_ids_to_tokens">,
): LensReport {
  const texts = new Map<number, string>();
  const textOf = (id: number) => {
    const text = texts.get(id) ?? tokenText(tokenizer, id);
    texts.set(id, text);
    return text;
  };
  const named = ({ states }: LensToken) =>
    states.map(({ logprob, top }) => ({ logprob, top: top.map((word) => ({ ...word, text: textOf(word.id) })) }));
  const answer_tokens = lens.answer.map((token) => {
    const id = token.id!;
    return { position: token.position, id, text: textOf(id), states: named(token) };
  });
  return {
    ...about,
    answer: answer_tokens.map(({ text }) => text).join(""),
    answer_tokens,
    image_tokens: lens.image.map((token) => ({ position: token.position, states: named(token) })),
    maps: { ...lens.maps, weights: lens.maps.weights.map((map) => [...map]) },
  };
}

/** A state by its layer: `input`, then the layers' numbers. */
export const layerName = (state: number) => (state === 0 ? "input" : String(state - 1));

/** The most probable words of any layer, each where it is most probable. */
export function strongest(states: readonly StateWords[], count: number): (Word & { readonly state: number })[] {
  const best = new Map<number, Word & { readonly state: number }>();
  for (const [state, { top }] of states.entries()) {
    for (const word of top) {
      const known = best.get(word.id);
      if (state > 0 && !(known && known.logprob >= word.logprob)) best.set(word.id, { ...word, state });
    }
  }
  return [...best.values()].sort((a, b) => b.logprob - a.logprob).slice(0, count);
}

/** Rows of cells as a table. */
type Tabulate = (rows: readonly (readonly string[])[]) => string;

/**
 * Two tables: for each layer the word that it would choose in the place of each token of the answer, split into as many as fit
 * into `width`; and for each image token the words of which any layer is surest.
 */
export function lensTables(report: LensReport, width: number, tabulate: Tabulate): string {
  const { answer_tokens, image_tokens } = report;
  const quoted = ({ text, logprob }: Word) => `${JSON.stringify(text)} ${percentOf(logprob)}`;
  const columns = answer_tokens.map(({ text, states }) => [
    JSON.stringify(text),
    ...states.map(({ top }) => quoted(top[0]!)),
  ]);
  const first = ["layer", ...(answer_tokens[0]?.states ?? []).map((_, state) => layerName(state))];
  const widthOf = (column: readonly string[]) => Math.max(...column.map(({ length }) => length));
  const tables: string[][][] = [];
  let left = 0;
  for (const column of columns) {
    left -= widthOf(column) + 2;
    if (left < 0) {
      tables.push([first]);
      left = width - widthOf(first) - widthOf(column) - 2;
    }
    tables.at(-1)!.push(column);
  }
  const transposed = (table: readonly (readonly string[])[]) =>
    first.map((_, row) => table.map((column) => column[row]!));
  const answer = tables.map((table) => tabulate(transposed(table))).join("\n");
  const rows = image_tokens.map(({ states }, i) => {
    const words = strongest(states, states[0]!.top.length).map((word) => `${quoted(word)} in ${layerName(word.state)}`);
    return [String(i), words.join("  ")];
  });
  const head = "what each layer would say, token by token";
  if (rows.length === 0) return `${head}\n${answer}`;
  return `${head}\n${answer}\nwhat the image tokens say, and the layer that is surest\n${tabulate([["query", "words"], ...rows])}`;
}
