"""How far PyTorch's f32 is from f64 on inputs that are hard on f32 sums: massive channels, sinks, large means, near ties.

    python make.py              print every case's error
    python make.py --write      and keep them in errors.json, which the tests of the kernels read

The inputs are drawn from whole numbers, here and in test/hard.ts alike, to the bit: `inputs` is a sum over their bits
by which either side knows that the other draws the same. Not a test of ours: nothing here knows the TypeScript side.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

HERE = Path(__file__).parent


# ---------------------------------------------------------------------------------------------------------------------
# Inputs: f64 arithmetic that is exact or the same everywhere, then one rounding to f32


class Source:
    """The numbers of test/random.ts: mulberry32."""

    def __init__(self, seed):
        self.state = seed

    def next(self, n):
        """n uniform whole numbers below 2^32."""
        mask = np.uint64(0xFFFFFFFF)
        steps = np.arange(1, n + 1, dtype=np.uint64)
        state = (np.uint64(self.state) + steps * np.uint64(0x6D2B79F5)) & mask
        self.state = int(state[-1])
        t = ((state ^ (state >> np.uint64(15))) * (state | np.uint64(1))) & mask
        t = t ^ ((t + (((t ^ (t >> np.uint64(7))) * (t | np.uint64(61))) & mask)) & mask)
        return t ^ (t >> np.uint64(14))

    def whole(self, n, low, high):
        """n whole numbers in [low, high)."""
        return low + ((self.next(n) * np.uint64(high - low)) >> np.uint64(32)).astype(np.float64)

    def bell(self, *shape):
        """Numbers in [-4, 4), most of them near 0: sums of four."""
        n = int(np.prod(shape))
        return (self.whole(4 * n, -(2**19), 2**19).reshape(n, 4).sum(1) / 2**19).reshape(shape)


CHANNELS = [(7, 2.0**7), (21, -(2.0**10)), (34, 2.0**13)]


def massive(x):
    """The same with three columns near 2^7, -2^10 and 2^13."""
    x = x.copy()
    for column, size in CHANNELS:
        x[:, column] = size * (1.5 + x[:, column] / 8)
    return x


def coded(source, n, k, low, high, scale):
    """A matrix [n, k] that quantizing changes nothing of: both ends of the range in every block of 32."""
    codes = source.whole(n * k, low, high + 1).reshape(n, k)
    codes[:, 0::32] = low
    codes[:, 1::32] = high
    return codes * scale


# ---------------------------------------------------------------------------------------------------------------------
# Cases: a name, inputs, and what PyTorch makes of them in their dtype


def rows(shift, times, column=None, value=0.0):
    def draw(source, r, d):
        x = shift + times * source.bell(r, d)
        if column is not None:
            x[:, column] = value
        return x

    return draw


LOGITS = {"near_ties": rows(20.0, 1 / 64), "peaked": rows(0.0, 2.0, 7, 25.0), "massive": rows(0.0, 128.0)}
SCORES = {
    "near_ties": rows(1000.0, 1 / 64), "sink": rows(0.0, 2.0, 0, 20.0), "massive": rows(0.0, 1024.0),
    "flat": rows(0.0, 1 / 4),
}


def llama_norm(x, w, eps=1e-6):
    """transformers' LlamaRMSNorm"""
    return w * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps))


def norm_cases():
    for name, d, eps in [("layer_norm", 1408, 1e-6), ("rms_norm", 4096, 1e-6)]:
        for kind in ["massive", "large_mean", "sink_rows"]:
            source = Source(1)
            x = source.bell(16, d)
            if kind == "massive":
                x = massive(x)
            if kind == "large_mean":
                x = 1000.0 + x
            if kind == "sink_rows":
                x[::4] = massive(256.0 * x[::4])
            weight, bias = 1 + source.bell(d) / 8, source.bell(d)
            if name == "layer_norm":
                yield f"{name} {kind}", [x, weight, bias], lambda x, w, b: F.layer_norm(x, x.shape[-1:], w, b, eps)
            else:
                yield f"{name} {kind}", [x, weight], llama_norm


