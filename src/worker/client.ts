/** The page's end: the library's names, whose work is done in a worker. */
import type { Caps } from "../tensor/device/caps.ts";
import type { DeviceOptions } from "../tensor/device/open_device.ts";
import { InputError } from "../tensor/errors.ts";
import { type CallOptions, Connection, type WorkerLike } from "./connection.ts";
import type {
  Calls,
  FunctionName,
  LibraryCalls,
  ListenerNews,
  ModelClassName,
  PostedModel,
  Remote,
} from "./messages.ts";
import {
  isPlain,
  placeOf,
  postableImages,
  postableInput,
  remoteOf,
  setRemote,
  split,
  withPlaces,
  withRemotes,
} from "./posted.ts";
import { refuseOthers } from "./refused.ts";
import { remotely } from "./remote_tensor.ts";
import type {
  RemoteAnyModel,
  RemoteBaseModel,
  RemoteBlip2Model,
  RemoteFrom,
  RemoteFunctions,
  RemoteImageModel,
  RemoteImageTextToText,
  RemoteImageToText,
  RemoteModel,
  RemoteModelClass,
  RemoteModelOptions,
  RemotePipelineOptions,
  RemoteProcessor,
  RemoteProcessorOptions,
  RemoteQFormerModel,
  RemoteRetrievalModel,
  RemoteTextModel,
  RemoteTokenizer,
  RemoteVideoModel,
  RemoteVisionModel,
  RemoteVisualQuestionAnswering,
} from "./remote_types.ts";
import { followed, splitAll } from "./streaming.ts";

/** Of a tokenizer. */
const TOKENIZER = [
  "encode",
  "encode_batch",
  "decode",
  "batch_decode",
  "convert_tokens_to_ids",
  "convert_ids_to_tokens",
] as const satisfies (keyof RemoteTokenizer)[];

/** Of a processor, besides its tokenizer's. */
const PROCESSOR = ["post_process_image_text_to_text", "save_pretrained"] as const satisfies (keyof RemoteProcessor)[];

/** A worker, and the library's names for what it does. */
export class WorkerClient<C extends Calls = Record<never, never>> implements RemoteFunctions {
  readonly #connection: Connection;

  constructor(worker: WorkerLike) {
    this.#connection = new Connection(worker);
    refuseOthers(this, "client");
  }

  /** Called when the GPU device is lost: models of the worker are gone; one loaded now gets a new device. */
  get onlost(): ((error: Error) => void) | undefined {
    return this.#connection.onlost;
  }

  set onlost(listener: ((error: Error) => void) | undefined) {
    this.#connection.onlost = listener;
  }

