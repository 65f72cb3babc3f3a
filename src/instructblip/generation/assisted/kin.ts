/** What a model and its assistant must have in common: tokens, and the places of images among them. */
import { InputError } from "../../../tensor/errors.ts";

export interface Kin {
  readonly is_encoder_decoder: boolean;
  /** Tokens of the language model. */
  readonly vocabulary: number;
  /** The placeholder's id; null for legacy checkpoints, which have none. */
  readonly image_token: number | null;
  /** Tokens of an image. */
  readonly num_query_tokens: number;
}

/** @throws InputError BAD_INPUT, with what the assistant has and what the model */
export function expectKin(own: Kin, other: Kin): void {
  const differs = (what: string, hint: string) => {
    throw new InputError("BAD_INPUT", `assistant_model: ${what}`, { hint });
  };
  const sameKind = "an assistant is a smaller model of the same kind, or the same model in fewer bits";
  const kindOf = ({ is_encoder_decoder }: Kin) => (is_encoder_decoder ? "an encoder" : "no encoder");
  if (own.is_encoder_decoder !== other.is_encoder_decoder) {
    differs(`its language model has ${kindOf(other)}, the model's has ${kindOf(own)}`, sameKind);
  }
  if (own.vocabulary !== other.vocabulary) {
    differs(
      `its vocabulary differs: it has ${other.vocabulary} tokens, the model has ${own.vocabulary}`,
      `their ids must be of one tokenizer; ${sameKind}`,
    );
  }
  if (own.image_token !== other.image_token) {
    const tokenOf = ({ image_token }: Kin) => (image_token === null ? "none" : `id ${image_token}`);
    differs(`its image token differs: it has ${tokenOf(other)}, the model has ${tokenOf(own)}`, sameKind);
  }
  if (own.num_query_tokens !== other.num_query_tokens) {
    differs(
      `its number of image tokens differs: it has ${other.num_query_tokens} for an image, the model has ${own.num_query_tokens}`,
      sameKind,
    );
  }
}
