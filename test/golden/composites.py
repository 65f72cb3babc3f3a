"""Small random composites, InstructBLIP's and its siblings': what the goldens are made of.

A composite is a model with Hugging Face's own classes, its processor with two freshly trained tokenizers, its prompts
and its images. A *spec*, a plain dictionary, says everything about one but its random numbers: NAMED holds those of
the committed goldens, `random_spec` draws any number of others, `build` makes the composite. Nothing is downloaded and
nothing is read from the disk. Running a composite and recording what comes out is make.py's work, not this file's.

A new language model is one more entry in BACKBONES, another sibling one more in MODELS.
"""

import contextlib
import copy
import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import nn
from transformers import (
    AddedToken,
    AutoTokenizer,
    BertTokenizer,
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    GPT2Tokenizer,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
    InstructBlipVideoConfig,
    InstructBlipVideoForConditionalGeneration,
    InstructBlipVideoProcessor,
    LlamaConfig,
    LlamaTokenizer,
    OPTConfig,
    PreTrainedTokenizerFast,
    ProcessorMixin,
    T5Config,
    T5Tokenizer,
)
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

import weights

# ---------------------------------------------------------------------------------------------------------------------
# Text

CORPUS = """
What is unusual about this image? The unusual aspect of this image is that a man is ironing clothes on a yellow car.
Question: how many shapes are there? Short answer: three. Question: which colour is the circle? Short answer: red.
Describe the image in details. Write a short description for the image. Write a detailed description of the picture.
A red circle and two blue squares stand on a grey field. The green triangle is above the yellow square, to the left.
Is there a person in the picture? Yes, there is. No, there is not. Where is the dog? The dog is on the beach.
A woman sits on the sand with her dog; the sun is low, the sea is calm. It's 12:45 and the shop isn't open yet.
What colour are the clouds? White, grey and a little orange. How many windows can you count? I count 24 windows.
The image features a busy street with cars, taxis and people walking. Choose one: (a) cat (b) dog (c) neither.
"""

PROMPTS = [
    "What is unusual about this image?",
    "Describe the image in details.",
    "Write a short description for the image.",
    "Question: how many shapes are there? Short answer:",
    "a photo of",
    "Is the CIRCLE above the Square?",
    "Where's the dog?  (two spaces)",
    "What does the sign say? “CAFÉ à côté”",  # accents, curly quotes: stripped by BERT, bytes for Llama
    "图片里有什么？",  # CJK: single characters for BERT, byte fallback for Llama
    "smile 😀 or not?",  # outside the basic plane: four byte tokens
    " leading space",
    "line one\nline two",
    "1, 2, 3... 17 + 4 = ?",
    "colour",
    "?",
    "Zürich, naïve, ﬁn, №5",  # characters that NFD and NFKC treat differently
    "Does the text <s> or [SEP] matter?",  # special tokens spelled out in a prompt
    "glued</s>together",
]


def learn_pieces(pre_tokenizer, normalizer, size):
    """The vocabulary (single characters first) and the merges of a byte-pair encoding learned on CORPUS."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        trained.normalizer = normalizer
    trained.train_from_iterator(CORPUS.strip().split("\n"), trainers.BpeTrainer(vocab_size=size, show_progress=False))
    model = json.loads(trained.to_str())["model"]
    return sorted(model["vocab"], key=model["vocab"].get), [tuple(pair) for pair in model["merges"]]


def train_language_tokenizer(spec):
    """The tokenizer of the language model, by its `form`: see the three below."""
    return {"t5": train_t5_tokenizer, "gpt2": train_gpt2_tokenizer}.get(spec["form"], train_llama_tokenizer)(spec)


def with_padding_side(spec, saved):
    """Adds the key where the spec has it. Its presence matters: the processor passes it to BERT too."""
    return saved if spec["padding_side"] is None else {**saved, "padding_side": spec["padding_side"]}


def train_t5_tokenizer(spec):
    """T5's Unigram: <pad>, </s>, <unk>, the learned pieces, T5's hundred sentinels, <image>. Ends each text by </s>.

    The library's Unigram trainer gives other ids at every run, so the pieces are a BPE's; longer ones score higher.
    """
    pieces, _ = learn_pieces(pre_tokenizers.Metaspace(prepend_scheme="always"), None, spec["pieces"])
    scores = [(piece, -8.0 + 2.0 * len(piece) - 0.01 * i) for i, piece in enumerate(pieces)]
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -30.0), *scores]
    return T5Tokenizer(vocab=vocab, **with_padding_side(spec, {"truncation_side": "left"}))


def train_gpt2_tokenizer(spec):
    """OPT's tokenizer: a byte-level BPE with <s>, <pad> and </s> in front, then <image>. Adds nothing to a text."""
    pieces, merges = learn_pieces(pre_tokenizers.ByteLevel(add_prefix_space=False), None, spec["pieces"])
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<s>", "<pad>", "</s>", *letters, *(piece for piece in pieces if piece not in letters)]
    vocab = {token: i for i, token in enumerate(tokens)}
    saved = {"bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>", "pad_token": "<pad>"}
    return GPT2Tokenizer(vocab=vocab, merges=merges, **with_padding_side(spec, saved))


def train_llama_tokenizer(spec):
    """A Llama-type byte-fallback BPE: 3 special ids, 256 bytes, the learned pieces, then [PAD] and <image>.

    `form` "llama" is what transformers 5 writes: spaces by a Metaspace pre-tokenizer. "normalizer" and "converted" have
    the tokenizer.json of files made before: spaces by a normalizer, no pre-tokenizer. See `respell_processor`.
    """
    pieces, merges = learn_pieces(pre_tokenizers.Metaspace(prepend_scheme="first"), None, spec["pieces"])
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    vocab = {token: i for i, token in enumerate(tokens)}

    # Vicuna's three special tokens are all </s>, so that its prompts start with 2 rather than 1.
    bos, unk = spec["bos"], "<unk>" if spec["bos"] == "<s>" else "</s>"
    saved = {
        "bos_token": bos, "eos_token": "</s>", "unk_token": unk, "pad_token": "[PAD]", "truncation_side": "left",
        "clean_up_tokenization_spaces": False,
    }
    saved = with_padding_side(spec, saved)
    if spec["form"] == "llama":
        # Without add_bos_token=True the fast Llama class of transformers 5 adds no BOS at all.
        return LlamaTokenizer(vocab=vocab, merges=merges, add_bos_token=True, **saved)

    backend = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token=unk, fuse_unk=True, byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, vocab[bos])]
    )
    names = ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_input_names=names, **saved)


def train_qformer_tokenizer(words):
    """BERT's lower-casing WordPiece with `words` entries and one added token, [DEC].

    The library's own WordPiece trainer gives other ids at every run; its BPE trainer does not, so the pieces are BPE's.
    """
    normalizer, split = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    pieces, _ = learn_pieces(split, normalizer, words)
    seen = {word for word, _ in split.pre_tokenize_str(normalizer.normalize_str(CORPUS))}
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    for piece in pieces:
        if any(word.startswith(piece) for word in seen):
            tokens.append(piece)
        if any(piece in word[1:] for word in seen):
            tokens.append(f"##{piece}")
    vocab = {token: i for i, token in enumerate(tokens[:words])}
    return BertTokenizer(vocab=vocab, bos_token="[DEC]", truncation_side="left")


