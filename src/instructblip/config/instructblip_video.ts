/**
 * The config of InstructBLIP for videos, with Hugging Face's fields and defaults: that of InstructBLIP with the differences
 * below.
 *
 * Source: transformers 5.18, models/instructblipvideo/configuration_instructblipvideo.py.
 */
import { compositeOf, InstructBlipQFormerConfig } from "./config.ts";
import { INSTRUCTBLIP_VIDEO } from "./families.ts";

/** InstructBLIP for videos: the same parts, and a placeholder of another name. */
export class InstructBlipVideoConfig extends compositeOf(INSTRUCTBLIP_VIDEO, {}, InstructBlipQFormerConfig) {}
