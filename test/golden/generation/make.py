"""Makes the goldens of decoding: what Hugging Face's generate() answers when the model is a table.

    python make.py            writes data/*.json.gz and data/generation_config.json

The table model's logits are last[id] + before[id] + position[n]: a sum of three rows of whole multiples of 1/4096 below
32, exact in f32 in any order, so that whoever replays it has the same bits. Everything else (processors, sampling
probabilities, beams, lengths, fillers, stopping) is Hugging Face's own. Not a test of ours: nothing here knows the
TypeScript side, which reads the kwargs as they are.

Seeds are fixed; the same versions give the same bytes. stop_strings needs the tokenizers of ../processor/data.
"""

import base64
import contextlib
import gzip
import inspect
import io
import itertools
import json
import logging
import random
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import (
    GenerationConfig,
    GenerationMixin,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedConfig,
    PreTrainedModel,
    StoppingCriteria,
    StoppingCriteriaList,
    SynthIDTextWatermarkingConfig,
    WatermarkDetector,
    WatermarkingConfig,
)
from transformers.modeling_outputs import BaseModelOutput, CausalLMOutput, Seq2SeqLMOutput

HERE = Path(__file__).parent
DATA = HERE / "data"
V = 48
POSITIONS = 7
EOS, PAD = 2, 0
SEED = 20
warnings.simplefilter("ignore")
transformers.logging.set_verbosity(logging.CRITICAL)


def table():
    """i16 parts of the logits: [V, V] by the last id, [V, V] by the one before it, [POSITIONS, V] by position."""
    draw = np.random.default_rng(SEED)
    parts = {
        "last": draw.normal(0, 1.6, (V, V)),
        "before": draw.normal(0, 0.8, (V, V)),
        "position": draw.normal(0, 0.8, (POSITIONS, V)),
    }
    parts["last"][:, EOS] += 1.5  # sequences end, but not all and not at once
    return {name: np.clip(np.round(part * 4096), -32000, 32000).astype(np.int16) for name, part in parts.items()}


TABLE = table()


class TableConfig(PreTrainedConfig):
    model_type = "table"

    def __init__(self, **kwargs):
        self.vocab_size = V
        self.num_hidden_layers = 1
        self.max_position_embeddings = 64
        super().__init__(**kwargs)


class TableModel(PreTrainedModel, GenerationMixin):
    config_class = TableConfig
    main_input_name = "input_ids"

    def __init__(self, config):
        super().__init__(config)
        self.unused = torch.nn.Parameter(torch.zeros(1))
        self.parts = {name: torch.tensor(part.astype(np.float32) / 4096) for name, part in TABLE.items()}
        self.post_init()

    def logits(self, ids):
        """f32[R, 1, V] after rows of ids; the id before the first is id 0."""
        before = ids[:, -2] if ids.shape[1] > 1 else torch.zeros_like(ids[:, -1])
        position = self.parts["position"][(ids.shape[1] - 1) % POSITIONS]
        return (self.parts["last"][ids[:, -1]] + self.parts["before"][before] + position)[:, None]

    def prepare_inputs_for_generation(self, input_ids, **kwargs):
        return {"input_ids": input_ids}

    def forward(self, input_ids=None, attention_mask=None, **kwargs):
        return CausalLMOutput(logits=self.logits(input_ids))


class NoEncoder(torch.nn.Module):
    def forward(self, input_ids=None, attention_mask=None, **kwargs):
        return BaseModelOutput(last_hidden_state=torch.zeros(len(input_ids), 1, 1))


class TableEncoderDecoder(TableModel):
    """The table follows the decoder's ids alone."""

    def get_encoder(self, *args, **kwargs):
        return NoEncoder()

    def prepare_inputs_for_generation(self, input_ids, encoder_outputs=None, **kwargs):
        return {"input_ids": input_ids, "encoder_outputs": encoder_outputs}

    def forward(self, input_ids=None, attention_mask=None, encoder_outputs=None, **kwargs):
        return Seq2SeqLMOutput(logits=self.logits(input_ids))


def model_of(encoder_decoder, **ids):
    config = TableConfig(is_encoder_decoder=encoder_decoder, **ids)
    return (TableEncoderDecoder if encoder_decoder else TableModel)(config).eval()


