/**
 * What the explorer shows of a model while it answers.
 *
 * H heads, Q queries, N patches, n tokens of the answer, T tokens of the language model.
 */
import type { ModelInputs, Streamer, Tensor, VisionLanguageModel } from "../../../src/index.ts";
import { attribute, logitLens, occludedWords } from "../../../src/index.ts";
import { answerPass, imagePositions } from "../../../src/instructblip/instruments/answer_pass.ts";
import { prepareAblation } from "../../../src/instructblip/instruments/sweep/ablate.ts";
import { tokenText } from "../../../src/instructblip/tokenizer/token_text.ts";
import { keptCopy } from "../../../src/modules/observer.ts";
import type { ObservedKind, Observer } from "../../../src/tensor/device/device.ts";
import type { ActivationDType } from "../../../src/tensor/dtype.ts";
import type { Context, Local } from "../../../src/worker.ts";
import type { Look, Occluded, PageCalls, SeenToken, SeenWord, Weights } from "./protocol.ts";

/** What a call is given, in the worker: the model and the processor themselves. */
type Asked<N extends keyof PageCalls> = Local<PageCalls[N]["asked"]>;
/** What it tells the page. */
type News<N extends keyof PageCalls> = Pick<Context<PageCalls[N]["news"]>, "tell" | "signal">;

/** Words of a token that are shown, at most. */
const WORDS = 5;
const MAX_NEW_TOKENS = 64;

/** The answer with what is seen inside. */
export async function look(
  { model, processor, image, text, interventions }: Asked<"look">,
  { tell, signal }: News<"look">,
): Promise<Look> {
  const inputs = (await processor({ images: [image], text: [text] })) as ModelInputs;
  const { tokenizer } = processor;
  const textOf = (id: number) => tokenText(tokenizer, id);
  const named = ({ id, logprob }: { id: number; logprob: number }): SeenWord => ({ id, text: textOf(id), logprob });
  const isEnd = (id: number) => tokenizer.decode([id], { skip_special_tokens: true }) === "";
  const streamer = new IdStreamer((id) => tell({ id, text: isEnd(id) ? "" : textOf(id) }));
  const output = await model.generate({
    ...inputs,
    max_new_tokens: MAX_NEW_TOKENS,
    return_dict_in_generate: true,
    logprobs: WORDS,
    interventions,
    streamer,
    signal,
  });
  const tokens = output.logprobs![0]!.tokens.map((token): SeenToken => {
    return { ...named(token), isEnd: isEnd(token.id), top: token.top.map(named) };
  });
  const answer = tokens.map(({ id }) => id);
  const lens = await logitLens(model, inputs, { answer, interventions, top_k: WORDS, signal });
  const words = lens.image.map(({ states }) => states.map(({ top }) => top.map(named)));
  const { rows, columns } = lens.maps;
  return {
    tokens,
    words,
    grid: { rows, columns },
    ...(await attentions(model, inputs, answer, interventions, signal)),
  };
}

/** Tells each new id. */
class IdStreamer implements Streamer {
  readonly #tell: (id: number) => void;
  #isPrompt = true;

  constructor(tell: (id: number) => void) {
    this.#tell = tell;
  }

