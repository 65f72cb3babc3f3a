"""Makes the goldens of LAVIS's settings: what its own code makes of its own files.

    python settings.py LAVIS         writes data/settings.json.gz; LAVIS is a checkout of salesforce/LAVIS at 506965b

For each file of settings: its data set's class gives a sample of a row, its task (VQATask, GQATask, CaptionTask) hands the model
what the file says, and predict_answers() and generate() of InstructBLIP make of it a prompt and options. Data sets without such a
file give a sample that is asked with the paper's prompt, by predict_answers() or _predict_class(). functions.py tells how
functions are taken; images and texts go through the processors that the files name, images as that name alone.
"""

import ast
import contextlib
import copy
import functools
import gzip
import inspect
import json
import os
import pathlib
import random
import sys
import types
from collections import Counter, OrderedDict
from pathlib import Path

import torch
import yaml

sys.path.insert(0, str(Path(__file__).parent))
from functions import LAVIS, OWNERS, T5, TEXT, VICUNA, Seen, function  # noqa: E402

HERE = Path(__file__).parent
QUESTION = 'What is the "red" Sign: Stop, or (not)?  It\'s 3.5 m.'
MODELS = {"blip2_vicuna_instruct": VICUNA, "blip2_t5_instruct": T5}


@functools.cache
def parsed(file):
    return ast.parse((LAVIS / file).read_text())


class Config(dict):
    """omegaconf's, as far as it is used."""

    __getattr__ = dict.__getitem__


def task_class(name):
    """A task of LAVIS by its name, without a registry and other processes."""
    bases = {"BaseTask": object}
    for file in ("tasks/vqa.py", "tasks/captioning.py"):
        for node in parsed(file).body:
            if not isinstance(node, ast.ClassDef):
                continue
            node = copy.deepcopy(node)
            names = [arg.value for call in node.decorator_list for arg in call.args]
            node.decorator_list = []
            for method in node.body:
                if isinstance(method, ast.FunctionDef):
                    method.decorator_list = [one for one in method.decorator_list if getattr(one, "id", "") == "classmethod"]
            space = {**bases, "torch": torch, "is_convertible_to_int": lambda x: str(x).isdigit()}
            exec(compile(ast.Module([node], []), file, "exec"), space)
            bases[node.name] = space[node.name]
            if name in names:
                return bases[node.name]
    raise KeyError(name)


def imported(path, name):
    """The file that a file imports a class from."""
    lines = (node for node in parsed(path).body if isinstance(node, ast.ImportFrom))
    module = next(node.module for node in lines if name in [one.name for one in node.names])
    return f"{module.removeprefix('lavis.').replace('.', '/')}.py"


def dataset_class(name):
    """File and name of the class that evaluates a data set, and the data set's own settings."""
    for path in sorted((LAVIS / "datasets/builders").glob("*.py")):
        nodes = [node for node in parsed(path).body if isinstance(node, ast.ClassDef)]  # two of which may have one name
        classes = {node.name: node for node in nodes}
        for node in nodes:
            if not any(arg.value == name for call in node.decorator_list for arg in call.args):
                continue
            found = {}
            while node is not None:
                for line in node.body:
                    if isinstance(line, ast.Assign):
                        found.setdefault(line.targets[0].id, line.value)
                node = classes.get(node.bases[0].id)
            cls = found["eval_dataset_cls"].id
            return imported(path, cls), cls, ast.literal_eval(found["DATASET_CONFIG_DICT"])["default"]
    raise KeyError(name)


