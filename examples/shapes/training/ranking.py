"""Writes ranking/questions.jsonl: the questions of eval/ with a short answer, as `evaluate` reads them, and the answers
their kind has. Descriptions are left out: they have no short list of answers.

    python ranking.py
"""

import json
from pathlib import Path

SHAPES = Path(__file__).resolve().parent.parent


def lines(name):
    return [json.loads(line) for line in (SHAPES / name).read_text().splitlines()]


def main():
    expected = {line["id"]: line for line in lines("eval/expected.jsonl") if line["kind"] != "describe"}
    choices = {}
    for line in expected.values():
        choices.setdefault(line["kind"], set()).add(line["answer"])
    questions = []
    for request in lines("eval/requests.jsonl"):
        if request["id"] not in expected:
            continue
        kind, answer = (expected[request["id"]][name] for name in ("kind", "answer"))
        [image], [question] = request["images"], request["prompts"]
        questions.append(
            {
                "id": request["id"],
                "kind": kind,
                "image": f"../eval/{image}",
                "question": question,
                "choices": sorted(choices[kind]),
                "answers": [answer],
            }
        )
    folder = SHAPES / "ranking"
    (folder / "questions.jsonl").write_text("".join(f"{json.dumps(question)}\n" for question in questions))
    (folder / "words.txt").write_text("".join(f"{word}\n" for word in sorted(set().union(*choices.values()))))


if __name__ == "__main__":
    main()
