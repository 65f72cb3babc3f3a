/** `attribute`: what an answer rests on, as tables, JSON, sheets of maps over the image and a page. */

import { basename } from "node:path";
import { performance } from "node:perf_hooks";
import type { StorageDType } from "../../../modules/storage_dtype.ts";
import { InputError } from "../../../tensor/errors.ts";
import type { GenerationOptions } from "../../generation/options.ts";
import { type AttributionMethod, attribute } from "../../instruments/attribute/attribute.ts";
import { type OcclusionFill, patchGrid, windowSize } from "../../instruments/attribute/occlusion.ts";
import { attributionPage } from "../../instruments/attribute/page.ts";
import {
  type AttributionReport,
  attributionLines,
  attributionReport,
  attributionTables,
  dropText,
  methodMaps,
} from "../../instruments/attribute/report.ts";
import { occludedWords, type WordOcclusion } from "../../instruments/attribute/words.ts";
import type { RgbImage } from "../../processing/image.ts";
import { imageName } from "../../processing/image_source.ts";
import { tokenText } from "../../tokenizer/token_text.ts";
import type { PatchGrid } from "../attention/attention_sheet.ts";
import { checkSheetName, type NamedSheet, writeSheets } from "../attention/sheet_file.node.ts";
import { formatTable, Pace, progressText } from "../format.ts";
import { dataUrl } from "../page_image.node.ts";
import { openQuestion } from "../question.node.ts";
import { checkOuts, writeOut } from "../requests/out_file.node.ts";
import { loadModel, loadOptions, type Run } from "../session.node.ts";
import { Progress } from "../terminal.node.ts";

export interface AttributeFlags {
  readonly model: string;
  readonly image: string;
  readonly prompt: string;
  /** Default: what the model answers. */
  readonly answer?: string;
  readonly generation: GenerationOptions;
  readonly methods?: readonly AttributionMethod[];
  readonly window?: number;
  readonly stride?: number;
  readonly fill: OcclusionFill;
  readonly word: WordOcclusion;
  readonly batchSize?: number;
  /** A .png or .svg; of several sheets their names are inserted before the extension. */
  readonly out?: string;
  /** Files; `-` for JSON on stdout, without tables. */
  readonly json?: string;
  readonly html?: string;
  readonly dtype: StorageDType;
  readonly weightCache?: true | string;
  readonly fixVicunaTokenIds?: boolean;
}

export async function runAttribute(flags: AttributeFlags, run: Run): Promise<void> {
  const { out, json, html, prompt, word } = flags;
  const { terminal, signal } = run;
  if (out !== undefined) {
    checkSheetName(out);
    if (flags.methods?.every((method) => method === "words")) {
      throw new InputError("OUT", `--out ${out}: there is no map of words`, { hint: "--html shows them" });
    }
  }
  await checkOuts({ "--out": out, "--json": json, "--html": html });
  const { folder, config, processor, image, inputs, answer } = await openQuestion(flags, run);
  const { patch_size: P } = config.vision_config;
  windowSize(patchGrid(inputs.pixel_values, P), flags); // refuses before the weights are loaded
  const words = await occludedWords(processor, prompt, inputs, { word });
  const model = await loadModel(folder, flags.dtype, run, loadOptions(flags));
  const progress = new Progress(terminal);
  try {
    const { generation, methods, window, stride, fill, batchSize: batch_size } = flags;
    const begun = performance.now();
    const pace = new Pace();
    const on_progress = ({ done, total }: { done: number; total: number }) => {
      const left = pace.left(done, total);
      progress.show(progressText({ done, failed: 0 }, total, performance.now() - begun, left));
    };
    const options = { answer, generation, methods, words, window, stride, fill, batch_size, on_progress, signal };
    const found = await attribute(model, inputs, options);
    progress.clear();
    const about = { image: imageName(flags.image), prompt, word };
    const report = attributionReport(found, words, about, (id) => tokenText(processor.tokenizer, id));
    const text = `${JSON.stringify(report)}\n`;
    if (json !== undefined && json !== "-") await writeOut("--json", json, text);
    if (html !== undefined) {
      const page = attributionPage(report, { model: basename(flags.model), image: await dataUrl(image) });
      await writeOut("--html", html, page);
    }
    if (out !== undefined) {
      const [, , H, W] = inputs.pixel_values.shape.slice(-4) as [number, number, number, number];
      await writeSheets(out, sheetsOf(report, image, { ...report.grid, height: H / P, width: W / P }), run);
    }
    if (json === "-") return await terminal.out(text);
    await terminal.out(`${attributionLines(report).join("\n")}\n\n${attributionTables(report, formatTable)}`);
  } finally {
    progress.clear();
    model.dispose();
  }
}

const SUBTITLES = {
  occlusion: "Occlusion: what each token is less probable without, in nats",
  rollout: "Attention rollout: what attention leads back to, through all layers",
  "cross-attention": "Cross-attention of the queries that each token attends to",
};

/** A sheet for each method, with a map for each token of the answer. */
function sheetsOf(report: AttributionReport, image: RgbImage, grid: PatchGrid): NamedSheet[] {
  const title = `${basename(report.image)}: “${report.prompt.replace(/\s+/g, " ").trim()}”`;
  const methods = methodMaps(report);
  return methods.map(({ name, maps, whole, class_tokens }) => {
    const sheet = (caption: string, patches: readonly number[], class_token: number | undefined) => {
      return { caption, patches: Float32Array.from(patches), class_token };
    };
    const classes = class_tokens && class_tokens.reduce((sum, x) => sum + x, 0) / class_tokens.length;
    const mean = name === "occlusion" ? whole.map((drop) => drop / maps.length) : whole; // in the scale of a token's
    const drop = { title: "change without a patch, in nats", text: dropText };
    return {
      name: methods.length > 1 ? `.${name}` : "",
      content: {
        title,
        subtitle: SUBTITLES[name],
        image,
        grid,
        maps: maps.map((map, t) => sheet(JSON.stringify(report.answer_tokens[t]!.text), map, class_tokens?.[t])),
        mean: sheet("mean of all tokens", mean, classes),
        measure: name === "occlusion" ? drop : undefined,
      },
    };
  });
}