def row_cases():
    for s, r in [(257, 16), (32001, 4)]:
        for kind, draw in SCORES.items():
            yield f"softmax {kind} {s}", [draw(Source(2), r, s)], lambda x: torch.softmax(x, -1)
    for kind, draw in LOGITS.items():
        source = Source(3)
        x = draw(source, 4, 32001)
        labels = source.whole(4, 0, 32001)
        labels[0] = 7
        yield f"log_softmax {kind}", [x], lambda x: torch.log_softmax(x, -1)
        yield f"cross_entropy {kind}", [x, labels], lambda x, y: F.cross_entropy(x, y.long(), reduction="none")


ACTIVATIONS = {
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
}
RANGES = {"near 0": 2.0**-6, "below 1": 2.0**-2, "below 4": 1.0, "below 16": 4.0, "massive": 2.0**11}


def activation_cases():
    for kind, f in ACTIVATIONS.items():
        for name, size in RANGES.items():
            yield f"{kind} {name}", [size * Source(4).bell(65536)], f
        source = Source(5)
        gate, up = 2 * source.bell(256, 64), massive(source.bell(256, 64))
        yield f"gated {kind}", [gate, up], lambda g, u, f=f: f(g) * u


WEIGHTS = {
    "f32": lambda source, n, k: source.bell(n, k) / 64,
    "int8": lambda source, n, k: coded(source, n, k, -127, 127, 2.0**-12),
    "int4": lambda source, n, k: coded(source, n, k, 0, 15, 2.0**-8) - 2.0**-5,
}


def linear_cases():
    for m in [1, 2, 3, 8, 9, 40]:
        for dtype, draw in WEIGHTS.items():
            for kind in ["bias", "massive", "large_mean"]:
                source = Source(6)
                n, k = 48, 6144
                x = source.bell(m, k)
                if kind == "massive":
                    x = massive(x)
                if kind == "large_mean":
                    x = 16 + x
                w, b = draw(source, n, k), source.bell(n)
                if kind == "bias":
                    b = 150 + b
                yield f"linear {kind} {dtype} {m}", [x, w, b], F.linear
        source = Source(7)
        n, k = 48, 1408
        x, w, up, b = source.bell(m, k), source.bell(n, k) / 64, source.bell(n, k) / 64, source.bell(n)
        residual = massive(source.bell(m, n))
        yield f"linear gelu {m}", [x, w, b], lambda x, w, b: F.gelu(F.linear(x, w, b))
        yield f"linear residual {m}", [massive(x) / 16, w, 150 + b, residual], lambda x, w, b, r: F.linear(x, w, b) + r
        yield (
            f"linear gated {m}", [x, w, up, b, 150 + b],
            lambda x, g, u, gb, ub: F.silu(F.linear(x, g, gb)) * F.linear(x, u, ub),
        )


def normed_linear_cases():
    for m in [1, 5]:
        for dtype, draw in WEIGHTS.items():
            for kind in ["massive", "large_mean"]:
                source = Source(12)
                n, k = 48, 4096
                x = source.bell(m, k)
                x = massive(x) if kind == "massive" else 1000 + x
                gain, w = 1 + source.bell(k) / 8, draw(source, n, k)
                yield f"rms_norm, linear {kind} {dtype} {m}", [x, gain, w], lambda x, g, w: F.linear(llama_norm(x, g), w)


def attention_cases():
    def attend(scale):  # transformers' eager attention
        def f(q, k, v):
            scores = torch.matmul(q, k.transpose(-1, -2)) * scale
            return torch.matmul(torch.softmax(scores, -1), v).transpose(1, 2)

        return f

    for t, s, h, d in [(9, 257, 2, 88), (1, 700, 2, 128)]:
        for kind in ["sink", "massive_keys", "massive_values", "near_ties"]:
            source = Source(8)
            q, k, v = source.bell(t, h, d), source.bell(s, h, d), source.bell(s, h, d)
            if kind == "sink":  # the first key draws most of the weight and says nothing
                q[:, :, 3], k[:, :, 3] = 8 + q[:, :, 3] / 4, k[:, :, 3] / 4
                k[0, :, 3] = 24.0
                v[0] = v[0] / 64
            if kind == "massive_keys":  # as a bias of the key projection makes them
                k[:, :, 5] = 128 + k[:, :, 5]
                k[:, :, 40] = -1024 + k[:, :, 40]
            if kind == "massive_values":
                v[:, :, 5] = 128 * (1.5 + v[:, :, 5] / 8)
                v[:, :, 40] = 8192 * (1.5 + v[:, :, 40] / 8)
            if kind == "near_ties":
                k = k[:1] + k / 256
            heads_first = [np.ascontiguousarray(x.transpose(1, 0, 2))[None] for x in (q, k, v)]
            yield f"attention {kind} T{t}", heads_first, attend(d**-0.5)


