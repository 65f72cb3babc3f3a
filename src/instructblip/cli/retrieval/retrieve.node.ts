/**
 * `retrieve`: the images of a data set that a text is about, or the texts that are about an image. All are compared by the
 * contrastive embeds (ITC); the best are judged again, in pairs, by the matching head (ITM), whose logit is added to the cosine.
 *
 * Source: Li et al. 2023, BLIP-2, 4.4 (k = 128); LAVIS, blip2_qformer.py (compute_sim_matrix).
 */

import type { StorageDType } from "../../../modules/storage_dtype.ts";
import { ConfigError, InputError } from "../../../tensor/errors.ts";
import { Blip2Config } from "../../config/blip_2.ts";
import { AutoProcessor } from "../../pretrained/auto_processor.ts";
import { Blip2ForImageTextRetrieval } from "../../pretrained/blip_2_retrieval.ts";
import { readNamedImage } from "../../pretrained/platform.node.ts";
import { openModelFolder } from "../folder.node.ts";
import { describeError, EXIT, endsRun, formatTable, gravest, Pace, progressText } from "../format.ts";
import { BATCH_SIZE } from "../requests/batches.ts";
import { loadAs, type Run, readSource } from "../session.node.ts";
import { Progress, say, sayStack } from "../terminal.node.ts";
import { cosine, embedImages, embedTexts, type Feature, matchPairs } from "./embed.node.ts";
import { type Item, type ItemOptions, type Items, readItems } from "./items.node.ts";

export interface Retrieval extends ItemOptions {
  readonly model: string;
  readonly dtype: StorageDType;
  readonly data: string;
  /** The query: one of both. */
  readonly text?: string;
  readonly image?: string;
  /** How many of the best by ITC are judged by ITM; 0: none. Default 128. */
  readonly rerank?: number;
  /** Rows of the table; 0: all. Default 20. */
  readonly top?: number;
  readonly batchSize?: number;
  readonly json?: boolean;
}

/** One image or text, ranked. */
interface Ranked {
  readonly id: Item["id"];
  readonly image?: string;
  readonly text?: string;
  /** ITC, from -1 to 1. */
  readonly itc: number;
  /** ITM: the probability that text and image belong together. */
  readonly itm?: number;
  /** What they are ordered by: the cosine, and of those that ITM has judged its logit added, which are first. */
  readonly score: number;
}

/** Ranks the data for a text, or for an image, and prints it, without what failed. @returns the exit code */
export async function runRetrieve(asked: Retrieval, run: Run): Promise<number> {
  const data = await readItems(asked.data, asked);
  try {
    return await rank(data, asked, run);
  } finally {
    await data.close();
  }
}

