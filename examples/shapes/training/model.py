"""The model's sizes, and a fresh model with weights that can be trained."""

import math

import torch
from torch import nn
from transformers import (
    BlipImageProcessorPil,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    LlamaConfig,
)
from transformers.models.instructblip.configuration_instructblip import (
    InstructBlipQFormerConfig,
    InstructBlipVisionConfig,
)

IMAGE_SIZE = 72  # 9x9 patches of 8 pixels: each cell of a scene's 3x3 grid is 3x3 patches
PATCH_SIZE = 8
WIDTH = 128
QUERIES = 12


def image_processor() -> BlipImageProcessorPil:
    return BlipImageProcessorPil(size={"height": IMAGE_SIZE, "width": IMAGE_SIZE})


def build_config(tokenizer, qformer_tokenizer) -> InstructBlipConfig:
    vision = InstructBlipVisionConfig(
        hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_hidden_layers=4, num_attention_heads=4,
        image_size=IMAGE_SIZE, patch_size=PATCH_SIZE,
    )
    qformer = InstructBlipQFormerConfig(
        vocab_size=len(qformer_tokenizer), hidden_size=WIDTH, num_hidden_layers=4, num_attention_heads=4,
        intermediate_size=4 * WIDTH, max_position_embeddings=64, pad_token_id=qformer_tokenizer.pad_token_id,
        cross_attention_frequency=2, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=352, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return InstructBlipConfig(
        vision_config=vision, qformer_config=qformer, text_config=text, num_query_tokens=QUERIES,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )


@torch.no_grad()
def build_model(tokenizer, qformer_tokenizer) -> InstructBlipForConditionalGeneration:
    """A model from seeded random weights. The class's own initialisation (1e-10 in the
    vision tower, 0.02 elsewhere, queries of zero) does not train at this size: every
    matrix is drawn again at 0.7/sqrt(fan in), embeddings and queries at 0.5."""
    model = InstructBlipForConditionalGeneration(build_config(tokenizer, qformer_tokenizer))
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            fan_in = module.weight[0].numel()
            nn.init.normal_(module.weight, std=0.7 / math.sqrt(fan_in))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.5)
    nn.init.normal_(model.query_tokens, std=1.0)
    nn.init.normal_(model.vision_model.embeddings.position_embedding, std=0.5)
    nn.init.normal_(model.vision_model.embeddings.class_embedding, std=0.5)
    return model
