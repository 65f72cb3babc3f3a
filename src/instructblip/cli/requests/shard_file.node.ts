/** `--out`, `--resume` and `--shard` of commands whose file begins with the settings of their run. */
import { InputError } from "../../../tensor/errors.ts";
import type { Shard, ShardPart } from "../../evaluation/shards.ts";
import { isWorthARetry } from "../format.ts";
import type { Run } from "../session.node.ts";
import { OutFile } from "./out_file.node.ts";

/** Reads a file line by line. */
interface PartReader<S extends { readonly shard: Shard }, R> {
  add(line: string): void;
  /** Undefined for an empty file. */
  file(): ShardPart<S, R> | undefined;
}

interface SettingsFormat<S> {
  readonly headerLine: (settings: S) => string;
  /** The first setting in which two runs differ. */
  readonly difference: (a: S, b: S) => string | undefined;
}

/**
 * Opens the file, writes or compares its settings, and reads its rows: all but the failed that are worth a retry, which leave
 * the file when the next is written.
 *
 * @throws InputError RESUME_MISMATCH; as OutFile.open
 */
export async function openShard<S extends { readonly shard: Shard }, R extends object>(
  { out: name, resume = false }: { readonly out?: string | undefined; readonly resume?: boolean | undefined },
  reader: PartReader<S, R>,
  settings: S,
  { headerLine, difference }: SettingsFormat<S>,
  run: Run,
): Promise<{ out: OutFile | undefined; rows: R[] }> {
  if (name === undefined) return { out: undefined, rows: [] };
  const out = await OutFile.open(name, resume, (text) => reader.add(text), run);
  try {
    const part = reader.file();
    if (!part) await out.write(headerLine(settings));
    else expectSameRun(name, part.settings, settings, difference);
    const rows = part?.rows ?? [];
    const isAskedAgain = (row: R) => isWorthARetry((row as { error?: { code: string } }).error?.code);
    out.leaveOut(rows.flatMap((row, i) => (isAskedAgain(row) ? [i + 2] : []))); // the first line has the settings
    return { out, rows: rows.filter((row) => !isAskedAgain(row)) };
  } catch (error) {
    await out.close();
    throw error;
  }
}

/** Compares the settings of a file with those of a run. @throws InputError RESUME_MISMATCH */
export function expectSameRun<S extends { readonly shard: Shard }>(
  name: string,
  there: S,
  settings: S,
  difference: SettingsFormat<S>["difference"],
): void {
  const { i, n } = there.shard;
  const sameShard = i === settings.shard.i && n === settings.shard.n;
  const other = sameShard ? difference(there, settings) : "shard";
  if (!other) return;
  const hint = "--resume continues the same run only; give another --out";
  throw new InputError("RESUME_MISMATCH", `--out ${name} is of another run: they differ in ${other}`, { hint });
}
