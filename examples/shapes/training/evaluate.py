"""Measures a checkpoint folder with PyTorch: the real processor on PNG files, greedy generate().

    python evaluate.py            answers the questions of eval/requests.jsonl, prints every figure of the
                                  README and compares with eval/expected.jsonl (exit status 1 if they differ)
    python evaluate.py --write    draws the images and asks the questions anew, then writes requests,
                                  expected answers and the demonstration images with their answers

The weights are float16 in the file and used as float32. A question whose answer hangs on a
difference in logits below --margin at some token is replaced by another (and counted).
"""

import argparse
import json
import random
import sys
from collections import Counter
from pathlib import Path

import torch
from PIL import Image
from transformers import InstructBlipForConditionalGeneration, InstructBlipProcessor
from transformers.utils import logging

import scenes
from model import image_processor

HERE = Path(__file__).resolve().parent
PICTURES = 500
GENERATION = {"max_new_tokens": 40}
DEMO = ["a", "b", "c", "d", "e", "f"]


class Answerer:
    def __init__(self, checkpoint: Path):
        self.model = InstructBlipForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32).eval()
        self.processor = InstructBlipProcessor.from_pretrained(checkpoint)
        # the same settings, with PIL's resizing whatever else is installed
        assert image_processor().to_dict()["size"] == self.processor.image_processor.to_dict()["size"]
        self.processor.image_processor = image_processor()
        self.tokenizer = self.processor.tokenizer

    def inputs(self, images, prompts):
        return self.processor(images=images, text=prompts, padding=len(prompts) > 1, return_tensors="pt")

    def new_text(self, inputs, sequences):
        new = sequences[:, inputs["input_ids"].shape[1] :]
        return [t.strip() for t in self.processor.batch_decode(new, skip_special_tokens=True)]

    def __call__(self, image, prompt, **options):
        """The rows generate() returns, the new text, and the smallest lead of the best logit over the next."""
        inputs = self.inputs([image], [prompt])
        out = self.model.generate(
            **inputs, do_sample=False, return_dict_in_generate=True, output_logits=True, **{**GENERATION, **options}
        )
        top = torch.cat(out.logits).topk(2).values
        return out.sequences, self.new_text(inputs, out.sequences)[0], (top[:, 0] - top[:, 1]).min().item()


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write(path, lines):
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    path.write_text(text, encoding="utf-8")


def answer_line(answerer, name, kind, answer, image, prompt):
    sequences, prediction, margin = answerer(image, prompt)
    return {
        "id": name, "kind": kind, "answer": answer, "prediction": prediction, "sequences": sequences.tolist(),
        "text": answerer.processor.batch_decode(sequences, skip_special_tokens=True), "margin": round(margin, 5),
    }


# ----------------------------------------------------------------- writing


def make_evaluation(answerer, folder: Path, least: float):
    """500 images none of which training drew: other seeds. One question each, the kinds in turn."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    requests, expected, replaced = [], [], []
    for i in range(PICTURES):
        for attempt in range(100):
            rng = random.Random(f"evaluation-{i}-{attempt}")
            scene = scenes.random_scene(rng)
            image = scenes.draw(rng, scene)
            question = scenes.ask(rng, scene, scenes.QUESTION_KINDS[i % len(scenes.QUESTION_KINDS)])
            name, path = f"{i:03d}", f"images/{i:03d}.png"
            image.save(folder / path, optimize=True)
            with Image.open(folder / path) as image:
                line = answer_line(answerer, name, question.kind, question.answer, image, question.text)
            if line["margin"] >= least:
                break
            replaced.append((name, line["margin"], line["prediction"] == line["answer"]))
        requests.append({"id": name, "images": [path], "prompts": [question.text], "generation": GENERATION})
        expected.append(line)
    write(folder / "requests.jsonl", requests)
    write(folder / "expected.jsonl", expected)
    print(f"replaced for a margin below {least}: {len(replaced)}", replaced)


def make_demo(answerer, folder: Path):
    """A few larger images with questions of every kind, the first seeds answered rightly throughout."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    listed, seed, wrong = [], 0, 0
    for letter in DEMO:
        while True:
            seed += 1
            rng = random.Random(f"demonstration-{seed}")
            scene = scenes.random_scene(rng, 3, 4)
            if len({s.kind for s in scene}) < 3 or len({s.color for s in scene}) < len(scene):
                continue
            path = f"images/{letter}.png"
            scenes.draw(rng, scene, 256, smooth=4).save(folder / path, optimize=True)
            asked = [scenes.ask(rng, scene, kind) for kind in scenes.QUESTION_KINDS]
            with Image.open(folder / path) as image:
                answers = [answerer(image, q.text)[1] for q in asked]
            if answers == [q.answer for q in asked]:
                break
            wrong += 1
        listed.append({"image": path, "questions": [q.text for q in asked], "answers": answers})
    text = json.dumps(listed, indent=2, ensure_ascii=False) + "\n"
    (folder / "images" / "questions.json").write_text(text, encoding="utf-8")
    print(f"demonstration images: {len(DEMO)}; passed over for a wrong answer: {wrong}")


# --------------------------------------------------------------- measuring