def pack(array):
    return base64.b64encode(np.ascontiguousarray(array, dtype="<f4").tobytes()).decode()


def prompts(draw, batch, length):
    """Rows of ids without special ones."""
    return [[draw.randrange(3, V) for _ in range(length)] for _ in range(batch)]


# ---------------------------------------------------------------------------------------------------------------------
# generate()


class EveryThird(LogitsProcessor):
    """A caller's own: which ids are favoured depends on the row's length and last id."""

    def __call__(self, input_ids, scores):
        at = torch.arange(V) + input_ids.shape[1] + input_ids[:, -1:]
        return torch.where(at % 3 == 0, scores + 1.5, scores)


class SumOfTwo(StoppingCriteria):
    """A caller's own: the last two ids add up to a multiple of 5."""

    def __call__(self, input_ids, scores, **kwargs):
        return input_ids[:, -2:].sum(-1) % 5 == 0


# What JSON has a name for, by that name.
CUSTOM = {"every_third": EveryThird, "sum_of_two": SumOfTwo}


def as_objects(kwargs):
    """Arguments of generate() from what JSON can hold."""
    given = dict(kwargs)
    for name, kind in {"logits_processor": LogitsProcessorList, "stopping_criteria": StoppingCriteriaList}.items():
        if name in given:
            given[name] = kind([CUSTOM[one]() for one in given[name]])
    for name in ("negative_prompt_ids", "negative_prompt_attention_mask"):
        if name in given:
            given[name] = torch.tensor(given[name])
    if "watermarking_config" in given:
        fields = given["watermarking_config"]
        given["watermarking_config"] = (SynthIDTextWatermarkingConfig if "keys" in fields else WatermarkingConfig)(**fields)
    return given


def generate(prompt, kwargs, encoder_decoder=False, ids=None, full=False):
    """One call and everything it returned. `full`: the scores and logits of every step too."""
    ids = {"bos_token_id": 1, "eos_token_id": EOS, "pad_token_id": PAD, **(ids or {})}
    model = model_of(encoder_decoder, **ids)
    given = as_objects(kwargs)
    if encoder_decoder:
        given["decoder_start_token_id"] = ids["decoder_start_token_id"]
    more = {"output_scores": True, "output_logits": True, "return_dict_in_generate": True, "use_cache": False}
    with torch.no_grad():
        out = model.generate(torch.tensor(prompt), attention_mask=torch.ones(len(prompt), len(prompt[0])), **given, **more)
    case = {"prompt": prompt, "kwargs": kwargs, "sequences": out.sequences.tolist(), "ids": ids}
    if encoder_decoder:
        case["encoder_decoder"] = True
        case["prompt"] = [[ids["decoder_start_token_id"]]] * len(prompt)
    if out.get("sequences_scores") is not None:
        case["sequences_scores"] = [float(x) for x in out.sequences_scores]
        case["beam_indices"] = out.beam_indices.tolist()
    if full:
        case["scores"] = pack(torch.stack(out.scores))
        case["logits"] = pack(torch.stack(out.logits))
    return case


def the_144():
    """The configurations by which beam search is judged: batch 2, 2 returned sequences."""
    draw = random.Random(SEED)
    cases = []
    axes = [[1.0, 0.0, -1.0, 2.0], [False, True, "never"], [1.0, 1.5, 2.5], [0, 2], [0, 9]]
    for length_penalty, early, repetition, ngram, least in itertools.product(*axes):
        kwargs = {
            "num_beams": 4,
            "num_return_sequences": 2,
            "max_new_tokens": 10,
            "length_penalty": length_penalty,
            "early_stopping": early,
            "repetition_penalty": repetition,
            "no_repeat_ngram_size": ngram,
            "min_length": least,
        }
        cases.append(generate(prompts(draw, 2, 4), kwargs))
    assert len(cases) == 144
    return cases


