/** The library's calls in a worker: one device, and the models and processors that its page holds. */
import type { GenerateOptions } from "../instructblip/generation/generate.ts";
import type { RankOptions } from "../instructblip/generation/ranking.ts";
import { type Streamer, TextIteratorStreamer } from "../instructblip/generation/streamer.ts";
import { AutoModelForImageTextToText } from "../instructblip/pretrained/auto_model.ts";
import { type AnyProcessor, AutoProcessor } from "../instructblip/pretrained/auto_processor.ts";
import type { PretrainedFrom } from "../instructblip/pretrained/from_pretrained.ts";
import type { ModelInputs } from "../instructblip/pretrained/inputs.ts";
import { OpfsCache } from "../instructblip/pretrained/opfs/opfs_cache.ts";
import { VisionLanguageModel } from "../instructblip/pretrained/vision_language_model.ts";
import type { DecodeOptions } from "../instructblip/tokenizer/types.ts";
import type { Device } from "../tensor/device/device.ts";
import { type DeviceOptions, openDevice } from "../tensor/device/open_device.ts";
import { DeviceError, InputError } from "../tensor/errors.ts";
import { HandleFolder } from "../tensor/files/handle_folder.ts";
import { FileListFolder, HttpFolder } from "../tensor/files/source.ts";
import type { Context, GenerateAsked, LibraryCalls, ListenerNews, LoadAsked, Place, Remote } from "./messages.ts";

/** What a page has asked with, after {@link Library.resolve}. */
type Resolved<T> = {
  readonly [K in keyof T]: K extends "model" ? VisionLanguageModel : K extends "processor" ? AnyProcessor : T[K];
};

type LibraryHandlers = {
  readonly [N in keyof LibraryCalls]: (
    asked: Resolved<LibraryCalls[N]["asked"]>,
    context: Context<LibraryCalls[N]["news"]>,
  ) => Promise<LibraryCalls[N]["result"]>;
};

