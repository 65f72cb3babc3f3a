"""Makes and checks goldens: what PyTorch and Hugging Face's own classes compute for small random composites.

    python make.py named  --out data                    the committed goldens, again
    python make.py siblings --out siblings               those of BLIP-2, videos, other image sizes, legacy files
    python make.py random --seed 7 --count 20 --out DIR  fresh composites for a live parity run
    python make.py verify DIR                            reload every folder under DIR and compare
    python make.py saved DIR                             compare every folder under DIR with its subfolder saved/

One golden is one checkpoint folder plus its images, golden.safetensors and golden.json; README.md says what is in
them. The model is reloaded from that folder before anything is recorded, so a golden never rests on what was in memory.
Not a test of ours: nothing here knows the TypeScript side.
"""

import argparse
import copy
import hashlib
import itertools
import json
import platform
import shutil
import sys
import tempfile
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AddedToken
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

import base_models
import composites
import decoding
import drafts
import interventions
import likelihood
import logit_lens
import processor_calls
import retrieval_models
import states
import weights

NAMED_SEED = 1
ATTEMPTS = 200
MIN_MARGIN = 1e-3  # below this an honest f32 implementation may pick another token
LOGIT_STD = (1.5, 6.0)  # outside, a golden says too little or saturates
DEFAULT_NEW_TOKENS = 20  # what generate() does when no maximum is given
SHAKES = 3  # models with other roundings of the weights, to learn how well a sum is defined
SINGLES = 3  # options that live parity asks of a composite by themselves
DECODER_INPUTS = 6  # tokens of the answer that forward() is given, if the language model has a decoder
TOLERANCE = 1e-4  # of verify, on logits, as a part of their standard deviation: other processors sum in another order


def note(message):
    """One line of progress."""
    print(message, file=sys.stderr, flush=True)


# ---------------------------------------------------------------------------------------------------------------------
# Running


def load(folder):
    """The model (f32, eager attention) and the processor (PIL images) of a checkpoint folder."""
    processor = sibling_of(folder).load_processor(folder)
    assert isinstance(processor.image_processor, BlipImageProcessorPil), "goldens need the PIL image processor"
    return load_model(folder), processor


def load_model(folder):
    """The model of a folder, f32, with eager attention."""
    return sibling_of(folder).MODEL.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def sibling_of(folder):
    return composites.MODELS[json.loads((folder / "config.json").read_text())["model_type"]]


def tensor_of(output):
    """The tensor that stands for a module's output: itself, a tuple's first, .logits or .last_hidden_state."""
    if isinstance(output, torch.Tensor):
        return output
    for name in ("logits", "last_hidden_state"):
        if getattr(output, name, None) is not None:
            return getattr(output, name)
    return tensor_of(output[0])


# Products whose input is no module's output but attention's, or a gated one: what we give them is our own.
OWN_INPUT = ("self_attn.projection", "o_proj", "out_proj", "Attention.o", "down_proj", "DenseReluDense.wo")


def exact_of(module, x):
    """What a product or a norm gives for x in f64; None of other modules."""
    weight, bias = (getattr(module, name, None) for name in ("weight", "bias"))
    weight, bias = (None if of is None else of.double() for of in (weight, bias))
    x = x.double()
    if type(module).__name__.endswith(("RMSNorm", "T5LayerNorm")):  # transformers' compute in f32 whatever they are given
        return weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + module.variance_epsilon))
    if isinstance(module, torch.nn.Linear):
        return F.linear(x, weight, bias)
    if isinstance(module, torch.nn.LayerNorm):
        return F.layer_norm(x, module.normalized_shape, weight, bias, module.eps)
    return None


def record_forward(model, inputs, options, judged=False, **start):
    """One forward(): its tensors by name, and the module paths in the order in which they finished.

    With `judged` also, of products and norms, what is missing to the f64 result for the same input: `missing:<path>`.
    """
    tensors, order, runs = {}, [], {}

    def after(path):
        def hook(module, args, output):
            runs[path] = runs.get(path, 0) + 1
            name = path if runs[path] == 1 else f"{path}#{runs[path]}"
            tensors[f"output:{name}"] = tensor_of(output).detach().clone()
            order.append(name)
            exact = exact_of(module, args[0]) if judged and args and not path.endswith(OWN_INPUT) else None
            if exact is not None:
                tensors[f"missing:{name}"] = (exact - output.double()).float().detach()

        return hook

    def before_language_model(_module, _args, kwargs):
        tensors["inputs_embeds"] = kwargs["inputs_embeds"].detach().clone()

    hooks = [module.register_forward_hook(after(path)) for path, module in model.named_modules() if path]
    hooks.append(model.language_model.register_forward_pre_hook(before_language_model, with_kwargs=True))
    try:
        outputs = composites.forward(model, inputs, options=options, **start)
    finally:
        for hook in hooks:
            hook.remove()
    tensors["vision_outputs.last_hidden_state"] = outputs.vision_outputs.last_hidden_state
    tensors["qformer_outputs.last_hidden_state"] = outputs.qformer_outputs.last_hidden_state
    tensors["image_features"] = tensors["output:language_projection"]
    tensors["logits"] = outputs.logits
    return tensors, order


