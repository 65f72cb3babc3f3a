/**
 * Hugging Face's GenerationConfig: options of generate() in an object, from a generation_config.json or set one by one.
 *
 * A field that is not set is undefined, where it is None in Python. Source: transformers 5.18,
 * generation/configuration_utils.py, and _prepare_generation_config in generation/utils.py.
 */
import { optionsOf } from "../../tensor/arguments.ts";
import { InputError, WeightError } from "../../tensor/errors.ts";
import { textFile, type WritableFolder, writeTogether } from "../../tensor/files/file_set.ts";
import { quote, shown } from "../../tensor/shown.ts";
import type { VisionLanguageConfig } from "../config/config.ts";
import { jsonText } from "../config/json_file.ts";
import { checkOption, warningsOf } from "../config/options.ts";
import { GENERATION, type GenerationOptions, refuseUnknownOptions, UNSUPPORTED } from "../generation/options.ts";
import type { PretrainedFrom } from "../pretrained/from_pretrained.ts";
import type { OpenFolderOptions } from "../pretrained/hub/hub.ts";
import { ModelFolder } from "../pretrained/model_folder.ts";
import { createFolder } from "../pretrained/platform.ts";

/** Where a checkpoint has it. */
const FILE = "generation_config.json";

/** Options of one call, of which a config has none: functions, and what belongs to a batch. */
const OF_A_CALL = [
  "logits_processor",
  "stopping_criteria",
  "prefix_allowed_tokens_fn",
  "negative_prompt_ids",
  "negative_prompt_attention_mask",
] as const satisfies (keyof GenerationOptions)[];

/** The fields of a GenerationConfig. */
export interface GenerationFields extends Omit<GenerationOptions, (typeof OF_A_CALL)[number]> {
  /** A T5's own start token: any other is refused by generate(). LLaMA and OPT ignore it. */
  decoder_start_token_id?: number | null;
}

/** Options of GenerationConfig.from_pretrained() besides fields, which override those of the file. */
export interface GenerationConfigFile extends OpenFolderOptions {
  /** Default "generation_config.json". */
  config_file_name?: string | null;
}

export interface GenerationConfig extends GenerationFields {}

/**
 * Options of generate(), which takes them as `generation_config`; options of the call win over its fields.
 *
 * ```ts
 * const generation_config = new GenerationConfig({ max_new_tokens: 50, num_beams: 5 });
 * await model.generate({ ...inputs, generation_config });
 * ```
 */
// biome-ignore lint/suspicious/noUnsafeDeclarationMerging: fields that are not set are undefined, as the interface says
export class GenerationConfig {
  /** @throws InputError UNKNOWN_OPTION, UNSUPPORTED_OPTION, PARAM_RANGE */
  constructor(fields?: GenerationFields, ...more: never[]) {
    this.update(fields ?? {}, ...more);
  }

  /**
   * Reads a checkpoint's generation_config.json. Fields may be given besides, and override those of the file.
   *
   * @param from a path, in Node also a Hub id (`owner/name[@revision]`), a URL, or a Folder
   * @throws WeightError NOT_FOUND and those of the folder; ConfigError CONFIG_JSON; InputError as the constructor
   */
  static async from_pretrained(
    from: PretrainedFrom,
    options: GenerationConfigFile & GenerationFields = {},
  ): Promise<GenerationConfig> {
    const { config_file_name, ...rest } = optionsOf("GenerationConfig.from_pretrained", [options], 1, 1);
    const isField = ([name]: [string, unknown]) => Object.hasOwn(GENERATION, name) || Object.hasOwn(UNSUPPORTED, name);
    const fields = Object.fromEntries(Object.entries(rest).filter(isField));
    const folder = await ModelFolder.open(
      from,
      Object.fromEntries(Object.entries(rest).filter((entry) => !isField(entry))),
    );
    const file = config_file_name ?? FILE;
    if (typeof file !== "string")
      throw new InputError("BAD_INPUT", `config_file_name must be a string, got ${shown(file)}`);
    const given = await folder.json(file);
    if (!given) {
      throw new WeightError("NOT_FOUND", `${folder.name}: there is no ${quote(file)} in this folder`, {
        hint: "GenerationConfig.from_model_config(model.config) has the special token ids of the model",
      });
    }
    const config = new GenerationConfig(given as GenerationFields);
    config.update(fields);
    return config;
  }

