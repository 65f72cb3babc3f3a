/**
 * InstructBLIP's config, with Hugging Face's fields and defaults.
 *
 * Source: transformers 5.18, models/instructblip/configuration_instructblip.py.
 */
import { compositeOf, InstructBlipQFormerConfig } from "./config.ts";
import { INSTRUCTBLIP } from "./families.ts";

/** Vision, Q-Former and language model together. */
export class InstructBlipConfig extends compositeOf(INSTRUCTBLIP, {}, InstructBlipQFormerConfig) {}