def decoder_input_ids(model, path):
    """What forward() is given besides where the language model has a decoder of its own: the start of the greedy path."""
    config = model.config.text_config
    if not config.is_encoder_decoder:
        return {}
    first = torch.full_like(path[:, :1], config.decoder_start_token_id)
    return {"decoder_input_ids": torch.cat([first, path[:, :DECODER_INPUTS]], 1)}


def generate(model, inputs, options, kwargs):
    """generate() with its raw logits. Returns sequences i64[B, P + steps] and logits f32[steps, B, V]."""
    wanted = {"return_dict_in_generate": True, "output_logits": True}
    result = composites.generate(model, inputs, options=options, **kwargs, **wanted)
    return result.sequences, torch.stack(result.logits)


def record_calls(model, inputs, options, calls):
    """Runs generate() for each of `calls`: sequences, beams' scores, and the raw logits of the call named greedy.

    The call named no_prompt gets the images alone.
    """
    tensors = {}
    for call, kwargs in calls.items():
        beams = kwargs.get("num_beams", 1) > 1
        wanted = {"return_dict_in_generate": True, "output_logits": call == "greedy", "output_scores": beams}
        given = {"pixel_values": inputs["pixel_values"]} if call == "no_prompt" else inputs
        result = composites.generate(model, given, options=options, **kwargs, **wanted)
        tensors[f"{call}.sequences"] = result.sequences
        if beams:
            tensors[f"{call}.sequences_scores"] = result.sequences_scores
        if call == "greedy":
            tensors["greedy.logits"] = torch.stack(result.logits)
    return tensors


def in_f64(model, inputs):
    """The model and its inputs in f64."""
    exact = {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in inputs.items()}
    return copy.deepcopy(model).double(), exact


def shaken(model):
    """Copies of a model in f64 whose weights are off by about the rounding of f32."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(SHAKES):
        copied = copy.deepcopy(model)
        for weight in copied.parameters():
            weight.mul_(1 + 2.0**-24 * torch.randn(weight.shape, generator=generator, dtype=weight.dtype))
        yield copied


@torch.no_grad()
def with_exact_sums(found, model, inputs, record):
    """`found` with the sums of log-probabilities that f64 gives, where it has the same sequences; with each, how well it is defined.

    Over massive channels PyTorch's f32 is further from them than the tolerance allows another program. The condition f32[1] is the
    largest difference if the weights are off by f32's rounding: no program in f32 can be expected to be much nearer.
    `record` gives what `found` is, of another model and inputs.
    """
    keys = [key for key in found if key.endswith("sequences_scores")]
    if not keys:
        return found
    model, inputs = in_f64(model, inputs)
    exact = record(model, inputs)
    others = [record(other, inputs) for other in shaken(model)]
    for key in keys:
        sequences = key.replace("sequences_scores", "sequences")
        if not torch.equal(found[sequences], exact[sequences]):
            continue
        same = [other[key] for other in others if torch.equal(other[sequences], exact[sequences])]
        found[key] = exact[key].float()
        found[f"{key}.condition"] = torch.tensor([max([(sums - exact[key]).abs().max().item() for sums in same], default=0.0)])
    return found


def answer(processor, sequences):
    """The rows as text. Beams of models without any end id are filled with -1, which no tokenizer reads."""
    rows = [[token for token in row if token >= 0] for row in sequences.tolist()]
    return processor.batch_decode(rows, skip_special_tokens=True)


# ---------------------------------------------------------------------------------------------------------------------
# Choosing weights and an end of sequence


def explore(model, inputs, options):
    """Greedy decoding with no end: new ids i64[B, 20], the smallest top1 - top2 margin, the logits' deviation."""
    config = model.language_model.generation_config
    saved = config.eos_token_id, config.pad_token_id
    config.eos_token_id, config.pad_token_id = None, 0
    try:
        sequences, logits = generate(model, inputs, options, {"max_new_tokens": DEFAULT_NEW_TOKENS})
    finally:
        config.eos_token_id, config.pad_token_id = saved
    top = logits.topk(2).values
    return sequences[:, -DEFAULT_NEW_TOKENS:], float((top[..., 0] - top[..., 1]).min()), float(logits.std())


