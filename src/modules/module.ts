/**
 * The base class of layers: parameters under a path of the checkpoint, and an output that is observed under the same path.
 */

import type { ActivationDType } from "../tensor/dtype.ts";
import { InputError } from "../tensor/errors.ts";
import { shown } from "../tensor/shown.ts";
import type { SiteKind, StateKind } from "../tensor/tensor.ts";
import { Tensor } from "../tensor/tensor.ts";

export abstract class Module {
  /** `vision_model.encoder.layers.3.self_attn`: the checkpoint's name, and PyTorch's in `named_modules()`. */
  readonly path: string;

  constructor({ path }: { readonly path: string }) {
    this.path = path;
  }

  /** Shows an output to the device's observers, which may replace it. */
  observe<D extends ActivationDType>(output: Tensor<D>, name?: string): Tensor<D> {
    return this.observeIfWanted(output.device, () => output, name) ?? output;
  }

  /** Shows an input, as PyTorch's forward pre-hooks see it, to the observers; returns it, or its replacement. */
  observeInput(input: Tensor, name?: string): Tensor {
    return this.observeIfWanted(input.device, () => input, name, "input") ?? input;
  }

  /** Shows an output that is fused away, and is computed only for an observer. @returns the replacement */
  observeIfWanted<D extends ActivationDType>(
    { observers }: Tensor["device"],
    compute: () => Tensor<D>,
    name?: string,
    kind: SiteKind = "output",
  ): Tensor<D> | undefined {
    if (observers.length === 0) return undefined;
    const path = name === undefined ? this.path : `${this.path}.${name}`;
    let replacement: Tensor<D> | undefined;
    for (const observer of observers) {
      if (!observer.wants(path, kind)) continue;
      const seen = observer.see(path, kind, replacement ?? compute()) ?? replacement;
      if (seen !== undefined && !(seen instanceof Tensor)) {
        throw new InputError("BAD_INPUT", `an observer returns a tensor, or nothing; this one returned ${shown(seen)}`);
      }
      replacement = seen as Tensor<D> | undefined;
    }
    return replacement;
  }

  /** Shows a state to the observers that want its kind; computes it only for them. */
  observeState(kind: StateKind, x: Tensor, compute: () => Tensor = () => x): void {
    for (const observer of x.device.observers) {
      if (observer.wants(this.path, kind)) observer.see(this.path, kind, compute());
    }
  }
}
