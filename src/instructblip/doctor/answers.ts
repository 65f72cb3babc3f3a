/** Checks the embedded checkpoint's answers, which must be PyTorch's, token for token, in every mode. */
import type { Device } from "../../tensor/device/device.ts";
import { EngineError } from "../../tensor/errors.ts";
import type { PretrainedFrom } from "../pretrained/from_pretrained.ts";
import { InstructBlipForConditionalGeneration } from "../pretrained/instructblip.ts";
import type { FromPretrainedOptions } from "../pretrained/load.ts";
import { InstructBlipProcessor } from "../processing/instructblip_processor.ts";
import type { ImageInput } from "../processing/processor_input.ts";
import { type Check, firstLine, Tally, type Watch } from "./check.ts";

/**
 * The modes: storage dtypes of weights and cache, and of what is multiplied. PyTorch's tokens are the same with weights rounded to int8 and int4, and
 * its best logit leads by at least 3.6 everywhere (examples/shapes/training/stored.py), more than rounding the cache
 * changes.
 */
export const MODES: readonly { readonly name: string; readonly options: FromPretrainedOptions }[] = [
  { name: "f32", options: { dtype: "f32" } },
  { name: "f16 weights", options: { dtype: "f16" } },
  { name: "int8 weights", options: { dtype: "int8" } },
  { name: "int4 weights", options: { dtype: "int4" } },
  { name: "f16 products", options: { dtype: "f16", compute_dtype: "f16" } },
  { name: "f16 cache", options: { dtype: "f32", kv_cache_dtype: "f16" } },
];

/** Images, questions about each, and PyTorch's answer tokens. */
export interface Exam {
  /** The folder of the embedded checkpoint. */
  readonly checkpoint: PretrainedFrom;
  readonly images: readonly {
    readonly name: string;
    readonly image: ImageInput;
    readonly questions: readonly string[];
    readonly tokens: readonly (readonly number[])[];
  }[];
}

/** Asks all questions in each mode; with `quick` those of the first image. @throws EngineError; the signal's reason */
export async function* checkAnswers(
  device: Device,
  { checkpoint, images }: Exam,
  { quick = false, signal, progress, wanted = () => true }: Watch & { readonly quick?: boolean | undefined } = {},
): AsyncGenerator<Check> {
  const processor = await InstructBlipProcessor.from_pretrained(checkpoint);
  for (const { name: mode, options } of MODES) {
    const name = `answers ${mode}`;
    if (!wanted(name)) continue;
    signal?.throwIfAborted();
    const tally = new Tally(name);
    tally.used();
    const start = performance.now();
    progress?.(`${name}: loading`);
    let model: InstructBlipForConditionalGeneration | undefined;
    let fatal: unknown;
    try {
      const load = { ...options, device, on_warning: null, ...(signal && { signal }) };
      model = await InstructBlipForConditionalGeneration.from_pretrained(checkpoint, load);
      for (const image of quick ? images.slice(0, 1) : images) {
        for (const [i, question] of image.questions.entries()) {
          const what = `${image.name}, "${question}"`;
          progress?.(`${name}: ${what}`);
          const inputs = await processor({ images: [image.image], text: [question] });
          const settings = { max_new_tokens: 40, return_full_text: false, ...(signal && { signal }) };
          const tokens = (await model.generate({ ...inputs, ...settings })).flat(); // of one row
          const expected = image.tokens[i]!;
          if (tokens.join() === expected.join()) tally.right(null);
          else tally.wrong({ what, why: `tokens ${tokens.join(" ")}, PyTorch's ${expected.join(" ")}`, kernels: [] });
        }
      }
    } catch (error) {
      if (signal?.aborted) throw signal.reason;
      if (!(error instanceof EngineError)) throw error;
      tally.wrong({ what: "the run", why: firstLine(error.message), kernels: [] });
      if (["DEVICE_LOST", "DISPOSED", "GPU_TIMEOUT"].includes(error.code)) fatal = error;
    } finally {
      model?.dispose();
    }
    tally.took(performance.now() - start);
    yield tally.check();
    if (fatal) throw fatal;
  }
}
