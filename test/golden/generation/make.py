"""Makes the goldens of decoding: what Hugging Face's generate() answers when the model is a table.

    python make.py            writes data/goldens.json.gz and data/stop_strings.json.gz

The table model's logits are last[id] + before[id] + position[n]: a sum of three rows of whole multiples of 1/4096 below
32, exact in f32 in any order, so that whoever replays it has the same bits. Everything else (processors, sampling
probabilities, beams, lengths, fillers, stopping) is Hugging Face's own. Not a test of ours: nothing here knows the
TypeScript side, which reads the kwargs as they are.

Seeds are fixed; the same versions give the same bytes. stop_strings needs the tokenizers of ../processor/data.
"""

import base64
import contextlib
import gzip
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
from transformers import GenerationConfig, GenerationMixin, PreTrainedConfig, PreTrainedModel
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


def generate(prompt, kwargs, encoder_decoder=False, ids=None, full=False):
    """One call and everything it returned. `full`: the scores and logits of every step too."""
    ids = {"bos_token_id": 1, "eos_token_id": EOS, "pad_token_id": PAD, **(ids or {})}
    model = model_of(encoder_decoder, **ids)
    given = dict(kwargs)
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
    config, _ = model._prepare_generation_config(None, **kwargs)
    config.max_length = 12
    if config.min_new_tokens is not None:
        config.min_length = config.min_new_tokens + prompt_length
    model._prepare_special_tokens(config, True, device="cpu", batch_size=2)
    processors = model._get_logits_processor(
        config, input_ids_seq_length=prompt_length, encoder_input_ids=torch.zeros(1, 1, 1), logits_processor=None
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
    write("goldens.json.gz", goldens)
    write("stop_strings.json.gz", strings)
    print(len(goldens["searches"]), "searches,", len(goldens["processors"]), "processors,", len(strings), "stop strings")


if __name__ == "__main__":
    main()