def choose_eos(path):
    """An id that some row reaches at its 3rd to 10th new token and that no row reaches sooner; None if there is none.

    With several rows at least one other must go on for two tokens longer, so that the filling of a finished row shows.
    """
    rows = path.tolist()
    for step in range(2, 10):
        for row in rows:
            token = row[step]
            first = [r.index(token) if token in r else len(r) for r in rows]
            if min(first) == step and (len(rows) == 1 or max(first) >= step + 2):
                return token
    return None


class Unsettled(RuntimeError):
    """A composite whose greedy decoding no weights make clear-cut; rare (a vocabulary of few ids it likes too well)."""


def settle(composite, rng, key):
    """Redraws the weights until greedy decoding is clear-cut, then sets text_config's eos as the spec wants it.

    `key` is the first half of the weights' key; the second is the number of the attempt.

    Returns the generate() calls to record, the greedy path they go along, how many redraws it took, and what decoding
    options may be drawn for.
    """
    model, spec, inputs = composite.model, composite.spec, composite.inputs()
    text_config, tokenizer = model.config.text_config, composite.processor.tokenizer
    for attempt in range(1, ATTEMPTS + 1):
        composites.redraw(composite, [key, attempt])
        path, margin, deviation = explore(model, inputs, composites.options_of(spec))
        eos = choose_eos(path)
        # Ids beyond the tokenizer (padding rows of the vocabulary) decode to nothing: no use for an expected text.
        unusable = margin < MIN_MARGIN or eos is None or int(path.max()) >= len(tokenizer)
        if not unusable and LOGIT_STD[0] < deviation < LOGIT_STD[1]:
            break
    else:
        raise Unsettled(f"no usable weights in {ATTEMPTS} draws: margin {margin}, logits' deviation {deviation}")
    unreached = [i for i in range(3, len(tokenizer)) if i not in set(path.flatten().tolist())]
    never, other = unreached[int(rng.integers(len(unreached)))], unreached[int(rng.integers(len(unreached)))]
    text_config.eos_token_id = {"config": eos, "list": [never, eos], "call": never}[spec["eos"]]
    given = eos if spec["eos"] == "call" else other
    # What max_length counts besides new tokens: a decoder of its own has only its start token.
    in_front = spec["num_query_tokens"] * spec.get("frames", 1) if spec.get("legacy") else 0
    prompt_length = 1 if text_config.is_encoder_decoder else in_front + inputs["input_ids"].shape[1]
    calls = {
        "greedy": {"max_new_tokens": 12, "do_sample": False},
        "greedy_default": {},
        "greedy_max_length": {"max_length": prompt_length + 5},
        "greedy_eos_given": {"max_new_tokens": 12, "eos_token_id": given, "pad_token_id": tokenizer.pad_token_id},
        "beams": {"num_beams": 3, "max_new_tokens": 8},
        "beams_penalised": {
            "num_beams": 5, "repetition_penalty": 1.5, "length_penalty": -1.0, "num_return_sequences": 2,
            "max_new_tokens": 8,
        },
    }
    if spec.get("model") == "blip-2" and getattr(text_config, "bos_token_id", None) is not None and not spec.get("legacy"):
        calls["no_prompt"] = {"max_new_tokens": 6}
    if spec.get("legacy"):
        calls["min_length"] = {"max_length": prompt_length + 11, "min_length": prompt_length + 8}
    setting = decoding.Setting(
        path=path.tolist(), texts=[[tokenizer.decode([token]) for token in row] for row in path.tolist()],
        unreached=unreached, eos=eos, prompt_length=prompt_length,
        vocabulary=model.language_model.lm_head.out_features,
    )
    return calls, path, attempt, setting


# ---------------------------------------------------------------------------------------------------------------------
# What live parity asks besides


