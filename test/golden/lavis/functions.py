"""Makes the goldens of LAVIS to the token: LAVIS's own functions, run on tiny weights.

    python functions.py LAVIS            writes data/functions.json; LAVIS is a checkout of salesforce/LAVIS at 506965b

LAVIS does not import beside today's transformers, so that its functions are taken from its files by name, and run with an object
in place of `self`, whose parts are those of Hugging Face's model. Two things are stated here: lengths are counted as in
transformers 4.33, which LAVIS pins, where a language model that is given embeddings begins with no ids; and the loss with
reduction="none" is LAVIS's, of modeling_llama.py and modeling_t5.py.
"""

import ast
import contextlib
import json
import logging
import re
import string
import sys
import types
import warnings
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoTokenizer
from transformers.modeling_outputs import BaseModelOutput

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
import weights  # noqa: E402

warnings.simplefilter("ignore")
transformers.logging.set_verbosity(logging.CRITICAL)
LAVIS = Path(sys.argv[1]) / "lavis"
VICUNA = "models/blip2_models/blip2_vicuna_instruct.py"
T5 = "models/blip2_models/blip2_t5_instruct.py"
TEXT = "processors/blip_processors.py"

QUESTIONS = [
    "What is this?", "WHAT'S the (red) Sign, \"Stop!\"?", "  two  spaces ", "a: b; c ~ d * e # f", "end.  ", "Is it 3.5 m. tall?",
    "tab\tand\nline\n", "\n", "", " ".join(f"w{i}." for i in range(60)), "Ünïcödé ΣΑΣ İ", "a . . . b",
    "non\u00a0break\u2003space  x", "sep\x1c\x1dcontrol", "...", "!?", " ".join(["a  b"] * 30),
]  # fmt: skip


def function(file, owner, name):
    """A method of a class of LAVIS, without its decorators."""
    tree = ast.parse((LAVIS / file).read_text())
    (cls,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == owner)
    (method,) = (node for node in cls.body if isinstance(node, ast.FunctionDef) and node.name == name)
    method.decorator_list = []
    space = {"torch": torch, "re": re, "string": string, "logging": logging, "BaseModelOutput": BaseModelOutput}
    exec(compile(ast.Module([method], []), file, "exec"), space)
    return space[name]


OWNERS = {VICUNA: "Blip2VicunaInstruct", T5: "Blip2T5Instruct"}


def texts():
    made = {}
    for name, owner in (("pre_question", "BlipQuestionProcessor"), ("pre_caption", "BlipCaptionProcessor")):
        call = function(TEXT, owner, name)
        made[name] = [[text, call(types.SimpleNamespace(max_words=50), text)] for text in QUESTIONS]
    return made


FORMS = [
    ("Question: {} Short answer:", {"text_input": ["what is this"]}),
    ("OCR tokens: {}. Question: {} Short answer:", {"text_input": ["what brand"], "ocr_tokens": [[f"t{i}" for i in range(40)]]}),
    ("OCR tokens: {}. Question: {} Short answer:", {"text_input": ["what brand"], "ocr_tokens": [[]]}),
    ("Question: {} Options: {}. Short answer:", {"text_input": ["which"], "choices": [["a cat", "2 dogs", "none"]]}),
]


class Seen(Exception):
    """The prompt has been seen."""


def forms(file):
    """The prompts of predict_answers, with the options it gives generate()."""
    predict = function(file, OWNERS[file], "predict_answers")
    made = []
    for prompt, samples in FORMS:
        seen = {}

        def generate(given, **options):
            seen.update(prompt=given["prompt"][0], options=options)
            return [""]

        me = types.SimpleNamespace(generate=generate, _apply_lemmatizer=False)
        predict(me, json.loads(json.dumps(samples)), prompt=prompt)
        made.append({"form": prompt, "samples": samples, **seen})
    return made


CLASSES = [
    {"prompt": ["Question: {} Options: {}. Answer:"], "text_input": [["which", "(a) x (b) y"]], "context": ["A hint"]},
    {"prompt": ["Question: {} Short answer:"], "text_input": ["what color"], "history": ["a cat. is it big? no"]},
    {"prompt": ['This is an image with: "{}" written on it. Is it hateful? Answer:'], "text_input": ["hi"]},
]


def class_forms(file):
    """The prompts of _predict_class."""
    predict = function(file, OWNERS[file], "_predict_class")
    made = []
    for samples in CLASSES:
        seen = []

        def tokenizer(prompt, **_):
            seen.extend(prompt)
            raise Seen

        me = types.SimpleNamespace(
            tokenizer=tokenizer, qformer_text_input=True, query_tokens=torch.zeros(1, 1, 1), max_txt_len=128,
            **{"t5_tokenizer": tokenizer, "llm_tokenizer": tokenizer},
        )  # fmt: skip
        with contextlib.suppress(Seen):
            predict(me, {"image": torch.zeros(1, 3, 1, 1), **json.loads(json.dumps(samples))}, ["a"])
        made.append({"samples": samples, "prompt": seen[0]})
    return made


