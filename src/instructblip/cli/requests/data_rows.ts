/** The rows of data sets with fields by our names, and as requests. */
import { InputError } from "../../../tensor/errors.ts";
import { quote } from "../../../tensor/shown.ts";
import {
  type ColumnOptions,
  type Columns,
  columnsOf,
  type Field,
  hasColumn,
  listOfColumns,
  withFields,
} from "../../data/columns.ts";
import { EmbeddedImage, type Row } from "../../data/row.ts";
import { fillTemplate, hasSlot, parseObject, slotsOf } from "../../evaluation/task.ts";
import type { GenerationOptions } from "../../generation/options.ts";
import { type Line, lineText, type ParsedLine, type RequestId, requestOf } from "./requests.ts";

/** How a data set is read, by options of the command line. */
export interface DataOptions extends ColumnOptions {
  /** Of a folder that has several. */
  readonly split?: string;
}

/** Whether an option names a column. */
export const namesColumns = ({ idColumn, imageColumn, questionColumn, answerColumn }: ColumnOptions) =>
  [idColumn, imageColumn, questionColumn, answerColumn].some((name) => name !== undefined);

/** Fields of rows by our names. Their columns are found in the schema, or in the first row. */
export class ColumnsOf {
  readonly #path: string;
  readonly #options: ColumnOptions;
  readonly #needed: readonly Field[];
  readonly #schema: readonly string[] | undefined;
  readonly #isJsonl: boolean;
  #columns: Columns | undefined;
  #row = 0;

  /** @param set undefined for JSONL, whose lines have our names unless an option says otherwise */
  constructor(
    path: string,
    options: ColumnOptions,
    needed: readonly Field[],
    set: { readonly columns: readonly string[] | undefined } | undefined,
  ) {
    this.#path = path;
    this.#options = options;
    this.#needed = needed;
    this.#schema = set?.columns;
    this.#isJsonl = set === undefined;
  }

