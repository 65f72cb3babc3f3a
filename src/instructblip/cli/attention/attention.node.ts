/**
 * `attention`: the cross-attention of each of the Q-Former's queries to an image or a frame, for an instruction if the
 * Q-Former reads one, drawn over the image as contact sheets or printed as numbers.
 */
import { basename } from "node:path";
import { Linear } from "../../../modules/linear.ts";
import { observeStates } from "../../../modules/observer.ts";
import { type StorageDType, Weights } from "../../../modules/weights.ts";
import type { Device } from "../../../tensor/device/device.ts";
import { openDevice } from "../../../tensor/device/open_device.ts";
import { InputError } from "../../../tensor/errors.ts";
import type { Checkpoint } from "../../../tensor/files/checkpoint.ts";
import { sizes } from "../../../tensor/shape.ts";
import { Blip2Config } from "../../config/blip_2.ts";
import type { VisionLanguageConfig } from "../../config/config.ts";
import { blip2ImageFeatures } from "../../model/blip_2.ts";
import { instructBlipImageFeatures } from "../../model/instructblip.ts";
import { Blip2QFormer, InstructBlipQFormerModel } from "../../model/qformer.ts";
import type { ImageFeatures } from "../../model/vision_language.ts";
import { InstructBlipVisionModel } from "../../model/vision_model.ts";
import { AutoProcessor } from "../../pretrained/auto_processor.ts";
import { expectFits } from "../../pretrained/checkpoint/fit.ts";
import { weightsOf } from "../../pretrained/checkpoint/open_weights.ts";
import { expectWords, framesOf, type HostTensor } from "../../pretrained/inputs.ts";
import { type InstructBlipInputs, uploadInstruction } from "../../pretrained/instructblip.ts";
import type { ModelFolder } from "../../pretrained/model_folder.ts";
import { readNamedImage } from "../../pretrained/platform.node.ts";
import { imageName } from "../../processing/image_source.ts";
import { openModelFolder } from "../folder.node.ts";
import { checkOut } from "../requests/out_file.node.ts";
import { loading, noteSoftware, prepareInputs, type Run } from "../session.node.ts";
import type { PatchGrid, SheetContent } from "./attention_sheet.ts";
import { checkSheetName, type NamedSheet, writeSheets } from "./sheet_file.node.ts";

export interface AttentionOptions {
  readonly model: string;
  readonly image: string;
  /** BLIP-2 has none. */
  readonly prompt?: string;
  /** A .png or .svg; for several sheets their names are inserted before the extension. */
  readonly out?: string;
  readonly json?: boolean;
  readonly layer?: number;
  /** One head, or all of them separately; default: their mean. */
  readonly head?: number | "all";
  readonly query?: number;
  readonly blocks?: boolean;
  readonly scaleMax?: number;
  readonly dtype: StorageDType;
}

/** One layer's cross-attention by one head, or by the mean of all. */
interface LayerMaps {
  readonly layer: number;
  readonly head: number | "mean";
  readonly queries: readonly { readonly query: number; readonly class_token: number; readonly patches: Float32Array }[];
}

export async function runAttention(options: AttentionOptions, run: Run): Promise<void> {
  const { out } = options;
  if (out !== undefined) {
    checkSheetName(out);
    await checkOut(out);
  }
  const folder = await openModelFolder(options.model, run);
  const config = await folder.config();
  checkChoice(options, config);
  const processor = await AutoProcessor.from_pretrained(folder);
  const image = await readNamedImage(options.image, { signal: run.signal });
  const { pixel_values, qformer_input_ids, qformer_attention_mask } = await prepareInputs(
    processor,
    config,
    [image],
    [options.prompt ?? ""],
  );
  const frame = framesOf(pixel_values); // a video of one frame is treated as an image
  const [, , H, W] = sizes(frame.shape, 4);
  const P = config.vision_config.patch_size;
  const grid = { rows: Math.floor(H / P), columns: Math.floor(W / P), height: H / P, width: W / P };

  const inputs = { pixel_values: frame, qformer_input_ids, qformer_attention_mask };
  const maps: LayerMaps[] = [];
  const attentions = await crossAttentions(folder, config, inputs, options.dtype, run);
  for (const [i, layer] of crossLayers(config).entries()) {
    if (layer === (options.layer ?? layer)) maps.push(...mapsOf(layer, attentions[i]!, options));
  }
  run.signal.throwIfAborted();
  if (out !== undefined) {
    const asked = options.prompt === undefined ? "" : `: “${options.prompt.replace(/\s+/g, " ").trim()}”`;
    const title = basename(imageName(options.image)) + asked;
    const { blocks, scaleMax: scale_max } = options;
    const sheets = sheetsOf(maps, options, { title, image, grid, blocks, scale_max });
    const files = await writeSheets(out, sheets, run);
    if (!options.json) await run.terminal.out(files.map((file) => `${file}\n`).join(""));
  }
  if (options.json) await run.terminal.out(`${JSON.stringify(numbersOf(options, grid, maps))}\n`);
}

