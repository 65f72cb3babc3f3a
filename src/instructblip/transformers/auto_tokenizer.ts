/** Hugging Face's AutoTokenizer. */
import { InputError } from "../../tensor/errors.ts";
import { shown } from "../../tensor/shown.ts";
import { type PretrainedFrom, readPretrainedOptions } from "../pretrained/from_pretrained.ts";
import type { OpenFolderOptions } from "../pretrained/hub/hub.ts";
import { openPretrained } from "../pretrained/model_folder.ts";
import { Tokenizer } from "../tokenizer/tokenizer.ts";

export interface TokenizerFromPretrainedOptions extends OpenFolderOptions {
  /** The folder in the checkpoint; the Q-Former's is `qformer_tokenizer`. Default: the checkpoint itself. */
  subfolder?: string | null;
}

export const AutoTokenizer = {
  /**
   * Reads the tokenizer of a checkpoint folder, the language model's unless `subfolder` names another. `encode_batch(texts,
   * options)` of it is Hugging Face's `tokenizer(texts, **options)`.
   *
   * @param from a path, in Node also a Hub id (`owner/name[@revision]`), a URL, or a Folder
   * @throws ConfigError TOKENIZER_…; WeightError; InputError UNKNOWN_OPTION, UNSUPPORTED_OPTION, BAD_INPUT; the signal's
   *   reason
   */
  async from_pretrained(from: PretrainedFrom, options: TokenizerFromPretrainedOptions = {}): Promise<Tokenizer> {
    const { subfolder, ...open } = readPretrainedOptions(options, ["subfolder"]);
    const folder = subfolder ?? "";
    if (typeof folder !== "string") {
      throw new InputError("BAD_INPUT", `from_pretrained: subfolder must be a string, got ${shown(subfolder)}`);
    }
    return Tokenizer.from_pretrained(await openPretrained(from, open), folder.replace(/\/+$/, ""));
  },
};
