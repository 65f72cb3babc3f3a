"""BLIP-2's and InstructBLIP-Video's processors, and which one AutoProcessor picks.

The video's pixels are PIL's: its own class needs torchvision, whose resizing differs from Pillow's by a level or two. What
it would be called with goes through the PIL image processor frame by frame instead; ids and masks are its own.
"""

import tempfile
from pathlib import Path

import numpy as np
from transformers import AutoProcessor, AutoTokenizer, InstructBlipVideoProcessor, ProcessorMixin
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

import image_files
import processors
from processors import BATCH, IMAGE, QUERIES, SINGLE

FRAMES = 4  # what Hugging Face counts, whatever it is given


def folders(tokenizers):
    """name -> files, as processors.folders."""

    def with_class(name, **changed):
        return {"processor_config.json": {"image_processor": IMAGE, "num_query_tokens": QUERIES, "processor_class": name, **changed}}

    v4 = {"preprocessor_config.json": {**IMAGE, "processor_class": "Blip2Processor"}}
    video_v4 = {"video_preprocessor_config.json": IMAGE, "preprocessor_config.json": {**IMAGE, "size": {"height": 1, "width": 1}}}
    queries = {"processor_config.json": {"num_query_tokens": QUERIES, "processor_class": "InstructBlipVideoProcessor"}}
    nested = {"processor_config.json": {"video_processor": IMAGE, "num_query_tokens": QUERIES, "processor_class": "InstructBlipVideoProcessor"}}
    return {
        "instructblip": {**with_class("InstructBlipProcessor"), "tokenizer": "llama"},
        "blip_2_opt": {**with_class("Blip2Processor"), "tokenizer": "opt"},
        "blip_2_t5": {**with_class("Blip2Processor"), "tokenizer": "t5", "config": {"padding_side": "left"}},
        "blip_2_without_queries": {**v4, "tokenizer": "opt"},
        "video_vicuna": {**nested, "tokenizer": "llama", "config": {"padding_side": "left"}},
        "video_t5": {**queries, **video_v4, "tokenizer": "t5"},
        "video_max_length": {**nested, "tokenizer": "llama", "config": {"max_length": 12}},
    }


def calls():
    """[text, number of images or videos, options]"""
    both = [
        {},
        {"add_special_tokens": False},
        {"padding": True},
        {"padding": True, "padding_side": "right"},
        {"padding": "longest", "padding_side": "left"},
        {"padding": "max_length", "max_length": 24, "truncation": True},
        {"padding": True, "pad_to_multiple_of": 8},
        {"padding": True, "truncation": True, "max_length": 11},
    ]
    out = [[SINGLE, n, o] for o in both for n in (0, 1)]
    out += [[BATCH, n, o] for o in both if o.get("padding") for n in (0, 3)]
    return [*out, ["", 1, {}], [None, 1, {}], [None, 2, {}], [None, 0, {}]]


def image_calls():
    """Calls that the video's processor does not understand: it passes what it does not know on to the tokenizers."""
    spelt_out = {"stride": 0, "return_token_type_ids": False, "return_length": False, "verbose": True}
    return [
        [SINGLE, 1, {"size": {"height": 20, "width": 24}, "do_normalize": False}],
        [SINGLE, 1, {"text_kwargs": {"padding": "max_length", "max_length": 24}, "images_kwargs": {"resample": 2}}],
        [SINGLE, 1, {"text_kwargs": {"padding": True}, "padding": False}],
        [SINGLE, 1, spelt_out],
    ]


def video_feature(processor, text, videos, options):
    frames = [[processors.image(FRAMES * v + f) for f in range(FRAMES)] for v in range(videos)]
    out = processor(images=frames or None, text=text, **options)
    return plain(out)


def plain(out):
    result = {k: [list(row) for row in v] for k, v in out.items() if k != "pixel_values"}
    if "pixel_values" in out:
        values = np.stack(out["pixel_values"]).astype(np.float32)
        result["pixel_values"] = [list(values.shape), image_files.sha(values)]
    return result


def video_processor(path, config):
    """InstructBlipVideoProcessor with PIL's pixels; made by hand, for from_pretrained insists on torchvision."""
    image_processor = BlipImageProcessorPil(**{k: v for k, v in config.items() if k != "image_processor_type"})

    class Frames:
        model_input_names = ["pixel_values"]

        def __call__(self, videos, return_tensors=None):
            return {"pixel_values": [np.stack(image_processor(frames)["pixel_values"]) for frames in videos]}

    processor = InstructBlipVideoProcessor.__new__(InstructBlipVideoProcessor)
    check, ProcessorMixin.__init__ = ProcessorMixin.__init__, lambda self, *parts: None
    try:
        tokenizer, qformer = AutoTokenizer.from_pretrained(path), AutoTokenizer.from_pretrained(f"{path}/qformer_tokenizer")
        processor.__init__(Frames(), tokenizer, qformer, num_query_tokens=QUERIES)
    finally:
        ProcessorMixin.__init__ = check
    processor.video_processor, processor.tokenizer, processor.qformer_tokenizer = Frames(), tokenizer, qformer
    return processor


def image_processor_of(path):
    """The class that AutoProcessor picks, and an instance with PIL's pixels."""
    processor = AutoProcessor.from_pretrained(path)
    assert isinstance(processor.image_processor, BlipImageProcessorPil), "goldens need the PIL image processor"
    return type(processor).__name__, processor


def goldens(tokenizers, outcome):
    """As processors.goldens, and the class of each folder; of what it saves, processor_config.json."""
    result = {"folders": folders(tokenizers), "calls": calls(), "image_calls": image_calls(), "classes": {}, "outcomes": {}, "saved": {}}
    for name, folder in result["folders"].items():
        with tempfile.TemporaryDirectory() as path, tempfile.TemporaryDirectory() as again:
            processors.written(tokenizers, folder, path)
            if name.startswith("video"):
                processor = video_processor(path, IMAGE)
                result["classes"][name] = type(processor).__name__
                result["outcomes"][name] = [outcome(lambda c=c: video_feature(processor, *c)) for c in calls()]
                continue
            result["classes"][name], processor = image_processor_of(path)
            result["outcomes"][name] = [outcome(lambda c=c: processors.feature(processor, *c)) for c in calls() + image_calls()]
            processor.save_pretrained(again)
            result["saved"][name] = (Path(again) / "processor_config.json").read_text(encoding="utf-8")
    return result
