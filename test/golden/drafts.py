"""Prompt lookup and assistants for live parity: each composite is asked with drafts of both kinds, greedy and drawn.

Hugging Face's own _assisted_decoding verifies and both candidate generators draft, changed in what they get wrong of
embeddings, which is what InstructBLIP's language model is given. transformers 5.18 does not read the drafts of the first
pass, so there are none. An assistant would read the ids of a prompt and not its embeddings, image and all, so they are put in
the ids' place; one with an encoder would be given them twice, which is an error, and would read its whole row again in every
pass, behind what its cache holds, unless there is a mask for the row.

The assistant is a copy of the model whose language model's layers are changed, in a folder of its own, so that it is often
right and not always. Nothing is left to chance: a draw has a top_k of 1. One row at a time, as there.
"""

import contextlib
import copy
from dataclasses import dataclass

import torch
from transformers.generation import candidate_generator as generators

import composites
import decoding

CHANGE = 0.25  # of an assistant's layers, in standard deviations of a matrix
FOLDER = "assistant"
# What its embeddings and head say is the model's: an assistant is given the model's embeddings in Hugging Face.
SHARED = ("embed_tokens", "shared", "embed_positions", "lm_head", "relative_attention_bias")


@dataclass
class Counts:
    passes: int = 0
    draft_tokens: int = 0


def make_assistant(rng, composite, folder):
    """Writes the assistant's folder. It is read from there, so that both sides have the same rounded numbers."""
    model = copy.deepcopy(composite.model)
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    with torch.no_grad():
        for name, parameter in model.language_model.named_parameters():
            if parameter.ndim >= 2 and not any(part in name for part in SHARED):
                parameter += CHANGE * parameter.std() * torch.randn(parameter.shape, generator=generator)
    composites.write_model(composites.Composite(composite.spec, model, composite.processor, []), folder / FOLDER)


def suits(spec):
    """Whether Hugging Face can: it counts what the cache and the mask hold by ids, which rows of embeddings alone lack. T5's
    cache has a layer for each of the encoder's, and cannot be cropped where the decoder has fewer."""
    if spec["backbone"] == "t5":
        return spec["text"]["num_decoder_layers"] in (None, spec["text"]["num_layers"])
    return not spec.get("legacy")


def draw_call(rng, setting, kind, sampled):
    """generate()'s options, without the assistant."""
    draws, options = decoding.Draws(rng, setting), decoding.alone()
    kwargs = {"max_new_tokens": draws.between(6, 16)}
    if kind == "lookup":
        kwargs |= {"prompt_lookup_num_tokens": draws.between(1, 6)}
        if draws.some(0.7):
            kwargs |= {"max_matching_ngram_size": draws.between(1, 3)}
    else:
        kwargs |= {
            "num_assistant_tokens": draws.between(1, 6),
            "num_assistant_tokens_schedule": draws.pick("constant", "heuristic_transient"),
            "assistant_confidence_threshold": draws.pick(0.0, 0.2, 0.4),
        }
    also = draws.pick(None, "eos_token_id", "repetition_penalty", "no_repeat_ngram_size", "suppress_tokens", "sequence_bias")
    if also:
        kwargs = {**options[also](draws), **kwargs}
    return {**kwargs, **({"do_sample": True, "top_k": 1} if sampled else {})}


def draw_calls(rng, spec, model, assistant, inputs, options, setting):
    """Calls by name, each clear-cut: the row, the kind of drafts and generate()'s options."""
    calls = {}
    for kind in ("lookup", "assistant") if suits(spec) else ():
        for sampled in (False, True):
            name = f"drafts_{kind}_{'sampled' if sampled else 'greedy'}"
            for _ in range(decoding.ATTEMPTS):
                row = int(rng.integers(len(setting.path)))
                call = {"name": name, "row": row, "assistant": kind == "assistant"}
                call["kwargs"] = draw_call(rng, setting, kind, sampled)
                if is_clear_cut(model, assistant, inputs, options, call):
                    calls[name] = call
                    break
            else:
                raise decoding.Unclear(f"{name}: no clear-cut call in {decoding.ATTEMPTS} draws, the last {call}")
    return list(calls.values())


ASSISTANTS = ("num_assistant_tokens", "num_assistant_tokens_schedule", "assistant_confidence_threshold")