# Each processor alone, with arguments that make it act on these tables.
PROCESSORS = {
    "sequence_bias": [[[7], -3.5], [[9, 4], 6.25], [[11], 2.0], [[3, 5, 4], 1.5], [[7], 1.25]],
    "repetition_penalty": 1.7,
    "no_repeat_ngram_size": 2,
    "bad_words_ids": [[5], [6, 8], [4, 9, 10], [EOS]],
    "min_length": 9,
    "min_new_tokens": 4,
    "forced_bos_token_id": 12,
    "forced_eos_token_id": EOS,
    "remove_invalid_values": True,
    "exponential_decay_length_penalty": [1, 1.3],
    "suppress_tokens": [EOS, 9, 17],
    "begin_suppress_tokens": [EOS, 21],
    "renormalize_logits": True,
}
WARPERS = {
    "temperature": 0.7,
    "top_h": 0.5,
    "top_k": 6,
    "top_p": 0.8,
    "min_p": 0.15,
    "typical_p": 0.6,
    "epsilon_cutoff": 0.03,
    "eta_cutoff": 0.2,
}


# What may be combined with exponential_decay_length_penalty: it turns a forbidden eos (-inf) into NaN, and then Hugging
# Face's search and ours are both meaningless.
FINITE = {"sequence_bias", "repetition_penalty", "renormalize_logits"}


def sensible(kwargs):
    """Without the processors that contradict others."""
    kwargs = dict(kwargs)
    if "exponential_decay_length_penalty" in kwargs:
        for name in PROCESSORS.keys() - FINITE - {"exponential_decay_length_penalty"}:
            kwargs.pop(name, None)
    if "forced_eos_token_id" in kwargs:
        kwargs.pop("suppress_tokens", None)
    return kwargs


def searches():
    """Lengths, fillers, eos lists, 1 to 6 beams, encoder-decoders and each processor alone, then 200 combinations."""
    draw = random.Random(SEED + 1)
    cases = []

    def add(batch, length, kwargs, **more):
        cases.append(generate(prompts(draw, batch, length), kwargs, **more))

    for beams in range(1, 7):
        add(2, 4, {"num_beams": beams, "max_new_tokens": 9}, full=beams < 3)
        add(3, 3, {"num_beams": beams, "max_length": 11, "num_return_sequences": beams, "length_penalty": 0.6} if beams > 1
            else {"max_length": 11})
    for kwargs in [{}, {"min_length": 12}, {"min_new_tokens": 5}, {"min_length": 20, "min_new_tokens": 2, "max_length": 22}]:
        for beams in (1, 3):
            add(2, 5, {"num_beams": beams, **kwargs})
            add(2, 1, {"num_beams": beams, **kwargs}, encoder_decoder=True, ids={"decoder_start_token_id": 0})
    add(1, 50, {})  # the default maximum stops at max_position_embeddings
    add(1, 50, {"max_new_tokens": 20})
    for eos in ([2, 5, 9], 7, None, [3, 4, 5, 6]):
        for beams in (1, 2, 4):
            add(2, 4, {"num_beams": beams, "max_new_tokens": 8, "eos_token_id": eos})
    for pad in (0, 1, 13, None):  # who is filled with what
        for beams in (1, 3):
            for encoder_decoder in (False, True):
                ids = {"pad_token_id": pad, "decoder_start_token_id": 0}
                kwargs = {"num_beams": beams, "max_length": 12, "num_return_sequences": beams}
                if encoder_decoder:
                    add(3, 2, kwargs, encoder_decoder=True, ids=ids)
                else:
                    add(3, 2, kwargs, ids={"pad_token_id": pad})
    for name, value in PROCESSORS.items():
        for beams in (1, 3):
            full = beams == 1
            add(2, 4, {"num_beams": beams, "max_new_tokens": 8, name: value}, full=full)
            add(2, 4, {"num_beams": beams, "max_new_tokens": 8, name: value}, encoder_decoder=True,
                ids={"decoder_start_token_id": 0})  # fmt: skip
    # A forced first token moves what "first" means for begin_suppress_tokens, with one prompt token and no more.
    first = {"forced_bos_token_id": 12, "begin_suppress_tokens": list(range(3, 30)), "max_new_tokens": 6}
    for length in (1, 2):
        for beams in (1, 3):
            add(2, length, {"num_beams": beams, **first})
    # What "never" hopes for depends on the sign of the length penalty.
    for _ in range(24):
        length_penalty = draw.choice([-1.5, -0.7, -0.4, -0.2, 0.3, 1.2])
        add(1, 4, {"num_beams": draw.choice([2, 3]), "max_new_tokens": 24, "length_penalty": length_penalty,
                   "early_stopping": "never", "repetition_penalty": draw.choice([1.0, 1.4])})  # fmt: skip
    for _ in range(200):
        names = draw.sample(sorted(PROCESSORS), draw.randrange(0, 5))
        kwargs = sensible({name: PROCESSORS[name] for name in names})
        kwargs["num_beams"] = draw.choice([1, 1, 2, 3, 4, 5])
        kwargs["max_new_tokens"] = draw.randrange(3, 13)
        kwargs.pop("min_length", None)
        if kwargs.get("min_new_tokens", 0) > kwargs["max_new_tokens"]:
            kwargs.pop("min_new_tokens")
        if kwargs["num_beams"] > 1:
            kwargs["num_return_sequences"] = draw.randrange(1, kwargs["num_beams"] + 1)
            kwargs["length_penalty"] = draw.choice([-2.0, -0.5, 0.0, 0.7, 1.0, 1.9])
            kwargs["early_stopping"] = draw.choice([False, True, "never"])
        if draw.random() < 0.3:
            kwargs["eos_token_id"] = draw.choice([[2, 5, 9], [3, 4]])
        more = {"encoder_decoder": True, "ids": {"decoder_start_token_id": draw.choice([0, 3])}} if draw.random() < 0.3 else {}
        add(draw.randrange(1, 4), draw.randrange(1, 7), kwargs, **more)
    return cases


