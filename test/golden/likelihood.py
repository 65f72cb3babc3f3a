"""What PyTorch says a candidate answer costs: the sum over its tokens of -log p, in f64 over log_softmax of f32 logits.

Each candidate is scored by itself, in one forward() over a prompt without padding where the language model is the decoder;
nothing is shared, cached or padded, so that whoever does share has something to be judged by.
"""

import torch

import composites

ROW_INPUTS = ("pixel_values", "qformer_input_ids", "qformer_attention_mask")


def draw_candidates(batch, vocabulary, rng, *, count, longest):
    """[batch][count][1 … longest] ids; one begins another, and one is there twice."""
    rows = []
    for _ in range(batch):
        lengths = [1, *rng.integers(1, longest, count - 3), longest]
        row = [rng.integers(3, vocabulary, n).tolist() for n in lengths]
        rows.append([*row, row[-1][:2]])
    rows[0][2] = rows[0][1]
    return rows


@torch.no_grad()
def nll(model, inputs, b, ids, options=None):
    """Sum over the candidate's tokens of -log p, for row b alone."""
    options = options or {}
    row = {name: inputs[name][b : b + 1] for name in ROW_INPUTS if name in inputs}
    prompt, mask = inputs["input_ids"][b : b + 1], inputs["attention_mask"][b : b + 1]
    answer = torch.tensor([ids])
    if model.config.text_config.is_encoder_decoder:
        start = torch.full((1, 1), model.config.text_config.decoder_start_token_id)
        begun = torch.cat([start, answer[:, :-1]], 1)
        given = {**row, "input_ids": prompt, "attention_mask": mask}
        logits = composites.forward(model, given, options=options, decoder_input_ids=begun).logits
    else:
        whole = torch.cat([prompt[:, mask[0].bool()], answer], 1)
        given = {**row, "input_ids": whole, "attention_mask": torch.ones_like(whole)}
        logits = composites.forward(model, given, options=options).logits[:, -len(ids) - 1 : -1]
    log_probs = logits[0].double().log_softmax(-1)
    return -log_probs.gather(1, answer.T).sum().item()
