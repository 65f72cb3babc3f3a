/** `--interventions FILE`: a JSON array of interventions. */
import { readFile } from "node:fs/promises";
import { type EngineError, InputError } from "../../tensor/errors.ts";
import { parseJson } from "../config/json_file.ts";
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
    text = await readFile(file, "utf8");
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT") throw new InputError("NOT_FOUND", `${name}: no such file`);
    throw new InputError("IO", `${name}: ${code ?? (error as Error).message}`);
  }
  let given: unknown;
  try {
    given = parseJson(text);
  } catch {
    throw new InputError("BAD_JSON", `${name}: the file is not valid JSON`, {
      hint: '[{"module": "qformer.encoder.layer.0.crossattention", "op": "zero"}]',
    });
  }
  try {
    checkInterventions(given);
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    const { code, hint } = error as EngineError;
    throw new InputError(code, `${name}: ${error.message.split("\n    hint: ")[0]}`, { hint });
  }
  return given as readonly Intervention[];
}
