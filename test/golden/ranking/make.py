"""Makes the goldens of ranking: what PyTorch says candidate answers cost, for composites of ../data.

    python make.py            writes data/<name>.json

Each candidate is scored by itself (../likelihood.py). Not a test of ours: nothing here knows the TypeScript side.
"""

import json
import sys
from pathlib import Path

import numpy as np
from safetensors.torch import load_file

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
import likelihood  # noqa: E402
import make  # noqa: E402
import weights  # noqa: E402

# Left padding, also of BERT's text; right padding; OPT; T5 with padding on either side. Not opt_post_norm_f16: there the
# features are wider than the embeddings, and Hugging Face scatters them across rows, so that a batch is not its rows.
NAMES = ["grouped_heads_bf16", "bias_variants", "opt_plain", "t5_flan", "t5_plain_tied_bf16"]
CANDIDATES = 7
LONGEST = 6
SEED = 3


def main():
    for name in NAMES:
        folder = HERE.parent / "data" / name
        with weights.whole(folder) as checkpoint:
            model, _ = make.load(checkpoint)
        golden = load_file(folder / "golden.safetensors")
        same_as = json.loads((folder / "golden.json").read_text())["same_as"]
        names = ["pixel_values", "qformer_input_ids", "qformer_attention_mask", "input_ids", "attention_mask"]
        inputs = {key: golden[same_as.get(key, key)] for key in names}
        rng = np.random.default_rng(SEED)
        vocabulary = model.get_output_embeddings().weight.shape[0]
        candidates = likelihood.draw_candidates(
            len(inputs["input_ids"]), vocabulary, rng, count=CANDIDATES, longest=LONGEST
        )
        sums = [[likelihood.nll(model, inputs, b, ids) for ids in row] for b, row in enumerate(candidates)]
        text = json.dumps({"candidates": candidates, "sums": sums})
        (HERE / "data" / f"{name}.json").write_text(text + "\n")
        make.note(f"{name}: {sums[0][0]:.4f} … {sums[-1][-1]:.4f}")


if __name__ == "__main__":
    main()
