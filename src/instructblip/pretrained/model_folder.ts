/**
 * Opens a checkpoint: a path, a Hub id, a URL or a Folder. Its config and processor files are read once, for a model, its
 * processor and other users.
 */
import { EngineError, InputError, WeightError } from "../../tensor/errors.ts";
import type { Folder } from "../../tensor/files/source.ts";
import { configClassOf } from "../config/auto.ts";
import { expectModelType, type VisionLanguageConfig } from "../config/config.ts";
import type { Family } from "../config/families.ts";
import { JsonFolder } from "../config/json_folder.ts";
import { checkOpening, OF_THE_HUB, type PretrainedFrom, readPretrainedOptions } from "./from_pretrained.ts";
import type { OpenFolderOptions } from "./hub/hub.ts";
import { openFolder } from "./platform.ts";
import { refuseUnheeded } from "./unheeded_files.ts";

const CONFIG = "config.json";

/** The config class of a model. */
export interface ConfigClass<C extends VisionLanguageConfig> {
  readonly family: Family;
  /** Those of config.json that it reads. Default: the family's. */
  readonly model_types?: readonly string[];
  new (given: unknown): C;
}

/**
 * An open checkpoint folder: `from_pretrained(folder)` of a processor and of a model then read each file once. Later changes
 * of a file are not seen; open the folder again.
 */
export class ModelFolder extends JsonFolder {
  /** What completes the weights: see {@link WeightParts}. */
  readonly base_model: JsonFolder | undefined;
  readonly adapters: readonly JsonFolder[];
  #config: VisionLanguageConfig | undefined;

  constructor(folder: Folder, base?: JsonFolder, adapters: readonly JsonFolder[] = []) {
    super(folder);
    this.base_model = base;
    this.adapters = adapters;
  }

  /**
   * @param from a path, in Node also a Hub id (`owner/name[@revision]`), a URL, or a Folder (a browser's files, HTTP)
   * @throws WeightError NOT_FOUND, HUB_…; InputError BAD_INPUT, FOLDER_SOURCE, UNKNOWN_OPTION, UNSUPPORTED_OPTION; the
   *   signal's reason
   */
  static async open(from: PretrainedFrom, options: OpenFolderOptions & WeightParts = {}): Promise<ModelFolder> {
    const { base_model, adapter, ...open } = readPretrainedOptions(
      options,
      ["base_model", "adapter"],
      "ModelFolder.open",
    );
    return withParts(await openPretrained(from, open), { base_model, adapter }, open);
  }

  /** This folder for its headers, if opening files downloads them. */
  override preview(): ModelFolder | undefined {
    const [own, base] = [super.preview(), this.base_model?.preview()];
    const adapters = this.adapters.map((adapter) => adapter.preview());
    if (![own, base, ...adapters].some((preview) => preview)) return undefined;
    return new ModelFolder(
      own ?? this,
      base ? JsonFolder.of(base) : this.base_model,
      this.adapters.map((adapter, i) => (adapters[i] ? JsonFolder.of(adapters[i]) : adapter)),
    );
  }

  override get isRemote(): boolean {
    return super.isRemote || [this.base_model, ...this.adapters].some((part) => part?.isRemote);
  }

  /**
   * The model's config, of the class for its model_type or of the given one.
   *
   * @throws WeightError NOT_FOUND, ADAPTER; ConfigError CONFIG_JSON, UNSUPPORTED_MODEL and those of the config
   */
  config(): Promise<VisionLanguageConfig>;
  config<C extends VisionLanguageConfig>(Config: ConfigClass<C>): Promise<C>;
  async config(Config?: ConfigClass<VisionLanguageConfig>): Promise<VisionLanguageConfig> {
    if (!Config && this.#config) return this.#config; // of the class that it was read with
    const given = (await this.json(CONFIG)) ?? (await this.#refuse());
    if (Config) expectModelType(given, CONFIG, Config.model_types ?? [Config.family.model_type]);
    const Class = Config ?? configClassOf(given, CONFIG);
    if (!(this.#config instanceof Class)) this.#config = new Class(given);
    return this.#config;
  }

  /** Why there is no config. */
  async #refuse(): Promise<never> {
    await refuseUnheeded(this); // an adapter without its base
    // The folder may have a more specific error, such as the Hub being offline.
    await this.text(CONFIG).catch((error: unknown) => {
      if (!(error instanceof EngineError && error.code === "NOT_FOUND")) throw error;
    });
    throw new WeightError("NOT_FOUND", `${this.name}: there is no ${CONFIG} in this folder`, {
      hint: "a checkpoint folder has config.json, the weights (*.safetensors, or *.bin) and the tokenizer's files",
    });
  }
}

/** What completes the weights of a folder. */
export interface WeightParts {
  /**
   * Another checkpoint, for the tensors that this one lacks: a whole model, or a language model alone, which LAVIS's files go
   * without. A path, a Hub id, a URL or a Folder. Config, tokenizer and processor stay this one's.
   */
  base_model?: PretrainedFrom | undefined;
  /** LoRA adapters of PEFT, merged into the weights in this order while they are read. Each is given as a checkpoint is. */
  adapter?: PretrainedFrom | readonly PretrainedFrom[] | undefined;
}

/** The folder with its parts, which are opened; the folder itself without any. */
export async function withParts(
  folder: ModelFolder,
  { base_model, adapter }: WeightParts,
  options: OpenFolderOptions,
): Promise<ModelFolder> {
  const adapters = [adapter ?? []].flat() as PretrainedFrom[];
  const base = base_model ?? undefined;
  if (base === undefined && adapters.length === 0) return folder;
  const { revision: _, ...others } = options;
  const open = (from: PretrainedFrom) => {
    const isNamed = typeof from === "string" || from instanceof URL;
    return openPretrained(from, isNamed ? others : { signal: options.signal });
  };
  const opened: JsonFolder[] = [...folder.adapters];
  for (const from of adapters) opened.push(await open(from));
  const completing = base === undefined ? folder.base_model : await open(base);
  if (completing instanceof ModelFolder && (completing.base_model || completing.adapters.length > 0)) {
    throw new InputError("UNSUPPORTED_OPTION", "base_model: it has a base model or adapters of its own");
  }
  return new ModelFolder(folder, completing, opened);
}

/** As {@link ModelFolder.open}, with checked options. An open folder is returned unchanged. */
export async function openPretrained(from: PretrainedFrom, options: OpenFolderOptions = {}): Promise<ModelFolder> {
  const given = checkOpening(options);
  if (typeof from === "string" || from instanceof URL) return new ModelFolder(await openFolder(String(from), given));
  if (typeof from !== "object" || from === null || typeof from.text !== "function") {
    throw new InputError(
      "BAD_INPUT",
      `from_pretrained: a checkpoint is a path, a Hub id, a URL or a Folder, got ${typeof from}`,
    );
  }
  for (const name of OF_THE_HUB) {
    if (given[name] === undefined) continue;
    throw new InputError(
      "UNSUPPORTED_OPTION",
      `from_pretrained: ${name} is about where files come from, and a Folder is open already`,
      { hint: "leave it out, or give the model's id" },
    );
  }
  return from instanceof ModelFolder ? from : new ModelFolder(from satisfies Folder);
}
