"""Makes the files of torch.save that test/tensor/files/pytorch.test.ts reads, and what is in them.

    python test/golden/pytorch/make.py

data/files.json.gz has every file in base64, with each tensor's dtype, shape and bytes, in order, as torch.load gives them; and files
that must not be read, with the error's code and what its message must name.
"""

import base64
import collections
import gzip
import io
import json
import types
import zipfile
from pathlib import Path

import numpy as np
import torch

DTYPES = "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint64 uint32 uint16 uint8 bool".split()
READ_ONLY_IN_NAME = "complex64 complex128 float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz float8_e8m0fnu".split()


def numbers(*shape, dtype=torch.float32):
    """Bytes of all values: every bit pattern is a number of each dtype, but for bool."""
    size = torch.zeros(shape, dtype=dtype).nbytes
    raw = torch.arange(size, dtype=torch.int64).mul(7).add(3).remainder(251).to(torch.uint8)
    if dtype == torch.bool:
        raw = raw % 2
    if size == 0:
        return torch.zeros(shape, dtype=dtype)
    return raw.view(dtype).reshape(shape)


def dtypes():
    return {name: numbers(3, 2, dtype=getattr(torch, name)) for name in DTYPES + READ_ONLY_IN_NAME}


def views():
    matrix = numbers(5, 7)
    cube = numbers(2, 3, 4, 5, dtype=torch.float16)
    line = numbers(40)
    shared = numbers(11)
    return {
        "matrix": matrix,
        "transposed": numbers(5, 7).t(),
        "permuted": cube.permute(3, 1, 0, 2),
        "channels_last": numbers(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        "row": matrix[2],
        "column": matrix[:, 3],
        "every_third": line[1::3],
        "windows": line.unfold(0, 8, 4),  # overlapping rows
        "expanded": numbers(1, 3).expand(4, 3),
        "alias": matrix,
        "reshaped": matrix.reshape(7, 5),
        "first": shared[:6],
        "second": shared[4:],
        "offset": line[13:],
        "scalar": numbers(1)[0],
        "scalar_of_line": line[17],
        "empty": numbers(0),
        "empty_of_three": numbers(3, 0, 2),
        "ones_with_odd_strides": line.as_strided((1, 4, 1), (17, 1, 3), 2),
        "narrow_bytes": numbers(9, 3, dtype=torch.uint8).t(),
        "wide": numbers(3, 3, dtype=torch.float64).t(),
        "bf16_step": numbers(12, dtype=torch.bfloat16)[::2],
        "negative_zero_and_nan": torch.tensor([-0.0, float("nan"), float("inf"), -float("inf")]),
    }


def module():
    torch.manual_seed(1)
    block = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 2), torch.nn.BatchNorm2d(3), torch.nn.Linear(3, 2))
    return block.state_dict()


def parameters():
    """Parameters as such, one with an attribute, one frozen; keys and values that are no tensors."""
    tagged = torch.nn.Parameter(numbers(2, 3))
    tagged.note = "kept by Python"
    frozen = torch.nn.Parameter(numbers(3), requires_grad=False)
    shape = torch.Size([2, 3])
    return collections.OrderedDict(
        a=torch.nn.Parameter(numbers(4)), tagged=tagged, frozen=frozen, _extra_state=shape, steps=2**40, big=-(2**80),
        dtype=torch.float16, device=torch.device("cpu"), text="é", none=None, floats=[0.5, -1e300], ünïcode=numbers(1),
    )  # fmt: skip


