"""Makes the goldens of LAVIS's image transforms: its own classes, with torchvision.

    python images.py LAVIS           writes data/images.json; LAVIS is a checkout of salesforce/LAVIS at 506965b

Made with torchvision 0.14.1, torch 1.13.1 and Pillow 9.4, as Debian 12 has them (python3-torchvision). Images are drawn by a rule
that the test has too; of each the SHA-256 of its values, f32[3, side, side], and a few of them.
"""

import ast
import hashlib
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from torchvision import transforms
from torchvision.transforms.functional import InterpolationMode

HERE = Path(__file__).parent
LAVIS = Path(sys.argv[1]) / "lavis"
# Width and height of an image, and the side that it gets: halves that round up and down, strips, enlarged and reduced.
SIZES = [
    (30, 30, 30), (40, 30, 30), (30, 41, 30), (31, 77, 30), (33, 30, 30), (30, 35, 30), (200, 33, 28), (33, 200, 28), (1, 1, 28),
    (1, 9, 28), (9, 1, 28), (97, 101, 28), (28, 300, 28), (64, 48, 224), (500, 375, 224),
]  # fmt: skip


def processors():
    """The classes of LAVIS's two files, without their registry."""
    space = {"BaseProcessor": object, "transforms": transforms, "InterpolationMode": InterpolationMode}
    for file in ("blip_processors.py", "clip_processors.py"):
        for node in ast.parse((LAVIS / "processors" / file).read_text()).body:
            if isinstance(node, ast.FunctionDef) or (isinstance(node, ast.ClassDef) and ("Eval" in node.name or "ImageBase" in node.name)):
                node.decorator_list = []
                exec(compile(ast.Module([node], []), file, "exec"), space)
    return {"blip_image_eval": space["BlipImageEvalProcessor"], "clip_image_eval": space["ClipImageEvalProcessor"]}


def drawn(width, height):
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    return Image.fromarray(((x * x * 3 + y * 7 * (c + 1) + x * y + 31 * c) % 256).astype(np.uint8))


made = []
for width, height, side in SIZES:
    entry = {"width": width, "height": height, "side": side}
    for name, cls in processors().items():
        values = cls(image_size=side).transform(drawn(width, height)).numpy()
        assert values.shape == (3, side, side) and values.dtype == np.float32
        entry[name] = {"sha256": hashlib.sha256(values.tobytes()).hexdigest(), "some": [float(values[c, side // 2, side // 3]) for c in range(3)]}
    made.append(entry)
text = "[\n" + ",\n".join(json.dumps(entry) for entry in made) + "\n]\n"
(HERE / "data" / "images.json").write_text(text)
print(len(text), "bytes")
