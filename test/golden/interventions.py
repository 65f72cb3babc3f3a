"""Interventions drawn at random for live parity, and the same changes made by PyTorch's hooks.

An intervention is what the TypeScript side is given, as JSON: the output or the input of a module, or the heads of an
attention before its output projection, and what becomes of rows, tokens, heads and channels of it; or which edges of an
attention are cut, whose scores then are -inf. Every case is clear-cut,
as those of decoding.py are, and well conditioned: PyTorch in f64 gives the same.
"""

import contextlib
import copy

import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

import composites

ATTEMPTS = 200
NOISE = 3e-5  # as in decoding.py
CONDITION = 1e-11  # NMSE between f32 and f64; live parity allows 1e-9
PLACES = ["output", "input", "heads", "edges"]
OPS = ["zero", "scale", "add", "set", "mean"]
PROJECTIONS = ("projection", "o_proj", "out_proj", "o")
# The identity; a table of rotations; looked up for pairs of tokens, or once for all rows; classes around the whole.
LEFT_OUT = ("dropout", "rotary_emb", "relative_attention_bias", "position_embeddings")
INPUTS = ("RMSNorm", "T5LayerNorm", "Layer", "T5Block")  # classes of which the input may be changed, besides PyTorch's own
WHOLES = ("", "language_model", "language_model.model", "language_model.model.decoder")


class Unclear(RuntimeError):
    """A composite of which no intervention is clear-cut."""


def first_of(output):
    """The tensor of a module's output, or None."""
    if isinstance(output, torch.Tensor):
        return output
    if isinstance(output, tuple):
        return output[0] if isinstance(output[0], torch.Tensor) else None
    return getattr(output, "last_hidden_state", None)


def with_first(output, tensor):
    """The output with another tensor in that place."""
    if isinstance(output, torch.Tensor):
        return tensor
    if isinstance(output, tuple):
        return (tensor, *output[1:])
    output.last_hidden_state = tensor
    return output


def heads_of(model, path):
    """How many heads an attention has."""
    part = path.split(".")[0]
    config = {
        "vision_model": model.config.vision_config, "qformer": model.config.qformer_config,
        "language_model": model.config.text_config,
    }[part]
    return config.num_heads if getattr(config, "model_type", "") == "t5" else config.num_attention_heads


def projection_of(modules, path):
    """The output projection of an attention, None of the Q-Former's, whose own output are the heads."""
    for name in PROJECTIONS:
        if f"{path}.{name}" in modules:
            return f"{path}.{name}"
    return None