def draw_questions(rng, composite, assistant, setting):
    """What the composite of a random spec is asked besides a golden's questions: `asked` of golden.json."""
    spec, model, inputs = composite.spec, composite.model, composite.inputs()
    asked = spec["asked"]
    calls = decoding.draw_calls(
        rng, model, composite.processor, inputs, composites.options_of(spec), setting, **asked["decoding"]
    )
    # Features wider than the embeddings are scattered across rows, so that a batch is not its rows (ranking/make.py).
    narrow = spec["text"].get("word_embed_proj_dim")
    candidates = None
    if len(spec["prompts"]) == 1 or not narrow:
        ordinary = composites.placeholder_of(model) or setting.vocabulary  # the placeholder is the tokenizer's last id
        candidates = likelihood.draw_candidates(len(spec["prompts"]), ordinary, rng, count=4, longest=5)
    beams, tokens = int(rng.integers(2, 5)), [int(n) for n in rng.integers(2, 5, 2)]
    # Read with the prompt, where another placeholder would want an image feature.
    said = [id for id in setting.path[-1] if id != composites.placeholder_of(model)]
    return {
        "calls": calls,
        "labels": draw_labels(rng, composite, setting, inputs),
        "states": {
            "greedy_states": {"max_new_tokens": tokens[0]}, "beams_states": {"max_new_tokens": tokens[1], "num_beams": beams}
        },
        "candidates": candidates,
        "processor": [processor_calls.draw_call(rng, spec) for _ in range(asked["processor"])],
        "interventions": interventions.draw_cases(rng, composite, setting),
        "lens": {"row": len(setting.path) - 1, "answer": said[:4]},
        "drafts": drafts.draw_calls(rng, spec, model, assistant, inputs, composites.options_of(spec), setting),
    }


def draw_labels(rng, composite, setting, inputs):
    """[B][T] labels of which some do not count: of a decoder of its own an answer, else image, prompt and padding too."""
    spec, text_config = composite.spec, composite.model.config.text_config
    if text_config.is_encoder_decoder:
        shape = len(spec["prompts"]), int(rng.integers(3, 8))
        labels = torch.from_numpy(rng.integers(3, setting.vocabulary, shape))
        dropped = rng.random(shape) < 0.3
        dropped[0, 0] = False
    else:
        labels, mask = inputs["input_ids"].clone(), inputs["attention_mask"]
        image = labels == (-1 if spec.get("legacy") else composites.placeholder_of(composite.model))
        dropped = (rng.random(labels.shape) < 0.4) | (mask == 0).numpy() | image.numpy()
        dropped[0, int(mask[0].nonzero().max())] = False
        if spec.get("legacy"):  # image features stand in front
            in_front = spec["num_query_tokens"] * spec.get("frames", 1)
            labels = torch.nn.functional.pad(labels, (in_front, 0))
            dropped = np.pad(dropped, ((0, 0), (in_front, 0)), constant_values=True)
    labels[torch.from_numpy(np.asarray(dropped))] = states.IGNORED
    return labels.tolist()


@torch.no_grad()
def record_answers(model, assistant, processor, spec, inputs, options, start, files, asked):
    """What Hugging Face answers to `asked`, as tensors by name. `start`: decoder_input_ids, of T5."""
    tensors = {}
    exact = in_f64(model, inputs) if spec.get("massive") else (model, inputs)
    for call in asked["drafts"]:
        tensors |= drafts.record(model, assistant, inputs, options, call)
    for call, kwargs in asked["calls"].items():

        def record(model, inputs, call=call, kwargs=kwargs):
            torch.manual_seed(0)
            return decoding.record(model, processor, inputs, options, call, kwargs)

        found = record(model, inputs)
        tensors |= with_exact_sums(found, model, inputs, record) if spec.get("massive") else found
    labels, more = torch.tensor(asked["labels"]), {}
    text_config = model.config.text_config
    if text_config.is_encoder_decoder and text_config.pad_token_id is None:  # else Hugging Face shifts the labels itself
        shifted = labels.roll(1, 1)
        shifted[:, 0] = text_config.decoder_start_token_id
        more["decoder_input_ids"] = shifted.masked_fill(shifted == states.IGNORED, 0)
        tensors["states.decoder_input_ids"] = more["decoder_input_ids"]
    tensors |= prefixed("states", states.record_forward(model, inputs, options, labels, **more))
    for call, kwargs in asked["states"].items():
        found = states.record_generate(model, inputs, options, call, kwargs)
        found.pop(f"{call}.beam_indices", None)  # i32
        tensors |= prefixed("states", found)
    if asked["candidates"]:
        sums = [
            [likelihood.nll(*exact, b, ids, options) for ids in row] for b, row in enumerate(asked["candidates"])
        ]
        tensors["ranking.sums"] = torch.tensor(sums, dtype=torch.float32)
    for i, call in enumerate(asked["processor"]):
        tensors |= prefixed(f"processor.{i}", processor_calls.record(processor, files, call))
    for case in asked["interventions"]:
        tensors |= interventions.record(model, spec, inputs, options, case)
    tensors |= prefixed("base", base_models.record(base_models.base_of(model), inputs, options, start))
    return tensors | logit_lens.record(model, inputs, options, asked["lens"])