# ---------------------------------------------------------------------------------------------------------------------
# Processors on their own


def processed(draw, kwargs, invalid=False):
    """Rows of scores before and after the processors that generate() would build, and the probabilities then drawn by."""
    ids = {"bos_token_id": 1, "eos_token_id": EOS, "pad_token_id": PAD}
    model = model_of(False, **ids)
    beams = kwargs.get("num_beams", 1)
    prompt_length, length = (1, 1) if "forced_bos_token_id" in kwargs else (4, draw.choice([4, 6, 9, 11]))
    given = as_objects(kwargs)
    own = given.pop("logits_processor", None)
    config, _ = model._prepare_generation_config(None, **given)
    config.max_length = 12
    if config.min_new_tokens is not None:
        config.min_length = config.min_new_tokens + prompt_length
    model._prepare_special_tokens(config, True, device="cpu", batch_size=2)
    processors = model._get_logits_processor(
        config, input_ids_seq_length=prompt_length, encoder_input_ids=torch.zeros(1, 1, 1), logits_processor=own
    )
    rows = torch.tensor([[draw.choice([*range(3, 13), *range(3, V)]) for _ in range(length)] for _ in range(2 * beams)])
    scores = torch.tensor([[draw.gauss(0, 2.5) for _ in range(V)] for _ in range(2 * beams)])
    if invalid:
        scores[:, 4], scores[:, 5], scores[:, 6] = float("nan"), float("inf"), -float("inf")
    if beams > 1:
        scores = scores.log_softmax(-1)
    after = processors(rows, scores.clone())
    return {
        "kwargs": {**kwargs, "max_length": 12},
        "prompt_length": prompt_length,
        "rows": rows.tolist(),
        "scores": pack(scores),
        "after": pack(after),
        "probabilities": pack(after.softmax(-1)),
    }


def processors_alone():
    draw = random.Random(SEED + 2)
    cases = []
    everything = {**PROCESSORS, **WARPERS}
    for beams in (1, 2):
        for name, value in everything.items():
            kwargs = {name: value, "num_beams": beams, "do_sample": name in WARPERS, "top_k": 0}
            kwargs |= {name: value}
            cases.append(processed(draw, kwargs, invalid=name == "remove_invalid_values"))
    for _ in range(200):
        names = draw.sample(sorted(PROCESSORS), draw.randrange(0, 4)) + draw.sample(sorted(WARPERS), draw.randrange(1, 5))
        kwargs = {"top_k": 0, **{name: everything[name] for name in names}}
        kwargs = sensible(kwargs | {"do_sample": True, "num_beams": draw.choice([1, 1, 2])})
        for name, choices in {"temperature": [0.3, 0.7, 1.9], "top_p": [0.3, 0.8, 0.97], "typical_p": [0.2, 0.6, 0.95],
                              "min_p": [0.0, 0.02, 0.3], "top_k": [1, 5, 30, 100], "top_h": [0.2, 0.6, 1.0]}.items():  # fmt: skip
            if name in names:
                kwargs[name] = draw.choice(choices)
        cases.append(processed(draw, kwargs))
    return cases


