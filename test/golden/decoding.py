"""Decoding options drawn at random for live parity: every option by itself in turn, and several together.

A call is what generate() is given, as JSON; `ready` makes of it what Hugging Face wants. Where a function or an object is
wanted JSON has what it is made of, `prefix_allowed_tokens_fn: {"but_every": n}` for one.

Every call is clear-cut: with logits that differ by NOISE it has the same answer, so that an honest f32 implementation has
it too. Calls that draw a token differ between any two generators; of them the scores that are drawn by are compared, at
the first token, and a top_k of 1 leaves nothing to chance.
"""

from dataclasses import dataclass

import torch
from transformers import LogitsProcessorList, StoppingCriteriaList, SynthIDTextWatermarkingConfig, WatermarkingConfig

import composites

NOISE = 3e-5  # some times what f32 programs that add in another order differ by
ATTEMPTS = 30


class Unclear(RuntimeError):
    """A composite of whose answers no draw of an option is clear-cut."""


@dataclass
class Setting:
    """What a composite answers when nothing is asked of it, and what may be said about that."""

    path: list  # [B][20] ids, greedy, without an end
    texts: list  # each row of the path, by token
    unreached: list  # ordinary ids that the path does not have
    eos: int  # an id that the path reaches
    prompt_length: int  # what max_length and min_length count besides new tokens
    vocabulary: int  # rows of the head


class Draws:
    """Random choices of one call."""

    def __init__(self, rng, setting):
        self.rng, self.setting = rng, setting

    def pick(self, *values):
        return values[int(self.rng.integers(len(values)))]

    def between(self, low, high):
        return int(self.rng.integers(low, high + 1))

    def some(self, chance):
        return bool(self.rng.random() < chance)

    def reached(self, most=8):
        """An id of the path's first tokens, so that what is done to it shows."""
        return self.pick(*self.setting.path)[self.between(0, most)]

    def id(self):
        """Any id, a reached one as often as not."""
        return self.reached() if self.some(0.5) else self.pick(*self.setting.unreached)

    def run(self, longest):
        """Ids as they follow each other on the path: a word of 1 … longest ids."""
        row, start, length = self.pick(*self.setting.path), self.between(0, 8), self.between(1, longest)
        return row[start : start + length]

    def beams(self):
        return {"num_beams": self.between(2, 5)}

    def ending(self):
        """An end that the answer reaches, for what keeps it away."""
        return {"eos_token_id": self.setting.eos}

    def some_beams(self):
        return {"num_beams": self.between(1, 3)}

    def rows(self, length):
        """Ids for every row of the batch."""
        return [[self.id() for _ in range(length)] for _ in self.setting.path]

    def scale(self):
        return self.pick(0.4, 1.7, 3.0, -1.0)

    def watermark(self):
        """A green list or SynthID: what has keys."""
        if self.some(0.5):
            return {
                "greenlist_ratio": self.pick(0.25, 0.5), "bias": self.pick(1.5, 3.0),
                "hashing_key": self.between(1, 2**31), "seeding_scheme": self.pick("lefthash", "selfhash"),
                "context_width": self.between(1, 3),
            }
        return {"ngram_len": self.between(2, 5), "keys": [self.between(1, 1000) for _ in range(self.between(2, 9))]}

    def own_processor(self):
        return {"every": self.between(2, 6), "add": round(float(self.rng.normal(0, 2)), 3)}

    def bias(self):
        pairs = {tuple(self.run(3)): round(float(self.rng.normal(0, 3)), 3) for _ in range(self.between(1, 4))}
        return [[list(ids), bias] for ids, bias in pairs.items()]

    def stop_strings(self):
        """Parts of what is answered: from inside a token, and across two."""
        pieces = [piece for row in self.setting.texts for piece in row[1:9] if piece.strip() and "\ufffd" not in piece]
        strings = [self.pick(*pieces)[-self.between(1, 3) :] for _ in range(self.between(1, 2))] if pieces else []
        return [string for string in strings if string.strip()] or [" a"]


