"""Adapters of PEFT for a tiny InstructBLIP, and the weights that merge_and_unload() makes of them.

    python test/golden/adapters/make.py

data/base/model.safetensors has the model's weights; data/NAME/ an adapter as PEFT saves it, and merged.safetensors the tensors that
it changes. Needs peft 0.21 besides requirements.txt.
"""

import copy
import json
import shutil
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import InstructBlipConfig, InstructBlipForConditionalGeneration

CONFIG = {
    "vision_config": {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 8, "patch_size": 4},
    "qformer_config": {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 20, "max_position_embeddings": 8},
    "text_config": {"model_type": "llama", "hidden_size": 8, "intermediate_size": 13, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 23},
    "num_query_tokens": 4,
    "image_token_index": 22,
}  # fmt: skip
PROJECTIONS = ["q_proj", "v_proj"]
ADAPTERS = {
    "plain": {"r": 3, "lora_alpha": 8, "target_modules": PROJECTIONS},
    "patterns": {
        "r": 2, "lora_alpha": 8, "target_modules": [*PROJECTIONS, "down_proj", "query"],
        "rank_pattern": {"layers.1.self_attn.q_proj": 5, "down_proj": 1}, "alpha_pattern": {"v_proj": 3},
    },
    "rslora": {"r": 4, "lora_alpha": 6, "use_rslora": True, "target_modules": PROJECTIONS, "modules_to_save": ["language_projection"]},
    "everything": {
        "r": 2, "lora_alpha": 4, "fan_in_fan_out": True, "bias": "lora_only",
        "target_modules": ["qkv", "fc1", "key", "embed_tokens", "patch_embedding", "lm_head", "o_proj"],
    },
}  # fmt: skip


def main():
    data = Path(__file__).parent / "data"
    shutil.rmtree(data, ignore_errors=True)
    torch.manual_seed(5)
    model = InstructBlipForConditionalGeneration(InstructBlipConfig(**CONFIG)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    model.save_pretrained(data / "base")
    base = load_file(data / "base" / "model.safetensors")
    for name, options in ADAPTERS.items():
        torch.manual_seed(len(name))
        adapted = get_peft_model(copy.deepcopy(model), LoraConfig(init_lora_weights=False, **options))
        for key, parameter in adapted.named_parameters():
            if "modules_to_save" in key or (parameter.requires_grad and key.endswith("bias")):
                torch.nn.init.normal_(parameter, std=0.5)
        adapted.save_pretrained(data / name)
        merged = PeftModel.from_pretrained(copy.deepcopy(model), data / name).merge_and_unload()
        merged.save_pretrained(data / name / "whole")
        after = load_file(data / name / "whole" / "model.safetensors")
        shutil.rmtree(data / name / "whole")
        assert sorted(after) == sorted(base)
        save_file({k: t for k, t in after.items() if not torch.equal(t, base[k])}, data / name / "merged.safetensors")
        (data / name / "README.md").unlink(missing_ok=True)
        config = json.loads((data / name / "adapter_config.json").read_text())
        (data / name / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    (data / "base" / "generation_config.json").unlink(missing_ok=True)


main()
