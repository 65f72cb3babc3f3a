/** `ablate` and `patch`: a sweep over the parts of a model, as lines of a file, a table, JSON, heat maps and a page. */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { basename } from "node:path";
import { performance } from "node:perf_hooks";
import { formatStorage, type StorageDType } from "../../../modules/storage_dtype.ts";
import { InputError } from "../../../tensor/errors.ts";
import type { Shard } from "../../evaluation/shards.ts";
import type { GenerationOptions } from "../../generation/options.ts";
import { prepareAblation } from "../../instruments/sweep/ablate.ts";
import { heatMapFile } from "../../instruments/sweep/heat_map.ts";
import { sweepPage } from "../../instruments/sweep/page.ts";
import { preparePatching } from "../../instruments/sweep/patch.ts";
import {
  columnTexts,
  type SweepReport,
  type SweepRow,
  type SweepSubject,
  sweepCaption,
  sweepGrids,
  sweepLines,
  sweepReport,
  sweepTable,
} from "../../instruments/sweep/report.ts";
import type { PreparedSweep } from "../../instruments/sweep/sweep.ts";
import {
  difference,
  headerLine,
  joinSweeps,
  type SweepFile,
  type SweepSettings,
  sweepReader,
} from "../../instruments/sweep/sweep_file.ts";
import { groupsOf, type SweepKind } from "../../instruments/sweep/units.ts";
import { readNamedImage } from "../../pretrained/platform.node.ts";
import type { VisionLanguageModel } from "../../pretrained/vision_language_model.ts";
import type { RgbImage } from "../../processing/image.ts";
import { imageName } from "../../processing/image_source.ts";
import { tokenText } from "../../tokenizer/token_text.ts";
import { formatTable, Pace, progressText } from "../format.ts";
import { pngOf, warnWithoutFont } from "../png.node.ts";
import { openQuestion } from "../question.node.ts";
import { checkOuts, writeOut } from "../requests/out_file.node.ts";
import { identityOf } from "../requests/predictions.node.ts";
import { reopening } from "../requests/reopening.node.ts";
import { splitLines } from "../requests/requests.ts";
import { openShard } from "../requests/shard_file.node.ts";
import { loadModel, loadOptions, prepareInputs, type Run } from "../session.node.ts";
import { Progress, say } from "../terminal.node.ts";

interface Written {
  /** Files; `-` for JSON on stdout, without a table. */
  readonly json?: string;
  readonly svg?: string;
  readonly png?: string;
  readonly html?: string;
  /** Rows of the table; 0: all. */
  readonly top?: number;
}

export interface SweepFlags extends Written {
  readonly model: string;
  readonly image: string;
  readonly prompt: string;
  /** To patch, one of both at least. */
  readonly corruptedImage?: string;
  readonly corruptedPrompt?: string;
  /** To ablate: files, over whose runs the means are. */
  readonly mean?: readonly string[];
  /** Default: what the model answers. */
  readonly answer?: string;
  readonly generation: GenerationOptions;
  readonly targets?: readonly string[];
  readonly batchSize?: number;
  readonly shard?: Shard;
  readonly out?: string;
  readonly resume?: boolean;
  readonly dtype: StorageDType;
  readonly weightCache?: true | string;
  readonly fixVicunaTokenIds?: boolean;
  /** The program's version. */
  readonly version: string;
}

/** Default number of rows of the table. */
const TOP = 20;

