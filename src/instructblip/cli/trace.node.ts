/** `trace`: one forward pass, its tensors written to a .safetensors file under the names that Hugging Face gives them. */

import { traceOutputs } from "../../modules/observer.ts";
import type { StorageDType } from "../../modules/storage_dtype.ts";
import { InputError } from "../../tensor/errors.ts";
import type { TensorEntry } from "../../tensor/files/safetensors_writer.ts";
import { saveSafetensors } from "../../tensor/files/source.node.ts";
import { formatShape } from "../../tensor/shape.ts";
import type { TextConfig } from "../config/config.ts";
import { AutoProcessor } from "../pretrained/auto_processor.ts";
import { readNamedImage } from "../pretrained/platform.node.ts";
import { openModelFolder } from "./folder.node.ts";
import { formatTable } from "./format.ts";
import { readInterventions } from "./interventions.node.ts";
import { checkOut } from "./requests/out_file.node.ts";
import { loadModel, prepareInputs, type Run } from "./session.node.ts";

export interface TraceOptions {
  model: string;
  image: string;
  prompt: string;
  out: string;
  decoderInputIds?: readonly number[];
  all?: boolean;
  /** A file. */
  interventions?: string;
  dtype: StorageDType;
  weightCache?: true | string;
}

export async function runTrace(options: TraceOptions, run: Run): Promise<void> {
  await checkOut(options.out);
  const interventions = await readInterventions(options.interventions);
  const folder = await openModelFolder(options.model, run);
  const config = await folder.config();
  const decoder_input_ids = decoderIds(options.decoderInputIds, config.text_config);
  const processor = await AutoProcessor.from_pretrained(folder);
  const inputs = await prepareInputs(
    processor,
    config,
    [await readNamedImage(options.image, { signal: run.signal })],
    [options.prompt],
  );
  const model = await loadModel(folder, options.dtype, run, { weight_cache: options.weightCache ?? false });
  try {
    const entries: TensorEntry[] = [];
    const add = (name: string, shape: readonly number[], data: Float32Array | Uint32Array) => {
      entries.push({ name, dtype: data instanceof Float32Array ? "f32" : "u32", shape, data });
    };
    add("pixel_values", inputs.pixel_values.shape, inputs.pixel_values.data);
    const forward = () => model.forward({ ...inputs, decoder_input_ids, interventions });
    const { result, outputs } = options.all
      ? await traceOutputs(model.device, forward)
      : { result: await forward(), outputs: [] };
    for (const [name, tensor] of [
      ["vision_outputs.last_hidden_state", result.vision_outputs.last_hidden_state],
      ["qformer_outputs.last_hidden_state", result.qformer_outputs.last_hidden_state],
      ["image_features", result.image_features],
      ["logits", result.logits],
    ] as const) {
      add(name, tensor.shape, await tensor.read());
    }
    // The model's own path is empty; its output is the logits.
    for (const [path, { shape, data }] of outputs) if (path !== "") add(path, shape, data);

    run.signal.throwIfAborted();
    await saveSafetensors(options.out, entries);
    await run.terminal.out(
      formatTable(entries.map(({ name, dtype, shape }) => [name, `${dtype}${formatShape(shape)}`])),
    );
  } finally {
    model.dispose();
  }
}

/** Decoder input ids of T5: those given, else the start token. Undefined for a decoder-only model. */
function decoderIds(given: readonly number[] | undefined, text: TextConfig): number[][] | undefined {
  if (text.model_type === "t5") return [[...(given ?? [text.decoderStartTokenId ?? 0])]];
  if (given === undefined) return undefined;
  throw new InputError(
    "DECODER_INPUT_IDS",
    `--decoder-input-ids: the language model (${text.model_type}) has no decoder of its own`,
    { hint: "it is for encoder-decoder models such as T5; leave it out" },
  );
}
