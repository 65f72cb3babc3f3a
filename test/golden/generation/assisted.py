"""Makes the goldens of assisted decoding: what Hugging Face drafts and answers when model and assistant are tables.

    python assisted.py        writes data/assisted.json.gz

The model is make.py's table, the assistant the same table without the row for the id before the last, so that it is often
right. The drafts of every pass are recorded. Nothing is drafted before the first token: generate() of InstructBLIP gives its
language model embeddings, and of a first pass with embeddings transformers 5.18 does not read the drafts, so that it verifies
them by other logits. Recorded are searches that only length and end ids stop: other criteria are asked after every pass there.
"""

import random

import torch
from transformers import DynamicCache
from transformers.generation import candidate_generator as drafts
from transformers.modeling_outputs import CausalLMOutputWithPast, Seq2SeqLMOutput

import make

SEED = 31
DRAFTS = []  # of every pass after the first


def logits_of_all(parts, ids):
    """f32[1, T, V] after every id of a row."""
    before = torch.cat([torch.zeros_like(ids[:, :1]), ids[:, :-1]], 1)
    position = parts["position"][torch.arange(ids.shape[1]) % make.POSITIONS]
    return parts["last"][ids] + parts["before"][before] + position


class Model(make.TableModel):
    def prepare_inputs_for_generation(self, input_ids, past_key_values=None, **kwargs):
        return {"input_ids": input_ids, "past_key_values": past_key_values}

    def forward(self, input_ids=None, attention_mask=None, past_key_values=None, **kwargs):
        return CausalLMOutputWithPast(logits=logits_of_all(self.parts, input_ids), past_key_values=past_key_values)


class EncoderDecoder(make.TableEncoderDecoder):
    def prepare_inputs_for_generation(self, input_ids, past_key_values=None, encoder_outputs=None, **kwargs):
        return {"input_ids": input_ids, "past_key_values": past_key_values, "encoder_outputs": encoder_outputs}

    def forward(self, input_ids=None, attention_mask=None, past_key_values=None, encoder_outputs=None, **kwargs):
        return Seq2SeqLMOutput(logits=logits_of_all(self.parts, input_ids), past_key_values=past_key_values)


def model_of(encoder_decoder, forgets=False, **ids):
    config = make.TableConfig(is_encoder_decoder=encoder_decoder, **ids)
    model = (EncoderDecoder if encoder_decoder else Model)(config).eval()
    if forgets:
        model.parts = {**model.parts, "before": torch.zeros_like(model.parts["before"])}
    return model


def from_the_second_pass(kind):
    """Records the drafts of a candidate generator, which has none in the first pass."""
    candidates, update = kind.get_candidates, kind.update_candidate_strategy

    def get_candidates(self, input_ids, **kwargs):
        self.passes = getattr(self, "passes", 0) + 1
        if self.passes == 1:
            return input_ids, None
        found, logits = candidates(self, input_ids, **kwargs)
        DRAFTS.append(found[0, input_ids.shape[1] :].tolist())
        return found, logits

    def update_candidate_strategy(self, *given):
        if self.passes > 1:
            update(self, *given)

    kind.get_candidates, kind.update_candidate_strategy = get_candidates, update_candidate_strategy


def assisted(prompt, kwargs, assistant=None, encoder_decoder=False):
    """One call; `assistant`: fields of its generation config, or None for prompt lookup."""
    ids = {"bos_token_id": 1, "eos_token_id": make.EOS, "pad_token_id": make.PAD}
    if encoder_decoder:
        ids["decoder_start_token_id"] = 0
    model, given = model_of(encoder_decoder, **ids), make.as_objects(kwargs)
    if assistant is not None:
        given["assistant_model"] = model_of(encoder_decoder, forgets=True, **ids)
        given["assistant_model"].generation_config.update(**assistant)
    DRAFTS.clear()
    mask = torch.ones(1, len(prompt))
    out = model.generate(torch.tensor([prompt]), attention_mask=mask, past_key_values=DynamicCache(), **given)
    case = {"prompt": [[0] if encoder_decoder else prompt], "kwargs": {**kwargs, **(assistant or {})}, "ids": ids}
    return {**case, "assistant": assistant is not None, "sequences": out.tolist(), "drafts": list(DRAFTS)}


PROCESSORS = {
    **{name: make.PROCESSORS[name] for name in (
        "sequence_bias", "repetition_penalty", "no_repeat_ngram_size", "bad_words_ids", "min_new_tokens", "suppress_tokens",
        "begin_suppress_tokens", "forced_eos_token_id", "renormalize_logits",
    )},
    "logits_processor": ["every_third"],
    "watermarking_config": {"greenlist_ratio": 0.5, "bias": 1.5, "hashing_key": 15485863, "context_width": 1},
}


def cases():
    draw = random.Random(SEED)
    found = []
    for i in range(160):
        few = draw.sample(range(3, make.V), draw.randrange(2, 7))  # that they repeat
        prompt = [draw.choice(few) for _ in range(draw.randrange(1, 14))]
        kwargs = {"max_new_tokens": draw.randrange(1, 25)}
        if draw.random() < 0.6:
            kwargs["eos_token_id"] = draw.choice([[2, 5, 9], 4])
        names = draw.sample(sorted(PROCESSORS), draw.choice([0, 0, 1, 2]))
        if i % 2:  # transformers' assistant adds its bias twice
            names = [name for name in names if name != "watermarking_config"]
        kwargs |= make.sensible({name: PROCESSORS[name] for name in names})
        assistant = None
        if i % 2:
            assistant = {
                "num_assistant_tokens": draw.randrange(1, 7),
                "num_assistant_tokens_schedule": draw.choice(["constant", "heuristic_transient"]),
                "assistant_confidence_threshold": draw.choice([0.0, 0.2, 0.4]),
            }
        else:
            kwargs |= {"prompt_lookup_num_tokens": draw.randrange(1, 7), "max_matching_ngram_size": draw.randrange(1, 4)}
        found.append(assisted(prompt, kwargs, assistant, encoder_decoder=draw.random() < 0.3))
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    for kind in (drafts.PromptLookupCandidateGenerator, drafts.AssistedCandidateGenerator):
        from_the_second_pass(kind)
    with torch.no_grad():
        found = cases()
    make.write("assisted.json.gz", found)
    passes, tokens = (sum(f(case) for case in found) for f in (
        lambda case: 1 + len(case["drafts"]), lambda case: len(case["sequences"][0]) - len(case["prompt"][0])
    ))
    print(len(found), "searches,", tokens, "tokens in", passes, "passes")
