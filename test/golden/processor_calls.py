"""Calls of a composite's processor drawn at random, and what Hugging Face's own makes of them.

A call is JSON: `text`, the numbers of the `images` (of a video: a list of frames for each), and `options`. Rows of a batch
are always padded or cut to one length, and never so short that no room is left for special tokens: what is an error in one
of the two programs is for the processor's own tests.
"""

import numpy as np
import torch
from PIL import Image

import composites

HF_FRAMES = 4  # what Hugging Face counts, whatever it is given


def draw_call(rng, spec):
    """One call."""
    def pick(*values):
        return values[int(rng.integers(len(values)))]

    def between(low, high):
        return int(rng.integers(low, high + 1))

    batch, queries = between(1, 3), spec["num_query_tokens"]
    text = [composites.PROMPTS[i] for i in rng.permutation(len(composites.PROMPTS))[:batch]]
    frames = between(1, 3) if "frames" in spec else None
    count = batch * (frames or 1)
    images = [between(0, len(spec["modes"]) - 1) for _ in range(count)]
    options = {}
    way = pick("longest", "max_length", "truncated", *(["none"] if batch == 1 else []))
    # Queries count towards max_length; seven are room for any special tokens.
    if way == "longest":
        options["padding"] = pick(True, "longest")
    elif way == "max_length":
        options |= {"padding": "max_length", "max_length": queries + between(7, 40), "truncation": True}
    elif way == "truncated":
        options |= {"padding": True, "max_length": queries + between(7, 20), "truncation": pick(True, "longest_first")}
    if way == "longest" and rng.random() < 0.5:
        options["pad_to_multiple_of"] = pick(2, 5, 8)
    if way != "none" and rng.random() < 0.5:
        options["padding_side"] = pick("left", "right")
    if rng.random() < 0.2:
        options["add_special_tokens"] = False
    call = {"text": text[0] if batch == 1 and rng.random() < 0.5 else text, "options": options}
    if rng.random() < 0.8:
        call["images"] = images if frames is None else [images[i * frames : (i + 1) * frames] for i in range(batch)]
        if frames is None and rng.random() < 0.5:
            options |= draw_image_options(pick, between, rng)
    return call


def draw_image_options(pick, between, rng):
    """Options of the images by themselves."""
    options = {
        "size": {"height": between(3, 70), "width": between(3, 70)}, "resample": pick(0, 1, 2, 3, 4, 5),
        "do_normalize": pick(True, False), "do_rescale": True, "do_convert_rgb": True, "do_resize": True,
        "rescale_factor": pick(1 / 255, 1 / 128), "image_mean": [round(float(x), 3) for x in rng.random(3)],
        "image_std": [round(0.1 + float(x), 3) for x in rng.random(3)],
    }
    kept = rng.permutation(list(options))[: between(1, 4)]
    return {str(name): options[name] for name in kept}


def record(processor, files, call):
    """What the processor returns, as tensors; a video's placeholders are counted by its frames."""
    images = call.get("images")
    read = lambda number: Image.open(files[number]).convert("RGB")  # noqa: E731
    if not isinstance(processor, composites.VideoProcessor):
        loaded = None if images is None else [Image.open(files[number]) for number in images]
        return tensors_of(processor(images=loaded, text=call["text"], **call["options"]))
    # Hugging Face counts four frames: it gets the first one four times, and the pixels come from the frames themselves.
    loaded = None if images is None else [[read(video[0])] * HF_FRAMES for video in images]
    found = tensors_of(processor(images=loaded, text=call["text"], **call["options"]))
    if images is None:
        return found
    pixels = [np.stack(processor.image_processor([read(number) for number in video])["pixel_values"]) for video in images]
    found["pixel_values"] = torch.from_numpy(np.stack(pixels))
    queries = processor.num_query_tokens
    for name in ("input_ids", "attention_mask"):
        row = found[name]
        found[name] = torch.cat([row[:, :1].expand(-1, len(images[0]) * queries), row[:, HF_FRAMES * queries :]], 1)
    return found


def tensors_of(feature):
    """A BatchFeature of lists as tensors."""
    return {
        key: torch.from_numpy(np.stack(value).astype(np.float32)) if key == "pixel_values" else torch.tensor(value)
        for key, value in feature.items()
    }
