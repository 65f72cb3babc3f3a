"""A tiny InstructBLIP quantized by bitsandbytes in each way, as transformers saves it, and what bitsandbytes dequantizes.

    python test/golden/bitsandbytes/make.py

data/NAME/ is a checkpoint's config and weights; expected.safetensors the dequantized matrices of all. data/cases.safetensors has
matrices of odd sizes, data/cases.json the SHA-256 of each after dequantize_4bit. Needs bitsandbytes 0.50 and accelerate besides
requirements.txt, without the compiled library: its kernel for AVX-512 takes scales of other blocks where a row is no multiple of a
block, which PyTorch's code in backends/default does not.
"""

import hashlib
import json
import shutil
from pathlib import Path

import bitsandbytes as bnb
import bitsandbytes.functional as F
import torch
from bitsandbytes.cextension import ErrorHandlerMockBNBNativeLibrary, lib
from safetensors.torch import save_file
from transformers import BitsAndBytesConfig, InstructBlipConfig, InstructBlipForConditionalGeneration
from transformers.integrations.bitsandbytes import dequantize_bnb_weight

CONFIG = {
    "vision_config": {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 8, "patch_size": 4},
    "qformer_config": {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 20, "max_position_embeddings": 8},
    "text_config": {"model_type": "llama", "hidden_size": 16, "intermediate_size": 22, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 23},
    "num_query_tokens": 4,
    "image_token_index": 22,
}  # fmt: skip
WAYS = {
    "int8": {"load_in_8bit": True},
    "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "nf4_nested": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
    "fp4": {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4", "bnb_4bit_quant_storage": torch.float16},
}
# Shape, block, dtype, type, nested. The first nested one has more than one block of 256 scales.
CASES = [
    ([130, 127], 64, torch.float16, "nf4", True),
    ([130, 127], 64, torch.float32, "nf4", False),
    ([37, 29], 128, torch.bfloat16, "fp4", True),
    ([1, 1], 64, torch.float32, "fp4", False),
    ([7, 3], 4096, torch.float16, "nf4", False),
    ([3, 2, 5], 32, torch.float32, "fp4", False),
]


def main():
    assert isinstance(lib, ErrorHandlerMockBNBNativeLibrary), "move libbitsandbytes_*.so away"
    data = Path(__file__).parent / "data"
    shutil.rmtree(data, ignore_errors=True)
    torch.manual_seed(7)
    model = InstructBlipForConditionalGeneration(InstructBlipConfig(**CONFIG)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    model.half().save_pretrained(data / "float")
    expected = {}
    for name, options in WAYS.items():
        config = BitsAndBytesConfig(**options)
        quantized = InstructBlipForConditionalGeneration.from_pretrained(
            data / "float", quantization_config=config, device_map="cpu", dtype=torch.float16
        )
        quantized.save_pretrained(data / name)
        (data / name / "generation_config.json").unlink(missing_ok=True)
        for module_name, module in quantized.named_modules():
            if isinstance(module, (bnb.nn.Linear8bitLt, bnb.nn.Linear4bit)):
                numbers = dequantize_bnb_weight(module.weight, getattr(module, "state", None))
                expected[f"{name}/{module_name}.weight"] = numbers.detach().contiguous()
    save_file(expected, data / "expected.safetensors")
    shutil.rmtree(data / "float")

    tensors, hashes = {}, {}
    for i, (shape, block, dtype, kind, nested) in enumerate(CASES):
        matrix = torch.randn(shape, dtype=torch.float32).mul(0.1).to(dtype)
        packed, state = F.quantize_4bit(matrix, blocksize=block, quant_type=kind, compress_statistics=nested)
        tensors[f"case{i}.weight"] = packed
        tensors |= {f"case{i}.weight.{key}": value.clone() for key, value in state.as_dict(packed=True).items()}
        numbers = F.dequantize_4bit(packed, state).contiguous()
        hashes[f"case{i}.weight"] = hashlib.sha256(numbers.view(torch.uint8).numpy().tobytes()).hexdigest()
    save_file(tensors, data / "cases.safetensors")
    (data / "cases.json").write_text(json.dumps(hashes, indent=2) + "\n")


main()
