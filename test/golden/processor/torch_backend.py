"""Hugging Face's torchvision backend, in the PyTorch it rests on: torchvision itself is not needed.

tvF.resize of bytes on a processor is torch.nn.functional.interpolate with antialias; rescale_and_normalize folds the factor.
"""

import numpy as np
import torch

from image_files import noise, sha

MODES = {2: "bilinear", 3: "bicubic"}


def resized(pixels, height, width, resample):
    """u8[H, W, 3] to u8[height, width, 3]."""
    if pixels.shape[:2] == (height, width):
        return pixels
    image = torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None]
    image = torch.nn.functional.interpolate(image, size=(height, width), mode=MODES[resample], antialias=True, align_corners=False)
    return image[0].permute(1, 2, 0).numpy()


def values(pixels, *, do_rescale=True, rescale_factor=1 / 255, do_normalize=True, image_mean, image_std):
    """f32[3, H, W]"""
    image = torch.from_numpy(pixels.transpose(2, 0, 1).copy())
    if not do_normalize:
        return (image * rescale_factor if do_rescale else image).numpy().astype(np.float32)
    scale = 1.0 / rescale_factor if do_rescale else None
    mean, std = [torch.tensor(x) if scale is None else torch.tensor(x) * scale for x in (image_mean, image_std)]
    return image.to(torch.float32).sub(mean.view(-1, 1, 1)).div(std.view(-1, 1, 1)).numpy()


def goldens():
    """resizes: [width, height, new width, new height, filter, sha256]; values: [options, sha256] of all 256 bytes."""
    # Nothing to or from 1 x 1: PyTorch 2.13 takes such an image for channels last, and fails.
    sizes = [(2, 1, 224, 224), (1, 500, 30, 30), (500, 1, 56, 40), (37, 53, 224, 224), (101, 67, 30, 31), (64, 64, 64, 64)]
    sizes += [(224, 100, 224, 60), (100, 224, 60, 224), (300, 3, 56, 56), (313, 199, 1, 2), (3, 2, 100, 7), (640, 480, 384, 384)]
    rng = np.random.default_rng(5)
    sizes += [tuple(int(n) for n in rng.integers(1, 150, 4)) for _ in range(40)]
    resizes = []
    for i, (w, h, nw, nh) in enumerate(sizes):
        pixels = noise(i, w * h * 3).reshape(h, w, 3)
        resizes += [[w, h, nw, nh, resample, sha(resized(pixels, nh, nw, resample))] for resample in MODES]
    every_byte = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, -1)
    clip = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
    options = [
        clip,
        {**clip, "do_rescale": False},
        {**clip, "do_normalize": False},
        {**clip, "do_normalize": False, "do_rescale": False},
        {**clip, "rescale_factor": 0.00784313725490196},
        {"image_mean": [1.0, 0.5, 0.0], "image_std": [1.0, 0.5, 2.0]},
    ]
    return {"resizes": resizes, "values": [[o, sha(values(every_byte, **o))] for o in options]}
