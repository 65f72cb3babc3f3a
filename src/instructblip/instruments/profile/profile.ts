/** The time of every launch of some work of a model, with the module that it belongs to. */
import { type ModuleCall, withModuleSites } from "../../../modules/module_calls.ts";
import type { ProfileClock, Profiled } from "../../../tensor/tensor.ts";
import type { VisionLanguageModel } from "../../pretrained/vision_language_model.ts";

/** What `profile` has measured. */
export interface ModelProfile extends Profiled {
  /** Of modules' methods on the host, in the order of their ends. A replayed decode step calls none. */
  readonly calls: readonly ModuleCall[];
}

/**
 * Runs `fn`, which uses the model, and times its launches. They are the same as otherwise, fused the same.
 *
 * @param clock default: the GPU's timestamps where the adapter has them, else the host's clock with a sync at each launch
 * @throws what `fn` throws; DeviceError FEATURE without timestamps; KernelError PROFILE within another profile
 */
export async function profile(
  model: VisionLanguageModel,
  fn: () => unknown,
  { clock }: { readonly clock?: ProfileClock | undefined } = {},
): Promise<ModelProfile> {
  const { device } = model;
  const calls: ModuleCall[] = [];
  const run = () => withModuleSites(model.model, device, (call) => calls.push(call), fn);
  return { ...(await device.profile(run, { clock })), calls };
}
