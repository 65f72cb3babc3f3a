"""Makes goldens of attribution: what the answers of committed composites rest on, by occlusion and by attention.

    python make.py [NAME …]      writes data/NAME.json (default: all; test/golden/requirements.txt says with what)

Of one row of a golden, in f64: its greedy answer, the log-probability of each of its tokens with each window of the image
occluded and with tokens of the instruction removed or masked; and the rollout of the attention probabilities that
modules return. The rollout is one product of square matrices over all tokens of all parts, a matrix for each attention.
Not a test of ours: nothing here knows the TypeScript side.
"""

import json
import math
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
import composites  # noqa: E402
import weights  # noqa: E402

FOLDERS = (HERE.parent / "data", HERE.parent / "siblings")
NAMES = ("plain_f32", "opt_plain", "opt_post_norm_f16", "t5_flan", "blip2_opt", "blip2_t5_f16", "legacy_llama", "video_4_frames")
INPUTS = ("pixel_values", "qformer_input_ids", "qformer_attention_mask", "input_ids", "attention_mask")
ANSWER = 3
# side and distance of windows in patches, and what an occluded patch holds
SETTINGS = ((2, 1, "mean"), (1, 1, "image_mean"), (2, 2, "blur"))


def starts(length, window, stride):
    return sorted({*range(0, length - window, stride), length - window})


def blurred(image, sigma):
    """[…, H, W], by explicit matrices of the weights of every pixel; beyond its edge the image goes on as at the edge."""

    def matrix(length):
        radius = math.ceil(3 * sigma)
        kernel = torch.exp(-(torch.arange(-radius, radius + 1, dtype=torch.float64) ** 2) / (2 * sigma**2))
        out = torch.zeros(length, length, dtype=torch.float64)
        for i in range(length):
            for k in range(-radius, radius + 1):
                out[i, min(length - 1, max(0, i + k))] += kernel[k + radius] / kernel.sum()
        return out

    return matrix(image.shape[-2]) @ image @ matrix(image.shape[-1]).T