@torch.no_grad()
def record(model, assistant, inputs, options, call):
    """sequences i64[1, T], and counts i64[1, 3]: passes, tokens drafted, tokens accepted.

    No counts of prompt lookup that is drawn: Hugging Face asks the processors of sampling about scores that are all alike.
    """
    kwargs, row = dict(call["kwargs"]), slice(call["row"], call["row"] + 1)
    given = {name: tensor[row] for name, tensor in inputs.items()}
    length = decoding_length(model, given, options)
    if call["assistant"]:
        language_model = assistant.language_model
        language_model.generation_config.update(**{name: kwargs.pop(name) for name in ASSISTANTS})
        kwargs["assistant_model"] = language_model
    torch.manual_seed(0)
    with after_embeddings() as counts:
        sequences = composites.generate(model, given, options=options, **kwargs)
    found = {f"{call['name']}.sequences": sequences}
    if call["assistant"] or not kwargs.get("do_sample"):
        accepted = sequences.shape[1] - length - counts.passes
        found[f"{call['name']}.counts"] = torch.tensor([[counts.passes, counts.draft_tokens, accepted]])
    return found


def decoding_length(model, inputs, options):
    """Ids in front of the new ones, in the rows that generate() returns."""
    if model.config.text_config.is_encoder_decoder:
        return 1
    return 0 if composites.placeholder_of(model) is None else inputs["input_ids"].shape[1]


def is_clear_cut(model, assistant, inputs, options, call):
    """Whether logits that differ by NOISE, the assistant's too, give the same tokens and drafts."""
    generator = torch.Generator().manual_seed(0)
    noisy = lambda _module, _args, out: out + decoding.NOISE * torch.randn(out.shape, generator=generator)  # noqa: E731
    expected = record(model, assistant, inputs, options, call)
    hooks = [one.language_model.lm_head.register_forward_hook(noisy) for one in (model, assistant)]
    try:
        again = record(model, assistant, inputs, options, call)
    finally:
        for hook in hooks:
            hook.remove()
    return all(expected[key].shape == again[key].shape and torch.equal(expected[key], again[key]) for key in expected)


@contextlib.contextmanager
def after_embeddings():
    """Has candidate generators draft as they do after ids, from the second pass on. Gives the counts of a call."""
    counts = Counts()
    kinds = (generators.PromptLookupCandidateGenerator, generators.AssistedCandidateGenerator)
    kept = [(kind, kind.__init__, kind.get_candidates, kind.update_candidate_strategy) for kind in kinds]
    hooks = []

    def changed(start, candidates, update):
        def __init__(self, *args, **kwargs):
            self.passes = 0
            assistant = kwargs.get("assistant_model")
            has_encoder = assistant is not None and assistant.config.is_encoder_decoder
            if has_encoder:
                kwargs["inputs_tensor"] = None  # the embeddings are in model_kwargs, and may be given once
            start(self, *args, **kwargs)
            if has_encoder:
                self.assistant_kwargs["decoder_attention_mask"] = torch.ones_like(kwargs["input_ids"])
            elif assistant is not None:
                embeds = self.assistant_kwargs.pop("inputs_embeds")
                hooks.append(assistant.get_input_embeddings().register_forward_hook(in_front(embeds)))

        def get_candidates(self, input_ids, **kwargs):
            self.passes += 1
            counts.passes += 1
            if self.passes == 1:
                return input_ids, None
            if self.passes == 2 and isinstance(self, generators.AssistedCandidateGenerator):  # as long as the row by now
                is_encoder_decoder = self.assistant_model.config.is_encoder_decoder
                for extend in (generators._prepare_attention_mask, generators._prepare_position_ids):
                    self.assistant_kwargs = extend(self.assistant_kwargs, input_ids.shape[1], is_encoder_decoder)
            found, logits = candidates(self, input_ids, **kwargs)
            most = getattr(self, "max_length", None) or self.main_model_max_length
            room = most - input_ids.shape[1] - 1  # prompt lookup drafts beyond what can be accepted
            counts.draft_tokens += min(found.shape[1] - input_ids.shape[1], room)
            return found, logits

        def update_candidate_strategy(self, *given):
            if self.passes > 1:
                update(self, *given)

        return __init__, get_candidates, update_candidate_strategy

    for kind, *methods in kept:
        kind.__init__, kind.get_candidates, kind.update_candidate_strategy = changed(*methods)
    try:
        yield counts
    finally:
        for kind, *methods in kept:
            kind.__init__, kind.get_candidates, kind.update_candidate_strategy = methods
        for hook in hooks:
            hook.remove()


def in_front(embeds):
    """A hook of an embedding that gives `embeds` for the first ids of a whole row, which shorter inputs are not."""
    length = embeds.shape[1]

    def hook(_module, args, output):
        return torch.cat([embeds, output[:, length:]], 1) if args[0].shape[1] > length else output

    return hook