# ---------------------------------------------------------------------------------------------------------------------
# Guidance, watermarks, callers' own processors and criteria

GREEN_LISTS = [
    {},
    {"bias": 3.5, "greenlist_ratio": 0.4, "hashing_key": 12345, "context_width": 3},
    {"seeding_scheme": "selfhash", "hashing_key": 987654321},
    {"seeding_scheme": "selfhash", "context_width": 2, "bias": 2.75, "greenlist_ratio": 0.6, "hashing_key": 15485864},
    {"seeding_scheme": "selfhash", "context_width": 4, "bias": -1.3, "greenlist_ratio": 0.5},
    {"hashing_key": -77, "bias": 1.1},
]
SYNTH_IDS = [
    {"ngram_len": 5, "keys": [654, 400, 836, 123, 340, 443, 597, 160, 57]},
    {"ngram_len": 2, "keys": [3, 2**40 + 1, -9], "sampling_table_seed": 5, "sampling_table_size": 1000, "context_history_size": 3},
    {"ngram_len": 4, "keys": [17, 29], "skip_first_ngram_calls": True},
    {"ngram_len": 3, "keys": [5, 6, 7, 8], "debug_mode": True},
    {"ngram_len": 1, "keys": [11]},
]


def marked_searches():
    """Each of them alone, by greedy search, draws that have one outcome, beams where Hugging Face has them; then mixed."""
    draw = random.Random(SEED + 4)
    cases = []
    certain = {"do_sample": True, "top_k": 1}

    def add(batch, length, kwargs, **more):
        cases.append(generate(prompts(draw, batch, length), {"max_new_tokens": 9, **kwargs}, **more))

    def guidance(rows):
        kwargs = {"guidance_scale": draw.choice([1.7, 3.0, 0.4, 0.0, -1.0, 2.25])}
        if draw.random() < 0.6:
            kwargs["negative_prompt_ids"] = prompts(draw, rows, draw.randrange(1, 5))
        return kwargs

    for scale in (1.5, 4.0, 0.0, -2.0, 1.0):
        add(2, 4, {"guidance_scale": scale}, full=True)
    add(2, 4, {"guidance_scale": 2.5, "negative_prompt_ids": prompts(draw, 2, 3)}, full=True)
    add(1, 4, {"guidance_scale": 2.5, "negative_prompt_ids": prompts(draw, 1, 6)})
    add(2, 3, {"guidance_scale": 2.5, **certain, "num_return_sequences": 3}, full=True)
    add(2, 3, {"guidance_scale": 2.5, **certain, "num_return_sequences": 2, "negative_prompt_ids": prompts(draw, 4, 2)})
    for fields in GREEN_LISTS:
        add(2, 4, {"watermarking_config": fields}, full=True)
        add(2, 2, {"watermarking_config": fields, "num_beams": 3, "num_return_sequences": 2})
        add(2, 1, {"watermarking_config": fields, "num_beams": draw.choice([1, 2])}, encoder_decoder=True,
            ids={"decoder_start_token_id": 0})  # fmt: skip
    for fields in SYNTH_IDS:
        add(2, 4, {"watermarking_config": fields, "eos_token_id": None, "max_new_tokens": 20}, full=True)
        if not fields.get("debug_mode"):  # which makes all tokens equally likely, whatever top_k has left
            add(2, 4, {"watermarking_config": fields, **certain, "num_return_sequences": 2})
    for beams in (1, 3):
        add(2, 4, {"logits_processor": ["every_third"], "num_beams": beams}, full=beams == 1)
        add(2, 4, {"stopping_criteria": ["sum_of_two"], "num_beams": beams, "eos_token_id": None})
        add(3, 4, {"stopping_criteria": ["sum_of_two"], "num_beams": beams, "pad_token_id": 1})
        add(2, 1, {"logits_processor": ["every_third"], "stopping_criteria": ["sum_of_two"], "num_beams": beams},
            encoder_decoder=True, ids={"decoder_start_token_id": 0})  # fmt: skip
    for _ in range(80):
        kwargs = sensible({name: PROCESSORS[name] for name in draw.sample(sorted(PROCESSORS), draw.randrange(0, 4))})
        kwargs.pop("min_length", None)
        batch = draw.randrange(1, 4)
        if draw.random() < 0.5:
            kwargs |= {"watermarking_config": draw.choice(GREEN_LISTS)}
        if draw.random() < 0.4:
            kwargs |= {"logits_processor": ["every_third"]}
        if draw.random() < 0.3:
            kwargs |= {"stopping_criteria": ["sum_of_two"]}
        search = draw.choice(["greedy", "greedy", "sample", "beams"])
        if search == "sample":
            kwargs |= {**certain, "num_return_sequences": draw.randrange(1, 4)}
        if search == "beams":
            kwargs |= {"num_beams": draw.randrange(2, 5), "early_stopping": draw.choice([False, True, "never"])}
        elif draw.random() < 0.7:
            kwargs |= guidance(batch * kwargs.get("num_return_sequences", 1))
        more = {}
        if "guidance_scale" not in kwargs and draw.random() < 0.2:
            more = {"encoder_decoder": True, "ids": {"decoder_start_token_id": 3}}
        add(batch, draw.randrange(1, 6), kwargs, **more)
    return cases


