/**
 * The page's worker: it holds the GPU and the model, so that the page stays free. What the page asks is in protocol.ts; the
 * code of an application is in `load` and `answer`.
 *
 * In your own project import from "instructblip-webgpu": bundlers select the browser's entry point.
 */
import {
  AutoModelForImageTextToText,
  AutoProcessor,
  type Device,
  openDevice,
  TextIteratorStreamer,
} from "../../../src/index.ts";
import { examine, formatCheck, formatSummary } from "../../../src/instructblip/doctor/doctor.ts";
import { answerCalls, type Handlers } from "./calls.ts";
import { folderOf } from "./checkpoint_folder.ts";
import { effects, type Loaded, look, occlude, prepareParts } from "./explore.ts";

let device: Device | undefined;
let loaded: Loaded | undefined;

const handlers: Handlers = {
  async open() {
    device ??= await openDevice();
    const { description, isSoftware } = device.caps;
    return { description, isSoftware };
  },

  /** Processor and weights of a folder. */
  async load({ place, dtype, fix_vicuna_token_ids }, { tell, signal }) {
    device ??= await openDevice();
    loaded?.model.dispose();
    loaded = undefined;
    tell({ text: "Loading the processor" });
    const folder = folderOf(place);
    const processor = await AutoProcessor.from_pretrained(folder);
    const MB = (bytes: number) => (bytes / 1e6).toFixed(1);
    const model = await AutoModelForImageTextToText.from_pretrained(folder, {
      device,
      dtype: dtype as "auto", // an invalid one is refused
      fix_vicuna_token_ids,
      signal,
      on_progress: ({ loadedBytes, totalBytes }) => {
        if (loadedBytes === totalBytes) return tell({ text: "Compiling the kernels" });
        const text = `Loading the weights: ${MB(loadedBytes)} of ${MB(totalBytes)} MB`;
        tell({ text, share: loadedBytes / totalBytes });
      },
    });
    loaded = { model, processor };
    return null;
  },

  /** Asks about an image, streamed. */
  async answer({ image, text, interventions }, { tell, signal }) {
    const { model, processor } = expectLoaded();
    const started = performance.now();
    let first = 0;
    let tokens = 0;
    const inputs = await processor({ images: [image], text: [text] });
    const streamer = new TextIteratorStreamer(processor.tokenizer, { skip_prompt: true, skip_special_tokens: true });
    const done = model.generate({
      ...inputs,
      max_new_tokens: 64,
      interventions,
      streamer,
      signal,
      on_token: () => {
        tokens++;
        first ||= performance.now();
      },
    });
    done.catch(() => {}); // the streamer throws it too
    for await (const piece of streamer) tell(piece);
    await done;
    return { tokens, firstTokenMs: first - started, decodeMs: performance.now() - first };
  },

  async look(asked, context) {
    return look(expectLoaded(), asked, context);
  },

  async parts(asked) {
    const { units } = await prepareParts(expectLoaded(), asked);
    return units.map(({ group, row, column, places }) => ({ group, row, column, places }));
  },

  async effects(asked, context) {
    await effects(expectLoaded(), asked, context);
    return null;
  },

  async occlude(asked, context) {
    return occlude(expectLoaded(), asked, context);
  },

  /** As the command line's `doctor`. */
  async examine({ checkpoint, exam, quick }, { tell, signal }) {
    const own = await openDevice();
    try {
      const report = await examine(
        own,
        { checkpoint: folderOf(checkpoint), images: exam },
        {
          quick,
          signal,
          progress: (progress) => tell({ progress }),
          onCheck: async (check) => {
            tell({ report: formatCheck(check) });
            await new Promise((heard) => setTimeout(heard)); // the f64 references would keep an abort from coming in
          },
          versions: { browser: navigator.userAgent },
        },
      );
      return `* used on this adapter\n\n${formatSummary(report)}`;
    } finally {
      own.destroy();
    }
  },
};

function expectLoaded(): Loaded {
  if (!loaded) throw new Error("no checkpoint is loaded");
  return loaded;
}

answerCalls(handlers);
