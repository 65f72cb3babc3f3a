"""Makes the four official InstructBLIP checkpoints, and two siblings, without their weights: config, index, shards' headers.

    python make.py DIR           write them, here with DIR = test/golden/official
    python make.py --check DIR   make them again and compare

Hugging Face's own classes are built on the meta device and saved by their own save_pretrained, of which only the last
step is replaced: a shard is written up to the end of its header. README.md says where the dimensions come from.
"""

import argparse
import gzip
import json
import struct
import sys
import tempfile
from pathlib import Path

import safetensors.torch
import torch
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2QFormerConfig,
    Blip2VisionConfig,
    GenerationConfig,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipQFormerConfig,
    InstructBlipVideoConfig,
    InstructBlipVideoForConditionalGeneration,
    InstructBlipVideoQFormerConfig,
    InstructBlipVideoVisionConfig,
    InstructBlipVisionConfig,
    LlamaConfig,
    OPTConfig,
    T5Config,
    modeling_utils,
)

CONVERTED_ROWS = 32001  # Vicuna's 32000 and [PAD]
UPGRADED_ROWS = 32064  # <image> added, then padded to a multiple of 64, as the upgrade recipe does


def vicuna(rows, hidden_size, intermediate_size, num_hidden_layers, num_attention_heads):
    """LLaMA as converted; the token ids are those that users report of the published files, wrong as they are."""
    return LlamaConfig(
        vocab_size=rows,
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        num_hidden_layers=num_hidden_layers,
        num_attention_heads=num_attention_heads,
        max_position_embeddings=2048,
        pad_token_id=-1,
        bos_token_id=0,
        eos_token_id=1,
    )


def flan_t5(d_model, d_ff, num_heads):
    """Flan-T5 with the exact GELU that the conversion forces."""
    return T5Config(
        vocab_size=32128,
        d_model=d_model,
        d_kv=64,
        d_ff=d_ff,
        num_layers=24,
        num_decoder_layers=24,
        num_heads=num_heads,
        feed_forward_proj="gated-gelu",
        dense_act_fn="gelu",
        tie_word_embeddings=False,
        bos_token_id=1,
        decoder_start_token_id=0,
    )


def vicuna_7b(rows):
    return vicuna(rows, 4096, 11008, 32, 32)


def vicuna_13b(rows):
    return vicuna(rows, 5120, 13824, 40, 40)


def flan_t5_xl(_):
    return flan_t5(2048, 5120, 32)


def flan_t5_xxl(_):
    return flan_t5(4096, 10240, 64)


def opt_2_7b(_):
    """OPT-2.7B, whose 50272 rows have room for <image>."""
    return OPTConfig(
        hidden_size=2560,
        ffn_dim=10240,
        num_hidden_layers=32,
        num_attention_heads=32,
        word_embed_proj_dim=2560,
        eos_token_id=50118,
    )


# Text config, image token, entries of the state dict, and parameters of the language model and of all, as converted.
OFFICIAL = {
    "vicuna-7b": (vicuna_7b, 32001, 1096, 6_738_423_808, 7_913_210_624),
    "vicuna-13b": (vicuna_13b, 32001, 1168, 13_015_874_560, 14_191_448_832),
    "flan-t5-xl": (flan_t5_xl, 32100, 1365, 2_849_757_184, 4_022_969_088),
    "flan-t5-xxl": (flan_t5_xxl, 32100, 1365, 11_135_332_352, 12_310_119_168),
}


# The same of BLIP-2's first checkpoint and of a video's, which has the weights of the image's; and their classes.
BLIP_2 = (Blip2ForConditionalGeneration, Blip2Config, Blip2VisionConfig, Blip2QFormerConfig)
VIDEO = (
    InstructBlipVideoForConditionalGeneration,
    InstructBlipVideoConfig,
    InstructBlipVideoVisionConfig,
    InstructBlipVideoQFormerConfig,
)
INSTRUCTBLIP = (
    InstructBlipForConditionalGeneration,
    InstructBlipConfig,
    InstructBlipVisionConfig,
    InstructBlipQFormerConfig,
)
SIBLINGS = {
    "blip2-opt-2.7b": (opt_2_7b, 50265, 1248, 2_651_596_800, 3_744_679_936, BLIP_2),
    "video-vicuna-7b": (*OFFICIAL["vicuna-7b"], VIDEO),
}