def occluded(pixels, patch, window, stride, fill):
    """[frame, row, column] of the first patch, and the image with that window filled."""
    frames = pixels.reshape(-1, *pixels.shape[-3:])
    filled = {
        "mean": lambda: frames.mean((-2, -1), keepdim=True).expand(frames.shape),
        "image_mean": lambda: torch.zeros_like(frames),
        "blur": lambda: blurred(frames, window * patch / 2),
    }[fill]()
    rows, columns = (side // patch for side in frames.shape[-2:])
    for frame in range(len(frames)):
        for row in starts(rows, window, stride):
            for column in starts(columns, window, stride):
                new = frames.clone()
                part = (frame, slice(None), slice(row * patch, (row + window) * patch),
                        slice(column * patch, (column + window) * patch))  # fmt: skip
                new[part] = filled[part]
                yield [frame, row, column], new.reshape(pixels.shape)


def probabilities(output):
    """The attention probabilities in a module's output, as the mean of heads [B, M, S]."""
    found = [x for x in output if isinstance(x, torch.Tensor) and x.dim() == 4 and torch.allclose(x.sum(-1), torch.ones(())
             .to(x))]  # fmt: skip
    assert len(found) == 1, [getattr(x, "shape", None) for x in output]
    return found[0].mean(1)


def attentions(model, run):
    """(path, probabilities) of every attention, in the order of computation."""
    seen = []
    names = ("self_attn", "attention.attention", "SelfAttention", "EncDecAttention")
    handles = [
        module.register_forward_hook(lambda _m, _a, output, path=path: seen.append((path, probabilities(output))))
        for path, module in model.named_modules()
        if path.endswith(names)
    ]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return seen


def rolled_out(seen, images, L, n, t5):
    """For each token of the answer its row of the product, split into named parts; and the cross-attention's map."""
    F = next(p for path, p in seen if path.startswith("vision_model")).shape[0]
    S = next(p for path, p in seen if path.startswith("vision_model")).shape[-1]
    Q = len(images) // F
    M = next(p for path, p in seen if path.startswith("qformer")).shape[-1]
    A = L if t5 else L + n - 1
    image = [range(f * S, (f + 1) * S) for f in range(F)]
    qformer = [range(F * S + f * M, F * S + (f + 1) * M) for f in range(F)]
    language = range(F * (S + M), F * (S + M) + A)
    decoder = range(language.stop, language.stop + n) if t5 else None
    size = decoder.stop if t5 else language.stop
    R = torch.eye(size, dtype=torch.float64)

    def apply(rows, columns, weights):
        """The rows' tokens become the mean of themselves and of what they attend to."""
        nonlocal R
        step = torch.eye(size, dtype=torch.float64)
        step[list(rows)] /= 2
        step[torch.tensor(rows)[:, None], torch.tensor(columns)[None]] += weights / 2
        R = step @ R

    entered = False
    for path, p in seen:
        if path.startswith("language_model") and not entered:  # queries become image tokens
            entered = True
            step = torch.eye(size, dtype=torch.float64)
            for i, position in enumerate(images):
                step[language[position]] = 0
                step[language[position], qformer[i // Q][i % Q]] = 1
            R = step @ R
        if path.startswith("vision_model"):
            for f in range(F):
                apply(image[f], image[f], p[f])
        elif path.startswith("qformer"):
            for f in range(F):
                if "crossattention" in path:
                    apply(qformer[f][:Q], image[f], p[f])
                else:
                    apply(qformer[f], qformer[f], p[f])
        elif "EncDecAttention" in path:
            apply(decoder, language, p[0])
        elif t5 and ".decoder." in path:
            apply(decoder, decoder, p[0])
        else:
            apply(language, language, p[0])
    last = list(decoder) if t5 else list(language[A - n :])
    texts = [language[i] for i in range(L)]
    rollout = []
    for row in R[last]:
        take = lambda nodes, row=row: row[list(nodes)]  # noqa: E731
        rollout.append({
            "patches": torch.cat([take(image[f][1:]) for f in range(F)]).tolist(),
            "class_token": float(sum(take(image[f][:1]).sum() for f in range(F))),
            "queries": float(sum(take(qformer[f][:Q]).sum() for f in range(F))),
            "instruction": sum(take(qformer[f][Q:]) for f in range(F)).tolist() if M > Q else [],
            "prompt": take(texts).tolist(),
            "answer": float(take(decoder if t5 else language[L:]).sum()),
        })  # fmt: skip
    of = lambda name: torch.stack([p for path, p in seen if name in path]).mean(0)  # noqa: E731
    looked = of("crossattention.attention").reshape(F * Q, S)
    read = of("EncDecAttention")[0] if t5 else torch.stack([p for path, p in seen if path.startswith("language_model")]).mean(0)[0]
    cross = []
    for t in range(n):
        share = read[len(read) - n + t][list(images)]
        maps = (share / share.sum())[:, None] * looked
        cross.append({
            "patches": maps.reshape(F, Q, S)[..., 1:].sum(1).flatten().tolist(),
            "class_token": float(maps[:, 0].sum()),
        })  # fmt: skip
    return [{"rollout": one, "cross_attention": two} for one, two in zip(rollout, cross, strict=True)]


@torch.no_grad()
def make(name):
    folder = next(parent / name for parent in FOLDERS if (parent / name).exists())
    with weights.whole(folder) as checkpoint:
        model = AutoModelForImageTextToText.from_pretrained(
            checkpoint, dtype=torch.float32, attn_implementation="eager"
        ).double().eval()  # fmt: skip
    stored = load_file(folder / "golden.safetensors")
    stored |= {key: stored[first] for key, first in json.loads((folder / "golden.json").read_text())["same_as"].items()}
    row = int(stored["attention_mask"].bool().all(-1).nonzero()[0])
    inputs = {key: stored[key][row : row + 1] for key in INPUTS if key in stored}
    inputs["pixel_values"] = inputs["pixel_values"].double()
    config = model.config
    t5, P = config.text_config.model_type == "t5", config.vision_config.patch_size
    placeholder = composites.placeholder_of(model)
    greedy = stored["greedy.sequences"][row]
    begin = 1 if t5 else 0 if placeholder is None else inputs["input_ids"].shape[1]
    answer = greedy[begin:][:ANSWER]
    n = len(answer)

    def called(given, **options):
        call, more = dict(given), {}
        if t5:
            start = torch.tensor([config.text_config.decoder_start_token_id])
            more["decoder_input_ids"] = torch.cat([start, answer[:-1]])[None]
        else:
            call["input_ids"] = torch.cat([given["input_ids"], answer[None, :-1]], 1)
            call["attention_mask"] = torch.cat([given["attention_mask"], torch.ones_like(answer[None, :-1])], 1)
        return composites.forward(model, call, options=options, **more)

    def logprobs(given):
        logits = called(given).logits[0, -n:]
        return [round(float(x), 10) for x in logits.log_softmax(-1).gather(1, answer[:, None])[:, 0]]

    images = []
    for window, stride, fill in SETTINGS:
        found = [[*at, logprobs({**inputs, "pixel_values": pixels})]
                 for at, pixels in occluded(inputs["pixel_values"], P, window, stride, fill)]  # fmt: skip
        images.append({"window": window, "stride": stride, "fill": fill, "windows": found})

    ids = inputs["input_ids"][0].tolist()
    first = 0 if placeholder is None else max(i for i, id in enumerate(ids) if id == placeholder) + 1
    words = []
    for k, kind in ((1, "remove"), (2, "pad"), (0, "remove"), (1, "pad")):
        spans = {"": (first + k, first + k + 2 - k % 2)}
        if "qformer_input_ids" in inputs:
            spans["qformer_"] = (1 + k, 2 + k)
        given = dict(inputs)
        for prefix, (begin, end) in spans.items():
            row_ids, mask = (inputs[f"{prefix}{key}"][0].tolist() for key in ("input_ids", "attention_mask"))
            kept = [i for i in range(len(row_ids)) if kind == "pad" or not begin <= i < end]
            given[f"{prefix}input_ids"] = torch.tensor([[row_ids[i] for i in kept]])
            given[f"{prefix}attention_mask"] = torch.tensor(
                [[0 if kind == "pad" and begin <= i < end else mask[i] for i in kept]]
            )
        word = {key: value[0].tolist() for key, value in given.items() if key != "pixel_values"}
        words.append({**word, "logprobs": logprobs(given)})

    in_front = config.num_query_tokens * (inputs["pixel_values"].shape[1] if inputs["pixel_values"].dim() == 5 else 1)
    before = 0 if placeholder is not None else in_front
    at = [i for i, id in enumerate(ids) if id == placeholder] if placeholder is not None else list(range(in_front))
    seen = attentions(model, lambda: called(inputs, output_attentions=True))
    found = rolled_out(seen, at, before + len(ids), n, t5)
    for one in found:
        total = sum(x if isinstance(x, float) else sum(x) for x in one["rollout"].values())
        assert abs(total - 1) < 1e-6, total  # LLaMA has its softmax in f32
        one["rollout"]["prompt"] = one["rollout"]["prompt"][before:]
        for part in one.values():
            for key, value in part.items():
                part[key] = round(value, 9) if isinstance(value, float) else [round(x, 9) for x in value]
    made = {"row": row, "answer": answer.tolist(), "logprobs": logprobs(inputs), "image": images, "words": words,
            "attention": found}  # fmt: skip
    text = json.dumps(made, separators=(",", ":"))
    (HERE / "data" / f"{name}.json").write_text(text + "\n")
    drops = [sum(made["logprobs"]) - sum(one[3]) for setting in images for one in setting["windows"]]
    lost = [sum(made["logprobs"]) - sum(word["logprobs"]) for word in words]
    print(f"{name}: row {row}, {sum(made['logprobs']):.3f}; {len(drops)} windows, largest drop {max(drops, key=abs):.3f}; "
          f"words {max(lost, key=abs):.3f}; {len(text)} bytes")  # fmt: skip


if __name__ == "__main__":
    for name in sys.argv[1:] or NAMES:
        make(name)
