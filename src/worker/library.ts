/** The library's calls in a worker: one device, and the models, processors and tensors that its page holds. */
import { candidateIds } from "../instructblip/generation/ranking.ts";
import { type Streamer, TextIteratorStreamer } from "../instructblip/generation/streamer.ts";
import { attribute } from "../instructblip/instruments/attribute/attribute.ts";
import { logitLens } from "../instructblip/instruments/lens.ts";
import { ablate } from "../instructblip/instruments/sweep/ablate.ts";
import { patchActivations } from "../instructblip/instruments/sweep/patch.ts";
import { AutoModel, AutoModelForImageTextToText } from "../instructblip/pretrained/auto_model.ts";
import { type AnyProcessor, AutoProcessor } from "../instructblip/pretrained/auto_processor.ts";
import { Blip2Model } from "../instructblip/pretrained/base/blip_2_model.ts";
import { Blip2QFormerModel } from "../instructblip/pretrained/base/blip_2_qformer.ts";
import { InstructBlipModel, InstructBlipVideoModel } from "../instructblip/pretrained/base/instructblip_models.ts";
import { Blip2ForConditionalGeneration } from "../instructblip/pretrained/blip_2.ts";
import {
  Blip2ForImageTextRetrieval,
  Blip2TextModelWithProjection,
  Blip2VisionModelWithProjection,
} from "../instructblip/pretrained/blip_2_retrieval.ts";
import type { PretrainedFrom } from "../instructblip/pretrained/from_pretrained.ts";
import { InstructBlipForConditionalGeneration } from "../instructblip/pretrained/instructblip.ts";
import { InstructBlipVideoForConditionalGeneration } from "../instructblip/pretrained/instructblip_video.ts";
import { type ModelConfig, PretrainedModel } from "../instructblip/pretrained/pretrained_model.ts";
import { VisionLanguageModel } from "../instructblip/pretrained/vision_language_model.ts";
import type { Tokenizer } from "../instructblip/tokenizer/tokenizer.ts";
import type { ImageTextToTextPipeline } from "../instructblip/transformers/pipeline.ts";
import { pipeline } from "../instructblip/transformers/pipeline.ts";
import type { Device } from "../tensor/device/device.ts";
import { type DeviceOptions, openDevice } from "../tensor/device/open_device.ts";
import { DeviceError, InputError } from "../tensor/errors.ts";
import { HandleFolder } from "../tensor/files/handle_folder.ts";
import { quote } from "../tensor/shown.ts";
import { storagesIn, Tensor } from "../tensor/tensor.ts";
import type {
  Context,
  FunctionName,
  LibraryCalls,
  ListenerNews,
  ModelClassName,
  Place,
  PostedModel,
  PostedTensor,
  ProcessorFacts,
  Remote,
  RunAsked,
  SpecialId,
} from "./messages.ts";
import { placed } from "./places.ts";

/** What a page holds. */
type Held = AnyModel | AnyProcessor | LoadedPipeline | Tensor;
type LoadedPipeline = ImageTextToTextPipeline;
/** A model of any config. */
type AnyModel = PretrainedModel<ModelConfig>;

/** What a page has asked with, after {@link Library.resolve}. */
type Resolved<T> = {
  readonly [K in keyof T]: K extends "on"
    ? Held | Tokenizer
    : K extends "processor"
      ? AnyProcessor
      : K extends "tensor"
        ? Tensor
        : K extends "model"
          ? AnyModel | Place
          : T[K];
};

type LibraryHandlers = {
  readonly [N in keyof LibraryCalls]: (
    asked: Resolved<LibraryCalls[N]["asked"]>,
    context: Context<LibraryCalls[N]["news"]>,
  ) => Promise<LibraryCalls[N]["result"]>;
};

type Loads = { from_pretrained(from: PretrainedFrom, options: object): Promise<AnyModel> };

const MODELS: Readonly<Record<ModelClassName, Loads>> = {
  AutoModel,
  AutoModelForImageTextToText,
  Blip2ForConditionalGeneration,
  Blip2ForImageTextRetrieval,
  Blip2Model,
  Blip2QFormerModel,
  Blip2TextModelWithProjection,
  Blip2VisionModelWithProjection,
  InstructBlipForConditionalGeneration,
  InstructBlipModel,
  InstructBlipVideoForConditionalGeneration,
  InstructBlipVideoModel,
};

const FUNCTIONS = { ablate, attribute, candidateIds, logitLens, patchActivations } as const satisfies Record<
  FunctionName,
  unknown
>;

/** Methods of models that a page can call, where the class has them. */
const METHODS = [
  "forward",
  "generate",
  "rank_answers",
  "get_image_features",
  "get_video_features",
  "get_text_features",
  "get_qformer_features",
  "compute_transition_scores",
  "clear_image_cache",
  "save_pretrained",
];
/** Those that take a signal; of others it is seen when they have ended. */
const SIGNALLED = ["generate", "rank_answers", "save_pretrained", "process"];

const SPECIAL = ["bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id"] as const satisfies SpecialId[];

