/**
 * InstructBLIP: a frozen image encoder, a Q-Former that reads the instruction while it looks at the image, a projection
 * into the language model's embeddings, and the language model.
 *
 *   pixels ─ vision_model ─► image states ─┐
 *   query_tokens, instruction ──────────► qformer ─ first Q outputs ─ language_projection ─► image features
 *   [<image> x Q][instruction] ─ embed_tokens ─ <image> rows replaced by image features ─► language_model ─► logits
 *
 * B rows, Q queries, T instruction tokens, L = prompt tokens with the Q placeholders, D hidden size, V vocabulary.
 * Source: Dai et al. 2023, InstructBLIP, figure 3; transformers 5.18, modeling_instructblip.py.
 */
import { Linear } from "../modules/linear.ts";
import { Module } from "../modules/module.ts";
import { type LoadOptions, type StorageDType, Weights } from "../modules/weights.ts";
import { type Device, openDevice, type Tracer } from "../tensor/device.ts";
import { InputError, WeightError } from "../tensor/errors.ts";
import { argmax } from "../tensor/ops/argmax.ts";
import { contiguous } from "../tensor/ops/copy.ts";
import { editScores } from "../tensor/ops/edit_scores.ts";
import { logSoftmax } from "../tensor/ops/log_softmax.ts";
import { maskedScatter } from "../tensor/ops/masked_scatter.ts";
import { topK } from "../tensor/ops/top_k.ts";
import { Checkpoint } from "../tensor/safetensors.ts";
import { formatShape } from "../tensor/shape.ts";
import type { Folder } from "../tensor/source.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { InstructBlipConfig, type TextConfig } from "./config.ts";
import { decodingConfig, type GenerationOptions, refuseUnknownOptions } from "./generation/configuration.ts";
import type { Decoder } from "./generation/decoder.ts";
import type { GenerateOutput } from "./generation/output.ts";
import { search } from "./generation/search.ts";
import type { TokenTexts } from "./generation/stopping.ts";
import type { Streamer } from "./generation/streamer.ts";
import type { Decoding, Ids, LanguageModel } from "./language_model.ts";
import { LlamaForCausalLM } from "./llama.ts";
import { OPTForCausalLM } from "./opt.ts";
import { type OpenFolderOptions, platform } from "./platform.ts";
import { InstructBlipQFormerModel, type QFormerOutput } from "./qformer.ts";
import { T5ForConditionalGeneration } from "./t5.ts";
import { InstructBlipVisionModel, type VisionOutput } from "./vision_model.ts";

export type { Ids } from "./language_model.ts";

/** Numbers on the host with their shape, as the processor gives them. */
export interface HostTensor {
  readonly data: Float32Array;
  readonly shape: readonly number[];
}

/** What the processor makes of images and text. */
export interface InstructBlipInputs {
  /** f32[B, 3, H, W], normalised */
  pixel_values: HostTensor;
  /** [B][T], the instruction in the Q-Former's vocabulary */
  qformer_input_ids: Ids;
  qformer_attention_mask?: Ids;
  /** [B][L], with num_query_tokens image placeholders in every row */
  input_ids: Ids;
  attention_mask?: Ids;
}

/** With a language model that has a decoder of its own (T5), what forward() is to give the logits of. */
export interface ForwardInputs extends InstructBlipInputs {
  /** [B][T], decoder_start_token_id first */
  decoder_input_ids?: Ids;
}

/** Tensors live until disposed, or until the `device.scope` they were made in ends. */
export interface InstructBlipOutput {
  /** f32[B, L, V]; with T5 f32[B, T, V] */
  readonly logits: Tensor;
  readonly vision_outputs: VisionOutput;
  readonly qformer_outputs: QFormerOutput;
  /** f32[B, Q, D]: the query outputs, projected into the language model's embeddings */
  readonly image_features: Tensor;
}

export interface ImageFeatures extends Omit<InstructBlipOutput, "logits"> {}

export interface GenerateOptions extends GenerationOptions {
  streamer?: Streamer;
  /** What stop_strings are looked up with. */
  tokenizer?: TokenTexts;
  /** Stops at the next token; generate() then rejects with the signal's reason. */
  signal?: AbortSignal;
  /** Called after every token of the batch, counted from 0. */
  on_token?: (step: number) => void;
}