def prefixed(name, tensors):
    """The same tensors under longer names."""
    return {f"{name}.{key}": tensor for key, tensor in tensors.items()}


# ---------------------------------------------------------------------------------------------------------------------
# One golden


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def digest(tensor):
    """What makes two recorded tensors the same: dtype, shape and bytes."""
    return tensor.dtype, tuple(tensor.shape), tensor.numpy().tobytes()


WHOLE = ("plain_f32", "t5_flan", "opt_plain", "blip2_opt", "video_1_frame")  # of each family one has every module's output
EVERY = 4  # of the others' modules, every fourth


def keep(name, tensors, order):
    """The tensors that a committed golden stores: all but most modules' outputs, another quarter in each golden."""
    if name in WHOLE:
        return tensors
    kept = {f"output:{path}" for path in order[zlib.crc32(name.encode()) % EVERY :: EVERY]}
    return {key: tensor for key, tensor in tensors.items() if not key.startswith("output:") or key in kept}


def make_golden(folder, name, spec, seed):
    """Writes one golden folder. `seed` is a list of integers; the same seed gives the same bytes."""
    started = time.monotonic()
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    composite = composites.build(spec, rng, folder)
    key = zlib.crc32(json.dumps(seed).encode())
    calls, path, draws, setting = settle(composite, rng, key)
    composites.write_model(composite, folder)
    committed = "asked" not in spec
    if committed:
        weights.write_recipe(folder, composite.drawn, [key, draws])
    images = []
    for i, image in enumerate(composite.images):
        images.append(f"image_{i}.png")
        image.save(folder / images[-1])

    model, processor = load(folder)
    inputs = dict(composites.encode(spec, processor, [Image.open(folder / file) for file in images]))
    options = composites.options_of(spec)
    for key, expected in composite.inputs().items():
        assert torch.equal(inputs[key], expected), f"{folder}: {key} differ once config.json stands by"
    start = decoder_input_ids(model, path)
    tensors, order = record_forward(model, inputs, options, judged=bool(spec.get("massive")), **start)
    tensors = {**inputs, **start, **tensors}
    recorded = record_calls(model, inputs, options, calls)
    if spec.get("massive"):
        recorded = with_exact_sums(recorded, model, inputs, lambda *of: record_calls(*of, options, calls))
    tensors |= recorded
    generations = [
        {"name": call, "kwargs": kwargs, "answers": answer(processor, recorded[f"{call}.sequences"])}
        for call, kwargs in calls.items()
    ]
    reloaded_path, margin, deviation = explore(model, inputs, options)
    assert torch.equal(reloaded_path, path), f"{folder}: the files do not say what the model in memory was"
    asked = {}
    if "asked" in spec:
        whole = composites.Composite(spec, model, processor, composite.images)
        drafts.make_assistant(rng, whole, folder)
        assistant = load_model(folder / drafts.FOLDER)
        asked = draw_questions(rng, whole, assistant, setting)
        files = [folder / file for file in images]
        answers = record_answers(model, assistant, processor, spec, inputs, options, start, files, asked)
        base_models.base_of(model).save_pretrained(folder / "base")
        still = [Image.open(folder / file) for file in images[: len(spec["prompts"])]]
        words = [zlib.crc32(json.dumps(seed).encode()), 0]
        asked["retrieval"], read = retrieval_models.draw_model(rng, spec, still, folder / "retrieval", words)
        answers |= prefixed("retrieval", retrieval_models.record(folder / "retrieval", read))
        answers |= prefixed("qformer", retrieval_models.record_qformer(folder / "retrieval", words[0]))
        answers["retrieval.pixel_values"] = read["pixel_values"]
        tensors |= answers
        for call, kwargs in asked["calls"].items():
            rows = answers.get(f"{call}.sequences", torch.zeros(0, 0))
            generations.append({"name": call, "kwargs": kwargs, "answers": answer(processor, rows)})
        asked["calls"] = list(asked["calls"])

    stored, same_as, seen = {}, {}, {}
    for key, tensor in (keep(name, tensors, order) if committed else tensors).items():
        tensor = tensor.contiguous()
        first = seen.setdefault(digest(tensor), key)
        if first == key:
            stored[key] = tensor
        else:
            same_as[key] = first
    versions = {
        "python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__,
        "numpy": np.__version__,
    }
    files = sorted(folder.glob("model*.safetensors"))
    about = {
        "name": name, "description": spec["description"], "seed": seed, "draws": draws, "versions": versions,
        "spec": spec, "prompts": spec["prompts"], "images": images, "parameters": model.num_parameters(),
        **({"options": options} if options else {}),
        "min_margin": margin, "logits_std": deviation, "generations": generations,
        "model_sha256": {file.name: sha256(file) for file in files},
        "modules": order, "same_as": same_as, **({"asked": asked} if asked else {}),
    }
    # One metadata key only: safetensors writes several in an order that changes from run to run.
    metadata = {"golden": json.dumps({"seed": seed, "versions": versions, "model_sha256": about["model_sha256"]})}
    save_file(stored, folder / "golden.safetensors", metadata=metadata)
    (folder / "golden.json").write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n")
    if committed and not spec["weights_stored"]:
        for file in files:
            file.unlink()
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    note(
        f"{folder}: {about['parameters']} parameters, draw {draws}, margin {margin:.4f}, logits' deviation "
        f"{deviation:.2f}, {size / 1000:.0f} kB, {time.monotonic() - started:.1f} s"
    )