class LlamaTokenizer:
    """With </s> for a beginning, as LAVIS sets it."""

    def __init__(self, tokenizer):
        self.own = tokenizer
        self.padding_side = "left"
        self.truncation_side = "right"
        self.pad_token_id = tokenizer.pad_token_id
        self.eos_token = tokenizer.eos_token

    def __call__(self, texts, padding, return_tensors, **options):
        out = self.own(texts, padding=padding, return_tensors=return_tensors, padding_side=self.padding_side, **options)
        ids = out["input_ids"]
        assert (ids == self.own.bos_token_id).sum() == len(ids)
        ids[ids == self.own.bos_token_id] = self.own.eos_token_id
        return out

    def batch_decode(self, ids, **options):
        return self.own.batch_decode(ids, **options)


class Loss:
    """LAVIS's language models: a loss for each row with reduction="none"."""

    def __init__(self, model, is_t5, seen):
        self.model, self.is_t5, self.seen = model, is_t5, seen
        self.encoder = model.encoder if is_t5 else None

    def get_input_embeddings(self):
        return self.model.get_input_embeddings()

    def generate(self, max_length=None, min_length=None, **options):
        if not self.is_t5:
            options.update(max_new_tokens=max_length, min_new_tokens=min_length)
        else:
            options.update(min_length=min_length)
        out = self.model.generate(**options)
        self.seen.append(out.clone())
        return out

    def __call__(self, labels, reduction, **inputs):
        out = self.model(**inputs, labels=labels) if self.is_t5 else self.model(**inputs)
        logits, targets = (out.logits, labels) if self.is_t5 else (out.logits[:, :-1], labels[:, 1:])
        loss = torch.nn.functional.cross_entropy(logits.transpose(1, 2), targets, ignore_index=-100, reduction="none")
        loss = loss.sum(1) if self.is_t5 else loss.mean(1)
        return types.SimpleNamespace(loss=loss, logits=out.logits)


def stand_in(file, folder, checkpoint, seen):
    """`self` of a model of LAVIS: Hugging Face's parts."""
    model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="eager").eval()
    is_t5 = file == T5
    tokenizer = AutoTokenizer.from_pretrained(folder)
    language = Loss(model.language_model, is_t5, seen)
    me = types.SimpleNamespace(
        tokenizer=AutoTokenizer.from_pretrained(folder, subfolder="qformer_tokenizer", padding_side="right", truncation_side="left"),
        visual_encoder=lambda image: model.vision_model(image).last_hidden_state, ln_vision=lambda x: x,
        Qformer=types.SimpleNamespace(bert=lambda ids, return_dict, **rest: model.qformer(input_ids=ids, **rest)),
        query_tokens=model.query_tokens, qformer_text_input=True, max_txt_len=128, max_output_txt_len=256, prompt="",
        maybe_autocast=lambda **_: contextlib.nullcontext(), _apply_lemmatizer=False,
        **({"t5_model": language, "t5_proj": model.language_projection, "t5_tokenizer": tokenizer,
            "t5_output_tokenizer": tokenizer} if is_t5
           else {"llm_model": language, "llm_proj": model.language_projection, "llm_tokenizer": LlamaTokenizer(tokenizer)}),
    )  # fmt: skip
    for name in ("generate", "predict_answers", "predict_class", "_predict_class", "concat_text_input_output"):
        with contextlib.suppress(ValueError):
            setattr(me, name, types.MethodType(function(file, OWNERS[file], name), me))
    return me


CAPTION = {"num_beams": 5, "max_length": 16, "min_length": 10, "repetition_penalty": 1.15, "length_penalty": 1}
STRONG = {**CAPTION, "repetition_penalty": 8.0}  # where it matters which ids are penalised
CANDIDATES = ["a", "is the circle", "CIRCLE", "to be", "above it"]
TINY = {"plain_f32": VICUNA, "cross_frequency_1": VICUNA, "t5_flan": T5}


@torch.no_grad()
def tiny():
    made = {}
    for name, file in TINY.items():
        folder = HERE.parent / "data" / name
        stored = load_file(folder / "golden.safetensors")
        golden = json.loads((folder / "golden.json").read_text())
        image = stored[golden["same_as"].get("pixel_values", "pixel_values")][:1]
        seen = []
        with weights.whole(folder) as checkpoint:
            me = stand_in(file, folder, checkpoint, seen)
        question = "is the circle above"
        prompt = "Question: {} Short answer:"
        me.predict_answers({"image": image, "text_input": [question]}, prompt=prompt)
        me.generate({"image": image, "prompt": "A short image caption."}, **CAPTION)
        me.generate({"image": image, "prompt": "A short image caption."}, **STRONG)
        ranks = me.predict_class({"image": image, "prompt": prompt, "text_input": [question]}, CANDIDATES)
        made[name] = {
            "question": question, "candidates": CANDIDATES,
            "answer": seen[0][0].tolist(), "caption": seen[1][0].tolist(), "strong": seen[2][0].tolist(),
            "ranks": (ranks[0].tolist() if torch.is_tensor(ranks) else ranks[0]),
        }  # fmt: skip
        print(name, made[name])
    return made


if __name__ == "__main__":
    made = {"texts": texts(), "tiny": tiny()}
    made["forms"] = {key: forms(file) for key, file in (("vicuna", VICUNA), ("t5", T5))}
    made["classes"] = {key: class_forms(file) for key, file in (("vicuna", VICUNA), ("t5", T5))}
    text = json.dumps(made, indent=1, ensure_ascii=True)
    (HERE / "data" / "functions.json").write_text(text + "\n")
    print(len(text), "bytes")
