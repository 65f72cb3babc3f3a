"""Makes goldens of ablation and activation patching: an answer's log-probability with one part of a committed composite changed.

    python make.py [NAME …]      writes data/NAME.json (default: all; test/golden/requirements.txt says with what)

Of one row of a golden, in f64, by hooks: its greedy answer, every layer, head, query and token taken out in turn by zeros
and by the mean over the negated and the halved image, and every one of them restored from the clean run in a run of the negated image, and in one of another instruction. Units are
[group, row, column, log-probability of the answer]. Not a test of ours: nothing here knows the TypeScript side.
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

NAMES = ("plain_f32", "opt_plain", "t5_flan")
INPUTS = ("pixel_values", "qformer_input_ids", "qformer_attention_mask", "input_ids", "attention_mask")
ANSWER = 3
BERT = {"self": ("attention.attention", "attention.output.dense"),
        "cross": ("crossattention.attention", "crossattention.output.dense")}  # fmt: skip


def stacks(model):
    """Per stack: name, path of its layers, attentions as (module, what it adds), feed-forward modules, whether it reads more."""
    vision = ("vision_model", "vision_model.encoder.layers", {"self": ("self_attn", "self_attn")}, ["mlp"], False)
    qformer = ("qformer", "qformer.encoder.layer", BERT, ["output_query.dense", "output.dense"], True)
    kind = model.config.text_config.model_type
    if kind == "t5":
        attention, cross = "layer.0.SelfAttention", "layer.1.EncDecAttention"
        return [
            vision, qformer,
            ("language_model.encoder", "language_model.encoder.block", {"self": (attention, attention)}, ["layer.1.DenseReluDense"], False),
            ("language_model.decoder", "language_model.decoder.block", {"self": (attention, attention), "cross": (cross, cross)},
             ["layer.2.DenseReluDense"], True),
        ]  # fmt: skip
    layers, mlp = ("language_model.model.decoder.layers", "fc2") if kind == "opt" else ("language_model.model.layers", "mlp")
    return [vision, qformer, ("language_model", layers, {"self": ("self_attn", "self_attn")}, [mlp], False)]


def heads_of(model, path):
    config = getattr(model.config, {"v": "vision_config", "q": "qformer_config", "l": "text_config"}[path[0]])
    return config.num_heads if getattr(config, "model_type", "") == "t5" else config.num_attention_heads


def units(model, patching, lengths):
    """(group, row, column, places): a place is (module, "output" | "input", heads or None, what of its last but one dimension)."""
    modules = dict(model.named_modules())
    for name, path, attentions, feed_forward, reads_more in stacks(model):
        layers = [f"{path}.{i}" for i in range(len(modules[path]))]
        for i, layer in enumerate(layers):
            there = lambda names: [(f"{layer}.{n}", "output", None, None) for n in names if f"{layer}.{n}" in modules]  # noqa: B023, E731
            parts = {f"{key}-attention": there([adds]) for key, (_, adds) in attentions.items()}
            parts["feed-forward"] = there(feed_forward)
            if not patching:
                parts["layer"] = [place for places in parts.values() for place in places]
            elif reads_more:
                parts["layer"] = [(layer, "output", None, None)]
            for column, places in parts.items():
                if places:
                    yield f"{name}.layers", str(i), column, places
        for i, layer in enumerate(layers):
            for key, (attention, _) in attentions.items():
                module = modules.get(f"{layer}.{attention}")
                if module is None:
                    continue
                projection = next((n for n in ("projection", "o_proj", "out_proj", "o") if hasattr(module, n)), None)
                at = (f"{layer}.{attention}.{projection}", "input") if projection else (f"{layer}.{attention}", "output")
                count = heads_of(model, path)
                for head in range(count):
                    yield f"{name}.heads", f"{i} {key}" if len(attentions) > 1 else str(i), str(head), [(*at, count, head)]
        if name == "qformer":
            rows = [*enumerate(layers)] if patching else []
            for row, module in [*rows, ("projection", "language_projection")]:
                for query in range(model.config.num_query_tokens):
                    yield "qformer.queries", str(row), str(query), [(module, "output", None, query)]
        elif name != "vision_model" or patching:
            rows = [("input", layers[0], "input"), *((i, layer, "output") for i, layer in enumerate(layers) if patching)]
            for row, module, at in rows:
                for token in range(lengths[layers[0]]):
                    yield f"{name}.tokens", str(row), str(token), [(module, at, None, token)]


class Hooks:
    """Shows `see(module, at, tensor)` what flows at places, and goes on with what it returns."""

    def __init__(self, model, places, see):
        modules = dict(model.named_modules())
        self.handles = []
        for path, at in dict.fromkeys((path, at) for path, at, *_ in places):
            if at == "input":
                def hook(_module, args, kwargs, path=path):
                    if args:
                        return (see(path, "input", args[0]), *args[1:]), kwargs
                    return args, {**kwargs, "hidden_states": see(path, "input", kwargs["hidden_states"])}

                self.handles.append(modules[path].register_forward_pre_hook(hook, with_kwargs=True))
            else:
                def hook(_module, _args, output, path=path):
                    if isinstance(output, tuple):
                        return (see(path, "output", output[0]), *output[1:])
                    return see(path, "output", output)

                self.handles.append(modules[path].register_forward_hook(hook))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for handle in self.handles:
            handle.remove()


@torch.no_grad()
def make(name):
    folder = HERE.parent / "data" / name
    with weights.whole(folder) as checkpoint:
        model = AutoModelForImageTextToText.from_pretrained(
            checkpoint, dtype=torch.float32, attn_implementation="eager"
        ).double().eval()  # fmt: skip
    stored = load_file(folder / "golden.safetensors")
    stored |= {key: stored[first] for key, first in json.loads((folder / "golden.json").read_text())["same_as"].items()}
    row = int(stored["attention_mask"].bool().all(-1).nonzero()[0])
    inputs = {key: stored[key][row : row + 1] for key in INPUTS if key in stored}
    inputs["pixel_values"] = inputs["pixel_values"].double()
    t5 = model.config.text_config.model_type == "t5"
    greedy = stored["greedy.sequences"][row]
    answer = greedy[1 : 1 + ANSWER] if t5 else greedy[inputs["input_ids"].shape[1] :][:ANSWER]

    def logprob(given):
        call = dict(given)
        if t5:
            call["decoder_input_ids"] = torch.cat([greedy[:1], answer[:-1]])[None]
        else:
            call["input_ids"] = torch.cat([given["input_ids"], answer[None, :-1]], 1)
            call["attention_mask"] = torch.ones_like(call["input_ids"])
        logits = model(**call).logits[0, -len(answer) :]
        return float(logits.log_softmax(-1).gather(1, answer[:, None]).sum())

    def swept(given, patching, keep):
        """The answer's log-probability for each unit; of kept numbers if there are any, else of zeros."""
        found = []
        for group, row, column, places in units(model, patching, lengths):
            def see(path, at, x, places=places):
                for module, where, heads, which in places:
                    if (module, where) != (path, at):
                        continue
                    new = keep[path, at] if keep else torch.zeros_like(x)
                    if which is None:
                        return new
                    x = x.clone()
                    if heads:
                        width = x.shape[-1] // heads
                        x[..., which * width : (which + 1) * width] = new[..., which * width : (which + 1) * width]
                    else:
                        x[:, which] = new[:, which]
                return x

            with Hooks(model, places, see):
                found.append([group, row, column, round(logprob(given), 10)])
        return found

    lengths, keep = {}, {}

    def note(path, at, x):
        keep[path, at] = x
        lengths[path] = x.shape[1]
        return x

    firsts = [(f"{path}.0", "input") for _, path, *_ in stacks(model)]
    with Hooks(model, firsts, note):
        clean = logprob(inputs)
    with Hooks(model, [place for unit in units(model, True, lengths) for place in unit[3]], note):
        logprob(inputs)
    kept = dict(keep)
    image = {**inputs, "pixel_values": -inputs["pixel_values"]}
    words = {key: value.clone() for key, value in inputs.items()}
    words["input_ids"][0, -2] += 1
    words["qformer_input_ids"][0, 1] += 1
    runs = []
    for other in (-inputs["pixel_values"], inputs["pixel_values"] / 2):
        with Hooks(model, [place for unit in units(model, False, lengths) for place in unit[3]], note):
            logprob({**inputs, "pixel_values": other})
        runs.append(dict(keep))
    means = {place: (runs[0][place] + runs[1][place]) / 2 for place in runs[0]}
    made = {
        "row": row, "answer": answer.tolist(), "clean": round(clean, 10), "ablate": swept(inputs, False, {}),
        "mean": [unit[3] for unit in swept(inputs, False, means)],
        "image": {"corrupted": round(logprob(image), 10), "units": swept(image, True, kept)},
        "instruction": {
            "input_ids": words["input_ids"].tolist(), "qformer_input_ids": words["qformer_input_ids"].tolist(),
            "corrupted": round(logprob(words), 10), "units": swept(words, True, kept),
        },
    }  # fmt: skip
    text = json.dumps(made, separators=(",", ":"))
    (HERE / "data" / f"{name}.json").write_text(text + "\n")
    effects = [unit[3] - clean for unit in made["ablate"]]
    print(f"{name}: row {row}, {clean:.3f}, {made['image']['corrupted']:.3f}, {made['instruction']['corrupted']:.3f}, "
          f"{len(effects)} and {len(made['image']['units'])} units, largest {max(effects, key=abs):.3f}, {len(text)} bytes")  # fmt: skip


if __name__ == "__main__":
    for name in sys.argv[1:] or NAMES:
        make(name)
