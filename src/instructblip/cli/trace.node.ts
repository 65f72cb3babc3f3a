/** `trace`: one forward pass, its tensors written to a .safetensors file under the names that Hugging Face gives them. */

import type { StorageDType } from "../../modules/storage_dtype.ts";
import { formatShape } from "../../tensor/shape.ts";
import { openLiveTrace } from "./compare/live.node.ts";
import { writeTrace } from "./compare/trace_file.node.ts";
import { formatTable } from "./format.ts";
import { checkExtension, checkOut } from "./requests/out_file.node.ts";
import type { Run } from "./session.node.ts";

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

/** What is written without --all. */
const MAIN = [
  "pixel_values",
  "vision_outputs.last_hidden_state",
  "qformer_outputs.last_hidden_state",
  "image_features",
  "logits",
];

export async function runTrace(options: TraceOptions, run: Run): Promise<void> {
  checkExtension(options.out, "--out", [".safetensors"]);
  await checkOut(options.out);
  const { all, dtype, interventions } = options;
  const setting = { text: options.model, dtype, ...(interventions !== undefined && { interventions }) };
  const { trace, close } = await openLiveTrace(setting, options, run, all ? {} : { only: "results" });
  try {
    const isWanted = (name: string) => all || MAIN.includes(name);
    run.signal.throwIfAborted();
    await writeTrace(options.out, trace, isWanted);
    const names = trace.order.filter(isWanted);
    await run.terminal.out(
      formatTable(names.map((name) => [name, `${trace.dtype(name)}${formatShape(trace.shape(name)!)}`])),
    );
  } finally {
    close();
  }
}
