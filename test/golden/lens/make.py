"""Makes goldens of the logit lens (../logit_lens.py): what the language models of committed composites would say.

    python make.py [NAME …]      writes data/NAME.json (default: all; test/golden/requirements.txt says with what)

Of one row of a golden, and its greedy answer: a state has for every position the three most probable ids with their
log-probabilities, and of the answer's positions the log-probability of the token that comes next. Not a test of ours:
nothing here knows the TypeScript side.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
import logit_lens  # noqa: E402
import weights  # noqa: E402

FOLDERS = (HERE.parent / "data", HERE.parent / "siblings")
NAMES = ("plain_f32", "opt_plain", "opt_post_norm_f16", "opt_bare", "t5_flan", "t5_plain_tied_bf16", "video_4_frames")
INPUTS = ("pixel_values", "qformer_input_ids", "qformer_attention_mask", "input_ids", "attention_mask")
ANSWER = 5


def load(name):
    folder = next(parent / name for parent in FOLDERS if (parent / name).exists())
    with weights.whole(folder) as checkpoint:
        model = AutoModelForImageTextToText.from_pretrained(
            checkpoint, dtype=torch.float32, attn_implementation="eager"
        ).eval()
    stored = load_file(folder / "golden.safetensors")
    stored |= {key: stored[first] for key, first in json.loads((folder / "golden.json").read_text())["same_as"].items()}
    return model, stored


def make(name):
    model, stored = load(name)
    row = int(stored["attention_mask"].bool().all(-1).nonzero()[0])
    inputs = {key: stored[key] for key in INPUTS if key in stored}
    greedy = stored["greedy.sequences"][row].tolist()
    begin = 1 if model.config.text_config.model_type == "t5" else inputs["input_ids"].shape[1]
    answer = greedy[begin : begin + ANSWER]
    said, positions, maps = logit_lens.look(model, inputs, {}, row, answer)
    first = len(positions) - len(answer)
    found = []
    for logprobs in said:
        best = logprobs.topk(logit_lens.K)
        found.append({
            "ids": best.indices.tolist(),
            "logprobs": [[round(x, 6) for x in each] for each in best.values.tolist()],
            "answer": [round(float(logprobs[first + t, id]), 6) for t, id in enumerate(answer)],
        })  # fmt: skip
    made = {
        "row": row, "answer": answer, "positions": positions, "states": found,
        "maps": [[round(x, 7) for x in each] for each in maps.tolist()],
    }  # fmt: skip
    text = json.dumps(made, separators=(",", ":"))
    (HERE / "data" / f"{name}.json").write_text(text + "\n")
    print(f"{name}: row {row}, {len(found)} states of {len(positions)} positions, {len(text)} bytes")


if __name__ == "__main__":
    for name in sys.argv[1:] or NAMES:
        make(name)