  readonly AutoProcessor = {
    /** @throws as the library's; DeviceError WORKER_GONE */
    from_pretrained: async (from: RemoteFrom, options: RemoteProcessorOptions = {}): Promise<RemoteProcessor> => {
      const { given, listeners, tell, signal } = split("from_pretrained", options);
      const asked = { from: placeOf(from), options: given, listeners };
      const { remote, facts } = await this.#ask("load_processor", asked, { tell, signal });
      const { special_ids, ...about } = facts;
      const methods = this.#methods({ remote, part: "tokenizer" }, TOKENIZER);
      const tokenizer = { ...special_ids, ...methods };
      const { decode, batch_decode } = methods;
      const processor = async (...inputs: unknown[]) => {
        const upright = inputs.some((input) => isPlain(input) && input.exif_transpose === true);
        const read = await Promise.all(inputs.map((input) => postableInput(input, upright)));
        return this.#ask("process", { processor: { remote }, given: read });
      };
      const own = { decode, batch_decode, tokenizer, dispose: () => this.#dispose({ remote }) };
      const made = Object.assign(processor, about, own, this.#methods({ remote }, PROCESSOR));
      setRemote(made, { remote });
      setRemote(Object.assign(tokenizer, { processor: made }), { remote, part: "tokenizer" });
      return refuseOthers(made, "processor") as unknown as RemoteProcessor;
    },
  };

  readonly AutoModel = this.#loads<RemoteAnyModel>("AutoModel");
  readonly AutoModelForImageTextToText = this.#loads<RemoteModel>("AutoModelForImageTextToText");
  readonly Blip2ForConditionalGeneration = this.#loads<RemoteImageModel>("Blip2ForConditionalGeneration");
  readonly Blip2ForImageTextRetrieval = this.#loads<RemoteRetrievalModel>("Blip2ForImageTextRetrieval");
  readonly Blip2Model = this.#loads<RemoteBlip2Model>("Blip2Model");
  readonly Blip2QFormerModel = this.#loads<RemoteQFormerModel>("Blip2QFormerModel");
  readonly Blip2TextModelWithProjection = this.#loads<RemoteTextModel>("Blip2TextModelWithProjection");
  readonly Blip2VisionModelWithProjection = this.#loads<RemoteVisionModel>("Blip2VisionModelWithProjection");
  readonly InstructBlipForConditionalGeneration = this.#loads<RemoteImageModel>("InstructBlipForConditionalGeneration");
  readonly InstructBlipModel = this.#loads<RemoteBaseModel>("InstructBlipModel");
  readonly InstructBlipVideoModel = this.#loads<RemoteBaseModel>("InstructBlipVideoModel");
  readonly InstructBlipVideoForConditionalGeneration = this.#loads<RemoteVideoModel>(
    "InstructBlipVideoForConditionalGeneration",
  );

  readonly attribute: RemoteFunctions["attribute"] = (...given) => this.#apply("attribute", given, 2);
  readonly logitLens: RemoteFunctions["logitLens"] = (...given) => this.#apply("logitLens", given, 2);
  readonly ablate: RemoteFunctions["ablate"] = (...given) => this.#apply("ablate", given, 2);
  readonly patchActivations: RemoteFunctions["patchActivations"] = (...given) =>
    this.#apply("patchActivations", given, 3);
  readonly candidateIds: RemoteFunctions["candidateIds"] = (...given) => this.#apply("candidateIds", given);

  /** Hugging Face's pipeline(), which loads a model and its processor in the worker. @throws as the library's */
  pipeline(task: "image-text-to-text", options: RemotePipelineOptions): Promise<RemoteImageTextToText>;
  pipeline(task: "visual-question-answering", options: RemotePipelineOptions): Promise<RemoteVisualQuestionAnswering>;
  pipeline(task: "image-to-text", options: RemotePipelineOptions): Promise<RemoteImageToText>;
  async pipeline(task: string, all: RemotePipelineOptions): Promise<unknown> {
    const { model, processor, ...rest } = all;
    refuseDevice("pipeline", rest);
    const { given, listeners, tell, signal } = split("pipeline", withPlaces(rest as Record<string, unknown>));
    const own = remoteOf(model);
    const asked = {
      task,
      model: own ?? placeOf(model as RemoteFrom),
      processor: processor ? remoteOf(processor) : undefined,
      options: given,
      listeners,
    };
    if (processor && !asked.processor) {
      throw new InputError("BAD_INPUT", "pipeline: processor is not one of this worker");
    }
    const loaded = await this.#ask("load_pipeline", asked, { tell, signal });
    const { remote, generation_config } = loaded;
    const call = async (...inputs: unknown[]): Promise<unknown> => {
      const [first, ...others] = inputs;
      const read = isPlain(first) ? await postableInput(first, true) : await postableImages(first, true);
      const more = await Promise.all(others.map((one) => postableInput(one, true)));
      return this.#run({ remote }, "process", [read, ...more], made);
    };
    const made = Object.assign(call, {
      task,
      model: own ? (model as RemoteModel) : (this.#modelOf(loaded.model) as RemoteModel),
      generation_config,
      dispose: () => this.#dispose({ remote }),
    });
    return setRemote(made, { remote });
  }

  /** Opens the worker's device, unless it is open; models are loaded onto it. @returns its capabilities */
  async openDevice(options: Omit<DeviceOptions, "adapter"> = {}): Promise<Caps> {
    return (await this.#ask("openDevice", options)) as Caps;
  }

  /**
   * A call of the application's own; see answerCalls(). Models and processors may be given where they are properties.
   *
   * @throws what the handler throws, of the same class and code
   */
  call<N extends keyof C & string>(
    name: N,
    asked: C[N]["asked"],
    options: CallOptions<C[N]["news"]> = {},
  ): Promise<C[N]["result"]> {
    return this.#connection.post<C[N]["result"], C[N]["news"]>(name, withRemotes(asked), options).answer;
  }

  /** Ends the worker and frees what it holds. Calls that wait reject with WORKER_GONE. */
  terminate(): void {
    this.#connection.terminate();
  }

  #loads<M>(name: ModelClassName): RemoteModelClass<M> {
    return {
      from_pretrained: async (from: RemoteFrom, options: RemoteModelOptions = {}): Promise<M> => {
        refuseDevice("from_pretrained", options);
        const { given, listeners, tell, signal } = split(
          "from_pretrained",
          withPlaces(options as Record<string, unknown>),
        );
        const asked = { name, from: placeOf(from), options: given, listeners };
        return this.#modelOf(await this.#ask("load_model", asked, { tell, signal })) as M;
      },
    };
  }

  #modelOf({ remote, facts, methods, generation_config }: PostedModel): object {
    const made: object = {
      ...facts,
      ...(generation_config && { generation_config }),
      ...this.#methods({ remote }, methods, () => made),
      dispose: () => this.#dispose({ remote }),
    };
    return refuseOthers(setRemote(made, { remote }), "model");
  }

  /** @param of the page's object, whose generation_config counts */
  #methods(
    on: Remote,
    names: readonly string[],
    of: () => unknown = () => undefined,
  ): Record<string, (...given: unknown[]) => Promise<unknown>> {
    return Object.fromEntries(names.map((name) => [name, (...given) => this.#run(on, name, given, of())]));
  }

  async #run(on: Remote, name: string, all: readonly unknown[], of: unknown): Promise<unknown> {
    const { given, listeners, stream, tell, signal, streamer } = splitAll(name, all);
    const { generation_config } = Object(of) as { generation_config?: object };
    const asked = {
      ...{ on, method: name, given, listeners, stream },
      ...(generation_config && GENERATES.includes(name) && { generation_config: { ...generation_config } }),
    };
    const ask = (hear: (news: ListenerNews) => void) => {
      return this.#connection.post<unknown, ListenerNews>("run", asked, { tell: hear, signal });
    };
    const result = streamer ? await followed(streamer, ask, tell) : await ask(tell).answer;
    return remotely(result, this.#tensors);
  }

  /** What tensors of outputs do. */
  readonly #tensors = {
    read: (tensor: Remote) => this.#ask("read", { tensor }),
    dispose: (tensor: Remote) => this.#dispose(tensor),
  };

  /** @param at the place of options among the arguments, if they have any */
  async #apply<T>(name: FunctionName, given: readonly unknown[], at = given.length): Promise<T> {
    const { given: options, listeners, tell, signal } = split(name, (given[at] ?? {}) as object);
    const all = [...given.slice(0, at).map(withRemotes), ...(name === "candidateIds" ? [] : [options])];
    return (await this.#ask("apply", { name, given: all, listeners }, { tell, signal })) as T;
  }

  async #dispose(held: Remote): Promise<void> {
    await this.#ask("dispose", held);
  }

  #ask<N extends keyof LibraryCalls>(
    name: N,
    asked: LibraryCalls[N]["asked"],
    options: CallOptions<LibraryCalls[N]["news"]> = {},
  ): Promise<LibraryCalls[N]["result"]> {
    return this.#connection.post<LibraryCalls[N]["result"], LibraryCalls[N]["news"]>(name, asked, options).answer;
  }
}

/** Methods for which a model's or a pipeline's own generation_config counts. */
const GENERATES: readonly string[] = ["generate", "process"];

/** @throws InputError UNSUPPORTED_OPTION */
function refuseDevice(name: string, options: object): void {
  if (!(options as { device?: unknown }).device) return;
  throw new InputError("UNSUPPORTED_OPTION", `${name}: a worker's models are on the worker's own device`);
}

/** Connects to a worker whose script calls answerCalls(). */
export function connect<C extends Calls = Record<never, never>>(worker: WorkerLike): WorkerClient<C> {
  return new WorkerClient<C>(worker);
}