def marked_processors():
    """Watermarks and a caller's own among the others, sampling."""
    draw = random.Random(SEED + 5)
    everything = {**PROCESSORS, **WARPERS}
    cases = []
    for fields in GREEN_LISTS + SYNTH_IDS:
        for beams in (1, 2) if "keys" not in fields else (1,):
            cases.append(processed(draw, {"watermarking_config": fields, "num_beams": beams, "top_k": 0}))
    for _ in range(60):
        names = draw.sample(sorted(PROCESSORS), draw.randrange(0, 3)) + draw.sample(sorted(WARPERS), draw.randrange(0, 4))
        kwargs = {"top_k": 0, **{name: everything[name] for name in names}}
        kwargs = sensible(kwargs | {"do_sample": True, "num_beams": draw.choice([1, 1, 2])})
        if draw.random() < 0.7:
            kwargs["watermarking_config"] = draw.choice(GREEN_LISTS + (SYNTH_IDS if kwargs["num_beams"] == 1 else []))
        if draw.random() < 0.6 or "watermarking_config" not in kwargs:
            kwargs["logits_processor"] = ["every_third"]
        cases.append(processed(draw, kwargs))
    return cases


def detections(searches):
    """What WatermarkDetector says of rows that were marked, and of rows that were not."""
    draw = random.Random(SEED + 6)
    cases = []
    for fields in GREEN_LISTS:
        marked = [case for case in searches if case["kwargs"].get("watermarking_config") == fields]
        longest = max((case["sequences"] for case in marked), key=lambda rows: len(rows[0]))
        for encoder_decoder, ids in ((False, {"bos_token_id": 1}), (True, {"bos_token_id": 1, "decoder_start_token_id": 0})):
            first = 0 if encoder_decoder else 1
            config = TableConfig(is_encoder_decoder=encoder_decoder, **ids)
            detector = WatermarkDetector(config, "cpu", WatermarkingConfig(**fields))
            for rows in (longest, prompts(draw, 3, 40), [[first, *row] for row in prompts(draw, 2, 12)]):
                threshold = draw.choice([1.0, 3.0])
                found = detector(torch.tensor(rows), z_threshold=threshold, return_dict=True)
                found = {name: value.tolist() for name, value in vars(found).items()}
                cases.append({"config": fields, "ids": ids, "rows": rows, "z_threshold": threshold, "found": found})
    return cases


