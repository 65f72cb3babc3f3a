"""The logit lens by PyTorch's hooks: what a language model would say at each layer, if that were its last.

`look` reads the prompt and an answer in one pass and takes the input of every layer by a hook; of that the final norm, the
projection and the head. The last state's logits are the model's own. Maps are the Q-Former's cross-attentions, averaged over
layers and heads, without the class token.
"""

import torch

import composites

K = 3


def layers_of(model):
    """The layers of the language model, and what follows the last of them."""
    language, kind = model.language_model, model.config.text_config.model_type
    if kind == "t5":
        def end(x):
            x = language.decoder.final_layer_norm(x)
            return language.lm_head(x * language.config.d_model**-0.5 if language.config.scale_decoder_outputs else x)

        return language.decoder.block, end
    if kind == "opt":
        decoder = language.model.decoder

        def end(x):
            x = decoder.final_layer_norm(x) if decoder.final_layer_norm is not None else x
            return language.lm_head(decoder.project_out(x) if decoder.project_out is not None else x)

        return decoder.layers, end
    return language.model.layers, lambda x: language.lm_head(language.model.norm(x))


@torch.no_grad()
def look(model, inputs, options, row, answer):
    """Of one row: log-probabilities f32[states, positions, V], the positions, and maps f32[frames * queries, patches]."""
    call = {key: value[row : row + 1] for key, value in inputs.items()}
    more, kind = {}, model.config.text_config.model_type
    if kind == "t5":
        start = model.config.text_config.decoder_start_token_id
        more["decoder_input_ids"] = torch.tensor([[start, *answer[:-1]]])
    else:
        prompt = call["input_ids"][call["attention_mask"] == 1].tolist()  # padding is no part of it
        call["input_ids"] = torch.tensor([[*prompt, *answer[:-1]]])
        call["attention_mask"] = torch.ones_like(call["input_ids"])
    layers, end = layers_of(model)
    states, maps = [], []

    def before(_module, args, kwargs):
        states.append(args[0] if args else kwargs["hidden_states"])

    handles = [layer.register_forward_pre_hook(before, with_kwargs=True) for layer in layers]
    handles += [
        module.register_forward_hook(lambda _module, _args, output: maps.append(output[1]))
        for path, module in model.named_modules()
        if path.startswith("qformer.") and path.endswith("crossattention.attention")
    ]
    try:
        logits = composites.forward(model, call, options=options, **more).logits
    finally:
        for handle in handles:
            handle.remove()
    T, placeholder = logits.shape[1], composites.placeholder_of(model)
    if kind == "t5":
        image = []
    elif placeholder is None:  # features stand in front
        image = list(range(T - call["input_ids"].shape[1]))
    else:
        image = (call["input_ids"][0] == placeholder).nonzero()[:, 0].tolist()
    positions = image + list(range(T - len(answer), T))
    said = torch.stack([x[0, positions].log_softmax(-1) for x in [*(end(x) for x in states), logits]])
    return said, positions, torch.stack(maps).mean((0, 2))[:, :, 1:].flatten(0, 1)


def record(model, inputs, options, case):
    """What live parity compares of a case: the best log-probabilities, those of the answer, positions and maps."""
    said, positions, maps = look(model, inputs, options, case["row"], case["answer"])
    answer = torch.tensor(case["answer"])
    return {
        "lens.best": said.topk(K).values,
        "lens.answer": said[:, -len(answer) :].gather(2, answer[None, :, None].expand(len(said), -1, 1))[:, :, 0],
        "lens.positions": torch.tensor([positions]),
        "lens.maps": maps,
    }
