/** Whether the file of `--requests` has rows of a data set, or requests. */
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { openDataSet } from "../../data/data_set.node.ts";
import { type DataOptions, isDataRow, namesColumns, rowsOfLines } from "./data_rows.ts";
import { splitLines } from "./requests.ts";

/** Whether requests are rows of a data set, by the path or an option, and not lines. @throws as {@link openDataSet} */
export async function areRows(path: string, options: DataOptions): Promise<boolean> {
  if (namesColumns(options) || options.split !== undefined) return true;
  const found = path === "-" ? undefined : await stat(path).catch(() => undefined);
  if (!found) return false;
  const set = await openDataSet(path, options.split);
  await set?.close();
  return set !== undefined || (found.isFile() && (await isJsonlOfRows(path)));
}

/** Whether the first object of a JSONL file is a row of a data set, with a column of images, and no request. */
export async function isJsonlOfRows(path: string): Promise<boolean> {
  for await (const row of rowsOfLines(splitLines(createReadStream(path)))) {
    if (!("error" in row)) return isDataRow(row.value);
  }
  return false;
}