def alone():
    """Option -> a function of Draws that gives it, with whatever it needs beside it."""
    P = lambda d: d.setting.prompt_length  # noqa: E731
    return {
        "max_new_tokens": lambda d: {"max_new_tokens": d.between(1, 14)},
        "max_length": lambda d: {"max_length": P(d) + d.between(2, 12)},
        "min_length": lambda d: {"min_length": P(d) + d.between(3, 5), **d.ending()},
        "min_new_tokens": lambda d: {"min_new_tokens": d.between(3, 5), **d.ending()},
        "max_time": lambda d: {"max_time": 1000.0},
        "stop_strings": lambda d: {"stop_strings": d.stop_strings()},
        "eos_token_id": lambda d: {
            "eos_token_id": d.pick(d.setting.eos, [d.pick(*d.setting.unreached), d.reached()], None)
        },
        "pad_token_id": lambda d: {"pad_token_id": d.pick(d.id(), d.id(), None), **d.ending()},
        "bos_token_id": lambda d: {"bos_token_id": d.id()},
        "num_beams": lambda d: d.beams(),
        "num_return_sequences": lambda d: {"num_beams": 4, "num_return_sequences": d.between(2, 4)},
        "early_stopping": lambda d: {**d.beams(), "early_stopping": d.pick(False, True, "never"), **d.ending()},
        "length_penalty": lambda d: {
            **d.beams(), "length_penalty": d.pick(-2.0, -0.5, 0.0, 0.5, 2.0, 3.0), **d.ending()
        },
        "sequence_bias": lambda d: {"sequence_bias": d.bias()},
        "repetition_penalty": lambda d: {"repetition_penalty": d.pick(0.7, 1.2, 1.5, 2.5)},
        "no_repeat_ngram_size": lambda d: {"no_repeat_ngram_size": d.pick(1, 2, 3)},
        "bad_words_ids": lambda d: {"bad_words_ids": [d.run(3) for _ in range(d.between(1, 3))]},
        "prefix_allowed_tokens_fn": lambda d: {"prefix_allowed_tokens_fn": {"but_every": d.between(2, 5)}},
        "forced_bos_token_id": lambda d: {"forced_bos_token_id": d.id()},
        "forced_eos_token_id": lambda d: {"forced_eos_token_id": d.pick(d.id(), [d.id(), d.id()])},
        "remove_invalid_values": lambda d: {"remove_invalid_values": True},
        "exponential_decay_length_penalty": lambda d: {
            "exponential_decay_length_penalty": [d.between(0, 4), d.pick(1.1, 1.5, 2.0)]
        },
        "suppress_tokens": lambda d: {"suppress_tokens": [d.id() for _ in range(d.between(1, 4))]},
        "begin_suppress_tokens": lambda d: {"begin_suppress_tokens": [d.reached(0), d.id()]},
        "renormalize_logits": lambda d: {"renormalize_logits": True, "num_beams": d.between(1, 3)},
        "watermarking_config": lambda d: {"watermarking_config": d.watermark()},
        "logits_processor": lambda d: {"logits_processor": [d.own_processor() for _ in range(d.between(1, 2))]},
        "stopping_criteria": lambda d: {"stopping_criteria": [{"multiple_of": d.between(3, 9)}], **d.some_beams()},
        "guidance_scale": lambda d: {"guidance_scale": d.scale()},
        "negative_prompt_ids": lambda d: {"guidance_scale": d.scale(), "negative_prompt_ids": d.rows(d.between(1, 5))},
        "negative_prompt_attention_mask": lambda d: {
            "guidance_scale": d.scale(), "negative_prompt_ids": d.rows(4),
            "negative_prompt_attention_mask": [[int(i >= d.between(0, 2)) for i in range(4)] for _ in d.setting.path],
        },
        "use_cache": lambda d: {"use_cache": False},
        "encoder_repetition_penalty": lambda d: {"encoder_repetition_penalty": d.pick(0.5, 2.0)},
        "encoder_no_repeat_ngram_size": lambda d: {"encoder_no_repeat_ngram_size": d.between(1, 2)},
        "output_scores": lambda d: {"output_scores": True, "num_beams": d.between(1, 3), "repetition_penalty": 1.3},
        "output_logits": lambda d: {"output_logits": True, "num_beams": d.between(1, 3), **d.ending()},
        "do_sample": lambda d: {"do_sample": True, "top_k": 1, "num_return_sequences": d.between(1, 3)},
        **{name: lambda d, name=name: sampled(d, {name: WARPERS[name](d)}) for name in WARPERS},
    }


# What a language model with an encoder, or one whose rows begin without ids, cannot do in Hugging Face.
GUIDANCE = {"guidance_scale", "negative_prompt_ids", "negative_prompt_attention_mask"}

