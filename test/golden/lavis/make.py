"""Names of LAVIS's tensors for Hugging Face's, of tiny models, with their shapes.

    python test/golden/lavis/make.py [--script convert_instructblip_original_to_pytorch.py]

data/names.json.gz has, for each model, LAVIS's name of each tensor, its shape and Hugging Face's name. The names are Hugging Face's own state dict's, turned back. With --script, the
conversion of the transformers repository (its package does not hold it) runs on InstructBLIP's and must give that state dict.
"""

import argparse
import gzip
import json
import sys
from pathlib import Path
from unittest import mock

import torch
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
)

VISION = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
QFORMER = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 3, "num_attention_heads": 2, "vocab_size": 30, "max_position_embeddings": 16, "cross_attention_frequency": 2}
LLAMA = {"model_type": "llama", "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 40}
OPT = {"model_type": "opt", "hidden_size": 8, "word_embed_proj_dim": 8, "ffn_dim": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 40, "max_position_embeddings": 32}
T5 = {"model_type": "t5", "d_model": 8, "d_kv": 4, "d_ff": 12, "num_layers": 1, "num_decoder_layers": 1, "num_heads": 2, "vocab_size": 40, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}


def original_names(state_dict, language):
    """LAVIS's names of Hugging Face's: lavis/models/eva_vit.py, blip2_models/Qformer.py, blip2_vicuna_instruct.py and siblings."""
    original = {}
    for name, tensor in state_dict.items():
        if name.endswith("self_attn.qkv.bias"):
            block = name.split(".")[3]
            q, _, v = tensor.chunk(3)
            original[f"visual_encoder.blocks.{block}.attn.q_bias"] = q.clone()
            original[f"visual_encoder.blocks.{block}.attn.v_bias"] = v.clone()
            continue
        parts = name.split(".")
        rest = ".".join(parts[4:])
        if name.startswith("vision_model.encoder.layers."):
            for theirs, ours in (("norm1", "layer_norm1"), ("norm2", "layer_norm2"), ("attn.proj", "self_attn.projection"), ("attn.", "self_attn."), ("mlp", "mlp")):
                if rest.startswith(ours):
                    original[f"visual_encoder.blocks.{parts[3]}.{theirs}{rest[len(ours):]}"] = tensor
                    break
            else:
                raise AssertionError(name)
            continue
        for theirs, ours in (
            ("visual_encoder.cls_token", "vision_model.embeddings.class_embedding"),
            ("visual_encoder.pos_embed", "vision_model.embeddings.position_embedding"),
            ("visual_encoder.patch_embed.proj", "vision_model.embeddings.patch_embedding"),
            ("ln_vision", "vision_model.post_layernorm"),
            ("Qformer.bert.embeddings.LayerNorm", "qformer.embeddings.layernorm"),
            ("Qformer.bert.embeddings.LayerNorm", "qformer.layernorm"),
            (f"{language}_proj", "language_projection"),
            (f"{language}_model", "language_model"),
        ):
            if name.startswith(ours):
                original[theirs + name[len(ours):]] = tensor
                break
        else:
            if name.startswith("qformer."):
                name = "Qformer.bert." + name[8:].replace("attention.attention.", "attention.self.")
            original[name] = tensor
    return original


def converted(script, original, config):
    """What transformers' script makes of a state dict: it runs up to load_state_dict(), with all it loads replaced."""
    taken = {}

    class Taken(Exception):
        pass

    class HfModel:
        def __init__(self, config):
            pass

        def eval(self):
            return self

        def load_state_dict(self, state_dict, strict):
            taken.update(state_dict)
            raise Taken

    sys.modules["lavis"] = sys.modules["lavis.models"] = mock.MagicMock()
    scope = {"__name__": "script"}
    exec(compile(script.read_text(), script, "exec"), scope)
    original_model = mock.MagicMock()
    original_model.state_dict = lambda: dict(original)
    scope.update(
        {name: mock.MagicMock() for name in ("AutoTokenizer", "T5TokenizerFast", "LlamaTokenizerFast")},
        InstructBlipForConditionalGeneration=HfModel,
        get_blip2_config=lambda name: (config, 224),
        load_model_and_preprocess=lambda **_: (original_model, None, None),
    )
    try:
        scope["convert_blip2_checkpoint"]("instructblip-flan-t5-xl" if config.text_config.model_type == "t5" else "instructblip-vicuna-7b")
    except Taken:
        return taken


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--script", type=Path)
    script = parser.parse_args().script
    data = Path(__file__).parent / "data"
    data.mkdir(exist_ok=True)
    written = []
    for name, Config, Model, text, language in (
        ("instructblip_vicuna", InstructBlipConfig, InstructBlipForConditionalGeneration, LLAMA, "llm"),
        ("instructblip_flan_t5", InstructBlipConfig, InstructBlipForConditionalGeneration, T5, "t5"),
        ("blip_2_opt", Blip2Config, Blip2ForConditionalGeneration, OPT, "opt"),
    ):
        config = Config(vision_config=VISION, qformer_config=QFORMER, text_config=text, num_query_tokens=4)
        # A tensor is known by a number of its own; keys have no biases.
        state_dict = {key: torch.full(tensor.shape, i + 1.0) for i, (key, tensor) in enumerate(Model(config).state_dict().items())}
        for key, tensor in state_dict.items():
            if key.endswith("qkv.bias"):
                third = len(tensor) // 3
                tensor[third : 2 * third] = 0
        original = original_names(state_dict, language)
        if script and config.model_type == "instructblip":
            theirs = converted(script, original, config)
            assert sorted(theirs) == sorted(state_dict)
            assert all(torch.equal(tensor, state_dict[key]) for key, tensor in theirs.items())
        by_number = {tensor.reshape(-1)[0].item(): key for key, tensor in state_dict.items()}
        names = {key: [list(tensor.shape), by_number[tensor.reshape(-1)[0].item()]] for key, tensor in original.items()}
        written.append(json.dumps({"name": name, "model_type": config.model_type, "names": names}))
    text = "[\n" + ",\n".join(written) + "\n]\n"
    (data / "names.json.gz").write_bytes(gzip.compress(text.encode(), mtime=0))


main()
