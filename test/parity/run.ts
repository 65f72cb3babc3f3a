/**
 * The work of `npm run parity`: draws random composites and their cases with PyTorch, runs them here, and prints a table with
 * a row for every kind of comparison and the fraction of its tolerance that was used. Every run has a new seed unless one is
 * given; a composite is determined by seed and number.
 */
import { existsSync } from "node:fs";
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Device, openDevice } from "../../src/index.node.ts";
import { COMPOSITES, goldenFolder } from "../golden_folder.ts";
import { coverageOf, FULL_RUN } from "./coverage.ts";
import { compareStages, failures, Golden, type GoldenJson, type ParityRow } from "./golden.ts";
import { execute, pythonWithPackages } from "./python.ts";
import { saveCopies } from "./saved.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));

/** As they are on the command line. */
export interface Options {
  readonly count: string;
  readonly seed?: string | undefined;
  readonly skip: string;
  readonly goldens: boolean;
  readonly modules: boolean;
  readonly summary: boolean;
  readonly keep: boolean;
  readonly json?: string | undefined;
}

/** Draws composites, or takes the committed goldens, and compares; the exit code. */
export async function run(values: Options): Promise<number> {
  const print = values.json === "-" ? console.error : console.log;
  const seed = values.seed ?? String(Date.now() % 2 ** 31);
  const folder = values.goldens ? "" : await mkdtemp(join(tmpdir(), "instructblip-parity-"));
  try {
    const python = values.goldens ? undefined : pythonWithPackages();
    if (!values.goldens) {
      if (!python) return 1;
      console.error(`drawing ${values.count} composites from seed ${seed} …`);
      const made = execute(python, [
        join(root, "test/golden/make.py"),
        "random",
        "--seed",
        seed,
        "--skip",
        values.skip,
        "--count",
        values.count,
        "--out",
        folder,
      ]);
      if (!made) return 1;
    }
    const device = await openDevice();
    print(`adapter ${device.caps.description}${values.goldens ? "" : `, seed ${seed}`}`);
    const rows: NamedRow[] = [];
    const drawn: GoldenJson[] = [];
    const names = values.goldens
      ? COMPOSITES
      : (await readdir(folder)).filter((name) => existsSync(join(folder, name, "golden.json"))).sort();
    for (const [i, name] of names.entries()) {
      progress(`${i + 1} of ${names.length}: ${name}`);
      const golden = await Golden.open(values.goldens ? goldenFolder(name) : join(folder, name));
      const compared = await compareStages(golden, device);
      await golden.close();
      drawn.push(golden.json);
      progress("");
      rows.push(...compared.map((row) => ({ golden: name, ...row })));
      const failed = failures(compared);
      print(
        `${failed.length ? "FAIL" : "ok  "} ${name}: ${compared.length} comparisons, smallest greedy margin ${golden.json.min_margin.toPrecision(2)}`,
      );
      for (const line of failed) print(`       ${line.slice(0, 400)}`);
      const number = name.match(/^random_\d+_(\d+)$/)?.[1];
      if (failed.length && number) {
        print(`       again: npm run parity -- --seed ${seed} --skip ${Number(number)} --count 1`);
      }
    }
    print(`\n${table(rows, values.modules ? everyModule : values.summary ? part : kindOfModule)}`);
    const json = `${JSON.stringify({ seed, adapter: device.caps.description, rows }, null, 1)}\n`;
    if (values.json === "-") process.stdout.write(json);
    else if (values.json) await writeFile(values.json, json);
    const loads = python === undefined || (await loadsSaved(python, folder, names, device));
    device.destroy();
    const failed = rows.filter((row) => !(row.share <= 1)).length;
    print(`\n${names.length} composites, ${rows.length} comparisons, ${failed} failed`);
    if (values.goldens) return failed ? 1 : 0;
    const { lines, missing } = coverageOf(drawn);
    for (const line of lines) print(line);
    const lacks = names.length >= FULL_RUN && missing.length > 0;
    if (lacks) print(`never drawn: ${missing.join(", ")}`);
    return failed || !loads || lacks ? 1 : 0;
  } finally {
    if (!values.goldens && values.keep) print(`kept ${folder}`);
    else if (!values.goldens) await rm(folder, { recursive: true, force: true });
  }
}

/** Whether transformers loads what is saved here as it loads the original. Says so itself. */
async function loadsSaved(python: string, folder: string, names: readonly string[], device: Device): Promise<boolean> {
  console.error("saving each composite and loading it with transformers …");
  await saveCopies(folder, names, device);
  return execute(python, [join(root, "test/golden/make.py"), "saved", folder]);
}

type NamedRow = ParityRow & { golden: string };

const everyModule = (row: NamedRow) => `${row.golden} ${row.name}`;

/** Layers of one stack count as one kind, and so do drawn calls. */
const kindOfModule = (row: NamedRow) =>
  row.name
    .replace(/^single_\w+/, "one option")
    .replace(/^(drawn|sampled)_\d+/, "some options")
    .replace(/^(\w+_states)(\.\w+)(\.\d+)+/, "$1$2.*")
    .replace(/\.\d+\b/g, ".*")
    .replace(/#\d+$/, "");

/** What is being done, on a terminal; nothing takes it away again. */
function progress(line: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${line}`);
}

/** Modules, states and maps of a part count as one kind. */
function part(row: NamedRow): string {
  const [first] = row.name.split(".");
  if (row.stage === "module" || row.stage === "exact") return `every module of ${first}`;
  return row.stage === "states" ? `every state and map of ${first.replace(", others", "")}` : kindOfModule(row);
}

/** The worst row of every group, in the order they come. */
function table(rows: readonly NamedRow[], groupOf: (row: NamedRow) => string): string {
  const kinds = new Map<string, { row: NamedRow; count: number }>();
  for (const row of rows) {
    const kind = groupOf(row);
    const key = `${row.stage.padEnd(10)} ${kind}`;
    const known = kinds.get(key);
    if (!known) kinds.set(key, { row, count: 1 });
    else kinds.set(key, { row: row.share > known.row.share ? row : known.row, count: known.count + 1 });
  }
  const width = Math.max(...[...kinds.keys()].map((key) => key.length));
  const line = (key: string, n: string, nmse: string, abs: string, share: string) =>
    `${key.padEnd(width)}  ${n.padStart(5)}  ${nmse.padStart(9)}  ${abs.padStart(9)}  ${share.padStart(9)}`;
  const body = [...kinds].map(([key, { row, count }]) => {
    const number = (x: number) => (row.exact ? "equal" : x.toExponential(1));
    const share =
      row.share === Number.POSITIVE_INFINITY ? "FAILED" : row.exact ? "equal" : `${(100 * row.share).toFixed(2)} %`;
    return line(key, String(count), number(row.nmse), number(row.maxAbs), share);
  });
  return [line("stage      worst of every kind", "count", "NMSE", "max |Δ|", "tolerance"), ...body].join("\n");
}
