/** The work of `npm run report`: reads files of results, and writes them as a page. */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { basename, dirname, relative } from "node:path";
import { writeWhole } from "../../bench/files.ts";
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

/** The exit code. @throws Error with a file's path (and line) that cannot be read or is not understood */
export function run(paths: readonly string[], { out, history, svg }: Options): number {
  const results = paths.flatMap((path) => {
    const now = parseResults(path, read(path));
    return history && now.kind === "bench" ? [...earlierVersions(path), now] : [now];
  });
  if (svg !== undefined) {
    writeWhole(svg, rooflineSvg(results.flatMap((each) => (each.kind === "bench" ? each.rows : []))));
    console.log(`wrote ${svg}`);
    return 0;
  }
  const page = reportPage(results);
  writeWhole(out, page);
  console.log(`wrote ${relative(process.cwd(), out) || out}, ${Math.ceil(page.length / 1000)} kB`);
  return 0;
}

function read(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (cause) {
    throw new Error(
      `${path}: ${(cause as NodeJS.ErrnoException).code === "ENOENT" ? "there is no such file" : (cause as Error).message}`,
      { cause },
    );
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