export async function runSweep(kind: SweepKind, flags: SweepFlags, run: Run): Promise<void> {
  await checkFiles(flags);
  const { terminal, signal } = run;
  const { prompt, mean, corruptedImage, corruptedPrompt, shard = { i: 0, n: 1 } } = flags;
  const { folder, config, processor, image, inputs, answer } = await openQuestion(flags, run);
  const { tokenizer } = processor;
  const otherImage = corruptedImage === undefined ? image : await readNamedImage(corruptedImage, { signal });
  const meanImages: RgbImage[] = [];
  for (const name of mean ?? []) meanImages.push(await readNamedImage(name, { signal }));
  let model: VisionLanguageModel | undefined;
  const release = () => {
    model?.dispose();
    model = undefined;
  };
  const prepare = async (): Promise<PreparedSweep> => {
    model = await loadModel(folder, flags.dtype, run, loadOptions(flags));
    const { generation, targets, batchSize: batch_size } = flags;
    const options = { answer, generation, targets, batch_size, signal };
    if (kind === "ablate") {
      const others: (typeof inputs)[] = [];
      for (const other of meanImages) others.push(await prepareInputs(processor, config, [other], [prompt]));
      return prepareAblation(model, inputs, { ...options, ...(mean && { mean: others }) });
    }
    const corrupted = await prepareInputs(processor, config, [otherImage], [corruptedPrompt ?? prompt]);
    return preparePatching(model, inputs, corrupted, options);
  };
  const progress = new Progress(terminal);
  try {
    let sweep = await reopening(run, prepare, release);
    const { units } = sweep;
    const textOf = (id: number) => tokenText(tokenizer, id);
    const subject: SweepSubject = {
      kind,
      image: imageName(flags.image),
      prompt,
      ...(mean && { mean_images: mean.map(imageName) }),
      ...(corruptedImage !== undefined && { corrupted_image: imageName(corruptedImage) }),
      ...(corruptedPrompt !== undefined && { corrupted_prompt: corruptedPrompt }),
      ...(sweep.corrupted !== undefined && { corrupted_logprob: sweep.corrupted }),
      answer_tokens: sweep.answer.map((id, t) => ({ id, text: textOf(id), logprob: sweep.logprobs[t]! })),
      columns: columnTexts(units, sweep.token_ids, config.image_token, textOf),
    };
    const settings: SweepSettings = {
      version: flags.version,
      model: folder.name,
      model_sha256: await identityOf(folder),
      dtype: formatStorage(flags.dtype),
      images_sha256: hashOf([image, otherImage, ...meanImages]),
      subject,
      units: units.length,
      groups: groupsOf(units),
      shard,
    };
    const reader = sweepReader(`--out ${flags.out}`, kind);
    const { out, rows } = await openShard(flags, reader, settings, { headerLine, difference }, run);
    try {
      const known = new Set(rows.map(({ index }) => index));
      const left = units.flatMap((_, i) => (i % shard.n === shard.i && !known.has(i) ? [i] : []));
      const begun = performance.now();
      const pace = new Pace();
      const counts = { done: 0, failed: 0 };
      const scoreRest = async (progressed: () => void) => {
        if (!model) sweep = await prepare();
        for await (const { index, logprob } of sweep.scores(left.filter((i) => !known.has(i)))) {
          const { group, row, column } = units[index]!;
          const result: SweepRow = { index, group, row, column, logprob };
          rows.push(result);
          await out?.write(`${JSON.stringify(result)}\n`);
          known.add(index);
          counts.done++;
          progressed();
          const rest = pace.left(counts.done, left.length);
          progress.show(progressText(counts, left.length, performance.now() - begun, rest));
        }
      };
      await reopening(run, scoreRest, release);
    } finally {
      await out?.close();
    }
    progress.clear();
    if (shard.n > 1) say(terminal, `part ${shard.i}/${shard.n}: these are figures of this part alone`);
    await report({ settings, rows }, flags, run);
  } finally {
    progress.clear();
    release();
  }
}

/** Reports what files of --out have, which are all shards of a run. */
export async function runSweepReport(
  kind: SweepKind,
  flags: Written & { readonly from: readonly string[] },
  run: Run,
): Promise<void> {
  await checkFiles(flags);
  const parts = new Map<string, SweepFile>();
  for (const file of flags.from) {
    if (parts.has(file)) throw new InputError("PARTS_DIFFER", `${file} is given twice`);
    parts.set(file, await readSweepFile(file, kind));
  }
  await report(joinSweeps(parts), flags, run);
}

async function readSweepFile(path: string, kind: SweepKind): Promise<SweepFile> {
  const found = await stat(path).catch(() => undefined);
  if (!found?.isFile()) throw new InputError("NOT_FOUND", `${path}: ${found ? "not a file" : "no such file"}`);
  const reader = sweepReader(path, kind);
  for await (const { bytes } of splitLines(createReadStream(path), Number.POSITIVE_INFINITY)) {
    reader.add(new TextDecoder().decode(bytes));
  }
  const part = reader.file();
  if (!part) throw new InputError("BAD_PART", `${path}: the file is empty`);
  return part;
}

function checkFiles({ json, svg, png, html }: Written): Promise<void> {
  return checkOuts({ "--json": json, "--svg": svg, "--png": png, "--html": html });
}

async function report({ settings, rows }: SweepFile, flags: Written, { terminal }: Run): Promise<void> {
  const found: SweepReport = sweepReport(settings.subject, rows);
  const json = `${JSON.stringify(found)}\n`;
  if (flags.json !== undefined && flags.json !== "-") await writeOut("--json", flags.json, json);
  const title = `${found.kind}: ${settings.model}, ${basename(found.image)}, ${JSON.stringify(found.prompt)}`;
  const drawn = () => heatMapFile(title, sweepCaption(found), sweepGrids(found));
  if (flags.svg !== undefined) await writeOut("--svg", flags.svg, drawn());
  if (flags.png !== undefined) {
    await warnWithoutFont(terminal, "--svg");
    await writeOut("--png", flags.png, await pngOf(drawn()));
  }
  if (flags.html !== undefined) await writeOut("--html", flags.html, sweepPage(found, settings.model));
  if (flags.json === "-") return terminal.out(json);
  const { top = TOP } = flags;
  await terminal.out(`${sweepLines(found).join("\n")}\n\n${formatTable(sweepTable(found, top), [3, 4])}`);
  if (top > 0 && found.units.length > top) {
    await terminal.out(`(${top} of ${found.units.length}: those of the largest effect; --top 0 shows all)\n`);
  }
}

function hashOf(images: readonly RgbImage[]): string {
  const hash = createHash("sha256");
  for (const { data, width, height } of images) hash.update(`${width} ${height} `).update(data);
  return hash.digest("hex");
}
