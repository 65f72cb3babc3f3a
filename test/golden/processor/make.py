"""Makes the goldens of the processor: what Pillow, tokenizers and Hugging Face's InstructBlipProcessor return.

    python make.py --out data            all of it
    python make.py --out data pictures   one part: pictures, tokenizers or processor

Needs ../requirements.txt. The tokenizers are real ones, trained here on a small text. Nothing here knows the TypeScript side.
"""

import argparse
import gzip
import json
import logging
import warnings
from pathlib import Path

import pictures


def write(path, value):
    """Compact JSON, gzipped without a time stamp: the same input gives the same bytes."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))


def make_pictures(out):
    folder = out / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in pictures.files().items():
        (folder / name).write_bytes(data)
    write(
        out / "pictures.json.gz",
        {"sizes": pictures.SIZES, "files": pictures.decoded(), "resizes": pictures.resizes(), "tensors": pictures.tensors()},
    )


PARTS = {"pictures": make_pictures}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="*", choices=[*PARTS, []], help="default: all")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    for part in args.part or PARTS:
        PARTS[part](args.out)
    print(sum(f.stat().st_size for f in args.out.rglob("*") if f.is_file()), "bytes in", args.out)


if __name__ == "__main__":
    main()