export interface FromPretrainedOptions extends LoadOptions, OpenFolderOptions {
  /** Default: a device opened for this model, and destroyed with it. */
  device?: Device;
  /** What matrices are stored as; arithmetic is f32 always. Default "auto": as in the checkpoint. */
  dtype?: StorageDType;
}

/** Names that old checkpoints carry and nothing reads. */
const IGNORED = [
  /^qformer\.embeddings\.position_ids$/,
  /\.rotary_emb\.inv_freq$/,
  /^language_model\.encoder\.embed_tokens\.weight$/, // shared's, if that is there too
  /^language_model\.decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight$/,
];
const INPUT_NAMES = ["pixel_values", "qformer_input_ids", "qformer_attention_mask", "input_ids", "attention_mask"];

export class InstructBlipForConditionalGeneration extends Module {
  readonly config: InstructBlipConfig;
  readonly device: Device;
  /** f32[1, Q, Dq], learned */
  readonly query_tokens: Tensor;
  readonly vision_model: InstructBlipVisionModel;
  readonly qformer: InstructBlipQFormerModel;
  readonly language_projection: Linear;
  readonly language_model: LanguageModel;
  /** What was odd but harmless about the checkpoint. */
  readonly warnings: string[] = [];
  readonly #weights: Weights;
  #ownsDevice = false;

  /** Binds every parameter to the checkpoint by name and shape; `Weights.load` brings the numbers. */
  constructor(weights: Weights, config: InstructBlipConfig) {
    super(weights);
    this.config = config;
    this.device = weights.device;
    this.#weights = weights;
    const { num_query_tokens: Q, qformer_config, text_config } = config;
    this.vision_model = new InstructBlipVisionModel(weights.at("vision_model"), config.vision_config);
    this.query_tokens = weights.get("query_tokens", [1, Q, qformer_config.hidden_size]);
    this.qformer = new InstructBlipQFormerModel(weights.at("qformer"), qformer_config);
    this.language_projection = new Linear(weights.at("language_projection"), [
      text_config.hidden_size,
      qformer_config.hidden_size,
    ]);
    this.language_model = languageModel(weights.at("language_model"), text_config);
  }

  /**
   * Loads a Hugging Face checkpoint folder as it lies on disk: config.json and safetensors, in one file or many.
   *
   * @param from a path, in Node also a Hub id (`owner/name[@revision]`), or a Folder (a browser's files, HTTP)
   * @throws ConfigError, WeightError, DeviceError; the signal's reason
   */
  static async from_pretrained(
    from: string | Folder,
    { device, dtype = "auto", on_download, ...load }: FromPretrainedOptions = {},
  ): Promise<InstructBlipForConditionalGeneration> {
    const folder =
      typeof from === "string" ? await platform().openFolder(from, { on_download, signal: load.signal }) : from;
    const config = InstructBlipConfig.parse(await folder.text("config.json", 2 ** 20));
    const checkpoint = await Checkpoint.open(folder);
    const opened = device ?? (await openDevice());
    const weights = Weights.open(checkpoint, opened, dtype);
    try {
      const model = new InstructBlipForConditionalGeneration(weights, config);
      model.#ownsDevice = device === undefined;
      model.warnings.push(...checkpoint.warnings, ...model.#check());
      await weights.load(load);
      return model;
    } catch (error) {
      weights.dispose();
      if (!device) opened.destroy();
      throw error;
    } finally {
      await checkpoint.close();
    }
  }

  /**
   * One pass over prompt and image.
   *
   * LLaMA's positions are 0 … L-1 whatever the padding, as in HF's forward(); generate() derives them from the mask.
   *
   * @param tracer sees every module's output under its checkpoint path
   */
  async forward(inputs: ForwardInputs, { tracer }: { tracer?: Tracer } = {}): Promise<InstructBlipOutput> {
    return this.device.exclusive(() =>
      this.#traced(tracer, () =>
        this.device.scope(() => {
          const prompt = this.#checkInputs(inputs);
          const features = this.#imageFeatures(inputs);
          const inputs_embeds = this.#embed(prompt.ids, features.image_features); // [B, L, D]
          const embedded = { inputs_embeds, attention_mask: prompt.mask };
          const logits = this.language_model.forward(embedded, inputs.decoder_input_ids); // [B, L, V], or [B, T, V]
          return { logits: this.note(logits), ...features };
        }),
      ),
    );
  }

