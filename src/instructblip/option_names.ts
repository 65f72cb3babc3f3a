/** Options by name: those there are, those of Hugging Face that there are not, and all others, which are mistakes. */
import { InputError, nearest } from "../tensor/errors.ts";
import { quote } from "../tensor/strict_json.ts";

/** What is said of an option that is not supported; undefined: its value changes nothing. */
export type Word = (value: unknown) => string | undefined;

/**
 * Refuses what a function would drop in silence. Undefined and null are as if not given.
 *
 * @param caller the function, for messages
 * @param unsupported options that Hugging Face has, or that one may come upon, and what to do instead
 * @throws InputError UNKNOWN_OPTION with the nearest right name, UNSUPPORTED_OPTION with what to do
 */
export function refuseOptions(
  caller: string,
  given: object,
  known: readonly string[],
  unsupported: Readonly<Record<string, Word>> = {},
): void {
  if (typeof given !== "object" || given === null || Array.isArray(given)) {
    throw new InputError("UNKNOWN_OPTION", `${caller}: options are an object, got ${typeof given}`, {
      hint: `options: ${known.join(", ")}`,
    });
  }
  for (const [name, value] of Object.entries(given)) {
    if (known.includes(name) || value === undefined || value === null) continue;
    const word = Object.hasOwn(unsupported, name) ? unsupported[name] : undefined;
    if (word) {
      const hint = word(value);
      if (hint === undefined) continue;
      throw new InputError("UNSUPPORTED_OPTION", `${caller}: ${name} is not supported here`, { hint });
    }
    const close = nearest(name.slice(0, 80), known);
    throw new InputError("UNKNOWN_OPTION", `${caller} has no option ${quote(name)}`, {
      hint: close ? `did you mean ${close}?` : `options: ${known.join(", ")}`,
    });
  }
}
