"""Times PyTorch's eager products and attentions at the shapes of bench/, in f32 and f16, and writes them as JSON, row by row.

    python3 torch_times.py FILE

On CUDA by events around runs that last some 50 ms, the median of five; else by the clock. TF32 is off, as f32 is f32 here.
"""

import json
import sys
import time

import torch
import torch.nn.functional as F

GEMM = [
    ("vit qkv", 257, 1408, 4224), ("vit fc1", 257, 1408, 6144), ("vit fc2", 257, 6144, 1408),
    ("q-former feed-forward", 32, 768, 3072), ("vicuna q_proj", 64, 4096, 4096), ("vicuna up_proj", 64, 4096, 11008),
    ("vicuna q_proj", 1, 4096, 4096), ("vicuna down_proj", 1, 11008, 4096), ("vicuna lm_head", 1, 4096, 32001),
]  # name, M, K, N
ATTENTION = [
    ("vit", 257, 257, 16, 88), ("q-former cross", 32, 257, 12, 64), ("vicuna prefill", 64, 64, 32, 128),
    ("vicuna decode", 1, 256, 32, 128), ("vicuna decode", 1, 2048, 32, 128),
]  # name, T, S, H, d


def milliseconds(run, cuda):
    def once(count):
        if cuda:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            for _ in range(count):
                run()
            end.record()
            torch.cuda.synchronize()
            return begin.elapsed_time(end)
        start = time.perf_counter()
        for _ in range(count):
            run()
        return 1000 * (time.perf_counter() - start)

    once(3)
    count = max(1, min(2000, int(50 / max(once(1), 1e-3))))
    return sorted(once(count) / count for _ in range(5))[2]


def main():
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    cuda = torch.cuda.is_available()
    device = "cuda" if cuda else "cpu"
    where = torch.cuda.get_device_name() if cuda else "cpu"
    rows = []

    def keep(kind, shape, dtype, ms):
        rows.append({"kind": kind, "shape": shape, "dtype": dtype, "ms": ms})
        print(f"{kind:9}  {shape:44}  {dtype}  {ms:.4f} ms", flush=True)
        with open(sys.argv[1], "w", encoding="utf-8") as file:
            json.dump({"torch": torch.__version__, "cuda": torch.version.cuda, "device": where, "rows": rows}, file)
            file.write("\n")

    with torch.inference_mode():
        for name, dtype in (("f32", torch.float32), ("f16", torch.float16)):
            for shape, M, K, N in GEMM:
                x = torch.randn(M, K, device=device, dtype=dtype)
                # Copies larger than caches together, in turns, as bench has them for one row.
                copies = [torch.randn(N, K, device=device, dtype=dtype) for _ in range(4 if cuda and M == 1 else 1)]
                turn = iter(range(10**9))
                ms = milliseconds(lambda: F.linear(x, copies[next(turn) % len(copies)]), cuda)
                keep("gemm", f"{shape} M{M} K{K} N{N}", name, ms)
            for shape, T, S, H, d in ATTENTION:
                q = torch.randn(1, H, T, d, device=device, dtype=dtype)
                k, v = (torch.randn(1, H, S, d, device=device, dtype=dtype) for _ in range(2))
                causal = shape == "vicuna prefill"
                ms = milliseconds(lambda: F.scaled_dot_product_attention(q, k, v, is_causal=causal), cuda)
                keep("attention", f"{shape} T{T} S{S} H{H} d{d}", name, ms)


if __name__ == "__main__":
    main()