/**
 * The probabilities of every cross-attention, f32[1, H, Q, N + 1]. Loads the image encoder and the Q-Former alone, not the
 * language model, which is most of a checkpoint.
 */
async function crossAttentions(
  folder: ModelFolder,
  config: VisionLanguageConfig,
  inputs: Pick<InstructBlipInputs, "pixel_values" | "qformer_input_ids" | "qformer_attention_mask">,
  dtype: StorageDType,
  run: Run,
): Promise<HostTensor[]> {
  const { vision_config, qformer_config, text_config, num_query_tokens: Q } = config;
  const device = await openDevice();
  let checkpoint: Checkpoint | undefined;
  try {
    await checkDownloadedParts(folder, device, dtype);
    checkpoint = await weightsOf(folder);
    expectFits(checkpoint, device, dtype, isLooking);
    const weights = Weights.open(checkpoint, device, dtype);
    const { hidden_size: D } = qformer_config;
    const parts = {
      device,
      vision_model: new InstructBlipVisionModel(weights.at("vision_model"), vision_config),
      query_tokens: weights.get("query_tokens", [1, Q, D]),
      language_projection: new Linear(weights.at("language_projection"), [text_config.hidden_size, D]),
    };
    let features: () => ImageFeatures;
    const pixels = () => device.tensor(inputs.pixel_values.data, inputs.pixel_values.shape);
    if (config instanceof Blip2Config) {
      const qformer = new Blip2QFormer(weights.at("qformer").lossless(), config.qformer_config);
      features = () => blip2ImageFeatures({ ...parts, qformer }, { pixels: pixels() });
    } else {
      const qformer = new InstructBlipQFormerModel(weights.at("qformer"), config.qformer_config);
      expectWords(inputs, qformer.embeddings, undefined);
      features = () =>
        instructBlipImageFeatures({ ...parts, qformer }, { pixels: pixels(), ...uploadInstruction(device, inputs, Q) });
    }
    await loading(run, (on_progress) => weights.load({ on_progress, signal: run.signal }));
    noteSoftware(device, run);
    return await device.scope(async () => {
      const look = () => features().qformer_outputs.cross_attentions!;
      const read: HostTensor[] = [];
      for (const tensor of observeStates(device, { output_attentions: true }, look)) {
        read.push({ data: await tensor.read(), shape: tensor.shape });
      }
      return read;
    });
  } finally {
    await checkpoint?.close();
    device.destroy();
  }
}

/** Refuses parts that do not fit before files are downloaded, if they would be. @throws as expectFits */
async function checkDownloadedParts(folder: ModelFolder, device: Device, dtype: StorageDType): Promise<void> {
  const preview = folder.preview();
  if (!preview) return;
  const headers = await weightsOf(preview);
  try {
    if (preview.isRemote) expectFits(headers, device, dtype, isLooking);
  } finally {
    await headers.close();
  }
}

/** Whether a tensor is of the image encoder or the Q-Former, which are all that is loaded. */
const isLooking = (name: string) => !name.startsWith("language_model.");

/** The layers with cross-attention. */
function crossLayers({
  qformer_config: { num_hidden_layers, cross_attention_frequency },
}: VisionLanguageConfig): number[] {
  return Array.from({ length: num_hidden_layers }, (_, i) => i).filter((i) => i % cross_attention_frequency === 0);
}

