"""Scenes of coloured shapes: how they are made up, drawn, and asked about.

A scene is a list of shapes on a 3x3 grid, at most one a cell. Everything comes
from a `random.Random`, so a seed fixes the scenes, the images and the questions.
"""

import math
import random
from dataclasses import dataclass

from PIL import Image, ImageDraw

KINDS = ["circle", "square", "triangle", "star"]
COLORS = ["red", "green", "blue", "yellow", "purple", "orange"]
SIZES = ["small", "large"]
PLACES = [
    "top left", "top", "top right",
    "left", "center", "right",
    "bottom left", "bottom", "bottom right",
]
NUMBERS = ["zero", "one", "two", "three", "four"]
QUESTION_KINDS = ["color", "shape", "count", "exists", "where", "size", "describe"]

RGB = {
    "red": (214, 40, 40),
    "green": (44, 160, 70),
    "blue": (38, 84, 214),
    "yellow": (244, 208, 36),
    "purple": (140, 60, 180),
    "orange": (245, 130, 20),
}


@dataclass(frozen=True)
class Shape:
    cell: int  # 0..8, row by row
    kind: str
    color: str
    size: str

    @property
    def place(self) -> str:
        return PLACES[self.cell]


# ------------------------------------------------------------------ scenes


def random_scene(rng: random.Random, low: int = 1, high: int = 4) -> list[Shape]:
    """`low` to `high` shapes, in reading order (row by row)."""
    cells = sorted(rng.sample(range(9), rng.randint(low, high)))
    return [Shape(c, rng.choice(KINDS), rng.choice(COLORS), rng.choice(SIZES)) for c in cells]


def _outline(kind: str, x: float, y: float, r: float, turn: float) -> list[tuple[float, float]]:
    if kind == "square":
        corners = [(1.12 * r, math.pi / 4 + i * math.pi / 2) for i in range(4)]
    elif kind == "triangle":
        corners = [(1.16 * r, -math.pi / 2 + i * 2 * math.pi / 3) for i in range(3)]
        y += 0.2 * r
    else:  # a star with five points
        corners = [((1.14 if i % 2 == 0 else 0.48) * r, -math.pi / 2 + i * math.pi / 5) for i in range(10)]
    return [(x + d * math.cos(a + turn), y + d * math.sin(a + turn)) for d, a in corners]


