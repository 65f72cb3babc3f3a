"""Makes the goldens of prompts about several images, by the committed composites.

    python several_images.py  writes data/several_images.json

Hugging Face's processors put one image in front of a text, but its models take any number in a row: masked_scatter fills the
placeholders of all rows in order. A text has <image> where each image stands. Those that it begins with go in front of the
beginning-of-sequence token, as the processors put theirs; the tokenizer reads the rest, and every other <image> becomes as many
placeholders as there are queries. The Q-Former reads of each image what is said of it, up to the next image; where nothing is,
what is said of the next one.

What is recorded is computed by hand, row by row: each image by the image encoder, the Q-Former with its own words, unpadded, and
the projection; the features and the texts' embeddings one after the other; and the language model's answer to them. The
composite's own generate() with the padded batch must answer the same, or nothing is written.
"""

import json
import sys
import warnings
from pathlib import Path

import torch
import transformers
from PIL import Image

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
import make  # noqa: E402
import weights  # noqa: E402

MARGIN = 2e-3  # between the best and the second of every step
TOKENS = 6
COMPOSITES = {"grouped_heads_bf16": "data", "t5_flan": "data", "blip2_opt": "siblings"}
ROWS = [  # [[images, text, what the Q-Former reads of each image], …] of every batch; None stands for all of the text
    [[[0, 1], "<image> Is the CIRCLE above? a photo <image> colour", ["Is the CIRCLE above? a photo", "colour"]]],
    [[[1, 0, 1], "<image><image> colour of <image>a photo of", ["colour of", "colour of", "a photo of"]]],
    [[[0, 1], "What is unusual about this image?", [None, None]], [[1], "<image> colour", ["colour"]]],
    [[[1, 0], "a photo of <image> above <image>", ["above", "a photo of above"]], [[0], "a photo of", [None]]],
]
warnings.simplefilter("ignore")
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


def row_of(processor, images, text, instructions):
    """One row: its ids, and the words that the Q-Former reads of each image."""
    token, Q = "<image>", processor.num_query_tokens
    parts = text.split(token)
    front = len(images)
    if len(parts) > 1:
        front = next(i for i, part in enumerate(parts) if part.strip())
        text = token.join([parts[front].lstrip(), *parts[front + 1 :]])
    placeholder = processor.tokenizer.convert_tokens_to_ids(token)
    ids = [placeholder] * (front * Q)
    for id in processor.tokenizer(text).input_ids:
        ids += [placeholder] * Q if id == placeholder else [id]
    assert ids.count(placeholder) == Q * len(images)
    words = None
    if hasattr(processor, "qformer_tokenizer"):
        words = [processor.qformer_tokenizer(text if words is None else words).input_ids for words in instructions]
    return ids, words


@torch.no_grad()
def by_hand(model, processor, pixels, ids, words):
    """New ids of a row, and the least margin between the best token and the second."""
    Q, placeholder = processor.num_query_tokens, processor.tokenizer.convert_tokens_to_ids("<image>")
    parts, at = [], 0
    for i, image in enumerate(pixels):
        states = model.vision_model(pixel_values=image[None]).last_hidden_state
        seen = {"encoder_hidden_states": states}
        if words is None:
            outputs = model.qformer(query_embeds=model.query_tokens, **seen)
        else:
            text = torch.tensor([words[i]])
            mask = torch.ones(1, Q + text.shape[1], dtype=torch.long)
            outputs = model.qformer(input_ids=text, attention_mask=mask, query_embeds=model.query_tokens, **seen)
        features = model.language_projection(outputs.last_hidden_state[:, :Q])
        before = ids[at : ids.index(placeholder, at)]
        parts += [model.get_input_embeddings()(torch.tensor([before], dtype=torch.long)), features]
        at += len(before) + Q
    parts.append(model.get_input_embeddings()(torch.tensor([ids[at:]], dtype=torch.long)))
    embeds = torch.cat(parts, 1)
    mask = torch.ones(embeds.shape[:2], dtype=torch.long)
    asked = {"eos_token_id": None, "max_new_tokens": TOKENS, "output_logits": True, "return_dict_in_generate": True}
    out = model.language_model.generate(inputs_embeds=embeds, attention_mask=mask, **asked)
    best = torch.stack(out.logits).topk(2).values
    return out.sequences[0, -TOKENS:].tolist(), float((best[..., 0] - best[..., 1]).min())


@torch.no_grad()
def batched(model, processor, pixels, rows):
    """New ids of all rows, by the composite's own generate(): prompts padded in front, Q-Former's words behind."""
    longest = max(len(ids) for ids, _ in rows)
    pad = processor.tokenizer.pad_token_id
    inputs = {
        "pixel_values": torch.cat(pixels),
        "input_ids": torch.tensor([[pad] * (longest - len(ids)) + ids for ids, _ in rows]),
        "attention_mask": torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids, _ in rows]),
    }
    if rows[0][1] is not None:
        words = [of_image for _, words in rows for of_image in words]
        most = max(map(len, words))
        inputs["qformer_input_ids"] = torch.tensor([one + [0] * (most - len(one)) for one in words])
        inputs["qformer_attention_mask"] = torch.tensor([[1] * len(one) + [0] * (most - len(one)) for one in words])
    return model.generate(**inputs, eos_token_id=None, max_new_tokens=TOKENS)[:, -TOKENS:].tolist()


def cases(name, parent):
    folder = HERE.parent / parent / name
    with weights.whole(folder) as checkpoint:
        model, processor = make.load(checkpoint)
    images = [Image.open(folder / f"image_{i}.png") for i in (0, 1)]
    found = []
    for batch in ROWS:
        rows = [row_of(processor, *row) for row in batch]
        pixels = [processor.image_processor([images[i] for i in of], return_tensors="pt").pixel_values for of, _, _ in batch]
        answers, margins = zip(*[by_hand(model, processor, p, ids, words) for p, (ids, words) in zip(pixels, rows)])
        if min(margins) < MARGIN:
            print(name, "not clear-cut:", batch, min(margins))
            continue
        assert batched(model, processor, pixels, rows) == list(answers), (name, batch)
        found.append({
            "of": name, "images": [of for of, _, _ in batch], "text": [text for _, text, _ in batch],
            "input_ids": [ids for ids, _ in rows], "qformer_input_ids": [words for _, words in rows], "answers": answers,
        })  # fmt: skip
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    found = [case for name, parent in COMPOSITES.items() for case in cases(name, parent)]
    text = json.dumps(found, separators=(",", ":"))
    (HERE / "data" / "several_images.json").write_text(text + "\n")
    print(len(found), "batches,", len(text), "bytes")
