/** `lens`: the logit lens of an answer and of the image tokens, as tables, JSON and a page. */
import { basename } from "node:path";
import type { StorageDType } from "../../../modules/storage_dtype.ts";
import type { GenerationOptions } from "../../generation/options.ts";
import { logitLens } from "../../instruments/lens.ts";
import { lensPage } from "../../instruments/lens_page.ts";
import { lensReport, lensTables } from "../../instruments/lens_report.ts";
import { imageName } from "../../processing/image_source.ts";
import { formatTable } from "../format.ts";
import { readInterventions } from "../interventions.node.ts";
import { dataUrl } from "../page_image.node.ts";
import { openQuestion } from "../question.node.ts";
import { checkOuts, writeOut } from "../requests/out_file.node.ts";
import { loadModel, loadOptions, type Run } from "../session.node.ts";

export interface LensFlags {
  readonly model: string;
  readonly image: string;
  readonly prompt: string;
  /** Default: what the model answers. */
  readonly answer?: string;
  readonly generation: GenerationOptions;
  readonly topK?: number;
  /** Files; `-` for JSON on stdout, without tables. */
  readonly json?: string;
  readonly html?: string;
  /** A file. */
  readonly interventions?: string;
  readonly dtype: StorageDType;
  readonly weightCache?: true | string;
  readonly fixVicunaTokenIds?: boolean;
}

const TABLE_WIDTH = 120;

export async function runLens(flags: LensFlags, run: Run): Promise<void> {
  const { json, html, prompt } = flags;
  const { terminal, signal } = run;
  await checkOuts({ "--json": json, "--html": html });
  const interventions = await readInterventions(flags.interventions);
  const { folder, processor, image, inputs, answer } = await openQuestion(flags, run);
  const model = await loadModel(folder, flags.dtype, run, loadOptions(flags));
  try {
    const { generation, topK: top_k = 5 } = flags;
    const lens = await logitLens(model, inputs, {
      ...(answer && { answer }),
      generation,
      top_k,
      interventions,
      signal,
    });
    const report = lensReport(lens, { image: imageName(flags.image), prompt }, processor.tokenizer);
    const text = `${JSON.stringify(report)}\n`;
    if (json !== undefined && json !== "-") await writeOut("--json", json, text);
    if (html !== undefined) {
      const page = lensPage(report, { model: basename(flags.model), image: await dataUrl(image) });
      await writeOut("--html", html, page);
    }
    const width = terminal.outIsTerminal ? terminal.columns : TABLE_WIDTH;
    await terminal.out(json === "-" ? text : lensTables(report, width, formatTable));
  } finally {
    model.dispose();
  }
}