def item(file, cls, me):
    """What a data set's __getitem__ gives, of the class or its base."""
    nodes = [node for node in parsed(file).body if isinstance(node, ast.ClassDef) and node.name == cls]
    if not nodes:
        return item(imported(file, cls), cls, me)
    (node,) = nodes
    calls = [one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__getitem__"]
    if not calls:
        return item(file, node.bases[0].id, me)
    (call,) = calls
    image = types.SimpleNamespace(convert=lambda mode: {"RGB": "image"}[mode])
    space = {
        "copy": copy, "torch": torch, "os": os, "pathlib": pathlib, "random": random, "Counter": Counter, "OrderedDict": OrderedDict,
        "Image": types.SimpleNamespace(open=lambda _: image), "super": lambda: types.SimpleNamespace(__getitem__=lambda _: item(file, node.bases[0].id, me)),
    }  # fmt: skip
    exec(compile(ast.Module([call], []), file, "exec"), space)
    return space["__getitem__"](me, 0)


def text_processor(name):
    """A text processor of LAVIS by its name; what it is without one."""
    if name is None:
        return lambda text: text
    owner, method = {"blip_caption": ("BlipCaptionProcessor", "pre_caption"), "blip_question": ("BlipQuestionProcessor", "pre_question")}[name]
    return lambda text: function(TEXT, owner, method)(types.SimpleNamespace(max_words=50), text)


ROW = {
    "image": "val/1.jpg", "video": "1.mp4", "image_id": 7, "img_id": 7, "question": QUESTION, "questions": QUESTION, "caption": QUESTION,
    "question_id": 1, "instance_id": "1", "sample_id": "1", "choices": ["A cat.", "2 Dogs", "none"], "answer": 1, "label": 1,
    "answers": [{"answer": "a"}], "dialog": "q: What? a: A cat.",
}  # fmt: skip


def sample_of(name, given=None):
    """A batch of one of a data set, with its processors by the settings given, or its own."""
    file, cls, default = dataset_class(name)
    # What is after it are paths, which the files of VSR indent so that they are not YAML.
    own = next(iter(yaml.safe_load((LAVIS / default).read_text().split("build_info:")[0])["datasets"].values()))
    settings = {**own, **(given or {})}
    of = lambda kind: ((settings.get(kind) or {}).get("eval") or {}).get("name")  # noqa: E731
    row = {**ROW, "answer": "a cat"} if "gqa" in name or "msvd" in name or "msrvtt" in name else ROW
    me = types.SimpleNamespace(
        annotation=[row], vis_root="", audio_root="", img_ids={7: 7}, class_labels={"a": 0},
        vis_processor=lambda image: image, text_processor=text_processor(of("text_processor")), modalities=["video"],
        get_video_path=lambda row: row["video"], video_processor=lambda video: types.SimpleNamespace(to=lambda _: video),
    )  # fmt: skip
    sample = {key: [value] for key, value in item(file, cls, me).items()}
    if "video" in sample:
        sample["image"] = sample.pop("video")  # see functions.py
    return sample, of("vis_processor"), cls


def asked(file, model_prompt, call):
    """What generate() of a model is asked, by what `call` does with the model: its prompt, and all of its options."""
    own = function(file, OWNERS[file], "generate")
    found = {}

    def generate(samples, **options):
        bound = inspect.signature(own).bind(None, samples, **options)
        bound.apply_defaults()
        found["options"] = {key: value for key, value in bound.arguments.items() if key not in ("self", "samples")}
        seen = []

        def tokenizer(texts, **_):
            seen.extend(texts)
            raise Seen

        me = types.SimpleNamespace(prompt=model_prompt, tokenizer=tokenizer, qformer_text_input=True, query_tokens=torch.zeros(1, 1, 1), max_txt_len=128, llm_tokenizer=types.SimpleNamespace())  # fmt: skip
        with contextlib.suppress(Seen):
            own(me, {**samples, "image": torch.zeros(1, 3, 1, 1)})
        found["prompt"] = seen[0]
        return [""]

    me = types.SimpleNamespace(generate=generate, _apply_lemmatizer=False)
    me.predict_answers = types.MethodType(function(file, OWNERS[file], "predict_answers"), me)
    call(me)
    return found


def files():
    """What the files of settings come to."""
    made = []
    projects = LAVIS / "projects"
    paths = sorted((projects / "instructblip").glob("qa_*.yaml")) + sorted((projects / "instructblip").glob("caption_*.yaml"))
    # Of BLIP-2, on InstructBLIP's models.
    others = [projects / f"blip2/eval/{name}_zeroshot_flant5xl_eval.yaml" for name in ("vqav2", "gqa")]
    for path in paths + others:
        settings = yaml.safe_load(path.read_text())
        ((name, given),) = settings["datasets"].items()
        sample, image, cls = sample_of(name, given)
        run = Config({"evaluate": True, **settings["run"]})
        for file in [MODELS[settings["model"]["arch"]]] if path in paths else MODELS.values():
            task = task_class(run["task"]).setup_task(types.SimpleNamespace(run_cfg=run))
            found = asked(file, settings["model"].get("prompt", ""), lambda me: task.valid_step(me, {"question_id": [1], **sample}))  # noqa: B023
            source = str(path.relative_to(LAVIS))
            made.append({"source": source, "model": "t5" if file == T5 else "vicuna", "image": image, "dataset": cls, **found})
    return made


ASKED = {  # predict_answers(), by the paper's prompts
    "vizwiz_vqa": "Question: {} Short answer:",
    "iconqa": "Question: {} Options: {}. Short answer:",
    "ocr_vqa": "OCR tokens: {}. Question: {} Short answer:",
}
RANKED = {  # _predict_class()
    "scienceqa_instruct": "Question: {} Options: {}. Answer:",
    "visdial": "Question: {} Short answer:",
    "vsr_classification_instruct": 'Based on the image, is this statement true or false? "{}" Answer:',
}


def datasets():
    """What data sets without a file of settings give, and what is asked with it."""
    made = []
    os.path.exists = lambda _: True  # of images
    for name, prompt in ASKED.items():
        sample, image, cls = sample_of(name)
        if name == "ocr_vqa":  # which has no OCR tokens there
            sample["ocr_tokens"] = [[f"t{i}" for i in range(40)]]
        for file in MODELS.values():
            found = asked(file, "", lambda me: me.predict_answers(dict(sample), prompt=prompt))  # noqa: B023
            made.append({"source": dataset_class(name)[2], "model": "t5" if file == T5 else "vicuna", "image": image, "dataset": cls, **found})
    settings = yaml.safe_load((LAVIS / "projects/instructblip/caption_coco_vicuna7b_eval_test.yaml").read_text())
    sample, image, cls = sample_of("flickr30k_caption")
    for file in MODELS.values():
        task = task_class("captioning").setup_task(types.SimpleNamespace(run_cfg=Config({"evaluate": True, **settings["run"]})))
        found = asked(file, settings["model"]["prompt"], lambda me: task.valid_step(me, sample))  # noqa: B023
        made.append({"source": dataset_class("flickr30k_caption")[2], "model": "t5" if file == T5 else "vicuna", "image": image, "dataset": cls, **found})
    for name, prompt in RANKED.items():
        sample, image, cls = sample_of(name)
        text = sample["text_input"]
        if "choices" in sample:  # which _predict_class() takes with the text
            text = [[text[0], "(a) A cat. (b) 2 Dogs (c) none"]]
        for file in MODELS.values():
            seen = []

            def tokenizer(texts, **_):
                seen.extend(texts)  # noqa: B023
                raise Seen

            me = types.SimpleNamespace(tokenizer=tokenizer, qformer_text_input=True, query_tokens=torch.zeros(1, 1, 1), max_txt_len=128)
            with contextlib.suppress(Seen):
                function(file, OWNERS[file], "_predict_class")(me, {"image": torch.zeros(1, 3, 1, 1), "prompt": [prompt], "text_input": text}, ["a"])
            made.append({"source": dataset_class(name)[2], "model": "t5" if file == T5 else "vicuna", "image": image, "dataset": cls, "prompt": seen[0]})
    return made


def verbalisers():
    """Of VSR's two labels."""
    file, cls, _ = dataset_class("vsr_classification_instruct")
    made = []
    for label in (1, 0):
        me = types.SimpleNamespace(annotation=[{**ROW, "label": label}], vis_root="", vis_processor=lambda x: x)
        made.append(item(file, cls, me)["answer"])
    return made


if __name__ == "__main__":
    made = {"question": QUESTION, "files": files(), "datasets": datasets(), "verbalisers": verbalisers()}
    data = gzip.compress(json.dumps(made).encode(), mtime=0)
    (HERE / "data" / "settings.json.gz").write_bytes(data)
    print(len(data), "bytes", len(made["files"]), "files,", len(made["datasets"]), "data sets")
