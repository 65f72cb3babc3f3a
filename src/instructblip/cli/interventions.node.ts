/** `--interventions FILE`: a JSON array of interventions. */
import { readFile } from "node:fs/promises";
import { type EngineError, InputError } from "../../tensor/errors.ts";
import { systemReason } from "../../tensor/files/system_error.ts";
import { parseJson } from "../config/json_file.ts";
import { jsonMistake } from "../config/json_text.ts";
import { checkInterventions, type Intervention } from "../interventions/intervention.ts";

/**
 * Reads a file and checks it as far as possible without a model; undefined if there is no file.
 *
 * @throws InputError NOT_FOUND, IO, BAD_JSON, and those of checkInterventions
 */
export async function readInterventions(file: string | undefined): Promise<readonly Intervention[] | undefined> {
  if (file === undefined) return undefined;
  const name = `--interventions ${file}`;
  let text: string;
  try {
    text = new TextDecoder().decode(await readFile(file)); // without a byte order mark
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT") throw new InputError("NOT_FOUND", `${name}: no such file`);
    throw new InputError("IO", `${name}: ${systemReason(error)}`);
  }
  let given: unknown;
  try {
    given = parseJson(text);
  } catch (error) {
    throw new InputError("BAD_JSON", `${name}: the file is not valid JSON: ${jsonMistake(text, error as Error)}`, {
      hint: '[{"module": "qformer.encoder.layer.0.crossattention", "op": "zero"}]',
    });
  }
  try {
    checkInterventions(given, true);
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    const { code, hint } = error as EngineError;
    throw new InputError(code, `${name}: ${error.message.split("\n    hint: ")[0]}`, { hint });
  }
  return given as readonly Intervention[];
}
