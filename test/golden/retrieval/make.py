"""Makes the golden of image-text retrieval: Blip2ForImageTextRetrieval and the two halves of it, on drawn weights.

    python make.py      writes data/itm (test/golden/requirements.txt says with what)

A checkpoint folder as ../README.md describes them, weights.json instead of weights, and in golden.safetensors what
transformers gives: the numbers of ITC and ITM, of both halves, and, as `exact:…`, scores in f64 for the same weights.
Not a test of ours: nothing here knows the TypeScript side.
"""

import hashlib
import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import Blip2Config, Blip2ForImageTextRetrieval, Blip2Processor, OPTConfig
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
import composites  # noqa: E402
import retrieval_models  # noqa: E402
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
    drawn = retrieval_models.redraw(model, KEY)
    model.save_pretrained(folder)
    rng = composites.np.random.default_rng(5)
    images = [composites.draw_image(rng, "RGB") for _ in TEXTS]
    for i, image in enumerate(images):
        images[i] = image.resize((13, 10))
        images[i].save(folder / f"image_{i}.png")
    inputs = processor(images=images, text=TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        tensors = retrieval_models.record(folder, dict(inputs), exact=True)
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
