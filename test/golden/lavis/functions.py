"""Makes the goldens of LAVIS to the token: LAVIS's own functions, run on tiny weights.

    python functions.py LAVIS TRANSFORMERS      writes data/functions.json

LAVIS is a checkout of salesforce/LAVIS at 506965b, TRANSFORMERS one of transformers 4.33.2, which it pins. LAVIS does not import
beside today's transformers, so that its functions are taken from its files by name, and run with an object in place of `self`,
whose parts are those of Hugging Face's model; its language models run in another process (language_model.py). A video's frames
are given as `image`, which LAVIS's models read, and its data sets call `video`.
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
from language_model import LanguageModel  # noqa: E402

warnings.simplefilter("ignore")
transformers.logging.set_verbosity(logging.CRITICAL)
LAVIS = Path(sys.argv[1]) / "lavis"
TRANSFORMERS = Path(sys.argv[2]) if len(sys.argv) > 2 else None
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


def caption_forms(file):
    """The prompts of generate() with OCR tokens, of TextCaps."""
    generate = function(file, OWNERS[file], "generate")
    made = []
    for prompt, count in (("OCR tokens: {}. A short image caption.", 40), ("OCR tokens: {}. A short image caption.", 0), ("A caption.", 3)):
        seen = []

        def tokenizer(texts, **_):
            seen.extend(texts)
            raise Seen

        me = types.SimpleNamespace(tokenizer=tokenizer, qformer_text_input=True, query_tokens=torch.zeros(1, 1, 1), max_txt_len=128, llm_tokenizer=types.SimpleNamespace())  # fmt: skip
        samples = {"prompt": prompt, "ocr_tokens": [[f"t{i}" for i in range(count)]]}
        with contextlib.suppress(Seen):
            generate(me, {"image": torch.zeros(1, 3, 1, 1), **samples})
        made.append({"samples": samples, "prompt": seen[0]})
    return made


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


class Remote:
    """A language model of LAVIS in its place; keeps what it has given."""

    def __init__(self, own, model, seen):
        self.own, self.model, self.seen = own, model, seen
        self.encoder = getattr(model, "encoder", None)

    def get_input_embeddings(self):
        return self.model.get_input_embeddings()

    def generate(self, **options):
        out = self.own.ask({"generate": options})
        self.seen["ids"].append(out.clone())
        return out

    def __call__(self, **inputs):
        if "encoder_outputs" in inputs:  # of another version's class
            inputs["encoder_outputs"] = (inputs["encoder_outputs"][0],)
        out = self.own.ask({"pass": inputs})
        self.seen["losses"].append(out["loss"].tolist())
        return types.SimpleNamespace(**out)


class Fixed:
    """A language model that gives these ids."""

    def __init__(self, remote, ids):
        self.encoder, self.get_input_embeddings = remote.encoder, remote.get_input_embeddings
        self.generate = lambda **_: torch.tensor([ids])


def stand_in(file, folder, checkpoint, seen, eos=None):
    """`self` of a model of LAVIS: Hugging Face's parts."""
    model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="eager").eval()
    is_t5 = file == T5
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = model.config.text_config
    own = LanguageModel(LAVIS, TRANSFORMERS, "t5" if is_t5 else "llama", model.language_model, eos or text.eos_token_id)
    language = Remote(own, model.language_model, seen)

    def qformer(ids, return_dict, **rest):
        seen["words"].append(ids.tolist())
        return model.qformer(input_ids=ids, **rest)

    me = types.SimpleNamespace(
        tokenizer=AutoTokenizer.from_pretrained(folder, subfolder="qformer_tokenizer", padding_side="right", truncation_side="left"),
        visual_encoder=lambda image: model.vision_model(image).last_hidden_state, ln_vision=lambda x: x,
        Qformer=types.SimpleNamespace(bert=qformer), own=own,
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
CANDIDATES = ["a", "is the circle", "CIRCLE", "to be", "above it", "the circle is above it, or is it not", "x"]
TINY = {"plain_f32": VICUNA, "cross_frequency_1": VICUNA, "t5_flan": T5}
LONG = 12  # of the Q-Former's text, in place of 128
"""Where it matters how lengths count, and when a search ends: three sequences of each."""
BEAMS = [
    {"max_length": length, "length_penalty": penalty, "num_beams": beams}
    for length in (4, 8)
    for penalty in (-1, 0, 1, 2)
    for beams in (3, 5)
]
"""Ids that end an answer, in place of the model's own, so that some do."""
ENDS = {"plain_f32": [267, 308], "cross_frequency_1": [97, 264, 283], "t5_flan": [168, 27, 75]}


@torch.no_grad()
def tiny():
    made = {}
    for name, file in TINY.items():
        folder = HERE.parent / "data" / name
        stored = load_file(folder / "golden.safetensors")
        golden = json.loads((folder / "golden.json").read_text())
        image = stored[golden["same_as"].get("pixel_values", "pixel_values")][:1]
        seen = {"ids": [], "losses": [], "words": []}
        question = "is the circle above"
        prompt = "Question: {} Short answer:"
        caption = {"image": image, "prompt": "A short image caption."}
        asked = {"prompt": prompt, "text_input": [question]}
        with weights.whole(folder) as checkpoint:
            me = stand_in(file, folder, checkpoint, seen)
            other = stand_in(file, folder, checkpoint, seen, ENDS[name])

        def ids(call):
            call()
            rows = seen["ids"][-1].tolist()
            return rows if len(rows) > 1 else rows[0]

        def losses(**options):
            seen["losses"].clear()
            ranks = me.predict_class({"image": image, **asked}, CANDIDATES, **options)
            return {"ranks": ranks[0].tolist(), "losses": sum(seen["losses"], [])}

        made[name] = {
            "question": question, "candidates": CANDIDATES,
            "answer": ids(lambda: me.predict_answers({"image": image, **asked}, prompt=prompt)),
            "caption": ids(lambda: me.generate(caption, **CAPTION)),
            "strong": ids(lambda: me.generate(caption, **STRONG)),
        }  # fmt: skip
        made[name]["segments"] = {str(n): losses(n_segments=n) for n in (1, 2, 3)}
        lists = [CANDIDATES[:3], CANDIDATES[2:]]
        each = me.predict_class({"image": image.repeat(2, 1, 1, 1), "prompt": prompt, "text_input": [question] * 2}, lists)
        made[name]["lists"] = {"candidates": lists, "ranks": [ranks if isinstance(ranks, list) else ranks.tolist() for ranks in each]}
        video = torch.stack([image, image.flip(-1), image.flip(-2)], 2)  # [1, 3, T, H, W]
        made[name]["video"] = {
            "answer": ids(lambda: me.predict_answers({"image": video, **asked}, prompt=prompt)),
            "ranks": me.predict_class({"image": video, **asked}, CANDIDATES)[0].tolist(),
        }
        me.max_txt_len = LONG
        text = "is the circle above it or is it not, and what is the color of it"
        answer = ids(lambda: me.predict_answers({"image": image, "text_input": [text]}, prompt=prompt))
        whole = me.tokenizer(prompt.format(text))["input_ids"]
        made[name]["long"] = {"question": text, "most": LONG, "answer": answer, "whole": whole, "words": seen["words"][-1][0]}
        me.max_txt_len = 128
        made[name]["beams"] = {
            "ends": ENDS[name],
            "runs": [
                {**options, "ids": ids(lambda: other.generate(caption, num_captions=3, repetition_penalty=1.0, **options))}
                for options in BEAMS
            ],
        }
        # What is made of ids: 0 to 2 among others, and spaces.
        rows = [[1, 40, 0, 41, 1, 42, 2], [2, 0, 0], [1, 3, 50, 3, 3, 0], [60, 61, 0, 0, 355 if file == VICUNA else 1]]
        part = "t5_model" if file == T5 else "llm_model"
        texts = []
        for row in rows:
            mine = types.SimpleNamespace(**{**vars(me), part: Fixed(getattr(me, part), row)})
            texts.append([row, function(file, OWNERS[file], "generate")(mine, caption)[0]])
        made[name]["texts"] = texts
        for one in (me, other):
            one.own.close()
        print(name, {key: value for key, value in made[name].items() if key not in ("question", "candidates")})
    return made


if __name__ == "__main__":
    made = {"texts": texts(), "tiny": tiny()}
    for key, file in (("vicuna", VICUNA), ("t5", T5)):
        made.setdefault("forms", {})[key] = forms(file)
        made.setdefault("captions", {})[key] = caption_forms(file)
        made.setdefault("classes", {})[key] = class_forms(file)
    text = json.dumps(made, ensure_ascii=True, separators=(",", ":"))
    text = text.replace('},', '},\n')
    (HERE / "data" / "functions.json").write_text(text + "\n")
    print(len(text), "bytes")
