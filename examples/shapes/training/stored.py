"""Writes images/tokens.json: what PyTorch answers to images/questions.json, as token ids.

    python stored.py            compares with tokens.json (exit status 1 if they differ)
    python stored.py --write    writes it

The questions are asked three times: with the weights as they are in the file, and with what int8 and int4 leave of them
(blocks of 32 numbers of a row, scale and least number in bfloat16; vectors of tokens and positions and the head int8 in
either). The tokens must be the same; how far the best logit leads over the next, at the least, is printed.
"""

import json
import re
import sys
from pathlib import Path

import torch
from PIL import Image

from evaluate import Answerer

HERE = Path(__file__).resolve().parent
FOLDER = HERE.parent
TOKENS = FOLDER / "images" / "tokens.json"
TABLES = re.compile(r"(^|\.)(lm_head|embed_tokens|word_embeddings|position_embeddings)\.weight$")


def bf16(x):
    return x.float().to(torch.bfloat16).double()


def stored(weight, dtype):
    """A matrix [N, K] as int8 or int4 keeps it."""
    parts = []
    for block in weight.double().split(32, dim=1):
        low, high = block.amin(1, keepdim=True), block.amax(1, keepdim=True)
        least = bf16(low) if dtype == "int4" else torch.zeros_like(low)
        spread = high - least if dtype == "int4" else block.abs().amax(1, keepdim=True)
        scale = bf16((spread / (15 if dtype == "int4" else 127)).float())
        codes = torch.floor((block - least) / torch.where(scale == 0, 1, scale) + 0.5)
        codes = codes.clamp(0, 15) if dtype == "int4" else codes.clamp(-127, 127)
        parts.append(scale * codes + least)
    return torch.cat(parts, dim=1).float()


def answers(dtype):
    """The tokens of every question, image by image, and the smallest lead of the best logit over the next."""
    answerer, least, listed = Answerer(FOLDER / "checkpoint"), float("inf"), []
    if dtype != "as in the file":
        for name, weight in answerer.model.state_dict().items():
            if weight.ndim < 2 or not name.endswith(".weight"):
                continue
            kept = stored(weight.flatten(1), "int8" if TABLES.search(name) else dtype)
            weight.copy_(kept.reshape(weight.shape))
    for entry in json.loads((FOLDER / "images" / "questions.json").read_text(encoding="utf-8")):
        rows = []
        for question in entry["questions"]:
            with Image.open(FOLDER / entry["image"]) as image:
                prompt = answerer.inputs([image], [question])["input_ids"].shape[1]
                sequences, _, lead = answerer(image, question)
            rows.append(sequences[0, prompt:].tolist())
            least = min(least, lead)
        listed.append(rows)
    return listed, least


def main():
    found = {}
    for dtype in ("as in the file", "int8", "int4"):
        found[dtype], least = answers(dtype)
        same = found[dtype] == found["as in the file"]
        print(f"weights {dtype}: least lead {least:.2f}; tokens {'the same' if same else 'OTHERS'}")
    tokens = found["as in the file"]
    if any(other != tokens for other in found.values()):
        return 1
    if "--write" in sys.argv[1:]:
        TOKENS.write_text(json.dumps(tokens, separators=(",", ":")) + "\n", encoding="utf-8")
        return 0
    same = json.loads(TOKENS.read_text(encoding="utf-8")) == tokens
    print(f"tokens.json: {'the same' if same else 'OTHERS'}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
