"""Makes goldens of answers by the committed composites: guided ones, and what their first tokens are drawn by.

    python make.py            writes data/<name>.json

A guided call is kept if every choice has a margin: where two tokens are nearly as good, an honest f32 implementation may
take the other. Besides the tokens it has the scores of every step, which are what guidance made of the logits, for the
ids that matter: the best few of each row. Of draws there is the distribution alone, PyTorch's probability of every token
that a first draw may have. Not a test of ours: nothing here knows the TypeScript side.
"""

import json
import logging
import sys
import warnings
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
import weights  # noqa: E402

COMPOSITES = (HERE.parent / "data", HERE.parent / "siblings")
INPUTS = ("pixel_values", "qformer_input_ids", "qformer_attention_mask", "input_ids", "attention_mask")
BEST = 6  # scores kept of each row
MARGIN = 2e-3  # between the best and the second: guided scores differ by some multiples of what logits do
CERTAIN = {"do_sample": True, "top_k": 1}  # only one token to draw from
warnings.simplefilter("ignore")
transformers.logging.set_verbosity(logging.CRITICAL)


def negative(rows, *ids):
    """The same ids for every row."""
    return [list(ids)] * rows


# Without image_token_index generate() is the language model's on [features; text], whose rows have no prompt.
LEGACY = "legacy_llama"
# LLaMA of one prompt; of three, padded left, grouped heads; OPT, whose positions follow the mask.
GUIDED = {
    "plain_f32": [
        {"guidance_scale": 2.5},
        {"guidance_scale": 0.0},
        {"guidance_scale": -1.5},
        {"guidance_scale": 1.5, "negative_prompt_ids": negative(1, 5, 7, 9)},
        {"guidance_scale": 3.0, **CERTAIN, "num_return_sequences": 2},
        {"guidance_scale": 2.0, "negative_prompt_ids": "input_ids"},
        {"guidance_scale": 2.0, "repetition_penalty": 1.6, "no_repeat_ngram_size": 2, "watermarking_config": {"bias": 1.5}},
    ],
    "grouped_heads_bf16": [
        {"guidance_scale": 2.5},
        {"guidance_scale": 2.5, "use_cache": False},
        {"guidance_scale": 1.7, "negative_prompt_ids": [[5, 7, 9], [8, 7, 6], [1, 30, 31]]},
        {"guidance_scale": 1.7, "negative_prompt_ids": [[0, 7, 9], [8, 7, 6], [0, 0, 31]],
         "negative_prompt_attention_mask": [[0, 1, 1], [1, 1, 1], [0, 0, 1]]},
        {"guidance_scale": 1.7, "negative_prompt_ids": [[5, 7, 9, 3], [8, 7, 6, 3], [1, 30, 0, 0]],
         "negative_prompt_attention_mask": [[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 0, 0]]},
        {"guidance_scale": 1.4, **CERTAIN, "num_return_sequences": 2, "negative_prompt_ids": [[5], [6], [7], [8], [9], [10]]},
    ],
    "opt_plain": [
        {"guidance_scale": 2.5},
        {"guidance_scale": 1.7, "negative_prompt_ids": [[0, 7, 9], [8, 7, 6]],
         "negative_prompt_attention_mask": [[0, 1, 1], [1, 1, 1]]},
        {"guidance_scale": 1.7, "negative_prompt_ids": [[5, 7, 0], [8, 7, 6]],
         "negative_prompt_attention_mask": [[1, 1, 0], [1, 1, 1]]},
    ],
    LEGACY: [{"guidance_scale": 1.8, "negative_prompt_ids": [[5, 7], [8, 6]]}],
}  # fmt: skip
DRAWN = {
    "plain_f32": [
        {"temperature": 3.0},
        {"temperature": 2.5, "top_k": 40, "top_p": 0.9},
        {"temperature": 2.5, "top_k": 6},
        {"temperature": 3.5, "top_k": 0, "min_p": 0.02, "repetition_penalty": 1.3},
        {"guidance_scale": 1.4, "temperature": 3.0, "top_k": 20},
    ],
    "t5_flan": [{"temperature": 1.4, "top_k": 30, "top_p": 0.97}, {"top_k": 0, "typical_p": 0.9, "temperature": 1.6}],
}