# ---------------------------------------------------------------------------------------------------------------------
# Pictures


def draw_image(rng, mode):
    """A PIL image of an odd size: coarse colour noise, a few shapes, fine noise. `mode` is PIL's (RGB, RGBA, L, P)."""
    width, height = (int(n) for n in rng.integers(9, 80, 2))
    coarse = rng.integers(0, 256, (int(rng.integers(1, 5)), int(rng.integers(1, 5)), 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(1, 5))):
        x, y = int(rng.integers(-5, width)), int(rng.integers(-5, height))
        box = [x, y, x + int(rng.integers(3, width)), y + int(rng.integers(3, height))]
        colour = tuple(int(c) for c in rng.integers(0, 256, 3))
        getattr(draw, ("ellipse", "rectangle")[int(rng.integers(2))])(box, fill=colour)
    noise = rng.integers(-20, 21, (height, width, 3))
    pixels = np.clip(np.asarray(image).astype(int) + noise, 0, 255).astype(np.uint8)
    if mode == "RGBA":  # transparent places keep their colour: Hugging Face drops alpha without compositing
        alpha = rng.integers(0, 256, (height, width, 1), dtype=np.uint8)
        return Image.fromarray(np.concatenate([pixels, alpha], axis=2))
    return Image.fromarray(pixels).convert(mode)


# ---------------------------------------------------------------------------------------------------------------------
# Specs

DEFAULTS = {
    "description": "",
    "backbone": "llama",
    "vision": {
        "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 44, "num_hidden_layers": 2,
        "image_size": 28, "patch_size": 7, "hidden_act": "gelu", "layer_norm_eps": 1e-6, "qkv_bias": True,
    },
    "qformer": {
        "hidden_size": 28, "num_attention_heads": 4, "intermediate_size": 40, "num_hidden_layers": 3,
        "cross_attention_frequency": 2, "hidden_act": "gelu", "layer_norm_eps": 1e-12, "max_position_embeddings": 48,
    },
    "text": {
        "hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 8, "intermediate_size": 48,
        "num_hidden_layers": 2, "hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
        "max_position_embeddings": 2048, "attention_bias": False, "mlp_bias": False,
    },
    "num_query_tokens": 5,
    # pieces: learned BPE pieces and letters; words: WordPiece entries; form: see train_language_tokenizer;
    # legacy: a key of tokenizer_config.json that LlamaTokenizer heeds; padding_side: null leaves the key out
    "tokenizer": {"pieces": 96, "words": 130, "form": "llama", "bos": "<s>", "legacy": None, "padding_side": None},
    "extra_rows": 0,  # embedding rows beyond the tokenizer's ids, as padded vocabularies have
    "extra_qformer_rows": 0,
    "position_room": None,  # text max_position_embeddings = prompt length + this many
    "pad": True,  # text_config.pad_token_id: the tokenizer's, or null (then generate() fills with the first eos)
    "eos": "call",  # an eos in the middle of a row through text_config ("config", "list") or generate() ("call")
    "prompts": ["What is unusual about this image?"],
    "modes": ["RGB"],
    "dtype": "float32",  # of the file
    "max_shard_size": None,
    "weights_stored": False,  # of a committed golden: the files themselves stay beside weights.json
    "spelling": "v5",  # of config.json and the processor's files: transformers 5 or 4
    "misleading_generation_config": False,
    "weight_scale": 1.3,  # of every matrix, over sqrt(fan in)
    "logit_scale": 4.0,  # the logits' standard deviation, but for the ids of single bytes: times byte_scale
    "byte_scale": 0.4,  # 1: mostly bytes, and mostly not UTF-8, are generated
}