export class Library {
  readonly #held = new Map<number, Held>();
  /** Models that were lost with their device, and why. */
  readonly #lost = new Map<number, DeviceError>();
  readonly #onLost: (error: DeviceError) => void;
  #next = 1;
  #device: Promise<Device> | undefined;

  constructor(onLost: (error: DeviceError) => void) {
    this.#onLost = onLost;
  }

  /** What a page has asked with, its objects in the worker in place of their numbers. @throws DeviceError DISPOSED, DEVICE_LOST */
  resolve(asked: unknown): unknown {
    if (!isData(asked)) return asked;
    return Object.fromEntries(
      Object.entries(asked).map(([name, value]) => [name, isRemote(value) ? this.#get(value) : value]),
    );
  }

  /** Arguments, of which some are the worker's objects, and some have them as properties. */
  #arguments(given: readonly unknown[]): unknown[] {
    return given.map((one) => (isRemote(one) ? this.#get(one) : this.resolve(one)));
  }

  readonly handlers: LibraryHandlers = {
    openDevice: async (options) => (await this.#open(options)).caps,

    load_processor: async ({ from, options, listeners }, context) => {
      const given = { ...options, ...listening(listeners, context), signal: context.signal };
      const processor = await AutoProcessor.from_pretrained(...(await placed(from, given)));
      return { ...this.#hold(processor), facts: factsOf(processor) };
    },

    load_model: async ({ name, from, options, listeners }, context) => {
      const device = await this.#open();
      const given = { ...options, ...listening(listeners, context), device, signal: context.signal };
      return this.#modelOf(await MODELS[name].from_pretrained(...(await placed(from, given))));
    },

    load_pipeline: async ({ task, model, processor, options, listeners }, context) => {
      const own = { ...options, ...listening(listeners, context), ...(processor && { processor }) };
      const load = pipeline as (task: string, options: object) => Promise<LoadedPipeline>;
      let made: LoadedPipeline;
      if (model instanceof PretrainedModel) made = await load(task, { model, ...own });
      else {
        const given = { ...own, device: await this.#open(), signal: context.signal };
        const [from, rest] = await placed(model, given);
        made = await load(task, { model: from, ...rest });
      }
      return {
        ...this.#hold(made),
        model: this.#modelOf(made.model),
        generation_config: { ...made.generation_config },
      };
    },

    process: async ({ processor, given }) => {
      const process = processor as unknown as (...given: readonly unknown[]) => Promise<object>;
      return { ...(await process(...given)) };
    },

    run: async (asked, context) => {
      const { on, method } = asked;
      if (on instanceof PretrainedModel && !METHODS.includes(method)) {
        throw new InputError("BAD_INPUT", `a worker's model has no method ${quote(method)}`);
      }
      // A processor takes none.
      const isSignalled = SIGNALLED.includes(method) && !(method === "save_pretrained" && isProcessor(on));
      const { hooks, told } = this.#hooks(asked, context, isSignalled);
      const given = this.#arguments(asked.given);
      if (method === "save_pretrained") given[0] = new HandleFolder(given[0] as FileSystemDirectoryHandle);
      // What the page may have changed of its own counts.
      if (asked.generation_config) Object.assign(on, { generation_config: asked.generation_config });
      const methods = on as unknown as Record<string, (...given: unknown[]) => unknown>;
      const result = methods[method]!(...hooked(method, given, hooks));
      // Every piece is told before the result.
      const [output] = await Promise.all([result, told]);
      if (SIGNALLED.includes(method)) return output;
      if (context.signal.aborted && on instanceof PretrainedModel) {
        for (const storage of storagesIn(output)) on.device.memory.release(storage);
      }
      context.signal.throwIfAborted();
      return this.#posted(output);
    },

    apply: async ({ name, given, listeners }, context) => {
      const run = FUNCTIONS[name] as (...given: unknown[]) => unknown;
      const all = this.#arguments(given);
      if (name === "candidateIds") return run(...all);
      return run(...hooked(name, all, { ...listening(listeners, context), signal: context.signal }));
    },

    read: async ({ tensor }) => tensor.read(),

    dispose: async ({ remote }) => {
      const held = this.#held.get(remote);
      this.#held.delete(remote);
      if (held && "dispose" in held) held.dispose();
      return null;
    },
  };

  /** Functions of a call's options, and when everything has been told. */
  #hooks(
    { listeners, stream }: Pick<RunAsked, "listeners" | "stream">,
    context: Context<ListenerNews>,
    isSignalled: boolean,
  ): { readonly hooks: object; readonly told?: Promise<void> | undefined } {
    const { streamer, told } = this.#stream(stream, context);
    const hooks = {
      ...listening(listeners, context),
      ...(streamer && { streamer }),
      ...(isSignalled && { signal: context.signal }),
    };
    return { hooks, told };
  }

  #stream(
    stream: RunAsked["stream"],
    context: Context<ListenerNews>,
  ): { readonly streamer?: Streamer; readonly told?: Promise<void> } {
    if (stream === undefined) return {};
    if (stream === "ids") {
      const streamer: Streamer = {
        put: (ids) => context.tell(["put", ids]),
        best: (answers) => context.tell(["best", answers]),
        end: () => {},
        get cancelled() {
          return context.cancelled;
        },
      };
      return { streamer };
    }
    const streamer = new TextIteratorStreamer(this.#get(stream.tokenizer) as Tokenizer, stream.options);
    const tell = async () => {
      for await (const piece of streamer) {
        if (context.cancelled) break; // generate() then stops
        context.tell(["text", piece]);
      }
    };
    return { streamer, told: tell() };
  }

  /** An output, with the tensors that the page then holds by their numbers. */
  #posted(value: unknown): unknown {
    if (value instanceof Tensor) {
      const { dtype, shape } = value;
      return { ...this.#hold(value), dtype, shape } satisfies PostedTensor;
    }
    if (Array.isArray(value)) return value.map((one) => this.#posted(one));
    if (!isData(value)) return value;
    return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, this.#posted(one)]));
  }

  /** The worker's device, opened at its first use, and again after a loss. */
  #open(options: DeviceOptions = {}): Promise<Device> {
    this.#device ??= openDevice(options).then(
      (device) => {
        void device.handle.lost.then(({ message, reason }) => this.#lose(device, message || reason));
        return device;
      },
      (error: unknown) => {
        this.#device = undefined;
        throw error;
      },
    );
    return this.#device;
  }

  /** Forgets models and tensors: none of them can be used any more. */
  #lose(device: Device, why: string): void {
    this.#device = undefined;
    const reason = why.replace(/\.+$/, "") || "unknown";
    const error = new DeviceError("DEVICE_LOST", `the GPU device was lost: ${reason}`, {
      hint: "load the model again",
    });
    for (const [remote, held] of this.#held) {
      if (deviceOf(held) !== device) continue;
      this.#held.delete(remote);
      this.#lost.set(remote, error);
      if ("dispose" in held) held.dispose();
    }
    this.#onLost(error);
  }

  #modelOf(model: AnyModel): PostedModel {
    const { architecture, dtype, warnings } = model;
    const config = JSON.parse(JSON.stringify(model.config)) as Record<string, unknown>;
    return {
      ...this.#hold(model),
      facts: { architecture, dtype, config, warnings: [...warnings] },
      methods: METHODS.filter((name) => name in model),
      ...(model instanceof VisionLanguageModel && { generation_config: { ...model.generation_config } }),
    };
  }

  #hold(held: Held): Remote {
    const remote = this.#next++;
    this.#held.set(remote, held);
    return { remote };
  }

  #get({ remote, part }: Remote): Held | Tokenizer {
    const held = this.#held.get(remote);
    if (held) return part === undefined ? held : (held as AnyProcessor)[part];
    throw this.#lost.get(remote) ?? new DeviceError("DISPOSED", "the worker's object has been disposed");
  }
}

function isRemote(value: unknown): value is Remote {
  return typeof (value as Remote | null | undefined)?.remote === "number";
}

function isData(value: unknown): value is object {
  return typeof value === "object" && value !== null && Object.getPrototypeOf(value) === Object.prototype;
}

function factsOf(processor: AnyProcessor): ProcessorFacts {
  const { processor_class, num_query_tokens, model_input_names, tokenizer } = processor;
  const known = SPECIAL.filter((name) => tokenizer[name] !== undefined);
  const { image_token, video_token } = processor as { readonly image_token?: string; readonly video_token?: string };
  return {
    ...{ processor_class, num_query_tokens, model_input_names: [...model_input_names] },
    ...(image_token !== undefined && { image_token }),
    ...(video_token !== undefined && { video_token }),
    special_ids: Object.fromEntries(known.map((name) => [name, tokenizer[name]!])),
  };
}

function isProcessor(held: Held | Tokenizer): held is AnyProcessor {
  return "processor_class" in held;
}

/** The device that an object is on. */
function deviceOf(held: Held): Device | undefined {
  if (held instanceof PretrainedModel || held instanceof Tensor) return held.device as Device;
  return "model" in held ? held.model.device : undefined;
}

/** The arguments of a call with functions among its options: those of the last object, and of a pipeline its generate_kwargs. */
function hooked(method: string, given: readonly unknown[], hooks: object): readonly unknown[] {
  if (method === "process") {
    const at = given.findLastIndex((one) => isData(one) && "generate_kwargs" in one);
    if (at < 0) return given;
    const options = given[at] as { readonly generate_kwargs: object };
    return given.with(at, { ...options, generate_kwargs: { ...options.generate_kwargs, ...hooks } });
  }
  if (Object.keys(hooks).length === 0) return given;
  const last = given.at(-1);
  return isData(last) ? [...given.slice(0, -1), { ...last, ...hooks }] : [...given, hooks];
}

/** Listeners that tell the page their arguments. */
function listening(names: readonly string[], { tell }: Context<ListenerNews>): object {
  return Object.fromEntries(names.map((name) => [name, (...given: unknown[]) => tell([name, ...given])]));
}