class Hooks:
    """Calls `see(path, at, tensor [R, T, H, C], step)` wherever a change may be made, and goes on with what it returns.

    Of edges the tensor are ones [R, T, H, S], and an edge is cut where zeros are returned. `step` counts calls of the language model; an encoder before the first belongs to step 0.
    """

    def __init__(self, model, see, wanted):
        self.model, self.see, self.step = model, see, 0
        self.modules = dict(model.named_modules())
        self.handles = [
            model.language_model.register_forward_pre_hook(self.before_pass, with_kwargs=True),
            model.language_model.register_forward_hook(self.after_pass),
        ]
        for path, at in wanted:
            if at != "edges":
                self.add(path, at)
        self.cut = {self.modules[path]: path for path, at in wanted if at == "edges"}
        if self.cut:
            self.interface = ALL_ATTENTION_FUNCTIONS.get_interface
            ALL_ATTENTION_FUNCTIONS.get_interface = lambda name, default: self.with_edges(self.interface(name, default))

    def before_pass(self, _module, _args, kwargs):
        given = kwargs.get("inputs_embeds")
        given = kwargs.get("input_ids") if given is None else given
        self.rows = None if given is None else len(given)

    def after_pass(self, _module, _args, _output):
        self.step += 1

    def add(self, path, at):
        projection = projection_of(self.modules, path)
        heads = heads_of(self.model, path) if at == "heads" else 1
        if at == "input" or (at == "heads" and projection):
            module = self.modules[projection if at == "heads" else path]
            self.handles.append(module.register_forward_pre_hook(
                lambda _module, args: (self.change(path, at, args[0], heads), *args[1:]) if args else None
            ))
        else:
            def hook(_module, _args, output):
                x = first_of(output)
                return None if x is None else with_first(output, self.change(path, at, x, heads))

            self.handles.append(self.modules[path].register_forward_hook(hook))

    def change(self, path, at, x, heads):
        if x.dim() == 4:  # a convolution's [R, C, h, w]
            y = self.see(path, at, x.flatten(2).transpose(1, 2).unsqueeze(2), self.step)
            return x if y is None else y.squeeze(2).transpose(1, 2).unflatten(2, x.shape[2:])
        if x.dim() == 2 and path.endswith("post_layernorm"):  # the pooled class token
            return x
        rows = x.unflatten(0, (self.rows, -1)) if x.dim() == 2 else x  # OPT's feed-forward joins rows and tokens
        y = self.see(path, at, rows.unflatten(2, (heads, -1)), self.step)
        return x if y is None else y.flatten(2).reshape(x.shape)

    def with_edges(self, attend):
        """An attention function of transformers, without the edges that are cut."""
        def attention(module, query, key, value, attention_mask, **kwargs):
            path = self.cut.get(module)
            (R, H, T, _), S = query.shape, key.shape[2]
            edges = None if path is None else self.see(path, "edges", query.new_ones(R, T, H, S), self.step)
            if edges is None or bool((edges != 0).all()):
                return attend(module, query, key, value, attention_mask, **kwargs)
            cut = edges.transpose(1, 2) == 0  # [R, H, T, S]
            mask = query.new_zeros(()) if attention_mask is None else attention_mask
            hidden = mask.expand(cut.shape) < torch.finfo(query.dtype).min / 2
            # transformers' masks are finite: a query that sees nothing would get a mean. One without edges gets zeros.
            nothing = (hidden | cut).all(-1) & cut.any(-1)
            mask = mask.expand(cut.shape).masked_fill(cut, float("-inf")).masked_fill(nothing.unsqueeze(-1), 0)
            heads, weights = attend(module, query, key, value, mask, **kwargs)
            return heads.masked_fill(nothing.transpose(1, 2).unsqueeze(-1), 0), weights

        return attention

    def remove(self):
        for handle in self.handles:
            handle.remove()
        if self.cut:
            ALL_ATTENTION_FUNCTIONS.get_interface = self.interface


def applies(one, step):
    """Whether an intervention is for a step."""
    steps = one.get("steps", "all")
    return steps == "all" or step in ([0] if steps == "prompt" else steps)


def start_of(path, tokens, step, length):
    """The token of its sequence with which a module's tensor begins; `length` is the sequence's after step 0."""
    return max(0, length + step - tokens) if path.startswith("language_model.") else 0


def edit(x, one, rows, start):
    """[R, T, H, C] with an intervention; R are `rows` prompts, each with its beams or frames."""
    R, T, H, C = x.shape
    index, each, y = one.get("index", {}), R // rows, x.clone()
    tokens = index.get("from" if one.get("at") == "edges" else "token", range(start, start + T))
    channels = index.get("channel", range(C)) if one.get("at") != "edges" else [s for s in index.get("to", range(C)) if s < C]
    lists = [index.get("row", range(rows)), tokens, index.get("head", range(H)), channels]
    value = torch.tensor(one.get("value", 0.0), dtype=torch.float32).to(x.dtype)
    if one.get("at") not in ("heads", "edges") and value.dim() > 1:
        value = value.unsqueeze(-2)
    value = value.expand([len(part) for part in lists])
    kept = [i for i, token in enumerate(lists[1]) if start <= token < start + T]
    value = value[:, kept].repeat_interleave(each, 0)
    at = [
        torch.tensor([row * each + k for row in lists[0] for k in range(each)]),
        torch.tensor([lists[1][i] - start for i in kept], dtype=torch.long), torch.tensor(list(lists[2])),
        torch.tensor(list(lists[3]), dtype=torch.long),
    ]
    at = torch.meshgrid(*at, indexing="ij")
    old, mean = x[at], x.mean(0, keepdim=True).expand(x.shape)[at]
    y[at] = {"zero": old * 0, "scale": old * value, "add": old + value, "set": value, "mean": mean}[one["op"]]
    return y


@contextlib.contextmanager
def applied(model, interventions, rows, length):
    """Runs what is inside, one forward() or one generate(), with interventions."""
    def see(path, at, x, step):
        for one in interventions:
            if one["module"] == path and one.get("at", "output") == at and applies(one, step):
                x = edit(x, one, rows, start_of(path, x.shape[1], step, length))
        return x

    hooks = Hooks(model, see, {(one["module"], one.get("at", "output")) for one in interventions})
    try:
        yield
    finally:
        hooks.remove()


