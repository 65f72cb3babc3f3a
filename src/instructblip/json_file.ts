/** Reads the small JSON files beside a checkpoint. The config classes say what the values must be; this says only: an object. */
import { ConfigError } from "../tensor/errors.ts";
import type { Folder } from "../tensor/source.ts";

export type JsonRecord = Record<string, unknown>;

/** Larger than any config file; tokenizer files pass their own limit. */
const MAX_BYTES = 2 ** 20;

/**
 * The object in a JSON file, or undefined if the folder has no such file.
 *
 * @throws ConfigError `${code}_JSON`; WeightError FILE_TOO_LARGE, BAD_UTF8
 */
export async function readJson(
  folder: Folder,
  file: string,
  code = "CONFIG",
  maxBytes = MAX_BYTES,
): Promise<JsonRecord | undefined> {
  if (!(await folder.has(file))) return undefined;
  const text = await folder.text(file, maxBytes);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    const hint = text.trim() === "" ? "the file is empty" : "was the download cut short?";
    throw new ConfigError(`${code}_JSON`, `${file}: not valid JSON`, { hint });
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new ConfigError(`${code}_JSON`, `${file}: must be a JSON object`);
  }
  return value as JsonRecord;
}