  /** Image features for an instruction: vision, Q-Former and projection alone. */
  async get_image_features(
    inputs: Pick<InstructBlipInputs, "pixel_values" | "qformer_input_ids" | "qformer_attention_mask">,
    { tracer }: { tracer?: Tracer } = {},
  ): Promise<ImageFeatures> {
    return this.device.exclusive(() =>
      this.#traced(tracer, () => this.device.scope(() => this.#imageFeatures(inputs))),
    );
  }

  /**
   * Answers: rows of token ids as Hugging Face's generate() returns them, prompt and image placeholders included.
   *
   * @throws InputError for inputs and options that cannot be used; DeviceError; the signal's reason
   */
  async generate(
    options: InstructBlipInputs & GenerateOptions & { return_dict_in_generate: true },
  ): Promise<GenerateOutput>;
  async generate(
    options: InstructBlipInputs & GenerateOptions & { return_dict_in_generate?: false | null },
  ): Promise<number[][]>;
  async generate(options: InstructBlipInputs & GenerateOptions): Promise<number[][] | GenerateOutput> {
    const { pixel_values, qformer_input_ids, qformer_attention_mask, input_ids, attention_mask, ...rest } = options;
    const inputs = { pixel_values, qformer_input_ids, qformer_attention_mask, input_ids, attention_mask };
    const { streamer, signal, on_token, tokenizer, ...generation } = rest;
    refuseUnknownOptions(generation, INPUT_NAMES);
    try {
      const prompt = this.#checkInputs(inputs);
      const start = this.#startOfRows(prompt);
      const { max_position_embeddings, eos_token_id, pad_token_id, sizes } = this.config.text_config;
      const config = decodingConfig(generation, {
        promptLength: start[0].length,
        vocabulary: this.language_model.vocabulary,
        max_position_embeddings,
        eos_token_id,
        pad_token_id,
        cacheBytesPerToken: 8 * sizes.num_hidden_layers * sizes.num_key_value_heads * sizes.head_dim,
      });
      signal?.throwIfAborted();
      const output = await this.device.exclusive(() =>
        this.device.scope(async () => {
          const decoding = this.language_model.begin(prompt.B, config.max_length);
          try {
            const decoder = this.#decoder(inputs, prompt, decoding);
            return await search(decoder, start, config, { tokenizer, streamer, signal, on_token });
          } finally {
            decoding.dispose();
          }
        }),
      );
      streamer?.end();
      return config.return_dict_in_generate ? output : output.sequences;
    } catch (error) {
      streamer?.end(error);
      throw error;
    }
  }

