"""Makes goldens of what a model gives besides logits: states, attention maps, losses, of forward() and of generate().

    python make.py [NAME …]      (default: all; test/golden/requirements.txt says with what)

The models and inputs are those of ../data and ../siblings, as committed. Each NAME.safetensors.gz has what ../states.py
records of one of them, in f32.
"""

import gzip
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from transformers import AutoModelForImageTextToText

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
import states  # noqa: E402
import weights  # noqa: E402

FOLDERS = (HERE.parent / "data", HERE.parent / "siblings")
CALLS = {
    "greedy": {"max_new_tokens": 3},
    "beams": {"max_new_tokens": 3, "num_beams": 2},
    # The only token that top_k leaves is the likeliest: what is drawn does not depend on the generator.
    "samples": {"max_new_tokens": 2, "do_sample": True, "top_k": 1, "num_return_sequences": 2},
}
# The three language models, in batches; OPT-350M's form, whose last state has another width than the others.
NAMES = {
    "grouped_heads_bf16": ("greedy", "beams"),
    "t5_flan": ("greedy", "beams", "samples"),
    "opt_plain": ("greedy", "beams", "samples"),
    "opt_post_norm_f16": (),
    # No text in the Q-Former.
    "blip2_opt": (),
}


def load(name):
    """A committed golden's model and what its processor gave."""
    folder = next(parent / name for parent in FOLDERS if (parent / name).exists())
    with weights.whole(folder) as checkpoint:
        model = AutoModelForImageTextToText.from_pretrained(
            checkpoint, dtype=torch.float32, attn_implementation="eager"
        ).eval()
    about = json.loads((folder / "golden.json").read_text())
    stored = load_file(folder / "golden.safetensors")
    stored |= {key: stored[first] for key, first in about["same_as"].items()}
    names = ("pixel_values", "qformer_input_ids", "qformer_attention_mask", "input_ids", "attention_mask")
    return model, {key: stored[key] for key in names if key in stored}, stored


def labels_of(model, inputs, stored):
    """Labels with places that do not count: the image, the padding, a prompt's beginning; of a T5 an answer's end."""
    if model.config.text_config.is_encoder_decoder:
        labels = stored["greedy.sequences"][:, 1:7].clone()
        labels[1, 4:] = -100
        return labels
    labels = inputs["input_ids"].clone()
    labels[inputs["attention_mask"] == 0] = -100
    labels[labels == model.config.image_token_id] = -100
    labels[0, :-3] = -100
    return labels


@torch.no_grad()
def make(name):
    """Writes one golden."""
    model, inputs, stored = load(name)
    tensors = states.record_forward(model, inputs, {}, labels_of(model, inputs, stored))
    for call in NAMES[name]:
        tensors |= states.record_generate(model, inputs, {}, call, CALLS[call])
    packed = gzip.compress(save(states.contiguous(tensors)), mtime=0)
    (HERE / f"{name}.safetensors.gz").write_bytes(packed)
    size = len(packed)
    print(f"{name}: {len(tensors)} tensors, {size / 1000:.0f} kB", file=sys.stderr)


if __name__ == "__main__":
    for name in sys.argv[1:] or NAMES:
        make(name)