WARPERS = {
    "temperature": lambda d: d.pick(0.3, 0.7, 1.9),
    "top_h": lambda d: d.pick(0.2, 0.6, 0.9),
    "top_k": lambda d: d.pick(2, 5, 30, 1000),
    "top_p": lambda d: d.pick(0.3, 0.8, 0.97),
    "min_p": lambda d: d.pick(0.02, 0.1, 0.3),
    "typical_p": lambda d: d.pick(0.2, 0.6, 0.95),
    "epsilon_cutoff": lambda d: d.pick(0.003, 0.03, 0.1),
    "eta_cutoff": lambda d: d.pick(0.003, 0.03, 0.2),
}

# What may stand beside exponential_decay_length_penalty: where the end is forbidden, transformers adds infinity to minus
# infinity and chooses the NaN.
FINITE = {
    "max_new_tokens", "max_length", "max_time", "pad_token_id", "num_beams", "num_return_sequences", "early_stopping",
    "length_penalty", "sequence_bias", "repetition_penalty", "renormalize_logits", "use_cache", "output_scores",
    "output_logits", "bos_token_id", "exponential_decay_length_penalty", "eos_token_id",
}


def sampled(draws, warpers):
    """One drawn token, and the scores it is drawn by. The default top_k is off unless it is among the warpers."""
    return {
        "do_sample": True, "top_k": 0, "max_new_tokens": 1, "num_beams": draws.pick(1, 1, 3), "output_scores": True,
        **warpers,
    }


def draw_single(rng, setting, option):
    """A call with one option, and what it needs."""
    kwargs = alone()[option](Draws(rng, setting))
    if "max_length" not in kwargs:
        kwargs.setdefault("max_new_tokens", int(rng.integers(6, 11)))
    return kwargs


def draw_combination(rng, setting):
    """A call of greedy or beam search with several options."""
    draws, options = Draws(rng, setting), alone()
    left_out = {*WARPERS, *GUIDANCE, "do_sample", "num_return_sequences", "max_new_tokens"}  # guidance: not with beams
    names = [name for name in options if name not in left_out]
    kwargs = {"max_new_tokens": draws.between(6, 10)}
    for name in rng.permutation(names)[: draws.between(2, 6)]:
        decays = "exponential_decay_length_penalty"
        if (decays in kwargs and name not in FINITE) or (name == decays and not kwargs.keys() <= FINITE):
            continue
        kwargs |= options[name](draws)
    if "max_length" in kwargs and draws.some(0.6):  # else max_new_tokens beats it
        kwargs["max_length"] = setting.prompt_length + kwargs.pop("max_new_tokens")
    beams = draws.pick(1, kwargs.get("num_beams", 1), 2, 3, 4, 5)
    if "keys" in kwargs.get("watermarking_config", {}):
        beams = 1  # Hugging Face's SynthID mixes up the contexts of beams
    kwargs["num_beams"] = beams
    if beams == 1:
        kwargs = {key: kwargs[key] for key in kwargs if key not in ("length_penalty", "early_stopping")}
    else:
        kwargs["num_return_sequences"] = draws.between(1, beams)
        if draws.some(0.5):
            kwargs["early_stopping"] = draws.pick(False, True, "never")
    if kwargs.get("eos_token_id", 0) is None:
        kwargs.pop("exponential_decay_length_penalty", None)  # of which end? An error here
    forced = kwargs.get("forced_eos_token_id", kwargs.get("forced_bos_token_id"))
    if forced is not None:
        kwargs.pop("suppress_tokens", None)  # nothing would be left, which is an error here
    return kwargs


def draw_sampling(rng, setting):
    """A call that draws one token, with several options."""
    draws, options = Draws(rng, setting), alone()
    names = [*rng.permutation(list(WARPERS))[: draws.between(2, 5)]]
    kwargs = sampled(draws, {str(name): WARPERS[name](draws) for name in names})
    for name in ("sequence_bias", "repetition_penalty", "renormalize_logits", "suppress_tokens"):
        if draws.some(0.3):
            kwargs = {**options[name](draws), **kwargs}
    return kwargs


def draw_calls(rng, model, processor, inputs, options, setting, *, singles, combinations, samplings):
    """Name -> kwargs: each of `singles` by itself, and so many combinations of each sort, all clear-cut."""
    drawn = {f"single_{option}": lambda option=option: draw_single(rng, setting, option) for option in singles}
    drawn |= {f"drawn_{i}": lambda: draw_combination(rng, setting) for i in range(combinations)}
    drawn |= {f"sampled_{i}": lambda: draw_sampling(rng, setting) for i in range(samplings)}
    calls = {}
    for name, draw in drawn.items():
        for _ in range(ATTEMPTS):
            kwargs = draw()
            if is_clear_cut(model, processor, inputs, options, kwargs):
                calls[name] = kwargs
                break
        else:
            raise Unclear(f"{name}: no clear-cut call in {ATTEMPTS} draws, the last {kwargs}")
    return calls