NAMED = {
    "plain_f32": {
        "description": "One image, one prompt, nothing odd: the first golden to look at. No padding_side key, "
        "transformers 5 files.",
    },
    "grouped_heads_bf16": {
        "description": "Grouped key/value heads (6 over 2), bf16 weights, three prompts under left padding with the "
        "padding_side key, so that BERT pads left too; the eos of text_config ends a row early.",
        "vision": {"hidden_size": 24, "intermediate_size": 32, "image_size": 21},
        "qformer": {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2},
        "text": {"hidden_size": 36, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 10,
                 "intermediate_size": 38, "rope_theta": 500000.0},
        "num_query_tokens": 4,
        "tokenizer": {"padding_side": "left"},
        "extra_rows": 3,
        "eos": "config",
        "prompts": ["Is the CIRCLE above?", "a photo of", "colour"],
        "modes": ["RGB", "RGBA", "RGB"],
        "dtype": "bfloat16",
        "misleading_generation_config": True,
    },
    "head_dim_88_f16": {
        "description": "The real ViT's head dimension, 88, in two heads, with f16 weights; two prompts, no "
        "padding_side key: Llama pads left and BERT right.",
        "vision": {"hidden_size": 176, "num_attention_heads": 2, "intermediate_size": 30, "num_hidden_layers": 1,
                   "image_size": 12, "patch_size": 4},
        "qformer": {"hidden_size": 24, "num_hidden_layers": 2, "intermediate_size": 32},
        "text": {"hidden_size": 24, "num_hidden_layers": 1, "intermediate_size": 40},
        "prompts": ["What is unusual about this image?", "a photo of"],
        "modes": ["RGB", "RGB"],
        "dtype": "float16",
    },
    "odd_widths": {
        "description": "No width is a multiple of 4 where it need not be: ff 37 and 41, odd vocabularies, a head_dim "
        "that is not hidden/heads, 9 patches and pixels beyond the last; epsilons large enough to matter; too few "
        "positions for the default 20 tokens.",
        "vision": {"hidden_size": 35, "num_attention_heads": 5, "intermediate_size": 37, "image_size": 17,
                   "patch_size": 5, "layer_norm_eps": 3e-3},
        "qformer": {"hidden_size": 39, "num_attention_heads": 3, "intermediate_size": 29, "num_hidden_layers": 2,
                    "layer_norm_eps": 2e-3},
        "text": {"hidden_size": 27, "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 10,
                 "intermediate_size": 41, "rms_norm_eps": 5e-3, "rope_theta": 1000.0},
        "num_query_tokens": 7,
        "tokenizer": {"pieces": 100, "words": 131},
        "extra_rows": 2,
        "extra_qformer_rows": 1,
        "position_room": 9,
        "pad": False,
        "eos": "config",
        "prompts": ["colour", "Where's the dog?  (two spaces)"],
        "modes": ["L", "RGB"],
    },
    "bias_variants": {
        "description": "Every optional bias turned about (no qkv bias in the ViT, biases in the language model), other "
        "activations, one query token, right padding, f16, transformers 4 files; generates many lone bytes.",
        "vision": {"qkv_bias": False, "hidden_act": "gelu_new", "hidden_size": 40, "num_attention_heads": 5,
                   "image_size": 21},
        "qformer": {"hidden_act": "relu", "hidden_size": 36, "num_attention_heads": 3, "num_hidden_layers": 2,
                    "intermediate_size": 29},
        "text": {"attention_bias": True, "mlp_bias": True, "hidden_act": "gelu", "hidden_size": 24,
                 "num_key_value_heads": 2, "head_dim": 6, "intermediate_size": 31},
        "num_query_tokens": 1,
        "tokenizer": {"padding_side": "right", "form": "normalizer"},
        "prompts": ["smile 😀 or not?", "colour", " leading space"],
        "modes": ["RGB", "P", "RGB"],
        "dtype": "float16",
        "spelling": "v4",
        "byte_scale": 1.0,
    },
    "cross_frequency_1": {
        "description": "Cross-attention in every Q-Former layer, 32 query tokens, 49 patches of 5 pixels, Vicuna's "
        "special tokens (prompts start with </s>) in an old tokenizer.json, a list of eos ids, transformers 4 files.",
        "vision": {"hidden_size": 24, "num_attention_heads": 3, "intermediate_size": 37, "image_size": 35,
                   "patch_size": 5, "layer_norm_eps": 1e-5},
        "qformer": {"cross_attention_frequency": 1, "hidden_size": 36, "num_attention_heads": 3,
                    "num_hidden_layers": 2},
        "text": {"hidden_size": 24, "num_attention_heads": 3, "num_key_value_heads": 3, "intermediate_size": 41},
        "num_query_tokens": 32,
        "tokenizer": {"bos": "</s>", "form": "converted", "legacy": True},
        "eos": "list",
        "prompts": [" CAFÉ à côté?"],
        "spelling": "v4",
        "misleading_generation_config": True,
    },
    "cross_frequency_3_sharded": {
        "description": "Cross-attention in layers 0 and 3 of four, bf16 weights in several files with an index, three "
        "images under left padding with no padding_side key.",
        "vision": {"hidden_size": 24, "intermediate_size": 32, "image_size": 15, "patch_size": 5},
        "qformer": {"cross_attention_frequency": 3, "num_hidden_layers": 4, "hidden_size": 24, "intermediate_size": 30},
        "text": {"num_key_value_heads": 1, "rope_theta": 25000.0, "intermediate_size": 40, "num_hidden_layers": 1},
        "num_query_tokens": 4,
        "prompts": ["Where's the dog?", "?", "a photo of"],
        "modes": ["RGB", "RGB", "RGB"],
        "dtype": "bfloat16",
        "max_shard_size": "40KB",
        "weights_stored": True,
    },
    "t5_flan": {
        "description": "Flan-T5 as InstructBLIP has it: gated feed-forward with erf GELU, a head of its own that is not "
        "scaled; heads wider together than the model, fewer decoder than encoder layers; two prompts, padded right.",
        "backbone": "t5",
        "vision": {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 1, "image_size": 21},
        "qformer": {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2},
        "text": {"num_layers": 3, "num_decoder_layers": 2},
        "eos": "config",
        "prompts": ["What is unusual about this image?", "a photo of"],
        "modes": ["RGB", "RGB"],
    },
    "t5_plain_tied_bf16": {
        "description": "The first T5: plain feed-forward with ReLU, the embedding as the head, its input scaled; stored "
        "under the decoder's name, bf16; three prompts padded left, where pads count as positions; version 4 files.",
        "backbone": "t5",
        "vision": {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 1, "image_size": 21},
        "qformer": {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2},
        "text": {"d_model": 36, "num_heads": 3, "d_kv": 10, "num_layers": 2, "num_decoder_layers": 1,
                 "feed_forward_proj": "relu", "dense_act_fn": None, "scale_decoder_outputs": True},
        "num_query_tokens": 4,
        "tokenizer": {"padding_side": "left"},
        "tied": True,
        "alias": "decoder.embed_tokens",
        "prompts": ["Where's the dog?  (two spaces)", "?", "colour"],
        "modes": ["RGB", "L", "RGB"],
        "dtype": "bfloat16",
        "spelling": "v4",
    },
    "t5_odd_f16": {
        "description": "No width a multiple of 4, tanh GELU by feed_forward_proj alone, a tied head that is not scaled, "
        "stored under the encoder's name, few buckets over a short distance, a large epsilon, 17 query tokens, f16.",
        "backbone": "t5",
        "vision": {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 1, "image_size": 21},
        "qformer": {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2},
        "text": {"d_model": 27, "num_heads": 3, "d_kv": 7, "d_ff": 41, "relative_attention_num_buckets": 10,
                 "relative_attention_max_distance": 19, "layer_norm_epsilon": 5e-3, "dense_act_fn": None},
        "num_query_tokens": 17,
        "extra_rows": 2,
        "tied": True,
        "alias": "encoder.embed_tokens",
        "eos": "list",
        "prompts": ["Question: how many shapes are there? Short answer:"],
        "dtype": "float16",
    },
    "opt_plain": {
        "description": "OPT as most are: norms before, ReLU, biases, a tied head that the file lacks; two prompts padded "
        "left, which shifts no position.",
        "backbone": "opt",
        "vision": {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 1, "image_size": 21},
        "qformer": {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2},
        "tokenizer": {"padding_side": "left"},
        "eos": "config",
        "prompts": ["Is the CIRCLE above?", "a photo of"],
        "modes": ["RGB", "RGB"],
    },
    "opt_post_norm_f16": {
        "description": "OPT-350M: norms after, embeddings half as wide as the model and projected in and out, f16; two "
        "prompts padded right. The image features are wider than the embeddings: Hugging Face fills them in regardless.",
        "backbone": "opt",
        "vision": {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 1, "image_size": 21},
        "qformer": {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2},
        "text": {"do_layer_norm_before": False, "word_embed_proj_dim": 16},
        "num_query_tokens": 4,
        "prompts": ["Is the CIRCLE above?", "a photo of"],
        "modes": ["RGB", "RGB"],
        "dtype": "float16",
        "spelling": "v4",
    },
    "opt_bare": {
        "description": "OPT without biases, without weights in its norms, without a last norm, with a head of its own; "
        "odd widths, GELU.",
        "backbone": "opt",
        "vision": {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 1, "image_size": 21},
        "qformer": {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2},
        "text": {"hidden_size": 27, "num_attention_heads": 3, "ffn_dim": 41, "activation_function": "gelu",
                 "enable_bias": False, "layer_norm_elementwise_affine": False, "_remove_final_layer_norm": True,
                 "tie_word_embeddings": False},
        "extra_rows": 3,
    },
}


# What is small in all of the siblings' goldens.
SMALL = {
    "vision": {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 1, "image_size": 21},
    "qformer": {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2},
    "num_query_tokens": 3,
}
TWO = {"prompts": ["Is the CIRCLE above?", "a photo of"], "modes": ["RGB", "RGB"]}