def measure(answerer, folder: Path) -> bool:
    requests, expected = read(folder / "requests.jsonl"), read(folder / "expected.jsonl")
    right, seen, yes, wrong, same, margins = Counter(), Counter(), Counter(), [], 0, []
    images = {}
    for request, wanted in zip(requests, expected, strict=True):
        with Image.open(folder / request["images"][0]) as image:
            images[request["id"]] = image.convert("RGB")
        line = answer_line(
            answerer, request["id"], wanted["kind"], wanted["answer"], images[request["id"]], request["prompts"][0]
        )
        same += all(line[key] == wanted[key] for key in ("prediction", "sequences", "text"))
        margins.append((line["margin"], line["id"]))
        seen[line["kind"]] += 1
        yes[line["answer"]] += 1
        if line["prediction"] == line["answer"]:
            right[line["kind"]] += 1
        else:
            wrong.append((line["id"], request["prompts"][0], line["answer"], line["prediction"]))
    print("kind      right  of   share")
    for kind in scenes.QUESTION_KINDS:
        print(f"{kind:9} {right[kind]:5} {seen[kind]:4}  {100 * right[kind] / seen[kind]:5.1f} %")
    print(f"{'all':9} {right.total():5} {seen.total():4}  {100 * right.total() / seen.total():5.1f} %")
    for line in wrong:
        print("  wrong:", *line, sep=" | ")
    print(f"yes / no among the right answers: {yes['yes']} / {yes['no']}")
    low = sorted(margins)[:5]
    print("smallest margins of the best logit over the next:", *(f"{m:.4f} ({i})" for m, i in low))
    print(f"same ids and text as expected.jsonl: {same} of {len(expected)}")
    return same == len(expected)


@torch.no_grad()
def instruction_matters(answerer, folder: Path):
    """How far the Q-Former's output for an image moves with the instruction, and what happens to the
    answers when it is given another instruction than the language model, or another image."""
    requests, expected = read(folder / "requests.jsonl"), read(folder / "expected.jsonl")
    model, other = answerer.model, "How many shapes are there?"
    moved, short, right, blank = [], 0, 0, 0
    for request, wanted in zip(requests, expected, strict=True):
        prompt = request["prompts"][0]
        if wanted["kind"] in ("describe", "count"):
            continue
        with Image.open(folder / request["images"][0]) as image:
            inputs, swapped = (answerer.inputs([image], [p]) for p in (prompt, other))
        a, b = (
            model.get_image_features(
                x["pixel_values"], qformer_input_ids=x["qformer_input_ids"],
                qformer_attention_mask=x["qformer_attention_mask"], return_dict=True,
            ).qformer_outputs.last_hidden_state[:, : model.config.num_query_tokens]
            for x in (inputs, swapped)
        )
        moved.append(((a - b).norm() / a.norm()).item())
        mixed = {**inputs, **{k: swapped[k] for k in ("qformer_input_ids", "qformer_attention_mask")}}
        rows = model.generate(**mixed, do_sample=False, **GENERATION)
        right += answerer.new_text(inputs, rows)[0] == wanted["answer"]
        empty = answerer.inputs([Image.new("RGB", (160, 160), (236, 236, 236))], [prompt])
        rows = model.generate(**empty, do_sample=False, **GENERATION)
        blank += answerer.new_text(empty, rows)[0] == wanted["answer"]
        short += 1
    moved = torch.tensor(moved)
    print(
        f'queries\' output, own question against "{other}" ({short} images): relative difference '
        f"mean {moved.mean():.3f}, least {moved.min():.3f}, most {moved.max():.3f}"
    )
    print(f"the Q-Former given that question, the language model the right one: {100 * right / short:.1f} % right")
    print(f"an empty image in place of the right one: {100 * blank / short:.1f} % right")


def batches(answerer, folder: Path, size: int = 8):
    """The same questions in batches, padded: the answers should not change."""
    requests, expected = read(folder / "requests.jsonl"), read(folder / "expected.jsonl")
    same = 0
    for at in range(0, len(requests), size):
        part = requests[at : at + size]
        images = [Image.open(folder / r["images"][0]) for r in part]
        inputs = answerer.inputs(images, [r["prompts"][0] for r in part])
        rows = answerer.model.generate(**inputs, do_sample=False, **GENERATION)
        same += sum(t == e["prediction"] for t, e in zip(answerer.new_text(inputs, rows), expected[at : at + size]))
    print(f"in padded batches of {size}: {same} of {len(requests)} answers as one by one")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=HERE.parent / "checkpoint")
    parser.add_argument("--eval", type=Path, default=HERE.parent / "eval", help="folder of the evaluation's files")
    parser.add_argument("--demo", type=Path, default=HERE.parent, help="folder above the demonstration's images/")
    parser.add_argument("--write", action="store_true", help="make images, requests and expected answers anew")
    parser.add_argument("--margin", type=float, default=0.01)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    logging.set_verbosity_error()
    answerer = Answerer(args.checkpoint)
    if args.write:
        make_evaluation(answerer, args.eval, args.margin)
        make_demo(answerer, args.demo)
    good = measure(answerer, args.eval)
    instruction_matters(answerer, args.eval)
    batches(answerer, args.eval)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
