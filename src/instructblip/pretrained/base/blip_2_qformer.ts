/** BLIP-2's Q-Former by itself, with Hugging Face's methods; model/qformer.ts is the model. */
import { observeStates, observing, type StateOptions } from "../../../modules/observer.ts";
import type { Weights } from "../../../modules/weights.ts";
import { InputError } from "../../../tensor/errors.ts";
import { sizes } from "../../../tensor/shape.ts";
import { shown } from "../../../tensor/shown.ts";
import { Tensor } from "../../../tensor/tensor.ts";
import { Blip2Config, type Blip2QFormerConfig } from "../../config/blip_2.ts";
import { type Ids, maskTensor } from "../../model/language_model.ts";
import { Blip2QFormer, type QFormerOutput } from "../../model/qformer.ts";
import { type ForwardOptions, STATE_OPTIONS } from "../forward_options.ts";
import { expectRectangle, type HostTensor, maskOf } from "../inputs.ts";
import { PretrainedModel } from "../pretrained_model.ts";

/** Embeddings and image states. */
export interface Blip2QFormerModelInputs {
  /** f32[B, T, Dq]: queries, then a text's embeddings if there are any; on the host or on the model's device */
  query_embeds: HostTensor | Tensor;
  /** How many of the embeddings, from the first on, are queries. Default: all. */
  query_length?: number;
  /** [B][T], 1 = not padding. Default: all are visible. */
  attention_mask?: Ids;
  /** f32[B, N + 1, encoder_hidden_size], the image states, which queries need */
  encoder_hidden_states?: HostTensor | Tensor;
  /** [B][N + 1] of ones: every image state is visible. */
  encoder_attention_mask?: Ids;
}

const INPUTS = [
  "query_embeds",
  "query_length",
  "attention_mask",
  "encoder_hidden_states",
  "encoder_attention_mask",
] as const satisfies (keyof Blip2QFormerModelInputs)[];

/** The config of a Q-Former alone, as that of a BLIP-2 whose other parts are not read. */
class QFormerFolderConfig extends Blip2Config {
  static readonly model_types = [Blip2Config.model_type, "blip_2_qformer"];

  constructor(given: unknown) {
    const { model_type, encoder_hidden_size } = given as { model_type?: unknown; encoder_hidden_size?: unknown };
    const vision_config = { hidden_size: encoder_hidden_size, num_attention_heads: 1 };
    super(model_type === "blip_2_qformer" ? { qformer_config: given, vision_config } : given);
  }
}

/** The Q-Former of BLIP-2, from its own checkpoint or from that of any of BLIP-2's models. */
export class Blip2QFormerModel extends PretrainedModel<Blip2QFormerConfig> {
  static readonly config_class = QFormerFolderConfig;
  static readonly unused = [
    /^(vision_model|language_model|embeddings)\./,
    /^(language|vision|text)_projection\./,
    /^(query_tokens$|itm_head\.)/,
  ];
  /** The model itself: tensors in, tensors out. */
  readonly model: Blip2QFormer;

  static tensorName(name: string): string {
    return name.replace(/^qformer\./, "");
  }

  constructor(weights: Weights, { qformer_config }: Blip2Config) {
    super(weights, qformer_config);
    this.model = new Blip2QFormer(weights, qformer_config);
  }

  override get architecture(): string {
    return "Blip2QFormerModel";
  }

