"""Traces one forward() of transformers' InstructBLIP, InstructBLIP-Video or BLIP-2 into a file for `instructblip compare`.

    python scripts/trace_pytorch.py --model vicuna-7b --image cat.jpg --prompt "What is this?" --out torch.safetensors
    instructblip compare torch.safetensors default --model vicuna-7b --image cat.jpg --prompt "What is this?"

Needs torch, transformers, safetensors and Pillow. The file has what `instructblip trace --all` writes: every module's output
under its path (a second run as PATH#2), what products, norms and layers are given where no module returned it as
input:PATH, the inputs and the results; order and inputs as metadata.
"""

import argparse
import hashlib
import json
import os
import sys

import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import AutoModelForImageTextToText, AutoProcessor

RESULTS = ("vision_outputs.last_hidden_state", "qformer_outputs.last_hidden_state", "logits")
# What instructblip records the input of, by class: the others' inputs are noted, not stored.
STORED_INPUTS = ("Linear", "LayerNorm", "RMSNorm", "T5LayerNorm", "Layer", "T5Block")


def tensor_of(output):
    """The tensor that stands for a module's output: itself, a tuple's first, .logits or .last_hidden_state; else None."""
    if isinstance(output, torch.Tensor):
        return output
    for name in ("logits", "last_hidden_state"):
        if getattr(output, name, None) is not None:
            return getattr(output, name)
    return tensor_of(output[0]) if isinstance(output, (tuple, list)) and output else None


def plain_of(tensor):
    """A copy in memory of its own: f64 and whole numbers as they are, other floats in f32."""
    plain = tensor.detach().cpu()
    if plain.is_floating_point() and plain.dtype != torch.float64:
        plain = plain.float()
    return plain.contiguous().clone()


def digest(plain):
    return hashlib.sha256(plain.view(torch.uint8).numpy().data).digest(), plain.shape[-1:]


class Trace:
    """The tensors of a pass in the order in which they were computed, and what each module was given."""

    def __init__(self):
        self.tensors, self.inputs, self.runs = {}, {}, {}
        self.names = {}  # id of a tensor -> the tensor, which keeps the id its own, and its name
        self.equal = {}  # hash of its numbers -> name: what was copied or cast is no new tensor

    def add(self, name, tensor):
        plain = plain_of(tensor)
        self.names[id(tensor)] = (tensor, name)
        self.equal[digest(plain)] = name
        self.tensors[name] = plain

    def name_of(self, path):
        run = self.runs.get(path, 0) + 1
        return path if run == 1 else f"{path}#{run}"

    def before(self, path):
        def hook(module, args, kwargs):
            given = next((x for x in (*args, *kwargs.values()) if isinstance(x, torch.Tensor) and x.is_floating_point()), None)
            if given is None:
                return
            name = self.name_of(path)
            if id(given) in self.names:
                self.inputs[name] = self.names[id(given)][1]
            elif (source := self.equal.get(digest(plain_of(given)))) is not None:
                self.inputs[name] = source
            elif type(module).__name__.endswith(STORED_INPUTS):
                self.inputs[name] = f"input:{name}"
                self.add(f"input:{name}", given)

        return hook

    def after(self, path):
        def hook(_module, _args, output):
            tensor = tensor_of(output)
            name = self.name_of(path)
            self.runs[path] = self.runs.get(path, 0) + 1
            if tensor is not None:
                self.add(name, tensor)

        return hook


@torch.no_grad()
def trace(model, inputs):
    """The trace of model(**inputs)."""
    found = Trace()
    for name, tensor in inputs.items():
        found.add(name, tensor)
    hooks = []
    for path, module in model.named_modules():
        if path and not isinstance(module, (torch.nn.Dropout, torch.nn.ModuleList)):
            hooks.append(module.register_forward_pre_hook(found.before(path), with_kwargs=True))
            hooks.append(module.register_forward_hook(found.after(path)))
    try:
        output = model(**inputs, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    for name in RESULTS:
        value = output
        for part in name.split("."):
            value = getattr(value, part)
        found.add(name, value)
        if name.startswith("qformer") and "language_projection" in found.tensors:
            found.tensors["image_features"] = found.tensors["language_projection"].clone()
    return found


def save(found, path):
    """Writes all at once or not at all."""
    metadata = {"format": "pt", "trace.order": json.dumps(list(found.tensors)), "trace.inputs": json.dumps(found.inputs)}
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        save_file(found.tensors, temporary, metadata)
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True, help="folder of a checkpoint, or owner/name on the Hub")
    parser.add_argument("--image", required=True, nargs="+", help="an image; of a video its frames")
    parser.add_argument("--prompt", required=True, help="the question or instruction")
    parser.add_argument("--out", required=True, help="the .safetensors file to write")
    parser.add_argument("--dtype", default="float32", choices=("float32", "float64", "float16", "bfloat16"))
    parser.add_argument("--device", default="cpu", help="cpu, cuda, mps")
    parser.add_argument("--decoder-input-ids", help="T5: input ids of the decoder, 0,5,7 (default: its start token)")
    options = parser.parse_args()
    dtype = getattr(torch, options.dtype)
    model = AutoModelForImageTextToText.from_pretrained(options.model, dtype=dtype, attn_implementation="eager")
    model = model.eval().to(options.device)
    processor = AutoProcessor.from_pretrained(options.model, backend="pil")
    images = [Image.open(name).convert("RGB") for name in options.image]
    inputs = dict(processor(images=images if len(images) > 1 else images[0], text=options.prompt, return_tensors="pt"))
    if getattr(model.config, f"{'video' if 'video' in model.config.model_type else 'image'}_token_index", None) is None:
        parser.error("the config has no image_token_index: transformers' forward() needs it (this project's does not)")
    config = model.config.text_config
    if config.is_encoder_decoder:
        ids = options.decoder_input_ids
        ids = [config.decoder_start_token_id] if ids is None else [int(i) for i in ids.split(",")]
        inputs["decoder_input_ids"] = torch.tensor([ids])
    elif options.decoder_input_ids is not None:
        parser.error("--decoder-input-ids is for language models with a decoder of their own")
    inputs = {name: (x.to(dtype) if x.is_floating_point() else x).to(options.device) for name, x in inputs.items()}
    found = trace(model, inputs)
    save(found, options.out)
    print(f"{options.out}: {len(found.tensors)} tensors", file=sys.stderr)


if __name__ == "__main__":
    main()