def make_named(out, names):
    for name in names:
        make_golden(out / name, name, composites.named_spec(name), [NAMED_SEED, zlib.crc32(name.encode())])


def make_random(out, seed, skip, count, backbones):
    """Goldens number `skip` … of a seed, each with SINGLES other options by themselves and some combinations."""
    options = sorted(decoding.alone())
    for i in range(skip, skip + count):
        name = f"random_{seed}_{i:03}"
        for redraw in itertools.count():
            spec = composites.random_spec(np.random.default_rng([seed, i, 2 * redraw]), backbones)
            singles = [options[(seed + i * SINGLES + n) % len(options)] for n in range(SINGLES)]
            if redraw < ATTEMPTS and not all(decoding.suits(option, spec) for option in singles):
                continue
            singles = [option for option in singles if decoding.suits(option, spec)]  # if no backbone that can may be drawn
            spec["asked"] = {"decoding": {"singles": singles, "combinations": 2, "samplings": 1}, "processor": 3}
            try:
                make_golden(out / name, name, spec, [seed, i, 2 * redraw + 1])
                break
            except (Unsettled, decoding.Unclear, interventions.Unclear) as error:
                note(f"{out / name}: {error}; drawing another")


# ---------------------------------------------------------------------------------------------------------------------
# Verifying


