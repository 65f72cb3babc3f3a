"""Writes eval/places.jsonl: of each question of eval/requests.jsonl about one shape, where that shape is.

    python places.py

The scenes are drawn again from their seeds, and each has to give the image that is there. A line has the question's id, the
shape's cell of the 3x3 grid (row by row, from 0) and how many shapes there are.
"""

import json
import random
from pathlib import Path

from PIL import Image, ImageChops

import scenes

FOLDER = Path(__file__).resolve().parent.parent / "eval"
KINDS = ("color", "shape", "where", "size")  # the others ask about several shapes, or about none


def read(name):
    return [json.loads(line) for line in (FOLDER / name).read_text(encoding="utf-8").splitlines()]


def asked(text, scene):
    """The one shape that has every kind, color and place that the question names."""
    words = text.lower().rstrip("?.").replace("-", " ").split()
    named = [s for s in scene if all(
        not any(value in words for value in values) or getattr(s, key) in words
        for key, values in (("kind", scenes.KINDS), ("color", scenes.COLORS))
    )]  # fmt: skip
    places = [place for place in scenes.PLACES if text.rstrip("?").endswith(scenes.the_place(place))]
    if "shape " in text and places:
        named = [s for s in named if s.place == max(places, key=len)]
    assert len(named) == 1, (text, scene, named)
    return named[0]


def main():
    lines = []
    for i, (request, expected) in enumerate(zip(read("requests.jsonl"), read("expected.jsonl"), strict=True)):
        rng = random.Random(f"evaluation-{i}-0")  # no question was replaced
        scene = scenes.random_scene(rng)
        image = scenes.draw(rng, scene)
        question = scenes.ask(rng, scene, scenes.QUESTION_KINDS[i % len(scenes.QUESTION_KINDS)])
        with Image.open(FOLDER / request["images"][0]) as there:
            assert question.text == request["prompts"][0] and not ImageChops.difference(image, there.convert("RGB")).getbbox()
        if expected["kind"] not in KINDS:
            continue
        shape = asked(question.text, scene)
        assert question.answer == {
            "color": shape.color, "shape": shape.kind, "where": shape.place, "size": shape.size,
        }[question.kind]  # fmt: skip
        lines.append({"id": request["id"], "cell": shape.cell, "shapes": len(scene)})
    (FOLDER / "places.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    print(f"{len(lines)} questions about one shape")


if __name__ == "__main__":
    main()