  /** The special token ids of a model's language model: what generate() of Hugging Face's composites begins with. */
  static from_model_config({ text_config }: VisionLanguageConfig): GenerationConfig {
    const { bos_token_id, eos_token_id, pad_token_id } = text_config;
    const start = "decoder_start_token_id" in text_config ? text_config.decoder_start_token_id : null;
    const ids = { bos_token_id, eos_token_id, pad_token_id, decoder_start_token_id: start };
    return new GenerationConfig(
      Object.fromEntries(Object.entries(ids).filter(([, id]) => id !== null)) as GenerationFields,
    );
  }

  /** Sets fields; null unsets one. @throws InputError UNKNOWN_OPTION, UNSUPPORTED_OPTION, PARAM_RANGE; then none is set */
  update(fields: GenerationFields, ...more: never[]): void {
    const given = optionsOf("GenerationConfig", [fields, ...more], 1);
    const set = { ...this.to_dict(), ...given };
    check(set);
    for (const name of Object.keys(given)) delete this[name as keyof GenerationFields];
    Object.assign(this, withoutNull(set));
  }

  /**
   * Checks the fields as they are now.
   *
   * @returns warnings about fields that have no effect beside the others
   * @throws InputError UNKNOWN_OPTION, UNSUPPORTED_OPTION, PARAM_RANGE
   */
  validate(): string[] {
    const fields = this.to_dict();
    check(fields);
    return warningsOf(GENERATION, fields as GenerationOptions, Number.MAX_SAFE_INTEGER, true);
  }

  /** The fields that are set. */
  to_dict(): GenerationFields {
    return withoutNull({ ...this }) as GenerationFields;
  }

  toJSON(): GenerationFields {
    return this.to_dict();
  }

  /**
   * Writes generation_config.json, for from_pretrained of either.
   *
   * @param to a path (Node), created if needed, or a WritableFolder
   * @throws WeightError IO; InputError NO_FILES and those of validate()
   */
  async save_pretrained(
    to: string | WritableFolder,
    { config_file_name }: { config_file_name?: string } = {},
  ): Promise<void> {
    this.validate();
    const folder = await createFolder(to);
    const text = jsonText(this.to_dict() as Record<string, unknown>, { sorted: true });
    await writeTogether(folder, [textFile(config_file_name ?? FILE, text)], []);
  }
}

/** None, in Python, is a field that is not set. */
function withoutNull(fields: object): Record<string, unknown> {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined && value !== null));
}

/** Ids are checked against the vocabulary by generate(). @throws InputError UNKNOWN_OPTION, UNSUPPORTED_OPTION, PARAM_RANGE */
function check(fields: object): void {
  refuseUnknownOptions(fields);
  for (const [name, value] of Object.entries(withoutNull(fields))) {
    if ((OF_A_CALL as readonly string[]).includes(name)) {
      throw new InputError("UNSUPPORTED_OPTION", `GenerationConfig: ${name} belongs to one call`, {
        hint: "give it to generate()",
      });
    }
    const most = Number.MAX_SAFE_INTEGER;
    if (Object.hasOwn(GENERATION, name)) checkOption(GENERATION, name, fields as GenerationOptions, most);
    else if (name !== "decoder_start_token_id") UNSUPPORTED[name]!(name, value, most);
  }
}

/**
 * The options of a call with those of configs: options of the call win over the fields of its `generation_config`, and
 * these over what has been changed in the model's.
 *
 * @param own the model's, and as it was first
 * @throws InputError UNKNOWN_OPTION, UNSUPPORTED_OPTION, PARAM_RANGE
 */
export function withConfigs(
  { generation_config, ...options }: Readonly<Record<string, unknown>>,
  own: { readonly now: unknown; readonly first: GenerationConfig },
): Record<string, unknown> {
  const first = own.first.to_dict() as Record<string, unknown>;
  const now = fieldsOf("the model's generation_config", own.now);
  // What the config has is generate()'s default as it is, and not checked as a caller's option.
  const isChanged = (name: string) => JSON.stringify(now[name]) !== JSON.stringify(first[name]);
  const names = [...new Set([...Object.keys(now), ...Object.keys(first)])].filter(isChanged);
  const changed = Object.fromEntries(names.map((name) => [name, now[name] ?? null]));
  return { ...changed, ...fieldsOf("generation_config", generation_config), ...options };
}

function fieldsOf(name: string, given: unknown): Record<string, unknown> {
  if (given === undefined || given === null) return {};
  if (typeof given !== "object" || Array.isArray(given)) {
    throw new InputError("PARAM_RANGE", `${name} must be a GenerationConfig, got ${shown(given)}`);
  }
  // Its own fields, copied: what was set since the last check is checked here.
  return new GenerationConfig({ ...given } as GenerationFields).to_dict() as Record<string, unknown>;
}