def verify_golden(folder, remake):
    """Reloads one golden and recomputes it. Returns a list of complaints, empty if all agrees."""
    about = json.loads((folder / "golden.json").read_text())
    stored = load_file(folder / "golden.safetensors")
    spec, complaints = about["spec"], []
    with weights.whole(folder) as checkpoint:
        for file, expected in about["model_sha256"].items():
            if sha256(checkpoint / file) != expected:
                complaints.append(f"{file} has changed")
        model, processor = load(checkpoint)
    with tempfile.TemporaryDirectory() as scratch:
        if (folder / weights.FILE).exists():
            weights.write(folder, Path(scratch))
        for file in Path(scratch).iterdir():
            if sha256(file) != about["model_sha256"][file.name]:
                complaints.append(f"{file.name} is drawn otherwise")
    inputs = dict(composites.encode(spec, processor, [Image.open(folder / file) for file in about["images"]]))
    options = composites.options_of(spec)
    start = {key: stored[key] for key in ("decoder_input_ids",) if key in stored}
    tensors, order = record_forward(model, inputs, options, judged=bool(about["spec"].get("massive")), **start)
    tensors = {**inputs, **start, **tensors}
    if order != about["modules"]:
        complaints.append("modules run in another order")
    calls, asked = {call["name"]: call["kwargs"] for call in about["generations"]}, about.get("asked")
    if asked:
        asked["calls"] = {call: calls.pop(call) for call in asked["calls"]}
        files = [folder / file for file in about["images"]]
        tensors |= record_answers(model, processor, about["spec"], inputs, options, start, files, asked)
        read = {name: stored[about["same_as"].get(f"retrieval.{name}", f"retrieval.{name}")] for name in ("pixel_values", "input_ids", "attention_mask")}
        tensors |= prefixed("retrieval", {**retrieval_models.record(folder / "retrieval", read), "pixel_values": read["pixel_values"]})
        words = zlib.crc32(json.dumps(about["seed"]).encode())
        tensors |= prefixed("qformer", retrieval_models.record_qformer(folder / "retrieval", words))
    tensors |= record_calls(model, inputs, options, calls)
    if not asked:
        tensors = keep(about["name"], tensors, order)
    for generation in about["generations"]:
        rows = tensors.get(f"{generation['name']}.sequences", torch.zeros(0, 0))
        if answer(processor, rows) != generation["answers"]:
            complaints.append(f"{generation['name']}: other answers")
    expected = {key: stored[about["same_as"].get(key, key)] for key in [*stored, *about["same_as"]]}
    if expected.keys() != tensors.keys():
        complaints.append(f"other tensors: {sorted(expected.keys() ^ tensors.keys())}")
    worst = 0.0
    for key in expected.keys() & tensors.keys():
        if expected[key].shape != tensors[key].shape:
            complaints.append(f"{key}: {tuple(tensors[key].shape)}, stored {tuple(expected[key].shape)}")
        elif expected[key].dtype == torch.int64 or key == "pixel_values":
            if not torch.equal(expected[key], tensors[key]):
                complaints.append(f"{key} differs")
        else:
            same = expected[key] == tensors[key]  # infinities too
            finite = expected[key][expected[key].isfinite()]
            deviation = float(finite.std(correction=0)) or 1.0  # 0 of one number, or if a ReLU let nothing through
            difference = float((expected[key] - tensors[key]).masked_fill(same, 0).abs().max()) / deviation
            worst = max(worst, difference)
            if not difference <= TOLERANCE:
                complaints.append(f"{key} differs by {difference:.1e} of its deviation")
    if remake:
        with tempfile.TemporaryDirectory() as scratch:
            again = Path(scratch) / folder.name
            make_golden(again, about["name"], about["spec"], about["seed"])
            old = {path.relative_to(folder): sha256(path) for path in folder.rglob("*") if path.is_file()}
            new = {path.relative_to(again): sha256(path) for path in again.rglob("*") if path.is_file()}
            complaints += [f"{path} came out otherwise when remade" for path in old if old[path] != new.get(path)]
            complaints += [f"{path} is new when remade" for path in new.keys() - old.keys()]
    note(f"{folder}: {'; '.join(complaints) or 'agrees'} (largest difference {worst:.1e} of a deviation)")
    return complaints


def verify(root, remake):
    folders = sorted(path.parent for path in root.rglob("golden.json"))
    if not folders:
        sys.exit(f"{root}: no golden.json in it")
    failed = [folder for folder in folders if verify_golden(folder, remake)]
    note(f"{len(folders) - len(failed)} of {len(folders)} goldens agree")
    return len(failed) == 0


# ---------------------------------------------------------------------------------------------------------------------
# What another program saved


def auto_model(folder):
    """The model that config.json's architectures name, in f32, and what from_pretrained had to say about it."""
    [name] = json.loads((folder / "config.json").read_text())["architectures"]
    return getattr(transformers, name).from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )


def stored_dtypes(folder):
    """Tensor name -> dtype, of all weight files of a folder."""
    dtypes = {}
    for path in folder.glob("model*.safetensors"):
        with safe_open(path, "pt") as file:
            dtypes |= {name: file.get_slice(name).get_dtype() for name in file.keys()}
    return dtypes


def compare_models(copy, original):
    """Loads a model and its copy. Returns both and a list of complaints, empty if nothing tells them apart."""
    (ours, info), (theirs, _) = auto_model(copy), auto_model(original)
    complaints = [f"{kind}: {sorted(map(str, names))[:3]}" for kind, names in info.items() if names]
    if type(ours) is not type(theirs):
        complaints.append(f"is a {type(ours).__name__}")

    def said(model):
        return {k: v for k, v in model.config.to_dict().items() if k not in ("transformers_version", "_name_or_path")}

    if said(ours) != said(theirs):
        complaints.append(f"config.json: {[k for k in said(theirs) | said(ours) if said(ours).get(k) != said(theirs).get(k)]}")
    expected, actual = theirs.state_dict(), ours.state_dict()
    if expected.keys() != actual.keys():
        complaints.append(f"other tensors: {sorted(expected.keys() ^ actual.keys())[:3]}")
    complaints += [
        f"{key} differs" for key in expected.keys() & actual.keys()
        if digest(expected[key].contiguous()) != digest(actual[key].contiguous())
    ]
    before, after = stored_dtypes(original), stored_dtypes(copy)
    complaints += [f"{key} is {after[key]}, was {before[key]}" for key in before.keys() & after.keys() if before[key] != after[key]]
    return ours, theirs, complaints


