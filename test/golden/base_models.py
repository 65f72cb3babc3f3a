"""What Hugging Face's models without generation give: Blip2Model, InstructBlipModel, InstructBlipVideoModel.

`python base_models.py` writes base_models.safetensors, tensors `golden:name` of the committed goldens below; live parity
(make.py) records the same of what it draws.
"""

import re
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import Blip2Model, InstructBlipModel, InstructBlipVideoModel

import composites
import weights

BASES = {"blip-2": Blip2Model, "instructblip": InstructBlipModel, "instructblipvideo": InstructBlipVideoModel}
GOLDENS = (
    "data/grouped_heads_bf16", "data/opt_post_norm_f16", "data/t5_odd_f16", "siblings/video_3_frames_t5",
    "siblings/blip2_opt", "siblings/blip2_t5_f16", "siblings/blip2_llama_wide",
)  # fmt: skip


@torch.no_grad()
def base_of(model):
    """The base model with the weights of a model that generates. from_pretrained() does not find LLaMA's and OPT's under
    their names, and draws others."""
    base = BASES[model.config.model_type]._from_config(model.config, attn_implementation="eager").eval()
    if isinstance(base, Blip2Model):
        for name in ("vision_model", "query_tokens", "qformer", "language_projection", "language_model"):
            setattr(base, name, getattr(model, name))  # a head that is not tied stays so
        return base
    base.load_state_dict({
        re.sub(r"^language_model\.model\.", "language_model.", name): tensor
        for name, tensor in model.state_dict().items() if not name.startswith("language_model.lm_head.")
    })  # fmt: skip
    return base


@torch.no_grad()
def record(base, inputs, options, start):
    """What a base model gives for a processor's output, as tensors by name. `start`: decoder_input_ids, of T5."""
    tensors = {}
    if composites.placeholder_of(base) is not None:  # without placeholders version 5.18 finds no place for features
        asked = {} if isinstance(base, Blip2Model) else {"output_hidden_states": True}
        output = base(**inputs, **options, **start, **asked, use_cache=False)
        if isinstance(base, Blip2Model):
            tensors["logits"] = output.logits
        else:
            found = output.language_model_outputs
            for name in ("last_hidden_state", "encoder_last_hidden_state"):
                if found.get(name) is not None:
                    tensors[name] = found[name]
            states = found.get("decoder_hidden_states") or found.hidden_states
            assert states[-1] is found.last_hidden_state or torch.equal(states[-1], found.last_hidden_state)
            tensors["first_hidden_state"] = states[0]
    if isinstance(base, Blip2Model):
        text = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        features = base.get_text_features(**text, output_hidden_states=True)
        tensors["text"], tensors["text.hidden_states.0"] = features.last_hidden_state, features.hidden_states[0]
        pixels = {"pixel_values": inputs["pixel_values"], **options}
        tensors["image.pooler_output"] = base.get_image_features(**pixels).pooler_output
        tensors["qformer"] = base.get_qformer_features(**pixels)
    return tensors


def stored_inputs(folder):
    """The processor's output and decoder_input_ids of a committed golden, and what its forward() is given besides."""
    about, stored = composites.json.loads((folder / "golden.json").read_text()), load_file(folder / "golden.safetensors")
    names = ["pixel_values", "qformer_input_ids", "qformer_attention_mask", "input_ids", "attention_mask"]
    get = {name: stored[about["same_as"].get(name, name)] for name in [*names, "decoder_input_ids"]
           if about["same_as"].get(name, name) in stored}  # fmt: skip
    start = {name: get.pop(name) for name in ["decoder_input_ids"] if name in get}
    return get, about.get("options", {}), start


def main():
    here, tensors = Path(__file__).parent, {}
    for place in GOLDENS:
        folder = here / place
        inputs, options, start = stored_inputs(folder)
        with weights.whole(folder) as whole:
            model_type = composites.json.loads((folder / "config.json").read_text())["model_type"]
            model = composites.MODELS[model_type].MODEL.from_pretrained(whole, dtype=torch.float32, attn_implementation="eager")
        base = base_of(model.eval())
        with tempfile.TemporaryDirectory() as scratch:  # what it saves is what it is
            base.save_pretrained(scratch)
            again = type(base).from_pretrained(scratch, attn_implementation="eager").eval()
        found = record(again, inputs, options, start)
        for name, tensor in found.items():  # of the last row every fourth token, or the last: all goldens have a limit
            if not name.endswith(("first_hidden_state", "hidden_states.0")):
                part = tensor[-1:, -1:] if name == "logits" else tensor[-1:, ::4] if tensor.dim() == 3 else tensor[-1:]
                tensors[f"{folder.name}:{name}"] = part.contiguous()
    save_file(tensors, here / "base_models.safetensors")
    print({name: tuple(tensor.shape) for name, tensor in tensors.items()})


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
