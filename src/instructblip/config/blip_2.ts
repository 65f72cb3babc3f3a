/**
 * BLIP-2's configs, with Hugging Face's fields and defaults: those of InstructBLIP with the differences below.
 *
 * Source: transformers 5.18, models/blip_2/configuration_blip_2.py.
 */
import { compositeOf, InstructBlipQFormerConfig } from "./config.ts";
import { BLIP_2 } from "./families.ts";
import { count, flag } from "./fields.ts";

/** BLIP-2's Q-Former, by default without text. */
export class Blip2QFormerConfig extends InstructBlipQFormerConfig {
  static override readonly model_type = "blip_2_qformer";
  readonly use_qformer_text_input: boolean;

  constructor(given: unknown = {}) {
    super(given);
    const { use_qformer_text_input } = given as { use_qformer_text_input?: unknown };
    this.use_qformer_text_input = flag(false)(use_qformer_text_input, "qformer_config.use_qformer_text_input");
  }

  override get has_text(): boolean {
    return this.use_qformer_text_input;
  }
}

/** BLIP-2: as InstructBLIP, with a Q-Former that does not read the prompt. */
export class Blip2Config extends compositeOf(BLIP_2, { image_text_hidden_size: count(256) }, Blip2QFormerConfig) {}
