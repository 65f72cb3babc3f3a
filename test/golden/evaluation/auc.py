"""Makes the golden of the area under the ROC curve: what scikit-learn's roc_auc_score answers.

    python auc.py        writes data/auc.json; needs numpy and scikit-learn 1.5 or later
"""

import json
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

SEED = 11


def main():
    rng = np.random.default_rng(SEED)
    cases = []

    def add(name, labels, scores):
        labels, scores = np.asarray(labels, int), np.asarray(scores, float)
        area = float(roc_auc_score(labels, scores))
        cases.append({"name": name, "labels": labels.tolist(), "scores": scores.tolist(), "area": area})

    add("perfect", [0, 0, 1, 1], [0.1, 0.4, 0.5, 0.8])
    add("inverted", [1, 1, 0, 0], [0.1, 0.4, 0.5, 0.8])
    add("all the same", [0, 1, 1, 0, 1], [3, 3, 3, 3, 3])
    add("one of each", [1, 0], [-1, -1])
    add("scikit-learn's example", [0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    for n in (2, 3, 10, 57, 200):
        for ties in (1, 4, 1000):
            labels = rng.permutation([0, 1] + rng.integers(0, 2, n).tolist())
            scores = np.round(rng.normal(0, 1, len(labels)) * ties + labels * 0.7 * ties) / ties
            add(f"{len(labels)} questions, steps of 1/{ties}", labels, scores)
    add("few positives", [1] * 3 + [0] * 120, rng.normal(0, 1, 123).round(2))
    path = Path(__file__).parent / "data" / "auc.json"
    path.write_text("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")


if __name__ == "__main__":
    main()
