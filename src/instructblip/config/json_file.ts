/**
 * Reads and writes the small JSON files of a checkpoint. The config classes check the values; here: that it is an object,
 * and which numbers are written as Python floats.
 */
import { ConfigError } from "../../tensor/errors.ts";
import { quote } from "../../tensor/shown.ts";
import { insteadOfJson, withoutPythonNumbers } from "./json_text.ts";

export type JsonRecord = Record<string, unknown>;

/** Deepest nesting. No config has a tenth of it; it keeps recursive code far from the end of the stack. */
const MAX_DEPTH = 100;

/** Parses a file's text to an object. @param file its name @throws ConfigError CONFIG_JSON, or `code` */
export function parseRecord(text: string, file: string, code = "CONFIG_JSON"): JsonRecord {
  const bad = (what: string, options?: ErrorOptions & { hint: string }) =>
    new ConfigError(code, `${file}: ${what}`, options);
  let value: unknown;
  try {
    value = parseJson(withoutPythonNumbers(text));
  } catch (cause) {
    throw bad(`not valid JSON: ${quote((cause as Error).message)}`, { cause, hint: insteadOfJson(text) });
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw bad("must be a JSON object");
  return value as JsonRecord;
}

/** `JSON.parse` for untrusted text. @throws SyntaxError also for text that is nested too deep */
export function parseJson(text: string): unknown {
  if (depthOf(text) > MAX_DEPTH) throw new SyntaxError(`nested deeper than ${MAX_DEPTH}`);
  return JSON.parse(text);
}

/** Nesting depth of brackets in JSON text; for other text any number. */
function depthOf(text: string): number {
  let [depth, deepest, inString] = [0, 0, false];
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (inString) {
      if (c === 0x5c) i++;
      else if (c === 0x22) inString = false;
    } else if (c === 0x22) inString = true;
    else if (c === 0x5b || c === 0x7b) deepest = Math.max(deepest, ++depth);
    else if (c === 0x5d || c === 0x7d) depth--;
  }
  return deepest;
}

/**
 * Fields that transformers requires to be floats: its configs refuse `1` for `1.0`, and JavaScript does not keep the
 * difference. The last row has the fields that version 4 wrote into every config.
 */
const FLOATS = new Set(
  `initializer_factor initializer_range init_std layer_norm_eps layer_norm_epsilon rms_norm_eps rope_theta
  attention_dropout activation_dropout dropout dropout_rate layerdrop hidden_dropout_prob attention_probs_dropout_prob
  classifier_dropout logit_scale_init_value image_mean image_std rescale_factor
  length_penalty repetition_penalty encoder_repetition_penalty diversity_penalty temperature top_p typical_p`.split(
    /\s+/,
  ),
);

/** A value as Python's `json.dumps(value, indent=2)` writes it, `sorted` with sort_keys; ends with a newline. */
export function jsonText(value: unknown, { sorted = false } = {}): string {
  const write = (item: unknown, indent: string, isFloat: boolean): string => {
    if (typeof item === "number") return numberText(item, isFloat);
    if (typeof item !== "object" || item === null) return JSON.stringify(item);
    const inner = `${indent}  `;
    const list = Array.isArray(item);
    const keys = list ? [] : Object.keys(item).filter((key) => (item as JsonRecord)[key] !== undefined);
    if (sorted) keys.sort((a, b) => (a < b ? -1 : 1));
    const entries = list
      ? item.map((element) => write(element ?? null, inner, isFloat))
      : keys.map((key) => `${JSON.stringify(key)}: ${write((item as JsonRecord)[key], inner, FLOATS.has(key))}`);
    const [open, close] = list ? ["[", "]"] : ["{", "}"];
    return entries.length ? `${open}\n${inner}${entries.join(`,\n${inner}`)}\n${indent}${close}` : open + close;
  };
  return `${write(value, "", false)}\n`;
}

/** A number as Python prints it: it switches to an exponent elsewhere than JavaScript, and writes two digits of it. */
function numberText(value: number, isFloat: boolean): string {
  if (!Number.isFinite(value)) throw new ConfigError("CONFIG_RANGE", `JSON has no number ${value}`);
  if (Number.isInteger(value) && !isFloat) return BigInt(value).toString();
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e16)) {
    return value.toExponential().replace(/e([+-])(\d)$/, "e$10$2");
  }
  return Number.isInteger(value) ? `${value}.0` : String(value);
}