# Keys that only these have. model: one of MODELS, "instructblip" if absent; frames: images a prompt, of a video;
# pixels: [height, width] of images that the positions are resized for; legacy: no placeholders, features in front.
SIBLINGS = {
    "blip2_opt": {
        **SMALL, **TWO,
        "description": "BLIP-2 with OPT: queries only in the Q-Former; two prompts padded left, and no prompt at all.",
        "model": "blip-2",
        "backbone": "opt",
        "qformer": {**SMALL["qformer"], "num_hidden_layers": 3},
        "tokenizer": {"padding_side": "left"},
        "eos": "config",
    },
    "blip2_t5_f16": {
        **SMALL, **TWO,
        "description": "BLIP-2 with Flan-T5 in f16, where the Q-Former stays in f32; its layers have the feed-forward for "
        "text that use_qformer_text_input asks for and nothing runs.",
        "model": "blip-2",
        "backbone": "t5",
        "qformer": {**SMALL["qformer"], "use_qformer_text_input": True},
        "dtype": "float16",
    },
    "blip2_llama_wide": {
        **SMALL,
        "description": "BLIP-2 with Llama on an image twice as wide as high, with pixels beyond the last patches.",
        "model": "blip-2",
        "pixels": [23, 44],
        "eos": "config",
    },
    "video_1_frame": {
        **SMALL,
        "description": "A video of one frame, Llama.",
        "model": "instructblipvideo",
        "frames": 1,
    },
    "video_3_frames_t5": {
        **SMALL, **TWO,
        "description": "Two videos of three frames, Flan-T5, prompts padded right.",
        "model": "instructblipvideo",
        "frames": 3,
        "modes": ["RGB"] * 6,
        "backbone": "t5",
        "eos": "config",
    },
    "video_4_frames": {
        **SMALL, **TWO,
        "description": "Two videos of four frames, as many as Hugging Face's processor gives; Llama, padded left, BERT too.",
        "model": "instructblipvideo",
        "frames": 4,
        "modes": ["RGB"] * 8,
        "tokenizer": {"padding_side": "left"},
        "eos": "config",
    },
    "larger_image": {
        **SMALL, **TWO,
        "description": "Images of 42 pixels for positions learned at 21.",
        "pixels": [42, 42],
    },
    "smaller_image": {
        **SMALL,
        "description": "An image of 16 pixels, two patches a side, for positions learned at 21; OPT.",
        "backbone": "opt",
        "pixels": [16, 16],
    },
    "tall_image_t5": {
        **SMALL,
        "description": "An image of as many patches as there are positions, 9 by 1 instead of 3 by 3; Flan-T5.",
        "backbone": "t5",
        "pixels": [65, 9],
    },
    "legacy_llama": {
        **SMALL, **TWO,
        "description": "No image_token_index: features in front of the prompt. Llama, padded left.",
        "tokenizer": {"padding_side": "left"},
        "legacy": True,
        "eos": "config",
    },
    "legacy_blip2_opt": {
        **SMALL, **TWO,
        "description": "BLIP-2 without image_token_index, OPT, prompts padded right.",
        "model": "blip-2",
        "backbone": "opt",
        "tokenizer": {"padding_side": "right"},
        "legacy": True,
        "eos": "list",
    },
    "legacy_video_t5": {
        **SMALL, **TWO,
        "description": "Two videos of two frames without video_token_index, Flan-T5.",
        "model": "instructblipvideo",
        "frames": 2,
        "modes": ["RGB"] * 4,
        "backbone": "t5",
        "legacy": True,
        "eos": "config",
    },
}


def named_spec(name):
    """The spec of a committed golden: DEFAULTS, its backbone's and its own differences laid over, one level deep."""
    named = {**NAMED, **SIBLINGS}[name]
    backbone = BACKBONES[named.get("backbone", DEFAULTS["backbone"])]
    spec = copy.deepcopy({**DEFAULTS, **backbone.DEFAULTS})
    for key, value in named.items():
        spec[key] = {**spec[key], **value} if isinstance(value, dict) else value
    return spec


def random_spec(rng, backbones):
    """A spec with every size and every choice drawn from `rng`: InstructBLIP's, more often than not, or a sibling's."""
    spec = copy.deepcopy(DEFAULTS)

    def pick(*options):
        return options[int(rng.integers(len(options)))]

    def between(low, high):
        return int(rng.integers(low, high + 1))

    def chance(probability):
        return bool(rng.random() < probability)

    heads = between(1, 5)
    head_dim = 88 if chance(0.1) else between(4, 20)
    patch = pick(4, 5, 7, 14)
    grid = between(1, 3 if patch == 14 else 7)
    spec["vision"] = {
        "hidden_size": heads * head_dim, "num_attention_heads": heads, "intermediate_size": between(9, 90),
        "num_hidden_layers": between(1, 3), "patch_size": patch,
        "image_size": patch * grid + (between(1, patch - 1) if chance(0.25) else 0),
        "hidden_act": pick("gelu", "gelu", "gelu", "gelu_new", "relu", "silu"),
        "layer_norm_eps": pick(1e-6, 1e-5, 1e-2), "qkv_bias": chance(0.7),
    }
    heads = between(1, 4)
    spec["qformer"] = {
        "hidden_size": heads * between(4, 16), "num_attention_heads": heads, "intermediate_size": between(9, 90),
        "num_hidden_layers": between(1, 4), "cross_attention_frequency": between(1, 3),
        "hidden_act": pick("gelu", "gelu", "gelu", "gelu_new", "relu", "silu"),
        "layer_norm_eps": pick(1e-12, 1e-5, 1e-2), "max_position_embeddings": between(72, 130),
    }
    spec["backbone"] = pick(*backbones)
    backbone = BACKBONES[spec["backbone"]]
    spec["text"] = backbone.draw_text(pick, between, chance)
    spec["num_query_tokens"] = pick(1, 2, 5, 8, 17, 32)
    spec["tokenizer"] = {
        "pieces": between(70, 160), "words": between(90, 220), "form": pick(*backbone.TOKENIZERS),
        "bos": pick("<s>", "</s>"), "legacy": pick(None, True, False), "padding_side": pick(None, "left", "right"),
    }
    spec["extra_rows"] = pick(0, 1, 2, 5, 9)
    spec["extra_qformer_rows"] = pick(0, 0, 1, 3)
    spec["position_room"] = between(3, 15) if chance(0.15) and backbone.RUNS_PAST_POSITIONS else None
    spec["pad"] = chance(0.6)
    spec["eos"] = pick("config", "list", "call")
    batch = pick(1, 2, 3)
    spec["prompts"] = [PROMPTS[i] for i in rng.permutation(len(PROMPTS))[:batch]]
    spec["modes"] = [pick("RGB", "RGB", "RGB", "RGBA", "L", "P") for _ in range(batch)]
    spec["dtype"] = pick("float32", "bfloat16", "float16")
    spec["max_shard_size"] = "40KB" if chance(0.2) else None
    spec["spelling"] = pick("v5", "v4")
    spec["misleading_generation_config"] = chance(0.5)
    spec["weight_scale"] = 1 + 0.5 * float(rng.random())
    spec["logit_scale"] = 3.2 + 1.6 * float(rng.random())
    spec["byte_scale"] = pick(0.4, 0.4, 0.4, 1.0)
    spec.update(backbone.draw_more(pick, chance))
    spec.update(draw_sibling(spec, pick, between, chance))
    if chance(0.4):
        spec["massive"] = True
    return spec


