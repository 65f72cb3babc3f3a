"""How far PyTorch's own float16 run of a golden is from its float64 run, module by module.

    python float16.py FOLDER …            prints {golden: {module: NMSE}} of whole golden folders, weights included

The weights are the file's in both, the inputs the golden's. `npm run quality:f16` holds ours against it.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors import safe_open

import composites
import make

INPUTS = ("pixel_values", "qformer_input_ids", "qformer_attention_mask", "input_ids", "attention_mask")


@torch.no_grad()
def run(folder, dtype):
    """Every module's output, by path."""
    golden = json.loads((folder / "golden.json").read_text())
    sibling = composites.MODELS[json.loads((folder / "config.json").read_text())["model_type"]]
    model = sibling.MODEL.from_pretrained(folder, dtype=dtype, attn_implementation="eager").eval()
    with safe_open(folder / "golden.safetensors", "pt") as file:
        read = lambda name: file.get_tensor(golden["same_as"].get(name, name))  # noqa: E731
        stored = {*file.keys(), *golden["same_as"]}
        inputs = {name: read(name) for name in INPUTS if name in stored}
        start = {name: read(name) for name in ("decoder_input_ids",) if name in stored}
    inputs["pixel_values"] = inputs["pixel_values"].to(dtype)
    tensors, order = make.record_forward(model, inputs, golden.get("options") or {}, **start)
    return {path: tensors[f"output:{path}"] for path in order}


def errors(folder):
    """{module: NMSE}"""
    exact, half = run(folder, torch.float64), run(folder, torch.float16)
    found = {}
    for path, output in exact.items():
        if path in half and output.is_floating_point():
            missing = half[path].double() - output
            found[path] = float(f"{float(missing.pow(2).sum() / output.pow(2).sum().clamp_min(1e-300)):.3g}")
    return found


if __name__ == "__main__":
    folders = [Path(folder) for folder in sys.argv[1:]]
    json.dump({folder.name: errors(folder) for folder in folders}, sys.stdout, indent=1)
    print()
