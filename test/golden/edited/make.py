"""Makes goldens of interventions: cases as live parity draws them, of committed goldens, and what PyTorch gives by hooks.

    python make.py [NAME …]      (default: all; test/golden/requirements.txt says with what)

The models and inputs are those of ../data and ../siblings, as committed. Each data/NAME.json has the cases of
../interventions.py, and of each the logits of the last token, or the sequences.
"""

import importlib.util
import json
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
import composites  # noqa: E402
import interventions  # noqa: E402

found = importlib.util.spec_from_file_location("outputs_make", HERE.parent / "outputs" / "make.py")
outputs = importlib.util.module_from_spec(found)
found.loader.exec_module(outputs)

SEED = 1
ROUNDS = 2  # of every kind of call
# The three language models, in batches with padding on both sides; no text in the Q-Former; frames.
NAMES = ("grouped_heads_bf16", "t5_flan", "opt_plain", "blip2_opt", "video_3_frames_t5")


def make(name):
    """Writes one golden."""
    model, inputs, _ = outputs.load(name)
    folder = next(parent / name for parent in outputs.FOLDERS if (parent / name).exists())
    about = json.loads((folder / "golden.json").read_text())
    composite = SimpleNamespace(model=model, spec=about["spec"], inputs=lambda: inputs)
    vocabulary = model.language_model.lm_head.out_features
    rng = np.random.default_rng([SEED, zlib.crc32(name.encode())])
    setting = SimpleNamespace(vocabulary=vocabulary, unreached=[vocabulary - 2])
    cases = []
    for _ in range(ROUNDS):
        for case in interventions.draw_cases(rng, composite, setting):
            (tensor,) = interventions.record(model, about["spec"], inputs, composites.options_of(about["spec"]), case).values()
            if case["call"] == "forward":
                result = {"logits": [[float(f"{x:.9g}") for x in row] for row in tensor[:, -1].tolist()]}
            else:
                result = {"sequences": tensor.tolist()}
            cases.append({**case, **result})
    path = HERE / "data" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")
    print(f"{name}: {len(cases)} cases, {path.stat().st_size / 1000:.0f} kB", file=sys.stderr)


if __name__ == "__main__":
    for name in sys.argv[1:] or NAMES:
        make(name)
