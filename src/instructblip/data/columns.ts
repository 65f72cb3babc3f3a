/** Which columns of a data set are what: by options, by their own names, or by names that data sets have for them. */
import { InputError, nearest } from "../../tensor/errors.ts";
import { bounded, quote } from "../../tensor/shown.ts";
import { EmbeddedImage } from "./row.ts";

/** Columns by options of the command line. */
export interface ColumnOptions {
  readonly idColumn?: string;
  readonly imageColumn?: string;
  readonly questionColumn?: string;
  readonly answerColumn?: string;
}

export type Field = "id" | "image" | "question" | "answers";

/** Fields of a row by their options, and what data sets call them, the first that there is. */
const FIELDS: Readonly<Record<Field, { readonly option: keyof ColumnOptions; readonly names: readonly string[] }>> = {
  id: { option: "idColumn", names: ["id", "question_id", "questionId", "qid", "__key__"] },
  image: {
    option: "imageColumn",
    names: ["image", "images", "img", "jpg", "jpeg", "png", "webp", "image_path", "file_name", "image_url", "url"],
  },
  question: {
    option: "questionColumn",
    names: ["question", "text_input", "prompt", "instruction", "query", "text", "txt"],
  },
  answers: { option: "answerColumn", names: ["answers", "answer", "captions", "caption", "references"] },
};

/** The name of an option as it is written. */
const flagOf = (option: string) => `--${option.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;

/** The column of each field; undefined for those that there are not. */
export type Columns = Readonly<Partial<Record<Field, string>>>;

/**
 * Finds the columns of a data set.
 *
 * @param names of its columns
 * @param needed fields that there must be; an id may be the row's number
 * @param where the data set, for messages
 * @throws InputError UNKNOWN_COLUMN, with the columns there are
 */
export function columnsOf(
  names: readonly string[],
  options: ColumnOptions,
  needed: readonly Field[],
  where: string,
): Columns {
  const found: Partial<Record<Field, string>> = {};
  for (const [field, { option, names: usual }] of Object.entries(FIELDS) as [Field, (typeof FIELDS)[Field]][]) {
    const asked = options[option];
    if (asked !== undefined && !names.includes(asked)) {
      // Another of a field's usual names means the column that has one: img means image, however close id is.
      const close = (usual.includes(asked) && usual.find((name) => names.includes(name))) || nearest(asked, names);
      throw new InputError(
        "UNKNOWN_COLUMN",
        `${where}: ${flagOf(option)}: there is no column ${quote(asked)}; ${listOfColumns(names)}`,
        {
          hint: close === undefined ? undefined : `did you mean ${quote(close)}?`,
        },
      );
    }
    const column = asked ?? usual.find((name) => names.includes(name));
    if (column !== undefined) found[field] = column;
    else if (needed.includes(field)) {
      throw new InputError("UNKNOWN_COLUMN", `${where}: there is no column ${quote(field)}; ${listOfColumns(names)}`, {
        hint: `${flagOf(option)} names it`,
      });
    }
  }
  return found;
}

/** Whether one of the columns has a usual name of a field. */
export const hasColumn = (names: readonly string[], field: Field) =>
  FIELDS[field].names.some((name) => names.includes(name));

export function listOfColumns(names: readonly string[]): string {
  const most = 20;
  const shown = names.slice(0, most).map((name) => bounded(name, 60));
  return `the columns are ${shown.join(", ")}${names.length > most ? `, … (${names.length} in all)` : ""}`;
}

/** A row with its fields by our names. @param number the row's, which is its id if no column has one */
export function withFields(
  value: Readonly<Record<string, unknown>>,
  { id, image, question, answers }: Columns,
  number: number,
): Record<string, unknown> {
  const cell = (column: string) => (Object.hasOwn(value, column) ? value[column] : undefined);
  return {
    ...value,
    id: id === undefined ? number : cell(id),
    ...(image !== undefined && { image: cell(image) }),
    ...(question !== undefined && { question: cell(question) }),
    ...(answers !== undefined && { answers: answersOf(cell(answers)) }),
  };
}

/** Texts of answers: one text, or Hugging Face's lists of structs and structs of lists. Others are left for checks. */
function answersOf(value: unknown): unknown {
  if (typeof value === "string") return [value];
  if (Array.isArray(value)) return value.map((item) => textIn(item) ?? item);
  return textIn(value) ?? value;
}

function textIn(item: unknown): unknown {
  if (typeof item !== "object" || item === null || item instanceof EmbeddedImage) return undefined;
  const { answer, text } = item as { answer?: unknown; text?: unknown };
  return answer ?? text;
}