  /** Frees the weights, and the device if the model opened it. */
  dispose(): void {
    if (this.#ownsDevice) this.device.destroy();
    else this.#weights.dispose();
  }

  // --- the parts of a pass ---------------------------------------------------------------------------------------

  #imageFeatures({
    pixel_values,
    qformer_input_ids,
    qformer_attention_mask,
  }: Pick<InstructBlipInputs, "pixel_values" | "qformer_input_ids" | "qformer_attention_mask">): ImageFeatures {
    const { num_query_tokens: Q, qformer_config } = this.config;
    const B = qformer_input_ids.length;
    const T = expectRectangle("qformer_input_ids", qformer_input_ids);
    expectIds("qformer_input_ids", qformer_input_ids, this.qformer.embeddings.word_embeddings.num_embeddings);
    const text_mask = qformer_attention_mask ?? qformer_input_ids.map((row) => row.map(() => 1));
    expectSame("qformer_attention_mask", text_mask, qformer_input_ids);
    expectPixels(pixel_values, B);

    const pixels = this.device.tensor(pixel_values.data, pixel_values.shape); // [B, 3, h, w]
    const vision_outputs = this.vision_model.forward(pixels);
    const image_states = vision_outputs.last_hidden_state; // [B, N + 1, Dv]

    const queries = contiguous(this.query_tokens.expand([B, Q, qformer_config.hidden_size])); // [B, Q, Dq]
    const ids = this.device.tensor(Uint32Array.from(qformer_input_ids.flat()), [B, T]);
    const mask = text_mask.map((row) => [...new Array<number>(Q).fill(1), ...row]);
    const attention_mask = this.device.tensor(Uint32Array.from(mask.flat()), [B, Q + T]);
    const qformer_outputs = this.qformer.forward(ids, attention_mask, queries, image_states);

    const query_output = contiguous(qformer_outputs.last_hidden_state.narrow(1, 0, Q)); // [B, Q, Dq]
    const image_features = this.language_projection.forward(query_output); // [B, Q, D]
    return { vision_outputs, qformer_outputs, image_features };
  }

  /** Token embeddings with the placeholders' rows replaced, in row-major order, by image features. f32[B, L, D] */
  #embed(ids: Ids, image_features: Tensor): Tensor {
    const [B, L] = [ids.length, ids[0].length];
    const { image_token } = this.config;
    let found = 0;
    const source = Uint32Array.from(ids.flat(), (id) => (id === image_token ? ++found : 0));
    const embeds = this.language_model.embed(this.#idTensor(ids)); // [B, L, D]
    const [, , D] = embeds.shape;
    return maskedScatter(embeds, image_features.reshape([-1, D]), this.device.tensor(source, [B, L]));
  }

  /** What rows of ids begin with: the prompt, or the start token of a model whose encoder reads the prompt. */
  #startOfRows({ ids }: Prompt): Ids {
    const { language_model } = this;
    return language_model instanceof T5ForConditionalGeneration
      ? ids.map(() => [language_model.decoder_start_token_id])
      : ids;
  }

  /** Prefill and decode steps, for a search. */
  #decoder(inputs: InstructBlipInputs, prompt: Prompt, decoding: Decoding): Decoder<Tensor, Tensor<"u32">> {
    const { device } = this;
    return {
      prefill: () => {
        const inputs_embeds = this.#embed(prompt.ids, this.#imageFeatures(inputs).image_features); // [B, L, D]
        return decoding.prefill({ inputs_embeds, attention_mask: prompt.mask });
      },
      step: (tokens) => decoding.step(tokens),
      reorder: (rows) => decoding.reorder(rows),
      argmax,
      logSoftmax,
      edit: editScores,
      topK: async (logProbs, scores, beams, K) => {
        const best = await topK(logProbs, device.tensor(scores, [scores.length]), beams, K).read();
        return { scores: new Float32Array(best.buffer, 0, best.length / 2), indices: best.subarray(best.length / 2) };
      },
      upload: (tokens) => device.tensor(Uint32Array.from(tokens), [tokens.length]),
      scope: (fn) => device.scope(fn),
    };
  }

  #idTensor(ids: Ids): Tensor<"u32"> {
    return this.device.tensor(Uint32Array.from(ids.flat()), [ids.length, ids[0].length]);
  }

  async #traced<T>(tracer: Tracer | undefined, fn: () => T): Promise<T> {
    const before = this.device.tracer;
    this.device.tracer = tracer ?? before;
    try {
      return fn();
    } finally {
      this.device.tracer = before;
    }
  }

  // --- checks ----------------------------------------------------------------------------------------------------

  #check(): string[] {
    const warnings: string[] = [];
    const leftovers = this.#weights.leftovers(IGNORED);
    if (leftovers.length) {
      warnings.push(
        `${leftovers.length} tensors of the checkpoint are not used: ${leftovers.slice(0, 5).join(", ")}${leftovers.length > 5 ? ", …" : ""}`,
      );
    }
    const { image_token } = this.config;
    const rows = this.language_model.num_embeddings;
    if (image_token !== null && image_token >= rows) {
      throw new WeightError(
        "VOCAB_MISMATCH",
        `image_token_index is ${image_token}, but the embedding has ${rows} rows`,
      );
    }
    return warnings;
  }

  #checkInputs({ input_ids, attention_mask, qformer_input_ids }: InstructBlipInputs): Prompt {
    const L = expectRectangle("input_ids", input_ids);
    const B = input_ids.length;
    expectIds("input_ids", input_ids, this.language_model.num_embeddings);
    if (qformer_input_ids?.length !== B) {
      throw new InputError(
        "BATCH_MISMATCH",
        `input_ids has ${B} rows, qformer_input_ids ${qformer_input_ids?.length ?? "none"}`,
      );
    }
    const mask = attention_mask ?? input_ids.map((row) => row.map(() => 1));
    expectSame("attention_mask", mask, input_ids);
    const { image_token, num_query_tokens: Q } = this.config;
    if (image_token === null) {
      throw new InputError("LEGACY_CHECKPOINT", "config.json has no image_token_index: this version needs one", {
        hint: "add image_token_index to config.json and the <image> token to the tokenizer, as transformers' migration note says",
      });
    }
    input_ids.forEach((row, b) => {
      const found = row.reduce((sum, id) => sum + Number(id === image_token), 0);
      if (found !== Q) {
        throw new InputError(
          "IMAGE_TOKENS",
          `input_ids row ${b} has ${found} image tokens (id ${image_token}); it must have ${Q}`,
          {
            hint: found === 0 ? "the processor puts them there when it is given images" : undefined,
          },
        );
      }
    });
    return { B, L, ids: input_ids, mask };
  }
}

