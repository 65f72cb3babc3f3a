"""Makes the goldens of the evaluation: what the published evaluation codes themselves answer.

    python make.py SOURCES        writes data/metrics.json.gz

SOURCES is a folder with three files of public repositories, which are run and not copied here:

    vqaEval.py        GT-Vision-Lab/VQA, PythonEvaluationTools/vqaEvaluation/, at a013f00 (its Python 2 prints are dropped)
    vqa_eval.py       salesforce/LAVIS, lavis/common/vqa_tools/, at 506965b
    cider_scorer.py   salaniz/pycocoevalcap (version 1.2), cider/, at ad63453

Needs numpy. The same sources give the same bytes; their SHA-256 are in the golden.
"""

import gzip
import hashlib
import importlib.util
import json
import random
import re
import sys
import tempfile
import warnings
from pathlib import Path

OUT = Path(__file__).parent / "data" / "metrics.json.gz"
FILES = ["vqaEval.py", "vqa_eval.py", "cider_scorer.py"]
PUNCTUATION = list(";/[]\"{}()=+\\_-><@`,?!") + [".", "'", ":", "%", "$", "&"]
BLANKS = [" ", "  ", "\t", "\n", "\v", "\x1c", "\x1f", "\u00a0", "\u2003", "\u0085", "\ufeff"]  # the last is none to Python
WORDS = """yes no a an the red blue dog dogs 2 3 10 1,000 2.5 .5 5. 3,4 none zero one two three four five six seven eight nine
ten eleven None TWO The A An it's its don't dont cant can't couldnt've couldn'tve wheres theyre y'all'dve yall'll ow's'at
'ows'at Im I'dve somebody'd lets twas o'clock oclock left-handed t-shirt black/white u.s. U.S. a.m. 7:30 50% $5 #1 @home
e.g. café CAFÉ İstanbul ΣΑΣ ٣ ٣,٤ ٣.٤ １２ x² 日本 ... .. . , ! ? - -- _ (a) [b] {c} <d> "e" `f` \\ / = + ; :""".split()


def load(path, drop_prints=False):
    text = path.read_text()
    if drop_prints:
        text = re.sub(r'^(\s*)print (".*")$', r"\1pass", text, flags=re.M)
    copy = Path(tempfile.mkdtemp()) / path.name
    copy.write_text(text)
    spec = importlib.util.spec_from_file_location(path.stem, copy)
    module = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # escapes in their strings
        spec.loader.exec_module(module)
    return module


class Answers:
    """As much of the VQA class as the evaluation asks for."""

    def __init__(self, qa):
        self.qa = qa

    def getQuesIds(self):
        return list(self.qa)


def score(module, prediction, answers):
    """Of one question, unrounded."""
    listed = [{"answer": answer, "answer_id": i + 1} for i, answer in enumerate(answers)]
    truth = Answers({1: {"answers": listed, "question_type": "q", "answer_type": "a"}})
    evaluation = module.VQAEval(truth, Answers({1: {"answer": prediction}}), n=15)
    evaluation.updateProgress = lambda progress: None
    evaluation.evaluate()
    return evaluation.accuracy["overall"] / 100


def phrase(rng):
    words = [rng.choice(WORDS) for _ in range(rng.choice([0, 1, 1, 1, 2, 3, 5]))]
    text = "".join(word + rng.choice(BLANKS if rng.random() < 0.2 else [" ", " ", " ", ""]) for word in words)
    for _ in range(rng.choice([0, 0, 1, 2])):
        at = rng.randint(0, len(text))
        text = text[:at] + rng.choice(PUNCTUATION) + text[at:]
    return text


def variant(rng, text):
    """The same answer as another annotator might write it."""
    how = rng.randrange(9)
    if how == 0:
        return text.upper()
    if how == 1:
        return "the " + text
    if how == 2:
        return text + "."
    if how == 3:
        return text.replace(" ", "-")
    if how == 4:
        return f" {text}\n"
    if how == 5:
        return f"{rng.choice(BLANKS)}{text}{rng.choice(BLANKS)}"
    return text


def texts(rng):
    made = ["", " ", "." * 31, "." * 32, "." * 33, ". " * 40, "a.b" * 40, "1.2.3", "1,2", "a,b 1,2", "the", "a a the"]
    made += [f"{blank}two{blank}the" for blank in BLANKS]
    made += WORDS + [f"x{p}y" for p in PUNCTUATION] + [f"x {p}y" for p in PUNCTUATION] + [f"x{p} y 1,2" for p in PUNCTUATION]
    return made + [phrase(rng) for _ in range(300)]


def vqa(rng, official, lavis):
    rules = official.VQAEval(Answers({}), Answers({}))
    same = lavis.VQAEval(Answers({}), Answers({}))
    normalised = []
    for text in texts(rng):
        both = [[e.processPunctuation(text), e.processDigitArticle(text)] for e in (rules, same)]
        assert both[0] == both[1], text  # the two differ in what they apply this to, not in the rules
        normalised.append([text, *both[0]])
    scores = []
    for n in range(400):
        pool = [phrase(rng) for _ in range(rng.choice([1, 2, 3, 4]))]
        count = rng.choice([10, 10, 10, 5, 4])
        answers = [rng.choice(pool) for _ in range(count)]
        if n % 4:
            answers = [variant(rng, answer) for answer in answers]
        if n % 10 == 0:
            answers = [answers[0]] * count
        prediction = variant(rng, rng.choice(answers)) if n % 5 else phrase(rng)
        case = {"prediction": prediction, "answers": answers}
        for name, module in ("official", official), ("lavis", lavis):
            case[name] = score(module, prediction, answers)
        scores.append(case)
    assert sum(case["official"] != case["lavis"] for case in scores) > 20
    return {"normalised": normalised, "scores": scores}


def cider(rng, module):
    """Corpora of tokenized captions, with the score of every image."""
    words = "a the man woman dog cat red blue on in with and bench street sitting standing rides bike two of".split()

    def caption(low=1):
        return " ".join(rng.choice(words) for _ in range(rng.choice([low, 3, 6, 9, 12, 20])))

    corpora = []
    for size in (1, 2, 7, 40, 200):
        corpus = []
        for n in range(size):
            references = [caption() for _ in range(rng.choice([1, 2, 5]))]
            kept = rng.choice(references).split()
            del kept[rng.randrange(len(kept)) :: 4]
            prediction = ["", caption(0), references[0], " ".join(kept), " ".join(kept + kept)][n % 5 if n else 3]
            corpus.append({"prediction": prediction, "references": references})
        scorer = module.CiderScorer()
        for item in corpus:
            scorer += (item["prediction"], item["references"])
        mean, scores = scorer.compute_score()
        corpora.append({"items": corpus, "mean": float(mean), "scores": [float(s) for s in scores]})
    return corpora


def main():
    sources = Path(sys.argv[1])
    official, lavis, scorer = (load(sources / name, drop_prints=name == "vqaEval.py") for name in FILES)
    lavis.print = lambda *_: None
    golden = {
        "sources": {name: hashlib.sha256((sources / name).read_bytes()).hexdigest() for name in FILES},
        "vqa": vqa(random.Random(1), official, lavis),
        "cider": cider(random.Random(2), scorer),
    }
    text = json.dumps(golden, ensure_ascii=True, separators=(",", ":"))
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    scores = [item["official"] for item in golden["vqa"]["scores"]]
    print(f"{len(scores)} answers, mean {sum(scores) / len(scores):.3f}; {len(golden['vqa']['normalised'])} texts")


if __name__ == "__main__":
    main()