def training():
    """As LAVIS and others save while they train."""
    torch.manual_seed(2)
    linear = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(linear.parameters(), lr=1e-3)
    linear(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    config = {"run": {"lr": 1e-5, "seed": 42, "amp": True, "betas": (0.9, 0.999)}, "names": ["a", None]}
    return {"model": linear.state_dict(), "optimizer": optimizer.state_dict(), "config": config, "epoch": 3}


def training_beside_tensors():
    """With tensors beside the state dict, which are none of the model's."""
    return {"step": torch.tensor(7), "state_dict": training()["model"], "logit_scale": torch.ones(1)}


def described(value):
    """What a reader must find: of the dict below one of three keys, or of the whole."""
    whole = value
    value = next((value[key] for key in ("model", "state_dict", "module") if isinstance(value.get(key), dict)), value)
    tensors, ignored = {}, [k for k, t in whole.items() if value is not whole and isinstance(t, torch.Tensor)]
    for name, tensor in value.items():
        if not isinstance(tensor, torch.Tensor):
            ignored.append(name)
            continue
        dense = tensor.detach().contiguous()
        raw = dense.reshape(-1).view(torch.uint8).numpy().tobytes() if dense.numel() else b""
        tensors[name] = {"dtype": str(dense.dtype)[6:], "shape": list(dense.shape), "hex": raw.hex()}
    return {"tensors": tensors, "ignored": ignored}


def repacked(data, method=zipfile.ZIP_STORED, change=lambda name, content: content):
    """The same archive as Python's zipfile writes it: no alignment, other headers."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w", method) as new:
        for entry in old.infolist():
            new.writestr(zipfile.ZipInfo(entry.filename), change(entry.filename, old.read(entry)), method)
    return buffer.getvalue()


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


def refused():
    """What must not be read: content, code, and what the message names."""
    import os
    import subprocess

    w = torch.ones(2)
    yield "system", {"w": Call(os.system, "touch /tmp/instructblip-pwned")}, "PICKLE_GLOBAL", "posix.system"
    yield "eval", {"w": w, "x": Call(eval, "1")}, "PICKLE_GLOBAL", "__builtin__.eval"
    yield "getattr", {"w": w, "x": Call(getattr, "a", "upper")}, "PICKLE_GLOBAL", "__builtin__.getattr"
    yield "popen", {"model": {"w": w}, "x": Call(subprocess.Popen, ["true"])}, "PICKLE_GLOBAL", "commands.Popen"  # its name in Python 2
    yield "load_from_bytes", {"w": Call(torch.storage._load_from_bytes, b"")}, "PICKLE_GLOBAL", "torch.storage._load_from_bytes"
    yield "namespace", {"w": w, "args": types.SimpleNamespace(a=1)}, "PICKLE_GLOBAL", "types.SimpleNamespace"
    yield "numpy", {"w": w, "x": np.ones(2)}, "PICKLE_GLOBAL", "numpy"
    yield "whole_module", torch.nn.Linear(2, 2), "PICKLE_GLOBAL", "torch.nn.modules.linear.Linear"
    yield "sparse", {"w": torch.eye(2).to_sparse()}, "PICKLE_GLOBAL", "torch._utils._rebuild_sparse_tensor"
    yield "conjugate", {"w": torch.ones(2, dtype=torch.complex64).conj()}, "BAD_PICKLE", "conjugate"
    yield "one_tensor", w, "NO_STATE_DICT", "one tensor"
    yield "a_list", [w], "NO_STATE_DICT", "no dict"
    yield "no_tensors", {"model": {"epoch": 1}}, "NO_STATE_DICT", "a dict without tensors"


def saved(value, **options):
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def main():
    out = Path(__file__).parent / "data"
    out.mkdir(exist_ok=True)
    index = {"torch": torch.__version__, "files": {}, "refused": {}}

    def write(name, data, value):
        found = described(torch.load(io.BytesIO(data), weights_only=False))
        assert found == described(value), name
        index["files"][name] = {"data": base64.b64encode(data).decode(), **found}

    legacy = {"_use_new_zipfile_serialization": False}
    for make in (dtypes, views, module, parameters, training, training_beside_tensors):
        value, name = make(), make.__name__
        write(f"{name}.bin", saved(value), value)
        old = {k: v for k, v in value.items() if k not in READ_ONLY_IN_NAME + DTYPES[8:11]} if make is dtypes else value
        write(f"{name}.legacy.pth", saved(old, **legacy), old)
    write("views.repacked.pt", repacked(saved(views())), views())
    write("module.protocol_4.pt", saved(module(), pickle_protocol=4), module())
    write("module.protocol_4.legacy.pth", saved(module(), pickle_protocol=4, **legacy), module())
    write("module.protocol_5.legacy.pth", saved(module(), pickle_protocol=5, **legacy), module())
    write("module.protocol_5.pt", saved(module(), pickle_protocol=5), module())

    def refuse(name, data, code, named):
        index["refused"][name] = {"data": base64.b64encode(data).decode(), "code": code, "named": named}

    for name, value, code, named in refused():
        refuse(f"{name}.bin", saved(value), code, named)
    evil = {"w": Call(__import__("os").system, "touch /tmp/instructblip-pwned")}
    refuse("system.legacy.pth", saved(evil, **legacy), "PICKLE_GLOBAL", "posix.system")
    refuse("system.protocol_4.bin", saved(evil, pickle_protocol=4), "PICKLE_GLOBAL", "posix.system")
    small = saved({"w": torch.ones(2)})
    refuse("compressed.bin", repacked(small, zipfile.ZIP_DEFLATED), "ZIP_PACKED", "data.pkl")
    big = repacked(small, change=lambda name, content: b"big" if name.endswith("byteorder") else content)
    refuse("big_endian.bin", big, "BIG_ENDIAN", "big")
    text = json.dumps(index, ensure_ascii=False)
    (out / "files.json.gz").write_bytes(gzip.compress(text.encode(), mtime=0))


main()