# ---------------------------------------------------------------------------------------------------------------------
# Calling


def allowed_tokens(vocabulary, but_every):
    """prefix_allowed_tokens_fn: all ids but every `but_every`-th, others for every row and length."""
    return lambda batch, ids: [id for id in range(vocabulary) if (id + batch + len(ids)) % but_every]


def ready(model, processor, kwargs):
    """What generate() takes for a call's JSON."""
    kwargs = dict(kwargs)
    if "prefix_allowed_tokens_fn" in kwargs:
        rule = kwargs["prefix_allowed_tokens_fn"]
        kwargs["prefix_allowed_tokens_fn"] = allowed_tokens(model.language_model.lm_head.out_features, **rule)
    if "stop_strings" in kwargs:
        kwargs["tokenizer"] = processor.tokenizer
    if "watermarking_config" in kwargs:
        fields = kwargs["watermarking_config"]
        config = SynthIDTextWatermarkingConfig if "keys" in fields else WatermarkingConfig
        kwargs["watermarking_config"] = config(**fields)
    if "logits_processor" in kwargs:
        kwargs["logits_processor"] = LogitsProcessorList([own_processor(**of) for of in kwargs["logits_processor"]])
    if "stopping_criteria" in kwargs:
        criteria = [lambda ids, _scores, n=of["multiple_of"], **_: ids[:, -1] % n == 0 for of in kwargs["stopping_criteria"]]
        kwargs["stopping_criteria"] = StoppingCriteriaList(criteria)
    for name in ("negative_prompt_ids", "negative_prompt_attention_mask"):
        if name in kwargs:
            kwargs[name] = torch.tensor(kwargs[name])
    return kwargs


def own_processor(every, add):
    """A logits processor that adds to every `every`-th id's score, others at every length."""
    def process(ids, scores):
        scores = scores.clone()
        scores[:, ids.shape[1] % every :: every] += add
        return scores

    return process


def suits(option, spec):
    """Whether the composite of a spec can do it."""
    return option not in GUIDANCE or (spec["backbone"] != "t5" and not spec.get("legacy"))


def record(model, processor, inputs, options, call, kwargs):
    """What is to be compared of a call: sequences and beams' scores, or the scores drawn by; and what it asks for."""
    beams = kwargs.get("num_beams", 1) > 1
    wanted = {"return_dict_in_generate": True, "output_scores": beams}  # beams have sums only with the scores
    result = composites.generate(model, inputs, options=options, **{**wanted, **ready(model, processor, kwargs)})
    tensors = {}
    if not kwargs.get("do_sample") or kwargs["top_k"] == 1:
        tensors["sequences"] = result.sequences
        if beams:
            tensors["sequences_scores"] = result.sequences_scores
    if kwargs.get("output_scores"):
        tensors["scores"] = torch.stack(result.scores)
        if "sequences" in tensors:
            ids = result.sequences.clamp(min=0)  # beams without an end are filled with -1
            tensors["transition_scores"] = model.compute_transition_scores(
                ids, result.scores, result.get("beam_indices"), normalize_logits=True
            )
    if kwargs.get("output_logits"):
        tensors["logits"] = torch.stack(result.logits)
    return {f"{call}.{key}": tensor for key, tensor in tensors.items()}


def is_clear_cut(model, processor, inputs, options, kwargs):
    """Whether logits that differ by NOISE give the same ids, and forbid the same ones."""
    def answer():
        torch.manual_seed(0)
        return record(model, processor, inputs, options, "", kwargs)

    generator = torch.Generator().manual_seed(0)
    expected = answer()
    if any(bool(tensor.isnan().any()) for tensor in expected.values()):
        return False  # infinities of both signs have met: Hugging Face's search and ours are both meaningless
    noisy = lambda _module, _args, output: output + NOISE * torch.randn(output.shape, generator=generator)  # noqa: E731
    hook = model.language_model.lm_head.register_forward_hook(noisy)
    try:
        again = answer()
    finally:
        hook.remove()
    return all(
        expected[key].shape == again[key].shape
        and torch.equal(*[(t if t.dtype == torch.int64 else t.isinf()) for t in (expected[key], again[key])])
        for key in expected
    )