async function rank(data: Items, asked: Retrieval, run: Run): Promise<number> {
  const { terminal, signal } = run;
  const { text, image, rerank = 128, top = 20, batchSize: size = BATCH_SIZE } = asked;
  const kind = text === undefined ? "text" : "image";
  const items = data.items.filter((item) => item[kind] !== undefined);
  if (items.length === 0) throw new InputError("BAD_DATA", `${asked.data}: there are no ${kind}s in it to rank`);
  const folder = await openModelFolder(asked.model, run);
  const config = await folder.config();
  if (!(config instanceof Blip2Config && config.qformer_config.use_qformer_text_input)) {
    throw new ConfigError("UNSUPPORTED_MODEL", `retrieve compares images and texts, which ${folder.name} cannot`, {
      hint: "it needs a retrieval checkpoint of BLIP-2, such as Salesforce/blip2-itm-vit-g",
    });
  }
  const processor = await AutoProcessor.from_pretrained(folder);
  const shown = image === undefined ? undefined : await readNamedImage(image, { signal });
  const model = await loadAs(
    (from, all) => Blip2ForImageTextRetrieval.from_pretrained(from, all),
    folder,
    asked.dtype,
    run,
  );
  const read = (item: Item) => readSource(item.image!, { base: data.base, signal });
  const progress = new Progress(terminal);
  try {
    const query: Feature = shown
      ? (await embedImages(model, processor, [shown]))[0]!.image_embeds
      : (await embedTexts(model, processor, [text!]))[0]!;
    const failed = new Map<number, unknown>();
    const withoutFailed = (work: Work): Work => {
      const attempt: Work = async (batch) => {
        try {
          await work(batch);
        } catch (error) {
          if (endsRun(error) || signal.aborted) throw error;
          if (batch.length > 1) for (const i of batch) await attempt([i]);
          else failed.set(batch[0]!, error);
        }
      };
      return attempt;
    };
    const similarities = new Map<number, number>();
    const compare = withoutFailed(async (batch) => {
      const those = batch.map((i) => items[i]!);
      if (kind === "text") {
        const texts = await embedTexts(
          model,
          processor,
          those.map((item) => item.text!),
        );
        for (const [k, i] of batch.entries()) similarities.set(i, cosine(query, texts[k]!));
        return;
      }
      const pixels = [];
      for (const item of those) pixels.push(await read(item));
      const images = await embedImages(model, processor, pixels);
      for (const [k, i] of batch.entries()) similarities.set(i, cosine(images[k]!.image_embeds, query));
    });
    await inBatches([...items.keys()], size, compare, "compared", progress, signal);
    const order = [...similarities.keys()].sort((a, b) => similarities.get(b)! - similarities.get(a)! || a - b);
    const judged = new Map<number, { logit: number; probability: number }>();
    const judge = withoutFailed(async (batch) => {
      const pairs = [];
      for (const i of batch) {
        const item = items[i]!;
        pairs.push({ pixels: shown ?? (await read(item)), text: text ?? item.text! });
      }
      const found = await matchPairs(model, processor, pairs);
      for (const [k, i] of batch.entries()) judged.set(i, found[k]!);
    });
    await inBatches(order.slice(0, rerank), size, judge, "judged", progress, signal);
    progress.clear();
    const scoreOf = (i: number) => similarities.get(i)! + (judged.get(i)?.logit ?? 0);
    const isThere = (i: number) => !failed.has(i);
    const best = order
      .slice(0, rerank)
      .filter(isThere)
      .sort((a, b) => scoreOf(b) - scoreOf(a) || a - b);
    const ranked = [...best, ...order.slice(rerank)].map((i): Ranked => {
      const itm = judged.get(i)?.probability;
      const { id, image, text } = items[i]!;
      const name = typeof image === "string" ? image : image?.name;
      const item = { id, ...(name !== undefined && { image: name }), ...(text !== undefined && { text }) };
      return { ...item, itc: similarities.get(i)!, ...(itm !== undefined && { itm }), score: scoreOf(i) };
    });
    const rows = top === 0 ? ranked : ranked.slice(0, top);
    await terminal.out(
      asked.json ? `${JSON.stringify({ query: { text, image }, ranked: rows })}\n` : table(rows, kind, ranked.length),
    );
    const [first] = failed;
    if (!first) return EXIT.ok;
    for (const error of failed.values()) sayStack(terminal, error);
    const [i, error] = first;
    const { code, message = code } = describeError(error);
    const why = `${JSON.stringify(items[i]!.id)}: ${message.replace(/^error: /, "")}`;
    say(terminal, `${failed.size} of ${items.length} items failed and are not ranked; the first: ${why}`);
    return [...failed.values()].map((one) => describeError(one).exitCode).reduce(gravest, EXIT.ok);
  } finally {
    progress.clear();
    model.dispose();
  }
}

/** Embeds or judges items, by their places; all or, if it throws, none. */
type Work = (batch: readonly number[]) => Promise<void>;

async function inBatches(
  all: readonly number[],
  size: number,
  run: Work,
  what: string,
  progress: Progress,
  signal: AbortSignal,
): Promise<void> {
  const [begun, pace] = [performance.now(), new Pace()];
  for (let start = 0; start < all.length; start += size) {
    signal.throwIfAborted();
    const batch = all.slice(start, start + size);
    await run(batch);
    const done = start + batch.length;
    const left = pace.left(done, all.length);
    progress.show(`${what} ${progressText({ done, failed: 0 }, all.length, performance.now() - begun, left)}`);
  }
}

/** Longest text in the table. */
const MAX_TEXT = 80;

function table(rows: readonly Ranked[], kind: "image" | "text", total: number): string {
  const cell = (row: Ranked) => {
    const name = (kind === "image" ? row.image! : row.text!).replace(/\s+/g, " ");
    return name.length > MAX_TEXT ? `${name.slice(0, MAX_TEXT - 1)}…` : name;
  };
  const cells = rows.map((row, i) => [
    String(i + 1),
    row.itc.toFixed(4),
    row.itm === undefined ? "" : row.itm.toFixed(4),
    row.score.toFixed(4),
    String(row.id),
    ...(String(row.id) === cell(row) ? [] : [cell(row)]),
  ]);
  const more = rows.length < total ? `${total - rows.length} more; --top 0 prints all\n` : "";
  return formatTable([["", "ITC", "ITM", "score", "id"], ...cells], [0, 1, 2, 3]) + more;
}