def random_numbers():
    """PyTorch's generator on the CPU."""
    cases = []
    for seed in (0, 1, 15485863, 2**32 + 5, 2**63 + 11, 2**64 - 2):
        made = lambda: torch.Generator().manual_seed(seed)  # noqa: E731
        many = torch.randperm(1_000_003, generator=made())
        cases.append({
            "seed": str(seed),
            "few": torch.randperm(13, generator=made()).tolist(),
            "one": torch.randperm(1, generator=made()).tolist(),
            "many": [*many[:20].tolist(), *many[-20:].tolist()],
            "bits": torch.randint(0, 2, (2000,), generator=made())[-40:].tolist(),
        })  # fmt: skip
    return cases


def options():
    """Every name that Hugging Face's generate() takes, and what a name is when it is not given."""
    signature = inspect.signature(GenerationMixin.generate).parameters
    return {
        "generation_config": sorted(vars(GenerationConfig())),
        "generate": [name for name in signature if name not in ("self", "kwargs")],
        "defaults": GenerationConfig._get_default_generation_params(),
    }


# ---------------------------------------------------------------------------------------------------------------------
# stop_strings


def stop_strings():
    """Which prefixes of random and of sensible rows of ids end with a stop string, by StopStringCriteria."""
    sys.path.insert(0, str(HERE.parent / "processor"))
    from tokenizers import Tokenizer  # noqa: F401  the fast tokenizers need it
    from transformers import PreTrainedTokenizerFast
    from transformers.generation.stopping_criteria import StopStringCriteria

    with gzip.open(HERE.parent / "processor" / "data" / "tokenizers.json.gz", "rt", encoding="utf8") as file:
        files = json.load(file)
    draw = random.Random(SEED + 3)
    texts = ["The answer is two dogs. Stop", "a dog\nand a cat, then: é日本 ok", "one two three one two three", "it's 12:30!"]
    wanted = ["dog", "dogs.", "\n", "é", "日本", "o t", "the", " two", ", th", "12:3", "swer is"]
    cases = []
    for name in ("llama", "t5", "opt"):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "tokenizer.json"
            path.write_text(json.dumps(files[name]["tokenizer.json"]))
            tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(path))
        known = sorted(tokenizer.get_vocab().values())
        rows = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        rows += [[draw.choice(known) for _ in range(12)] for _ in range(6)] + [[known[-1] + 3, *rows[0]]]
        for strings in [[one] for one in wanted] + [["cat", "dog"], ["zz", "three", "."]]:
            try:
                criterion = StopStringCriteria(tokenizer, strings)
            except ValueError:  # no token has any part of it
                continue
            hits = [[bool(criterion(torch.tensor([row[: n + 1]]), None)[0]) for n in range(len(row))] for row in rows]
            cases.append({"tokenizer": name, "strings": strings, "hits": ["".join("01"[hit] for hit in row) for row in hits]})
        cases.append({"tokenizer": name, "rows": rows})
    return cases


def write(name, value):
    DATA.mkdir(exist_ok=True)
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as file:
        file.write(json.dumps(value, separators=(",", ":")).encode())
    (DATA / name).write_bytes(buffer.getvalue())
    print(name, len(buffer.getvalue()), "bytes")


def main():
    with contextlib.redirect_stderr(io.StringIO()):
        torch.manual_seed(SEED)
        torch.set_num_threads(1)
        goldens = {
            "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
            "vocabulary": V,
            "positions": POSITIONS,
            "table": {name: base64.b64encode(part.astype("<i2").tobytes()).decode() for name, part in TABLE.items()},
            "beams_144": the_144(),
            "searches": searches(),
            "processors": processors_alone(),
        }
        strings = stop_strings()
        marked = marked_searches()
        more = {
            "searches": marked,
            "processors": marked_processors(),
            "detections": detections(marked),
            "random_numbers": random_numbers(),
        }
    write("goldens.json.gz", goldens)
    write("stop_strings.json.gz", strings)
    write("marked.json.gz", more)
    (DATA / "generation_config.json").write_text(json.dumps(options(), indent=1) + "\n")
    print(len(goldens["searches"]), "searches,", len(goldens["processors"]), "processors,", len(strings), "stop strings")


if __name__ == "__main__":
    main()
