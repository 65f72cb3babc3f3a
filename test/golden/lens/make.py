"""Makes goldens of the logit lens: what the language models of committed composites would say at every layer.

    python make.py [NAME …]      writes data/NAME.json (default: all; test/golden/requirements.txt says with what)

Of one row of a golden: the prompt and the greedy answer in one pass, the input of every layer by a hook, of that the final
norm, the projection and the head, in f32. A state has for every position the three most probable ids with their
log-probabilities, and of the answer's positions the log-probability of the token that comes next. The last state's logits
are the model's own. Q-Former maps are cross-attentions averaged over layers and heads. Not a test of ours: nothing here
knows the TypeScript side.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
import weights  # noqa: E402

FOLDERS = (HERE.parent / "data", HERE.parent / "siblings")
NAMES = ("plain_f32", "opt_plain", "opt_post_norm_f16", "opt_bare", "t5_flan", "t5_plain_tied_bf16", "video_4_frames")
INPUTS = ("pixel_values", "qformer_input_ids", "qformer_attention_mask", "input_ids", "attention_mask")
K = 3
ANSWER = 5


def load(name):
    folder = next(parent / name for parent in FOLDERS if (parent / name).exists())
    with weights.whole(folder) as checkpoint:
        model = AutoModelForImageTextToText.from_pretrained(
            checkpoint, dtype=torch.float32, attn_implementation="eager"
        ).eval()
    stored = load_file(folder / "golden.safetensors")
    stored |= {key: stored[first] for key, first in json.loads((folder / "golden.json").read_text())["same_as"].items()}
    return model, stored


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
def make(name):
    model, stored = load(name)
    whole = stored["attention_mask"].bool().all(-1)
    row = int(whole.nonzero()[0]) if whole.any() else None
    assert row is not None, f"{name}: every row is padded"
    inputs = {key: stored[key][row : row + 1] for key in INPUTS if key in stored}
    t5 = model.config.text_config.model_type == "t5"
    greedy = stored["greedy.sequences"][row]
    answer = greedy[1 : 1 + ANSWER] if t5 else greedy[inputs["input_ids"].shape[1] :][:ANSWER]
    call = dict(inputs)
    if t5:
        call["decoder_input_ids"] = torch.cat([greedy[:1], answer[:-1]])[None]
    else:
        call["input_ids"] = torch.cat([inputs["input_ids"], answer[None, :-1]], 1)
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
    logits = model(**call).logits
    for handle in handles:
        handle.remove()
    config = model.config
    placeholder = getattr(config, "image_token_id", None) or getattr(config, "video_token_id", None) or config.video_token_index
    image = [] if t5 else (call["input_ids"][0] == placeholder).nonzero()[:, 0].tolist()
    T = logits.shape[1]
    positions = image + list(range(T - len(answer), T))
    found = []
    for state in [*(end(x) for x in states), logits]:
        logprobs = state[0, positions].log_softmax(-1)
        best = logprobs.topk(K)
        found.append({
            "ids": best.indices.tolist(),
            "logprobs": [[round(x, 6) for x in each] for each in best.values.tolist()],
            "answer": [round(float(logprobs[len(image) + t, id]), 6) for t, id in enumerate(answer.tolist())],
        })  # fmt: skip
    weights_ = torch.stack(maps).mean((0, 2))[:, :, 1:].flatten(0, 1)  # [layers, F, H, Q, 1 + N] -> [F * Q, N]
    made = {
        "row": row, "answer": answer.tolist(), "positions": positions, "states": found,
        "maps": [[round(x, 7) for x in each] for each in weights_.tolist()],
    }  # fmt: skip
    text = json.dumps(made, separators=(",", ":"))
    (HERE / "data" / f"{name}.json").write_text(text + "\n")
    print(f"{name}: row {row}, {len(found)} states of {len(positions)} positions, {len(text)} bytes")


if __name__ == "__main__":
    for name in sys.argv[1:] or NAMES:
        make(name)
