"""Blip2ForImageTextRetrieval and the two halves of it, on drawn weights: of retrieval/make.py and of live parity (make.py)."""

import math

import torch
from torch import nn
from transformers import (
    Blip2Config,
    Blip2ForImageTextRetrieval,
    Blip2Processor,
    Blip2QFormerModel,
    Blip2TextModelWithProjection,
    Blip2VisionModelWithProjection,
)
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

import composites
import weights


@torch.no_grad()
def redraw(model, key):
    """Draws every parameter at a size at which it matters. Returns what each was drawn from, by name."""
    drawn = {}
    for name, parameter in model.named_parameters():
        module = model.get_submodule(name.rpartition(".")[0])
        if isinstance(module, nn.LayerNorm):
            normal = weights.Normal(1 if name.endswith("weight") else 0, 0.1)
        elif name.endswith("bias"):
            normal = weights.Normal(0, 0.1)
        elif isinstance(module, (nn.Linear, nn.Conv2d)):
            normal = weights.Normal(0, round(1.5 / math.sqrt(parameter[0].numel()), 3))
        else:
            normal = weights.Normal(0, 0.7 if "position" in name else 1)
        parameter.copy_(torch.from_numpy(weights.draw(normal, name, parameter.shape, key)))
        drawn[name] = normal
    return drawn


@torch.no_grad()
def record(folder, inputs, exact=False):
    """What transformers computes for as many images as texts, all padded to one length. `exact`: scores in f64 too."""
    load = {"dtype": torch.float32, "attn_implementation": "eager"}
    model = Blip2ForImageTextRetrieval.from_pretrained(folder, **load).eval()
    tensors = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    for name, head in (("itc", False), ("itm", True)):
        output = model(**inputs, use_image_text_matching_head=head)
        for key in ("logits_per_image", "logits_per_text", "image_embeds", "text_embeds"):
            if not (head and key.endswith("embeds")):
                tensors[f"{name}.{key}"] = output[key]
        if head:
            tensors[f"{name}.text_model_output"] = output.text_model_output.last_hidden_state[min(1, len(inputs["input_ids"]) - 1)]
        if exact:
            doubles = {**inputs, "pixel_values": inputs["pixel_values"].double()}
            scores = model.double()(**doubles, use_image_text_matching_head=head)
            tensors[f"exact:{name}.logits_per_image"] = scores.logits_per_image
            model.float()
    in_front = 0 if model.config.image_token_index is None else model.config.num_query_tokens
    one = {key: inputs[key][:, in_front:] for key in ("input_ids", "attention_mask")}
    text = Blip2TextModelWithProjection.from_pretrained(folder, **load).eval()
    tensors["text.text_embeds"] = text(**one).text_embeds
    positions = torch.arange(one["input_ids"].shape[1]).flip(0).expand_as(one["input_ids"])
    tensors["text.positions"] = positions
    tensors["text.flipped"] = text(**one, position_ids=positions).text_embeds[:, 0]
    tensors["text.hidden_states.1"] = text(**one, output_hidden_states=True).hidden_states[1][0]
    vision = Blip2VisionModelWithProjection.from_pretrained(folder, **load).eval()
    output = vision(pixel_values=inputs["pixel_values"])
    assert torch.equal(output.image_embeds, tensors["itc.image_embeds"])
    tensors["vision.last_hidden_state"] = output.last_hidden_state[0]
    return {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}


def draw_model(rng, spec, images, folder, key):
    """A retrieval model with the image encoder and Q-Former of a drawn spec. Writes it and its processor to `folder`.

    Returns what it is asked: a text for each image, with placeholders or, as in old checkpoints, without.
    """
    queries, width = int(rng.choice([1, 2, 5, 8, 17, 32])), int(rng.integers(1, 41))
    texts = [composites.PROMPTS[i] for i in rng.integers(0, len(composites.PROMPTS), len(images))]
    tokenizer = composites.train_qformer_tokenizer(spec["tokenizer"]["words"])
    size = {"height": spec["vision"]["image_size"], "width": spec["vision"]["image_size"]}
    processor = Blip2Processor(BlipImageProcessorPil(size=size), tokenizer, num_query_tokens=queries)
    processor.save_pretrained(folder)
    has_placeholders = bool(rng.random() < 0.7)
    config = Blip2Config(
        vision_config=dict(spec["vision"]),
        qformer_config={**spec["qformer"], "use_qformer_text_input": True, "vocab_size": len(tokenizer) - int(rng.integers(2))},  # as published: no row for <image>
        num_query_tokens=queries,
        image_text_hidden_size=width,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>") if has_placeholders else None,
    )
    model = Blip2ForImageTextRetrieval._from_config(config).eval()
    redraw(model, key)
    model.save_pretrained(folder)
    model.qformer.save_pretrained(folder / "qformer")
    processor = Blip2Processor.from_pretrained(folder)
    if has_placeholders:
        return texts, dict(processor(images=images, text=texts, padding=True, return_tensors="pt"))
    inputs = processor.tokenizer(texts, padding=True, return_tensors="pt")
    pixels = processor.image_processor(images, return_tensors="pt")["pixel_values"]
    return texts, {"pixel_values": pixels, "input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"]}


@torch.no_grad()
def record_qformer(folder, seed):
    """The Q-Former alone, of drawn queries, a drawn text and drawn image states; the last row's text has padding."""
    model = Blip2QFormerModel.from_pretrained(folder / "qformer", dtype=torch.float32, attn_implementation="eager").eval()
    draw, config = torch.Generator().manual_seed(seed), model.config
    queries, words, states = (int(n) for n in torch.randint(1, 6, (3,), generator=draw))
    embeds = torch.randn(2, queries + words, config.hidden_size, generator=draw)
    image = torch.randn(2, states, config.encoder_hidden_size, generator=draw)
    mask = torch.ones(2, queries + words, dtype=torch.int64)
    mask[1, queries + 1 :] = 0
    given = {"query_embeds": embeds, "encoder_hidden_states": image, "attention_mask": mask}
    output = model(**given, query_length=queries).last_hidden_state
    return {**given, "query_length": torch.tensor([[queries]]), "last_hidden_state": output}
