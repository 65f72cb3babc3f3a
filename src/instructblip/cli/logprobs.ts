/** The log-probabilities of answers, as a table for people and as fields of JSON. Pure. */
import type { AnswerLogprobs, TokenLogprob } from "../generation/types.ts";
import { percentOf } from "../instruments/percent.ts";
import { tokenText } from "../tokenizer/token_text.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import { formatTable } from "./format.ts";

type Words = Pick<Tokenizer, "decode" | "convert_ids_to_tokens">;

interface NamedToken extends TokenLogprob {
  readonly text: string;
}

/** One answer of a line of `--json`; JSON has null for -Infinity. */
export interface NamedLogprobs {
  readonly sum: number;
  readonly tokens: readonly (NamedToken & { readonly top: readonly NamedToken[] })[];
}

export function namedLogprobs({ sum, tokens }: AnswerLogprobs, tokenizer: Words): NamedLogprobs {
  const named = ({ id, logprob }: TokenLogprob) => ({ id, text: tokenText(tokenizer, id), logprob });
  return { sum, tokens: tokens.map((token) => ({ ...named(token), top: token.top.map(named) })) };
}

/** A line for each token, with its alternatives, and one for the sum. */
export function logprobTable({ sum, tokens }: AnswerLogprobs, tokenizer: Words): string {
  const quoted = (id: number) => JSON.stringify(tokenText(tokenizer, id));
  const rows = tokens.map(({ id, logprob, top }) => {
    const others = top.filter((other) => other.id !== id);
    const cells = others.map((other) => `${quoted(other.id)} ${percentOf(other.logprob)}`);
    return [quoted(id), short(logprob), percentOf(logprob), cells.join("  ")];
  });
  const head = ["token", "log p", "p", tokens.some(({ top }) => top.length > 0) ? "instead" : ""];
  return formatTable([head, ...rows, ["sum", short(sum), percentOf(sum), ""]], [1, 2]);
}

/** `-0.048`, `-3e-5`. */
function short(logprob: number): string {
  return logprob !== 0 && Math.abs(logprob) < 5e-4 ? logprob.toExponential(0) : logprob.toFixed(3);
}
