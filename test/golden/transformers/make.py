"""Makes the goldens of docs/from_transformers.md: what its Python listings print on small checkpoints.

    python make.py            writes printed.json

The checkpoints are the embedded one, and committed composites with their weights (`.cache/goldens` is not used: the weights are
drawn here). Names of the Hub, URLs and lengths are replaced as `settings.json` says, here and in the test.
"""

import contextlib
import io
import json
import logging
import re
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import AutoTokenizer, InstructBlipVideoProcessor
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
sys.path.insert(0, str(HERE.parent))
import weights  # noqa: E402

warnings.simplefilter("ignore")
transformers.logging.set_verbosity(logging.CRITICAL)
SETTINGS = json.loads((HERE / "settings.json").read_text())


def listings():
    """[heading, Python] of the page."""
    text = (ROOT / "docs/from_transformers.md").read_text()
    for section in re.split(r"^## ", text, flags=re.M)[1:]:
        for code in re.findall(r"^```py\n(.*?)^```$", section, flags=re.M | re.S):
            yield section.split("\n")[0], code


class VideoProcessor:
    """Hugging Face's on PIL's pixels: its own needs torchvision."""

    def __init__(self, path):
        config = json.loads((Path(path) / "processor_config.json").read_text())
        pixels = {k: v for k, v in config["video_processor"].items() if not k.endswith("_type")}
        self.image = BlipImageProcessorPil(**pixels)
        self.tokenizer = AutoTokenizer.from_pretrained(path)
        self.qformer_tokenizer = AutoTokenizer.from_pretrained(path, subfolder="qformer_tokenizer")
        self.queries = config["num_query_tokens"]
        self.batch_decode = self.tokenizer.batch_decode

    def __call__(self, text, images, return_tensors):
        words = self.qformer_tokenizer([text], return_tensors="pt")
        tokens = self.tokenizer([text], return_tensors="pt")
        placeholder = self.tokenizer.convert_tokens_to_ids("<video>")
        count = self.queries * len(images)
        ids = torch.cat([torch.full((1, count), placeholder), tokens["input_ids"]], 1)
        mask = torch.cat([torch.ones((1, count), dtype=torch.long), tokens["attention_mask"]], 1)
        pixels = torch.tensor(np.stack(self.image(images)["pixel_values"]))[None]
        return {
            "pixel_values": pixels, "input_ids": ids, "attention_mask": mask,
            "qformer_input_ids": words["input_ids"], "qformer_attention_mask": words["attention_mask"],
        }  # fmt: skip


def run(code, replace):
    for name, value in replace.items():
        code = code.replace(name, value)
    out = io.StringIO()
    with contextlib.redirect_stdout(out), torch.no_grad():
        exec(compile(code, "listing", "exec"), {"__name__": "listing"})
    return out.getvalue()


if __name__ == "__main__":
    InstructBlipVideoProcessor.from_pretrained = classmethod(lambda cls, path: VideoProcessor(path))
    with contextlib.ExitStack() as stack:
        places = {}
        for name, place in SETTINGS["checkpoints"].items():
            folder = ROOT / place
            if not (folder / "weights.json").exists():
                places[name] = str(folder)
                continue
            whole = stack.enter_context(weights.whole(folder))
            places[name] = str(whole)
        printed = {}
        for heading, code in listings():
            kind = next((kind for kind in SETTINGS["listings"] if kind in code), "instructblip")
            replace = {SETTINGS["hub"][kind]: places[kind], **SETTINGS["replace"]["all"], **SETTINGS["replace"]["python"]}
            replace = {name: str(ROOT / value) if value.startswith(("test/", "examples/")) else value for name, value in replace.items()}
            printed[heading] = run(code, replace)
            print(heading, json.dumps(printed[heading]))
    (HERE / "printed.json").write_text(json.dumps(printed, indent=1) + "\n")