export class Library {
  readonly #held = new Map<number, VisionLanguageModel | AnyProcessor>();
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
    if (asked === null || typeof asked !== "object" || Object.getPrototypeOf(asked) !== Object.prototype) return asked;
    return Object.fromEntries(
      Object.entries(asked).map(([name, value]) => [name, isRemote(value) ? this.#get(value) : value]),
    );
  }

  readonly handlers: LibraryHandlers = {
    openDevice: async (options) => (await this.#open(options)).caps,

    load_processor: async ({ from, options, listeners }, context) => {
      const given = { ...options, ...listening(listeners, context), signal: context.signal };
      const processor = await AutoProcessor.from_pretrained(...(await placed(from, given)));
      const { processor_class, num_query_tokens } = processor;
      return { ...this.#hold(processor), facts: { processor_class, num_query_tokens } };
    },

    load_model: async ({ from, options, listeners }, context) => {
      const device = await this.#open();
      const given = { ...options, ...listening(listeners, context), device, signal: context.signal };
      const model = await AutoModelForImageTextToText.from_pretrained(...(await placed(from, given)));
      const config = JSON.parse(JSON.stringify(model.config)) as Record<string, unknown>;
      return { ...this.#hold(model), facts: { config, warnings: [...model.warnings] } };
    },

    process: async ({ processor, given }) => {
      const [input = {}] = given as [object?];
      return { ...(await processor(input)) };
    },

    decode: async ({ processor, given: [rows, options] }) =>
      processor.batch_decode(rows as number[][], options as DecodeOptions),

    generate: async (asked, context) => {
      const { streamer, told } = this.#stream(asked, context);
      const given = { ...this.#options(asked, context), ...(streamer && { streamer }) };
      const answer = asked.model.generate(given as unknown as ModelInputs & GenerateOptions);
      await Promise.all([answer, told]); // every piece is told before the result
      return answer;
    },

    rank_answers: async (asked, context) => {
      return asked.model.rank_answers(this.#options(asked, context) as unknown as ModelInputs & RankOptions);
    },

    dispose: async ({ remote }) => {
      const held = this.#held.get(remote);
      this.#held.delete(remote);
      if (held instanceof VisionLanguageModel) held.dispose();
      return null;
    },
  };

  #options({ given, listeners }: Omit<GenerateAsked, "model">, context: Context<ListenerNews>): object {
    const { tokenizer, ...options } = given;
    return {
      ...options,
      ...listening(listeners, context),
      ...(isRemote(tokenizer) && { tokenizer: (this.#get(tokenizer) as AnyProcessor).tokenizer }),
      signal: context.signal,
    };
  }

  /** The streamer of a call, and when everything has been told. */
  #stream(
    { stream }: Omit<GenerateAsked, "model">,
    context: Context<ListenerNews>,
  ): { streamer?: Streamer; told?: Promise<void> } {
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
    const { tokenizer } = this.#get(stream.processor) as AnyProcessor;
    const streamer = new TextIteratorStreamer(tokenizer, stream.options);
    const tell = async () => {
      for await (const piece of streamer) {
        if (context.cancelled) break; // generate() then stops
        context.tell(["text", piece]);
      }
    };
    return { streamer, told: tell() };
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

  /** Forgets the models: none of them can be used any more. */
  #lose(device: Device, why: string): void {
    this.#device = undefined;
    const reason = why.replace(/\.+$/, "") || "unknown";
    const error = new DeviceError("DEVICE_LOST", `the GPU device was lost: ${reason}`, {
      hint: "load the model again",
    });
    for (const [remote, held] of this.#held) {
      if (!(held instanceof VisionLanguageModel) || held.device !== device) continue;
      this.#held.delete(remote);
      this.#lost.set(remote, error);
      held.dispose();
    }
    this.#onLost(error);
  }

  #hold(held: VisionLanguageModel | AnyProcessor): Remote {
    const remote = this.#next++;
    this.#held.set(remote, held);
    return { remote };
  }

  #get({ remote }: Remote): VisionLanguageModel | AnyProcessor {
    const held = this.#held.get(remote);
    if (held) return held;
    throw this.#lost.get(remote) ?? new DeviceError("DISPOSED", "the worker's object has been disposed");
  }
}

function isRemote(value: unknown): value is Remote {
  return typeof (value as Remote | null | undefined)?.remote === "number";
}

/** Listeners that tell the page their arguments. */
function listening(names: readonly string[], { tell }: Context<ListenerNews>): object {
  return Object.fromEntries(names.map((name) => [name, (...given: unknown[]) => tell([name, ...given])]));
}

/** The arguments of from_pretrained() for a place. Options of where files come from are of a URL with its files, too. */
async function placed<O extends object>(from: Place, options: O): Promise<[PretrainedFrom, O]> {
  if (typeof from === "string") return [from, options];
  if (!("url" in from || "chosen" in from)) return [new HandleFolder(from), options];
  if ("chosen" in from) {
    const files = from.chosen.map(({ path, file }) => {
      // Not every browser posts it with the file.
      return Object.defineProperty(file, "webkitRelativePath", { value: `folder/${path}` });
    });
    return [new FileListFolder(files), options];
  }
  const { cache, on_download, local_files_only, ...rest } = options as Partial<Record<string, unknown>>;
  const { signal } = options as LoadAsked["options"];
  const http = {
    ...(from.files && { files: from.files }),
    ...(from.headers && { headers: from.headers }),
    ...(signal instanceof AbortSignal && { signal }),
  };
  if (cache === undefined || cache === null) return [new HttpFolder(from.url, http), rest as O];
  if (cache !== "opfs") throw new InputError("BAD_INPUT", 'from_pretrained: cache must be "opfs"');
  try {
    const opfs = await OpfsCache.open();
    const kept = { ...http, on_download, local_files_only } as Parameters<OpfsCache["folder"]>[1];
    return [await opfs.folder(from.url, kept), rest as O];
  } catch (error) {
    return [new HttpFolder(from.url, http, [`files are not kept: ${(error as Error).message}`]), rest as O];
  }
}