def build(text_config, token, classes):
    """The composite on the meta device."""
    model_class, config_class, vision_class, qformer_class = classes
    config = config_class(
        vision_config=vision_class(),
        qformer_config=qformer_class(vocab_size=30523),
        text_config=text_config,
        **{"video_token_index" if classes is VIDEO else "image_token_index": token},
    )
    with torch.device("meta"):
        model = model_class(config)
        if isinstance(text_config, T5Config):
            # Version 5 ties the head on construction, and unties it on loading a file whose head differs: Flan-T5's.
            head = model.language_model.lm_head
            head.weight = torch.nn.Parameter(torch.empty(head.weight.shape))
    return model


def header_of(tensors, metadata):
    """What a .safetensors file of f32 tensors begins with: the header's length, then the header."""
    entries, offset = {"__metadata__": metadata}, 0
    for name in sorted(tensors):
        assert tensors[name].dtype == torch.float32, name
        size = 4 * tensors[name].numel()
        entries[name] = {
            "dtype": "F32",
            "shape": list(tensors[name].shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def check_header():
    """header_of() must give what the safetensors package writes."""
    tensors = {name: torch.zeros(2, n) for n, name in enumerate(["b.weight", "a.bias", "a.10", "a.9", "B"], 1)}
    tensors["row"] = torch.zeros(3)
    ours = header_of(tensors, {"format": "pt"})
    theirs = safetensors.torch.save(tensors, metadata={"format": "pt"})
    assert theirs[: len(ours)] == ours, theirs[:400]
    assert len(theirs) == len(ours) + 4 * sum(tensor.numel() for tensor in tensors.values())


def save(model, folder):
    """save_pretrained() with 10 GB a shard, the default when the four were published, and no numbers."""

    def write(tensors, file, metadata):
        Path(file).write_bytes(header_of(tensors, metadata))

    model.generation_config = GenerationConfig()  # the derived one has pad -1, which version 5 refuses to save
    before = modeling_utils.safe_save_file
    modeling_utils.safe_save_file = write
    try:
        model.save_pretrained(folder, max_shard_size="10GB")
    finally:
        modeling_utils.safe_save_file = before
    (folder / "generation_config.json").unlink()  # generate() does not read it


def make(name, folder):
    """One checkpoint, its counts checked."""
    text_config, token, entries, language, total, classes = {
        **{official: (*about, INSTRUCTBLIP) for official, about in OFFICIAL.items()},
        **SIBLINGS,
    }[name]
    converted = build(text_config(CONVERTED_ROWS), token, classes)
    parts = {part: count(module) for part, module in converted.named_children()}
    assert parts["vision_model"] == 985_952_256, parts
    assert parts["qformer"] == (105_137_664 if classes is BLIP_2 else 185_660_160), parts
    assert converted.query_tokens.numel() == 24_576
    assert parts["language_model"] == language, parts
    assert count(converted) == total, count(converted)
    upgraded = build(text_config(UPGRADED_ROWS), token, classes)
    assert len(upgraded.state_dict()) == len(converted.state_dict()) == entries, len(converted.state_dict())
    save(upgraded, folder)


def count(module):
    """Parameters, tied ones once."""
    return sum(parameter.numel() for parameter in module.parameters())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    check_header()
    for name in [*OFFICIAL, *SIBLINGS]:
        with tempfile.TemporaryDirectory() as made:
            make(name, Path(made))
            fresh = {f"{file.name}.gz": file.read_bytes() for file in sorted(Path(made).iterdir())}
        folder = arguments.folder / name
        if arguments.check:
            kept = {file.name: gzip.decompress(file.read_bytes()) for file in sorted(folder.iterdir())}
            if kept != fresh:
                sys.exit(f"{name}: differs from what is made now")
        else:
            folder.mkdir(parents=True, exist_ok=True)
            for file in folder.iterdir():
                file.unlink()
            for file, content in fresh.items():
                (folder / file).write_bytes(gzip.compress(content, 9, mtime=0))
        print(name, len(fresh) - 2, "shards")


main()
