/** The work of `npm run report`: reads files of results, and writes them as a page. */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { basename, dirname, extname, resolve } from "node:path";
import { writeWhole } from "../../bench/files.ts";
import { UsageError } from "../script.ts";
import { parseResults, type Results } from "./inputs.ts";
import { reportPage } from "./page.ts";
import { rooflineSvg } from "./roofline_image.ts";

export interface Options {
  readonly out: string;
  /** Also every earlier version of the bench's files that git has. */
  readonly history: boolean;
  /** Where the roofline goes as an image. */
  readonly svg?: string | undefined;
}

/**
 * The exit code.
 *
 * @throws UsageError for an option that does not go with the files
 * @throws Error with a file's path (and line) that cannot be read or is not understood
 */
export function run(paths: readonly string[], { out, history, svg }: Options): number {
  const target = svg ?? out;
  if (paths.some((path) => resolve(path) === resolve(target))) {
    throw new UsageError(`${target} is a file of results, and would be written over`);
  }
  const own = svg === undefined ? [".html", ".htm"] : [".svg"];
  if (!["", ...own].includes(extname(target).toLowerCase())) {
    throw new UsageError(`${target}: the name must end in ${own.join(" or ")}`);
  }
  const twice = paths.find((path, i) => paths.slice(0, i).some((before) => resolve(before) === resolve(path)));
  if (twice !== undefined) throw new UsageError(`${twice} is given twice`);
  const results = paths.flatMap((path) => {
    const now = parseResults(path, read(path));
    return history && now.kind === "bench" ? [...earlierVersions(path), now] : [now];
  });
  const rows = results.flatMap((each) => (each.kind === "bench" ? each.rows : []));
  if (history && rows.length === 0)
    throw new UsageError("--history is about files of npm run bench, and there is none");
  const text = svg === undefined ? reportPage(results) : rooflineSvg(rows);
  writeWhole(target, text);
  console.log(`wrote ${target}, ${Math.ceil(text.length / 1000)} kB`);
  return 0;
}

function read(path: string): string {
  try {
    return new TextDecoder().decode(readFileSync(path)); // without a byte order mark
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    const why = code === "ENOENT" ? "there is no such file" : code === "EISDIR" ? "this is a folder" : message;
    throw new Error(`${path}: ${why}`, { cause });
  }
}

/** Versions of a file in git's history, from the oldest; none for a file that git does not know. */
function earlierVersions(path: string): Results[] {
  const git = (...args: string[]) =>
    execFileSync("git", args, {
      cwd: dirname(path),
      encoding: "utf8",
      maxBuffer: 2 ** 30,
      stdio: ["ignore", "pipe", "pipe"],
    });
  let commits: string[];
  try {
    commits = git("log", "--reverse", "--format=%h", "--", basename(path)).split("\n").filter(Boolean);
  } catch (cause) {
    throw new Error(`--history: ${path} is not in a git repository`, { cause });
  }
  return commits.map((commit) => ({
    ...parseResults(`${path} at ${commit}`, git("show", `${commit}:./${basename(path)}`)),
    path,
  }));
}
