"""Whole processors: folders as transformers 4 and 5 write them, called in every way that changes the ids."""

import json
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from transformers import InstructBlipProcessor
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

import image_files
import vocabularies

QUERIES = 4
IMAGE = {"image_processor_type": "BlipImageProcessor", "size": {"height": 30, "width": 28}, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4], "resample": 3}
SINGLE = "What is unusual about this image?"
BATCH = ["What is unusual about this image?", "A dog.", "Question: how many people are in the picture? Short answer:"]
LITERAL = ["a <image> b", "<image><image>", "x</s>[SEP] y"]


def folders(tokenizers):
    """name -> files, with tokenizers by reference: {"tokenizer": name, ...} is merged into the folder it stands for."""
    v5 = {"processor_config.json": {"image_processor": IMAGE, "num_query_tokens": QUERIES, "processor_class": "InstructBlipProcessor"}}
    v4 = {
        "preprocessor_config.json": {**IMAGE, "do_convert_rgb": True, "processor_class": "InstructBlipProcessor"},
        "processor_config.json": {"num_query_tokens": QUERIES, "processor_class": "InstructBlipProcessor"},
    }
    llama = vocabularies.resolved(tokenizers, "llama")
    tokens = llama["tokenizer.json"]["added_tokens"]
    size = len(llama["tokenizer.json"]["model"]["vocab"])
    listed = {str(t["id"]): {k: v for k, v in t.items() if k != "id"} for t in tokens}
    map_ = {k: llama["tokenizer_config.json"][k] for k in ("bos_token", "eos_token", "unk_token", "pad_token")}
    blocks = {
        "truncation": {"direction": "Left", "max_length": 14, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": "BatchLongest", "direction": "Left", "pad_to_multiple_of": None, "pad_id": size, "pad_type_id": 0, "pad_token": "[PAD]"},
    }
    return {
        "vicuna": {**v5, "tokenizer": "llama"},
        "vicuna_v4": {**v4, "tokenizer": "llama", "config": {"padding_side": "left", "added_tokens_decoder": listed}, "special_tokens_map.json": map_},
        "vicuna_right": {**v5, "tokenizer": "llama", "config": {"padding_side": "right"}},
        "vicuna_max_length": {**v5, "tokenizer": "llama", "config": {"max_length": 12, "stride": 0, "pad_to_multiple_of": None}},
        "vicuna_blocks": {**v5, "tokenizer": "llama", "json": blocks},
        "vicuna_without_image": {**v5, "tokenizer": "llama", "json": {"added_tokens": tokens[:-1]}},
        "vicuna_legacy": {**v4, "tokenizer": "llama_legacy"},
        "vicuna_without_queries": {"processor_config.json": {"image_processor": IMAGE}, "tokenizer": "llama"},
        "t5": {**v5, "tokenizer": "t5"},
        "t5_left": {**v4, "tokenizer": "t5", "config": {"padding_side": "left"}},
        "opt": {**v5, "tokenizer": "opt"},
        "opt_old_qformer": {**v4, "tokenizer": "opt", "qformer": "bert_vocab_txt"},
    }


def written(tokenizers, folder, path):
    path = Path(path)
    files = vocabularies.resolved(tokenizers, folder["tokenizer"])
    files["tokenizer_config.json"] = {**files["tokenizer_config.json"], **folder.get("config", {})}
    files["tokenizer.json"] = {**files["tokenizer.json"], **folder.get("json", {})}
    files.update({k: v for k, v in folder.items() if k.endswith(".json")})
    for file, value in files.items():
        (path / file).write_text(json.dumps(value), encoding="utf-8")
    (path / "qformer_tokenizer").mkdir()
    vocabularies.written(tokenizers, folder.get("qformer", "bert"), path / "qformer_tokenizer")


def calls():
    """[text, number of images, options]"""
    both = [
        {},
        {"add_special_tokens": False},
        {"padding": True},
        {"padding": "longest", "padding_side": "left"},
        {"padding": True, "padding_side": "right"},
        {"padding": "max_length", "max_length": 24},
        {"padding": "max_length", "max_length": 24, "truncation": True},
        {"padding": "max_length", "max_length": 10, "truncation": True, "padding_side": "left"},
        {"padding": True, "truncation": True, "max_length": 9},
        {"padding": True, "pad_to_multiple_of": 8},
        {"truncation": True, "max_length": 11},
        {"max_length": 13},
        {"truncation": True},
        {"max_length": 7, "truncation": False},
    ]
    out = [[SINGLE, n, o] for o in both for n in (0, 1)]
    out += [[BATCH, n, o] for o in both for n in (0, 3)]
    out += [[[SINGLE], 1, {}], ["", 1, {}], [["", "a"], 2, {"padding": True}], [LITERAL, 3, {"padding": True}], [None, 1, {}], [None, 2, {}], [None, 0, {}]]
    out += [[SINGLE, 1, o] for o in ({"size": {"height": 20, "width": 24}}, {"do_normalize": False, "do_rescale": False, "resample": 2}, {"image_mean": [0.0, 0.0, 0.0], "padding": True})]
    return out


def image(seed):
    return Image.fromarray(image_files.noise(seed, 6 * 5 * 3).reshape(6, 5, 3))


def feature(processor, text, images, options):
    out = processor(images=[image(i) for i in range(images)] or None, text=text, **options)
    plain = {k: [list(row) for row in v] for k, v in out.items() if k != "pixel_values"}
    if "pixel_values" in out:
        values = np.stack(out["pixel_values"]).astype(np.float32)
        plain["pixel_values"] = [list(values.shape), image_files.sha(values)]
    return plain


def loaded(path):
    processor = InstructBlipProcessor.from_pretrained(path)
    processor.image_processor = BlipImageProcessorPil.from_pretrained(path)  # torchvision's resizes otherwise
    return processor


def goldens(tokenizers, outcome):
    """folders, saved folders, and what each call returns or that it raises."""
    result = {"folders": folders(tokenizers), "saved": {}, "calls": calls(), "outcomes": {}}
    for name, folder in result["folders"].items():
        with tempfile.TemporaryDirectory() as path, tempfile.TemporaryDirectory() as again:
            written(tokenizers, folder, path)
            processor = loaded(path)
            result["outcomes"][name] = [outcome(lambda c=c: feature(processor, *c)) for c in result["calls"]]
            if name in ("vicuna", "opt"):
                # What transformers 5 itself writes, and that it reads it back to the same.
                loaded(path).save_pretrained(again)
                saved = Path(again)
                result["saved"][name] = {str(f.relative_to(saved)): f.read_text(encoding="utf-8") for f in sorted(saved.rglob("*")) if f.is_file()}
                reread = loaded(again)
                assert result["outcomes"][name] == [outcome(lambda c=c: feature(reread, *c)) for c in result["calls"]]
    return result
