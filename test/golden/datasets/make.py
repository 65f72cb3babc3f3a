"""Makes the data sets that test/instructblip/data reads.

    pip install pyarrow datasets pillow && python test/golden/datasets/make.py

data/files.json.gz has every file in base64: six questions of examples/shapes/eval in every format that `evaluate` and
`generate --requests` read, written by pyarrow, Hugging Face's datasets and tarfile; and a table of every type, with what pyarrow
reads back. data/compressed.json.gz has those that are compressed, or whose rows are chosen by indices; `make.py compressed` makes
it alone, and `make.py views` data/views.json.gz, of Arrow's views, which polars writes by default.
"""

import base64
import gzip
import hashlib
import io
import json
import random
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq

HERE = Path(__file__).parent
OUT = Path(tempfile.mkdtemp())
EVAL = HERE.parents[2] / "examples" / "shapes" / "eval"
datasets.disable_progress_bars()

FROM, N = 54, 6


def lines(name):
    return [json.loads(line) for line in (EVAL / name).read_text().splitlines()][FROM : FROM + N]


QUESTIONS = [
    {
        "id": request["id"],
        "image": request["images"][0].removeprefix("images/"),
        "question": request["prompts"][0],
        "answers": [expected["answer"], f"a {expected['answer']}"],
        "kind": expected["kind"],
    }
    for request, expected in zip(lines("requests.jsonl"), lines("expected.jsonl"))
]


def bytes_of(name):
    return (EVAL / "images" / name).read_bytes()


def embedded(question):
    return {**question, "image": {"bytes": bytes_of(question["image"]), "path": question["image"]}}


def write_tar(name, questions, format, folder="", mode="w"):
    with tarfile.open(OUT / name, mode, format=format) as tar:
        def add(member, content):
            info = tarfile.TarInfo(member)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))

        for question in questions:
            stem = folder + question["id"]
            rest = {key: value for key, value in question.items() if key not in ("image", "question")}
            add(f"{stem}.png", bytes_of(question["image"]))
            add(f"{stem}.json", json.dumps(rest).encode())
            add(f"{stem}.txt", question["question"].encode())


FEATURES = datasets.Features(
    {
        "id": datasets.Value("string"),
        "image": datasets.Image(decode=False),
        "question": datasets.Value("string"),
        "answers": datasets.Sequence(datasets.Value("string")),
        "kind": datasets.Value("string"),
    }
)

TYPES = pa.table(
    {
        "int8": pa.array([1, None, -128], pa.int8()),
        "uint32": pa.array([1, None, 2**32 - 1], pa.uint32()),
        "int64": pa.array([1, None, -(2**53) + 1], pa.int64()),
        "large": pa.array([2**62, None, -(2**63)], pa.int64()),
        "float": pa.array([0.5, None, -2.0], pa.float32()),
        "double": pa.array([0.1, None, 1e300], pa.float64()),
        "bool": pa.array([True, None, False]),
        "text": pa.array(["é😀", None, ""]),
        "large_text": pa.array(["a", None, "b" * 300], pa.large_string()),
        "word": pa.array(["a", None, "a"]).dictionary_encode(),
        "list": pa.array([["a", "b"], None, []]),
        "numbers": pa.array([[1, 2], None, [3, None]], pa.list_(pa.int32())),
        "nested": pa.array([[["a"], []], None, [None, ["b", None]]]),
        "struct": pa.array([{"a": 1, "b": ["x"]}, None, {"a": None, "b": None}]),
        "structs": pa.array([[{"a": 1}, {"a": 2}], [], [None]]),
        "null": pa.array([None, None, None], pa.null()),
    }
)


def types_read_back():
    rows = TYPES.to_pylist()
    for row in rows:
        if row["large"] is not None:
            row["large"] = str(row["large"])  # a double cannot hold it
    return rows


def write_arrow(name, table, codec, chunk=None):
    options = pa.ipc.IpcWriteOptions(compression=codec)
    with pa.OSFile(str(OUT / name), "wb") as sink, pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=chunk)


def long_texts():
    """Texts of more than one block of LZ4, which go on from each other, and one that cannot be compressed."""
    drawn = random.Random(7)
    letters = "".join(drawn.choices("abcdefghijklmnopqrstuvwxyz", k=997))
    noise = "".join(chr(drawn.randrange(33, 127)) for _ in range(300))
    return pa.table({"text": ["".join(f"{letters}{i}" for i in range(150)), noise, "a" * 70_000]})


def write_chosen(folder):
    """As `save_to_disk` of datasets 1 after select or shuffle: `_indices_data_files` in state.json, which datasets 2 flattens."""
    rows = [embedded(question) for question in QUESTIONS]
    backwards = datasets.Dataset.from_list([*reversed(rows), rows[0]], features=FEATURES)
    backwards.save_to_disk(OUT / folder, num_shards=2)
    chosen = backwards.select(list(reversed(range(N))))
    assert [row["id"] for row in chosen] == [question["id"] for question in QUESTIONS]
    indices = chosen._indices.table
    assert indices.column_names == ["indices"] and indices.schema.field("indices").type == pa.uint64()
    with pa.OSFile(str(OUT / folder / "indices.arrow"), "wb") as sink, pa.ipc.new_stream(sink, indices.schema) as writer:
        writer.write_table(indices)
    state = json.loads((OUT / folder / "state.json").read_text())
    state["_indices_data_files"] = [{"filename": "indices.arrow"}]
    (OUT / folder / "state.json").write_text(json.dumps(state))