def draw_sibling(spec, pick, between, chance):
    """What a random spec has besides, or otherwise, if it is not plain InstructBLIP's."""
    model = pick(*["instructblip"] * 6, *["blip-2"] * 3, *["instructblipvideo"] * 2)
    more = {} if model == "instructblip" else {"model": model}
    if model == "blip-2":
        more["qformer"] = {**spec["qformer"], "use_qformer_text_input": chance(0.3)}
    if model == "instructblipvideo":
        more["frames"] = between(1, 5)
        more["modes"] = [pick("RGB", "RGB", "RGBA", "L") for _ in range(more["frames"] * len(spec["prompts"]))]
        more["num_query_tokens"] = pick(1, 2, 5, 8)  # of each frame: OPT has no positions for many more
    if chance(0.3):
        size = spec["vision"]["image_size"]
        more["pixels"] = [between(spec["vision"]["patch_size"], size + size // 2 + 20) for _ in range(2)]
    narrow = spec["text"].get("word_embed_proj_dim")  # features do not fit in front of embeddings of another width
    if chance(0.2) and not narrow and spec["position_room"] is None:
        more["legacy"] = True
    return more


# ---------------------------------------------------------------------------------------------------------------------
# Language models


class Llama:
    """Everything that is particular to a Llama language model."""

    DEFAULTS = {}
    TOKENIZERS = ("llama", "normalizer", "converted")
    RUNS_PAST_POSITIONS = True  # rotary: more tokens than max_position_embeddings are no error

    @staticmethod
    def draw_text(pick, between, chance):
        """The text part of a random spec."""
        kv_heads = between(1, 3)
        heads = kv_heads * between(1, 3)
        head_dim = 2 * between(2, 9)  # rotary pairs: even
        width = head_dim if chance(0.4) else between(4, 16)
        return {
            "hidden_size": heads * width, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
            "head_dim": head_dim, "intermediate_size": between(9, 90), "num_hidden_layers": between(1, 3),
            "hidden_act": pick("silu", "silu", "silu", "gelu"), "rms_norm_eps": pick(1e-6, 1e-5, 1e-2),
            "rope_theta": pick(10000.0, 1000.0, 500000.0), "max_position_embeddings": 2048,
            "attention_bias": chance(0.3), "mlp_bias": chance(0.3),
        }

    @staticmethod
    def draw_more(_pick, _chance):
        """What a random spec of this language model has besides."""
        return {}

    @staticmethod
    def config(text, **ids):
        """LlamaConfig with the rotary base under its transformers 5 name."""
        text = dict(text)
        rope = {"rope_type": "default", "rope_theta": text.pop("rope_theta")}
        return LlamaConfig(**text, rope_parameters=rope, **ids)

    @staticmethod
    def respell(text):
        """The JSON of `text_config` as transformers 4 and the converted Vicuna checkpoints write it."""
        rope = text.pop("rope_parameters")
        text["rope_theta"] = rope["rope_theta"]
        text["rope_scaling"] = None
        text["architectures"] = ["LLaMAForCausalLM"]


class T5:
    """Everything that is particular to a T5 language model: encoder and decoder, no positions but relative ones."""

    DEFAULTS = {
        "text": {
            "d_model": 24, "num_heads": 4, "d_kv": 8, "d_ff": 40, "num_layers": 2, "num_decoder_layers": None,
            "relative_attention_num_buckets": 32, "relative_attention_max_distance": 128, "layer_norm_epsilon": 1e-6,
            # dense_act_fn: null leaves the key out; scale_decoder_outputs: null leaves it to tie_word_embeddings
            "feed_forward_proj": "gated-gelu", "dense_act_fn": "gelu", "scale_decoder_outputs": False,
        },
        "tokenizer": {"pieces": 96, "words": 130, "form": "t5", "bos": None, "legacy": None, "padding_side": None},
        "tied": False,  # whether the head is the embedding
        "alias": "shared",  # the name the embedding has in the file: HF writes one of three
    }
    TOKENIZERS = ("t5",)
    RUNS_PAST_POSITIONS = False

    @staticmethod
    def draw_text(pick, between, chance):
        """The text part of a random spec."""
        layers = between(1, 3)  # the decoder has no more: generate() of transformers 5.18 makes a cache for these only
        return {
            "d_model": between(9, 48), "num_heads": between(1, 5), "d_kv": between(3, 14), "d_ff": between(9, 90),
            "num_layers": layers, "num_decoder_layers": pick(None, between(1, layers)),
            "relative_attention_num_buckets": pick(32, 32, 8, 20), "layer_norm_epsilon": pick(1e-6, 1e-2),
            "relative_attention_max_distance": pick(128, 128, 30, 51),
            "feed_forward_proj": pick("gated-gelu", "gated-gelu", "relu", "gelu", "gated-silu"),
            "dense_act_fn": pick(None, "gelu", "relu"), "scale_decoder_outputs": pick(None, False, True),
        }

    @staticmethod
    def draw_more(pick, chance):
        """What a random spec of this language model has besides."""
        return {"tied": chance(0.5), "alias": pick("shared", "encoder.embed_tokens", "decoder.embed_tokens")}

    @staticmethod
    def config(text, *, bos_token_id, pad_token_id, **ids):
        """T5Config; generation starts from the pad token, and there is no beginning of a text."""
        text = {key: value for key, value in text.items() if value is not None}
        assert bos_token_id is None
        return T5Config(**text, **ids, pad_token_id=pad_token_id, decoder_start_token_id=0)

    @staticmethod
    def respell(text):
        """The JSON of `text_config` as transformers 4 writes it: scaling the head's input goes by the tying."""
        text.update(is_encoder_decoder=True, tie_word_embeddings=text.pop("scale_decoder_outputs"))


class OPT:
    """Everything that is particular to an OPT language model."""

    DEFAULTS = {
        "text": {
            "hidden_size": 32, "num_attention_heads": 4, "ffn_dim": 48, "num_hidden_layers": 2,
            "max_position_embeddings": 96, "activation_function": "relu", "do_layer_norm_before": True,
            "word_embed_proj_dim": None, "enable_bias": True, "layer_norm_elementwise_affine": True,
            "_remove_final_layer_norm": False, "tie_word_embeddings": True,
        },
        "tokenizer": {"pieces": 96, "words": 130, "form": "gpt2", "bos": None, "legacy": None, "padding_side": None},
    }
    TOKENIZERS = ("gpt2",)
    RUNS_PAST_POSITIONS = False  # Hugging Face fails at a position beyond the table

    @staticmethod
    def draw_text(pick, between, chance):
        """The text part of a random spec."""
        heads, head_dim = between(1, 4), 2 * between(2, 8)
        width = heads * head_dim
        return {
            "hidden_size": width, "num_attention_heads": heads, "ffn_dim": between(9, 90),
            "num_hidden_layers": between(1, 3), "max_position_embeddings": between(140, 200),
            "activation_function": pick("relu", "relu", "gelu", "silu"), "do_layer_norm_before": chance(0.6),
            "word_embed_proj_dim": width * 5 // 8 if chance(0.3) else None, "enable_bias": chance(0.7),
            "layer_norm_elementwise_affine": chance(0.7), "_remove_final_layer_norm": chance(0.3),
            "tie_word_embeddings": chance(0.7),
        }

    @staticmethod
    def draw_more(_pick, _chance):
        """What a random spec of this language model has besides."""
        return {}

    @staticmethod
    def config(text, **ids):
        """OPTConfig as it is."""
        return OPTConfig(**text, **ids)

    @staticmethod
    def respell(text):
        """The JSON of `text_config` as transformers 4 writes it; tied heads go without saying."""
        text.pop("tie_word_embeddings")


BACKBONES = {"llama": Llama, "t5": T5, "opt": OPT}


# ---------------------------------------------------------------------------------------------------------------------
# Siblings


class InstructBlip:
    """Everything that is particular to InstructBLIP itself."""

    CONFIG, MODEL = InstructBlipConfig, InstructBlipForConditionalGeneration
    PLACEHOLDER = "image"
    KEPT_IN_F32 = ("query_tokens",)

    @staticmethod
    def processor(images, tokenizer, spec):
        """The processor, which adds its placeholder to the tokenizer."""
        qformer_tokenizer = train_qformer_tokenizer(spec["tokenizer"]["words"])
        return InstructBlipProcessor(images, tokenizer, qformer_tokenizer, num_query_tokens=spec["num_query_tokens"])

    @staticmethod
    def load_processor(folder):
        """The processor of a folder."""
        return InstructBlipProcessor.from_pretrained(folder)

    @staticmethod
    def features(model, inputs, **options):
        """What get_image_features() gives for a processor's output."""
        names = ("pixel_values", "qformer_input_ids", "qformer_attention_mask")
        return model.get_image_features(**{name: inputs[name] for name in names}, **options)


class Blip2(InstructBlip):
    """BLIP-2: one tokenizer, and a Q-Former that stays in f32."""

    CONFIG, MODEL = Blip2Config, Blip2ForConditionalGeneration
    KEPT_IN_F32 = ("query_tokens", "qformer.")

    @staticmethod
    def processor(images, tokenizer, spec):
        return Blip2Processor(images, tokenizer, num_query_tokens=spec["num_query_tokens"])

    @staticmethod
    def load_processor(folder):
        return Blip2Processor.from_pretrained(folder)

    @staticmethod
    def features(model, inputs, **options):
        return model.get_image_features(inputs["pixel_values"], **options)


@dataclass
class VideoProcessor:
    """The parts of Hugging Face's, whose own class needs torchvision and counts four frames whatever it is given."""

    image_processor: BlipImageProcessorPil
    tokenizer: object
    qformer_tokenizer: object
    num_query_tokens: int

    def save_pretrained(self, folder):
        self.tokenizer.save_pretrained(folder)
        self.qformer_tokenizer.save_pretrained(folder / "qformer_tokenizer")
        about = {
            "video_processor": self.image_processor.to_dict(), "num_query_tokens": self.num_query_tokens,
            "processor_class": "InstructBlipVideoProcessor",
        }
        edit(folder / "processor_config.json", lambda new: new.update(about))

    def batch_decode(self, *arguments, **options):
        return self.tokenizer.batch_decode(*arguments, **options)

    def __call__(self, images, text, **options):
        """Hugging Face's own class on these parts, for four frames a video: `images` [B][4]. Made by hand, without torchvision."""
        frames = FramesProcessor(self.image_processor)
        processor = InstructBlipVideoProcessor.__new__(InstructBlipVideoProcessor)
        check, ProcessorMixin.__init__ = ProcessorMixin.__init__, lambda self, *parts: None
        try:
            processor.__init__(frames, self.tokenizer, self.qformer_tokenizer, num_query_tokens=self.num_query_tokens)
        finally:
            ProcessorMixin.__init__ = check
        processor.video_processor, processor.tokenizer = frames, self.tokenizer
        processor.qformer_tokenizer = self.qformer_tokenizer
        return processor(images=images, text=text, **options)


@dataclass
class FramesProcessor:
    """A video processor that gives PIL's pixels, frame by frame."""

    image_processor: BlipImageProcessorPil
    model_input_names = ("pixel_values",)

    def __call__(self, videos, return_tensors=None):
        return {"pixel_values": [np.stack(self.image_processor(frames)["pixel_values"]) for frames in videos]}


class InstructBlipVideo(InstructBlip):
    """InstructBLIP for videos."""

    CONFIG, MODEL = InstructBlipVideoConfig, InstructBlipVideoForConditionalGeneration
    PLACEHOLDER = "video"

    @staticmethod
    def processor(images, tokenizer, spec):
        tokenizer.add_tokens([AddedToken("<video>", normalized=False, special=True)], special_tokens=True)
        qformer_tokenizer = train_qformer_tokenizer(spec["tokenizer"]["words"])
        return VideoProcessor(images, tokenizer, qformer_tokenizer, spec["num_query_tokens"])

    @staticmethod
    def load_processor(folder):
        about = json.loads((folder / "processor_config.json").read_text())
        if "video_processor" not in about:
            about["video_processor"] = json.loads((folder / VIDEO_FILE).read_text())
            about["video_processor"].pop("processor_class")
        return VideoProcessor(
            BlipImageProcessorPil(**about["video_processor"]),
            AutoTokenizer.from_pretrained(folder),
            AutoTokenizer.from_pretrained(folder / "qformer_tokenizer"),
            about["num_query_tokens"],
        )

    @staticmethod
    def features(model, inputs, **options):
        names = ("pixel_values", "qformer_input_ids", "qformer_attention_mask")
        return model.get_video_features(**{name: inputs[name] for name in names}, **options)


VIDEO_FILE = "video_preprocessor_config.json"  # transformers 4's
MODELS = {"instructblip": InstructBlip, "blip-2": Blip2, "instructblipvideo": InstructBlipVideo}


def placeholder_of(model):
    """The id of one image feature in a prompt, None in a legacy model."""
    config = model.config
    return getattr(config, f"{MODELS[config.model_type].PLACEHOLDER}_token_index")


@torch.no_grad()
def forward(model, inputs, *, options, **more):
    """model(**inputs), or what that was before there were placeholders: [features; text] for the language model."""
    if placeholder_of(model) is not None:
        return model(**inputs, **options, **more, use_cache=False)
    outputs, embedded = concatenate(model, inputs, options)
    answered = model.language_model(**embedded, **more, use_cache=False)
    outputs.language_model_outputs, outputs.logits, outputs.loss = answered, answered.logits, answered.get("loss")
    return outputs


@torch.no_grad()
def generate(model, inputs, *, options, **kwargs):
    """model.generate(**inputs), or what remains of that without placeholders: embeddings and no ids."""
    with lowest_index_first():
        if placeholder_of(model) is not None:
            return model.generate(**inputs, **options, **kwargs)
        return model.language_model.generate(**concatenate(model, inputs, options)[1], **kwargs)


@contextlib.contextmanager
def lowest_index_first():
    """Has torch.topk put equal numbers in order of their index, where PyTorch leaves the order open.

    Forced ids are equally likely, and beams out of the running equally bad: who comes first is chance otherwise.
    """
    kept = torch.topk

    def topk(input, k, dim=-1, largest=True, sorted=True):
        values, indices = torch.sort(input, dim=dim, descending=largest, stable=True)
        return torch.return_types.topk((values.narrow(dim, 0, k), indices.narrow(dim, 0, k)))

    torch.topk = topk
    try:
        yield
    finally:
        torch.topk = kept


def concatenate(model, inputs, options):
    """What get_image_features() gives, and a language model's input: features in front of the text, visible."""
    features = MODELS[model.config.model_type].features(model, inputs, **options)
    text = model.get_input_embeddings()(inputs["input_ids"])
    mask = torch.ones(features.pooler_output.shape[:2], dtype=torch.int64)
    return features, {
        "inputs_embeds": torch.cat([features.pooler_output, text], 1),
        "attention_mask": torch.cat([mask, inputs["attention_mask"]], 1),
    }


# ---------------------------------------------------------------------------------------------------------------------
# Composites


@dataclass
class Composite:
    """A model in f32 whose weights are already rounded to the file's dtype, and what it is to be asked."""

    spec: dict
    model: InstructBlipForConditionalGeneration
    processor: InstructBlipProcessor
    images: list
    # What `redraw` drew each tensor from, by its name in the file.
    drawn: dict = field(default_factory=dict)

    def inputs(self):
        """The processor's output for all prompts and images, as tensors."""
        return encode(self.spec, self.processor, self.images)


def encode(spec, processor, images):
    """The one way the goldens call a processor. Returns PyTorch tensors by name."""
    prompts, frames, legacy = list(spec["prompts"]), spec.get("frames"), spec.get("legacy")
    if not frames and not legacy:
        return processor(images=images, text=prompts, padding=True, return_tensors="pt")
    inputs = {}
    if hasattr(processor, "qformer_tokenizer"):
        read = processor.qformer_tokenizer(prompts, padding=True, return_tensors="pt")
        inputs |= {"qformer_input_ids": read["input_ids"], "qformer_attention_mask": read["attention_mask"]}
    text = processor.tokenizer(prompts, padding=True, return_tensors="pt")
    inputs |= {"input_ids": text["input_ids"], "attention_mask": text["attention_mask"]}
    pixels = processor.image_processor(images, return_tensors="pt")["pixel_values"]
    inputs["pixel_values"] = pixels.unflatten(0, (len(prompts), frames)) if frames else pixels
    if not legacy:
        count = (len(prompts), frames * spec["num_query_tokens"])
        placeholders = torch.full(count, processor.tokenizer.convert_tokens_to_ids("<video>"))
        inputs["input_ids"] = torch.cat([placeholders, inputs["input_ids"]], 1)
        inputs["attention_mask"] = torch.cat([torch.ones_like(placeholders), inputs["attention_mask"]], 1)
    return inputs


def options_of(spec):
    """What forward() and generate() are given besides the processor's output."""
    return {"interpolate_pos_encoding": True} if spec.get("pixels") else {}


def build(spec, rng, folder):
    """Makes the composite of a spec and writes its processor to `folder`; randomness comes from `rng` (numpy) only."""
    sibling = MODELS[spec.get("model", "instructblip")]
    processor = write_processor(spec, folder)
    tokenizer = processor.tokenizer
    images = [draw_image(rng, mode) for mode in spec["modes"]]
    text = dict(spec["text"])
    if spec["position_room"] is not None:
        length = encode(spec, processor, images)["input_ids"].shape[1]
        text["max_position_embeddings"] = length + spec["position_room"]
    qformer = dict(spec["qformer"])
    if hasattr(processor, "qformer_tokenizer"):
        qformer["vocab_size"] = len(processor.qformer_tokenizer) + spec["extra_qformer_rows"]
    placeholder = None if spec.get("legacy") else tokenizer.convert_tokens_to_ids(f"<{sibling.PLACEHOLDER}>")
    config = sibling.CONFIG(
        vision_config=dict(spec["vision"]),
        qformer_config=qformer,
        text_config=BACKBONES[spec["backbone"]].config(
            text,
            vocab_size=len(tokenizer) + spec["extra_rows"],
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id if spec["pad"] else None,
        ).to_dict(),
        num_query_tokens=spec["num_query_tokens"],
        **{f"{sibling.PLACEHOLDER}_token_index": placeholder},
    )
    model = sibling.MODEL._from_config(config, attn_implementation="eager").eval()
    if not spec.get("tied", True):
        head = model.language_model.lm_head
        head.weight = nn.Parameter(head.weight.detach().clone())
    return Composite(spec, model, processor, images)


MASSIVE = [(1, 100.0), (-2, -1000.0)]  # columns of the image tokens, and what they are about
LARGE_BIAS = 150.0
GROWN = 16.0  # times as large is the first column that a feed-forward of the language model writes


@torch.no_grad()
def grow(model, tied):
    """Makes some channels massive and some biases large, as those of trained models are, whose sums f32 finds hard."""
    for column, size in MASSIVE:
        model.vision_model.embeddings.position_embedding[..., column] += size
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear) and path.endswith(("output_query.dense", "output.dense", "mlp.fc2")):
            if module.bias is not None:
                module.bias[0] = LARGE_BIAS
        elif not tied and path.endswith(("mlp.down_proj", "DenseReluDense.wo")):
            module.weight[0] *= GROWN


@torch.no_grad()
def redraw(composite, key):
    """Draws every parameter anew, at sizes at which it matters, and rounds it to the file's dtype. Another key, others.

    Hugging Face's own start (1e-10 in the vision tower, zero query tokens, unit gains, zero biases) hides mistakes: a
    wrong norm, a lost bias or a swapped activation would change nothing that a test could see.
    """
    spec, model = composite.spec, composite.model
    dtype = getattr(torch, spec["dtype"])
    language_model, text_config = model.language_model, model.config.text_config
    tied = language_model.lm_head.weight is language_model.get_input_embeddings().weight
    # T5 may scale the head's input by 1 / sqrt(d_model). A tied head that does so needs large inputs for large logits: a
    # large embedding would drown what the layers add to it, and one token would follow itself for ever.
    scaled = getattr(text_config, "scale_decoder_outputs", False)
    head_scale = spec["logit_scale"]
    if text_config.model_type == "opt":
        if text_config.do_layer_norm_before and text_config._remove_final_layer_norm:
            head_scale /= math.sqrt(1 + 2 * text_config.num_hidden_layers)  # about what its unnormalised inputs measure
        if text_config.word_embed_proj_dim != text_config.hidden_size:
            head_scale /= spec["weight_scale"]  # project_out's
    head_std = head_scale if scaled else head_scale / math.sqrt(language_model.lm_head.in_features)
    drawn, kept = set(), set(kept_in_f32(model).values())
    names = {parameter: name_in_file(spec, name) for name, parameter in model.named_parameters()}
    composite.drawn = {}

    def draw(parameter, mean, std, **rows):
        name, normal = names[parameter], weights.Normal(mean, std, **rows)
        parameter.copy_(torch.from_numpy(weights.draw(normal, name, parameter.shape, key)))
        if parameter not in kept:
            parameter.copy_(parameter.to(dtype))
        drawn.add(parameter)
        composite.drawn[name] = normal

    for path, module in model.named_modules():
        if isinstance(module, nn.LayerNorm) or type(module).__name__.endswith(("RMSNorm", "T5LayerNorm")):
            if module.weight is None:  # OPT without layer_norm_elementwise_affine
                continue
            large = tied and scaled and path.endswith("decoder.final_layer_norm")
            draw(module.weight, head_scale if large else 1, 0.1)
        elif getattr(module, "weight", None) is not None and module.weight in drawn:
            continue  # a tied one's other name
        elif path.endswith("lm_head"):
            ids = sorted(i for token, i in composite.processor.tokenizer.get_vocab().items() if token.startswith("<0x"))
            assert not ids or ids == list(range(ids[0], ids[-1] + 1))
            rows = {"rows": (ids[0], ids[-1] + 1), "rows_std": head_std * spec["byte_scale"]} if ids else {}
            draw(module.weight, 0, head_std, **rows)
        elif path.endswith("Attention.q"):  # T5 does not scale its scores; its queries are small instead
            draw(module.weight, 0, spec["weight_scale"] / math.sqrt(module.in_features * text_config.d_kv))
        elif isinstance(module, (nn.Linear, nn.Conv2d)):
            draw(module.weight, 0, spec["weight_scale"] / math.sqrt(module.weight[0].numel()))
        elif tied and module is language_model.get_input_embeddings():
            draw(module.weight, 0, 1 if scaled else head_std)
        elif isinstance(module, nn.Embedding):
            draw(module.weight, 0, 0.5 if "position" in path else 1)
        else:
            continue
        if getattr(module, "bias", None) is not None:
            draw(module.bias, 0, 0.1)
    draw(model.vision_model.embeddings.class_embedding, 0, 1)
    draw(model.vision_model.embeddings.position_embedding, 0, 0.7)
    draw(model.query_tokens, 0, 1)

    if spec.get("massive"):
        grow(model, tied)

    forgotten = [name for name, parameter in model.named_parameters() if parameter not in drawn]
    assert not forgotten, f"parameters without a rule: {forgotten}"


def name_in_file(spec, name):
    """What a parameter is called in the file."""
    alias = spec.get("alias", "shared")
    return f"language_model.{alias}.weight" if name == "language_model.shared.weight" else name


def kept_in_f32(model):
    """The parameters, by name, that Hugging Face keeps in f32 in half-precision models."""
    prefixes = MODELS[model.config.model_type].KEPT_IN_F32
    return {name: parameter for name, parameter in model.named_parameters() if name.startswith(prefixes)}


# ---------------------------------------------------------------------------------------------------------------------
# Checkpoint folders


def write_processor(spec, folder):
    """Writes the processor's files and returns the processor that transformers reads back from them."""
    sibling = MODELS[spec.get("model", "instructblip")]
    height, width = spec.get("pixels", [spec["vision"]["image_size"]] * 2)
    images = BlipImageProcessorPil(size={"height": height, "width": width})
    sibling.processor(images, train_language_tokenizer(spec["tokenizer"]), spec).save_pretrained(folder)
    respell_processor(spec, folder)
    return sibling.load_processor(folder)


def write_model(composite, folder):
    """Writes config.json, generation_config.json and the weights. Afterwards the model is in the file's dtype."""
    spec, model = composite.spec, composite.model
    kept = {name: parameter.detach().clone() for name, parameter in kept_in_f32(model).items()}
    model.to(getattr(torch, spec["dtype"]))
    for name, values in kept.items():
        model.get_parameter(name).data = values
    model.save_pretrained(folder, **({"max_shard_size": spec["max_shard_size"]} if spec["max_shard_size"] else {}))
    shared = "language_model.shared.weight"
    if name_in_file(spec, shared) != shared:
        rename_tensor(folder, shared, name_in_file(spec, shared))
    if spec["spelling"] == "v4":
        edit(folder / "config.json", lambda config: respell_config(config, BACKBONES[spec["backbone"]]))
    if spec["misleading_generation_config"]:
        # generate() takes its defaults from text_config; a reader that believes this file gets other tokens.
        unused = {"num_beams": 3, "max_length": 3, "repetition_penalty": 2.5, "eos_token_id": 7, "pad_token_id": 9}
        edit(folder / "generation_config.json", lambda old: [old.clear(), old.update(unused)])


def rename_tensor(folder, old, new):
    """Gives a tensor another name, in the file that has it and in the index."""
    for path in folder.glob("model*.safetensors"):
        with safe_open(path, "pt") as file:
            tensors, metadata = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()
        if old in tensors:
            save_file({new if key == old else key: tensor for key, tensor in tensors.items()}, path, metadata)
    index = folder / "model.safetensors.index.json"
    if index.exists():
        edit(index, lambda content: content["weight_map"].update({new: content["weight_map"].pop(old)}))


def edit(path, change):
    """Applies `change` to the content of a JSON file, {} if there is none yet."""
    content = json.loads(path.read_text()) if path.exists() else {}
    change(content)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False, sort_keys=True) + "\n")


