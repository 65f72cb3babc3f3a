"""Makes the goldens of the processor: what Pillow, tokenizers and Hugging Face's InstructBlipProcessor return.

    python make.py --out data             all goldens, with the tokenizers that are there
    python make.py --out data image_files  one part: image_files, encodings, processors, siblings or torch_backend
    python make.py --out data train       new tokenizers first: training breaks ties at random, so that their ids change

Needs ../requirements.txt. The tokenizers are real ones, trained on a small text. Nothing here knows the TypeScript side.
"""

import argparse
import gzip
import json
import logging
import warnings
from pathlib import Path

import image_files
import processors
import siblings
import texts
import torch_backend
import vocabularies


def write(path, value):
    """Compact JSON, gzipped without a time stamp: the same input gives the same bytes."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))


def make_image_files(out):
    folder = out / "images"
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in image_files.files().items():
        (folder / name).write_bytes(data)
    write(
        out / "image_files.json.gz",
        {"sizes": image_files.SIZES, "files": image_files.decoded(), "resizes": image_files.resizes(), "tensors": image_files.tensors()},
    )


def read(path):
    return json.loads(gzip.decompress(path.read_bytes()))


def make_vocabularies(out):
    write(out / "tokenizers.json.gz", vocabularies.tokenizers())


def make_encodings(out):
    files = read(out / "tokenizers.json.gz")
    lines = texts.texts()
    golden = {"texts": lines, "option_texts": texts.ROWS, "tokenizers": {}}
    for name in files:
        tokenizer = vocabularies.loaded(files, name)
        ids = tokenizer(lines, return_token_type_ids=False)["input_ids"]
        rows = texts.id_rows(len(tokenizer))
        golden["tokenizers"][name] = {
            "class": type(tokenizer).__name__,
            "length": len(tokenizer),
            "padding_side": tokenizer.padding_side,
            "truncation_side": tokenizer.truncation_side,
            "special_tokens_map": tokenizer.special_tokens_map,
            "special_ids": {k: getattr(tokenizer, k + "_id") for k in tokenizer.special_tokens_map},
            "ids": ids,
            "options": [[o, outcome(lambda o=o: tokenizer(texts.ROWS, return_token_type_ids=False, **o))] for o in texts.OPTIONS],
            "plain": tokenizer(lines[:40], add_special_tokens=False)["input_ids"],
            "text": tokenizer.batch_decode(ids),
            "text_without_special": tokenizer.batch_decode(ids, skip_special_tokens=True),
            "rows": rows,
            "row_text": [tokenizer.decode(r) for r in rows],
            "row_text_cleaned": [tokenizer.decode(r, skip_special_tokens=True, clean_up_tokenization_spaces=True) for r in rows],
            "row_text_raw": [tokenizer.decode(r, skip_special_tokens=True, clean_up_tokenization_spaces=False) for r in rows],
        }
    write(out / "encodings.json.gz", golden)


def outcome(call):
    """What a call returns, or that it raises: messages are not compared."""
    try:
        return dict(call())
    except Exception as error:
        return {"error": type(error).__name__}


def make_processors(out):
    files = read(out / "tokenizers.json.gz")
    write(out / "processors.json.gz", processors.goldens(files, outcome))


def make_siblings(out):
    files = read(out / "tokenizers.json.gz")
    write(out / "siblings.json.gz", siblings.goldens(files, outcome))


def make_torch_backend(out):
    write(out / "torch_backend.json.gz", torch_backend.goldens())


PARTS = {
    "train": make_vocabularies,
    "image_files": make_image_files,
    "encodings": make_encodings,
    "processors": make_processors,
    "siblings": make_siblings,
    "torch_backend": make_torch_backend,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="*", choices=[*PARTS, []], help="default: all but train")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    for part in PARTS:
        if part in args.part or (not args.part and part != "train"):
            PARTS[part](args.out)
    print(sum(f.stat().st_size for f in args.out.rglob("*") if f.is_file()), "bytes in", args.out)


if __name__ == "__main__":
    main()