  /** @throws InputError UNKNOWN_COLUMN */
  fields(value: Record<string, unknown>): Record<string, unknown> {
    if (this.#isJsonl && !namesColumns(this.#options)) return value;
    this.#columns ??= columnsOf(this.#schema ?? Object.keys(value), this.#options, this.#needed, this.#path);
    return withFields(value, this.#columns, this.#row++);
  }

  /** The id of a row of which only the key could be read: the key, unless another column has ids. */
  idOfKey(key: string | undefined): string | null {
    const column = this.#columns ? this.#columns.id : (this.#options.idColumn ?? "__key__");
    return key !== undefined && column === "__key__" ? key : null;
  }
}

/** The rows of JSONL, blank lines left out. */
export async function* rowsOfLines(lines: AsyncIterable<Line>): AsyncGenerator<Row> {
  for await (const line of lines) {
    const where = `line ${line.number}`;
    try {
      const text = lineText(line);
      if (text !== undefined) yield { where, value: parseObject(text, "BAD_DATA") };
    } catch (error) {
      if (!(error instanceof InputError)) throw error;
      yield { where, error };
    }
  }
}

/** What rows are asked, where they are no requests of their own. */
export interface Asked extends DataOptions {
  /** A template. Default: the question. */
  readonly prompt?: string;
  readonly generation: GenerationOptions;
}

const REQUEST = ["images", "prompts"];

/** Whether an object of JSONL is a row with an image, without a field that only a request has. */
export function isDataRow(value: Readonly<Record<string, unknown>>): boolean {
  const names = Object.keys(value);
  const ofRequest = [...REQUEST, "generation", "candidates", "interventions"];
  return !names.some((name) => ofRequest.includes(name)) && hasColumn(names, "image");
}

/** Rows that tell which columns there are, where no schema does. */
const FIRST_ROWS = 100;

/** The columns of rows: of their schema, or of the first rows; undefined if none of these can be read. */
export async function columnsOfRows(
  rows: AsyncIterable<Row>,
  schema: readonly string[] | undefined,
): Promise<readonly string[] | undefined> {
  if (schema !== undefined) return schema;
  const names = new Set<string>();
  let count = 0;
  for await (const row of rows) {
    if (!("error" in row)) for (const name of Object.keys(row.value)) names.add(name);
    if (++count === FIRST_ROWS) break;
  }
  return names.size === 0 ? undefined : [...names];
}

/**
 * Checks before the model is loaded that there is what a template takes.
 *
 * @param columns undefined if they are not known
 * @throws InputError UNKNOWN_COLUMN, BAD_TASK
 */
export function checkPrompt(
  path: string,
  prompt: string,
  options: DataOptions,
  columns: readonly string[] | undefined,
): void {
  if (columns === undefined) return;
  const found = columnsOf(columns, options, [], path);
  const unknown = slotsOf(prompt).find((field) => !columns.includes(field) && field !== "id" && !(field in found));
  if (unknown === undefined) return;
  const text = `${path}: --prompt: there is no column ${quote(unknown)}; ${listOfColumns(columns)}`;
  throw new InputError("UNKNOWN_COLUMN", text, { hint: "{{ and }} are braces" });
}

/**
 * Requests of rows: of rows that are requests, with images and prompts; else each row's image and question.
 *
 * @throws InputError UNKNOWN_COLUMN, UNSUPPORTED_OPTION, BAD_TASK (the template)
 */
export async function* requestsOf(
  path: string,
  rows: AsyncIterable<Row>,
  asked: Asked,
  set: { readonly columns: readonly string[] | undefined } | undefined,
): AsyncGenerator<ParsedLine> {
  const { prompt = "{question}", generation } = asked;
  const needed: Field[] = ["image", ...(hasSlot(prompt, "question") ? (["question"] as const) : [])];
  // Columns of JSONL are found by usual names too: its rows are those of the same JSON array.
  const columns = new ColumnsOf(path, asked, needed, set ?? { columns: undefined });
  let areRequests: boolean | undefined;
  for await (const row of rows) {
    const at = (error: InputError) => new InputError(error.code, `${row.where}: ${error.message}`, { cause: error });
    if ("error" in row) {
      yield { id: columns.idOfKey(row.key), error: at(row.error) };
      continue;
    }
    areRequests ??= areOwnRequests(row.value, asked, set);
    if (areRequests) {
      if (asked.prompt !== undefined || Object.keys(generation).length > 0) {
        throw new InputError(
          "UNSUPPORTED_OPTION",
          `${path}: its rows are requests, with prompts and options of their own`,
          {
            hint: "leave --prompt and options of generation out",
          },
        );
      }
      const parsed = requestOf(withoutNulls(row.value));
      yield parsed.error ? { id: parsed.id, error: at(parsed.error) } : parsed;
      continue;
    }
    const value = columns.fields(row.value);
    const id = idOf(value.id);
    try {
      if (id === undefined) throw new InputError("BAD_DATA", "id must be a text or a number");
      const images = [value.image].flat();
      if (
        images.length === 0 ||
        !images.every((image) => (typeof image === "string" && image !== "") || image instanceof EmbeddedImage)
      ) {
        throw new InputError("BAD_DATA", "there is no image in this row");
      }
      const shown = images as EmbeddedImage[];
      const prompts = [fillTemplate(prompt, value)];
      yield { id, request: { images: shown.length > 1 ? [shown] : shown, prompts, generation } }; // all of one prompt
    } catch (error) {
      if (!(error instanceof InputError)) throw error;
      yield { id: id ?? null, error: at(error) };
    }
  }
}

/** Whether rows are requests, by the columns of the first: with images and prompts, unless an option names a column. */
const areOwnRequests = (
  first: Readonly<Record<string, unknown>>,
  options: DataOptions,
  set: { readonly columns: readonly string[] | undefined } | undefined,
) => REQUEST.every((name) => (set?.columns ?? Object.keys(first)).includes(name)) && !namesColumns(options);

/** The ids that requestsOf gives the same rows. @throws InputError UNKNOWN_COLUMN */
export async function* idsOf(
  path: string,
  rows: AsyncIterable<Row>,
  options: DataOptions,
  set: { readonly columns: readonly string[] | undefined } | undefined,
): AsyncGenerator<{ readonly where: string; readonly id: RequestId }> {
  const columns = new ColumnsOf(path, options, [], set ?? { columns: undefined });
  let areRequests: boolean | undefined;
  for await (const row of rows) {
    const { where } = row;
    if ("error" in row) {
      yield { where, id: null };
      continue;
    }
    areRequests ??= areOwnRequests(row.value, options, set);
    if (areRequests) yield { where, id: requestOf(withoutNulls(row.value)).id };
    else yield { where, id: idOf(columns.fields(row.value).id) ?? null };
  }
}

function idOf(value: unknown): RequestId | undefined {
  if (typeof value === "string" || (typeof value === "number" && Number.isFinite(value))) return value;
  return undefined;
}

/** Formats with columns have a null for a field that a row lacks. */
function withoutNulls(value: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(value).filter(([, cell]) => cell !== null));
}
