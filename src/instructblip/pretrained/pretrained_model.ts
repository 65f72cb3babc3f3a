/** What all model classes have: loading, saving, warnings, and freeing what was loaded. */
import { readStorage, type StorageDType } from "../../modules/storage_dtype.ts";
import type { Weights } from "../../modules/weights.ts";
import { optionsOf, refuseUnknown } from "../../tensor/arguments.ts";
import type { Device } from "../../tensor/device/device.ts";
import { DeviceError, InputError } from "../../tensor/errors.ts";
import type { WritableFolder } from "../../tensor/files/file_set.ts";
import { shown } from "../../tensor/shown.ts";
import type { Blip2QFormerConfig } from "../config/blip_2.ts";
import type { VisionLanguageConfig } from "../config/config.ts";
import type { Loadable, ModelClass } from "./checkpoint/bind.ts";
import { expectKinds, readCall } from "./forward_options.ts";
import type { PretrainedFrom } from "./from_pretrained.ts";
import { type FromPretrainedOptions, type Loaded, load } from "./load.ts";
import {
  SAVE_OPTIONS,
  type SavePretrainedOptions,
  type StateDictEntry,
  saveModel,
  stateDict,
} from "./save_pretrained.ts";
import { Warnings } from "./warnings.ts";

/** The config of a model, or of BLIP-2's Q-Former alone. */
export type ModelConfig = VisionLanguageConfig | Blip2QFormerConfig;

/** @typeParam C its config */
export abstract class PretrainedModel<C extends ModelConfig = VisionLanguageConfig> implements Loadable {
  readonly config: C;
  readonly device: Device;
  /** Warnings about the checkpoint. */
  readonly warnings: string[] = [];
  readonly #weights: Weights;
  #ownsDevice = false;
  #isDisposed = false;
  protected told = new Warnings();

  constructor(weights: Weights, config: C) {
    this.config = config;
    this.device = weights.device;
    this.#weights = weights;
  }

  /**
   * Loads a Hugging Face checkpoint folder as it is on disk: config.json and safetensors, in one file or many.
   *
   * @param from a path, in Node also a Hub id (`owner/name[@revision]`), a URL, or a Folder (a browser's files, HTTP)
   * @throws ConfigError, WeightError, DeviceError; InputError UNKNOWN_OPTION, UNSUPPORTED_OPTION, DTYPE; the signal's reason
   */
  static async from_pretrained<C extends VisionLanguageConfig, M extends PretrainedModel<ModelConfig>>(
    this: ModelClass<C, M>,
    from: PretrainedFrom,
    options: FromPretrainedOptions = {},
  ): Promise<M> {
    // biome-ignore lint/complexity/noThisInStatic: the class it is called on is the one to make
    const loaded = await load<C, M>(this, from, options);
    const { model, ownsDevice, warnings, on_warning } = loaded;
    model.#ownsDevice = ownsDevice;
    model.warnings.push(...warnings);
    model.told = new Warnings(on_warning);
    model.wasLoaded(loaded);
    try {
      await model.told.tell(warnings);
    } catch (error) {
      model.dispose();
      throw error;
    }
    return model;
  }

  /** The class in Hugging Face, as a string: a bundler shortens class names. */
  abstract get architecture(): string;

  /** Storage dtype of matrices, as from_pretrained was given it. */
  get dtype(): StorageDType {
    return this.#weights.dtype;
  }

  /** Takes the options of from_pretrained() that are of the loaded model. */
  protected wasLoaded(_loaded: Loaded<unknown>): void {}

  /**
   * Saves config.json and the weights as transformers does, for from_pretrained of either: the numbers as stored, read back
   * from the device in pieces. The processor has its own save_pretrained.
   *
   * @param to a path (Node), created if needed, or a WritableFolder
   * @throws WeightError QUANTIZED, SHARD_SIZE, SAVE_CONFLICT, IO; InputError NO_FILES, ARGUMENTS, UNKNOWN_OPTION;
   *   DeviceError; the signal's reason
   */
  async save_pretrained(to: string | WritableFolder, options?: SavePretrainedOptions, ...more: never[]): Promise<void> {
    this.#expectWeights("save_pretrained");
    const given = optionsOf("save_pretrained", [options, ...more], 1, 1);
    refuseUnknown("save_pretrained", given, SAVE_OPTIONS);
    expectKinds(given);
    const saved = { config: this.config, weights: this.#weights, architecture: this.architecture };
    const { signal } = given as SavePretrainedOptions;
    return this.device.exclusive(() => saveModel(to, saved, given), { signal });
  }

  /**
   * The model's parameters by Hugging Face's names, as save_pretrained writes them: what each is, and its numbers as f32,
   * read back from the device. Tied parameters are there once.
   */
  state_dict(): Map<string, StateDictEntry> {
    this.#expectWeights("state_dict");
    return stateDict({ config: this.config, weights: this.#weights, architecture: this.architecture });
  }

  /**
   * For code from PyTorch: the model itself, if it is already where and what is asked for. Weights are not moved or converted
   * after loading.
   *
   * @param to its device, or the dtype it was loaded with
   * @throws InputError UNSUPPORTED_OPTION
   */
  to(to: Device | StorageDType): this {
    if (to === this.device) return this;
    const { dtype } = this;
    if (typeof to === "string" && typeof dtype === "string" && readStorage(to) === dtype) return this;
    const what = typeof to === "string" ? shown(to) : "another device";
    throw new InputError("UNSUPPORTED_OPTION", `to: a loaded model is not converted to ${what}`, {
      hint: "load it so: from_pretrained(dir, { device, dtype })",
    });
  }

  /** For code from PyTorch: the model itself, which is always in evaluation mode. */
  eval(): this {
    return this;
  }

  /** Compiles the kernels of a first answer. */
  abstract compile(): Promise<void>;

  /** The arguments of a call. @throws DeviceError DISPOSED; InputError as {@link readCall} */
  protected readCall<I>(name: string, given: readonly unknown[], names: readonly string[], known?: readonly string[]) {
    this.#expectWeights(name);
    return readCall<I>(name, given, names, known);
  }

  /** @throws DeviceError DISPOSED */
  #expectWeights(name: string): void {
    if (this.#isDisposed) throw new DeviceError("DISPOSED", `${name}: the model has been disposed`);
  }

  /** Frees the weights, and the device if the model opened it. */
  dispose(): void {
    this.#isDisposed = true;
    if (this.#ownsDevice) this.device.destroy();
    else this.#weights.dispose();
  }
}
