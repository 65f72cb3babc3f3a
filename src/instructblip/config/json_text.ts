/** JSON as Python writes it, and what is wrong with text that is not JSON. */
import { quote } from "../../tensor/shown.ts";

/**
 * Python's `json.dumps` writes numbers that JSON does not have, and its `json.loads` reads them. Infinity becomes a number
 * that overflows to it, NaN a string, which every numeric field refuses as it would refuse NaN.
 */
export function withoutPythonNumbers(text: string): string {
  if (!/NaN|Infinity/.test(text)) return text;
  return text.replace(/"(?:[^"\\]|\\.)*"|\bNaN\b|-?\bInfinity\b/g, (found) => {
    if (found.startsWith('"')) return found;
    return found === "NaN" ? '"NaN"' : found.replace("Infinity", "1e999");
  });
}

/** A comma that nothing follows but the end of its list or object; strings are matched first, so as to be skipped. */
const LAST_COMMA = /"(?:[^"\\]|\\.)*"|,(?=\s*[\]}])/g;

/** What is wrong with a text that JSON.parse refused with `error`, and where. */
export function jsonMistake(text: string, error: Error): string {
  for (const { 0: found, index } of text.matchAll(LAST_COMMA)) {
    if (found === ",") return `a comma after the last element, ${placeIn(text, index)}`;
  }
  const position = / at position (\d+)/.exec(error.message)?.[1];
  if (position === undefined) return quote(error.message);
  return `${quote(error.message.split(" in JSON at ")[0]!)}, ${placeIn(text, Number(position))}`;
}

/** Counted from 1, columns in UTF-16 units. */
function placeIn(text: string, index: number): string {
  const lines = text.slice(0, index).split("\n");
  return `line ${lines.length}, column ${lines.at(-1)!.length + 1}`;
}

/** What a text is instead of JSON, for a hint. */
export function insteadOfJson(text: string): string {
  if (text.trim() === "") return "the file is empty";
  if (text.startsWith("version https://git-lfs")) {
    return "this is a Git LFS pointer, not the file itself: run `git lfs pull`, or download the file";
  }
  if (/^\s*<(?:!doctype|html|\?xml)/i.test(text)) return "this is a web page: the download saved an error page";
  return "was the download cut short?";
}