  /** @throws InputError BAD_INPUT, PARAM_RANGE, BAD_MASK, UNSUPPORTED_OPTION */
  async forward(
    inputs: Blip2QFormerModelInputs & StateOptions,
    options?: ForwardOptions & StateOptions,
    ...more: never[]
  ): Promise<QFormerOutput>;
  async forward(...given: unknown[]): Promise<QFormerOutput> {
    const { inputs, options } = this.readCall<Blip2QFormerModelInputs>("forward", given, INPUTS, [
      "observer",
      ...STATE_OPTIONS,
    ]);
    const { query_embeds, encoder_hidden_states, attention_mask, encoder_attention_mask } = inputs;
    const { hidden_size, encoder_hidden_size, has_text } = this.config;
    const [B, T] = expectStates("query_embeds", query_embeds, hidden_size);
    const { query_length = T } = inputs;
    if (!Number.isInteger(query_length) || query_length < 0 || query_length > T) {
      throw new InputError("PARAM_RANGE", `query_length must be a whole number up to ${T}, got ${shown(query_length)}`);
    }
    if (query_length < T && !has_text) {
      throw new InputError("UNSUPPORTED_OPTION", "query_length: this Q-Former reads queries alone", {
        hint: "use_qformer_text_input is false in its config",
      });
    }
    if (encoder_hidden_states !== undefined) {
      const [images, N] = expectStates("encoder_hidden_states", encoder_hidden_states, encoder_hidden_size);
      if (images !== B)
        throw new InputError("BATCH_MISMATCH", `encoder_hidden_states of ${images} images for ${B} rows`);
      if (encoder_attention_mask !== undefined) expectVisible(encoder_attention_mask, B, N);
    } else if (query_length > 0) {
      throw new InputError("BAD_INPUT", "queries need encoder_hidden_states, the image states");
    } else if (encoder_attention_mask !== undefined) {
      throw new InputError("BAD_INPUT", "encoder_attention_mask is of encoder_hidden_states, and there are none");
    }
    if (attention_mask !== undefined) expectMask("attention_mask", attention_mask, B, T);
    const { observer, ...states } = options as ForwardOptions & StateOptions;
    return observing(this.device, observer, () =>
      observeStates(this.device, states, () =>
        this.model.forward(this.#tensor(query_embeds), {
          query_length,
          encoder_hidden_states: encoder_hidden_states && this.#tensor(encoder_hidden_states),
          attention_mask: attention_mask && maskTensor(this.device, attention_mask),
        }),
      ),
    );
  }

  override async compile(): Promise<void> {
    const { hidden_size, encoder_hidden_size } = this.config;
    const zeros = (width: number) => this.device.tensor(new Float32Array(width), [1, 1, width]);
    const pass = () => this.model.forward(zeros(hidden_size), { encoder_hidden_states: zeros(encoder_hidden_size) });
    await this.device.prepare(this.device.dryRun(pass));
  }

  #tensor(x: HostTensor | Tensor): Tensor {
    return x instanceof Tensor ? x : this.device.tensor(x.data, x.shape);
  }
}

/** @returns B and T of f32[B, T, D] @throws InputError BAD_INPUT */
function expectStates(name: string, x: HostTensor | Tensor, D: number): [B: number, T: number] {
  const shape: unknown = x?.shape;
  const fits = Array.isArray(shape) && shape.length === 3 && shape[0] > 0 && shape[1] > 0 && shape[2] === D;
  const isWhole = x instanceof Tensor || (x?.data instanceof Float32Array && x.data.length === sizeOfAll(shape));
  if (fits && isWhole) {
    const [B, T] = sizes(shape as number[], 3);
    return [B, T];
  }
  throw new InputError(
    "BAD_INPUT",
    `${name} must be { data, shape }, a Float32Array of shape [B, T, ${D}], or a tensor of it, got ${statesGiven(x)}`,
  );
}

/** What was given in place of states, in words. */
function statesGiven(x: unknown): string {
  const { data, shape } = Object(x) as { data?: unknown; shape?: unknown };
  if (!Array.isArray(shape)) return shown(x);
  const of = `of shape ${shown(shape)}`;
  if (x instanceof Tensor) return `one ${of}`;
  if (data instanceof Float32Array) return `${data.length} numbers ${of}`;
  const kind = ArrayBuffer.isView(data) ? Object.prototype.toString.call(data).slice(8, -1) : shown(data);
  return `${kind} ${of}`;
}

function sizeOfAll(shape: unknown): number {
  return Array.isArray(shape) ? shape.reduce((size: number, n: number) => size * n, 1) : Number.NaN;
}

/** @throws InputError BAD_INPUT, RAGGED, BAD_MASK */
function expectMask(name: string, mask: Ids, B: number, T: number): void {
  expectRectangle(name, mask);
  maskOf(
    name,
    mask,
    Array.from({ length: B }, () => new Array<number>(T).fill(0)),
  );
}

/** Checks a mask of B · N image states, which must all be visible. @throws InputError BAD_MASK, UNSUPPORTED_OPTION */
function expectVisible(mask: Ids, B: number, N: number): void {
  const isWhole =
    Array.isArray(mask) && mask.length === B && mask.every((row) => Array.isArray(row) && row.length === N);
  if (!isWhole || mask.some((row: readonly number[]) => row.some((visible) => visible !== 0 && visible !== 1))) {
    throw new InputError("BAD_MASK", `encoder_attention_mask must be ${B} x ${N}, a 1 for every image state`);
  }
  if (mask.some((row) => row.includes(0))) {
    throw new InputError("UNSUPPORTED_OPTION", "encoder_attention_mask: every image state is visible here");
  }
}
