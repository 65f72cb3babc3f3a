/** The config class of a config.json, by its model_type. */
import { Blip2Config } from "./blip_2.ts";
import { expectModelType, type VisionLanguageConfig } from "./config.ts";
import { FAMILIES, type KnownFamily } from "./families.ts";
import { InstructBlipConfig } from "./instructblip.ts";
import { InstructBlipVideoConfig } from "./instructblip_video.ts";
import type { JsonRecord } from "./json_file.ts";

const CONFIGS = {
  InstructBlipConfig,
  Blip2Config,
  InstructBlipVideoConfig,
} as const satisfies Record<KnownFamily["config_class"], unknown>;

/** @param given the object of config.json @param name the file's, for messages @throws ConfigError UNSUPPORTED_MODEL */
export function configClassOf(given: JsonRecord, name: string): new (given: unknown) => VisionLanguageConfig {
  expectModelType(given, name, Object.keys(FAMILIES));
  return CONFIGS[FAMILIES[given.model_type as keyof typeof FAMILIES].config_class];
}