# ---------------------------------------------------------------------------------------------------------------------
# Cases


def length_of(model, spec, inputs, case):
    """Tokens that the language model has read after step 0."""
    if model.config.text_config.is_encoder_decoder:
        return len(case["inputs"]["decoder_input_ids"][0]) if "inputs" in case else 1
    in_front = spec["num_query_tokens"] * spec.get("frames", 1) if spec.get("legacy") else 0
    return in_front + inputs["input_ids"].shape[1]


def run(model, spec, inputs, options, case, changed=True):
    """The logits of forward(), or the sequences of generate(), as tensors by name."""
    rows, length = len(spec["prompts"]), length_of(model, spec, inputs, case)
    with applied(model, case["interventions"] if changed else [], rows, length):
        if case["call"] == "forward":
            more = {key: torch.tensor(value) for key, value in case.get("inputs", {}).items()}
            return {"logits": composites.forward(model, inputs, options=options, **more).logits}
        torch.manual_seed(0)
        return {"sequences": composites.generate(model, inputs, options=options, **case["kwargs"])}


def record(model, spec, inputs, options, case):
    """What is to be compared of a case."""
    return {f"{case['name']}.{key}": tensor for key, tensor in run(model, spec, inputs, options, case).items()}


def sites_of(model, spec, inputs, options, case):
    """Where a case may be changed: (path, at) -> the shapes [R, T, H, C] of step 0 and of step 1, None where it is not run."""
    shapes = {}

    def see(path, at, x, step):
        if step < 2:
            shapes.setdefault((path, at), [None, None])[step] = tuple(x.shape)

    modules = dict(model.named_modules())
    wanted = set()
    for path, module in modules.items():
        if path in WHOLES or path.endswith(LEFT_OUT) or (spec.get("legacy") and path.endswith(("shared", "embed_tokens"))):
            continue
        kind = type(module).__name__
        wanted.add((path, "output"))
        if isinstance(module, (torch.nn.Linear, torch.nn.LayerNorm)) or kind.endswith(INPUTS):
            wanted.add((path, "input"))
        if projection_of(modules, path) or path.endswith("attention.attention"):
            wanted |= {(path, "heads"), (path, "edges")}
    hooks = Hooks(model, see, wanted)
    try:
        if case["call"] == "forward":
            run(model, spec, inputs, options, {**case, "interventions": []})
        else:
            run(model, spec, inputs, options, {**case, "interventions": [], "kwargs": {"max_new_tokens": 2, "eos_token_id": None}})
    finally:
        hooks.remove()
    return {site: both for site, both in shapes.items() if any(both)}


def draw_one(rng, sites, rows, length, passes):
    """An intervention at one of the sites."""
    between = lambda low, high: int(rng.integers(low, high + 1))  # noqa: E731
    some = lambda chance: bool(rng.random() < chance)  # noqa: E731
    part = ["vision_model", "qformer", "language_projection", "language_model"][between(0, 3)]
    at = PLACES[between(0, 3)]
    names = sorted(site for site in sites if site[0].startswith(part) and site[1] == at) or sorted(sites)
    path, at = names[between(0, len(names) - 1)]
    first, later = sites[path, at]
    _, T, H, C = first or later
    one = {"module": path, "op": "zero" if at == "edges" else OPS[between(0, 4)], **({"at": at} if at != "output" or some(0.5) else {})}
    last = passes - 1
    choices = (["all", "prompt"] if first else []) + ([[step] for step in range(1, passes)] if later and last > 0 else [])
    if first and later and last > 1:
        choices.append(sorted({0, between(1, last), between(1, last)}))
    steps = choices[between(0, len(choices) - 1)]
    if steps != "all" or some(0.3):
        one["steps"] = steps
    distinct = lambda values, most: [int(i) for i in rng.permutation(list(values))[: between(1, most)]]  # noqa: E731
    index = {}
    if some(0.4):
        index["row"] = distinct(range(rows), rows)
    if some(0.5):
        start = start_of(path, T, 0, length) if first else 0
        tokens = [*range(start, start + T)] if first and applies(one, 0) else []
        if later:
            tokens += [length - 1 + step for step in range(1, passes) if applies(one, step)]
        index["from" if at == "edges" else "token"] = distinct(sorted(set(tokens)), min(len(tokens), 4))
    if at in ("heads", "edges") and some(0.8):
        index["head"] = distinct(range(H), H)
    if at == "edges" and some(0.8):
        lasts = [step for step in range(passes) if applies(one, step)]
        grown = later[3] + lasts[-1] - 1 if later and lasts[-1] > 0 and first and later[3] > first[3] else C
        index["to"] = distinct(range(grown), min(grown, 6))
    elif at != "edges" and some(0.4):
        index["channel"] = distinct(range(C), min(C, 6))
    if index:
        one["index"] = index
    if one["op"] in ("scale", "add", "set"):
        selected = [len(index.get("row", range(rows))), len(index["token"]) if "token" in index else 1,
                    *([len(index.get("head", range(H)))] if at == "heads" else []), len(index.get("channel", range(C)))]
        shape = [size if some(0.5) else 1 for size in selected][between(0, len(selected)):]
        one["value"] = rng.normal(0, 1, shape).round(3).tolist()
    return one