@torch.no_grad()
def compare_saved(folder):
    """Loads a golden, the models beside it, and their copies in saved…/. Returns a list of complaints."""
    about = json.loads((folder / "golden.json").read_text())
    ours, theirs, complaints = compare_models(folder / "saved", folder)
    for part in ("base", "retrieval"):
        if (folder / f"saved_{part}").exists():
            complaints += [f"{part}: {line}" for line in compare_models(folder / f"saved_{part}", folder / part)[2]]

    spec, sibling = about["spec"], composites.MODELS[theirs.config.model_type]
    images = [Image.open(folder / file) for file in about["images"]]
    processors = [sibling.load_processor(path) for path in (folder, folder / "saved")]
    inputs, again = [composites.encode(spec, processor, images) for processor in processors]
    if list(inputs) != list(again) or not all(torch.equal(inputs[key], again[key]) for key in inputs):
        complaints.append("the processors differ")
    tokenizers = [processor.tokenizer for processor in processors]
    for tokenizer in tokenizers:  # as processors do, and so what they save has it
        tokenizer.add_tokens([AddedToken(f"<{sibling.PLACEHOLDER}>", normalized=False, special=True)], special_tokens=True)
    ids = list(range(len(tokenizers[0])))
    first, second = [
        (tokenizer.get_vocab(), tokenizer.batch_decode(ids, skip_special_tokens=True)) for tokenizer in tokenizers
    ]
    if first != second:
        complaints.append("the tokenizers differ")

    options, start = composites.options_of(spec), {}
    if theirs.config.text_config.is_encoder_decoder:
        start["decoder_input_ids"] = torch.full_like(inputs["input_ids"][:, :1], theirs.config.text_config.decoder_start_token_id)
    logits, copied = [
        composites.forward(model.eval(), dict(inputs), options=options, **start).logits for model in (theirs, ours)
    ]
    difference = float((logits - copied).abs().max() / logits.abs().max())
    if not difference <= 1e-6:
        complaints.append(f"logits differ by {difference:.1e}")
    note(f"{folder / 'saved'}: {'; '.join(complaints) or 'loads as the original does'} (logits differ by {difference:.1e})")
    return complaints


def compare_all_saved(root):
    folders = sorted(path.parent.parent for path in root.rglob("saved/config.json"))
    if not folders:
        sys.exit(f"{root}: nothing was saved in it")
    failed = [folder for folder in folders if compare_saved(folder)]
    note(f"{len(folders) - len(failed)} of {len(folders)} saved folders load as their originals do")
    return len(failed) == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    named = commands.add_parser("named", help="make the committed goldens")
    named.add_argument("--out", type=Path, required=True, help="folder for the golden folders")
    named.add_argument("--only", choices=list(composites.NAMED), nargs="+", help="only these")
    siblings = commands.add_parser("siblings", help="make the committed goldens of the siblings")
    siblings.add_argument("--out", type=Path, required=True, help="folder for the golden folders")
    siblings.add_argument("--only", choices=list(composites.SIBLINGS), nargs="+", help="only these")
    drawn = commands.add_parser("random", help="draw fresh composites and make their goldens")
    drawn.add_argument("--seed", type=int, required=True)
    drawn.add_argument("--skip", type=int, default=0, help="leave out so many of the seed's first")
    drawn.add_argument("--count", type=int, default=1)
    drawn.add_argument("--out", type=Path, required=True, help="folder for the golden folders")
    drawn.add_argument("--backbone", action="append", choices=composites.BACKBONES, help="default: any")
    check = commands.add_parser("verify", help="reload and recompute every golden under a folder")
    check.add_argument("root", type=Path)
    check.add_argument("--remake", action="store_true", help="also make each again and compare every file's bytes")
    saved = commands.add_parser("saved", help="compare every golden under a folder with what was saved of it")
    saved.add_argument("root", type=Path)
    arguments = parser.parse_args()

    torch.set_num_threads(1)  # the sums' order, and so the last bits, would hang on the number of cores
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore")
    if arguments.command == "named":
        make_named(arguments.out, arguments.only or composites.NAMED)
    elif arguments.command == "siblings":
        make_named(arguments.out, arguments.only or composites.SIBLINGS)
    elif arguments.command == "random":
        make_random(arguments.out, arguments.seed, arguments.skip, arguments.count, arguments.backbone or list(composites.BACKBONES))
    elif arguments.command == "saved":
        sys.exit(0 if compare_all_saved(arguments.root) else 1)
    elif not verify(arguments.root, arguments.remake):
        sys.exit(1)


if __name__ == "__main__":
    main()
