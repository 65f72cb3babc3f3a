/** JSON as Python writes it, and hints for text that is not JSON. */

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

/** What a text is instead of JSON, for a hint. */
export function insteadOfJson(text: string): string {
  if (text.trim() === "") return "the file is empty";
  if (text.startsWith("version https://git-lfs")) {
    return "this is a Git LFS pointer, not the file itself: run `git lfs pull`, or download the file";
  }
  if (/^\s*<(?:!doctype|html|\?xml)/i.test(text)) return "this is a web page: the download saved an error page";
  return "was the download cut short?";
}