def draw_case(rng, name, call, model, exact, spec, inputs, options, setting):
    """One forward() or generate() with one to three interventions."""
    rows, text_config = len(spec["prompts"]), model.config.text_config
    case = {"name": name, "call": call}
    if call == "forward" and text_config.is_encoder_decoder:
        ids = rng.integers(3, setting.vocabulary, (rows, int(rng.integers(1, 6))))
        case["inputs"] = {"decoder_input_ids": [[text_config.decoder_start_token_id, *map(int, row)] for row in ids]}
    sites = sites_of(model, spec, inputs, options, case)
    doubles = {key: value.double() if value.is_floating_point() else value for key, value in inputs.items()}
    for _ in range(ATTEMPTS):
        passes = 1 if call == "forward" else int(rng.integers(3, 9))
        length = length_of(model, spec, inputs, case)
        case["interventions"] = [draw_one(rng, sites, rows, length, passes) for _ in range(rng.integers(1, 4))]
        if call != "forward":
            kwargs = {"max_new_tokens": passes, "eos_token_id": None}
            if call == "beams":
                kwargs |= {"num_beams": int(rng.integers(2, 5)), "length_penalty": float(rng.choice([-1.0, 1.0]))}
            elif call == "samples":
                kwargs |= {"do_sample": True, "top_k": 1, "num_return_sequences": int(rng.integers(1, 4))}
            case["kwargs"] = kwargs
            if rng.random() < 0.6:  # an end that one row reaches before the others
                path = run(model, spec, inputs, options, case)["sequences"][:, -passes:]
                end = int(path[int(rng.integers(len(path))), int(rng.integers(passes))])
                kwargs |= {"eos_token_id": end, "pad_token_id": int(setting.unreached[0])}
        if is_clear_cut(model, exact, spec, inputs, doubles, options, case):
            return case
    raise Unclear(f"no clear-cut interventions for {call} in {ATTEMPTS} draws")


@torch.no_grad()
def is_clear_cut(model, exact, spec, inputs, doubles, options, case):
    """Whether interventions change something, and an honest f32 program gets the same."""
    (key, ours), = run(model, spec, inputs, options, case).items()
    (_, without), = run(model, spec, inputs, options, case, changed=False).items()
    (_, better), = run(exact, spec, doubles, options, case).items()
    if ours.shape == without.shape and torch.equal(ours, without):
        return False
    if key == "logits":
        return bool(ours.isfinite().all()) and float((ours - better).pow(2).sum() / better.pow(2).sum()) < CONDITION
    generator = torch.Generator().manual_seed(0)
    noisy = lambda _module, _args, output: output + NOISE * torch.randn(output.shape, generator=generator)  # noqa: E731
    hook = model.language_model.lm_head.register_forward_hook(noisy)
    try:
        (_, again), = run(model, spec, inputs, options, case).items()
    finally:
        hook.remove()
    return all(ours.shape == other.shape and torch.equal(ours, other) for other in (better, again))


def draw_cases(rng, composite, setting):
    """A case of every kind of call."""
    model, inputs, options = composite.model, dict(composite.inputs()), composites.options_of(composite.spec)
    exact = copy.deepcopy(model).double()
    return [
        draw_case(rng, f"edited_{call}", call, model, exact, composite.spec, inputs, options, setting)
        for call in ("forward", "greedy", "beams", "samples")
    ]
