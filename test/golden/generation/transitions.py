"""Makes the goldens of transition scores: what compute_transition_scores gives for the searches of make.py.

    python transitions.py     writes data/transitions.json.gz

Every third search of data/goldens.json.gz, and of data/marked.json.gz those with guidance: run again, which must give the
same sequences, then the transition scores, raw and normalised. Null stands for minus infinity.
"""

import gzip
import json

import torch

import make

EVERY = 3


def read(name):
    return json.loads(gzip.decompress((make.DATA / name).read_bytes()))


def rows(scores):
    """Six decimals: sums and logarithms in f32 differ by more."""
    return [[None if x == float("-inf") else round(x, 6) for x in row] for row in scores.tolist()]


@torch.no_grad()
def transitions(case):
    ids = case["ids"]
    model = make.model_of(case.get("encoder_decoder", False), **ids)
    given = make.as_objects(case["kwargs"])
    if case.get("encoder_decoder"):
        given["decoder_start_token_id"] = ids["decoder_start_token_id"]
    more = {"output_scores": True, "return_dict_in_generate": True, "use_cache": False}
    prompt = torch.tensor(case["prompt"])
    out = model.generate(prompt, attention_mask=torch.ones_like(prompt), **given, **more)
    assert out.sequences.tolist() == case["sequences"], case["kwargs"]
    # Beams without any end id are filled with -1, of which the method would ask for a score.
    sequences, beams = out.sequences.clamp(min=0), out.get("beam_indices")
    raw, normalised = (
        model.compute_transition_scores(sequences, out.scores, beams, normalize_logits=yes) for yes in (False, True)
    )
    assert not normalised.isnan().any(), case["kwargs"]
    return {"raw": rows(raw), "normalised": rows(normalised)}


if __name__ == "__main__":
    torch.set_num_threads(1)
    goldens, marked = read("goldens.json.gz"), read("marked.json.gz")
    chosen = [("beams_144", i) for i in range(0, 144, EVERY)]
    chosen += [("searches", i) for i in range(0, len(goldens["searches"]), EVERY)]
    chosen += [("marked", i) for i, case in enumerate(marked["searches"]) if "guidance_scale" in case["kwargs"]]
    cases = {**goldens, "marked": marked["searches"]}
    found = [{"of": name, "at": i, **transitions(cases[name][i])} for name, i in chosen]
    make.write("transitions.json.gz", found)
    print(len(found), "searches")