/** Checks options before the weights are loaded. @throws InputError PARAM_RANGE */
function checkChoice({ prompt, layer, head, query }: AttentionOptions, config: VisionLanguageConfig): void {
  if (config instanceof Blip2Config && prompt !== undefined) {
    throw new InputError(
      "PROMPT",
      "--prompt: BLIP-2's Q-Former reads no text, its queries look the same whatever is asked",
      {
        hint: "leave it out",
      },
    );
  }
  if (!(config instanceof Blip2Config) && prompt === undefined) {
    throw new InputError("PROMPT", "--prompt <text> is needed: the Q-Former of this model reads the instruction");
  }
  const layers = crossLayers(config);
  if (layer !== undefined && !layers.includes(layer)) {
    throw new InputError("PARAM_RANGE", `--layer ${layer}: queries look at the image in layers ${layers.join(", ")}`);
  }
  const { num_attention_heads: heads } = config.qformer_config;
  if (typeof head === "number" && head >= heads) {
    throw new InputError("PARAM_RANGE", `--head ${head}: there are heads 0 to ${heads - 1}`);
  }
  if (query !== undefined && query >= config.num_query_tokens) {
    throw new InputError("PARAM_RANGE", `--query ${query}: there are queries 0 to ${config.num_query_tokens - 1}`);
  }
}

/** @param attentions f32[1, H, Q, N + 1], the class token first */
function mapsOf(layer: number, { data, shape }: HostTensor, { head, query }: AttentionOptions): LayerMaps[] {
  const [, H, Q, S] = sizes(shape, 4);
  const all = Array.from({ length: H }, (_, h) => h);
  const row = (h: number, q: number) => data.subarray((h * Q + q) * S, (h * Q + q + 1) * S);
  const mean = (q: number) => meanOf(all.map((h) => row(h, q)));
  const queries = (weights: (q: number) => Float32Array) =>
    Array.from({ length: Q }, (_, q) => q)
      .filter((q) => q === (query ?? q))
      .map((q) => ({ query: q, class_token: weights(q)[0]!, patches: weights(q).slice(1) }));
  if (head === undefined) return [{ layer, head: "mean", queries: queries(mean) }];
  const heads = head === "all" ? all : [head];
  return heads.map((h) => ({ layer, head: h, queries: queries((q) => row(h, q)) }));
}

/**
 * A sheet for each layer and head with a map for each query; for one query a single sheet with a map for each layer and
 * head.
 */
function sheetsOf(
  maps: readonly LayerMaps[],
  options: AttentionOptions,
  common: Pick<SheetContent, "title" | "image" | "grid" | "blocks" | "scale_max">,
): NamedSheet[] {
  const headText = (head: number | "mean") => (head === "mean" ? "mean of all heads" : `head ${head}`);
  const allHeads = options.head === "all";
  if (options.query !== undefined) {
    const heads = allHeads ? "every head" : headText((options.head as number | undefined) ?? "mean");
    const subtitle = `Q-Former cross-attention of query ${options.query}, ${heads}`;
    const ofLayers = maps.flatMap(({ layer, head, queries }) =>
      queries.map((map) => ({ ...map, caption: allHeads ? `layer ${layer}, head ${head}` : `layer ${layer}` })),
    );
    const columns = allHeads ? maps.filter(({ layer }) => layer === maps[0]?.layer).length : undefined;
    return [{ name: "", content: { ...common, subtitle, maps: ofLayers, columns } }];
  }
  return maps.map(({ layer, head, queries }) => {
    const mean = {
      caption: "mean",
      patches: meanOf(queries.map(({ patches }) => patches)),
      class_token: queries.reduce((sum, { class_token }) => sum + class_token, 0) / queries.length,
    };
    const subtitle = `Q-Former cross-attention, layer ${layer}, ${headText(head)}: where each query looked`;
    const ofQueries = queries.map((map) => ({ ...map, caption: `query ${map.query}` }));
    const parts = [...(options.layer === undefined ? [`.layer-${layer}`] : []), ...(allHeads ? [`.head-${head}`] : [])];
    return { name: parts.join(""), content: { ...common, subtitle, maps: ofQueries, mean } };
  });
}

/** The mean of rows of one length, element by element. */
function meanOf(rows: readonly Float32Array[]): Float32Array {
  const sums = new Float64Array(rows[0]!.length);
  for (const row of rows) for (const [i, x] of row.entries()) sums[i]! += x;
  return Float32Array.from(sums, (sum) => sum / rows.length);
}

/** The output of --json. Patches are in row-major order. */
function numbersOf({ image, prompt }: AttentionOptions, { rows, columns }: PatchGrid, maps: readonly LayerMaps[]) {
  const layers = maps.map(({ queries, ...one }) => ({
    ...one,
    queries: queries.map(({ query, class_token, patches }) => ({ query, class_token, patches: [...patches] })),
  }));
  return { image, prompt: prompt ?? null, grid: [rows, columns], layers };
}
