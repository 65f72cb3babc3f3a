"""Weights from a counter: each number is a function of the composite, its tensor's name and its place in the tensor.

So the committed goldens need no weights: weights.json says what to draw, and test/golden_folder.ts draws the same, to the
bit. Everything is whole numbers, or f64 with one rounding an operation, so that no library's logarithm has a say.

Source of the generator: Salmon et al. 2011, Parallel random numbers: as easy as 1, 2, 3 (Philox 4x32-10).
"""

import contextlib
import hashlib
import json
import math
import shutil
import tempfile
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

FILE = "weights.json"
HALVES = 8  # 16-bit numbers in one block of Philox; their sum is nearly normal, and at most 4.9 deviations from its mean
MEAN = HALVES * 0xFFFF / 2
DEVIATION = math.sqrt(HALVES * (0x10000**2 - 1) / 12)
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass
class Normal:
    """What one tensor is drawn from: a mean and a standard deviation, another one for some of its rows."""

    mean: float
    std: float
    rows: tuple[int, int] | None = None  # first and beyond the last
    rows_std: float | None = None


def philox(counter, key):
    """Ten rounds. `counter`: four u64[n] of 32-bit numbers; `key`: two 32-bit numbers. Gives u64[4, n] of 32-bit numbers."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    low, high = np.uint64(0xFFFFFFFF), np.uint64(32)
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = (p1 >> high) ^ c1 ^ np.uint64(k0), p1 & low, (p0 >> high) ^ c3 ^ np.uint64(k1), p0 & low
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3])


def draw(normal, name, shape, key):
    """f32 numbers of `shape`: the i-th from the block whose counter is i and the name's CRC-32."""
    size = math.prod(shape)
    index, zeros = np.arange(size, dtype=np.uint64), np.zeros(size, np.uint64)
    words = philox((index, zeros + np.uint64(zlib.crc32(name.encode())), zeros, zeros), key)
    sums = (words & np.uint64(0xFFFF)).sum(0) + (words >> np.uint64(16)).sum(0)
    std = np.full(shape[0] if shape else 1, normal.std)
    if normal.rows:
        std[slice(*normal.rows)] = normal.rows_std
    std = np.repeat(std, size // len(std))
    return (normal.mean + std * ((sums.astype(np.float64) - MEAN) / DEVIATION)).astype(np.float32).reshape(shape)


def header_of(path):
    """The header of a .safetensors file."""
    with path.open("rb") as file:
        return json.loads(file.read(int.from_bytes(file.read(8), "little")))


def write_recipe(folder, drawn, key):
    """Writes weights.json for the files in `folder`. `drawn`: what each tensor of them was drawn from, by its name there."""
    files = {}
    for path in sorted(folder.glob("model*.safetensors")):
        header = header_of(path)
        assert header.pop("__metadata__") == {"format": "pt"}
        files[path.name] = {
            name: {"dtype": entry["dtype"], "shape": entry["shape"], **said(drawn[name])} for name, entry in header.items()
        }
    lines = [
        f'  "{file}": {{\n' + ",\n".join(f'   "{name}": {json.dumps(row)}' for name, row in tensors.items()) + "\n  }"
        for file, tensors in files.items()
    ]
    text = f'{{\n "key": {json.dumps(key)},\n "files": {{\n' + ",\n".join(lines) + "\n }\n}\n"
    (folder / FILE).write_text(text)


def said(normal):
    """A Normal without what it does not have."""
    return {key: value for key, value in asdict(normal).items() if value is not None}


def write(folder, out):
    """Draws the weight files that the weights.json of `folder` describes into `out`."""
    recipe = json.loads((folder / FILE).read_text())
    for file, tensors in recipe["files"].items():
        header, parts, start = {"__metadata__": {"format": "pt"}}, [], 0
        for name, row in tensors.items():
            dtype, shape = row.pop("dtype"), row.pop("shape")
            values = torch.from_numpy(draw(Normal(**row), name, shape, recipe["key"])).to(DTYPES[dtype])
            parts.append(values.view(torch.uint8).numpy().tobytes())
            header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, start + len(parts[-1])]}
            start += len(parts[-1])
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        (out / file).write_bytes(len(text).to_bytes(8, "little") + text + b"".join(parts))


@contextlib.contextmanager
def whole(folder):
    """The folder as it is if its weights lie in it, else a copy with the weights, for as long as the context lasts."""
    if any(folder.glob("model*.safetensors")):
        yield folder
        return
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / folder.name
        shutil.copytree(folder, copy)
        write(folder, copy)
        expected = json.loads((folder / "golden.json").read_text())["model_sha256"]
        for file, digest in expected.items():
            assert hashlib.sha256((copy / file).read_bytes()).hexdigest() == digest, f"{copy / file} is not what was drawn"
        yield copy
