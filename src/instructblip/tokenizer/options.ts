/** Checks of the options of encoding and decoding. */
import { optionsOf, refuseUnknown } from "../../tensor/arguments.ts";
import { InputError } from "../../tensor/errors.ts";
import { type Fail, flag, oneOf } from "../config/options.ts";
import type { DecodeOptions, EncodeOptions, Side } from "./types.ts";

/** Names of the options of encoding. */
export const ENCODE_OPTIONS: readonly string[] = [
  "add_special_tokens",
  "padding",
  "truncation",
  "max_length",
  "pad_to_multiple_of",
  "padding_side",
  "truncation_side",
] satisfies (keyof EncodeOptions)[];

/** Checks the options of encoding that are not checked where they are used. */
export function encodeOptions(name: string, given: readonly unknown[]): EncodeOptions {
  if (given.every((options) => options === undefined)) return {};
  const options = optionsOf(name, given, 1, 1);
  refuseUnknown(name, options, ENCODE_OPTIONS);
  expectFlags(options, ["add_special_tokens"]);
  return options;
}

export function decodeOptions(name: string, given: readonly unknown[]): DecodeOptions {
  if (given.every((options) => options === undefined)) return {};
  if (typeof given[0] === "boolean") {
    const hint = `write { skip_special_tokens: ${given[0]} }`;
    throw new InputError("ARGUMENTS", `the options of ${name} must be an object, got ${given[0]}`, { hint });
  }
  const options = optionsOf(name, given, 1, 1);
  const flags = ["skip_special_tokens", "clean_up_tokenization_spaces"] satisfies (keyof DecodeOptions)[];
  refuseUnknown(name, options, flags);
  expectFlags(options, flags);
  return options;
}

const fail: Fail = (message, hint) => {
  throw new InputError("TOKENIZER_OPTION", message, { hint });
};
const isFlag = flag().row.check;
const isSide = oneOf("left", "right").row.check;

function expectFlags(options: Record<string, unknown>, names: readonly string[]): void {
  for (const name of names) if ((options[name] ?? null) !== null) isFlag(name, options[name], 0, fail);
}

export function checkSide(side: unknown, key: string): Side {
  isSide(key, side, 0, fail);
  return side as Side;
}