def compressed():
    questions = pa.Table.from_pylist([embedded(question) for question in QUESTIONS])
    feather.write_feather(questions, str(OUT / "feather.arrow"), chunksize=4)  # LZ4, as by default
    for codec in ["lz4", "zstd"]:
        write_arrow(f"types_{codec}.arrow", TYPES, codec, chunk=2)
        write_arrow(f"long_{codec}.arrow", long_texts(), codec)
    texts = long_texts()["text"].to_pylist()
    (OUT / "long.json").write_text(json.dumps([hashlib.sha256(text.encode()).hexdigest() for text in texts]))
    (OUT / "shards_gz").mkdir()
    write_tar("shards_gz/000000.tar.gz", QUESTIONS[:3], tarfile.USTAR_FORMAT, mode="w:gz")
    write_tar("shards_gz/000001.tgz", QUESTIONS[3:], tarfile.PAX_FORMAT, mode="w:gz")
    write_chosen("chosen")


def views():
    """A view is of up to 12 bytes itself, or leads to a buffer of the batch."""
    long = "a text of more than twelve bytes"
    table = pa.table(
        {
            "image": pa.array([b"a", None, long.encode()], pa.binary_view()),
            "images": pa.array([[b"a", long.encode()], [], [b"d"]], pa.list_(pa.binary_view())),
            "question": pa.array([long, "short", None], pa.string_view()),
            "answers": pa.array([["a", long], None, []], pa.list_(pa.string_view())),
        }
    )
    write_arrow("views.arrow", table, None, chunk=2)
    write_arrow("views_lz4.arrow", table, "lz4")


def main():
    (OUT / "paths.jsonl").write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS))
    (OUT / "paths.json").write_text(json.dumps(QUESTIONS, indent=1))
    table = pa.Table.from_pylist(QUESTIONS)
    for codec in ["none", "snappy", "gzip", "brotli", "zstd", "lz4"]:
        pq.write_table(table, OUT / f"{codec}.parquet", compression=codec)
    pq.write_table(
        table,
        OUT / "pages.parquet",
        data_page_version="2.0",
        use_dictionary=False,
        column_encoding={"id": "DELTA_BYTE_ARRAY", "question": "DELTA_LENGTH_BYTE_ARRAY"},
        row_group_size=4,
        data_page_size=64,
        write_page_index=True,
    )
    # Columns by other names, whole numbers as ids, images as bytes, answers as in VQAv2.
    other = [
        {
            "question_id": int(question["id"]),
            "picture": bytes_of(question["image"]),
            "asked": question["question"],
            "answers": [{"answer": answer, "answer_id": i + 1} for i, answer in enumerate(question["answers"])],
            "kind": question["kind"],
        }
        for question in QUESTIONS
    ]
    pq.write_table(pa.Table.from_pylist(other), OUT / "other_names.parquet", row_group_size=2)

    whole = datasets.Dataset.from_list([embedded(question) for question in QUESTIONS], features=FEATURES)
    hub = OUT / "hub" / "data"
    hub.mkdir(parents=True)
    for i in range(2):
        whole.shard(2, i, contiguous=True).to_parquet(hub / f"train-{i:05}-of-00002.parquet")
    whole.select([0]).to_parquet(hub / "test-00000-of-00001.parquet")
    whole.save_to_disk(OUT / "saved", num_shards=2)
    small = whole.select([1, 0, 2]).flatten_indices()
    datasets.DatasetDict({"train": small, "test": whole.select([0])}).save_to_disk(OUT / "saved_dict")
    feather.write_feather(whole.data.table, str(OUT / "file.arrow"), compression="uncompressed", chunksize=4)

    shards = OUT / "shards"
    shards.mkdir()
    write_tar("shards/000000.tar", QUESTIONS[:3], tarfile.USTAR_FORMAT)
    write_tar("shards/000001.tar", QUESTIONS[3:], tarfile.PAX_FORMAT)
    write_tar("long_names_pax.tar", QUESTIONS[:1], tarfile.PAX_FORMAT, "é" * 80 + "/")
    write_tar("long_names_gnu.tar", QUESTIONS[:1], tarfile.GNU_FORMAT, "e" * 160 + "/")

    # Images in lists, of bytes alone: two, none, one.
    images = [[b"a", b"bc"], [], [b"d"]]
    lists = {"bytes": images, "structs": [[{"bytes": one} for one in row] for row in images]}
    pq.write_table(pa.table(lists), OUT / "lists.parquet", compression="none", write_statistics=False, store_schema=False)

    pq.write_table(TYPES, OUT / "types.parquet")
    with pa.OSFile(str(OUT / "types.arrow"), "wb") as sink, pa.ipc.new_stream(sink, TYPES.schema) as writer:
        writer.write_table(TYPES, max_chunksize=2)
    (OUT / "types.json").write_text(json.dumps(types_read_back(), ensure_ascii=False))


def pack(name):
    """All that is in OUT, which is empty then."""
    for info in OUT.rglob("dataset_info.json"):
        info.unlink()  # it has the paths of the machine that wrote it
    files = {
        str(file.relative_to(OUT)): base64.b64encode(file.read_bytes()).decode()
        for file in sorted(OUT.rglob("*"))
        if file.is_file()
    }
    (HERE / "data").mkdir(exist_ok=True)
    (HERE / "data" / name).write_bytes(gzip.compress(json.dumps(files).encode(), mtime=0))
    for file in OUT.iterdir():
        shutil.rmtree(file) if file.is_dir() else file.unlink()


if __name__ == "__main__":
    asked = sys.argv[1:] or ["files", "compressed", "views"]
    for name, make in [("files", main), ("compressed", compressed), ("views", views)]:
        if name in asked:
            make()
            pack(f"{name}.json.gz")