  put([row]: readonly (readonly number[])[]): void {
    if (!this.#isPrompt) for (const id of row ?? []) this.#tell(id);
    this.#isPrompt = false;
  }

  end(): void {}
}

/** Where the queries looked, and what the answer's tokens read of them. */
export async function attentions(
  model: VisionLanguageModel,
  inputs: ModelInputs,
  answer: readonly number[],
  interventions: PageCalls["look"]["asked"]["interventions"],
  signal: AbortSignal,
): Promise<Pick<Look, "maps" | "map_layers" | "reads">> {
  const { config, device } = model;
  const { ids, call } = await answerPass("the explorer", model, inputs, { answer, interventions, signal });
  // Image tokens are in a row.
  const [first = 0] = imagePositions(ids, config.image_token, config.num_query_tokens);
  const observer = new KeptAttentions(
    model.language_model.is_encoder_decoder,
    answer.length,
    first,
    config.num_query_tokens,
  );
  try {
    await device.scope(() => model.forward({ ...call, interventions, logits_to_keep: 1 }, { observer }));
    signal.throwIfAborted();
    const { cross_attention_frequency: every } = config.qformer_config;
    const maps = await weightsOf(observer.maps);
    return { maps, map_layers: observer.maps.map((_, i) => i * every), reads: await weightsOf(observer.reads) };
  } finally {
    observer.dispose();
  }
}

/** Keeps the parts of attentions that are shown, on the device. */
class KeptAttentions implements Observer {
  readonly #kind: ObservedKind;
  readonly #n: number;
  readonly #first: number;
  readonly #Q: number;
  /** f32[1, H, Q, N] of each layer */
  readonly maps: Tensor[] = [];
  /** f32[1, H, n, Q] of each layer */
  readonly reads: Tensor[] = [];

  constructor(isEncoderDecoder: boolean, n: number, first: number, Q: number) {
    this.#kind = isEncoderDecoder ? "cross_attentions" : "attentions";
    this.#n = n;
    this.#first = first;
    this.#Q = Q;
  }

  wants(path: string, kind: ObservedKind): boolean {
    if (path.startsWith("qformer.")) return kind === "cross_attentions";
    return path.startsWith("language_model.") && kind === this.#kind;
  }

  see(path: string, _kind: ObservedKind, x: Tensor<ActivationDType>): undefined {
    const tensor = x as Tensor;
    if (path.startsWith("qformer.")) {
      this.maps.push(keptCopy(tensor.narrow(3, 1, tensor.shape[3]! - 1))); // the class token is first
    } else {
      const rows = tensor.narrow(2, tensor.shape[2]! - this.#n, this.#n); // from which the answer's tokens were chosen
      this.reads.push(keptCopy(rows.narrow(3, this.#first, this.#Q)));
    }
  }

  dispose(): void {
    for (const tensor of [...this.maps, ...this.reads]) tensor.dispose();
  }
}

async function weightsOf(layers: readonly Tensor[]): Promise<Weights> {
  const [, heads = 0, rows = 0, columns = 0] = layers[0]?.shape ?? [];
  const data = new Float32Array(layers.length * heads * rows * columns);
  for (const [i, layer] of layers.entries()) data.set(await layer.read(), i * heads * rows * columns);
  return { layers: layers.length, heads, rows, columns, data };
}

/** What can be taken out, one by one, as `ablate` does. */
const TARGETS = ["qformer.queries", "**.heads"];

/** @param answer its effects are measured on; default: any one token, where the parts alone are of interest */
export async function prepareParts({ model, processor, image, text }: Asked<"parts">, answer = [0]) {
  const inputs = (await processor({ images: [image], text: [text] })) as ModelInputs;
  return prepareAblation(model, inputs, { answer, targets: TARGETS });
}

/** Takes each part out by itself. */
export async function effects(
  { answer, ...asked }: Asked<"effects">,
  { tell, signal }: News<"effects">,
): Promise<void> {
  const { units, logprobs, scores } = await prepareParts(asked, [...answer]);
  const whole = logprobs.reduce((sum, x) => sum + x, 0);
  for await (const { index, logprob } of scores(units.map((_, i) => i))) {
    tell({ part: index, effect: logprob - whole });
    signal.throwIfAborted();
  }
}

/** What the answer rests on, in the image and in the question. */
export async function occlude(
  { model, processor, image, text, answer }: Asked<"occlude">,
  { tell, signal }: News<"occlude">,
): Promise<Occluded> {
  const inputs = (await processor({ images: [image], text: [text] })) as ModelInputs;
  const words = await occludedWords(processor, text, inputs);
  const methods = ["image", "words"] as const;
  const found = await attribute(model, inputs, { answer, words, methods, on_progress: tell, signal });
  return {
    window: found.image!.window,
    drops: found.image!.drops,
    words: words.map((word, i) => ({ text: word.text, drops: found.words![i]! })),
  };
}