def respell_config(config, backbone):
    """Rewrites config.json as transformers 4 wrote it, with the dead keys that old files carry."""
    config["torch_dtype"] = config.pop("dtype")
    parts = [config[key] for key in ("vision_config", "qformer_config", "text_config")]
    for part in parts:
        part.pop("dtype", None)
        part["torch_dtype"] = config["torch_dtype"]
    for part in (config, *parts):
        part.update(is_encoder_decoder=False, tie_word_embeddings=False)
    for part in parts:
        part.update(num_beams=4, length_penalty=1.0, min_length=0)  # base-class dumps: not generation settings
    decoder_only = config["text_config"]["model_type"] != "t5"
    config.update(transformers_version="4.57.6", use_decoder_only_language_model=decoder_only)
    config["vision_config"].update(dropout=0.0, projection_dim=512, num_channels=3)
    config["qformer_config"].update(position_embedding_type="absolute", classifier_dropout=None)
    config["qformer_config"]["encoder_hidden_size"] = 1408  # stale: transformers recomputes it from vision_config
    backbone.respell(config["text_config"])


def respell_processor(spec, folder):
    """Rewrites the processor's small files: the tokenizer's class for "converted", everything for transformers 4."""
    if spec["tokenizer"]["form"] == "converted":
        # What the converted Vicuna checkpoints have. transformers 5 then rebuilds the tokenizer from vocabulary and
        # merges with a Metaspace pre-tokenizer: the normalizer in tokenizer.json is not used, as it was in version 4.
        edit(folder / "tokenizer_config.json", lambda config: config.update(tokenizer_class="LlamaTokenizer"))
    if spec["tokenizer"]["legacy"] is not None:
        edit(folder / "tokenizer_config.json", lambda config: config.update(legacy=spec["tokenizer"]["legacy"]))
    if spec["spelling"] != "v4":
        return

    processor = json.loads((folder / "processor_config.json").read_text())
    pixels, file = "image_processor", "preprocessor_config.json"
    if "video_processor" in processor:
        pixels, file = "video_processor", VIDEO_FILE
    edit(folder / file, lambda new: new.update(processor[pixels], processor_class=processor["processor_class"]))
    edit(folder / "processor_config.json", lambda old: old.pop(pixels))
    for place in (folder, *folder.glob("qformer_tokenizer")):
        config = json.loads((place / "tokenizer_config.json").read_text())
        config.pop("backend")
        if config["tokenizer_class"] == "TokenizersBackend":
            config["tokenizer_class"] = "PreTrainedTokenizerFast"
        config["added_tokens_decoder"] = {
            str(token.pop("id")): token for token in json.loads((place / "tokenizer.json").read_text())["added_tokens"]
        }
        special = {key: config[key] for key in config if key.endswith("_token") and isinstance(config[key], str)}
        edit(place / "tokenizer_config.json", lambda old, config=config: [old.clear(), old.update(config)])
        edit(place / "special_tokens_map.json", lambda new, special=special: new.update(special))