def draw(rng: random.Random, scene: list[Shape], pixels: int = 160, smooth: int = 2) -> Image.Image:
    """The image of a scene: `pixels` squared, drawn `smooth` times larger and averaged down."""
    tint = rng.randint(222, 248)
    background = tuple(max(0, min(255, tint + rng.randint(-8, 8))) for _ in range(3))
    image = Image.new("RGB", (pixels * smooth, pixels * smooth), background)
    pen = ImageDraw.Draw(image)
    cell = pixels * smooth / 3
    for shape in scene:
        r = cell * (rng.uniform(0.35, 0.40) if shape.size == "large" else rng.uniform(0.22, 0.26))
        slack = max(0.0, cell / 2 - 1.14 * r)
        x = (shape.cell % 3 + 0.5) * cell + rng.uniform(-slack, slack)
        y = (shape.cell // 3 + 0.5) * cell + rng.uniform(-slack, slack)
        color = tuple(max(0, min(255, v + rng.randint(-14, 14))) for v in RGB[shape.color])
        if shape.kind == "circle":
            pen.ellipse([x - r, y - r, x + r, y + r], fill=color)
        else:
            pen.polygon(_outline(shape.kind, x, y, r, rng.uniform(-0.15, 0.15)), fill=color)
    return image.reduce(smooth)


# --------------------------------------------------------------- questions


@dataclass(frozen=True)
class Question:
    kind: str  # one of QUESTION_KINDS
    text: str
    answer: str


def _single(scene: list[Shape], key: str) -> list[Shape]:
    """The shapes whose kind (or colour) no other shape of the scene has."""
    values = [getattr(s, key) for s in scene]
    return [s for s in scene if values.count(getattr(s, key)) == 1]


def _names(scene: list[Shape]) -> list[tuple[str, Shape]]:
    """Every unambiguous name of a shape: "circle", "red shape", "red circle"."""
    names = [(s.kind, s) for s in _single(scene, "kind")]
    names += [(f"{s.color} shape", s) for s in _single(scene, "color")]
    pairs = [(s.color, s.kind) for s in scene]
    names += [(f"{s.color} {s.kind}", s) for s in scene if pairs.count((s.color, s.kind)) == 1]
    return names


def the_place(place: str) -> str:
    """The place with its words: "in the center", "on the left", "at the top right"."""
    return {"center": "in the center", "left": "on the left", "right": "on the right"}.get(place, f"at the {place}")


def _ask_color(rng, scene):
    named = _single(scene, "kind")
    if named and rng.random() < 0.75:
        s = rng.choice(named)
        text = rng.choice([
            f"What color is the {s.kind}?",
            f"What is the color of the {s.kind}?",
            f"Which color does the {s.kind} have?",
        ])
    else:
        s = rng.choice(scene)
        text = f"What color is the shape {the_place(s.place)}?"
    return text, s.color


def _ask_shape(rng, scene):
    named = _single(scene, "color")
    if named and rng.random() < 0.75:
        s = rng.choice(named)
        text = rng.choice([
            f"What shape is {s.color}?",
            f"Which shape is {s.color}?",
            f"What is the {s.color} shape?",
        ])
    else:
        s = rng.choice(scene)
        text = f"What shape is {the_place(s.place)}?"
    return text, s.kind


def _ask_count(rng, scene):
    what = rng.random()
    if what < 0.4:
        text = rng.choice(["How many shapes are there?", "How many shapes can you see?", "Count the shapes."])
        return text, NUMBERS[len(scene)]
    if what < 0.75:
        kind = rng.choice([s.kind for s in scene]) if rng.random() < 0.8 else rng.choice(KINDS)
        text = rng.choice([f"How many {kind}s are there?", f"How many {kind}s can you see?"])
        return text, NUMBERS[sum(s.kind == kind for s in scene)]
    color = rng.choice([s.color for s in scene]) if rng.random() < 0.8 else rng.choice(COLORS)
    text = rng.choice([f"How many {color} shapes are there?", f"How many shapes are {color}?"])
    return text, NUMBERS[sum(s.color == color for s in scene)]


def _ask_exists(rng, scene):
    present = {(s.color, s.kind) for s in scene}
    if rng.random() < 0.3:  # a kind alone
        kinds = {s.kind for s in scene}
        absent = [k for k in KINDS if k not in kinds]
        yes = rng.random() < 0.5 or not absent
        thing = rng.choice(sorted(kinds) if yes else absent)
    else:
        yes = rng.random() < 0.5
        if yes:
            color, kind = rng.choice(sorted(present))
        elif rng.random() < 0.6:  # nearly right: one of the two words is in the image
            s = rng.choice(scene)
            near = [(s.color, k) for k in KINDS] + [(c, s.kind) for c in COLORS]
            color, kind = rng.choice([p for p in near if p not in present])
        else:
            color, kind = rng.choice([(c, k) for c in COLORS for k in KINDS if (c, k) not in present])
        thing = f"{color} {kind}"
    article = "an" if thing[0] in "aeiou" else "a"
    text = rng.choice([
        f"Is there {article} {thing}?",
        f"Do you see {article} {thing}?",
        f"Does the image show {article} {thing}?",
    ])
    return text, "yes" if yes else "no"


def _ask_where(rng, scene):
    name, s = rng.choice(_names(scene) or [(None, None)])
    if name is None:
        return None
    return rng.choice([f"Where is the {name}?", f"Where can you see the {name}?"]), s.place


def _ask_size(rng, scene):
    name, s = rng.choice(_names(scene) or [(None, None)])
    if name is None:
        return None
    text = rng.choice([f"How big is the {name}?", f"What size is the {name}?", f"Is the {name} small or large?"])
    return text, s.size


def _ask_describe(rng, scene):
    parts = [f"a {s.color} {s.kind} {the_place(s.place)}".replace("a orange", "an orange") for s in scene]
    answer = parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
    text = rng.choice(["Describe the image.", "Describe the picture.", "What is in the image?"])
    return text, answer


_ASK = {
    "color": _ask_color, "shape": _ask_shape, "count": _ask_count, "exists": _ask_exists,
    "where": _ask_where, "size": _ask_size, "describe": _ask_describe,
}


def ask(rng: random.Random, scene: list[Shape], kind: str) -> Question:
    """A question of that kind, or of another where the scene allows no unambiguous one."""
    asked = _ASK[kind](rng, scene)
    if asked is None:
        kind = "color"
        asked = _ask_color(rng, scene)
    return Question(kind, *asked)


def short_answers() -> list[str]:
    """Every answer that is not a description."""
    return COLORS + KINDS + NUMBERS + ["yes", "no"] + PLACES + SIZES