function languageModel(weights: Weights, config: TextConfig): LanguageModel {
  switch (config.model_type) {
    case "llama":
      return new LlamaForCausalLM(weights, config);
    case "opt":
      return new OPTForCausalLM(weights, config);
    case "t5":
      return new T5ForConditionalGeneration(weights, config);
  }
}

interface Prompt {
  readonly B: number;
  readonly L: number;
  readonly ids: Ids;
  readonly mask: Ids;
}

/** The rows' common length. */
function expectRectangle(name: string, rows: Ids | undefined): number {
  if (!Array.isArray(rows) || rows.length === 0 || !rows.every(Array.isArray)) {
    throw new InputError("BAD_INPUT", `${name} must be a list of rows of token ids`);
  }
  const length = rows[0].length;
  if (length === 0) throw new InputError("BAD_INPUT", `${name} must have at least one token`);
  if (rows.some((row) => row.length !== length)) {
    throw new InputError("RAGGED", `${name}: rows have ${rows.map((row) => row.length).join(", ")} tokens`, {
      hint: "pass padding: true to the processor",
    });
  }
  return length;
}

function expectIds(name: string, rows: Ids, vocabulary: number): void {
  for (const row of rows) {
    for (const id of row) {
      if (!Number.isInteger(id) || id < 0 || id >= vocabulary) {
        throw new InputError("TOKEN_ID", `${name}: ${id} is not a token id below ${vocabulary}`);
      }
    }
  }
}

function expectSame(name: string, mask: Ids, rows: Ids): void {
  const fits = mask.length === rows.length && mask.every((row, b) => row.length === rows[b].length);
  if (!fits || mask.some((row) => row.some((visible) => visible !== 0 && visible !== 1))) {
    throw new InputError("BAD_MASK", `${name} must have a 0 or 1 for every token`);
  }
}

function expectPixels(pixels: HostTensor | undefined, B: number): void {
  const shape = pixels?.shape;
  if (!pixels || !shape || shape.length !== 4 || shape[1] !== 3 || !(pixels.data instanceof Float32Array)) {
    throw new InputError(
      "BAD_PIXELS",
      `pixel_values must be a Float32Array of shape [B, 3, H, W], got ${shape ? formatShape(shape) : "none"}`,
    );
  }
  if (shape[0] !== B) {
    throw new InputError("BATCH_MISMATCH", `${shape[0]} images for ${B} prompts; give one image for each prompt`);
  }
  if (pixels.data.length !== shape[0] * shape[1] * shape[2] * shape[3]) {
    throw new InputError(
      "BAD_PIXELS",
      `pixel_values has ${pixels.data.length} numbers for shape ${formatShape(shape)}`,
    );
  }
  if (!pixels.data.every(Number.isFinite)) throw new InputError("BAD_PIXELS", "pixel_values has a NaN or an infinity");
}
