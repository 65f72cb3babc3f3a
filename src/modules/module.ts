/** What every layer is: parameters under a path of the checkpoint, and an output that is noted under the same path. */
import type { ActivationDType } from "../tensor/dtype.ts";
import { InputError } from "../tensor/errors.ts";
import { shown } from "../tensor/shown.ts";
import { Tensor } from "../tensor/tensor.ts";
import type { RecordedKind } from "./record.ts";

export abstract class Module {
  /** `vision_model.encoder.layers.3.self_attn`: the checkpoint's name, and PyTorch's in `named_modules()`. */
  readonly path: string;

  constructor({ path }: { readonly path: string }) {
    this.path = path;
  }

  /** Shows an output to the device's tracer, if one is set, which may put another in its place. */
  note<D extends ActivationDType>(output: Tensor<D>, name?: string): Tensor<D> {
    const { tracer } = output.device;
    if (tracer === undefined) return output;
    const seen = tracer(name === undefined ? this.path : `${this.path}.${name}`, output) ?? output;
    if (seen instanceof Tensor) return seen as Tensor<D>;
    throw new InputError("BAD_INPUT", `a tracer returns a tensor, or nothing; this one returned ${shown(seen)}`);
  }

  /** Shows a state, or what is computed for it, to the device's recorder, if one is set that wants its kind. */
  record(kind: RecordedKind, x: Tensor, compute: () => Tensor = () => x): void {
    const { recorder } = x.device;
    if (recorder?.wants(kind)) recorder.keep(kind, this.path, compute());
  }
}
