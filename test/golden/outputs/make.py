"""Makes goldens of what a model gives besides logits: states, attention maps, losses, of forward() and of generate().

    python make.py [NAME …]      (default: all; test/golden/requirements.txt says with what)

The models and inputs are those of ../data and ../siblings, as committed. Each NAME.safetensors has what Hugging Face's own classes give
for one of them, eager attention, f32: of the composite, and where its forward() does not pass the request on, of its
parts. Layers are numbered, steps of generate() too: `greedy.hidden_states.1.0` is step 1, layer 0.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

HERE = Path(__file__).parent
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
SHORT_LABELS = 3
ASKED = {"output_hidden_states": True, "output_attentions": True}


def load(name):
    """A committed golden's model and what its processor gave."""
    folder = next(parent / name for parent in FOLDERS if (parent / name).exists())
    model = AutoModelForImageTextToText.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
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


def numbered(name, layers):
    """A tuple of tensors by number; a tuple of tuples by two."""
    found = {}
    for i, layer in enumerate(layers):
        found |= numbered(f"{name}.{i}", layer) if isinstance(layer, tuple) else {f"{name}.{i}": layer}
    return found


def states_of(part, output):
    """Everything that an output class holds layer by layer, and its plain tensors."""
    found = {}
    for name, value in output.items():
        if isinstance(value, tuple):
            found |= numbered(f"{part}.{name}", value)
        elif isinstance(value, torch.Tensor):
            found[f"{part}.{name}"] = value
    return found


def record_parts(model, inputs):
    """The vision encoder and the Q-Former on their own: the composite's forward() asks neither for more than its end."""
    vision = model.vision_model(inputs["pixel_values"], **ASKED)
    tensors = states_of("vision_outputs", vision)
    queries = model.query_tokens.expand(len(inputs["input_ids"]), -1, -1)
    text = {}
    if "qformer_input_ids" in inputs:
        mask = torch.cat([torch.ones(queries.shape[:2], dtype=torch.long), inputs["qformer_attention_mask"]], 1)
        text = {"input_ids": inputs["qformer_input_ids"], "attention_mask": mask}
    qformer = model.qformer(
        query_embeds=queries, encoder_hidden_states=vision.last_hidden_state, **text, **ASKED
    )
    # Version 5.18 mixes the cross-attentions into `attentions`: those among queries and words are the others.
    mixed, tokens = qformer.attentions, qformer.last_hidden_state.shape[1]
    qformer.attentions = tuple(m for m in mixed if m.shape[-1] == tokens)
    assert len(qformer.attentions) == model.config.qformer_config.num_hidden_layers
    assert len(qformer.attentions) + len(qformer.cross_attentions) == len(mixed)
    return tensors | states_of("qformer_outputs", qformer)


@torch.no_grad()
def make(name):
    """Writes one golden."""
    model, inputs, stored = load(name)
    labels = labels_of(model, inputs, stored)
    output = model(**inputs, labels=labels, **ASKED, use_cache=False)
    tensors = {"labels": labels, "loss": output.loss.reshape(1)}
    tensors |= states_of("language_model_outputs", output.language_model_outputs)
    tensors.pop("language_model_outputs.loss", None)
    tensors.pop("language_model_outputs.logits")  # ../data has them, and those of other decoder inputs
    if not model.config.text_config.is_encoder_decoder:
        # As BLIP-2's forward() has it.
        last = labels[:, -SHORT_LABELS:]
        vocab = model.config.text_config.vocab_size
        logits = output.logits[:, -SHORT_LABELS:].contiguous()  # without which its view fails in batches
        loss = model.loss_function(logits=logits, labels=last, vocab_size=vocab)
        tensors["loss_of_last"] = loss.reshape(1)
    tensors |= record_parts(model, inputs)
    for call in NAMES[name]:
        result = model.generate(**inputs, **CALLS[call], **ASKED, return_dict_in_generate=True)
        tensors |= states_of(call, result)
    tensors = {key: tensor.contiguous().clone() for key, tensor in tensors.items()}
    save_file(tensors, HERE / f"{name}.safetensors")
    size = (HERE / f"{name}.safetensors").stat().st_size
    print(f"{name}: {len(tensors)} tensors, {size / 1000:.0f} kB", file=sys.stderr)


if __name__ == "__main__":
    for name in sys.argv[1:] or NAMES:
        make(name)
