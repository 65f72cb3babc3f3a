/**
 * Tokenizes captions for CIDEr, as pycocoevalcap does: Stanford's PTBTokenizer 3.4.1 with -lowerCase, punctuation dropped.
 *
 * Covers what captions are made of: contractions, punctuation, numbers, hyphens, common abbreviations, brackets. It follows
 * the rules and has not been checked against the Java program, which also handles URLs, emoticons, dates and rarer
 * abbreviations; for a published score, use pycocoevalcap as well.
 */

const TOKEN = new RegExp(
  [
    "(?:\\p{L}\\.){2,}", // u.s. a.m.
    "(?:mr|mrs|ms|dr|prof|st|jr|sr|vs|etc|inc|ltd)\\.(?=\\s)",
    "\\p{Nd}+(?:[.,:/]\\p{Nd}+)+", // 1,000 2.5 7:30 1/2
    "[\\p{L}\\p{M}\\p{N}_]+(?:['/-][\\p{L}\\p{M}\\p{N}_]+)*",
    "['’](?:s|re|ve|ll|d|m)(?![\\p{L}\\p{N}])", // after a quote or a bracket
    "[()[\\]{}]",
    "\\.{2,}|-{2,}|[^\\s]",
  ].join("|"),
  "gu",
);

/** Upper case in pycocoevalcap's list of dropped tokens, lower case in the tokenizer's output: so they are kept. */
const BRACKETS: Readonly<Record<string, string>> = {
  "(": "-lrb-",
  ")": "-rrb-",
  "[": "-lsb-",
  "]": "-rsb-",
  "{": "-lcb-",
  "}": "-rcb-",
};
const DROPPED = /^(?:['"`‘’“”.?!,:;…–—-]|\.{2,}|-{2,})$/u;

const CLITIC = /^(.+)(n't|'(?:s|re|ve|ll|d|m))$/u;
/** Two words written as one; as in the Penn Treebank. */
const JOINED = new Map([
  ["cannot", ["can", "not"]],
  ["gimme", ["gim", "me"]],
  ["gonna", ["gon", "na"]],
  ["gotta", ["got", "ta"]],
  ["lemme", ["lem", "me"]],
  ["wanna", ["wan", "na"]],
]);

/** Words in lower case, without punctuation. */
export function ptbTokenize(caption: string): string[] {
  const words: string[] = [];
  for (const [token] of caption.toLowerCase().replace(/[‘’]/g, "'").matchAll(TOKEN)) {
    if (DROPPED.test(token)) continue;
    const clitic = CLITIC.exec(token);
    words.push(...(clitic ? clitic.slice(1) : (JOINED.get(token) ?? [BRACKETS[token] ?? token])));
  }
  return words;
}
