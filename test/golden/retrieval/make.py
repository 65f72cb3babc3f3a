"""Makes the golden of image-text retrieval: Blip2ForImageTextRetrieval and the two halves of it, on drawn weights.

    python make.py      writes data/itm (test/golden/requirements.txt says with what)

A checkpoint folder as ../README.md describes them, weights.json instead of weights, and in golden.safetensors what
transformers gives: the numbers of ITC and ITM, of both halves, and, as `exact:…`, scores in f64 for the same weights.
Not a test of ours: nothing here knows the TypeScript side.
"""

import hashlib
import json
import math
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import (
    Blip2Config,
    Blip2ForImageTextRetrieval,
    Blip2Processor,
    Blip2TextModelWithProjection,
    Blip2VisionModelWithProjection,
    OPTConfig,
)
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
import composites  # noqa: E402
import weights  # noqa: E402

KEY = [77, 13]
WORDS = 70
TEXTS = ["a red dog", "Two cats?", "sea"]
VISION = {
    "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 1, "num_attention_heads": 2,
    "image_size": 21, "patch_size": 7,
}  # fmt: skip
QFORMER = {
    "hidden_size": 24, "intermediate_size": 36, "num_hidden_layers": 2, "num_attention_heads": 3,
    "max_position_embeddings": 40, "use_qformer_text_input": True,
}  # fmt: skip
QUERIES, WIDTH = 5, 10


@torch.no_grad()
def redraw(model):
    """Draws every parameter at a size at which it matters. Returns what each was drawn from, by name."""
    drawn = {}
    for name, parameter in model.named_parameters():
        module = model.get_submodule(name.rpartition(".")[0])
        if isinstance(module, nn.LayerNorm):
            normal = weights.Normal(1 if name.endswith("weight") else 0, 0.1)
        elif name.endswith("bias"):
            normal = weights.Normal(0, 0.1)
        elif isinstance(module, (nn.Linear, nn.Conv2d)):
            normal = weights.Normal(0, round(1.5 / math.sqrt(parameter[0].numel()), 3))
        else:
            normal = weights.Normal(0, 0.7 if "position" in name else 1)
        parameter.copy_(torch.from_numpy(weights.draw(normal, name, parameter.shape, KEY)))
        drawn[name] = normal
    return drawn


def record(folder, inputs):
    """What transformers computes for three images and three texts, all padded to one length."""
    load = {"dtype": torch.float32, "attn_implementation": "eager"}
    model = Blip2ForImageTextRetrieval.from_pretrained(folder, **load).eval()
    tensors = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    for name, head in (("itc", False), ("itm", True)):
        output = model(**inputs, use_image_text_matching_head=head)
        for key in ("logits_per_image", "logits_per_text", "image_embeds", "text_embeds"):
            if not (head and key.endswith("embeds")):
                tensors[f"{name}.{key}"] = output[key]
        if head:
            tensors[f"{name}.text_model_output"] = output.text_model_output.last_hidden_state[1]
        exact = model.double()(
            **{**inputs, "pixel_values": inputs["pixel_values"].double()}, use_image_text_matching_head=head
        )
        tensors[f"exact:{name}.logits_per_image"] = exact.logits_per_image
        model.float()
    one = {key: inputs[key] for key in ("input_ids", "attention_mask")}
    one = {key: rows[:, QUERIES:] for key, rows in one.items()}
    text = Blip2TextModelWithProjection.from_pretrained(folder, **load).eval()
    tensors["text.text_embeds"] = text(**one).text_embeds
    positions = torch.arange(one["input_ids"].shape[1]).flip(0).expand_as(one["input_ids"])
    tensors["text.positions"] = positions
    tensors["text.flipped"] = text(**one, position_ids=positions).text_embeds[:, 0]
    tensors["text.hidden_states.1"] = text(**one, output_hidden_states=True).hidden_states[1][0]
    vision = Blip2VisionModelWithProjection.from_pretrained(folder, **load).eval()
    output = vision(pixel_values=inputs["pixel_values"])
    assert torch.equal(output.image_embeds, tensors["itc.image_embeds"])
    tensors["vision.last_hidden_state"] = output.last_hidden_state[0]
    return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}


def make(folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tokenizer = composites.train_qformer_tokenizer(WORDS)
    size = {"height": VISION["image_size"], "width": VISION["image_size"]}
    processor = Blip2Processor(BlipImageProcessorPil(size=size), tokenizer, num_query_tokens=QUERIES)
    processor.save_pretrained(folder)
    processor = Blip2Processor.from_pretrained(folder)
    config = Blip2Config(
        vision_config=VISION,
        qformer_config={**QFORMER, "vocab_size": len(tokenizer) - 1},  # as published: no row for <image>
        text_config=OPTConfig(
            hidden_size=16, ffn_dim=16, num_hidden_layers=1, num_attention_heads=1, vocab_size=32
        ).to_dict(),
        num_query_tokens=QUERIES,
        image_text_hidden_size=WIDTH,
        image_token_index=processor.tokenizer.convert_tokens_to_ids("<image>"),
    )
    model = Blip2ForImageTextRetrieval._from_config(config).eval()
    drawn = redraw(model)
    model.save_pretrained(folder)
    rng = composites.np.random.default_rng(5)
    images = [composites.draw_image(rng, "RGB") for _ in TEXTS]
    for i, image in enumerate(images):
        images[i] = image.resize((13, 10))
        images[i].save(folder / f"image_{i}.png")
    inputs = processor(images=images, text=TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        tensors = record(folder, dict(inputs))
    save_file(tensors, folder / "golden.safetensors")
    digest = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("model*.safetensors")}
    (folder / "golden.json").write_text(json.dumps({"texts": TEXTS, "same_as": {}, "model_sha256": digest}, indent=1) + "\n")
    weights.write_recipe(folder, drawn, KEY)
    for path in folder.glob("*.json"):  # small: all goldens together have a limit
        path.write_text(json.dumps(json.loads(path.read_text()), separators=(",", ":"), ensure_ascii=False) + "\n")
    for path in folder.glob("model*.safetensors"):
        path.unlink()
    print({path.name: path.stat().st_size for path in folder.iterdir()})
    print({name: tensors[name] for name in tensors if "logits_per_image" in name})


if __name__ == "__main__":
    make(HERE / "data" / "itm")
