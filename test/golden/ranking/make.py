"""Makes the goldens of ranking: what PyTorch says candidate answers cost, for composites of ../data.

    python make.py            writes data/<name>.json

Each candidate is scored by itself, in one forward() over a prompt without padding where the language model is the
decoder; nothing is shared, cached or padded, so that whoever does share has something to be judged by. The sums are f64 over
log_softmax of f32 logits. Not a test of ours: nothing here knows the TypeScript side.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
import make  # noqa: E402

# Left padding, also of BERT's text; right padding; OPT; T5 with padding on either side. Not opt_post_norm_f16: there the
# features are wider than the embeddings, and Hugging Face scatters them across rows, so that a batch is not its rows.
NAMES = ["grouped_heads_bf16", "bias_variants", "opt_plain", "t5_flan", "t5_plain_tied_bf16"]
CANDIDATES = 7
LONGEST = 6
SEED = 3


def draw_candidates(batch, vocabulary, rng):
    """[B][C][1 … LONGEST] ids; one begins another, and one is there twice."""
    rows = []
    for _ in range(batch):
        lengths = [1, *rng.integers(1, LONGEST, CANDIDATES - 3), LONGEST]
        row = [rng.integers(3, vocabulary, n).tolist() for n in lengths]
        rows.append([*row, row[-1][:2]])
    rows[0][2] = rows[0][1]
    return rows


@torch.no_grad()
def nll(model, inputs, b, ids):
    """Sum over the candidate's tokens of -log p, for row b alone."""
    row = {name: inputs[name][b : b + 1] for name in ("pixel_values", "qformer_input_ids", "qformer_attention_mask")}
    prompt, mask = inputs["input_ids"][b : b + 1], inputs["attention_mask"][b : b + 1]
    answer = torch.tensor([ids])
    if model.config.use_decoder_only_language_model:
        prompt = prompt[:, mask[0].bool()]
        whole = torch.cat([prompt, answer], 1)
        logits = model(**row, input_ids=whole, attention_mask=torch.ones_like(whole)).logits[:, prompt.shape[1] - 1 : -1]
    else:
        start = torch.full((1, 1), model.config.text_config.decoder_start_token_id)
        begun = torch.cat([start, answer[:, :-1]], 1)
        logits = model(**row, input_ids=prompt, attention_mask=mask, decoder_input_ids=begun).logits
    log_probs = logits[0].double().log_softmax(-1)
    return -log_probs.gather(1, answer.T).sum().item()


def main():
    for name in NAMES:
        folder = HERE.parent / "data" / name
        model, _ = make.load(folder)
        golden = load_file(folder / "golden.safetensors")
        same_as = json.loads((folder / "golden.json").read_text())["same_as"]
        names = ["pixel_values", "qformer_input_ids", "qformer_attention_mask", "input_ids", "attention_mask"]
        inputs = {key: golden[same_as.get(key, key)] for key in names}
        rng = np.random.default_rng(SEED)
        vocabulary = model.get_output_embeddings().weight.shape[0]
        candidates = draw_candidates(len(inputs["input_ids"]), vocabulary, rng)
        sums = [[nll(model, inputs, b, ids) for ids in row] for b, row in enumerate(candidates)]
        text = json.dumps({"candidates": candidates, "sums": sums})
        (HERE / "data" / f"{name}.json").write_text(text + "\n")
        make.note(f"{name}: {sums[0][0]:.4f} … {sums[-1][-1]:.4f}")


if __name__ == "__main__":
    main()
