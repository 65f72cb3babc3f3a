"""What a model gives besides logits, by dotted names: hidden states, attention maps, losses.

Layers are numbered, steps of generate() too: `greedy.hidden_states.1.0` is step 1, layer 0. Everything is asked of Hugging
Face's own classes with eager attention, which alone has maps; of the composite, and where its forward() does not pass the
request on, of its parts.
"""

import torch

import composites

ASKED = {"output_hidden_states": True, "output_attentions": True}
SHORT_LABELS = 3
IGNORED = -100


def numbered(name, layers):
    """A tuple of tensors by number; a tuple of tuples by two."""
    found = {}
    for i, layer in enumerate(layers):
        found |= numbered(f"{name}.{i}", layer) if isinstance(layer, tuple) else {f"{name}.{i}": layer}
    return found


def states_of(part, output):
    """Everything that an output class holds layer by layer, and its plain tensors."""
    found = {}
    for name, value in output.items():
        if isinstance(value, tuple):
            found |= numbered(f"{part}.{name}", value)
        elif isinstance(value, torch.Tensor):
            found[f"{part}.{name}"] = value
    return found


def record_parts(model, inputs, options):
    """The vision encoder and the Q-Former on their own: the composite's forward() asks neither for more than its end."""
    pixels, frames = inputs["pixel_values"], 1
    if pixels.dim() == 5:  # a video's frames are images with one text
        frames = pixels.shape[1]
        pixels = pixels.flatten(0, 1)
    vision = model.vision_model(pixels, **options, **ASKED)
    queries = model.query_tokens.expand(len(pixels), -1, -1)
    text = {}
    if "qformer_input_ids" in inputs:
        ids, mask = (inputs[name].repeat_interleave(frames, 0) for name in ("qformer_input_ids", "qformer_attention_mask"))
        mask = torch.cat([torch.ones(queries.shape[:2], dtype=torch.long), mask], 1)
        text = {"input_ids": ids, "attention_mask": mask}
    qformer = model.qformer(query_embeds=queries, encoder_hidden_states=vision.last_hidden_state, **text, **ASKED)
    # Version 5.18 mixes the cross-attentions into `attentions`, each after its layer's self-attention, which is kept.
    config, mixed = model.config.qformer_config, iter(qformer.attentions)
    own = []
    for layer in range(config.num_hidden_layers):
        own.append(next(mixed))
        if layer % config.cross_attention_frequency == 0:
            assert torch.equal(next(mixed), qformer.cross_attentions[layer // config.cross_attention_frequency])
    assert next(mixed, None) is None
    qformer.attentions = tuple(own)
    return states_of("vision_outputs", vision) | states_of("qformer_outputs", qformer)


def record_forward(model, inputs, options, labels, **more):
    """forward() with labels: its loss, and the states and maps of all parts. `more` may have decoder_input_ids."""
    output = composites.forward(model, inputs, options=options, labels=labels, **more, **ASKED)
    tensors = {"labels": labels, "loss": output.loss.reshape(1)}
    tensors |= states_of("language_model_outputs", output.language_model_outputs)
    tensors.pop("language_model_outputs.loss", None)
    tensors.pop("language_model_outputs.logits")  # recorded elsewhere, and of other decoder inputs
    if not model.config.text_config.is_encoder_decoder:
        # As BLIP-2's forward() has it.
        last = labels[:, -SHORT_LABELS:]
        vocab = model.config.text_config.vocab_size
        logits = output.logits[:, -SHORT_LABELS:].contiguous()  # without which its view fails in batches
        if (last[:, 1:] != IGNORED).any():
            loss = model.loss_function(logits=logits, labels=last, vocab_size=vocab)
            tensors["loss_of_last"] = loss.reshape(1)
    return tensors | record_parts(model, inputs, options)


def record_generate(model, inputs, options, call, kwargs):
    """generate() with the states and maps of every step, under the name `call`."""
    result = composites.generate(model, inputs, options=options, **kwargs, **ASKED, return_dict_in_generate=True)
    return states_of(call, result)


def contiguous(tensors):
    """As save_file() wants them."""
    return {key: tensor.contiguous().clone() for key, tensor in tensors.items()}