@torch.no_grad()
def load(name):
    """A committed composite's model and what its processor gave."""
    folder = next(parent / name for parent in COMPOSITES if (parent / name).exists())
    with weights.whole(folder) as checkpoint:
        model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="eager")
    model.eval()
    stored = load_file(folder / "golden.safetensors")
    first = json.loads((folder / "golden.json").read_text())["same_as"]
    inputs = {key: stored[first.get(key, key)] for key in INPUTS}
    if name != LEGACY:
        return model, inputs
    ids, mask = inputs.pop("input_ids"), inputs.pop("attention_mask")
    features = model.get_image_features(**inputs).pooler_output
    embeds = torch.cat([features, model.get_input_embeddings()(ids)], 1)
    mask = torch.cat([torch.ones(features.shape[:2], dtype=mask.dtype), mask], 1)
    return model.language_model, {"inputs_embeds": embeds, "attention_mask": mask}


def ready(kwargs, inputs):
    """What generate() takes, of what JSON has."""
    given = dict(kwargs)
    if given.get("negative_prompt_ids") == "input_ids":
        given["negative_prompt_ids"] = inputs["input_ids"].tolist()
    for name in ("negative_prompt_ids", "negative_prompt_attention_mask"):
        if name in given:
            given[name] = torch.tensor(given[name])
    if "watermarking_config" in given:
        given["watermarking_config"] = transformers.WatermarkingConfig(**given["watermarking_config"])
    return given


@torch.no_grad()
def answer(model, inputs, kwargs):
    """One call."""
    # Without an end every row is as long as the others, and every choice counts.
    ending = {"eos_token_id": None, "max_new_tokens": 8, "output_scores": True, "return_dict_in_generate": True}
    out = model.generate(**inputs, **ready(kwargs, inputs), **ending)
    best = [scores.topk(BEST) for scores in out.scores]
    finite = [step.values[:, 1] for step in best if torch.isfinite(step.values[:, 1]).all()]
    margin = min(float((step.values[:, 0] - step.values[:, 1]).min()) for step in best)
    assert margin > MARGIN, (kwargs, margin)
    call = {"kwargs": kwargs, "sequences": out.sequences.tolist()}
    if finite:  # draws from a single token leave nothing else to compare
        call["best_ids"] = [step.indices.tolist() for step in best]
        call["best_scores"] = [[[round(x, 6) for x in row] for row in step.values.tolist()] for step in best]
    return call


@torch.no_grad()
def distribution(model, inputs, kwargs):
    """What the first tokens of a call are drawn by: [id, probability] of those that may come, for every prompt."""
    asked = {"do_sample": True, "max_new_tokens": 1, "output_scores": True, "return_dict_in_generate": True}
    scores = model.generate(**inputs, **kwargs, **asked).scores[0]
    probabilities = scores.softmax(-1)
    rows = [[[i, round(float(row[i]), 9)] for i in row.nonzero()[:, 0].tolist()] for row in probabilities]
    return {"kwargs": kwargs, "probabilities": rows}


if __name__ == "__main__":
    for name in GUIDED | DRAWN:
        torch.manual_seed(0)
        model, inputs = load(name)
        made = {
            "guided": [answer(model, inputs, kwargs) for kwargs in GUIDED.get(name, [])],
            "drawn": [distribution(model, inputs, kwargs) for kwargs in DRAWN.get(name, [])],
        }
        text = json.dumps(made, separators=(",", ":"))
        (HERE / "data" / f"{name}.json").write_text(text + "\n")
        print(name, len(made["guided"]), "guided,", len(made["drawn"]), "drawn,", len(text), "bytes")