def other_cases():
    source = Source(9)
    t, h, d = 16, 4, 128
    x = massive(source.bell(t, h * d)).reshape(t, h, d)
    # Drawn, since cosines of Python and JavaScript differ in their last bits.
    cos, sin = source.bell(t, 1, d // 2) / 4, source.bell(t, 1, d // 2) / 4

    def rope(x, cos, sin):  # transformers' apply_rotary_pos_emb
        cos, sin = torch.cat([cos, cos], -1), torch.cat([sin, sin], -1)
        half = x.shape[-1] // 2
        return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin

    yield "rope massive", [x, cos, sin], rope

    source = Source(10)
    x = massive(source.bell(64, 64)).reshape(8, 8, 64)

    def bicubic(x, size):
        return F.interpolate(x.permute(2, 0, 1)[None], size=size, mode="bicubic", align_corners=False)[0].permute(1, 2, 0)

    for size in [(11, 5), (3, 20)]:
        yield f"bicubic {size[0]}x{size[1]}", [x], lambda x, size=size: bicubic(x, size)

    source = Source(11)
    images, p, d = 2, 14, 48
    pixels, w = source.bell(images, 3, 42, 42), source.bell(d, 3 * p * p) / 16
    bias, token, positions = 150 + source.bell(d), source.bell(d), massive(source.bell(10, d))

    def embed(pixels, w, bias, token, positions):  # transformers' InstructBlipVisionEmbeddings
        patches = F.conv2d(pixels, w.reshape(d, 3, p, p), bias, stride=p).flatten(2).transpose(1, 2)
        return torch.cat([token.expand(images, 1, d), patches], 1) + positions

    yield "patch_embedding", [pixels, w, bias, token, positions], embed


def cases():
    for part in (norm_cases, row_cases, activation_cases, linear_cases, normed_linear_cases, attention_cases, other_cases):
        yield from part()


# ---------------------------------------------------------------------------------------------------------------------


def bits_of(arrays):
    """The sum of all numbers' bits, mod 2^32."""
    return int(sum(int(array.reshape(-1).view(np.uint32).sum(dtype=np.uint64)) for array in arrays) % 2**32)


def measure(arrays, f):
    """The error of f in f32 against f64: root of the mean square, and largest."""
    narrow = [np.ascontiguousarray(array, dtype=np.float32) for array in arrays]
    y = f(*[torch.from_numpy(array) for array in narrow])
    exact = f(*[torch.from_numpy(array.astype(np.float64)) for array in narrow])
    error = (y.double() - exact).abs()
    return {"rms": float(error.pow(2).mean().sqrt()), "max": float(error.max()), "inputs": bits_of(narrow)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="keep the errors in errors.json")
    write = parser.parse_args().write
    torch.set_num_threads(1)  # the sums' order would hang on the number of cores
    errors = {}
    for name, arrays, f in cases():
        errors[name] = measure(arrays, f)
        print(f"{name:36} rms {errors[name]['rms']:.2e}  max {errors[name]['max']:.2e}")
    if write:
        about = {"torch": torch.__version__.split("+")[0], "capability": torch.backends.cpu.get_cpu_capability()}
        lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(error)}" for name, error in errors.items())
        (HERE / "errors.json").write_text(f"{{\n\"made with\": {json.dumps(about)},\n\"errors\": {{\n{lines}\n}}}}\n")


if __name__ == "__main__":
    main()
