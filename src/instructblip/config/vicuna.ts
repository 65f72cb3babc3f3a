/**
 * Vicuna's special token ids as its tokenizer has them. Published configs have those of the converted LLaMA (eos 1, pad -1,
 * bos 0), so that answers do not end at `</s>`: transformers issue #25426, LAVIS issue #509.
 */
import { InputError } from "../../tensor/errors.ts";
import type { TextConfig } from "./config.ts";
import { LlamaConfig } from "./llama.ts";

/** `</s>`, which Vicuna's tokenizer also begins every prompt with. */
const END = 2;
/** `[PAD]`, added after LLaMA's 32,000 tokens. */
const PAD = 32000;

/**
 * The config with the right ids.
 *
 * @param vocabulary rows of the token embedding
 * @throws InputError NOT_VICUNA for another language model
 */
export function fixVicunaTokenIds(config: TextConfig, vocabulary: number): LlamaConfig {
  if (!(config instanceof LlamaConfig)) {
    throw new InputError("NOT_VICUNA", `fix_vicuna_token_ids is for Vicuna; this is a ${config.model_type} model`);
  }
  const pad_token_id = PAD < vocabulary ? PAD : END;
  return new LlamaConfig({ ...config, bos_token_id: END, eos_token_id: END, pad_token_id });
}
